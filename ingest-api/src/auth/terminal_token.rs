//! `POST /auth/terminal-token`: a device proves its key by signing the request; each nonce counts once.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::{LocationId, TerminalId};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Principal;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::refusals;
use crate::auth::tokens::{IssuedToken, Subject};
use crate::checks::Checks;
use crate::context::Context;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, Valid};

/// How far the device's clock may be off.
const WINDOW_SECONDS: i64 = 300;
const NONCE_CHARS_MIN: usize = 16;
const NONCE_CHARS_MAX: usize = 128;
const SIGNATURE_CHARS_MAX: usize = 128;
const ACTION: &str = "auth.terminal_token";

/// A signed request of a device. The signature covers the text
/// `vorca-terminal-token\n<terminal_id>\n<issued_at>\n<nonce>`, with the values exactly as sent.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalTokenRequest {
    pub terminal_id: Uuid,
    /// RFC 3339; at most five minutes off.
    pub issued_at: String,
    /// 16 to 128 characters, single use; normally a UUID.
    #[serde(deserialize_with = "nonce")]
    pub nonce: String,
    /// Ed25519, base64url without padding.
    pub signature: String,
}

/// A text of a type of its own, by which the card filter knows that a UUID may look like a card number.
fn nonce<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    struct Nonce(String);
    Nonce::deserialize(reader).map(|Nonce(text)| text)
}

impl Body for TerminalTokenRequest {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        let is_instant = DateTime::parse_from_rfc3339(&self.issued_at).is_ok();
        checks.that(is_instant, "/issued_at", "is no RFC 3339 instant");
        let is_plain = self.nonce.bytes().all(|byte| byte.is_ascii_graphic());
        let is_sized = (NONCE_CHARS_MIN..=NONCE_CHARS_MAX).contains(&self.nonce.len());
        checks.that(is_plain && is_sized, "/nonce", "must be 16 to 128 visible ASCII characters");
        checks.that(self.signature.len() <= SIGNATURE_CHARS_MAX, "/signature", "is too long");
    }
}

impl TerminalTokenRequest {
    fn is_signed_by(&self, key: &[u8]) -> bool {
        let text = signed_text(&self.terminal_id.to_string(), &self.issued_at, &self.nonce);
        URL_SAFE_NO_PAD
            .decode(&self.signature)
            .is_ok_and(|signature| UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok())
    }
}

/// The text that a device signs.
pub fn signed_text(terminal_id: &str, issued_at: &str, nonce: &str) -> String {
    format!("vorca-terminal-token\n{terminal_id}\n{issued_at}\n{nonce}")
}

/// `POST /auth/terminal-token`
pub async fn issue_terminal_token(
    State(app): State<AppState>,
    context: Context,
    Valid(request): Valid<TerminalTokenRequest>,
) -> Result<Response, ApiError> {
    app.budgets.sign_in_as(&request.terminal_id.to_string())?;
    let issued_at = DateTime::parse_from_rfc3339(&request.issued_at).map_err(|_| ApiError::unauthenticated())?;
    let issued_at = issued_at.with_timezone(&Utc);
    if (Utc::now() - issued_at).abs() > TimeDelta::seconds(WINDOW_SECONDS) {
        return Err(ApiError::unauthenticated());
    }
    let known: Option<(Vec<u8>, Uuid, i32)> = sqlx::query_as(
        "select t.device_public_key, t.location_id, t.session_version
         from terminals t join locations l using (location_id)
         where t.terminal_id = $1 and t.is_active and l.is_active and t.device_public_key is not null",
    )
    .bind(request.terminal_id)
    .fetch_optional(&app.door)
    .await?;
    let device = |location_id| Principal::Terminal {
        terminal_id: TerminalId(request.terminal_id),
        location_id: LocationId(location_id),
    };
    let signed = known.as_ref().filter(|(key, ..)| request.is_signed_by(key));
    let Some(&(_, location_id, session_version)) = signed else {
        let known = known.map(|(_, location, _)| {
            let entry = Entry::done(&device(location), ACTION, format!("terminal/{}", request.terminal_id));
            entry.at(LocationId(location)).because("signature")
        });
        // A till has to learn that its key is worth nothing: 401, also when it is not counted any more.
        refusals::count(&app, context, known, Utc::now()).await?;
        return Err(ApiError::unauthenticated());
    };
    let device = device(location_id);
    spend_nonce(&app, &request, issued_at, device, context).await?;
    let subject = Subject::Terminal(TerminalId(request.terminal_id), LocationId(location_id));
    let token: IssuedToken =
        app.auth.tokens.issue(subject, Uuid::new_v4(), session_version).map_err(ApiError::internal)?;
    json_response(StatusCode::OK, &token)
}

/// 401 when the nonce was used, which is audited as a new one is; those whose window has closed are forgotten.
async fn spend_nonce(
    app: &AppState,
    request: &TerminalTokenRequest,
    issued_at: DateTime<Utc>,
    device: Principal,
    context: Context,
) -> Result<(), ApiError> {
    let expires_at = issued_at + TimeDelta::seconds(2 * WINDOW_SECONDS);
    let is_fresh = app
        .writer
        .write((request.clone(), expires_at, device, context), |tx, (request, expires_at, device, context)| {
            Box::pin(async move {
                let TerminalTokenRequest { terminal_id, nonce, .. } = request;
                sqlx::query("delete from terminal_nonces where terminal_id = $1 and expires_at < now()")
                    .bind(terminal_id)
                    .execute(&mut **tx)
                    .await?;
                let done = sqlx::query(
                    "insert into terminal_nonces (terminal_id, nonce, expires_at) values ($1, $2, $3)
                     on conflict do nothing",
                )
                .bind(terminal_id)
                .bind(nonce)
                .bind(expires_at)
                .execute(&mut **tx)
                .await?;
                let is_fresh = done.rows_affected() == 1;
                let mut entry = Entry::done(device, ACTION, format!("terminal/{terminal_id}"));
                entry.location = device.terminal().map(|(_, location)| location);
                entry.is_refused = !is_fresh;
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(is_fresh)
            })
        })
        .await?;
    if is_fresh { Ok(()) } else { Err(ApiError::unauthenticated()) }
}
