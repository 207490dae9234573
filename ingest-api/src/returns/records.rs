//! Pure: the records of a refund, exchange or void: the document, its movements, its loyalty entries.

use schemas::events::{DocumentCommitted, DocumentTender, LotChange, LoyaltyPosted, StockMoved};
use schemas::ids::{CustomerId, LocationId, VariantId, derived_id};
use schemas::time::{Day, Timestamp};
use uuid::Uuid;

use super::origin::Origins;
use super::payout::{Settlement, held_of};
use super::plan::Plan;
use super::points::Posted;
use super::types::{Disposition, Payment, ValidReturn};
use crate::sales::decide::Movement;
use crate::sales::events::{CAUSE_DOCUMENT, TENDER_CAPTURED};
use crate::sales::hash::{HASH_VERSION, hex};
use crate::sales::known::StockRow;

/// Reason of the movement of goods that came back.
pub const REASON_RETURN: &str = "return";

/// What is known once the document is accepted.
pub struct Accepted<'a> {
    pub document: &'a ValidReturn,
    pub plan: &'a Plan,
    pub settlement: &'a Settlement,
    pub tenders: Vec<DocumentTender>,
    pub epoch: i64,
    pub location_seq: i64,
    pub recorded_at: Timestamp,
    pub register_id: &'a str,
    pub approval_id: Option<Uuid>,
    pub flags: Vec<&'static str>,
    pub digest: [u8; 32],
}

/// The tenders of a document, numbered from 1. Money that goes back to a card goes to that very card.
pub fn tenders(payments: &[Payment], origins: &Origins) -> Vec<DocumentTender> {
    let tender = |(index, payment): (usize, &Payment)| {
        let card = payment.card.as_ref();
        let held = held_of(origins, payment);
        DocumentTender {
            tender_no: index as i32 + 1,
            kind: payment.kind.as_str().to_owned(),
            amount_minor: payment.amount_minor,
            tip_minor: 0,
            state: TENDER_CAPTURED.to_owned(),
            intent_id: None,
            psp_reference: card.map(|it| it.token.clone()).or_else(|| held?.psp_reference.clone()),
            card_brand: card.map(|it| it.brand.clone()).or_else(|| held?.card_brand.clone()),
            card_last_four: card.map(|it| it.last_four.clone()).or_else(|| held?.card_last_four.clone()),
            card_expiry: card.map(|it| it.expiry.clone()).or_else(|| held?.card_expiry.clone()),
            liability_account_id: None,
        }
    };
    payments.iter().enumerate().map(tender).collect()
}

