//! Everything the platform keeps about one person, as one JSON document.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::profile::{self, Profile};
use super::{LoyaltyAccount, Member};
use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::step_up;
use crate::catalog::upsert::BulkTurn;
use crate::context::Context;
use crate::db::customers as db;
use crate::error::ApiError;
use crate::extract::PathId;
use crate::sales::response::SaleBody;

/// One change of points.
#[derive(Debug, Serialize, sqlx::FromRow, ToSchema)]
pub struct ExportedEntry {
    pub account_id: Uuid,
    pub version: i64,
    pub kind: String,
    pub delta: i64,
    pub points_after: i64,
    pub cause_id: Uuid,
    pub recorded_at: DateTime<Utc>,
}

/// What is written before the documents.
#[derive(Serialize)]
struct Head {
    exported_at: DateTime<Utc>,
    members: Vec<Member>,
    profile: Option<Profile>,
    accounts: Vec<LoyaltyAccount>,
    entries: Vec<ExportedEntry>,
}

/// The document, for its description.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `export_member` writes")]
pub struct MemberExport {
    exported_at: DateTime<Utc>,
    /// The member and everybody merged into it.
    members: Vec<Member>,
    /// Null when it has been erased.
    profile: Option<Profile>,
    accounts: Vec<LoyaltyAccount>,
    entries: Vec<ExportedEntry>,
    /// Every sale to one of the members, as it was answered.
    documents: Vec<SaleBody<'static>>,
}

/// `GET /members/{customer_id}/export`: audited before it is answered. One at a time, since it reads every document.
pub async fn export_member(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    _turn: BulkTurn,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let vault = app.vault()?;
    let mut tx = app.snapshot().await?;
    step_up::require(&mut tx, &access).await?;
    let member = profile::survivor(&mut tx, id).await?;
    let id = member.customer_id;
    db::allow_long_read(&mut tx).await?;
    let profile = match member.erased_at {
        None => Some(profile::open(&mut tx, &vault, id).await?),
        Some(_) => None,
    };
    let members = db::with_aliases(&mut tx, id).await?;
    let ids: Vec<Uuid> = members.iter().map(|member| member.customer_id).collect();
    let mut accounts = Vec::new();
    for id in &ids {
        accounts.extend(db::accounts(&mut tx, *id, None, Utc::now()).await?);
    }
    let entries = db::entries(&mut tx, &ids).await?;
    let documents = db::documents(&mut tx, &ids).await?;
    drop(tx);
    app.writer
        .write((id, access.principal, context), |tx, (id, who, context)| {
            Box::pin(async move {
                let entry = Entry::done(who, "member.export", format!("member/{id}"));
                Ok::<_, ApiError>(audit::record(tx, context, entry).await?)
            })
        })
        .await?;
    let head = Head { exported_at: Utc::now(), members, profile, accounts, entries };
    let head = serde_json::to_string(&head).map_err(ApiError::internal)?;
    // The documents go out as they are stored, byte for byte.
    let body = format!(r#"{},"documents":[{}]}}"#, head.strip_suffix('}').unwrap_or(&head), documents.join(","));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}
