//! `GET /audit`: what was done or refused, newest first, and `GET /sales/{sale_id}/proof`. Reading the log is an act
//! and leaves its row too.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Entry, proof, record};
use crate::access::{Access, Permission, Role};
use crate::app::AppState;
use crate::context::Context;
use crate::db::sales;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Params, PathId};
use crate::page::{self, Page};

const LIST: &str = "audit";
const FILTER_CHARS_MAX: usize = 200;
/// Acts of the technical role's own field: nothing about money, stock or people's data. The refusals of what that role
/// may do come on top.
const TECHNICAL: [&str; 10] = [
    "api\\_client.%",
    "audit.%",
    "auth.%",
    "epoch.%",
    "key.%",
    "lease.%",
    "location.%",
    "records.%",
    "sign\\_in\\_policy.%",
    "terminal.%",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    Done,
    Refused,
}

/// Query of the audit log; filters are joined by "and".
#[derive(Debug, Clone, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// User or terminal that acted.
    pub actor: Option<Uuid>,
    /// Action, for instance `stock.adjustment`; with a dot at its end every action that begins so.
    pub action: Option<String>,
    /// Object, for instance `user/<id>`.
    pub target: Option<String>,
    /// Only this location.
    pub location_id: Option<Uuid>,
    /// From this instant on.
    pub from: Option<DateTime<Utc>>,
    /// Before this instant.
    pub to: Option<DateTime<Utc>>,
    #[param(inline)]
    pub outcome: Option<AuditOutcome>,
    /// Rows of a page, 1 to 500 (100).
    #[serde(skip_serializing)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[serde(skip_serializing)]
    pub cursor: Option<String>,
}

/// One act, done or refused.
#[derive(Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct AuditItem {
    pub audit_id: Uuid,
    pub epoch: i64,
    pub recorded_at: DateTime<Utc>,
    /// Null: an act of the company.
    pub location_id: Option<Uuid>,
    /// User or terminal; all zero where nobody was known.
    pub actor: Uuid,
    pub actor_role: String,
    pub approver: Option<Uuid>,
    pub action: String,
    pub target: String,
    /// SHA-256 of the state before and after, lower-case hex.
    pub before_digest: Option<String>,
    pub after_digest: Option<String>,
    pub reason: String,
    /// `done` or `refused`.
    pub outcome: String,
    pub request_id: String,
    pub terminal_id: Option<Uuid>,
    pub address: String,
    /// Number in the chain of its location, and the hash there; null until it is sealed, which takes a second.
    pub seq: Option<i64>,
    pub hash: Option<String>,
}

/// Which rows a caller may see.
struct Sight {
    /// Locations whose every row is shown; none means every row.
    whole: Option<Vec<Uuid>>,
    /// Locations whose technical rows are shown; none means all of them.
    technical: Option<Vec<Uuid>>,
}

impl Sight {
    fn of(access: &Access) -> Self {
        let scope = |permission| Access { permission, ..access.clone() }.scope();
        Sight { whole: scope(Permission::ReadWholeAudit), technical: scope(Permission::ReadAudit) }
    }
}

/// Patterns of the technical actions.
fn technical() -> Vec<String> {
    let refusable = Permission::ALL.iter().filter(|permission| permission.is_held_by(Role::ItAdmin));
    let refusals = refusable.map(|permission| format!("refused.{permission:?}"));
    TECHNICAL.iter().map(|pattern| (*pattern).to_owned()).chain(refusals).collect()
}

