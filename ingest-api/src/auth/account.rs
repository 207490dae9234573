//! Passwords after the first: changed by their user, or set with a one-time code that an administrator hands over. And the
//! locks that an administrator ends.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::attempts::{self, Attempt, Locked, Target};
use crate::auth::codes::{grouped, hash_code, random_text};
use crate::auth::login::check_login;
use crate::auth::passwords::PASSWORD_BYTES_MAX;
use crate::auth::sessions::{SessionsEnded, cut};
use crate::auth::{in_charge, step_up};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::credentials::{self as db, Credentials};
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, PathId, Valid};

/// How long a reset code is good.
pub const RESET_HOURS: i64 = 24;
/// 80 random bits.
const RESET_CHARS: usize = 16;
const CODE_CHARS_MAX: usize = 64;
const NEW_PASSWORD: &str = "/new_password";

/// One's own new password.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    pub old_password: String,
    /// At least ten characters, and none of those that are guessed first.
    pub new_password: String,
}

impl Body for PasswordChange {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.that(self.old_password.len() <= PASSWORD_BYTES_MAX, "/old_password", "is longer than 1 KiB");
        checks.that(self.old_password != self.new_password, "/new_password", "is the old one");
    }
}

enum Outcome {
    Changed(i64),
    Wrong,
    Locked(Locked),
}

/// `POST /auth/password`: ends every session, the one that asks too. The new password is judged first, then the lock, then
/// the old password, and the work is the same whatever comes of it.
pub async fn change_password(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(PasswordChange { old_password, new_password }): Valid<PasswordChange>,
) -> Result<Response, ApiError> {
    let (now, user_id) = (Utc::now(), access.require_user()?);
    let user = db::of_user(&app.reads, user_id.0).await?.ok_or_else(ApiError::unauthenticated)?;
    app.auth.passwords.accept(NEW_PASSWORD, &new_password, &[&user.login, &user.code]).await?;
    let is_right = app.auth.passwords.check(old_password, user.password_hash.clone()).await?.is_right;
    let hash = app.auth.passwords.hash(new_password).await?;
    let input = (user, is_right, hash, access, context);
    let outcome = app
        .writer
        .write(input, move |tx, (user, is_right, hash, access, context)| {
            Box::pin(async move { change(tx, (user, *is_right, hash), access, context, now).await })
        })
        .await?;
    answer(outcome, now)
}

async fn change(
    tx: &mut PgTx,
    (user, is_right, hash): (&Credentials, bool, &str),
    access: &Access,
    context: &Context,
    now: DateTime<Utc>,
) -> Result<Outcome, ApiError> {
    let entry = Entry::done(&access.principal, "auth.password", format!("user/{}", user.user_id));
    let attempt = match Attempt::begin(tx, Target::log_in(&user.login, &context.address), now).await? {
        Ok(attempt) => attempt,
        Err(locked) => {
            audit::record(tx, context, entry.refused().because("locked")).await?;
            return Ok(Outcome::Locked(locked));
        }
    };
    let present = db::lock(tx, user.user_id).await?;
    let is_same = present.is_some_and(|present| present.password_hash == user.password_hash);
    if !is_right || !is_same {
        attempt.failed(tx).await?;
        audit::record(tx, context, entry.refused()).await?;
        return Ok(Outcome::Wrong);
    }
    attempt.succeeded(tx).await?;
    db::set_password(tx, user.user_id, hash).await?;
    let ended = cut(tx, user.user_id, "password changed").await?;
    audit::record(tx, context, entry).await?;
    Ok(Outcome::Changed(ended))
}

fn answer(outcome: Outcome, now: DateTime<Utc>) -> Result<Response, ApiError> {
    match outcome {
        Outcome::Changed(sessions_ended) => json_response(StatusCode::OK, &SessionsEnded { sessions_ended }),
        Outcome::Wrong => Err(ApiError::unauthenticated()),
        Outcome::Locked(locked) => Err(locked.problem(now)),
    }
}

/// A one-time code with which a user sets a password; only its hash is stored.
#[derive(Serialize, ToSchema)]
pub struct PasswordReset {
    /// In groups of four, to be handed over.
    pub code: String,
    pub expires_at: DateTime<Utc>,
}

