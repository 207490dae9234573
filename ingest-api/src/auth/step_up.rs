//! Step-up: what changes who may do what asks for everything the user can prove, at most five minutes ago. A log-in
//! counts, and so does `POST /auth/step-up`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::Auth;
use crate::auth::attempts::{Attempt, Locked, Target};
use crate::auth::passwords::PASSWORD_BYTES_MAX;
use crate::auth::second_factor::{self, Code, Given};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::credentials::{self, Credentials};
use crate::db::sessions as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, Valid};

/// How long a proof lasts.
pub const FRESH_SECONDS: i64 = 300;
/// Wrong proofs in a row that end a session: whoever holds it is not its user.
const FAILURES_MAX: i32 = 5;

/// 403 `reauth_required` unless the session's user proved all they have at most five minutes ago.
pub async fn require(conn: &mut PgConnection, access: &Access) -> Result<(), ApiError> {
    let proved_at = match access.session {
        Some(session) => db::proved_at(conn, session).await?,
        None => None,
    };
    let oldest = Utc::now() - TimeDelta::seconds(FRESH_SECONDS);
    if proved_at.is_some_and(|at| at >= oldest) {
        return Ok(());
    }
    Err(ApiError::forbidden("reauth_required", "prove who you are once more: POST /auth/step-up"))
}

/// A code of the second factor; the password only from who has no second factor.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// Six digits.
    pub totp: Option<String>,
    pub recovery_code: Option<String>,
    pub password: Option<String>,
}

impl Body for StepUp {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        let given = [&self.totp, &self.recovery_code, &self.password].into_iter().flatten().count();
        checks.that(given == 1, "/totp", "one of totp, recovery_code and password is needed");
        second_factor::check_codes(checks, &self.totp, &self.recovery_code);
    }
}

/// Until when acts that ask for a step-up are open.
#[derive(Debug, Serialize, ToSchema)]
pub struct SteppedUp {
    pub fresh_until: DateTime<Utc>,
}

enum Outcome {
    Fresh(DateTime<Utc>),
    Locked(Locked),
    Wrong,
}

struct Input {
    auth: Arc<Auth>,
    access: Access,
    context: Context,
    session: Uuid,
    login: String,
    code: Code,
    password: Option<Compared>,
    now: DateTime<Utc>,
}

/// A password that came with a request of a session.
pub struct Compared {
    pub login: String,
    is_right: bool,
    /// What it was compared with.
    hash: Option<String>,
}

impl Compared {
    pub async fn with_stored(app: &AppState, user: &Credentials, password: String) -> Result<Self, ApiError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(ApiError::from_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let (login, hash) = (user.login.clone(), user.password_hash.clone());
        let is_right = app.auth.passwords.check(password, hash.clone()).await?.is_right;
        Ok(Compared { login, is_right, hash })
    }

    /// Whether it is the password of this user, as locked now.
    pub fn is_of(&self, user: &Credentials) -> bool {
        self.is_right && self.hash == user.password_hash
    }
}

/// `POST /auth/step-up`
pub async fn step_up(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(StepUp { totp, recovery_code, password }): Valid<StepUp>,
) -> Result<Response, ApiError> {
    let (now, user_id) = (Utc::now(), access.require_user()?);
    let session = access.session.ok_or_else(ApiError::unauthenticated)?;
    let user = credentials::of_user(&app.reads, user_id.0).await?.ok_or_else(ApiError::unauthenticated)?;
    let password = match password {
        Some(password) => Some(Compared::with_stored(&app, &user, password).await?),
        None => None,
    };
    let auth = Arc::clone(&app.auth);
    let code = Code { totp, recovery_code };
    let input = Input { auth, access, context, session, login: user.login, code, password, now };
    match app.writer.write(input, |tx, input| Box::pin(prove(tx, input))).await? {
        Outcome::Fresh(fresh_until) => json_response(StatusCode::OK, &SteppedUp { fresh_until }),
        Outcome::Locked(locked) => Err(locked.problem(now)),
        Outcome::Wrong => Err(ApiError::unauthenticated()),
    }
}

async fn prove(tx: &mut PgTx, input: &Input) -> Result<Outcome, ApiError> {
    let Input { auth, access, context, session, login, code, password, now } = input;
    let user_id = access.require_user()?.0;
    let entry = Entry::done(&access.principal, "auth.step_up", format!("session/{session}"));
    let attempt = match Attempt::begin(tx, Target::log_in(login, &context.address), *now).await? {
        Ok(attempt) => attempt,
        Err(locked) => {
            audit::record(tx, context, entry.refused().because("locked")).await?;
            return Ok(Outcome::Locked(locked));
        }
    };
    let user = credentials::lock(tx, user_id).await?.ok_or_else(ApiError::unauthenticated)?;
    if !db::lock_live(tx, *session).await? {
        return Err(ApiError::unauthenticated());
    }
    let is_proof = match second_factor::given(tx, auth, &user, code, *now).await? {
        Given::Right => true,
        Given::None => password.as_ref().is_some_and(|password| password.is_of(&user)),
        Given::Missing | Given::Wrong => false,
    };
    if !is_proof {
        failed(tx, attempt, (access, *session), context, entry).await?;
        return Ok(Outcome::Wrong);
    }
    attempt.succeeded(tx).await?;
    db::prove(tx, *session, *now).await?;
    audit::record(tx, context, entry).await?;
    Ok(Outcome::Fresh(*now + TimeDelta::seconds(FRESH_SECONDS)))
}

/// Counts and writes down a wrong proof of a session; the fifth in a row ends it.
pub async fn failed(
    tx: &mut PgTx,
    attempt: Attempt,
    (access, session): (&Access, Uuid),
    context: &Context,
    entry: Entry<'_>,
) -> Result<(), ApiError> {
    attempt.failed(tx).await?;
    let mut entry = entry.refused();
    if db::fail_proof(tx, session).await? >= FAILURES_MAX {
        db::end(tx, access.require_user()?.0, Some(session), "proofs were wrong").await?;
        entry = entry.because("the session is ended");
    }
    audit::record(tx, context, entry).await?;
    Ok(())
}
