//! Pure: the records of an accepted sale, in the order in which they are published.

use schemas::events::{
    DocumentCommitted, DocumentKind, DocumentLine, DocumentTender, LineDiscount, LineTax, LoyaltyPosted, StockMoved,
};
use schemas::time::{Day, Timestamp};

use super::decide::{Accepted, Movement};
use super::hash::{HASH_VERSION, hex};
use super::price::PricedSale;
use super::redemption::Entry;
use super::types::{Tender, ValidSale};
use crate::db::outbox::Act;
use crate::pricing::PricedLine;

/// Cause type of everything a document does.
pub const CAUSE_DOCUMENT: &str = "document";

/// Epoch and database clock of the batch.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    pub epoch: i64,
    pub recorded_at: Timestamp,
}

/// The outbox row of an accepted sale: the document, its movements, its loyalty entries.
pub fn act(sale: &ValidSale, priced: &PricedSale, accepted: &Accepted, stamp: Stamp, trace_parent: &str) -> Act {
    let mut act =
        Act::new(sale.location_id().0, accepted.location_seq, CAUSE_DOCUMENT, sale.document_id.0, trace_parent);
    act.push(&document(sale, priced, accepted, stamp));
    for movement in &accepted.movements {
        act.push(&moved(sale, priced, accepted, movement, stamp));
    }
    for entry in &accepted.entries {
        act.push(&posted(sale, accepted, entry, stamp));
    }
    act
}

fn document(sale: &ValidSale, priced: &PricedSale, accepted: &Accepted, stamp: Stamp) -> DocumentCommitted {
    let figures = &priced.priced;
    DocumentCommitted {
        epoch: stamp.epoch,
        document_id: sale.document_id,
        kind: DocumentKind::Sale,
        location_id: sale.location_id(),
        location_seq: accepted.location_seq,
        origin_location_id: None,
        terminal_id: sale.terminal_id,
        terminal_seq: sale.terminal_seq,
        register_id: accepted.register_id.to_string(),
        series_epoch: sale.receipt.series_epoch,
        receipt_number: sale.receipt.number,
        cashier_id: sale.cashier_id,
        drawer_session_id: None,
        lease_id: sale.lease_id,
        approval_id: accepted.approval_id(),
        customer_id: sale.customer_id,
        occurred_at_raw: sale.cart.occurred_at.into(),
        sent_at: sale.sent_at.map(Into::into),
        occurred_at: sale.cart.occurred_at.into(),
        recorded_at: stamp.recorded_at,
        business_date: Day::from(priced.moment.date),
        slot: priced.moment.slot.into(),
        currency: figures.location.currency.to_string(),
        rounding_mode: figures.location.rounding_mode.as_str().to_owned(),
        cash_step: figures.location.cash_step,
        subtotal_minor: figures.subtotal_minor,
        discount_minor: figures.discount_minor,
        tax_minor: figures.tax_minor,
        tip_minor: 0,
        total_minor: figures.total_minor,
        rounding_minor: priced.settled.rounding_minor,
        change_minor: priced.settled.change_minor,
        flags: accepted.flags.iter().map(|flag| (*flag).to_owned()).collect(),
        content_hash: hex(&sale.content_hash),
        hash_version: HASH_VERSION.into(),
        document_digest: hex(&accepted.document_digest),
        pricing_version: figures.catalog_version,
        lines: figures.lines.iter().map(|line| document_line(sale, line)).collect(),
        tenders: sale.tenders.iter().enumerate().map(document_tender).collect(),
        cause_type: CAUSE_DOCUMENT.to_owned(),
        cause_id: sale.document_id.0,
        cause_line: 0,
        actor: sale.cashier_id,
        reason: None,
    }
}