impl Accepted<'_> {
    pub fn document(&self) -> DocumentCommitted {
        let Accepted { document, plan, settlement, .. } = self;
        let sale = &document.sale;
        let occurred_at: Timestamp = sale.cart.occurred_at.into();
        DocumentCommitted {
            epoch: self.epoch,
            document_id: sale.document_id,
            kind: document.kind.document_kind(),
            location_id: sale.location_id(),
            location_seq: self.location_seq,
            origin_location_id: plan.origin_location_id,
            terminal_id: sale.terminal_id,
            terminal_seq: sale.terminal_seq,
            register_id: self.register_id.to_owned(),
            series_epoch: sale.receipt.series_epoch,
            receipt_number: sale.receipt.number,
            cashier_id: sale.cashier_id,
            drawer_session_id: None,
            lease_id: sale.lease_id,
            approval_id: self.approval_id,
            customer_id: plan.customer_id,
            occurred_at_raw: occurred_at,
            sent_at: sale.sent_at.map(Into::into),
            occurred_at,
            recorded_at: self.recorded_at,
            business_date: Day::from(plan.moment.date),
            slot: plan.moment.slot.into(),
            currency: plan.location.currency.to_string(),
            rounding_mode: plan.location.rounding_mode.as_str().to_owned(),
            cash_step: plan.location.cash_step,
            subtotal_minor: plan.subtotal_minor,
            discount_minor: plan.discount_minor,
            tax_minor: plan.tax_minor,
            tip_minor: 0,
            total_minor: plan.total_minor,
            rounding_minor: settlement.rounding_minor,
            change_minor: settlement.change_minor,
            flags: self.flags.iter().map(|flag| (*flag).to_owned()).collect(),
            content_hash: hex(&sale.content_hash),
            hash_version: HASH_VERSION.into(),
            document_digest: hex(&self.digest),
            pricing_version: plan.catalog_version,
            lines: plan.lines.clone(),
            tenders: self.tenders.clone(),
            cause_type: CAUSE_DOCUMENT.to_owned(),
            cause_id: sale.document_id.0,
            cause_line: 0,
            actor: sale.cashier_id,
            reason: Some(document.reason.clone()),
        }
    }

    /// The movement of one line at a place: the location of the act, or a system location under it.
    pub fn moved(&self, movement: &Movement, place: Stock, reason: &str) -> StockMoved {
        let sale = &self.document.sale;
        StockMoved {
            epoch: self.epoch,
            location_id: place.location_id,
            parent_location_id: place.parent_location_id,
            location_seq: self.location_seq,
            variant_id: movement.variant_id,
            version: movement.version,
            delta: movement.delta,
            qty_after: movement.qty_after,
            cause_type: CAUSE_DOCUMENT.to_owned(),
            cause_id: sale.document_id.0,
            cause_line: movement.line_no,
            transfer_id: None,
            reason: reason.to_owned(),
            document_uri: None,
            actor: sale.cashier_id,
            approval_id: self.approval_id,
            effective_at: sale.cart.occurred_at.into(),
            recorded_at: self.recorded_at,
            business_date: Day::from(self.plan.moment.date),
            neutral: false,
            threshold: movement.threshold,
            hysteresis: movement.hysteresis,
            resync: false,
            unit_cost: movement.unit_cost,
        }
    }

    pub fn posted(&self, customer_id: CustomerId, entry: &Posted) -> LoyaltyPosted {
        let sale = &self.document.sale;
        let lots = entry.lots.iter().map(|lot| LotChange {
            lot_id: lot.lot_id.0,
            delta: lot.delta,
            earned_at: lot.earned_at.into(),
            available_at: lot.available_at.into(),
            expires_at: lot.expires_at.map(Into::into),
        });
        LoyaltyPosted {
            epoch: self.epoch,
            account_id: entry.account_id,
            customer_id,
            program_id: entry.program_id,
            location_id: Some(sale.location_id()),
            location_seq: self.location_seq,
            kind: entry.kind.to_owned(),
            version: entry.version,
            delta: entry.delta,
            points_after: entry.points_after,
            tier_multiplier: "1".to_owned(),
            lots: lots.collect(),
            cause_type: CAUSE_DOCUMENT.to_owned(),
            cause_id: sale.document_id.0,
            cause_line: 0,
            actor: sale.cashier_id,
            approval_id: self.approval_id,
            effective_at: sale.cart.occurred_at.into(),
            recorded_at: self.recorded_at,
            resync: false,
        }
    }
}

/// Where stock is: at a location, or at one of its system locations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    pub location_id: LocationId,
    pub parent_location_id: Option<LocationId>,
}

impl Stock {
    pub fn at(location_id: LocationId) -> Stock {
        Stock { location_id, parent_location_id: None }
    }
    /// Where returned goods go.
    pub fn of(location_id: LocationId, disposition: Disposition) -> Stock {
        match disposition {
            Disposition::Resellable => Stock::at(location_id),
            Disposition::Inspect | Disposition::Waste => Stock {
                location_id: system_location(location_id, disposition.as_str()),
                parent_location_id: Some(location_id),
            },
        }
    }
}

/// The id of a system location follows from its parent and kind.
pub fn system_location(parent: LocationId, kind: &str) -> LocationId {
    LocationId(derived_id("system_location", &format!("{parent}:{kind}")))
}

/// Goods that come back into a stock row; nothing where the row cannot count them.
pub fn back_into(
    row: &mut StockRow,
    variant_id: VariantId,
    line_no: i32,
    qty: i64,
    unit_cost: Option<i64>,
) -> Movement {
    row.qty += qty;
    row.version += 1;
    row.is_changed = true;
    Movement {
        variant_id,
        line_no,
        version: row.version,
        delta: qty,
        qty_after: row.qty,
        threshold: row.threshold,
        hysteresis: row.hysteresis,
        unit_cost,
    }
}
