//! The second factor: an authenticator's code of the present half minute, good once, or one of ten recovery codes, each
//! good once. Owners and IT admins need one, others where the policy says so.

mod set_up;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::ids::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use self::set_up::{Proven, SetUp};
use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::codes::{grouped, hash_code, random_bytes, random_text};
use crate::auth::seal::Purpose;
use crate::auth::sessions::{self, SignedIn};
use crate::auth::totp::{Authenticator, SECRET_BYTES};
use crate::auth::{Auth, in_charge, step_up};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::credentials::{self, Credentials};
use crate::db::second_factors as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, PathId, Valid};

const RECOVERY_CODES: usize = 10;
/// 120 random bits.
const RECOVERY_CHARS: usize = 24;
const CODE_CHARS_MAX: usize = 64;

/// A code of the second factor as a request carries it.
#[derive(Clone, Default)]
pub struct Code {
    pub totp: Option<String>,
    pub recovery_code: Option<String>,
}

pub fn check_codes(checks: &mut Checks, totp: &Option<String>, recovery_code: &Option<String>) {
    for (pointer, code) in [("/totp", totp), ("/recovery_code", recovery_code)] {
        checks.that(code.as_deref().is_none_or(|code| code.len() <= CODE_CHARS_MAX), pointer, "is too long");
    }
    checks.that(totp.is_none() || recovery_code.is_none(), "/recovery_code", "goes without totp");
}

/// What a code is worth for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// The user has no second factor.
    None,
    /// The user has one, and no code came.
    Missing,
    Wrong,
    /// Used up by this.
    Right,
}

/// Judges a code; a right one is used up when the transaction commits. `now` is when the request arrived: time it spent
/// waiting here does not make its code old.
pub async fn given(
    tx: &mut PgTx,
    auth: &Auth,
    user: &Credentials,
    code: &Code,
    now: DateTime<Utc>,
) -> Result<Given, ApiError> {
    let Some(factor) = db::lock(tx, user.user_id).await? else { return Ok(Given::None) };
    let Some(sealed) = factor.secret else { return Ok(Given::None) };
    if let Some(code) = &code.recovery_code {
        let is_right = db::spend_recovery_code(tx, user.user_id, &hash_code(code)).await?;
        return Ok(if is_right { Given::Right } else { Given::Wrong });
    }
    let Some(code) = &code.totp else { return Ok(Given::Missing) };
    match open(auth, user, &sealed)?.step_of(code, now) {
        Some(step) if step > factor.last_step => {
            db::spend_step(tx, user.user_id, step).await?;
            Ok(Given::Right)
        }
        _ => Ok(Given::Wrong),
    }
}

fn open(auth: &Auth, user: &Credentials, sealed: &[u8]) -> Result<Authenticator, ApiError> {
    let secret = auth.seals.open(Purpose::SecondFactor, user.user_id.as_bytes(), sealed);
    secret.and_then(|secret| Authenticator::new(&secret, &user.login)).map_err(ApiError::internal)
}

/// A second factor that is offered: it counts once a code of it was given.
#[derive(Serialize, ToSchema)]
pub struct OfferedFactor {
    /// Base32, to be typed into an authenticator.
    pub secret: String,
    pub otpauth_uri: String,
    /// `otpauth_uri` as a QR code, an SVG document.
    pub qr_svg: String,
}

/// Ten codes, each good once instead of a code of the authenticator; shown this once.
#[derive(Serialize, ToSchema)]
pub struct RecoveryCodes {
    pub recovery_codes: Vec<String>,
}

/// A second factor that counts from now on.
#[derive(Serialize, ToSchema)]
pub struct ConfirmedFactor {
    /// Ten codes, each good once instead of a code of the authenticator; shown this once.
    pub recovery_codes: Vec<String>,
    /// For who could only enrol until now: the session that the log-in would have begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SignedIn>,
}

/// What is needed for the first second factor of a session.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FactorProof {
    /// From who has a session and no second factor yet.
    pub password: Option<String>,
}

impl Body for FactorProof {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, _: &mut Checks) {}
}

