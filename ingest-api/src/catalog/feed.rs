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
use crate::cursor::{self, Cursor};
use crate::db::catalog_writes::Kind;
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
    pub after: Option<String>,
    /// Rows of a page, 1 to 5,000 (500).
    pub limit: Option<i64>,
}

/// One change: the state of an object from this catalog version on.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct CatalogChange {
    pub catalog_version: i64,
    /// `product`, `variant`, `price`, `tax_profile`, `location`, `cashier` or `loyalty_program`.
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
    /// Where the next page, or the next question, begins: `<epoch>-<catalog_version>`.
    pub next_after: String,
    /// The version in force when this page was read.
    pub catalog_version: i64,
    pub has_more: bool,
}

/// `GET /catalog/changes`. What concerns other locations than the caller's only is left out: their prices, their
/// cashiers, the locations themselves. A cursor of an earlier epoch is 410: begin again.
pub async fn list_changes(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<FeedParams>,
) -> Result<Response, ApiError> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid_value("/limit", format!("must lie in 1 to {LIMIT_MAX}")));
    }
    let cursor = Cursor::parse(params.after.as_deref())?;
    // The counter is read before the rows: what is in force by then is visible to the second statement.
    let (catalog_version, epoch): (i64, i64) =
        sqlx::query_as("select version, (select max(epoch) from epochs) from catalog_counter")
            .fetch_one(&app.reads)
            .await?;
    let after = cursor.number_in(epoch, catalog_version)?;
    let scope = access.scope();
    let mut items: Vec<CatalogChange> = sqlx::query_as(
        "select catalog_version, kind, object_id, object_version as version, deleted, body from catalog_changes
         where catalog_version > $1 and catalog_version <= $2
           and (concerns is null or (concerns <> '{}' and $3::uuid[] is null) or concerns && $3)
         order by catalog_version limit $4",
    )
    .bind(after)
    .bind(catalog_version)
    .bind(&scope)
    .bind(limit + 1)
    .fetch_all(&app.reads)
    .await?;
    let has_more = items.len() as i64 > limit;
    items.truncate(limit as usize);
    if let Some(scope) = &scope {
        items.iter_mut().filter(|item| item.kind == Kind::Cashier.as_str()).for_each(|item| narrow(item, scope));
    }
    let next = match items.last() {
        Some(last) if has_more => last.catalog_version,
        _ => catalog_version,
    };
    let next_after = cursor::text(epoch, next);
    json_response(StatusCode::OK, &CatalogChanges { items, next_after, catalog_version, has_more })
}

/// Leaves of the places where a cashier may sell those that the reader may know of.
fn narrow(cashier: &mut CatalogChange, scope: &[Uuid]) {
    if let Some(places) = cashier.body.get_mut("sells_at").and_then(Value::as_array_mut) {
        let is_known =
            |place: &Value| place.as_str().and_then(|id| id.parse().ok()).is_some_and(|id| scope.contains(&id));
        places.retain(is_known);
    }
}
