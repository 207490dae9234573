//! `GET /changes`: documents and stock acts of a location in the order of `location_seq`, from Postgres.
//! It fills whatever a till missed. A cursor of an earlier epoch is 410: begin again.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::cursor::{self, Cursor};
use crate::edits::json_response;
use crate::error::{ApiError, FieldProblem};
use crate::extract::Params;
use crate::inventory::acts::Moved;

const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 500;
/// Lines of all documents and acts of one page: large ones end it early, a single larger one goes alone.
const LINES_MAX: i64 = 20_000;

/// Query of the feed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangeParams {
    /// The location.
    pub location: Uuid,
    /// `next_cursor` of the page before; 0 or absent for everything.
    pub after: Option<String>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
}

/// One document or other act.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Change {
    pub location_seq: i64,
    /// `document` or `stock`.
    pub kind: &'static str,
    /// `sale`, `refund`, `exchange`, `void`; `receipt`, `adjustment`, `disposition`, `threshold` or `resync`.
    pub cause_type: String,
    pub cause_id: Uuid,
    pub recorded_at: DateTime<Utc>,
    /// The document as it was answered; absent for stock acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub body: Option<Value>,
    /// What it moved, with the state after each.
    pub movements: Vec<Moved>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Changes {
    pub items: Vec<Change>,
    /// Where to go on, also when nothing is there yet: `<epoch>-<location_seq>`.
    pub next_cursor: String,
    pub has_more: bool,
}

/// `GET /changes`
pub async fn list_changes(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<ChangeParams>,
) -> Result<Response, ApiError> {
    access.require_named(LocationId(params.location))?;
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::invalid_value("/limit", format!("must lie in 1 to {LIMIT_MAX}")));
    }
    let cursor = Cursor::parse(params.after.as_deref())?;
    // One snapshot: the rows and their movements belong together.
    let mut tx = app.snapshot().await?;
    let (epoch, last) = present(&mut tx, params.location).await?;
    let after = cursor.number_in(epoch, last)?;
    let (rows, has_more) = read_rows(&mut tx, params.location, after, limit).await?;
    let next = rows.last().map_or(after, |row| row.location_seq);
    let mut moved = read_movements(&mut tx, &rows).await?;
    let items = rows.into_iter().map(|row| row.into_change(&mut moved)).collect::<Result<_, ApiError>>()?;
    json_response(StatusCode::OK, &Changes { items, next_cursor: cursor::text(epoch, next), has_more })
}

/// The present epoch and the last number of the location; 422 when there is no such location.
async fn present(conn: &mut PgConnection, location: Uuid) -> Result<(i64, i64), ApiError> {
    let found: Option<(i64, i64)> = sqlx::query_as(
        "select (select max(epoch) from epochs), s.last_seq
         from streams s join locations l on l.location_id = s.stream_id where s.stream_id = $1",
    )
    .bind(location)
    .fetch_optional(conn)
    .await?;
    found.ok_or_else(|| ApiError::invalid(vec![FieldProblem::new("/location", "unknown_location", "no such location")]))
}

#[derive(sqlx::FromRow)]
struct Row {
    location_seq: i64,
    is_document: bool,
    cause_type: String,
    cause_id: Uuid,
    recorded_at: DateTime<Utc>,
    response: Option<String>,
    line_count: i64,
}

impl Row {
    fn into_change(self, moved: &mut HashMap<Uuid, Vec<Moved>>) -> Result<Change, ApiError> {
        let body = self.response.map(|text| serde_json::from_str(&text)).transpose().map_err(ApiError::internal)?;
        Ok(Change {
            location_seq: self.location_seq,
            kind: if self.is_document { "document" } else { "stock" },
            cause_type: self.cause_type,
            cause_id: self.cause_id,
            recorded_at: self.recorded_at,
            body,
            movements: moved.remove(&self.cause_id).unwrap_or_default(),
        })
    }
}

async fn read_rows(
    conn: &mut PgConnection,
    location: Uuid,
    after: i64,
    limit: i64,
) -> Result<(Vec<Row>, bool), sqlx::Error> {
    let mut rows: Vec<Row> = sqlx::query_as(
        "select location_seq, is_document, cause_type, cause_id, recorded_at, response,
                case when is_document
                     then (select count(*) from document_lines l where l.document_id = cause_id)
                     else line_count end as line_count
         from (
             (select location_seq, true as is_document, kind as cause_type, document_id as cause_id, recorded_at,
                     response, 0::bigint as line_count
              from documents where location_id = $1 and location_seq > $2 order by location_seq limit $3)
             union all
             (select location_seq, false, kind, act_id, recorded_at, null, line_count::bigint
              from stock_acts where location_id = $1 and location_seq > $2 order by location_seq limit $3)
             order by location_seq limit $3) page
         order by location_seq",
    )
    .bind(location)
    .bind(after)
    .bind(limit + 1)
    .fetch_all(conn)
    .await?;
    let has_more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let mut budget = LINES_MAX;
    let fits = rows.iter().take_while(|row| {
        budget -= row.line_count;
        budget >= 0
    });
    let kept = fits.count().max(1);
    let is_cut = kept < rows.len();
    rows.truncate(kept);
    Ok((rows, has_more || is_cut))
}

async fn read_movements(conn: &mut PgConnection, rows: &[Row]) -> Result<HashMap<Uuid, Vec<Moved>>, sqlx::Error> {
    let moves: Vec<(Uuid, Uuid, i64, i64, i64, Option<Uuid>)> = sqlx::query_as(
        "select cause_id, variant_id, version, delta, qty_after,
                case when parent_location_id is not null then location_id end
         from stock_movements
         where cause_id = any($1) order by cause_id, cause_line",
    )
    .bind(rows.iter().map(|row| row.cause_id).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let mut by_cause: HashMap<Uuid, Vec<Moved>> = HashMap::new();
    for (cause_id, variant_id, version, delta, qty_after, system_location_id) in moves {
        let moved = Moved { variant_id, version, delta, qty_after, system_location_id };
        by_cause.entry(cause_id).or_default().push(moved);
    }
    Ok(by_cause)
}
