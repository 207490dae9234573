//! The answers of the sale routes. A sale's answer is built once, in its lane, and stored as text.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::types::{Receipt, ValidSale};
use crate::pricing::promotions::{Given, Reason, Skipped};
use crate::pricing::{Priced, PricedDiscount, PricedLine};

/// A committed sale.
#[derive(Debug, Serialize, ToSchema)]
pub struct SaleBody<'a> {
    pub sale_id: Uuid,
    #[schema(example = "sale")]
    pub kind: &'static str,
    pub location_id: Uuid,
    /// Gapless number of the act at its location; also the cursor of the changes feed.
    pub location_seq: i64,
    pub epoch: i64,
    pub terminal_id: Uuid,
    pub terminal_seq: i64,
    pub register_id: &'a str,
    pub receipt: Receipt,
    pub cashier_id: Uuid,
    pub customer_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<Uuid>,
    /// The approval that was spent on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_id: Option<Uuid>,
    pub occurred_at: String,
    pub recorded_at: String,
    pub business_date: NaiveDate,
    pub slot: i16,
    #[serde(flatten)]
    pub figures: Figures<'a>,
    pub tenders: Vec<TenderBody<'a>>,
    pub tip_minor: i64,
    /// Cash rounding: `sum(tenders) - change = total + rounding`.
    pub rounding_minor: i64,
    pub change_minor: i64,
    /// Points that paid for a part of it; what they are worth is in the discounts.
    pub points_redeemed: i64,
    pub points_earned: i64,
    /// `oversold`, `stale_lease`, `over_limit`.
    pub flags: &'a [&'static str],
    /// SHA-256 of the canonical document, lower-case hex.
    pub content_hash: String,
    pub document_digest: String,
}

/// Every figure of a cart: byte for byte the same in a quote and in the sale that follows it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Figures<'a> {
    pub currency: &'a str,
    pub rounding_mode: &'static str,
    pub lines: Vec<LineBody<'a>>,
    /// In the order in which they were applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub promotions: Vec<PromotionBody<'a>>,
    pub subtotal_minor: i64,
    /// Discounts and redeemed points of all lines.
    pub discount_minor: i64,
    /// What redeemed points are worth; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redemption_minor: Option<i64>,
    pub tax_minor: i64,
    pub total_minor: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LineBody<'a> {
    pub line_no: i32,
    pub variant_id: Uuid,
    pub product_id: Uuid,
    pub sku: &'a str,
    pub name: &'a str,
    pub qty: i64,
    pub unit: &'a str,
    pub list_price_minor: i64,
    pub unit_price_minor: i64,
    pub override_reason: Option<&'a str>,
    pub extended_minor: i64,
    /// In the order in which they were taken; their sum is `discount_minor`.
    pub discounts: Vec<DiscountBody<'a>>,
    pub discount_minor: i64,
    /// The line's share of the redemption, its money and its points; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redemption_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redemption_points: Option<i64>,
    pub taxes: Vec<TaxBody<'a>>,
    pub tax_minor: i64,
    /// The part of the tax that is added to the price.
    pub added_tax_minor: i64,
    pub net_minor: i64,
    pub payable_minor: i64,
}

/// A discount, or the line's share of one.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiscountBody<'a> {
    /// By hand `percent` and `amount` on the line, `order_percent` and `order_amount` on the order; `promotion`.
    #[schema(example = "promotion")]
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotion_id: Option<Uuid>,
    /// Name of the promotion, or the reason given by hand.
    pub name: &'a str,
    pub amount_minor: i64,
}

/// A promotion that applies to the cart.
#[derive(Debug, Serialize, ToSchema)]
pub struct PromotionBody<'a> {
    pub promotion_id: Uuid,
    pub name: &'a str,
    pub amount_minor: i64,
    /// The coupon that opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coupon: Option<&'a str>,
}

/// A promotion that does not apply, and why not.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotAppliedBody<'a> {
    pub promotion_id: Uuid,
    pub name: &'a str,
    pub reason: Reason,
    /// The promotion of the same group that applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Uuid>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TaxBody<'a> {
    pub tax_id: Uuid,
    pub name: &'a str,
    pub rate: &'a str,
    pub base_minor: i64,
    pub inclusive: bool,
    #[schema(example = "line")]
    pub scope: &'static str,
    pub amount_minor: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TenderBody<'a> {
    pub tender_no: i32,
    pub kind: &'static str,
    pub amount_minor: i64,
    pub card_brand: Option<&'a str>,
    pub card_last_four: Option<&'a str>,
}

