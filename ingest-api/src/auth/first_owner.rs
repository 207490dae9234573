//! The first owner, and the way back in for who lost everything: tasks of the command line, for whoever may configure the
//! platform anyway.

use std::fmt;

use chrono::{TimeDelta, Utc};
use runtime::pg::Writer;
use uuid::Uuid;

use crate::access::{Role, RoleName};
use crate::audit::{self, Entry};
use crate::auth::account::RESET_HOURS;
use crate::auth::codes::{grouped, hash_code, random_text};
use crate::auth::login::check_login;
use crate::auth::passwords::Passwords;
use crate::auth::{attempts, sessions};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::catalog_writes::CatalogWrite;
use crate::db::users as db;
use crate::db::{credentials, second_factors};
use crate::error::ApiError;
use crate::users::{self, UserGrant};

/// 120 random bits.
const PASSWORD_CHARS: usize = 24;
/// 80 random bits.
const RESET_CHARS: usize = 16;

/// The first owner, made from the command line.
#[derive(serde::Serialize)]
pub struct FirstOwner {
    pub user_id: Uuid,
    pub login: String,
    /// Shown once; only its hash is stored.
    pub password: String,
}

impl fmt::Debug for FirstOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstOwner").field("user_id", &self.user_id).field("login", &self.login).finish_non_exhaustive()
    }
}

/// Makes the first owner with a generated password. Refused (409) when an owner exists.
pub async fn create_owner(writer: &Writer, login: &str) -> Result<FirstOwner, ApiError> {
    let mut login = login.to_owned();
    let mut checks = Checks::default();
    check_login(&mut checks, &mut login);
    checks.done()?;
    let password = random_text(PASSWORD_CHARS);
    let hash = Passwords::new().map_err(ApiError::internal)?.hash(password.clone()).await?;
    let context = Context::of_task("create-owner");
    let user_id = writer
        .write((login.clone(), hash, context), |tx, (login, hash, context)| {
            Box::pin(async move {
                // Two of these at once: the counter lock lets one go first.
                let write = CatalogWrite::begin(tx).await?;
                if db::has_owner(tx).await? {
                    return Err(ApiError::conflict("illegal_transition", "an owner exists already"));
                }
                let id = Uuid::now_v7();
                db::insert(tx, id, (login, "owner"), Some(hash)).await?;
                db::replace_grants(tx, id, &[UserGrant { role: RoleName::BuiltIn(Role::Owner), location_id: None }])
                    .await?;
                let user = db::find(tx, id).await?.ok_or_else(|| ApiError::not_found("user"))?;
                let mut entry = Entry::of_task("user.create_owner", format!("user/{id}"));
                (entry.actor, entry.role) = (id, "owner".to_owned());
                audit::record(tx, context, entry.states(None, &user)).await?;
                users::publish(tx, write, context, None, &user).await?;
                Ok(id)
            })
        })
        .await?;
    Ok(FirstOwner { user_id, login, password })
}

/// What lets a user in again, made from the command line.
#[derive(serde::Serialize)]
pub struct WayBackIn {
    pub user_id: Uuid,
    pub login: String,
    /// For `POST /auth/password-reset`; shown once, good once and for a day.
    pub reset_code: String,
}

impl fmt::Debug for WayBackIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WayBackIn").field("user_id", &self.user_id).field("login", &self.login).finish_non_exhaustive()
    }
}

/// Takes the second factor of a user away, ends their sessions and locks, and makes a code that sets a new password.
pub async fn reset_sign_in(writer: &Writer, login: &str) -> Result<WayBackIn, ApiError> {
    let mut login = login.to_owned();
    let mut checks = Checks::default();
    check_login(&mut checks, &mut login);
    checks.done()?;
    let (reset_code, context) = (random_text(RESET_CHARS), Context::of_task("reset-sign-in"));
    let user_id = writer
        .write((login.clone(), reset_code.clone(), context), |tx, (login, code, context)| {
            Box::pin(async move {
                let user = credentials::of_login(&mut **tx, login).await?.ok_or_else(|| ApiError::not_found("user"))?;
                attempts::unlock_user(tx, login, &user.code).await?;
                credentials::lock(tx, user.user_id).await?;
                second_factors::remove(tx, user.user_id).await?;
                sessions::cut(tx, user.user_id, "signing in was reset").await?;
                let expires_at = Utc::now() + TimeDelta::hours(RESET_HOURS);
                credentials::insert_reset(tx, user.user_id, &hash_code(code), expires_at).await?;
                let entry = Entry::of_task("user.reset_sign_in", format!("user/{}", user.user_id));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(user.user_id)
            })
        })
        .await?;
    Ok(WayBackIn { user_id, login, reset_code: grouped(&reset_code) })
}