/// The code that the offered authenticator shows.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// Six digits.
    pub totp: String,
    /// From who has a session and no second factor yet.
    pub password: Option<String>,
}

impl Body for Confirm {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.that(self.totp.len() <= CODE_CHARS_MAX, "/totp", "is too long");
    }
}

/// `POST /auth/second-factor`: offers a new authenticator secret; an earlier offer ends.
pub async fn offer(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    proof: Option<Valid<FactorProof>>,
) -> Result<Response, ApiError> {
    let password = proof.and_then(|Valid(proof)| proof.password);
    let set_up = SetUp::new(&app, access, context, password).await?;
    let offered = app
        .writer
        .write((set_up, random_bytes(SECRET_BYTES)), |tx, (it, secret)| {
            Box::pin(async move {
                let user = match it.prove(tx, "auth.second_factor_offer").await? {
                    Proven::By(user) => user,
                    refused => return Ok(Err(refused)),
                };
                let sealed = it.auth.seals.seal(Purpose::SecondFactor, user.user_id.as_bytes(), secret);
                db::offer(tx, user.user_id, &sealed.map_err(ApiError::internal)?).await?;
                audit::record(tx, &it.context, it.entry("auth.second_factor_offer")).await?;
                let offered = Authenticator::new(secret, &user.login).and_then(|it| {
                    Ok(OfferedFactor { secret: it.secret_base32(), otpauth_uri: it.uri()?, qr_svg: it.qr_svg()? })
                });
                Ok::<_, ApiError>(Ok(offered.map_err(ApiError::internal)?))
            })
        })
        .await?;
    json_response(StatusCode::OK, &offered.map_err(Proven::problem)?)
}

/// `POST /auth/second-factor/confirm`: what was offered counts from now on.
pub async fn confirm(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(Confirm { totp, password }): Valid<Confirm>,
) -> Result<Response, ApiError> {
    let set_up = SetUp::new(&app, access, context, password).await?;
    let confirmed = app
        .writer
        .write((set_up, totp), |tx, (it, totp)| {
            Box::pin(async move {
                match it.prove(tx, "auth.second_factor").await? {
                    Proven::By(user) => Ok(Ok(enrol(tx, it, &user, totp).await?)),
                    refused => Ok::<_, ApiError>(Err(refused)),
                }
            })
        })
        .await?;
    json_response(StatusCode::OK, &confirmed.map_err(Proven::problem)?)
}

/// Ends the user's other sessions: one of them may be in wrong hands, and none of them proved the new factor.
async fn enrol(tx: &mut PgTx, it: &SetUp, user: &Credentials, totp: &str) -> Result<ConfirmedFactor, ApiError> {
    let SetUp { auth, access, context, now, .. } = it;
    let (user_id, now) = (UserId(user.user_id), *now);
    let pending = db::lock(tx, user_id.0).await?.and_then(|factor| factor.pending);
    let pending = pending.ok_or_else(|| ApiError::conflict("illegal_transition", "no second factor is offered"))?;
    let step = open(auth, user, &pending)?.step_of(totp, now);
    let step = step.ok_or_else(|| ApiError::invalid_value("/totp", "is not the code of this half minute"))?;
    db::confirm(tx, user_id.0, step, now).await?;
    let recovery_codes = renew_recovery_codes(tx, user_id.0).await?;
    crate::db::sessions::end_others(tx, user_id.0, access.session, "second factor set up").await?;
    audit::record(tx, context, it.entry("auth.second_factor")).await?;
    let session = match access.session {
        Some(session) => {
            crate::db::sessions::prove(tx, session, now).await?;
            None
        }
        None => Some(sessions::begin(tx, auth, (user_id, user.session_version), None, context).await?),
    };
    Ok(ConfirmedFactor { recovery_codes, session })
}

async fn renew_recovery_codes(tx: &mut PgTx, user_id: Uuid) -> Result<Vec<String>, ApiError> {
    let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| grouped(&random_text(RECOVERY_CHARS))).collect();
    let hashes: Vec<Vec<u8>> = codes.iter().map(|code| hash_code(code).to_vec()).collect();
    db::replace_recovery_codes(tx, user_id, &hashes).await?;
    Ok(codes)
}