/// A priced cart with the trace of every rounding step.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuoteBody<'a> {
    pub location_id: Uuid,
    pub occurred_at: String,
    pub catalog_version: i64,
    /// Every other active promotion, and why not.
    pub promotions_not_applied: Vec<NotAppliedBody<'a>>,
    #[serde(flatten)]
    pub figures: Figures<'a>,
    /// One entry per rounding step, see the API guide.
    pub trace: serde_json::Value,
    /// What the named member could spend on this cart, in each program whose points can be spent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redeemable: Vec<Redeemable>,
}

/// Points that could be redeemed on a cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Redeemable {
    pub program_id: Uuid,
    /// So many points are worth so many minor units.
    pub redeem_points: i64,
    pub redeem_minor: i64,
    /// What the member has available.
    pub points_available: i64,
    /// Most that this cart takes of them, and what that is worth.
    pub points_max: i64,
    pub amount_max_minor: i64,
}

/// Fixed spelling of an instant: UTC with microseconds.
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl<'a> Figures<'a> {
    pub fn of(priced: &'a Priced) -> Self {
        Figures {
            currency: &priced.location.currency,
            rounding_mode: priced.location.rounding_mode.as_str(),
            lines: priced.lines.iter().map(|line| line_body(line, priced.redemption.is_some())).collect(),
            promotions: priced.promotions.given.iter().map(promotion_body).collect(),
            subtotal_minor: priced.subtotal_minor,
            discount_minor: priced.discount_minor,
            redemption_minor: priced.redemption.map(|redemption| redemption.amount_minor),
            tax_minor: priced.tax_minor,
            total_minor: priced.total_minor,
        }
    }
}

fn line_body(line: &PricedLine, is_redeemed: bool) -> LineBody<'_> {
    let taxes = line.taxes.iter().map(|tax| TaxBody {
        tax_id: tax.tax_id,
        name: &tax.name,
        rate: &tax.rate,
        base_minor: tax.base_minor,
        inclusive: tax.is_inclusive,
        scope: if tax.is_per_order { "order" } else { "line" },
        amount_minor: tax.amount_minor,
    });
    LineBody {
        line_no: line.line_no,
        variant_id: line.variant.variant_id.0,
        product_id: line.variant.product_id.0,
        sku: &line.variant.sku,
        name: &line.variant.name,
        qty: line.qty,
        unit: &line.variant.unit,
        list_price_minor: line.list_price_minor,
        unit_price_minor: line.unit_price_minor,
        override_reason: line.override_reason.as_deref(),
        extended_minor: line.extended_minor,
        discounts: line.discounts.iter().map(discount_body).collect(),
        discount_minor: line.discount_minor,
        redemption_minor: is_redeemed.then_some(line.redemption_minor),
        redemption_points: is_redeemed.then_some(line.redemption_points),
        taxes: taxes.collect(),
        tax_minor: line.tax_minor,
        added_tax_minor: line.added_tax_minor,
        net_minor: line.net_minor,
        payable_minor: line.payable_minor,
    }
}

fn discount_body(discount: &PricedDiscount) -> DiscountBody<'_> {
    DiscountBody {
        kind: discount.kind,
        promotion_id: discount.promotion_id,
        name: &discount.name,
        amount_minor: discount.amount_minor,
    }
}

fn promotion_body(given: &Given) -> PromotionBody<'_> {
    PromotionBody {
        promotion_id: given.promotion_id,
        name: &given.name,
        amount_minor: given.amount_minor,
        coupon: given.coupon.as_deref(),
    }
}

fn not_applied(skipped: &Skipped) -> NotAppliedBody<'_> {
    NotAppliedBody {
        promotion_id: skipped.promotion_id,
        name: &skipped.name,
        reason: skipped.reason,
        blocked_by: skipped.blocked_by,
    }
}

/// The tenders of a sale, numbered from 1.
pub fn tender_bodies(sale: &ValidSale) -> Vec<TenderBody<'_>> {
    sale.tenders
        .iter()
        .enumerate()
        .map(|(index, tender)| {
            let card = tender.card.as_ref();
            TenderBody {
                tender_no: index as i32 + 1,
                kind: tender.kind.as_str(),
                amount_minor: tender.amount_minor,
                card_brand: card.map(|card| card.brand.as_str()),
                card_last_four: card.map(|card| card.last_four.as_str()),
            }
        })
        .collect()
}

/// The quote of `priced`.
pub fn quote_body(priced: &Priced, occurred_at: DateTime<Utc>) -> QuoteBody<'_> {
    QuoteBody {
        location_id: priced.location.location_id.0,
        occurred_at: instant(occurred_at),
        catalog_version: priced.catalog_version,
        figures: Figures::of(priced),
        promotions_not_applied: priced.promotions.skipped.iter().map(not_applied).collect(),
        trace: serde_json::from_str(&priced.trace).unwrap_or_default(),
        redeemable: Vec::new(),
    }
}
