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
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::Params;
use crate::inventory::acts::Moved;

const LIMIT_DEFAULT: i64 = 100;
const LIMIT_MAX: i64 = 500;
/// Movements of one page: a large receipt ends it early.
const MOVEMENTS_MAX: i64 = 20_000;

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
    /// `sale`, `receipt`, `adjustment`, `threshold` or `resync`.
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
    let cursor = parse(params.after.as_deref().unwrap_or("0"))?;
    // One snapshot: the rows and their movements belong together.
    let mut tx = app.reads.begin_with("begin isolation level repeatable read read only").await?;
    let epoch: i64 = sqlx::query_scalar("select max(epoch) from epochs").fetch_one(&mut *tx).await?;
    let after = match cursor {
        None => 0,
        Some((then, seq)) if then == epoch => seq,
        Some(_) => {
            let gone = "the cursor is from before a restore: begin again with after=0";
            return Err(ApiError::new(StatusCode::GONE, "cursor_expired", gone));
        }
    };
    let (rows, has_more) = read_rows(&mut tx, params.location, after, limit).await?;
    let next = rows.last().map_or(after, |row| row.location_seq);
    let mut moved = read_movements(&mut tx, &rows).await?;
    let items = rows.into_iter().map(|row| row.into_change(&mut moved)).collect::<Result<_, ApiError>>()?;
    json_response(StatusCode::OK, &Changes { items, next_cursor: format!("{epoch}-{next}"), has_more })
}

/// Epoch and location_seq of a cursor; none for the beginning.
fn parse(cursor: &str) -> Result<Option<(i64, i64)>, ApiError> {
    if cursor == "0" {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let parts = cursor.split_once('-').and_then(|(epoch, seq)| Some((number(epoch)?, number(seq)?)));
    parts.map(Some).ok_or_else(|| ApiError::bad_request("malformed", "this cursor was not made by this feed"))
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
        "(select location_seq, true as is_document, kind as cause_type, document_id as cause_id, recorded_at, response,
                 0::bigint as line_count
          from documents where location_id = $1 and location_seq > $2 order by location_seq limit $3)
         union all
         (select location_seq, false, kind, act_id, recorded_at, null, line_count::bigint
          from stock_acts where location_id = $1 and location_seq > $2 order by location_seq limit $3)
         order by location_seq limit $3",
    )
    .bind(location)
    .bind(after)
    .bind(limit + 1)
    .fetch_all(conn)
    .await?;
    let has_more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    // A document has at most a thousand lines but nearly always few: only acts count as what they are.
    let mut budget = MOVEMENTS_MAX;
    let fits = rows.iter().take_while(|row| {
        budget -= if row.is_document { 10 } else { row.line_count };
        budget >= 0
    });
    let kept = fits.count().max(1);
    let is_cut = kept < rows.len();
    rows.truncate(kept);
    Ok((rows, has_more || is_cut))
}

async fn read_movements(conn: &mut PgConnection, rows: &[Row]) -> Result<HashMap<Uuid, Vec<Moved>>, sqlx::Error> {
    let moves: Vec<(Uuid, Uuid, i64, i64, i64)> = sqlx::query_as(
        "select cause_id, variant_id, version, delta, qty_after from stock_movements
         where cause_id = any($1) order by cause_id, cause_line",
    )
    .bind(rows.iter().map(|row| row.cause_id).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let mut by_cause: HashMap<Uuid, Vec<Moved>> = HashMap::new();
    for (cause_id, variant_id, version, delta, qty_after) in moves {
        by_cause.entry(cause_id).or_default().push(Moved { variant_id, version, delta, qty_after });
    }
    Ok(by_cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_epoch_and_number() {
        assert_eq!(parse("0").unwrap(), None);
        assert_eq!(parse("3-17").unwrap(), Some((3, 17)));
        for bad in ["", "17", "-1", "1-", "1--2", "1-+2", "1-2-3", "a-b", "1-99999999999999999999"] {
            assert_eq!(parse(bad).unwrap_err().code, "malformed", "{bad}");
        }
    }
}
