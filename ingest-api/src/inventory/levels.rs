//! `GET /stock` and `GET /stock/movements`.

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
use crate::db::inventory as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::Params;
use crate::page::{self, Page};

const LEVELS: &str = "stock";
const MOVEMENTS: &str = "stock/movements";

/// Query of the stock list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StockParams {
    pub location_id: Option<Uuid>,
    pub variant_id: Option<Uuid>,
    /// Only what lies below its threshold.
    pub low: Option<bool>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// One variant at one location. A quantity never written reads as absent.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct StockLevel {
    pub location_id: Uuid,
    pub variant_id: Uuid,
    pub sku: String,
    pub name: String,
    /// Thousandths; may be negative where overselling is allowed.
    pub qty: i64,
    pub version: i64,
    pub threshold: Option<i64>,
    pub hysteresis: i64,
    pub is_low: bool,
}

/// `GET /stock`
pub async fn list_stock(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<StockParams>,
) -> Result<Response, ApiError> {
    if let Some(location) = params.location_id {
        access.require_named(LocationId(location))?;
    }
    let limit = page::limit(params.limit)?;
    let after: Option<(Uuid, Uuid)> = app.auth.cursors.open(LEVELS, params.cursor.as_deref())?;
    let rows = db::list_levels(&app.reads, &params, access.scope(), after, limit + 1).await?;
    let key = |row: &StockLevel| (row.location_id, row.variant_id);
    json_response(StatusCode::OK, &Page::of(rows, limit, &app.auth.cursors, LEVELS, key)?)
}

/// Query of the list of movements.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MovementParams {
    pub location_id: Uuid,
    pub variant_id: Option<Uuid>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// One change of a stock level.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct Movement {
    pub location_id: Uuid,
    pub variant_id: Uuid,
    /// Gapless per location and variant.
    pub version: i64,
    pub location_seq: i64,
    pub delta: i64,
    pub qty_after: i64,
    pub cause_type: String,
    pub cause_id: Uuid,
    pub cause_line: i32,
    pub reason: String,
    pub document_uri: Option<String>,
    pub actor: Uuid,
    pub effective_at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
    pub threshold: Option<i64>,
    pub hysteresis: i64,
    pub unit_cost_minor: Option<i64>,
}

/// `GET /stock/movements`
pub async fn list_movements(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<MovementParams>,
) -> Result<Response, ApiError> {
    access.require_named(LocationId(params.location_id))?;
    let limit = page::limit(params.limit)?;
    let after: Option<(Uuid, i64)> = app.auth.cursors.open(MOVEMENTS, params.cursor.as_deref())?;
    let rows = db::list_movements(&app.reads, &params, after, limit + 1).await?;
    let key = |row: &Movement| (row.variant_id, row.version);
    json_response(StatusCode::OK, &Page::of(rows, limit, &app.auth.cursors, MOVEMENTS, key)?)
}
