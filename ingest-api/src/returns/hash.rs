//! What makes two sends of a refund, an exchange or a void the same document, and what proves a stored one.

use std::io::Write;

use schemas::events::{DocumentLine, DocumentTender};
use schemas::time::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::types::{Payment, TenderRef, ValidReturn};
use crate::sales::hash::{CanonicalLine, HASH_VERSION, canonical_line};
use crate::sales::types::Receipt;

/// The canonical document: fixed field order, no transport fields. What is empty is left out.
#[derive(Serialize)]
struct Canonical<'a> {
    hash_version: i16,
    kind: &'static str,
    document_id: Uuid,
    location_id: Uuid,
    terminal_id: Uuid,
    terminal_seq: i64,
    receipt: Receipt,
    cashier_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<Uuid>,
    occurred_at_micros: i64,
    currency: &'a str,
    reason: &'a str,
    /// Line, origin document and line, quantity, disposition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    returns: Vec<(i32, Uuid, i32, i64, &'static str)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<CanonicalLine<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tenders: Vec<CanonicalPayment<'a>>,
    total_minor: i64,
}

#[derive(Serialize)]
struct CanonicalPayment<'a> {
    kind: &'static str,
    amount_minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    card: Option<[&'a str; 4]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<TenderRef>,
}

/// SHA-256 of the canonical document.
pub fn content_hash(document: &ValidReturn) -> [u8; 32] {
    let sale = &document.sale;
    let canonical = Canonical {
        hash_version: HASH_VERSION,
        kind: document.kind.as_str(),
        document_id: sale.document_id.0,
        location_id: sale.cart.location_id.0,
        terminal_id: sale.terminal_id.0,
        terminal_seq: sale.terminal_seq,
        receipt: sale.receipt,
        cashier_id: sale.cashier_id.0,
        customer_id: sale.customer_id.map(Into::into),
        lease_id: sale.lease_id,
        occurred_at_micros: Timestamp::from(sale.cart.occurred_at).0,
        currency: &sale.cart.currency,
        reason: &document.reason,
        returns: document
            .returned
            .iter()
            .map(|line| {
                (line.line_no, line.origin_document_id, line.origin_line_no, line.qty, line.disposition.as_str())
            })
            .collect(),
        lines: sale.cart.lines.iter().map(canonical_line).collect(),
        tenders: document.payments.iter().map(payment).collect(),
        total_minor: sale.total_minor,
    };
    let mut hasher = Sha256::new();
    // Plain structs of numbers and texts always serialise, and hashing never fails.
    let written = serde_json::to_writer(&mut hasher, &canonical);
    debug_assert!(written.is_ok());
    hasher.finalize().into()
}

fn payment(payment: &Payment) -> CanonicalPayment<'_> {
    let card = payment.card.as_ref();
    CanonicalPayment {
        kind: payment.kind.as_str(),
        amount_minor: payment.amount_minor,
        card: card.map(|card| [&*card.token, &*card.brand, &*card.last_four, &*card.expiry]),
        origin: payment.origin,
    }
}

/// SHA-256 over the figures of lines and tenders, spelled as [`crate::sales::hash::document_digest`] spells those of a
/// sale.
pub fn document_digest(lines: &[DocumentLine], tenders: &[DocumentTender]) -> [u8; 32] {
    let mut text = Vec::with_capacity(96 * lines.len() + 32 * tenders.len());
    let mut lines: Vec<_> = lines.iter().collect();
    lines.sort_unstable_by_key(|line| line.line_no);
    for line in lines {
        // Writing into memory cannot fail.
        let _ = write!(
            text,
            "{}|{}|{}|{}|{}|{}|{}|{}|{}",
            line.line_no,
            line.variant_id,
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
    for tender in tenders {
        let _ = writeln!(text, "{}|{}|{}|{}", tender.tender_no, tender.kind, tender.amount_minor, tender.tip_minor);
    }
    Sha256::digest(&text).into()
}
