//! Who may set a second factor up. In a session the first one asks for the password along with the request, a further one
//! for a step-up; who comes from a log-in that opens nothing else has just given the password.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::Auth;
use crate::auth::attempts::{Attempt, Locked, Target};
use crate::auth::step_up::{self, Compared};
use crate::context::Context;
use crate::db::credentials::{self, Credentials};
use crate::db::second_factors as db;
use crate::error::ApiError;

/// A request to set a second factor up.
pub struct SetUp {
    pub auth: Arc<Auth>,
    pub access: Access,
    pub context: Context,
    user_id: Uuid,
    password: Option<Compared>,
    /// When it arrived.
    pub now: DateTime<Utc>,
}

/// What the request proved. Refusals are committed with their traces before they are answered.
pub enum Proven {
    /// The user, locked.
    By(Credentials),
    Wrong,
    Locked(Locked, DateTime<Utc>),
}

impl Proven {
    pub fn problem(self) -> ApiError {
        match self {
            Proven::Locked(locked, now) => locked.problem(now),
            Proven::By(_) | Proven::Wrong => ApiError::unauthenticated(),
        }
    }
}

impl SetUp {
    pub async fn new(
        app: &AppState,
        access: Access,
        context: Context,
        password: Option<String>,
    ) -> Result<Self, ApiError> {
        let (now, user_id) = (Utc::now(), access.require_user()?.0);
        let password = match password.filter(|_| access.session.is_some()) {
            Some(password) => {
                let user = credentials::of_user(&app.reads, user_id).await?.ok_or_else(ApiError::unauthenticated)?;
                Some(Compared::with_stored(app, &user, password).await?)
            }
            None => None,
        };
        Ok(SetUp { auth: Arc::clone(&app.auth), access, context, user_id, password, now })
    }

    pub fn entry(&self, action: &'static str) -> Entry<'static> {
        Entry::done(&self.access.principal, action, format!("user/{}", self.user_id))
    }

    /// `action` is what a refusal is written down as.
    pub async fn prove(&self, tx: &mut PgTx, action: &'static str) -> Result<Proven, ApiError> {
        let SetUp { access, context, user_id, password, now, .. } = self;
        let attempt = match password {
            None => None,
            Some(password) => {
                match Attempt::begin(tx, Target::log_in(&password.login, &context.address), *now).await? {
                    Ok(attempt) => Some(attempt),
                    Err(locked) => {
                        audit::record(tx, context, self.entry(action).refused().because("locked")).await?;
                        return Ok(Proven::Locked(locked, *now));
                    }
                }
            }
        };
        let user = credentials::lock(tx, *user_id).await?.ok_or_else(ApiError::unauthenticated)?;
        if db::lock(tx, *user_id).await?.is_some_and(|factor| factor.secret.is_some()) {
            step_up::require(tx, access).await?;
            return Ok(Proven::By(user));
        }
        let Some(session) = access.session else { return Ok(Proven::By(user)) };
        let (Some(password), Some(attempt)) = (password, attempt) else {
            return Err(ApiError::invalid_value("/password", "is needed while there is no second factor"));
        };
        if !password.is_of(&user) {
            step_up::failed(tx, attempt, (access, session), context, self.entry(action)).await?;
            return Ok(Proven::Wrong);
        }
        attempt.succeeded(tx).await?;
        Ok(Proven::By(user))
    }
}
