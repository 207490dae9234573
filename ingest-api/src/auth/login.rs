//! `POST /auth/login`. A wrong password, an unknown log-in, an inactive user and a locked one take the same work; which of
//! them it was is not told.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::ids::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::Auth;
use crate::auth::attempts::{self, Attempt, Locked, Target};
use crate::auth::passwords::{self, Checked, PASSWORD_BYTES_MAX};
use crate::auth::second_factor::{self, Code, Given};
use crate::auth::sessions::{self, SignedIn};
use crate::auth::tokens::Subject;
use crate::checks::{CODE_CHARS_MAX, Checks};
use crate::context::Context;
use crate::db::credentials::{self, Credentials};
use crate::db::second_factors;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, Valid};

#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub login: String,
    pub password: String,
    /// Six digits, from who has a second factor (401 `second_factor_required` asks for it).
    pub totp: Option<String>,
    /// Instead of `totp`.
    pub recovery_code: Option<String>,
    /// Binds the session to a device: Ed25519, 32 bytes, base64url without padding. Its refreshes have to be signed.
    pub device_public_key: Option<String>,
}

impl Body for Login {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        check_login(checks, &mut self.login);
        passwords::check_form(checks, "/password", &self.password);
        second_factor::check_codes(checks, &self.totp, &self.recovery_code);
        sessions::check_device_key(checks, "/device_public_key", self.device_public_key.as_deref());
    }
}

/// Log-in names are compared in lower case.
pub fn check_login(checks: &mut Checks, login: &mut String) {
    checks.text("/login", login, CODE_CHARS_MAX);
    *login = login.to_lowercase();
}

/// A log-in that was right and opens one thing only: setting up the second factor that the user's role needs.
#[derive(Serialize, ToSchema)]
pub struct EnrolmentToken {
    /// For `POST /auth/second-factor` and its confirmation; 401 everywhere else.
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: i64,
    pub user_id: Uuid,
    /// Always `second_factor_enrolment`.
    pub next_step: &'static str,
}

/// What a log-in came to. All of it is committed, failures too, before it is answered.
enum Outcome {
    SignedIn(Box<SignedIn>),
    /// Right as far as it went; the user needs a second factor and has none yet.
    Enrol(EnrolmentToken),
    /// The password was right and no code came.
    CodeMissing,
    /// The password fits a hash that is not stored any more.
    Outdated,
    Wrong,
    Locked(Locked),
}

struct Input {
    auth: Arc<Auth>,
    login: Login,
    context: Context,
    known: Option<Credentials>,
    is_right: bool,
    arrived_at: DateTime<Utc>,
}

/// `POST /auth/login`
pub async fn log_in(
    State(app): State<AppState>,
    context: Context,
    Valid(login): Valid<Login>,
) -> Result<Response, ApiError> {
    let arrived_at = Utc::now();
    if login.password.len() > PASSWORD_BYTES_MAX {
        return Err(ApiError::from_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    app.budgets.sign_in_as(&login.login)?;
    attempts::refuse_locked_address(&app.reads, &context.address, arrived_at).await?;
    let mut outcome = compare(&app, &login, &context, arrived_at).await?;
    if matches!(outcome, Outcome::Outdated) {
        // Another log-in at the same moment put a stronger hash of the same password there.
        outcome = compare(&app, &login, &context, arrived_at).await?;
    }
    match outcome {
        Outcome::SignedIn(signed_in) => json_response(StatusCode::OK, &signed_in),
        Outcome::Enrol(token) => json_response(StatusCode::ACCEPTED, &token),
        Outcome::CodeMissing => {
            let detail = "send the code of your authenticator, or a recovery code, too";
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "second_factor_required", detail))
        }
        Outcome::Wrong | Outcome::Outdated => Err(ApiError::unauthenticated()),
        Outcome::Locked(locked) => Err(locked.problem(arrived_at)),
    }
}

