//! `POST /stock/dispositions`: goods that came back and were looked at go on, into stock or waste. `GET /stock/aside`: what
//! lies beside the stock of a location.
//!
//! Each line is two movements in one act: out of the place where goods wait, into the other one.

use std::collections::{HashMap, HashSet};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::events::StockMoved;
use schemas::ids::{LocationId, VariantId};
use schemas::money::storable;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::acts::{Moved, StockAct, respond};
use super::store::Stored;
use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::business_day::{business_moment, day_start};
use crate::checks::{BULK_ROWS_MAX, Checks, QTY_MAX};
use crate::context::Context;
use crate::db::inventory as db;
use crate::db::outbox::{self, Act};
use crate::db::returns;
use crate::edits::json_response;
use crate::error::{ApiError, FieldProblem};
use crate::extract::{Body, IdempotencyKey, Params, Valid};
use crate::page::{self, Page};
use crate::returns::records::{Stock, system_location};
use crate::returns::types::Disposition;
use crate::sales::known::StockRow;

const ROUTE: &str = "POST /stock/dispositions";
const KIND: &str = "disposition";
const ASIDE: &str = "stock/aside";

/// Where goods go after somebody looked at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    Stock,
    Waste,
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DispositionLine {
    pub variant_id: Uuid,
    /// Thousandths, above 0.
    pub qty: i64,
    pub to: Destination,
}

/// Goods that waited for a look.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDisposition {
    pub act_id: Option<Uuid>,
    pub location_id: Uuid,
    /// A code of the company's own: 1 to 40 of `a-z`, `0-9`, `_`, `-`.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$")]
    pub reason: String,
    /// When it happened; now when absent.
    pub effective_at: Option<DateTime<Utc>>,
    /// 1 to 10,000; a variant may go both ways, once each.
    pub lines: Vec<DispositionLine>,
}

impl Body for NewDisposition {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/act_id", self.act_id);
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let is_code = (1..=40).contains(&self.reason.len()) && self.reason.bytes().all(is_plain);
        checks.that(is_code, "/reason", "must be a code of 1 to 40 characters: a to z, 0 to 9, _ and -");
        if let Some(at) = self.effective_at {
            checks.past("/effective_at", at);
        }
        checks.rows("/lines", self.lines.len(), BULK_ROWS_MAX);
        let mut seen = HashSet::new();
        for (i, line) in self.lines.iter().enumerate().take(BULK_ROWS_MAX) {
            let is_first = seen.insert((line.variant_id, line.to == Destination::Waste));
            checks.that(is_first, format_args!("/lines/{i}/variant_id"), "stands twice");
            checks.range(format_args!("/lines/{i}/qty"), line.qty, 1..=QTY_MAX);
        }
    }
}

/// `POST /stock/dispositions`
pub async fn create_disposition(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewDisposition>,
) -> Result<Response, ApiError> {
    access.require_named(LocationId(new.location_id))?;
    let input = (new, access.principal, context, key.0);
    let stored = app.writer.write(input, |tx, (new, who, context, key)| Box::pin(commit(tx, new, (who, context), key)));
    Ok(respond(stored.await?))
}

/// SHA-256 of the act: what makes two bodies under one key the same.
fn fingerprint(new: &NewDisposition) -> [u8; 32] {
    // A plain struct of numbers and codes always serialises.
    Sha256::digest(serde_json::to_vec(new).unwrap_or_default()).into()
}

