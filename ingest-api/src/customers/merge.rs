//! Two members who are one person: profile, points and history go on with the survivor; the other one stays as an alias.
//! Ledgers are not rewritten: points move by a pair of entries, documents keep the member they were sold to.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use runtime::pg::PgTx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::erasure::check_reason;
use super::profile::{self, Profile};
use super::{Member, points};
use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::step_up;
use crate::checks::Checks;
use crate::context::Context;
use crate::db::{outbox, profiles as db};
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, PathId, Valid};
use crate::privacy::Vault;

/// Which member goes into the one in the path, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMerge {
    pub absorbed_id: Uuid,
    /// A code of your own, for instance `duplicate`: 1 to 40 of `a-z`, `0-9`, `_`, `-`.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$")]
    pub reason: String,
}

impl Body for NewMerge {
    fn check(&mut self, checks: &mut Checks) {
        check_reason(checks, &self.reason);
    }
}

/// The survivor, and the points that came to it now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Merged {
    pub customer_id: Uuid,
    pub version: i64,
    pub absorbed_id: Uuid,
    /// 0 when the two had been merged before.
    pub points_moved: i64,
}

struct Merge {
    survivor: Uuid,
    new: NewMerge,
    vault: Arc<Vault>,
    who: Principal,
    context: Context,
}

/// `POST /members/{customer_id}/merge`: again without effect.
pub async fn merge_members(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(survivor): PathId,
    Valid(new): Valid<NewMerge>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    step_up::require(&mut *app.reads.acquire().await?, &access).await?;
    if new.absorbed_id == survivor {
        return Err(ApiError::invalid_value("/absorbed_id", "is the survivor itself"));
    }
    let vault = app.vault()?;
    let merge = Merge { survivor, new, vault: Arc::clone(&vault), who: access.principal, context };
    let absorbed = merge.new.absorbed_id;
    let (merged, profile) =
        app.writer.write(merge, |tx, merge| Box::pin(async move { merge_in(tx, merge).await })).await?;
    if let Some(profile) = profile {
        profile::drop_old_lookups(&vault, survivor, &profile).await;
        // Its fields are gone; what is left of them in backups must not outlive the survivor's erasure.
        if let Err(error) = vault.destroy(&[absorbed]).await {
            tracing::warn!(%error, member.id = %absorbed, "the key of a merged member stays until the survivor is erased");
        }
    }
    json_response(StatusCode::OK, &merged)
}

/// Under the lock order: the company's stream, the members, their accounts. The profile is none when nothing was done.
async fn merge_in(tx: &mut PgTx, merge: &Merge) -> Result<(Merged, Option<Profile>), ApiError> {
    let Merge { survivor, new, vault, who, context } = merge;
    let (survivor, absorbed) = (*survivor, new.absorbed_id);
    points::lock_company(tx).await?;
    let members = db::lock(tx, &[survivor, absorbed]).await?;
    if let Standing::Merged { version } = check(&members, survivor, absorbed)? {
        return Ok((Merged { customer_id: survivor, version, absorbed_id: absorbed, points_moved: 0 }, None));
    }
    // Aliases of the absorbed one become aliases of the survivor: an alias never leads to an alias.
    let aliases = members.iter().filter(|member| member.merged_into == Some(absorbed));
    let gone: Vec<Uuid> = aliases.map(|member| member.customer_id).chain([absorbed]).collect();
    let (ours, theirs) = (profile::open(tx, vault, survivor).await?, profile::open(tx, vault, absorbed).await?);
    let one = ours.clone().filled_from(theirs);
    if one != Profile::default() {
        profile::store(tx, vault, survivor, &ours, &one).await?;
    }
    db::keep_fields(tx, absorbed, &[]).await?;
    let moved = points::transfer(tx, absorbed, survivor, who.actor(), &context.trace_parent).await?;
    db::set_survivor(tx, &gone, survivor).await?;
    let member = db::raise_version(tx, survivor).await?;
    let entry = Entry::done(who, "member.merge", format!("member/{survivor} member/{absorbed}")).because(&new.reason);
    audit::record(tx, context, entry).await?;
    let points_moved = moved.as_ref().map_or(0, |moved| moved.points);
    if let Some(moved) = moved {
        outbox::append(tx, &moved.act, moved.epoch, moved.at).await?;
    }
    Ok((Merged { customer_id: survivor, version: member.version, absorbed_id: absorbed, points_moved }, Some(one)))
}

enum Standing {
    Apart,
    /// Done before; the present version of the survivor.
    Merged {
        version: i64,
    },
}

/// 404 without a survivor, 422 without the other one, 409 when one of them is not itself any more.
fn check(members: &[Member], survivor: Uuid, absorbed: Uuid) -> Result<Standing, ApiError> {
    let find = |id: Uuid| members.iter().find(|member| member.customer_id == id);
    let into = find(survivor).ok_or_else(|| ApiError::not_found("member"))?;
    let from = find(absorbed).ok_or_else(|| ApiError::invalid_value("/absorbed_id", "no such member"))?;
    if from.merged_into == Some(survivor) {
        return Ok(Standing::Merged { version: into.version });
    }
    if from.merged_into.is_some() || into.merged_into.is_some() {
        return Err(ApiError::conflict("illegal_transition", "one of them has been merged into another member"));
    }
    if from.erased_at.is_some() || into.erased_at.is_some() {
        return Err(ApiError::conflict("illegal_transition", "one of them has been erased"));
    }
    Ok(Standing::Apart)
}
