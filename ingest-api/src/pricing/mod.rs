//! Pure: what a cart costs. One entry point, [`price`], serves the quote, the commit and the check of a replay.
//!
//! Order of computation: extended price, line discounts, points redemption, base, taxes, total. Every figure has one rounding
//! step, in the mode of the location, and every step is in the trace.

pub mod ratio;
pub mod redemption;
pub mod snapshot;
pub mod tax;
pub mod tender;
#[cfg(test)]
mod tests;
pub mod trace;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::ids::{LocationId, VariantId};
use schemas::money::{self, Overflow, QTY_SCALE, RoundingMode, storable};
use uuid::Uuid;

use crate::error::FieldProblem;
use ratio::Ratio;
use redemption::{PricedRedemption, Redemption, redeem};
use snapshot::{Location, Programs, Snapshot, Tax, Variant};
use tax::{LineTax, TaxedLine, sum, taxes_of};
use trace::{Step, Trace};

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
    pub lines: Vec<CartLine>,
    pub redemption: Option<Redemption>,
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
    pub discount: Option<PricedDiscount>,
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

#[derive(Debug, Clone)]
pub struct PricedDiscount {
    pub kind: &'static str,
    pub reason: String,
    pub amount_minor: i64,
}

/// Every figure of `cart` by the catalog in `snapshot`, or each wrong place with a JSON pointer.
pub fn price(snapshot: &Snapshot, cart: &Cart) -> Result<Priced, Vec<FieldProblem>> {
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
    let redeemed = cart.redemption.map(|redemption| redeem(snapshot, location, redemption, &mut found, &mut trace));
    let redemption = redeemed.transpose().map_err(|problem| vec![problem])?;
    total(snapshot, location, found, redemption, trace)
        .map_err(|Overflow| vec![FieldProblem::new("/lines", "overflow", "the amounts are out of range")])
}

/// Where in the line, code, message.
type LineProblem = (&'static str, &'static str, String);

/// What the catalog says about a line at the time of the sale.
struct Found<'a> {
    variant: &'a Arc<Variant>,
    taxes: &'a [Tax],
    price: &'a snapshot::Price,
}

fn find<'a>(
    snapshot: &'a Snapshot,
    cart: &Cart,
    location: &Location,
    line: &CartLine,
) -> Result<Found<'a>, LineProblem> {
    let Some(variant) = snapshot.variants.get(&line.variant_id) else {
        return Err(("/variant_id", "unknown_variant", "no such variant".to_owned()));
    };
    if !variant.is_active {
        return Err(("/variant_id", "inactive_variant", format!("{} is not sold any more", variant.sku)));
    }
    if !variant.is_measured && line.qty % QTY_SCALE != 0 {
        return Err(("/qty", "fractional_piece", format!("{} is sold by the piece", variant.sku)));
    }
    let Some(price) = snapshot.price_at(line.variant_id, cart.location_id, &location.currency, cart.occurred_at) else {
        return Err(("/variant_id", "no_price", format!("{} has no price there at that time", variant.sku)));
    };
    let profile = snapshot.tax_profiles.get(&variant.tax_profile_id);
    let Some(taxes) = profile.and_then(|profile| profile.taxes_at(cart.occurred_at)) else {
        return Err(("/variant_id", "no_tax_rate", format!("{} has no tax rate at that time", variant.sku)));
    };
    Ok(Found { variant, taxes, price })
}

/// A line before its taxes.
struct Extended<'a> {
    found: Found<'a>,
    line_no: i32,
    qty: i64,
    unit_price_minor: i64,
    override_reason: Option<String>,
    extended_minor: i64,
    discount: Option<PricedDiscount>,
    discount_minor: i64,
    redemption_minor: i64,
    redemption_points: i64,
}

impl Extended<'_> {
    /// What is left for the taxes to bear on.
    fn amount_minor(&self) -> i64 {
        self.extended_minor - self.discount_minor - self.redemption_minor
    }
}

