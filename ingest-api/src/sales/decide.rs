//! Pure: what becomes of each sale of a batch, in arrival order, each on what the ones before it left.
//!
//! The order of the checks is rule T9: idempotency key, (terminal, sequence), sale id, receipt identity, then
//! rights, figures and stock (T14). A refusal consumes no number and changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::ids::{LocationId, VariantId};
use schemas::money::storable;
use serde_json::json;
use uuid::Uuid;

use super::acts;
use super::hash::{document_digest, hex};
use super::known::{Known, KnownDocument, Lease, StockRow, Terminal};
use super::price::PricedSale;
use super::redemption::{self, Entry, EntryKind};
use super::refusal::Refusal;
use super::response::{Figures, SaleBody, instant, tender_bodies};
use super::types::ValidSale;
use crate::access::Permission;
use crate::approvals::{Approval, Settled, Standing};

/// What a sale is answered.
#[derive(Debug)]
pub enum Decision {
    Accept(Box<Accepted>),
    /// A twin is stored already: its own answer.
    Replay(Arc<str>),
    Refuse(Refusal),
}

/// Everything of an accepted sale that only its lane could know.
#[derive(Debug)]
pub struct Accepted {
    pub location_seq: i64,
    pub register_id: Arc<str>,
    /// What the cashier is there, for the audit row.
    pub cashier_roles: Arc<str>,
    pub flags: Vec<&'static str>,
    pub document_digest: [u8; 32],
    pub response: Arc<str>,
    pub movements: Vec<Movement>,
    pub entries: Vec<Entry>,
    /// What limits are about; empty for nearly every sale.
    pub acts: Vec<Settled>,
    /// The approval that one of them needed and that is spent with it.
    pub approval: Option<Box<Approval>>,
}

impl Accepted {
    pub fn approval_id(&self) -> Option<Uuid> {
        self.approval.as_ref().map(|approval| approval.jti)
    }
}

/// One change of a stock row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    pub variant_id: VariantId,
    pub line_no: i32,
    pub version: i64,
    pub delta: i64,
    pub qty_after: i64,
    pub threshold: Option<i64>,
    pub hysteresis: i64,
    pub unit_cost: Option<i64>,
}

/// Decides one sale and, when it is accepted, brings `known` up to date.
pub fn decide(known: &mut Known, sale: &ValidSale, key: &str, priced: &Result<PricedSale, Refusal>) -> Decision {
    if let Some(twin) = match identity(known, sale, key) {
        Ok(twin) => twin,
        Err(refusal) => return Decision::Refuse(refusal),
    } {
        return Decision::Replay(twin.response.clone());
    }
    match accept(known, sale, key, priced) {
        Ok(accepted) => Decision::Accept(Box::new(accepted)),
        Err(refusal) => Decision::Refuse(refusal),
    }
}

/// Rule T9, steps 1 to 4: the stored twin of this document, none, or what contradicts it.
pub(crate) fn identity(known: &Known, sale: &ValidSale, key: &str) -> Result<Option<Arc<KnownDocument>>, Refusal> {
    if let Some(fingerprint) = known.keys.get(&(sale.terminal_id, key.to_owned()))
        && *fingerprint != sale.content_hash
    {
        let detail = "this Idempotency-Key was used with another document";
        return Err(Refusal::unprocessable("idempotency_key_reuse", detail));
    }
    if let Some(twin) = known.documents.by_seq(sale.terminal_id, sale.terminal_seq) {
        if twin.content_hash == sale.content_hash {
            return Ok(Some(twin));
        }
        let detail = format!("terminal_seq {} belongs to another document", sale.terminal_seq);
        return Err(Refusal::conflict("sequence_reuse", detail));
    }
    if known.documents.by_id(sale.document_id).is_some() {
        return Err(Refusal::conflict("id_conflict", "this identifier belongs to another document"));
    }
    Ok(None)
}

