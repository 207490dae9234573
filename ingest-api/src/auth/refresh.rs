//! `POST /auth/refresh`: a refresh token is spent for the next one. One that was spent before and comes again means that
//! two hold it, so the whole session ends. The one exception is the answer that got lost on its way: the immediate
//! predecessor, within ten seconds, signed by the device of the session, is given the same successor again.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use schemas::ids::UserId;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use std::sync::Arc;

use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::Auth;
use crate::auth::codes::{hash_token, random_token};
use crate::auth::seal::Purpose;
use crate::auth::sessions::{SignedIn, signed_in};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::credentials;
use crate::db::sessions as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, Valid};

#[cfg(test)]
mod tests;

/// A session that was not refreshed for so long is over.
pub const IDLE_HOURS: i64 = 12;
const GRACE_SECONDS: i64 = 10;
/// How far the device's clock may be off.
const WINDOW_SECONDS: i64 = 300;
const TOKEN_CHARS_MAX: usize = 64;
const SIGNATURE_CHARS_MAX: usize = 128;

/// A refresh token. A session that was begun with a `device_public_key` needs the two others: the device signs the text
/// `vorca-refresh\n<refresh_token>\n<issued_at>`, with the values exactly as sent.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    pub refresh_token: String,
    /// RFC 3339; at most five minutes off.
    pub issued_at: Option<String>,
    /// Ed25519, base64url without padding.
    pub signature: Option<String>,
}

impl Body for Refresh {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.that(self.refresh_token.len() <= TOKEN_CHARS_MAX, "/refresh_token", "is too long");
        let is_instant = self.issued_at.as_deref().is_none_or(|at| DateTime::parse_from_rfc3339(at).is_ok());
        checks.that(is_instant, "/issued_at", "is no RFC 3339 instant");
        let is_short = self.signature.as_deref().is_none_or(|signature| signature.len() <= SIGNATURE_CHARS_MAX);
        checks.that(is_short, "/signature", "is too long");
    }
}

/// The text that a device signs.
pub fn signed_text(refresh_token: &str, issued_at: &str) -> String {
    format!("vorca-refresh\n{refresh_token}\n{issued_at}")
}

impl Refresh {
    /// Whether the device of this key signed it just now.
    fn is_signed_by(&self, key: &[u8], now: DateTime<Utc>) -> bool {
        let (Some(issued_at), Some(signature)) = (&self.issued_at, &self.signature) else { return false };
        let is_recent = DateTime::parse_from_rfc3339(issued_at)
            .is_ok_and(|at| (now - at.with_timezone(&Utc)).abs() <= TimeDelta::seconds(WINDOW_SECONDS));
        let text = signed_text(&self.refresh_token, issued_at);
        is_recent
            && URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| {
                UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok()
            })
    }
}

/// A session as a refresh sees it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Family {
    pub session_id: Uuid,
    pub user_id: Uuid,
    pub device_public_key: Option<Vec<u8>>,
    pub refreshed_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub is_ended: bool,
}

/// The token that was shown, in its session.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Shown {
    pub generation: i32,
    /// None while it is the live one.
    pub spent_at: Option<DateTime<Utc>>,
    /// The token after it, sealed.
    pub successor: Option<Vec<u8>>,
    /// The generation of the live token.
    pub newest: i32,
}

/// Whose hand showed the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The session belongs to no device: whoever has the token.
    Anyone,
    /// The device of the session signed.
    Device,
    /// The session belongs to a device, which did not sign.
    Stranger,
}

/// What becomes of a token that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Spend it for the next.
    Rotate,
    /// Hand out the same successor once more.
    Repeat,
    /// Two hold it: the session ends.
    Revoke,
    /// Nothing changes: the session is over, or a stranger has what only its device may use.
    Refuse,
}

