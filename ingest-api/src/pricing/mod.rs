//! Pure: what a cart costs. One entry point, [`price`], serves the quote, the commit and the check of a replay.
//!
//! Order of computation: extended price, line discounts, promotions, the discount on the order, points redemption, base,
//! taxes, total. Every figure has one rounding step, in the mode of the location, and every step is in the trace.

mod lines;
mod order;
pub mod promotions;
pub mod ratio;
pub mod redemption;
pub mod snapshot;
pub mod tax;
pub mod tender;
#[cfg(test)]
pub(crate) mod tests;
pub mod trace;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::ids::{CustomerId, LocationId, VariantId, derived_id};
use schemas::money::{Overflow, QTY_SCALE, storable};
use uuid::Uuid;

use crate::error::FieldProblem;
use lines::{Extended, extend, find};
use promotions::{Circumstances, Outcome, Usage};
use ratio::Ratio;
use redemption::{PricedRedemption, Redemption, redeem};
use snapshot::{Location, Programs, Snapshot, Variant};
use tax::{LineTax, TaxedLine, sum, taxes_of};
use trace::Trace;

/// Most lines of a document.
pub const LINES_MAX: usize = 1_000;
/// Largest quantity of a line: a million units, in thousandths.
pub const QTY_MAX: i64 = 1_000_000 * QTY_SCALE;

/// What is to be priced, already parsed into valid types.
#[derive(Debug, Clone, PartialEq)]
pub struct Cart {
    pub location_id: LocationId,
    pub currency: String,
    pub occurred_at: DateTime<Utc>,
    pub customer_id: Option<CustomerId>,
    pub lines: Vec<CartLine>,
    /// On what promotions leave of all lines together.
    pub order_discount: Option<Discount>,
    /// Codes as they are stored: upper case, letters and digits alone.
    pub coupons: Vec<String>,
    pub redemption: Option<Redemption>,
}

/// What is known beside the catalog of what a cart names: under the locks of the sale, or a moment before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// Good coupons of the cart: the code by the promotion that it opens.
    pub coupons: HashMap<Uuid, String>,
    /// What promotions with a budget or a limit of uses have given.
    pub usage: HashMap<Uuid, Usage>,
}