/// Extended price and line discount.
fn extend<'a>(
    found: Found<'a>,
    line: &CartLine,
    location: &Location,
    trace: &mut Trace,
) -> Result<Extended<'a>, LineProblem> {
    let mode = location.rounding_mode;
    let overflow = |Overflow| ("/qty", "overflow", "price times quantity is out of range".to_owned());
    let (rule, exact, unit_price_minor) = match &line.override_ {
        Some(Override::LineAmount { amount_minor, .. }) => {
            let unit = money::round(i128::from(*amount_minor) * i128::from(QTY_SCALE), line.qty.into(), mode);
            ("imported_amount", Ratio::whole(*amount_minor), unit.and_then(storable).map_err(overflow)?)
        }
        Some(Override::UnitPrice { unit_price_minor, .. }) => {
            ("overridden_price", times_qty(*unit_price_minor, line.qty), *unit_price_minor)
        }
        None => ("price", times_qty(found.price.amount_minor, line.qty), found.price.amount_minor),
    };
    let extended_minor = exact.round(mode).and_then(storable).map_err(overflow)?;
    let id = Some(found.price.price_id);
    let (base, result) = (unit_price_minor, extended_minor);
    trace.push(Step { line: line.line_no, rule, id, base, exact, mode, result, shares: &[] });
    let discount = match &line.discount {
        None => None,
        Some(discount) => Some(discounted(discount, extended_minor, line.line_no, mode, trace)?),
    };
    Ok(Extended {
        found,
        line_no: line.line_no,
        qty: line.qty,
        unit_price_minor,
        override_reason: line.override_.as_ref().map(|override_| override_.reason().to_owned()),
        extended_minor,
        discount_minor: discount.as_ref().map_or(0, |discount| discount.amount_minor),
        discount,
        redemption_minor: 0,
        redemption_points: 0,
    })
}

fn times_qty(price_minor: i64, qty: i64) -> Ratio {
    Ratio { num: i128::from(price_minor) * i128::from(qty), den: QTY_SCALE.into() }
}

fn discounted(
    discount: &Discount,
    base: i64,
    line: i32,
    mode: RoundingMode,
    trace: &mut Trace,
) -> Result<PricedDiscount, LineProblem> {
    let overflow = |Overflow| ("/discount", "overflow", "the discount is out of range".to_owned());
    let (rule, exact) = match discount {
        Discount::Percent { percent, .. } => {
            let part = Ratio::of(*percent).times(Ratio { num: 1, den: 100 }).map_err(overflow)?;
            ("discount_percent", part.times(Ratio::whole(base)).map_err(overflow)?)
        }
        Discount::Amount { amount_minor, .. } => ("discount_amount", Ratio::whole(*amount_minor)),
    };
    let result = exact.round(mode).map_err(overflow)?;
    if result > base {
        return Err(("/discount", "discount_exceeds_line", format!("the line is worth {base}")));
    }
    trace.push(Step { line, rule, id: None, base, exact, mode, result, shares: &[] });
    Ok(PricedDiscount { kind: discount.kind(), reason: discount.reason().to_owned(), amount_minor: result })
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
        discount: line.discount,
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
    let taxes: Vec<String> = line.taxes.iter().map(|tax| share(tax.amount_minor)).collect();
    format!(
        r#"{{"n":{n},"extended":{},"discount":{},"redemption":{},"redemption_points":{},"added_tax":{},"taxes":[{}]}}"#,
        share(line.extended_minor),
        share(line.discount_minor),
        share(line.redemption_minor),
        share(line.redemption_points),
        share(line.added_tax_minor),
        taxes.join(",")
    )
}

/// Id of a line discount: derived, so that a replay names the same one.
pub fn discount_id(document: Uuid, line_no: i32) -> Uuid {
    schemas::ids::derived_id("discount", &format!("{document}:{line_no}"))
}
