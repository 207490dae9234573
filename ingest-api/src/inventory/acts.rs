//! `POST /stock/receipts`, `/stock/adjustments`, `/stock/thresholds`: acts of one location, each with its
//! movements, one `location_seq` and one outbox row. Sent again under the same key they answer with the
//! very same bytes.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use schemas::events::StockMoved;
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::approvals::{Presented, TOKEN_CHARS_MAX};
use crate::checks::{AMOUNT_MAX, BULK_ROWS_MAX, Checks, QTY_MAX};
use crate::context::Context;
use crate::error::ApiError;
use crate::extract::{Body, IdempotencyKey, Valid};
use crate::inventory::store::{self, Act, Change, Kind, Stored};

const REASON_CHARS_MAX: usize = 40;
const URI_CHARS_MAX: usize = 500;
/// A receipt of ten thousand lines fits.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Why stock changed without being sold or bought.
const ADJUSTMENT_REASONS: &[&str] = &["damage", "theft", "found", "count", "internal_use", "correction"];

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiptLine {
    pub variant_id: Uuid,
    /// Thousandths, above 0.
    pub qty: i64,
    pub unit_cost_minor: Option<i64>,
}

/// Goods that arrived.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReceipt {
    pub act_id: Option<Uuid>,
    pub location_id: Uuid,
    /// `receipt`.
    pub reason: String,
    /// Where the delivery note is kept.
    pub document_uri: Option<String>,
    /// When it happened; now when absent.
    pub effective_at: Option<DateTime<Utc>>,
    /// 1 to 10,000, each variant once.
    pub lines: Vec<ReceiptLine>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdjustmentLine {
    pub variant_id: Uuid,
    /// Thousandths, not 0.
    pub delta: i64,
    pub unit_cost_minor: Option<i64>,
}

/// Stock that changed for another reason.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdjustment {
    pub act_id: Option<Uuid>,
    pub location_id: Uuid,
    /// `damage`, `theft`, `found`, `count`, `internal_use` or `correction`.
    pub reason: String,
    pub document_uri: Option<String>,
    pub effective_at: Option<DateTime<Utc>>,
    /// 1 to 10,000, each variant once.
    pub lines: Vec<AdjustmentLine>,
    /// Somebody else's approval of what goes beyond one's limits (`POST /approvals`); no part of the act.
    pub approval: Option<String>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ThresholdLine {
    pub variant_id: Uuid,
    /// Thousandths: an alert fires when the quantity falls below; null for none.
    #[serde(deserialize_with = "present")]
    pub threshold: Option<i64>,
    /// Thousandths above the threshold at which the alert arms again (1000).
    pub hysteresis: Option<i64>,
}

/// Null is a value here, absence is a mistake.
fn present<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Option<i64>, D::Error> {
    Option::deserialize(reader)
}

/// Limits below which stock is low.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewThresholds {
    pub act_id: Option<Uuid>,
    pub location_id: Uuid,
    /// 1 to 10,000, each variant once.
    pub lines: Vec<ThresholdLine>,
}

impl Body for NewReceipt {
    const BYTES_MAX: usize = BODY_BYTES_MAX;
    fn check(&mut self, checks: &mut Checks) {
        check_head(checks, self.act_id, &mut self.document_uri, self.effective_at);
        checks.that(self.reason == "receipt", "/reason", "must be `receipt`");
        check_goods(checks, &self.lines);
        for (i, line) in self.lines.iter().enumerate().take(BULK_ROWS_MAX) {
            checks.range(format_args!("/lines/{i}/qty"), line.qty, 1..=QTY_MAX);
        }
    }
}

impl Body for NewAdjustment {
    const BYTES_MAX: usize = BODY_BYTES_MAX;
    fn check(&mut self, checks: &mut Checks) {
        check_head(checks, self.act_id, &mut self.document_uri, self.effective_at);
        let is_short = self.approval.as_ref().is_none_or(|text| text.len() <= TOKEN_CHARS_MAX);
        checks.that(is_short, "/approval", "is longer than any approval");
        checks.text("/reason", &mut self.reason, REASON_CHARS_MAX);
        let is_known = ADJUSTMENT_REASONS.contains(&self.reason.as_str());
        checks.that(is_known, "/reason", "must be damage, theft, found, count, internal_use or correction");
        check_goods(checks, &self.lines);
        for (i, line) in self.lines.iter().enumerate().take(BULK_ROWS_MAX) {
            checks.that(line.delta != 0, format_args!("/lines/{i}/delta"), "must not be 0");
            checks.range(format_args!("/lines/{i}/delta"), line.delta, -QTY_MAX..=QTY_MAX);
        }
    }
}

impl Body for NewThresholds {
    const BYTES_MAX: usize = BODY_BYTES_MAX;
    fn check(&mut self, checks: &mut Checks) {
        check_head(checks, self.act_id, &mut None, None);
        check_lines(checks, &self.lines, |line| line.variant_id);
        for (i, line) in self.lines.iter().enumerate().take(BULK_ROWS_MAX) {
            checks.range(format_args!("/lines/{i}/threshold"), line.threshold.unwrap_or(0), 0..=QTY_MAX);
            checks.range(format_args!("/lines/{i}/hysteresis"), line.hysteresis.unwrap_or(1), 1..=QTY_MAX);
        }
    }
}

/// A line that moves goods.
trait Goods {
    /// Variant, change in thousandths, cost of one unit.
    fn moved(&self) -> (Uuid, i64, Option<i64>);
}