fn accept(
    known: &mut Known,
    sale: &ValidSale,
    key: &str,
    priced: &Result<PricedSale, Refusal>,
) -> Result<Accepted, Refusal> {
    let terminal = terminal_of(known, sale)?;
    let receipt = (sale.location_id(), terminal.register_id.clone(), sale.receipt.series_epoch, sale.receipt.number);
    if known.documents.by_receipt(&receipt).is_some() {
        let detail = format!("receipt {} of this series belongs to another document", sale.receipt.number);
        return Err(Refusal::conflict("receipt_conflict", detail));
    }
    let priced = priced.as_ref().map_err(Refusal::clone)?;
    let lease = lease_of(known, sale)?;
    let cashier_roles = check_cashier(known, sale, lease)?;
    let acts = acts::judge(known, sale, priced, lease)?;
    let approval = acts::approval_of(sale, &acts);
    let is_stale = lease.is_some_and(|lease| lease.is_stale_at(sale.cart.occurred_at));
    if sale.customer_id.is_some_and(|customer| !known.accounts.contains_key(&customer)) {
        return Err(Refusal::field("/customer_id", "unknown_customer", "no such customer"));
    }
    let location = sale.location_id();
    check_stock(known, location, priced)?;
    let burned = redemption::check(known, sale)?;

    // From here on nothing refuses: numbers are taken.
    let last_seq = known.last_seq.entry(location).or_default();
    *last_seq += 1;
    let location_seq = *last_seq;
    let (movements, is_oversold) = move_stock(known, location, priced);
    let entries = redemption::post(known, sale, priced, burned);
    acts::count(known, sale, priced, &acts);
    known.promoted.count(&priced.priced.promotions.given);
    let is_over = acts.iter().any(|act| act.standing == Standing::OverLimit);
    let flags: Vec<_> = [(is_oversold, "oversold"), (is_stale, "stale_lease"), (is_over, "over_limit")]
        .into_iter()
        .filter_map(|(holds, flag)| holds.then_some(flag))
        .collect();
    let digest = document_digest(&priced.priced, &sale.tenders);
    let points = |kind| entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.delta).sum::<i64>();
    let numbers = Numbers {
        location_seq,
        points_redeemed: -points(EntryKind::Redemption),
        points_earned: points(EntryKind::Accrual),
        approval_id: approval.as_ref().map(|approval| approval.jti),
    };
    let response = body(known, sale, priced, &terminal, numbers, &flags, &digest);
    known.keys.insert((sale.terminal_id, key.to_owned()), sale.content_hash);
    known.documents.insert(KnownDocument {
        document_id: sale.document_id,
        terminal_id: sale.terminal_id,
        terminal_seq: sale.terminal_seq,
        receipt,
        content_hash: sale.content_hash,
        response: response.clone(),
    });
    Ok(Accepted {
        location_seq,
        register_id: terminal.register_id,
        cashier_roles,
        flags,
        document_digest: digest,
        response,
        movements,
        entries,
        acts,
        approval,
    })
}

pub(crate) fn terminal_of(known: &Known, sale: &ValidSale) -> Result<Terminal, Refusal> {
    let Some(terminal) = known.terminals.get(&sale.terminal_id) else {
        return Err(Refusal::forbidden("", "this terminal is not enrolled"));
    };
    if !terminal.is_active || terminal.location_id != sale.location_id() {
        return Err(Refusal::forbidden("/location_id", "this terminal does not sell at that location"));
    }
    if sale.receipt.series_epoch > terminal.series_epoch {
        let message = format!("the register's series epoch is {}", terminal.series_epoch);
        return Err(Refusal::field("/receipt/series_epoch", "invalid_value", message));
    }
    Ok(terminal.clone())
}

/// The lease that the sale names: of this cashier at this terminal, whatever has become of it.
pub(crate) fn lease_of<'k>(known: &'k Known, sale: &ValidSale) -> Result<Option<&'k Lease>, Refusal> {
    let Some(lease_id) = sale.lease_id else { return Ok(None) };
    let lease = known.leases.get(&lease_id);
    let lease = lease.filter(|lease| lease.terminal_id == sale.terminal_id.0 && lease.cashier_id == sale.cashier_id.0);
    match lease {
        Some(lease) => Ok(Some(lease)),
        None => Err(Refusal::field("/lease_id", "invalid_value", "no such lease of this cashier at this terminal")),
    }
}

/// The cashier's roles, when they, or what the lease had allowed, allow this sale.
pub(crate) fn check_cashier(known: &Known, sale: &ValidSale, lease: Option<&Lease>) -> Result<Arc<str>, Refusal> {
    let Some(rights) = known.rights.get(&(sale.cashier_id, sale.location_id())) else {
        return Err(Refusal::field("/cashier_id", "unknown_cashier", "no such cashier"));
    };
    if !rights.may_sell && !lease.is_some_and(|lease| lease.allows(Permission::Sell)) {
        return Err(Refusal::forbidden("/cashier_id", "this cashier may not sell at that location"));
    }
    Ok(rights.roles.clone())
}

