//! Enrolment: a one-time code, made by whoever manages terminals, binds a device's public key.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use schemas::ids::{LocationId, TerminalId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::codes::{grouped, hash_code as hash, random_text};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::{leases, terminals as db};
use crate::edits::{json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, PathId, Valid};

/// A code is typed in within the hour or not at all.
const CODE_MINUTES: i64 = 60;
/// 80 random bits.
const CODE_CHARS: usize = 16;
const CODE_CHARS_MAX: usize = 64;

/// A one-time code; only its hash is stored.
#[derive(Serialize, ToSchema)]
pub struct EnrolmentCode {
    /// In groups of four, to be typed.
    pub code: String,
    pub expires_at: DateTime<Utc>,
}

/// `POST /terminals/{terminal_id}/enrolment-codes`: an earlier unused code ends.
pub async fn create_code(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let code = random_text(CODE_CHARS);
    let expires_at = Utc::now() + TimeDelta::minutes(CODE_MINUTES);
    let input = (id, hash(&code), expires_at, access, context);
    app.writer
        .write(input, |tx, (id, hash, expires_at, access, context)| {
            Box::pin(async move {
                // Two requests at once must not each miss the code of the other.
                sqlx::query("select from terminals where terminal_id = $1 for no key update")
                    .bind(id)
                    .execute(&mut **tx)
                    .await?;
                let terminal = db::find(&mut **tx, *id).await?.ok_or_else(|| ApiError::not_found("terminal"))?;
                access.require_object_at(LocationId(terminal.location_id), "terminal")?;
                sqlx::query("delete from enrolment_codes where terminal_id = $1 and used_at is null")
                    .bind(id)
                    .execute(&mut **tx)
                    .await?;
                sqlx::query("insert into enrolment_codes (code_hash, terminal_id, expires_at) values ($1, $2, $3)")
                    .bind(&hash[..])
                    .bind(id)
                    .bind(expires_at)
                    .execute(&mut **tx)
                    .await?;
                let entry = Entry::done(&access.principal, "terminal.enrolment_code", format!("terminal/{id}"));
                audit::record(tx, context, entry.at(LocationId(terminal.location_id))).await?;
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    json_response(StatusCode::CREATED, &EnrolmentCode { code: grouped(&code), expires_at })
}

/// A device that asks to become a terminal.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnrolment {
    pub code: String,
    /// Ed25519, 32 bytes, base64url without padding.
    pub device_public_key: String,
}

impl Body for NewEnrolment {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.that(self.code.len() <= CODE_CHARS_MAX, "/code", "is too long");
        checks.that(self.key().is_some(), "/device_public_key", "must be 32 bytes in base64url without padding");
    }
}

impl NewEnrolment {
    fn key(&self) -> Option<[u8; 32]> {
        URL_SAFE_NO_PAD.decode(&self.device_public_key).ok()?.try_into().ok()
    }
}

/// What a device needs to begin.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct Enrolled {
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub register_id: String,
    pub series_epoch: i32,
    pub next_terminal_seq: i64,
    pub next_receipt_number: i64,
    pub currency: String,
    pub time_zone: String,
}

/// `POST /enrolments`. A wrong, used or expired code is 401, whichever it is.
pub async fn enrol(
    State(app): State<AppState>,
    context: Context,
    Valid(new): Valid<NewEnrolment>,
) -> Result<Response, ApiError> {
    let enrolled = app
        .writer
        .write((new, context), |tx, (new, context)| Box::pin(async move { bind(tx, new, context).await }))
        .await?;
    json_response(StatusCode::CREATED, &enrolled.ok_or_else(ApiError::unauthenticated)?)
}

/// None is a refusal, whose row in the audit log is kept.
async fn bind(tx: &mut PgTx, new: &NewEnrolment, context: &Context) -> Result<Option<Enrolled>, ApiError> {
    let key = new.key().ok_or_else(ApiError::unauthenticated)?;
    let terminal_id: Option<Uuid> = sqlx::query_scalar(
        "update enrolment_codes c set used_at = now() from terminals t
         where c.code_hash = $1 and c.used_at is null and c.expires_at > now()
           and t.terminal_id = c.terminal_id and t.is_active returning c.terminal_id",
    )
    .bind(&hash(&new.code)[..])
    .fetch_optional(&mut **tx)
    .await?;
    let Some(terminal_id) = terminal_id else {
        record_refusal(tx, new, context).await?;
        return Ok(None);
    };
    // A second device goes on in a new receipt series: what the first one still holds cannot collide.
    let location_id: Option<Uuid> = sqlx::query_scalar(
        "update terminals set device_public_key = $2, enrolled_at = now(), version = version + 1,
                session_version = session_version + 1,
                series_epoch = series_epoch + case when enrolled_at is null then 0 else 1 end
         where terminal_id = $1 and is_active returning location_id",
    )
    .bind(terminal_id)
    .bind(&key[..])
    .fetch_optional(&mut **tx)
    .await?;
    let location_id = LocationId(location_id.ok_or_else(ApiError::unauthenticated)?);
    leases::revoke_of_terminal(tx, terminal_id, None, "another device was enrolled").await?;
    let device = Principal::Terminal { terminal_id: TerminalId(terminal_id), location_id };
    let entry = Entry::done(&device, "terminal.enrol", format!("terminal/{terminal_id}")).at(location_id);
    audit::record(tx, context, entry).await?;
    Ok(Some(db::numbers(tx, terminal_id).await?))
}

/// The terminal stands in the row where the code once was one of its own; the code itself never does.
async fn record_refusal(tx: &mut PgTx, new: &NewEnrolment, context: &Context) -> Result<(), sqlx::Error> {
    let known: Option<(Uuid, Uuid)> = sqlx::query_as(
        "select terminal_id, location_id from enrolment_codes join terminals using (terminal_id) where code_hash = $1",
    )
    .bind(&hash(&new.code)[..])
    .fetch_optional(&mut **tx)
    .await?;
    let target = known.map_or("terminals".to_owned(), |(terminal_id, _)| format!("terminal/{terminal_id}"));
    let mut entry = Entry::of_task("terminal.enrol", target).refused();
    entry.location = known.map(|(_, location_id)| LocationId(location_id));
    entry.reason =
        if known.is_some() { "the code is used or expired, or the terminal is not active" } else { "no such code" };
    audit::record(tx, context, entry).await
}

/// `POST /terminals/{terminal_id}/retire`: the device that is bound now is worth nothing from now on, for instance because
/// it was stolen. Another may be enrolled.
pub async fn retire(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let terminal = app
        .writer
        .write((id, access, context), |tx, (id, access, context)| {
            Box::pin(async move {
                sqlx::query("select from terminals where terminal_id = $1 for no key update")
                    .bind(id)
                    .execute(&mut **tx)
                    .await?;
                let before = db::find(&mut **tx, *id).await?.ok_or_else(|| ApiError::not_found("terminal"))?;
                let location = LocationId(before.location_id);
                access.require_object_at(location, "terminal")?;
                if db::device_key(&mut **tx, *id).await?.is_none() {
                    return Err(ApiError::conflict("illegal_transition", "no device is enrolled"));
                }
                let terminal = db::unbind(tx, *id).await?;
                leases::revoke_of_terminal(tx, *id, None, "the device was retired").await?;
                let entry = Entry::done(&access.principal, "terminal.retire", format!("terminal/{id}")).at(location);
                audit::record(tx, context, entry.states(Some(&before), &terminal)).await?;
                Ok(terminal)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &terminal, terminal.version)
}
