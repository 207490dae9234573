//! What makes two sends the same document, and what proves a stored one.

use std::io::Write;

use schemas::time::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::types::{Receipt, Tender, ValidSale};
use crate::pricing::{CartLine, Discount, Override, Priced};

/// Version of the canonical form; a change of it is a new number.
pub const HASH_VERSION: i16 = 1;

/// The canonical document: fixed field order, no transport fields (`sent_at`, headers).
#[derive(Serialize)]
struct Canonical<'a> {
    hash_version: i16,
    kind: &'static str,
    sale_id: Uuid,
    location_id: Uuid,
    terminal_id: Uuid,
    terminal_seq: i64,
    receipt: Receipt,
    cashier_id: Uuid,
    customer_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<Uuid>,
    occurred_at_micros: i64,
    currency: &'a str,
    lines: Vec<CanonicalLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_discount: Option<CanonicalDiscount<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    coupons: &'a [String],
    tenders: Vec<(&'static str, i64, Option<[&'a str; 4]>)>,
    total_minor: i64,
    /// Program and points.
    #[serde(skip_serializing_if = "Option::is_none")]
    redemption: Option<(Uuid, i64)>,
}

/// Kind, percentage or amount, reason.
type CanonicalDiscount<'a> = (&'static str, String, &'a str);

#[derive(Serialize)]
pub(crate) struct CanonicalLine<'a> {
    line_no: i32,
    variant_id: Uuid,
    qty: i64,
    discount: Option<CanonicalDiscount<'a>>,
    #[serde(rename = "override")]
    override_: Option<(&'static str, i64, &'a str)>,
}

/// SHA-256 of the canonical document.
pub fn content_hash(sale: &ValidSale) -> [u8; 32] {
    let canonical = Canonical {
        hash_version: HASH_VERSION,
        kind: "sale",
        sale_id: sale.document_id.0,
        location_id: sale.cart.location_id.0,
        terminal_id: sale.terminal_id.0,
        terminal_seq: sale.terminal_seq,
        receipt: sale.receipt,
        cashier_id: sale.cashier_id.0,
        customer_id: sale.customer_id.map(Into::into),
        lease_id: sale.lease_id,
        occurred_at_micros: Timestamp::from(sale.cart.occurred_at).0,
        currency: &sale.cart.currency,
        lines: sale.cart.lines.iter().map(canonical_line).collect(),
        order_discount: sale.cart.order_discount.as_ref().map(canonical_discount),
        coupons: &sale.cart.coupons,
        tenders: sale.tenders.iter().map(canonical_tender).collect(),
        total_minor: sale.total_minor,
        redemption: sale.cart.redemption.map(|redemption| (redemption.program_id.0, redemption.points)),
    };
    let mut hasher = Sha256::new();
    // Plain structs of numbers and texts always serialise, and hashing never fails.
    let written = serde_json::to_writer(&mut hasher, &canonical);
    debug_assert!(written.is_ok());
    hasher.finalize().into()
}

pub(crate) fn canonical_line(line: &CartLine) -> CanonicalLine<'_> {
    CanonicalLine {
        line_no: line.line_no,
        variant_id: line.variant_id.0,
        qty: line.qty,
        discount: line.discount.as_ref().map(canonical_discount),
        override_: line.override_.as_ref().map(|given| match given {
            Override::UnitPrice { unit_price_minor, reason } => ("unit_price", *unit_price_minor, reason.as_str()),
            Override::LineAmount { amount_minor, reason } => ("amount", *amount_minor, reason.as_str()),
        }),
    }
}

fn canonical_discount(discount: &Discount) -> CanonicalDiscount<'_> {
    let amount = match discount {
        Discount::Percent { percent, .. } => percent.to_string(),
        Discount::Amount { amount_minor, .. } => amount_minor.to_string(),
    };
    (discount.kind(), amount, discount.reason())
}

fn canonical_tender(tender: &Tender) -> (&'static str, i64, Option<[&str; 4]>) {
    let card = tender.card.as_ref().map(|card| [&*card.token, &*card.brand, &*card.last_four, &*card.expiry]);
    (tender.kind.as_str(), tender.amount_minor, card)
}

/// SHA-256 over the figures of lines and tenders, each as one text line, lines by number, then tenders:
/// `line_no|variant_id|qty|extended|discount|tax|added_tax|net|payable` and `tender_no|kind|amount|tip`; a line that
/// points paid for goes on with `|redemption|redemption_points`.
/// Audit and reconciliation compare it; it can be made again from the stored rows.
pub fn document_digest(priced: &Priced, tenders: &[Tender]) -> [u8; 32] {
    let mut text = Vec::with_capacity(96 * priced.lines.len() + 32 * tenders.len());
    for line in &priced.lines {
        // Writing into memory cannot fail.
        let _ = write!(
            text,
            "{}|{}|{}|{}|{}|{}|{}|{}|{}",
            line.line_no,
            line.variant.variant_id,
            line.qty,
            line.extended_minor,
            line.discount_minor,
            line.tax_minor,
            line.added_tax_minor,
            line.net_minor,
            line.payable_minor
        );
        if (line.redemption_minor, line.redemption_points) != (0, 0) {
            let _ = write!(text, "|{}|{}", line.redemption_minor, line.redemption_points);
        }
        text.push(b'\n');
    }
    for (index, tender) in tenders.iter().enumerate() {
        let _ = writeln!(text, "{}|{}|{}|0", index + 1, tender.kind.as_str(), tender.amount_minor);
    }
    Sha256::digest(&text).into()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}