impl Terms {
    /// Terms under which no promotion with a budget or a limit of uses applies.
    pub fn without_counted(snapshot: &Snapshot) -> Terms {
        let spent = Usage { given_minor: i64::MAX, uses: i64::MAX };
        let counted = snapshot.promotions.iter().filter(|promotion| promotion.is_counted());
        Terms { usage: counted.map(|it| (it.promotion_id, spent)).collect(), ..Terms::default() }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct CartLine {
    pub line_no: i32,
    pub variant_id: VariantId,
    /// Thousandths, 1 to [`QTY_MAX`].
    pub qty: i64,
    pub discount: Option<Discount>,
    pub override_: Option<Override>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Discount {
    /// `percent` of the line, 0 to 100.
    Percent {
        percent: Decimal,
        reason: String,
    },
    Amount {
        amount_minor: i64,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Override {
    UnitPrice {
        unit_price_minor: i64,
        reason: String,
    },
    /// The line's own amount, for histories whose unit prices are finer than a minor unit.
    LineAmount {
        amount_minor: i64,
        reason: String,
    },
}

impl Discount {
    pub fn reason(&self) -> &str {
        match self {
            Discount::Percent { reason, .. } | Discount::Amount { reason, .. } => reason,
        }
    }
    pub fn kind(&self) -> &'static str {
        match self {
            Discount::Percent { .. } => "percent",
            Discount::Amount { .. } => "amount",
        }
    }
    /// What it takes off `base`, before rounding.
    fn exact(&self, base: i64) -> Result<Ratio, Overflow> {
        match self {
            Discount::Percent { percent, .. } => Ratio::of(*percent).times(Ratio { num: base.into(), den: 100 }),
            Discount::Amount { amount_minor, .. } => Ok(Ratio::whole(*amount_minor)),
        }
    }
}

impl Override {
    pub fn reason(&self) -> &str {
        match self {
            Override::UnitPrice { reason, .. } | Override::LineAmount { reason, .. } => reason,
        }
    }
}

impl CartLine {
    /// Whether its amount comes from the books of before.
    pub fn is_imported(&self) -> bool {
        matches!(self.override_, Some(Override::LineAmount { .. }))
    }
}

/// A cart with every figure.
#[derive(Debug, Clone)]
pub struct Priced {
    /// Catalog version the figures come from.
    pub catalog_version: i64,
    pub location: Arc<Location>,
    /// By which the document gives points.
    pub programs: Arc<Programs>,
    pub lines: Vec<PricedLine>,
    pub redemption: Option<PricedRedemption>,
    pub subtotal_minor: i64,
    /// Discounts and redemption of all lines.
    pub discount_minor: i64,
    pub tax_minor: i64,
    pub total_minor: i64,
    /// What became of each active promotion.
    pub promotions: Outcome,
    /// JSON array, see [`trace`].
    pub trace: String,
}

#[derive(Debug, Clone)]
pub struct PricedLine {
    pub line_no: i32,
    pub variant: Arc<Variant>,
    pub qty: i64,
    pub list_price_minor: i64,
    pub unit_price_minor: i64,
    pub override_reason: Option<String>,
    pub extended_minor: i64,
    /// In the order in which they were taken.
    pub discounts: Vec<PricedDiscount>,
    pub discount_minor: i64,
    /// What points paid of the line, and how many of them.
    pub redemption_minor: i64,
    pub redemption_points: i64,
    pub taxes: Vec<LineTax>,
    pub tax_minor: i64,
    /// The part of the tax that is added to the price.
    pub added_tax_minor: i64,
    pub net_minor: i64,
    pub payable_minor: i64,
}

/// A discount, or a line's share of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PricedDiscount {
    /// `percent` or `amount` on the line and `order_percent` or `order_amount` by hand, `promotion`.
    pub kind: &'static str,
    pub promotion_id: Option<Uuid>,
    /// Name of the promotion, or the reason given by hand.
    pub name: Arc<str>,
    pub amount_minor: i64,
}

impl PricedDiscount {
    /// The promotion, or an id that follows from document and line, so that a replay names the same one.
    pub fn id(&self, document: Uuid, line_no: i32) -> Uuid {
        let line_no = if self.kind.starts_with("order_") { 0 } else { line_no };
        self.promotion_id.unwrap_or_else(|| derived_id("discount", &format!("{document}:{line_no}")))
    }
}

/// Every figure of `cart` by the catalog in `snapshot` and by `terms`, or each wrong place with a JSON pointer. Lines come in
/// the order of their numbers, whatever the order in the cart.
pub fn price(snapshot: &Snapshot, cart: &Cart, terms: &Terms) -> Result<Priced, Vec<FieldProblem>> {
    let Some(location) = snapshot.locations.get(&cart.location_id) else {
        return Err(vec![FieldProblem::new("/location_id", "unknown_location", "no such location")]);
    };
    if *cart.currency != *location.currency {
        let message = format!("the location sells in {}", location.currency);
        return Err(vec![FieldProblem::new("/currency", "wrong_currency", message)]);
    }
    let mut trace = Trace::new();
    let (mut found, mut problems) = (Vec::with_capacity(cart.lines.len()), Vec::new());
    for (index, line) in cart.lines.iter().enumerate() {
        match find(snapshot, cart, location, line).and_then(|found| extend(found, line, location, &mut trace)) {
            Ok(line) => found.push(line),
            Err((place, code, message)) => {
                problems.push(FieldProblem::new(format!("/lines/{index}{place}"), code, message));
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    // Shares go to the earlier line where they are equal: earlier by its number.
    found.sort_by_key(|line| line.line_no);
    let overflow = |Overflow| vec![FieldProblem::new("/lines", "overflow", "the amounts are out of range")];
    let around = Circumstances {
        location,
        occurred_at: cart.occurred_at,
        customer_id: cart.customer_id.map(Into::into),
        coupons: &terms.coupons,
        usage: &terms.usage,
    };
    let promotions = order::promote(snapshot, &mut found, &around, &mut trace).map_err(overflow)?;
    if let Some(discount) = &cart.order_discount {
        order::discount(discount, &mut found, location.rounding_mode, &mut trace).map_err(|problem| vec![problem])?;
    }
    let redeemed = cart.redemption.map(|redemption| redeem(snapshot, location, redemption, &mut found, &mut trace));
    let redemption = redeemed.transpose().map_err(|problem| vec![problem])?;
    let priced = total(snapshot, location, found, redemption, trace).map_err(overflow)?;
    Ok(Priced { promotions, ..priced })
}

/// Taxes of all lines together, then the header as the sum of the lines. A figure that not every store of the platform
/// can hold is an overflow, also where the sum of it would cancel out.
fn total(
    snapshot: &Snapshot,
    location: &Arc<Location>,
    extended: Vec<Extended<'_>>,
    redemption: Option<PricedRedemption>,
    mut trace: Trace,
) -> Result<Priced, Overflow> {
    let taxed: Vec<TaxedLine<'_>> = extended
        .iter()
        .map(|line| TaxedLine {
            line_no: line.line_no,
            profile: line.found.variant.tax_profile_id,
            taxes: line.found.taxes,
            is_price_inclusive: line.found.price.tax_inclusive,
            amount_minor: line.amount_minor(),
        })
        .collect();
    let taxes = taxes_of(&taxed, location.rounding_mode, &mut trace)?;
    let mut lines = Vec::with_capacity(extended.len());
    for (line, taxes) in extended.into_iter().zip(taxes) {
        lines.push(finished(line, taxes)?);
    }
    let column = |figure: fn(&PricedLine) -> i64| {
        let sum = lines.iter().map(figure).try_fold(0i64, |sum, amount| sum.checked_add(amount).ok_or(Overflow));
        sum.and_then(storable)
    };
    Ok(Priced {
        catalog_version: snapshot.version,
        location: location.clone(),
        programs: snapshot.programs.clone(),
        redemption,
        subtotal_minor: column(|line| line.extended_minor)?,
        discount_minor: column(|line| line.discount_minor + line.redemption_minor)?,
        tax_minor: column(|line| line.tax_minor)?,
        total_minor: column(|line| line.payable_minor)?,
        lines,
        promotions: Outcome::default(),
        trace: trace.finish(),
    })
}

fn finished(line: Extended<'_>, taxes: Vec<LineTax>) -> Result<PricedLine, Overflow> {
    let all: Vec<i64> = taxes.iter().map(|tax| storable(tax.amount_minor)).collect::<Result<_, _>>()?;
    let added: Vec<i64> = taxes.iter().filter(|tax| !tax.is_inclusive).map(|tax| tax.amount_minor).collect();
    let (tax_minor, added_tax_minor) = (sum(&all)?, sum(&added)?);
    let payable_minor = storable(line.amount_minor().checked_add(added_tax_minor).ok_or(Overflow)?)?;
    Ok(PricedLine {
        line_no: line.line_no,
        variant: line.found.variant.clone(),
        qty: line.qty,
        list_price_minor: line.found.price.amount_minor,
        unit_price_minor: line.unit_price_minor,
        override_reason: line.override_reason,
        extended_minor: line.extended_minor,
        discounts: line.discounts,
        discount_minor: line.discount_minor,
        redemption_minor: line.redemption_minor,
        redemption_points: line.redemption_points,
        taxes,
        tax_minor,
        added_tax_minor,
        net_minor: payable_minor.checked_sub(tax_minor).ok_or(Overflow)?,
        payable_minor,
    })
}

/// The unit shares of rule T4 of a line sold by the piece, as compact JSON: for each stored amount
/// `[each, more]`: every unit bears `each`, the first `more` units one more. A measured line has none.
pub fn unit_shares(line: &PricedLine) -> String {
    if line.variant.is_measured {
        return "{}".to_owned();
    }
    let n = (line.qty / QTY_SCALE).max(1);
    let share = |amount: i64| format!("[{},{}]", amount / n, amount % n);
    let all = |amounts: &mut dyn Iterator<Item = i64>| amounts.map(share).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"n":{n},"extended":{},"discounts":[{}],"redemption":{},"redemption_points":{},"added_tax":{},"taxes":[{}]}}"#,
        share(line.extended_minor),
        all(&mut line.discounts.iter().map(|discount| discount.amount_minor)),
        share(line.redemption_minor),
        share(line.redemption_points),
        share(line.added_tax_minor),
        all(&mut line.taxes.iter().map(|tax| tax.amount_minor))
    )
}
