//! Erasure: the sealed fields go, the numbers that other systems know are replaced, and the key store forgets the key,
//! so that every copy of the fields, in backups too, is unreadable. What was bought stays, of nobody.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::{PgTx, Writer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Member, profile};
use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::codes::random_text;
use crate::auth::step_up;
use crate::checks::Checks;
use crate::context::Context;
use crate::db::profiles as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, PathId, Valid};
use crate::privacy::Vault;

const REASON_CHARS_MAX: usize = 40;

/// Why; the trail keeps it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewErasure {
    /// A code of your own, for instance `request`: 1 to 40 of `a-z`, `0-9`, `_`, `-`.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$")]
    pub reason: String,
}

impl Body for NewErasure {
    fn check(&mut self, checks: &mut Checks) {
        check_reason(checks, &self.reason);
    }
}

/// Reasons are codes: what people write about people must not get into the trail.
pub fn check_reason(checks: &mut Checks, reason: &str) {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let is_code = (1..=REASON_CHARS_MAX).contains(&reason.len()) && reason.bytes().all(is_plain);
    checks.that(is_code, "/reason", "must be a code of 1 to 40 characters: a to z, 0 to 9, _ and -");
}

/// Done: the key is destroyed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Erasure {
    /// Of the survivor, where the member was merged.
    pub customer_id: Uuid,
    pub erased_at: DateTime<Utc>,
    /// Members that had been merged into this one and went with it.
    pub aliases: Vec<Uuid>,
}

/// Who asked for an erasure; none: the platform itself, which repeats what a restore undid.
pub type Asked = Option<(Principal, Context)>;

/// `POST /members/{customer_id}/erasure`: answered when the key is destroyed; again without effect.
pub async fn erase_member(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    Valid(new): Valid<NewErasure>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    step_up::require(&mut *app.reads.acquire().await?, &access).await?;
    let vault = app.vault()?;
    let asked = Some((access.principal, context));
    let erased = erase(&app.writer, &vault, id, new.reason, asked).await?;
    json_response(StatusCode::OK, &erased)
}

/// Erases a member with everything that was merged into it. An error after the commit leaves it to [`forget_pending`].
pub async fn erase(
    writer: &Writer,
    vault: &Arc<Vault>,
    id: Uuid,
    reason: String,
    asked: Asked,
) -> Result<Erasure, ApiError> {
    let members =
        writer.write((id, reason, asked), |tx, (id, reason, asked)| Box::pin(erase_in(tx, *id, reason, asked))).await?;
    let ids: Vec<Uuid> = members.iter().map(|member| member.customer_id).collect();
    forget(writer, vault, ids).await?;
    let (aliases, whole): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.merged_into.is_some());
    let member = whole.into_iter().next().ok_or_else(|| ApiError::not_found("member"))?;
    Ok(Erasure {
        customer_id: member.customer_id,
        erased_at: member.erased_at.unwrap_or_else(Utc::now),
        aliases: aliases.into_iter().map(|alias| alias.customer_id).collect(),
    })
}

async fn erase_in(tx: &mut PgTx, id: Uuid, reason: &str, asked: &Asked) -> Result<Vec<Member>, ApiError> {
    let (id, members) = lock_survivor(tx, id).await?;
    if members.iter().all(|member| member.erased_at.is_some()) {
        return Ok(members);
    }
    let ids: Vec<Uuid> = members.iter().map(|member| member.customer_id).collect();
    let numbers: Vec<String> = ids.iter().map(|_| format!("E{}", random_text(12))).collect();
    db::erase(tx, &ids, &numbers).await?;
    let target = format!("member/{id}");
    match asked {
        Some((who, context)) => {
            audit::record(tx, context, Entry::done(who, "member.erase", target).because(reason)).await?;
        }
        None => {
            let entry = Entry::of_task("member.erase", target).because(reason);
            audit::record(tx, &Context::of_task("erasure"), entry).await?;
        }
    }
    Ok(db::lock(tx, &[id]).await?)
}

/// Locks the member with everything merged into it. A merge may have gone by between the look and the lock.
async fn lock_survivor(tx: &mut PgTx, id: Uuid) -> Result<(Uuid, Vec<Member>), ApiError> {
    let mut id = profile::survivor(tx, id).await?.customer_id;
    loop {
        let members = db::lock(tx, &[id]).await?;
        match members.iter().find(|member| member.customer_id == id).and_then(|member| member.merged_into) {
            Some(survivor) => id = survivor,
            None => return Ok((id, members)),
        }
    }
}

/// Has the key store forget these members, and notes it.
async fn forget(writer: &Writer, vault: &Vault, ids: Vec<Uuid>) -> Result<(), ApiError> {
    vault.forget(&ids).await?;
    writer.write(ids, |tx, ids| Box::pin(async move { Ok::<_, ApiError>(db::set_key_gone(tx, ids).await?) })).await
}

/// Finishes erasures whose last step failed. Returns how many.
pub async fn forget_pending(writer: &Writer, vault: &Vault, limit: i64) -> Result<usize, ApiError> {
    let ids = db::to_forget(writer.pool(), limit).await?;
    let count = ids.len();
    if count > 0 {
        forget(writer, vault, ids).await?;
    }
    Ok(count)
}

/// Erases again whom the key store was told to forget and the database, restored to an earlier time, still knows.
/// Returns how many.
pub async fn repeat_after_restore(writer: &Writer, vault: &Arc<Vault>, page: i64) -> Result<usize, ApiError> {
    let (mut after, mut repeated) = (Uuid::nil(), 0);
    loop {
        let erased = vault.erased_after(after, page).await?;
        let Some(last) = erased.last() else { return Ok(repeated) };
        after = *last;
        for id in db::not_erased(writer.pool(), &erased).await? {
            erase(writer, vault, id, "restore".to_owned(), None).await?;
            repeated += 1;
        }
    }
}
