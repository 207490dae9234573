//! The answers: a stored refund, exchange or void, and what one would be. An answer of a document is built once and
//! stored as text.

use chrono::NaiveDate;
use schemas::events::{DocumentLine, DocumentTender, LineTax};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::origin::Origins;
use super::payout::Planned;
use super::plan::Plan;
use super::points::Posted;
use super::records::Accepted;
use super::types::{TenderRef, ValidReturn};
use crate::access::Permission;
use crate::limits::Extent;
use crate::sales::hash::hex;
use crate::sales::response::{SaleBody, instant};
use crate::sales::types::Receipt;

/// A committed refund, exchange or void.
#[derive(Debug, Serialize, ToSchema)]
pub struct DocumentBody {
    pub document_id: Uuid,
    /// `refund`, `exchange` or `void`.
    pub kind: &'static str,
    pub reason: String,
    pub location_id: Uuid,
    /// Gapless number of the act at its location; also the cursor of the changes feed.
    pub location_seq: i64,
    pub epoch: i64,
    /// Where the goods were sold, when it was one location.
    pub origin_location_id: Option<Uuid>,
    pub terminal_id: Uuid,
    pub terminal_seq: i64,
    pub register_id: String,
    pub receipt: Receipt,
    pub cashier_id: Uuid,
    pub customer_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<Uuid>,
    pub occurred_at: String,
    pub recorded_at: String,
    pub business_date: NaiveDate,
    pub slot: i16,
    #[serde(flatten)]
    pub figures: ReturnFigures,
    pub tenders: Vec<PaymentBody>,
    pub tip_minor: i64,
    /// Cash rounding: `sum(tenders) - change = total + rounding`.
    pub rounding_minor: i64,
    pub change_minor: i64,
    #[serde(flatten)]
    pub points: PointsBody,
    /// `oversold`, `stale_lease`, `over_limit`.
    pub flags: Vec<&'static str>,
    /// SHA-256 of the canonical document, lower-case hex.
    pub content_hash: String,
    pub document_digest: String,
}

/// Every figure: byte for byte the same in a preview and in the document that follows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReturnFigures {
    pub currency: String,
    pub rounding_mode: &'static str,
    /// What comes back, with negative quantities and amounts, then what goes.
    pub lines: Vec<ReturnLineBody>,
    pub subtotal_minor: i64,
    /// Discounts and what points paid.
    pub discount_minor: i64,
    pub tax_minor: i64,
    /// Negative: what the customer gets.
    pub total_minor: i64,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReturnLineBody {
    pub line_no: i32,
    /// `return` or `sale`.
    pub leg: String,
    pub variant_id: Uuid,
    pub product_id: Uuid,
    pub sku: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_document_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_line_no: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_location_id: Option<Uuid>,
    /// Units of the origin line that come back, from 1; goods sold by measure have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_unit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_unit: Option<i64>,
    pub qty: i64,
    pub unit: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disposition: Option<String>,
    pub list_price_minor: i64,
    pub unit_price_minor: i64,
    pub override_reason: Option<String>,
    pub extended_minor: i64,
    pub discount_minor: i64,
    pub redemption_minor: i64,
    pub redemption_points: i64,
    #[schema(value_type = Vec<ReturnTaxBody>)]
    pub taxes: Vec<LineTax>,
    pub tax_minor: i64,
    /// The part of the tax that is added to the price.
    pub added_tax_minor: i64,
    pub net_minor: i64,
    pub payable_minor: i64,
}

/// A tax of a line.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReturnTaxBody {
    pub tax_id: Uuid,
    pub name: String,
    pub rate: String,
    pub base_minor: i64,
    pub inclusive: bool,
    pub scope: String,
    pub amount_minor: i64,
}

/// Money taken or, negative, paid out.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PaymentBody {
    pub tender_no: i32,
    pub kind: String,
    pub amount_minor: i64,
    pub card_brand: Option<String>,
    pub card_last_four: Option<String>,
    /// The tender that it goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<TenderRef>,
}

/// What happened to the member's points.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct PointsBody {
    /// Taken back of what the goods had earned.
    pub points_clawed_back: i64,
    /// Given back of what had paid for the goods.
    pub points_returned: i64,
    /// For the goods that go.
    pub points_earned: i64,
}

/// What is read back: a sale as it was answered, or another document.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum AnyDocument {
    Sale(Box<SaleBody<'static>>),
    Other(Box<DocumentBody>),
}