/// One hash and one transaction, whoever is meant.
async fn compare(
    app: &AppState,
    login: &Login,
    context: &Context,
    arrived_at: DateTime<Utc>,
) -> Result<Outcome, ApiError> {
    let known = credentials::of_login(&app.reads, &login.login).await?.filter(|user| user.is_active);
    let stored = known.as_ref().and_then(|user| user.password_hash.clone());
    let Checked { is_right, is_weak } = app.auth.passwords.check(login.password.clone(), stored).await?;
    let (auth, login, context) = (Arc::clone(&app.auth), login.clone(), context.clone());
    let input = Arc::new(Input { auth, login, context, known, is_right, arrived_at });
    let outcome = app.writer.write(Arc::clone(&input), |tx, input| Box::pin(judge(tx, input))).await?;
    let is_in = matches!(outcome, Outcome::SignedIn(_) | Outcome::Enrol(_));
    if let Some(user) = input.known.as_ref().filter(|_| is_in && is_weak)
        && let Err(error) = strengthen(app, user, input.login.password.clone()).await
    {
        tracing::warn!(%error, user.id = %user.user_id, "a weak password hash stays until the next log-in");
    }
    Ok(outcome)
}

/// Puts a hash of today's strength in the place of a weak one.
async fn strengthen(app: &AppState, user: &Credentials, password: String) -> Result<(), ApiError> {
    let Some(weak) = user.password_hash.clone() else { return Ok(()) };
    let stronger = app.auth.passwords.hash(password).await?;
    app.writer
        .write((user.user_id, weak, stronger), |tx, (user_id, weak, stronger)| {
            Box::pin(async move { Ok::<_, ApiError>(credentials::rehash(tx, *user_id, (weak, stronger)).await?) })
        })
        .await
}

async fn judge(tx: &mut PgTx, input: &Input) -> Result<Outcome, ApiError> {
    let Input { auth, login, context, known, is_right, arrived_at } = input;
    let attempt = match Attempt::begin(tx, Target::log_in(&login.login, &context.address), *arrived_at).await? {
        Ok(attempt) => attempt,
        Err(locked) => {
            record(tx, context, known.as_ref(), Some("locked")).await?;
            return Ok(Outcome::Locked(locked));
        }
    };
    // As it is now: while the password was hashed it may have been changed, or its user deactivated.
    let user = match known {
        Some(known) if *is_right => match credentials::lock(tx, known.user_id).await?.filter(|now| now.is_active) {
            Some(now) if now.password_hash != known.password_hash => return Ok(Outcome::Outdated),
            now => now,
        },
        _ => None,
    };
    let Some(user) = user else { return wrong(tx, attempt, context, known.as_ref(), "").await };
    let code = Code { totp: login.totp.clone(), recovery_code: login.recovery_code.clone() };
    let given = second_factor::given(tx, auth, &user, &code, *arrived_at).await?;
    match given {
        Given::Wrong => return wrong(tx, attempt, context, Some(&user), "second factor").await,
        Given::Missing => {
            record(tx, context, Some(&user), Some("second factor missing")).await?;
            return Ok(Outcome::CodeMissing);
        }
        Given::None | Given::Right => attempt.succeeded(tx).await?,
    }
    record(tx, context, Some(&user), None).await?;
    let (id, version) = (UserId(user.user_id), user.session_version);
    if given == Given::None && second_factors::is_compulsory(tx, user.user_id).await? {
        let issued = auth.tokens.issue(Subject::Enrolling(id), Uuid::nil(), version).map_err(ApiError::internal)?;
        return Ok(Outcome::Enrol(EnrolmentToken {
            access_token: issued.access_token,
            token_type: issued.token_type,
            expires_in: issued.expires_in,
            user_id: id.0,
            next_step: "second_factor_enrolment",
        }));
    }
    let device_key = login.device_public_key.as_deref().and_then(sessions::device_key);
    let signed_in = sessions::begin(tx, auth, (id, version), device_key, context).await?;
    Ok(Outcome::SignedIn(Box::new(signed_in)))
}

async fn wrong(
    tx: &mut PgTx,
    attempt: Attempt,
    context: &Context,
    known: Option<&Credentials>,
    what: &'static str,
) -> Result<Outcome, ApiError> {
    let is_locked = attempt.failed(tx).await?;
    record(tx, context, known, Some(if is_locked { "locked from now on" } else { what })).await?;
    Ok(Outcome::Wrong)
}

/// Every log-in leaves a row, a failed one too; an unknown log-in name is not written down.
async fn record(
    tx: &mut PgTx,
    context: &Context,
    known: Option<&Credentials>,
    refused: Option<&'static str>,
) -> Result<(), sqlx::Error> {
    let user_id = known.map_or(Uuid::nil(), |user| user.user_id);
    let mut entry = Entry::of_task("auth.login", format!("user/{user_id}"));
    entry.actor = user_id;
    if let Some(why) = refused {
        entry = entry.refused().because(why);
    }
    audit::record(tx, context, entry).await
}