/// The whole rule; Postgres and clocks are elsewhere.
pub fn judge(family: &Family, shown: &Shown, holder: Holder, now: DateTime<Utc>) -> Verdict {
    let is_idle = family.refreshed_at + TimeDelta::hours(IDLE_HOURS) <= now;
    if family.is_ended || is_idle || family.expires_at <= now {
        return Verdict::Refuse;
    }
    let Some(spent_at) = shown.spent_at else {
        return if holder == Holder::Stranger { Verdict::Refuse } else { Verdict::Rotate };
    };
    let is_predecessor = shown.generation + 1 == shown.newest && shown.successor.is_some();
    let is_in_grace = spent_at + TimeDelta::seconds(GRACE_SECONDS) > now;
    if is_predecessor && is_in_grace && holder == Holder::Device { Verdict::Repeat } else { Verdict::Revoke }
}

/// `POST /auth/refresh`
pub async fn refresh(
    State(app): State<AppState>,
    context: Context,
    Valid(shown): Valid<Refresh>,
) -> Result<Response, ApiError> {
    let input = (Arc::clone(&app.auth), shown, context);
    let signed_in = app
        .writer
        .write(input, |tx, (auth, shown, context)| Box::pin(async move { exchange(tx, auth, shown, context).await }))
        .await?;
    json_response(StatusCode::OK, &signed_in.ok_or_else(ApiError::unauthenticated)?)
}

/// None is a refusal whose traces are kept.
async fn exchange(
    tx: &mut PgTx,
    auth: &Auth,
    shown: &Refresh,
    context: &Context,
) -> Result<Option<SignedIn>, ApiError> {
    let hash = hash_token(&shown.refresh_token);
    let Some(family) = db::lock_family_of(tx, &hash).await? else { return Ok(None) };
    let now = Utc::now();
    let token = db::shown(tx, &hash).await?;
    let holder = match &family.device_public_key {
        None => Holder::Anyone,
        Some(key) if shown.is_signed_by(key, now) => Holder::Device,
        Some(_) => Holder::Stranger,
    };
    let user = credentials::of_user(&mut **tx, family.user_id).await?.filter(|user| user.is_active);
    let Some(user) = user else { return Ok(None) };
    let next = match judge(&family, &token, holder, now) {
        Verdict::Rotate => rotate(tx, auth, (&family, &token, holder), &shown.refresh_token, now).await?,
        Verdict::Repeat => {
            let sealed = token.successor.as_deref().unwrap_or_default();
            let open = auth.seals.open(Purpose::Successor, shown.refresh_token.as_bytes(), sealed);
            String::from_utf8(open.map_err(ApiError::internal)?).map_err(ApiError::internal)?
        }
        verdict => {
            let is_reuse = verdict == Verdict::Revoke;
            if is_reuse {
                db::end(tx, family.user_id, Some(family.session_id), "refresh token used twice").await?;
            }
            let reason = if is_reuse { "used twice: the session is ended" } else { "the session is over" };
            audit::record(tx, context, entry(&family).refused().because(reason)).await?;
            return Ok(None);
        }
    };
    audit::record(tx, context, entry(&family)).await?;
    let who = (UserId(family.user_id), user.session_version);
    signed_in(auth, who, family.session_id, next, family.expires_at).map(Some)
}

fn entry(family: &Family) -> Entry<'static> {
    let mut entry = Entry::of_task("auth.refresh", format!("session/{}", family.session_id));
    entry.actor = family.user_id;
    entry
}

/// Spends the live token; only a device may come back for the successor, so only for it is one kept.
async fn rotate(
    tx: &mut PgTx,
    auth: &Auth,
    (family, token, holder): (&Family, &Shown, Holder),
    spent: &str,
    now: DateTime<Utc>,
) -> Result<String, ApiError> {
    let next = random_token();
    let sealed = (holder == Holder::Device)
        .then(|| auth.seals.seal(Purpose::Successor, spent.as_bytes(), next.as_bytes()))
        .transpose()
        .map_err(ApiError::internal)?;
    let row = (token.generation, sealed.as_deref(), &hash_token(&next)[..]);
    db::rotate(tx, family.session_id, row, now).await?;
    Ok(next)
}