async fn commit(
    tx: &mut PgTx,
    new: &NewDisposition,
    (who, context): (&Principal, &Context),
    key: &str,
) -> Result<Stored, ApiError> {
    let location = LocationId(new.location_id);
    let absent = || ApiError::invalid_value("/location_id", "no such location");
    if !db::lock_location(tx, location.0).await? {
        return Err(absent());
    }
    let (principal, fingerprint) = (who.key_scope(), fingerprint(new));
    if let Some((known, response)) = db::find_key(tx, (&principal, ROUTE, key)).await? {
        if known != fingerprint {
            return Err(ApiError::unprocessable("idempotency_key_reuse", "this key was used with another body"));
        }
        return Ok(Stored::Replay(response));
    }
    let place = db::place(tx, location.0).await?.ok_or_else(absent)?;
    let (recorded_at, zone) = (Utc::now(), place.zone()?);
    let effective_at = new.effective_at.unwrap_or(recorded_at);
    if effective_at < day_start(place.opened_on, zone, place.day_cutoff) {
        return Err(ApiError::invalid_value("/effective_at", "lies before the location's opening date"));
    }
    check_variants(tx, new).await?;
    returns::make_system_locations(tx, location, &[Disposition::Inspect.as_str(), Disposition::Waste.as_str()]).await?;
    let mut stock = lock(tx, location, new).await?;
    check_waiting(location, new, &stock)?;
    let seq = outbox::lock_stream(tx, location.0).await?;
    let head = Head {
        epoch: outbox::epoch(tx).await?,
        seq,
        act_id: new.act_id.unwrap_or_else(Uuid::now_v7),
        actor: who.actor().0,
        effective_at,
        recorded_at,
        date: business_moment(effective_at, zone, place.day_cutoff).date,
    };
    let moves = moves(location, new, &mut stock, &head)?;
    db::insert_moved(tx, &moves).await?;
    returns::put_levels(tx, &stock).await?;
    insert_act(tx, new, &head).await?;
    let answer = StockAct { act_id: head.act_id, location_seq: seq, movements: moves.iter().map(Moved::of).collect() };
    let body = serde_json::to_string(&answer).map_err(ApiError::internal)?;
    db::insert_key(tx, (&principal, ROUTE, key), &fingerprint, &body).await?;
    let entry = Entry::done(who, "stock.disposition", format!("stock_act/{}", head.act_id)).at(location);
    audit::record(tx, context, entry.because(&new.reason).states(None, &answer)).await?;
    let mut row = Act::new(location.0, seq, KIND, head.act_id, &context.trace_parent);
    moves.iter().for_each(|moved| row.push(moved));
    outbox::append(tx, &row, head.epoch, recorded_at).await?;
    Ok(Stored::New(body))
}

/// What all movements of the act share.
struct Head {
    epoch: i64,
    seq: i64,
    act_id: Uuid,
    actor: Uuid,
    effective_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    date: chrono::NaiveDate,
}

async fn check_variants(tx: &mut PgTx, new: &NewDisposition) -> Result<(), ApiError> {
    let known = db::variant_kinds(tx, new.lines.iter().map(|line| line.variant_id).collect()).await?;
    let problem = |(i, line): (usize, &DispositionLine)| match known.get(&line.variant_id) {
        None => Some(FieldProblem::value(format!("/lines/{i}/variant_id"), "no such variant")),
        Some(variant) if !variant.is_measured && line.qty % 1_000 != 0 => {
            Some(FieldProblem::value(format!("/lines/{i}/qty"), "sold by the piece: whole thousands only"))
        }
        Some(_) => None,
    };
    let problems: Vec<FieldProblem> = new.lines.iter().enumerate().filter_map(problem).take(100).collect();
    if problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(problems)) }
}

fn destination(location: LocationId, to: Destination) -> Stock {
    match to {
        Destination::Stock => Stock::at(location),
        Destination::Waste => Stock::of(location, Disposition::Waste),
    }
}

type Levels = HashMap<(LocationId, VariantId), StockRow>;

async fn lock(tx: &mut PgTx, location: LocationId, new: &NewDisposition) -> Result<Levels, ApiError> {
    let waiting = Stock::of(location, Disposition::Inspect);
    let rows: Vec<(LocationId, VariantId)> = new
        .lines
        .iter()
        .flat_map(|line| {
            [waiting, destination(location, line.to)].map(|at| (at.location_id, VariantId(line.variant_id)))
        })
        .collect();
    Ok(returns::lock_stock(tx, &rows).await?)
}

/// 409 naming each variant of which fewer wait.
fn check_waiting(location: LocationId, new: &NewDisposition, stock: &Levels) -> Result<(), ApiError> {
    let waiting = system_location(location, Disposition::Inspect.as_str());
    let mut wanted: HashMap<Uuid, i64> = HashMap::new();
    for line in &new.lines {
        *wanted.entry(line.variant_id).or_default() += line.qty;
    }
    let mut short = Vec::new();
    for (i, line) in new.lines.iter().enumerate() {
        let on_hand = stock.get(&(waiting, VariantId(line.variant_id))).map_or(0, |row| row.qty);
        // Named once, at its first line.
        let Some(wanted) = wanted.remove(&line.variant_id).filter(|wanted| *wanted > on_hand) else { continue };
        let message = format!("{on_hand} of them wait");
        let place = FieldProblem::new(format!("/lines/{i}/qty"), "insufficient_stock", message);
        short.push((place, json!({"variant_id": line.variant_id, "wanted": wanted, "on_hand": on_hand})));
    }
    if short.is_empty() {
        return Ok(());
    }
    let (errors, short): (Vec<FieldProblem>, Vec<serde_json::Value>) = short.into_iter().unzip();
    let mut problem = ApiError::conflict("insufficient_stock", format!("{} variant(s) short", short.len()));
    problem.errors = errors;
    Err(problem.with_extra("short", short.into()))
}