impl Goods for ReceiptLine {
    fn moved(&self) -> (Uuid, i64, Option<i64>) {
        (self.variant_id, self.qty, self.unit_cost_minor)
    }
}

impl Goods for AdjustmentLine {
    fn moved(&self) -> (Uuid, i64, Option<i64>) {
        (self.variant_id, self.delta, self.unit_cost_minor)
    }
}

fn check_goods(checks: &mut Checks, lines: &[impl Goods]) {
    check_lines(checks, lines, |line| line.moved().0);
    for (i, line) in lines.iter().enumerate().take(BULK_ROWS_MAX) {
        let cost = line.moved().2.unwrap_or(0);
        checks.range(format_args!("/lines/{i}/unit_cost_minor"), cost, 0..=AMOUNT_MAX);
    }
}

fn changes(lines: &[impl Goods]) -> Vec<Change> {
    let change = |line| {
        let (variant_id, delta, unit_cost) = Goods::moved(line);
        Change { variant_id, delta, unit_cost, limits: None }
    };
    lines.iter().map(change).collect()
}

fn check_head(
    checks: &mut Checks,
    act_id: Option<Uuid>,
    document_uri: &mut Option<String>,
    effective_at: Option<DateTime<Utc>>,
) {
    checks.new_id("/act_id", act_id);
    checks.text_opt("/document_uri", document_uri, URI_CHARS_MAX);
    if let Some(at) = effective_at {
        checks.past("/effective_at", at);
    }
}

fn check_lines<L>(checks: &mut Checks, lines: &[L], variant: impl Fn(&L) -> Uuid) {
    checks.rows("/lines", lines.len(), BULK_ROWS_MAX);
    let mut seen = std::collections::HashSet::new();
    for (i, line) in lines.iter().enumerate().take(BULK_ROWS_MAX) {
        checks.that(seen.insert(variant(line)), format_args!("/lines/{i}/variant_id"), "stands twice");
    }
}

/// One movement of an act, as it was stored.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Moved {
    pub variant_id: Uuid,
    pub version: i64,
    pub delta: i64,
    pub qty_after: i64,
    /// Where it moved, when that is not the location's own stock: goods that wait for a look, or waste (`GET /stock/aside`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_location_id: Option<Uuid>,
}

impl Moved {
    pub fn of(moved: &StockMoved) -> Self {
        Moved {
            variant_id: moved.variant_id.0,
            version: moved.version,
            delta: moved.delta,
            qty_after: moved.qty_after,
            system_location_id: moved.parent_location_id.map(|_| moved.location_id.0),
        }
    }
}

/// An act as it was stored; a replay answers with the same bytes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StockAct {
    pub act_id: Uuid,
    pub location_seq: i64,
    /// In the order of the lines.
    pub movements: Vec<Moved>,
}

/// `POST /stock/receipts`
pub async fn create_receipt(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewReceipt>,
) -> Result<Response, ApiError> {
    let act = Act {
        kind: Kind::Receipt,
        act_id: new.act_id,
        location_id: LocationId(new.location_id),
        changes: changes(&new.lines),
        reason: new.reason,
        document_uri: new.document_uri,
        effective_at: new.effective_at,
        presented: Presented::Nothing,
    };
    commit(app, access, context, key, act).await
}

/// `POST /stock/adjustments`
pub async fn create_adjustment(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewAdjustment>,
) -> Result<Response, ApiError> {
    let act = Act {
        kind: Kind::Adjustment,
        act_id: new.act_id,
        location_id: LocationId(new.location_id),
        changes: changes(&new.lines),
        reason: new.reason,
        document_uri: new.document_uri,
        effective_at: new.effective_at,
        presented: Presented::read(&app.auth.tokens, new.approval.as_deref()),
    };
    commit(app, access, context, key, act).await
}

/// `POST /stock/thresholds`: each takes a version with delta 0 and is evaluated like any movement.
pub async fn set_thresholds(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewThresholds>,
) -> Result<Response, ApiError> {
    let changes = new.lines.iter().map(|line| Change {
        variant_id: line.variant_id,
        delta: 0,
        unit_cost: None,
        limits: Some((line.threshold, line.hysteresis)),
    });
    let act = Act {
        kind: Kind::Threshold,
        act_id: new.act_id,
        location_id: LocationId(new.location_id),
        changes: changes.collect(),
        reason: "threshold".to_owned(),
        document_uri: None,
        effective_at: None,
        presented: Presented::Nothing,
    };
    commit(app, access, context, key, act).await
}

async fn commit(
    app: AppState,
    access: Access,
    context: Context,
    IdempotencyKey(key): IdempotencyKey,
    act: Act,
) -> Result<Response, ApiError> {
    access.require_named(act.location_id)?;
    let fingerprint = act.fingerprint();
    let input = (act, access.principal, context, key, fingerprint);
    let stored = app
        .writer
        .write(input, |tx, (act, who, context, key, fingerprint)| {
            Box::pin(async move { store::commit(tx, act, (who, context), (key, fingerprint)).await })
        })
        .await?;
    Ok(respond(stored))
}

/// 201, or 200 with the bytes of before.
pub(super) fn respond(stored: Stored) -> Response {
    match stored {
        Stored::New(body) => answer(StatusCode::CREATED, body),
        Stored::Replay(body) => {
            let mut response = answer(StatusCode::OK, body);
            let name = HeaderName::from_static("idempotency-replayed");
            response.headers_mut().insert(name, HeaderValue::from_static("true"));
            response
        }
    }
}

fn answer(status: StatusCode, body: String) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