/// `POST /auth/recovery-codes`: ten new ones; the earlier ones end.
pub async fn recovery_codes(
    State(app): State<AppState>,
    access: Access,
    context: Context,
) -> Result<Response, ApiError> {
    let user_id = access.require_user()?.0;
    let recovery_codes = app
        .writer
        .write((access, context, user_id), |tx, (access, context, user_id)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                let factor = db::lock(tx, *user_id).await?.filter(|factor| factor.secret.is_some());
                factor.ok_or_else(|| ApiError::conflict("illegal_transition", "there is no second factor"))?;
                let codes = renew_recovery_codes(tx, *user_id).await?;
                let entry = Entry::done(&access.principal, "auth.recovery_codes", format!("user/{user_id}"));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(codes)
            })
        })
        .await?;
    json_response(StatusCode::OK, &RecoveryCodes { recovery_codes })
}

/// What signing in takes for a user.
#[derive(Debug, Serialize, ToSchema)]
pub struct Account {
    pub user_id: Uuid,
    pub login: String,
    pub code: String,
    /// Since when there is a second factor.
    pub second_factor_since: Option<DateTime<Utc>>,
    /// Whether a role of the user needs one.
    pub is_second_factor_compulsory: bool,
    pub recovery_codes_left: i64,
}

/// `GET /auth/account`
pub async fn account(State(app): State<AppState>, access: Access) -> Result<Response, ApiError> {
    let user_id = access.require_user()?.0;
    let mut tx = app.snapshot().await?;
    let user = credentials::of_user(&mut *tx, user_id).await?.ok_or_else(ApiError::unauthenticated)?;
    let (second_factor_since, recovery_codes_left) = db::standing(&mut *tx, user_id).await?;
    let is_second_factor_compulsory = db::is_compulsory(&mut tx, user_id).await?;
    let Credentials { login, code, .. } = user;
    let account =
        Account { user_id, login, code, second_factor_since, is_second_factor_compulsory, recovery_codes_left };
    json_response(StatusCode::OK, &account)
}

/// `POST /auth/second-factor/remove`: for who need not have one.
pub async fn remove(State(app): State<AppState>, access: Access, context: Context) -> Result<Response, ApiError> {
    let user_id = access.require_user()?.0;
    let sessions_ended = app
        .writer
        .write((access, context, user_id), |tx, (access, context, user_id)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                if db::is_compulsory(tx, *user_id).await? {
                    return Err(ApiError::conflict("illegal_transition", "your role needs a second factor"));
                }
                take_away(tx, (access, context), UserId(*user_id), "auth.second_factor_remove").await
            })
        })
        .await?;
    json_response(StatusCode::OK, &sessions::SessionsEnded { sessions_ended })
}

/// `POST /users/{user_id}/second-factor/reset`: for who lost the authenticator and the recovery codes.
pub async fn reset(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(user_id): PathId,
) -> Result<Response, ApiError> {
    let sessions_ended = app
        .writer
        .write((access, context, user_id), |tx, (access, context, user_id)| {
            Box::pin(async move {
                in_charge(tx, access, *user_id).await?;
                step_up::require(tx, access).await?;
                take_away(tx, (access, context), UserId(*user_id), "user.second_factor_reset").await
            })
        })
        .await?;
    json_response(StatusCode::OK, &sessions::SessionsEnded { sessions_ended })
}

async fn take_away(
    tx: &mut PgTx,
    (access, context): (&Access, &Context),
    UserId(user_id): UserId,
    action: &str,
) -> Result<i64, ApiError> {
    credentials::lock(tx, user_id).await?;
    if !db::remove(tx, user_id).await? {
        return Err(ApiError::conflict("illegal_transition", "there is no second factor"));
    }
    let ended = sessions::cut(tx, user_id, "second factor taken away").await?;
    audit::record(tx, context, Entry::done(&access.principal, action, format!("user/{user_id}"))).await?;
    Ok(ended)
}