/// `GET /audit`
pub async fn list_audit(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Params(params): Params<AuditParams>,
) -> Result<Response, ApiError> {
    for (pointer, text) in [("/action", &params.action), ("/target", &params.target)] {
        if text.as_ref().is_some_and(|text| text.chars().count() > FILTER_CHARS_MAX || text.contains('\0')) {
            return Err(ApiError::invalid_value(pointer, format!("must be at most {FILTER_CHARS_MAX} characters")));
        }
    }
    if let Some(location) = params.location_id {
        access.require_named(LocationId(location))?;
    }
    let limit = page::limit(params.limit)?;
    let filters = serde_json::to_string(&params).map_err(ApiError::internal)?;
    let list = format!("{LIST} {filters}");
    let before: Option<(DateTime<Utc>, Uuid)> = app.auth.cursors.open(&list, params.cursor.as_deref())?;
    app.writer
        .write((access.clone(), context, filters, params.location_id), |tx, (access, context, filters, location)| {
            Box::pin(async move {
                let mut entry = Entry::done(&access.principal, "audit.read", LIST.to_owned()).because(filters);
                entry.location = location.map(LocationId);
                Ok::<_, ApiError>(record(tx, context, entry).await?)
            })
        })
        .await?;
    let rows = find(&app.reads, &Sight::of(&access), &params, before, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, &list, |row| (row.recorded_at, row.audit_id))?;
    json_response(StatusCode::OK, &page)
}

async fn find(
    pool: &PgPool,
    sight: &Sight,
    params: &AuditParams,
    before: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<AuditItem>, sqlx::Error> {
    sqlx::query_as(
        "select a.audit_id, a.epoch, a.recorded_at, a.location_id, a.actor, a.actor_role, a.approver, a.action, a.target,
                encode(a.before_digest, 'hex') as before_digest, encode(a.after_digest, 'hex') as after_digest, a.reason,
                a.outcome, a.request_id, a.terminal_id, a.address, s.seq, encode(s.hash, 'hex') as hash
         from audit_log a left join audit_seals s using (audit_id)
         where ($1::uuid[] is null or a.location_id = any ($1)
                or (($2::uuid[] is null or a.location_id = any ($2)) and a.action like any ($3)))
           and ($4::uuid is null or a.actor = $4)
           and ($5::text is null or a.action = $5 or (right($5, 1) = '.' and starts_with(a.action, $5)))
           and ($6::text is null or a.target = $6)
           and ($7::uuid is null or a.location_id = $7)
           and ($8::timestamptz is null or a.recorded_at >= $8)
           and ($9::timestamptz is null or a.recorded_at < $9)
           and ($10::text is null or a.outcome = $10)
           and ($11::timestamptz is null or (a.recorded_at, a.audit_id) < ($11, $12))
         order by a.recorded_at desc, a.audit_id desc limit $13",
    )
    .bind(&sight.whole)
    .bind(&sight.technical)
    .bind(technical())
    .bind(params.actor)
    .bind(&params.action)
    .bind(&params.target)
    .bind(params.location_id)
    .bind(params.from)
    .bind(params.to)
    .bind(params.outcome.map(|outcome| match outcome {
        AuditOutcome::Done => "done",
        AuditOutcome::Refused => "refused",
    }))
    .bind(before.map(|(at, _)| at))
    .bind(before.map(|(_, id)| id))
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// `GET /sales/{sale_id}/proof`: 409 `not_rooted` until the root over its business day is signed.
pub async fn prove_sale(State(app): State<AppState>, access: Access, id: PathId) -> Result<Response, ApiError> {
    let found = sales::find(&app.reads, id.0).await?;
    let (location_id, receipt) = found.ok_or_else(|| ApiError::not_found("sale"))?;
    access.require_object_at(LocationId(location_id), "sale")?;
    let mut tx = app.snapshot().await?;
    let proof = proof::of_sale(&mut tx, id.0, receipt).await?;
    tx.rollback().await?;
    json_response(StatusCode::OK, &proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_technical_role_sees_no_refusal_of_what_it_may_not_do() {
        let patterns = technical();
        assert!(patterns.contains(&"refused.ManageTerminals".to_owned()));
        for closed in ["refused.Sell", "refused.ReadMembers", "refused.ManagePrices", "sale.%", "user.%"] {
            assert!(!patterns.contains(&closed.to_owned()), "{closed}");
        }
    }
}
