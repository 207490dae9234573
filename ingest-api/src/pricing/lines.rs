//! A line by itself: what the catalog says about it, its extended price and the discount given on it by hand.

use std::sync::Arc;

use schemas::money::{self, Overflow, QTY_SCALE, RoundingMode, storable};

use super::ratio::Ratio;
use super::snapshot::{self, Location, Snapshot, Tax, Variant};
use super::trace::{Step, Trace};
use super::{Cart, CartLine, Discount, Override, PricedDiscount};

/// Where in the line, code, message.
pub type LineProblem = (&'static str, &'static str, String);

/// What the catalog says about a line at the time of the sale.
pub struct Found<'a> {
    pub variant: &'a Arc<Variant>,
    pub taxes: &'a [Tax],
    pub price: &'a snapshot::Price,
}

pub fn find<'a>(
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
pub struct Extended<'a> {
    pub found: Found<'a>,
    pub line_no: i32,
    pub qty: i64,
    pub unit_price_minor: i64,
    pub override_reason: Option<String>,
    pub extended_minor: i64,
    /// In the order in which they were taken.
    pub discounts: Vec<PricedDiscount>,
    pub discount_minor: i64,
    /// What points pay of it, and how many of them.
    pub redemption_minor: i64,
    pub redemption_points: i64,
    /// Its price was set by hand or brought in: promotions leave it as it is.
    pub is_fixed: bool,
}

impl Extended<'_> {
    /// What discounts leave of it.
    pub fn left_minor(&self) -> i64 {
        self.extended_minor - self.discount_minor
    }
    /// What is left for the taxes to bear on.
    pub fn amount_minor(&self) -> i64 {
        self.left_minor() - self.redemption_minor
    }
    /// Takes a discount off, which is not more than what is left.
    pub fn take(&mut self, discount: PricedDiscount) {
        self.discount_minor += discount.amount_minor;
        self.discounts.push(discount);
    }
}

/// Extended price and line discount.
pub fn extend<'a>(
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
    let mut extended = Extended {
        found,
        line_no: line.line_no,
        qty: line.qty,
        unit_price_minor,
        override_reason: line.override_.as_ref().map(|override_| override_.reason().to_owned()),
        extended_minor,
        discounts: Vec::new(),
        discount_minor: 0,
        redemption_minor: 0,
        redemption_points: 0,
        is_fixed: line.override_.is_some(),
    };
    if let Some(discount) = &line.discount {
        extended.take(discounted(discount, extended_minor, line.line_no, mode, trace)?);
    }
    Ok(extended)
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
    let (rule, exact) = match discount {
        Discount::Percent { .. } => ("discount_percent", discount.exact(base)),
        Discount::Amount { .. } => ("discount_amount", discount.exact(base)),
    };
    let rounded = exact.and_then(|exact| Ok((exact, exact.round(mode)?)));
    let overflow = |Overflow| ("/discount", "overflow", "the discount is out of range".to_owned());
    let (exact, result) = rounded.map_err(overflow)?;
    if result > base {
        return Err(("/discount", "discount_exceeds_line", format!("the line is worth {base}")));
    }
    trace.push(Step { line, rule, id: None, base, exact, mode, result, shares: &[] });
    let name = discount.reason().into();
    Ok(PricedDiscount { kind: discount.kind(), promotion_id: None, name, amount_minor: result })
}