/// `POST /users/{user_id}/password-reset`: an earlier code ends, and so do the user's sessions.
pub async fn begin_reset(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(user_id): PathId,
) -> Result<Response, ApiError> {
    let (code, expires_at) = (random_text(RESET_CHARS), Utc::now() + TimeDelta::hours(RESET_HOURS));
    let input = (access, context, user_id, hash_code(&code));
    app.writer
        .write(input, move |tx, (access, context, user_id, hash)| {
            Box::pin(async move {
                in_charge(tx, access, *user_id).await?;
                step_up::require(tx, access).await?;
                cut(tx, *user_id, "password reset").await?;
                db::insert_reset(tx, *user_id, hash, expires_at).await?;
                let entry = Entry::done(&access.principal, "user.password_reset", format!("user/{user_id}"));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    json_response(StatusCode::CREATED, &PasswordReset { code: grouped(&code), expires_at })
}

/// A reset code and the password to be.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    pub login: String,
    pub code: String,
    /// At least ten characters, and none of those that are guessed first.
    pub new_password: String,
}

impl Body for ResetPassword {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        check_login(checks, &mut self.login);
        checks.that(self.code.len() <= CODE_CHARS_MAX, "/code", "is too long");
    }
}

/// `POST /auth/password-reset`. A wrong, used or expired code and an unknown log-in are 401, whichever it is.
pub async fn reset_password(
    State(app): State<AppState>,
    context: Context,
    Valid(ResetPassword { login, code, new_password }): Valid<ResetPassword>,
) -> Result<Response, ApiError> {
    let now = Utc::now();
    app.budgets.sign_in_as(&login)?;
    attempts::refuse_locked_address(&app.reads, &context.address, now).await?;
    // Before anybody is looked up: the work is the same for every log-in.
    app.auth.passwords.accept(NEW_PASSWORD, &new_password, &[]).await?;
    let hash = app.auth.passwords.hash(new_password).await?;
    let input = (login, hash_code(&code), hash, context);
    let outcome = app
        .writer
        .write(input, move |tx, (login, code, hash, context)| {
            Box::pin(async move { use_reset(tx, (login, code, hash), context, now).await })
        })
        .await?;
    answer(outcome, now)
}

async fn use_reset(
    tx: &mut PgTx,
    (login, code, hash): (&str, &[u8], &str),
    context: &Context,
    now: DateTime<Utc>,
) -> Result<Outcome, ApiError> {
    let attempt = Attempt::begin(tx, Target::log_in(login, &context.address), now).await?;
    let user = db::of_login(&mut **tx, login).await?.filter(|user| user.is_active);
    let user_id = user.map(|user| user.user_id).unwrap_or_default();
    let mut entry = Entry::of_task("auth.password_reset", format!("user/{user_id}"));
    entry.actor = user_id;
    let attempt = match attempt {
        Ok(attempt) => attempt,
        Err(locked) => {
            audit::record(tx, context, entry.refused().because("locked")).await?;
            return Ok(Outcome::Locked(locked));
        }
    };
    if !db::spend_reset(tx, user_id, code).await? {
        attempt.failed(tx).await?;
        audit::record(tx, context, entry.refused()).await?;
        return Ok(Outcome::Wrong);
    }
    attempt.succeeded(tx).await?;
    db::lock(tx, user_id).await?;
    db::set_password(tx, user_id, hash).await?;
    let ended = cut(tx, user_id, "password reset").await?;
    audit::record(tx, context, entry).await?;
    Ok(Outcome::Changed(ended))
}

/// Whether something was locked.
#[derive(Debug, Serialize, ToSchema)]
pub struct Unlocked {
    pub was_locked: bool,
}

/// `POST /users/{user_id}/unlock`: the log-in name and the PINs of a user.
pub async fn unlock_user(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(user_id): PathId,
) -> Result<Response, ApiError> {
    let was_locked = app
        .writer
        .write((access, context, user_id), |tx, (access, context, user_id)| {
            Box::pin(async move {
                let user = in_charge(tx, access, *user_id).await?;
                step_up::require(tx, access).await?;
                let was_locked = attempts::unlock_user(tx, &user.login, &user.code).await?;
                let entry = Entry::done(&access.principal, "user.unlock", format!("user/{user_id}"));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(was_locked)
            })
        })
        .await?;
    json_response(StatusCode::OK, &Unlocked { was_locked })
}

/// An address that failed too often.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedAddress {
    /// As audit rows show it.
    #[schema(value_type = String)]
    pub address: std::net::IpAddr,
}

impl Body for LockedAddress {
    fn check(&mut self, _: &mut Checks) {}
}

/// `POST /auth/unlock-address`
pub async fn unlock_address(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(LockedAddress { address }): Valid<LockedAddress>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let was_locked = app
        .writer
        .write((access, context, address.to_canonical().to_string()), |tx, (access, context, address)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                let was_locked = attempts::unlock_address(tx, address).await?;
                let entry = Entry::done(&access.principal, "auth.unlock_address", format!("address/{address}"));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(was_locked)
            })
        })
        .await?;
    json_response(StatusCode::OK, &Unlocked { was_locked })
}
