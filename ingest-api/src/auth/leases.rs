//! Leases: what lets a cashier go on selling at one till while it does not reach the server. A lease is bounded in time,
//! bound to the device, and can be taken back; work done under one that was is accepted later and flagged.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::context::Context;
use crate::db::leases as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Params, PathId};
use crate::page::{self, Page};

const LIST: &str = "leases";

/// A lease as it is. The verifier is shown to the device alone, and once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Lease {
    pub lease_id: Uuid,
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub cashier_id: Uuid,
    /// What the cashier could do there when it was issued.
    pub permissions: Vec<String>,
    pub issued_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub revoke_reason: Option<String>,
}

/// Query of the list of leases.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LeaseParams {
    pub location_id: Option<Uuid>,
    pub terminal_id: Option<Uuid>,
    pub cashier_id: Option<Uuid>,
    /// Only those that are neither revoked nor over.
    pub live: Option<bool>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// `GET /leases`
pub async fn list_leases(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<LeaseParams>,
) -> Result<Response, ApiError> {
    if let Some(location) = params.location_id {
        access.require_named(LocationId(location))?;
    }
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let scope = params.location_id.map(|location| vec![location]).or_else(|| access.scope());
    let rows = db::list(&app.reads, scope, &params, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &Lease| row.lease_id)?;
    json_response(StatusCode::OK, &page)
}

/// `POST /leases/{lease_id}/revoke`: one that is revoked already stays as it is.
pub async fn revoke_lease(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(lease_id): PathId,
) -> Result<Response, ApiError> {
    let lease = app
        .writer
        .write((access, context, lease_id), |tx, (access, context, lease_id)| {
            Box::pin(async move {
                let before = db::lock(tx, *lease_id).await?.ok_or_else(|| ApiError::not_found("lease"))?;
                let location = LocationId(before.location_id);
                access.require_object_at(location, "lease")?;
                let lease = db::revoke(tx, *lease_id, access.actor().0, "revoked").await?;
                let entry = Entry::done(&access.principal, "lease.revoke", format!("lease/{lease_id}")).at(location);
                audit::record(tx, context, entry.states(Some(&before), &lease)).await?;
                Ok::<_, ApiError>(lease)
            })
        })
        .await?;
    json_response(StatusCode::OK, &lease)
}