/// What a refund or exchange would be: the same figures, and the tenders that need no approval.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewBody {
    /// `refund` or `exchange`.
    pub kind: &'static str,
    pub location_id: Uuid,
    pub occurred_at: String,
    pub customer_id: Option<Uuid>,
    #[serde(flatten)]
    pub figures: ReturnFigures,
    /// Where money goes back to in the order of the house: first the tenders that paid, the latest first, each up to what
    /// it still holds, the rest in cash, rounded. Empty where the customer pays or nothing is owed.
    pub tenders: Vec<PlannedBody>,
    /// Cash rounding with these tenders.
    pub rounding_minor: i64,
    #[serde(flatten)]
    pub points: PointsBody,
    /// What limits are about in it.
    pub acts: Vec<ActBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PlannedBody {
    pub kind: String,
    pub amount_minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card_brand: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card_last_four: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<TenderRef>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ActBody {
    pub act: Permission,
    pub amount_minor: Option<i64>,
}

impl ReturnFigures {
    pub fn of(plan: &Plan) -> Self {
        ReturnFigures {
            currency: plan.location.currency.to_string(),
            rounding_mode: plan.location.rounding_mode.as_str(),
            lines: plan.lines.iter().map(line).collect(),
            subtotal_minor: plan.subtotal_minor,
            discount_minor: plan.discount_minor,
            tax_minor: plan.tax_minor,
            total_minor: plan.total_minor,
        }
    }
}

fn line(line: &DocumentLine) -> ReturnLineBody {
    ReturnLineBody {
        line_no: line.line_no,
        leg: line.leg.clone(),
        variant_id: line.variant_id.0,
        product_id: line.product_id.0,
        sku: line.sku.clone(),
        name: line.name.clone(),
        origin_document_id: line.origin_document_id.map(Into::into),
        origin_line_no: line.origin_line_no,
        origin_location_id: line.origin_location_id.map(Into::into),
        first_unit: line.first_unit,
        last_unit: line.last_unit,
        qty: line.qty,
        unit: line.unit.clone(),
        disposition: line.disposition.clone(),
        list_price_minor: line.list_price_minor,
        unit_price_minor: line.unit_price_minor,
        override_reason: line.override_reason.clone(),
        extended_minor: line.extended_minor,
        discount_minor: line.discount_minor,
        redemption_minor: line.redemption_minor,
        redemption_points: line.redemption_points,
        taxes: line.taxes.clone(),
        tax_minor: line.tax_minor,
        added_tax_minor: line.added_tax_minor,
        net_minor: line.net_minor,
        payable_minor: line.payable_minor,
    }
}

impl PointsBody {
    pub fn of(entries: &[Posted]) -> Self {
        let sum = |kind: &str| {
            let deltas = entries.iter().filter(|entry| entry.kind == kind).map(|entry| entry.delta);
            deltas.fold(0i64, i64::saturating_add)
        };
        PointsBody {
            points_clawed_back: sum(super::points::CLAW_BACK).saturating_neg(),
            points_returned: sum(super::points::REDEMPTION_RETURN),
            points_earned: sum(super::points::ACCRUAL),
        }
    }
}

impl DocumentBody {
    pub fn of(accepted: &Accepted<'_>, entries: &[Posted]) -> Self {
        let Accepted { document, plan, settlement, .. } = accepted;
        let sale = &document.sale;
        DocumentBody {
            document_id: sale.document_id.0,
            kind: document.kind.as_str(),
            reason: document.reason.clone(),
            location_id: sale.location_id().0,
            location_seq: accepted.location_seq,
            epoch: accepted.epoch,
            origin_location_id: plan.origin_location_id.map(Into::into),
            terminal_id: sale.terminal_id.0,
            terminal_seq: sale.terminal_seq,
            register_id: accepted.register_id.to_owned(),
            receipt: sale.receipt,
            cashier_id: sale.cashier_id.0,
            customer_id: plan.customer_id.map(Into::into),
            lease_id: sale.lease_id,
            approval_id: accepted.approval_id,
            occurred_at: instant(sale.cart.occurred_at),
            recorded_at: instant(accepted.recorded_at.to_utc()),
            business_date: plan.moment.date,
            slot: plan.moment.slot,
            figures: ReturnFigures::of(plan),
            tenders: payments(document, &accepted.tenders),
            tip_minor: 0,
            rounding_minor: settlement.rounding_minor,
            change_minor: settlement.change_minor,
            points: PointsBody::of(entries),
            flags: accepted.flags.clone(),
            content_hash: hex(&sale.content_hash),
            document_digest: hex(&accepted.digest),
        }
    }
}

fn payments(document: &ValidReturn, tenders: &[DocumentTender]) -> Vec<PaymentBody> {
    let given = document.payments.iter().zip(tenders);
    let body = given.map(|(payment, tender)| PaymentBody {
        tender_no: tender.tender_no,
        kind: tender.kind.clone(),
        amount_minor: tender.amount_minor,
        card_brand: tender.card_brand.clone(),
        card_last_four: tender.card_last_four.clone(),
        origin: payment.origin,
    });
    body.collect()
}

impl PlannedBody {
    pub fn of(planned: &Planned, origins: &Origins) -> Self {
        let held = planned.to.and_then(|to| origins.held.iter().find(|held| held.at == to));
        PlannedBody {
            kind: held.map_or("cash", |held| held.kind.as_str()).to_owned(),
            amount_minor: planned.amount_minor,
            card_brand: held.and_then(|held| held.card_brand.clone()),
            card_last_four: held.and_then(|held| held.card_last_four.clone()),
            origin: planned.to,
        }
    }
}

impl ActBody {
    pub fn of((act, extent): (Permission, Extent)) -> Self {
        ActBody { act, amount_minor: extent.amount_minor }
    }
}
