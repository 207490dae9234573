//! One stock act in one transaction: the location's stream, then its stock rows in order; then movements,
//! levels, act, answer, audit row and, last, the outbox row.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use runtime::pg::PgTx;
use schemas::events::StockMoved;
use schemas::ids::{LocationId, VariantId};
use schemas::money::storable;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::access::Principal;
use crate::approvals::Presented;
use crate::audit::{self, Entry};
use crate::business_day::{business_moment, day_start};
use crate::context::Context;
use crate::db::inventory as db;
use crate::db::outbox;
use crate::error::{ApiError, FieldProblem};
use crate::inventory::acts::{Moved, StockAct};
use crate::inventory::adjustment;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Receipt,
    Adjustment,
    Threshold,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Receipt => "receipt",
            Kind::Adjustment => "adjustment",
            Kind::Threshold => "threshold",
        }
    }
    fn route(self) -> &'static str {
        match self {
            Kind::Receipt => "POST /stock/receipts",
            Kind::Adjustment => "POST /stock/adjustments",
            Kind::Threshold => "POST /stock/thresholds",
        }
    }
    fn action(self) -> &'static str {
        match self {
            Kind::Receipt => "stock.receipt",
            Kind::Adjustment => "stock.adjustment",
            Kind::Threshold => "stock.threshold",
        }
    }
    fn quantity_field(self) -> &'static str {
        match self {
            Kind::Receipt => "qty",
            Kind::Adjustment => "delta",
            Kind::Threshold => "threshold",
        }
    }
}

/// New threshold and, when given, new hysteresis; none where the line is not about them.
type Limits = Option<(Option<i64>, Option<i64>)>;

/// One line of an act.
#[derive(Debug, Clone)]
pub struct Change {
    pub variant_id: Uuid,
    pub delta: i64,
    pub unit_cost: Option<i64>,
    pub limits: Limits,
}

/// An act whose every value is in range.
#[derive(Debug, Clone)]
pub struct Act {
    pub kind: Kind,
    pub act_id: Option<Uuid>,
    pub location_id: LocationId,
    pub reason: String,
    pub document_uri: Option<String>,
    pub effective_at: Option<DateTime<Utc>>,
    pub changes: Vec<Change>,
    /// What came with it as an approval; not part of the act.
    pub presented: Presented,
}

/// The canonical act: fixed field order; what a reader of the body does not notice makes no difference.
#[derive(Serialize)]
struct Canonical<'a> {
    kind: &'static str,
    act_id: Option<Uuid>,
    location_id: Uuid,
    reason: &'a str,
    document_uri: Option<&'a str>,
    effective_at_micros: Option<i64>,
    /// Variant, change, cost, new limits.
    lines: Vec<(Uuid, i64, Option<i64>, Limits)>,
}

impl Act {
    /// SHA-256 of the canonical act: what makes two bodies under one key the same.
    pub fn fingerprint(&self) -> [u8; 32] {
        let line = |change: &Change| (change.variant_id, change.delta, change.unit_cost, change.limits);
        let canonical = Canonical {
            kind: self.kind.as_str(),
            act_id: self.act_id,
            location_id: self.location_id.0,
            reason: &self.reason,
            document_uri: self.document_uri.as_deref(),
            effective_at_micros: self.effective_at.map(|at| at.timestamp_micros()),
            lines: self.changes.iter().map(line).collect(),
        };
        let mut hasher = Sha256::new();
        // A plain struct of numbers and texts always serialises, and hashing never fails.
        let written = serde_json::to_writer(&mut hasher, &canonical);
        debug_assert!(written.is_ok());
        hasher.finalize().into()
    }
}

/// The answer's bytes, and whether they were stored now or before.
#[derive(Debug, Clone)]
pub enum Stored {
    New(String),
    Replay(String),
}

/// Commits the act, or finds that it was committed before under this key.
pub async fn commit(
    tx: &mut PgTx,
    act: &Act,
    (who, context): (&Principal, &Context),
    (key, fingerprint): (&str, &[u8; 32]),
) -> Result<Stored, ApiError> {
    let location_id = act.location_id.0;
    let absent = || ApiError::invalid_value("/location_id", "no such location");
    if !db::lock_location(tx, location_id).await? {
        return Err(absent());
    }
    let principal = who.key_scope();
    if let Some((known, response)) = db::find_key(tx, (&principal, act.kind.route(), key)).await? {
        if known != fingerprint {
            return Err(ApiError::unprocessable("idempotency_key_reuse", "this key was used with another body"));
        }
        return Ok(Stored::Replay(response));
    }
    let place = db::place(tx, location_id).await?.ok_or_else(absent)?;
    let recorded_at = Utc::now();
    let effective_at = act.effective_at.unwrap_or(recorded_at);
    let zone: Tz = place.zone()?;
    if effective_at < day_start(place.opened_on, zone, place.day_cutoff) {
        return Err(ApiError::invalid_value("/effective_at", "lies before the location's opening date"));
    }
    let variants = check_variants(tx, act).await?;
    let shift = business_moment(recorded_at, zone, place.day_cutoff).date;
    let adjusted = adjustment::Asked { act, who, fingerprint, currency: &place.currency, shift, recorded_at };
    let adjusted = adjusted.judge(tx, &variants).await?;
    let levels = lock_levels(tx, act).await?;
    let seq = outbox::lock_stream(tx, location_id).await?;
    let epoch = outbox::epoch(tx).await?;
    let act_id = act.act_id.unwrap_or_else(Uuid::now_v7);
    let head = Head {
        epoch,
        seq,
        act_id,
        actor: who.actor().0,
        approval_id: adjusted.approval.map(|approval| approval.jti),
        recorded_at,
        effective_at,
        business_date: business_moment(effective_at, zone, place.day_cutoff).date,
    };
    let moves = moves(act, &levels, &head)?;
    db::insert_movements(tx, act, &moves).await?;
    db::update_levels(tx, &moves).await?;
    db::insert_act(tx, act, &head).await?;
    adjusted.insert(tx, &head).await?;
    let answer = StockAct { act_id, location_seq: seq, movements: moves.iter().map(Moved::of).collect() };
    let body = serde_json::to_string(&answer).map_err(ApiError::internal)?;
    db::insert_key(tx, (&principal, act.kind.route(), key), fingerprint, &body).await?;
    let entry = Entry::done(who, act.kind.action(), format!("stock_act/{act_id}")).at(act.location_id);
    let entry = entry.approved_by(adjusted.approval.map(|approval| approval.approver));
    audit::record(tx, context, entry.because(&act.reason).states(None, &answer)).await?;
    let mut row = outbox::Act::new(location_id, seq, act.kind.as_str(), act_id, &context.trace_parent);
    for moved in &moves {
        row.push(moved);
    }
    outbox::append(tx, &row, epoch, recorded_at).await?;
    Ok(Stored::New(body))
}

