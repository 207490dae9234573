//! Sessions: begun by a log-in, carried on by refresh tokens, ended by their user, by an administrator, or by whatever
//! changes what the user is.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use schemas::ids::UserId;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::codes::{hash_token, random_token};
use crate::auth::refresh::IDLE_HOURS;
use crate::auth::tokens::Subject;
use crate::auth::{Auth, in_charge};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::sessions as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::PathId;
use crate::users::is_in_charge;

/// A session lasts so long at most, however often it is refreshed.
const LIFETIME_DAYS: i64 = 30;

/// A session that can still be refreshed.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct Session {
    pub session_id: Uuid,
    pub created_at: DateTime<Utc>,
    pub refreshed_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// Where the log-in came from.
    pub address: String,
    /// Whether its refresh tokens are worth something in the hands of one device only.
    pub is_device_bound: bool,
    /// The one that asks.
    pub is_this_one: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Sessions {
    pub sessions: Vec<Session>,
}

/// How many sessions an act ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionsEnded {
    pub sessions_ended: i64,
}

/// A session that has begun; its tokens are shown this once.
#[derive(Clone, Serialize, ToSchema)]
pub struct SignedIn {
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: i64,
    pub user_id: Uuid,
    pub session_id: Uuid,
    /// For `POST /auth/refresh`; each is good once.
    pub refresh_token: String,
    /// The session ends then, whatever is refreshed.
    pub session_expires_at: DateTime<Utc>,
}

/// The public key of a device as requests carry it: Ed25519, 32 bytes, base64url without padding.
pub fn device_key(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

pub fn check_device_key(checks: &mut Checks, pointer: &str, key: Option<&str>) {
    let is_key = key.is_none_or(|key| device_key(key).is_some());
    checks.that(is_key, pointer, "must be 32 bytes in base64url without padding");
}

/// Begins a session of this user.
pub async fn begin(
    tx: &mut PgTx,
    auth: &Auth,
    (user_id, session_version): (UserId, i32),
    device_public_key: Option<[u8; 32]>,
    context: &Context,
) -> Result<SignedIn, ApiError> {
    let (session_id, refresh_token, now) = (Uuid::now_v7(), random_token(), Utc::now());
    let expires_at = now + TimeDelta::days(LIFETIME_DAYS);
    let new = db::NewSession {
        session_id,
        user_id: user_id.0,
        device_public_key: device_public_key.as_ref().map(|key| key.as_slice()),
        address: &context.address,
        at: now,
        expires_at,
        token_hash: &hash_token(&refresh_token),
    };
    db::insert(tx, &new).await?;
    signed_in(auth, (user_id, session_version), session_id, refresh_token, expires_at)
}

/// The answer to whoever holds this session: a fresh access token beside the refresh token.
pub fn signed_in(
    auth: &Auth,
    (user_id, session_version): (UserId, i32),
    session_id: Uuid,
    refresh_token: String,
    session_expires_at: DateTime<Utc>,
) -> Result<SignedIn, ApiError> {
    let issued = auth.tokens.issue(Subject::User(user_id), session_id, session_version).map_err(ApiError::internal)?;
    Ok(SignedIn {
        access_token: issued.access_token,
        token_type: issued.token_type,
        expires_in: issued.expires_in,
        user_id: user_id.0,
        session_id,
        refresh_token,
        session_expires_at,
    })
}

/// Ends every session, lease and open reset code of a user and makes every token of before worthless, on every node
/// within a second.
pub async fn cut(tx: &mut PgTx, user_id: Uuid, reason: &str) -> Result<i64, sqlx::Error> {
    db::raise_version(tx, user_id).await?;
    crate::db::credentials::forget_reset(tx, user_id).await?;
    crate::db::leases::revoke_of_cashier(tx, user_id, reason).await?;
    db::end(tx, user_id, None, reason).await
}

/// `GET /auth/sessions`
pub async fn list_own(State(app): State<AppState>, access: Access) -> Result<Response, ApiError> {
    let user_id = access.require_user()?.0;
    list(&app, user_id, access.session).await
}

/// `GET /users/{user_id}/sessions`
pub async fn list_of_user(
    State(app): State<AppState>,
    access: Access,
    PathId(user_id): PathId,
) -> Result<Response, ApiError> {
    let mut tx = app.snapshot().await?;
    let user = crate::db::users::find(&mut tx, user_id).await?;
    user.filter(|user| is_in_charge(&access, &user.grants)).ok_or_else(|| ApiError::not_found("user"))?;
    list(&app, user_id, None).await
}

async fn list(app: &AppState, user_id: Uuid, own: Option<Uuid>) -> Result<Response, ApiError> {
    let mut sessions = db::list(&app.reads, user_id, Utc::now() - TimeDelta::hours(IDLE_HOURS)).await?;
    for session in &mut sessions {
        session.is_this_one = own == Some(session.session_id);
    }
    json_response(StatusCode::OK, &Sessions { sessions })
}

/// `POST /auth/logout`: ends the session that asks.
pub async fn log_out(State(app): State<AppState>, access: Access, context: Context) -> Result<Response, ApiError> {
    let session = access.session.ok_or_else(ApiError::unauthenticated)?;
    end_one(&app, access, context, session).await
}

/// `POST /auth/sessions/{session_id}/end`: one of one's own; 404 for any other.
pub async fn end_own(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(session): PathId,
) -> Result<Response, ApiError> {
    end_one(&app, access, context, session).await
}

async fn end_one(app: &AppState, access: Access, context: Context, session: Uuid) -> Result<Response, ApiError> {
    let user_id = access.require_user()?.0;
    let sessions_ended = app
        .writer
        .write((access, context, user_id, session), |tx, (access, context, user_id, session)| {
            Box::pin(async move {
                let ended = db::end(tx, *user_id, Some(*session), "log-out").await?;
                if ended == 0 {
                    return Err(ApiError::not_found("session"));
                }
                let entry = Entry::done(&access.principal, "auth.logout", format!("session/{session}"));
                audit::record(tx, context, entry).await?;
                Ok(ended)
            })
        })
        .await?;
    json_response(StatusCode::OK, &SessionsEnded { sessions_ended })
}

/// `POST /auth/logout-everywhere`
pub async fn log_out_everywhere(
    State(app): State<AppState>,
    access: Access,
    context: Context,
) -> Result<Response, ApiError> {
    let user_id = access.require_user()?.0;
    let sessions_ended = app
        .writer
        .write((access, context, user_id), |tx, (access, context, user_id)| {
            Box::pin(async move {
                let ended = cut(tx, *user_id, "log-out everywhere").await?;
                let entry = Entry::done(&access.principal, "auth.logout_everywhere", format!("user/{user_id}"));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(ended)
            })
        })
        .await?;
    json_response(StatusCode::OK, &SessionsEnded { sessions_ended })
}

/// `POST /users/{user_id}/sessions/end`: all of them.
pub async fn end_of_user(
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
                let ended = cut(tx, *user_id, "ended by an administrator").await?;
                let entry = Entry::done(&access.principal, "user.end_sessions", format!("user/{user_id}"));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(ended)
            })
        })
        .await?;
    json_response(StatusCode::OK, &SessionsEnded { sessions_ended })
}