pub(crate) fn document_line(sale: &ValidSale, line: &PricedLine) -> DocumentLine {
    let discounts = line.discounts.iter().map(|discount| LineDiscount {
        discount_id: discount.id(sale.document_id.0, line.line_no).to_string(),
        kind: discount.kind.to_owned(),
        name: discount.name.to_string(),
        amount_minor: discount.amount_minor,
    });
    let taxes = line.taxes.iter().map(|tax| LineTax {
        tax_id: tax.tax_id,
        name: tax.name.to_string(),
        rate: tax.rate.to_string(),
        base_minor: tax.base_minor,
        inclusive: tax.is_inclusive,
        scope: if tax.is_per_order { "order" } else { "line" }.to_owned(),
        amount_minor: tax.amount_minor,
    });
    DocumentLine {
        line_no: line.line_no,
        leg: "sale".to_owned(),
        variant_id: line.variant.variant_id,
        product_id: line.variant.product_id,
        sku: line.variant.sku.clone(),
        name: line.variant.name.clone(),
        origin_document_id: None,
        origin_line_no: None,
        origin_location_id: None,
        first_unit: None,
        last_unit: None,
        qty: line.qty,
        unit: line.variant.unit.clone(),
        is_measured: line.variant.is_measured,
        tracks_stock: line.variant.tracks_stock,
        disposition: None,
        list_price_minor: line.list_price_minor,
        unit_price_minor: line.unit_price_minor,
        override_reason: line.override_reason.clone(),
        extended_minor: line.extended_minor,
        discounts: discounts.collect(),
        discount_minor: line.discount_minor,
        redemption_minor: line.redemption_minor,
        taxes: taxes.collect(),
        tax_minor: line.tax_minor,
        added_tax_minor: line.added_tax_minor,
        net_minor: line.net_minor,
        payable_minor: line.payable_minor,
        unit_cost: line.variant.unit_cost,
        redemption_points: line.redemption_points,
        liability_account_id: None,
    }
}

/// State of a tender that a till reports as paid.
pub const TENDER_CAPTURED: &str = "captured";

fn document_tender((index, tender): (usize, &Tender)) -> DocumentTender {
    let card = tender.card.as_ref();
    DocumentTender {
        tender_no: index as i32 + 1,
        kind: tender.kind.as_str().to_owned(),
        amount_minor: tender.amount_minor,
        tip_minor: 0,
        state: TENDER_CAPTURED.to_owned(),
        intent_id: None,
        psp_reference: card.map(|card| card.token.clone()),
        card_brand: card.map(|card| card.brand.clone()),
        card_last_four: card.map(|card| card.last_four.clone()),
        card_expiry: card.map(|card| card.expiry.clone()),
        liability_account_id: None,
    }
}

fn moved(sale: &ValidSale, priced: &PricedSale, accepted: &Accepted, movement: &Movement, stamp: Stamp) -> StockMoved {
    StockMoved {
        epoch: stamp.epoch,
        location_id: sale.location_id(),
        parent_location_id: None,
        location_seq: accepted.location_seq,
        variant_id: movement.variant_id,
        version: movement.version,
        delta: movement.delta,
        qty_after: movement.qty_after,
        cause_type: CAUSE_DOCUMENT.to_owned(),
        cause_id: sale.document_id.0,
        cause_line: movement.line_no,
        transfer_id: None,
        reason: "sale".to_owned(),
        document_uri: None,
        actor: sale.cashier_id,
        approval_id: None,
        effective_at: sale.cart.occurred_at.into(),
        recorded_at: stamp.recorded_at,
        business_date: Day::from(priced.moment.date),
        neutral: false,
        threshold: movement.threshold,
        hysteresis: movement.hysteresis,
        resync: false,
        unit_cost: movement.unit_cost,
    }
}

fn posted(sale: &ValidSale, accepted: &Accepted, entry: &Entry, stamp: Stamp) -> LoyaltyPosted {
    LoyaltyPosted {
        epoch: stamp.epoch,
        account_id: entry.account_id,
        customer_id: entry.customer_id,
        program_id: entry.program_id,
        location_id: Some(sale.location_id()),
        location_seq: accepted.location_seq,
        kind: entry.kind.as_str().to_owned(),
        version: entry.version,
        delta: entry.delta,
        points_after: entry.points_after,
        tier_multiplier: "1".to_owned(),
        lots: entry.lots.iter().map(Into::into).collect(),
        cause_type: CAUSE_DOCUMENT.to_owned(),
        cause_id: sale.document_id.0,
        cause_line: 0,
        actor: sale.cashier_id,
        approval_id: None,
        effective_at: sale.cart.occurred_at.into(),
        recorded_at: stamp.recorded_at,
        resync: false,
    }
}