/// What all movements of an act share.
pub struct Head {
    pub epoch: i64,
    pub seq: i64,
    pub act_id: Uuid,
    pub actor: Uuid,
    pub approval_id: Option<Uuid>,
    pub recorded_at: DateTime<Utc>,
    pub effective_at: DateTime<Utc>,
    pub business_date: chrono::NaiveDate,
}

async fn check_variants(tx: &mut PgTx, act: &Act) -> Result<HashMap<Uuid, db::VariantKind>, ApiError> {
    let known = db::variant_kinds(tx, act.changes.iter().map(|change| change.variant_id).collect()).await?;
    let mut problems = Vec::new();
    for (i, change) in act.changes.iter().enumerate() {
        match known.get(&change.variant_id) {
            None => problems.push(FieldProblem::value(format!("/lines/{i}/variant_id"), "no such variant")),
            Some(variant) if !variant.tracks_stock => {
                problems.push(FieldProblem::value(format!("/lines/{i}/variant_id"), "this variant keeps no stock"));
            }
            Some(variant) if !variant.is_measured && change.delta % 1_000 != 0 => {
                let pointer = format!("/lines/{i}/{}", act.kind.quantity_field());
                problems.push(FieldProblem::value(pointer, "sold by the piece: whole thousands only"));
            }
            Some(_) => {}
        }
    }
    problems.truncate(100);
    if problems.is_empty() { Ok(known) } else { Err(ApiError::invalid(problems)) }
}

/// Makes the missing rows, then locks all of them in the order of their variants.
async fn lock_levels(tx: &mut PgTx, act: &Act) -> Result<HashMap<Uuid, db::Level>, ApiError> {
    let mut variants: Vec<Uuid> = act.changes.iter().map(|change| change.variant_id).collect();
    variants.sort_unstable();
    db::insert_missing_levels(tx, act.location_id.0, &variants).await?;
    let levels = db::lock_levels(tx, act.location_id.0, &variants).await?;
    Ok(levels.into_iter().map(|level| (level.variant_id, level)).collect())
}

fn moves(act: &Act, levels: &HashMap<Uuid, db::Level>, head: &Head) -> Result<Vec<StockMoved>, ApiError> {
    let mut moves = Vec::with_capacity(act.changes.len());
    for (i, change) in act.changes.iter().enumerate() {
        let level = levels
            .get(&change.variant_id)
            .ok_or_else(|| ApiError::internal(anyhow::anyhow!("a locked stock row is missing")))?;
        let too_much =
            || ApiError::invalid_value(format!("/lines/{i}/{}", act.kind.quantity_field()), "more than can be counted");
        let (threshold, hysteresis) = match change.limits {
            None => (level.threshold, level.hysteresis),
            Some((threshold, hysteresis)) => (threshold, hysteresis.unwrap_or(level.hysteresis)),
        };
        moves.push(StockMoved {
            epoch: head.epoch,
            location_id: act.location_id,
            parent_location_id: None,
            location_seq: head.seq,
            variant_id: VariantId(change.variant_id),
            version: level.version.checked_add(1).ok_or_else(too_much)?,
            delta: change.delta,
            qty_after: level.qty.checked_add(change.delta).and_then(|qty| storable(qty).ok()).ok_or_else(too_much)?,
            cause_type: act.kind.as_str().to_owned(),
            cause_id: head.act_id,
            cause_line: i as i32 + 1,
            transfer_id: None,
            reason: act.reason.clone(),
            document_uri: act.document_uri.clone(),
            actor: head.actor.into(),
            approval_id: head.approval_id,
            effective_at: head.effective_at.into(),
            recorded_at: head.recorded_at.into(),
            business_date: head.business_date.into(),
            neutral: false,
            threshold,
            hysteresis,
            resync: false,
            unit_cost: change.unit_cost,
        });
    }
    Ok(moves)
}
