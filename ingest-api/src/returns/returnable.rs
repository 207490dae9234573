//! Pure: what a till shows of a sale before anything comes back.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::legs::SoldLine;
use super::origin::{Held, Origin, Origins};
use super::types::TenderRef;
use schemas::money::QTY_SCALE;

/// Amounts of so many units are shown one by one.
const UNITS_SHOWN: i64 = 100;

/// What is left of what a sale or an exchange sold.
#[derive(Debug, Serialize, ToSchema)]
pub struct Returnable {
    pub document_id: Uuid,
    pub location_id: Uuid,
    pub currency: String,
    pub lines: Vec<ReturnableLine>,
    /// Tenders other than cash, in the order in which money goes back to them.
    pub tenders: Vec<HeldTender>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ReturnableLine {
    pub line_no: i32,
    pub variant_id: Uuid,
    pub sku: String,
    pub name: String,
    pub unit: String,
    pub is_measured: bool,
    /// Thousandths, as `left`.
    pub sold: i64,
    pub left: i64,
    /// What all that is left is worth.
    pub payable_minor: i64,
    /// What each of the next units is worth, at most 100 of them; goods sold by measure have none.
    pub next_units_minor: Vec<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct HeldTender {
    pub at: TenderRef,
    pub kind: String,
    pub paid_minor: i64,
    /// What can go back to it.
    pub held_minor: i64,
    pub card_brand: Option<String>,
    pub card_last_four: Option<String>,
}

/// Of an origin that was read.
pub fn of(origin: &Origin, origins: &Origins) -> Returnable {
    Returnable {
        document_id: origin.document_id.0,
        location_id: origin.location_id.0,
        currency: origin.currency.clone(),
        lines: origin.lines.iter().map(|sold| line(origin, sold)).collect(),
        tenders: origins.held.iter().map(tender).collect(),
    }
}

fn line(origin: &Origin, sold: &SoldLine) -> ReturnableLine {
    let worth = |from: &SoldLine, qty: i64| {
        from.leg(0, qty, origin.place(), origin.rounding_mode).map_or(0, |leg| leg.payable_minor.saturating_neg())
    };
    let left = sold.left();
    let shown = if sold.line.is_measured { 0 } else { (left / QTY_SCALE).min(UNITS_SHOWN) };
    let unit = |n: i64| worth(&SoldLine { returned: sold.returned + n * QTY_SCALE, ..sold.clone() }, QTY_SCALE);
    ReturnableLine {
        line_no: sold.line.line_no,
        variant_id: sold.line.variant_id.0,
        sku: sold.line.sku.clone(),
        name: sold.line.name.clone(),
        unit: sold.line.unit.clone(),
        is_measured: sold.line.is_measured,
        sold: sold.line.qty,
        left,
        payable_minor: if left > 0 { worth(sold, left) } else { 0 },
        next_units_minor: (0..shown).map(unit).collect(),
    }
}

fn tender(held: &Held) -> HeldTender {
    HeldTender {
        at: held.at,
        kind: held.kind.clone(),
        paid_minor: held.amount_minor,
        held_minor: held.held_minor,
        card_brand: held.card_brand.clone(),
        card_last_four: held.card_last_four.clone(),
    }
}