fn moves(
    location: LocationId,
    new: &NewDisposition,
    stock: &mut Levels,
    head: &Head,
) -> Result<Vec<StockMoved>, ApiError> {
    let waiting = Stock::of(location, Disposition::Inspect);
    let mut moves = Vec::with_capacity(new.lines.len() * 2);
    for (i, line) in new.lines.iter().enumerate() {
        for (at, delta) in [(waiting, -line.qty), (destination(location, line.to), line.qty)] {
            let row = stock.entry((at.location_id, VariantId(line.variant_id))).or_default();
            let after = row.qty.checked_add(delta).and_then(|qty| storable(qty).ok());
            let too_much = || ApiError::invalid_value(format!("/lines/{i}/qty"), "more than can be counted");
            row.qty = after.ok_or_else(too_much)?;
            row.version += 1;
            row.is_changed = true;
            moves.push(moved(new, head, at, (i, delta), row));
        }
    }
    Ok(moves)
}

fn moved(new: &NewDisposition, head: &Head, at: Stock, (i, delta): (usize, i64), row: &StockRow) -> StockMoved {
    StockMoved {
        epoch: head.epoch,
        location_id: at.location_id,
        parent_location_id: at.parent_location_id,
        location_seq: head.seq,
        variant_id: VariantId(new.lines[i].variant_id),
        version: row.version,
        delta,
        qty_after: row.qty,
        cause_type: KIND.to_owned(),
        cause_id: head.act_id,
        cause_line: i as i32 + 1,
        transfer_id: None,
        reason: new.reason.clone(),
        document_uri: None,
        actor: head.actor.into(),
        approval_id: None,
        effective_at: head.effective_at.into(),
        recorded_at: head.recorded_at.into(),
        business_date: head.date.into(),
        neutral: false,
        threshold: row.threshold,
        hysteresis: row.hysteresis,
        resync: false,
        unit_cost: None,
    }
}

async fn insert_act(tx: &mut PgTx, new: &NewDisposition, head: &Head) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into stock_acts (act_id, epoch, location_id, location_seq, kind, reason, actor, effective_at, recorded_at,
                                 line_count)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(head.act_id)
    .bind(head.epoch)
    .bind(new.location_id)
    .bind(head.seq)
    .bind(KIND)
    .bind(&new.reason)
    .bind(head.actor)
    .bind(head.effective_at)
    .bind(head.recorded_at)
    .bind(new.lines.len() as i32 * 2)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Query of what lies beside the stock.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AsideParams {
    pub location_id: Option<Uuid>,
    pub variant_id: Option<Uuid>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// One variant that is at a location and cannot be sold.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct AsideLevel {
    pub location_id: Uuid,
    /// `inspect`: waits for a look; `waste`: thrown away.
    pub kind: String,
    /// Names the place on movements.
    pub system_location_id: Uuid,
    pub variant_id: Uuid,
    pub sku: String,
    pub name: String,
    /// Thousandths.
    pub qty: i64,
    pub version: i64,
}

/// `GET /stock/aside`
pub async fn list_aside(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<AsideParams>,
) -> Result<Response, ApiError> {
    if let Some(location) = params.location_id {
        access.require_named(LocationId(location))?;
    }
    let limit = page::limit(params.limit)?;
    let after: Option<(Uuid, Uuid)> = app.auth.cursors.open(ASIDE, params.cursor.as_deref())?;
    let rows = db::list_aside(&app.reads, &params, access.scope(), after, limit + 1).await?;
    let key = |row: &AsideLevel| (row.system_location_id, row.variant_id);
    json_response(StatusCode::OK, &Page::of(rows, limit, &app.auth.cursors, ASIDE, key)?)
}