/// Rule T14: the sum per variant over the whole document against what is on hand.
pub(crate) fn check_stock(known: &Known, location: LocationId, sale: &PricedSale) -> Result<(), Refusal> {
    let mut wanted: BTreeMap<VariantId, i64> = BTreeMap::new();
    for line in sale.priced.lines.iter().filter(|line| line.variant.tracks_stock) {
        // At most 1000 lines of a million units: no overflow.
        *wanted.entry(line.variant.variant_id).or_default() += line.qty;
    }
    let (mut short, mut overflows) = (Vec::new(), false);
    for (variant_id, qty) in wanted {
        let on_hand = known.stock.get(&(location, variant_id)).map_or(0, |row| row.qty);
        overflows |= on_hand.checked_sub(qty).is_none_or(|after| storable(after).is_err());
        if qty > on_hand {
            short.push(json!({"variant_id": variant_id, "wanted": qty, "on_hand": on_hand}));
        }
    }
    if overflows {
        return Err(Refusal::field("/lines", "overflow", "the quantities are out of range"));
    }
    if !sale.priced.location.denies_oversell || short.is_empty() {
        return Ok(());
    }
    let detail = format!("{} variant(s) short", short.len());
    Err(Refusal::conflict("insufficient_stock", detail).with("short", short.into()))
}

/// One movement per line that tracks stock; whether any went below zero by it.
pub(crate) fn move_stock(known: &mut Known, location: LocationId, sale: &PricedSale) -> (Vec<Movement>, bool) {
    let mut is_oversold = false;
    let lines = sale.priced.lines.iter().filter(|line| line.variant.tracks_stock);
    let movements = lines.map(|line| {
        let row: &mut StockRow = known.stock.entry((location, line.variant.variant_id)).or_default();
        let before = row.qty;
        row.qty -= line.qty;
        row.version += 1;
        row.is_changed = true;
        is_oversold |= (-row.qty).max(0) > (-before).max(0);
        Movement {
            variant_id: line.variant.variant_id,
            line_no: line.line_no,
            version: row.version,
            delta: -line.qty,
            qty_after: row.qty,
            threshold: row.threshold,
            hysteresis: row.hysteresis,
            unit_cost: line.variant.unit_cost,
        }
    });
    let movements = movements.collect();
    (movements, is_oversold)
}

/// Numbers of the answer that are given in the lane.
struct Numbers {
    location_seq: i64,
    points_redeemed: i64,
    points_earned: i64,
    approval_id: Option<Uuid>,
}

/// The answer: built here once, stored, and sent again to every twin.
fn body(
    known: &Known,
    sale: &ValidSale,
    priced: &PricedSale,
    terminal: &Terminal,
    numbers: Numbers,
    flags: &[&'static str],
    digest: &[u8],
) -> Arc<str> {
    let body = SaleBody {
        sale_id: sale.document_id.0,
        kind: "sale",
        location_id: sale.location_id().0,
        location_seq: numbers.location_seq,
        epoch: known.epoch,
        terminal_id: sale.terminal_id.0,
        terminal_seq: sale.terminal_seq,
        register_id: &terminal.register_id,
        receipt: sale.receipt,
        cashier_id: sale.cashier_id.0,
        customer_id: sale.customer_id.map(Into::into),
        lease_id: sale.lease_id,
        approval_id: numbers.approval_id,
        occurred_at: instant(sale.cart.occurred_at),
        recorded_at: instant(known.recorded_at),
        business_date: priced.moment.date,
        slot: priced.moment.slot,
        figures: Figures::of(&priced.priced),
        tenders: tender_bodies(sale),
        tip_minor: 0,
        rounding_minor: priced.settled.rounding_minor,
        change_minor: priced.settled.change_minor,
        points_redeemed: numbers.points_redeemed,
        points_earned: numbers.points_earned,
        flags,
        content_hash: hex(&sale.content_hash),
        document_digest: hex(digest),
    };
    // A plain struct of numbers and texts always serialises.
    serde_json::to_string(&body).unwrap_or_default().into()
}
