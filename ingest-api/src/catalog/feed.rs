//! `GET /catalog/changes`: every state of everything a till needs, in the order of catalog versions.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::Params;

const LIMIT_DEFAULT: i64 = 500;
const LIMIT_MAX: i64 = 5_000;

/// Query of the feed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedParams {
    /// `next_after` of the page before; 0 or absent for everything.
    pub after: Option<i64>,
    /// Rows of a page, 1 to 5,000 (500).
    pub limit: Option<i64>,
}

/// One change: the state of an object from this catalog version on.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct CatalogChange {
    pub catalog_version: i64,
    /// `product`, `variant`, `price`, `tax_profile`, `location` or `cashier`.
    pub kind: String,
    pub object_id: Uuid,
    /// The object's own version; a smaller one than you hold is to be ignored.
    pub version: i64,
    pub deleted: bool,
    /// The whole object, as its own route shows it.
    #[schema(value_type = Object)]
    pub body: Value,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CatalogChanges {
    pub items: Vec<CatalogChange>,
    /// Where the next page, or the next question, begins.
    pub next_after: i64,
    /// The version in force when this page was read.
    pub catalog_version: i64,
    pub has_more: bool,
}

/// `GET /catalog/changes`. Prices and locations out of the caller's scope are left out.
pub async fn list_changes(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<FeedParams>,
) -> Result<Response, ApiError> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid_value("/limit", format!("must lie in 1 to {LIMIT_MAX}")));
    }
    let after = params.after.unwrap_or(0);
    if after < 0 {
        return Err(ApiError::invalid_value("/after", "must not be negative"));
    }
    // The counter is read before the rows: what is in force by then is visible to the second statement.
    let catalog_version: i64 = sqlx::query_scalar("select version from catalog_counter").fetch_one(&app.reads).await?;
    let mut items: Vec<CatalogChange> = sqlx::query_as(
        "select catalog_version, kind, object_id, object_version as version, deleted, body from catalog_changes
         where catalog_version > $1 and catalog_version <= $2
           and (location_id is null or $3::uuid[] is null or location_id = any($3))
         order by catalog_version limit $4",
    )
    .bind(after)
    .bind(catalog_version)
    .bind(access.scope())
    .bind(limit + 1)
    .fetch_all(&app.reads)
    .await?;
    let has_more = items.len() as i64 > limit;
    items.truncate(limit as usize);
    let next_after = match items.last() {
        Some(last) if has_more => last.catalog_version,
        _ => catalog_version.max(after),
    };
    json_response(StatusCode::OK, &CatalogChanges { items, next_after, catalog_version, has_more })
}
