//! Pure, rule T4: what comes back of a line, from the amounts that are stored with it.
//!
//! A line sold by the piece is split to its units (`units`: each gets the whole part, the first ones one more) and the
//! lowest unit that has not come back comes next. A measured line is cumulative: `R(q) = round(A * q / Q)`, and what
//! comes back after c is `R(c + q) - R(c)`. Both hold for each stored amount by itself, so that any order and splitting
//! of returns adds up to the line.

use schemas::events::{DocumentLine, LineDiscount, LineTax};
use schemas::ids::{DocumentId, LocationId};
use schemas::money::{self, Overflow, QTY_SCALE, RoundingMode};

use super::types::Returned;
use crate::sales::refusal::Refusal;

/// A sold line with how much of it has come back.
#[derive(Debug, Clone, PartialEq)]
pub struct SoldLine {
    pub line: DocumentLine,
    /// Thousandths, positive.
    pub returned: i64,
}

impl SoldLine {
    pub fn left(&self) -> i64 {
        self.line.qty.saturating_sub(self.returned)
    }

    /// The part of a stored amount that belongs to the first `q` thousandths of the line.
    fn through(&self, amount: i64, q: i64, mode: RoundingMode) -> Result<i64, Overflow> {
        if self.line.is_measured {
            return money::round(i128::from(amount) * i128::from(q), self.line.qty.into(), mode);
        }
        let (count, taken) = (i128::from(self.line.qty / QTY_SCALE).max(1), i128::from(q / QTY_SCALE));
        let magnitude = i128::from(amount).abs();
        let part = magnitude / count * taken + (magnitude % count).min(taken);
        i64::try_from(if amount < 0 { -part } else { part }).map_err(|_| Overflow)
    }

    /// A stored amount's share of the next `qty` thousandths, negated.
    fn back(&self, amount: i64, qty: i64, mode: RoundingMode) -> Result<i64, Overflow> {
        let (before, after) = (self.returned, self.returned.checked_add(qty).ok_or(Overflow)?);
        self.through(amount, before, mode)?.checked_sub(self.through(amount, after, mode)?).ok_or(Overflow)
    }

    /// The return leg of the next `qty` thousandths, at most what is left: quantities and amounts are the stored ones
    /// negated, prices, rates and costs are as they were.
    pub fn leg(&self, line_no: i32, qty: i64, origin: Place, mode: RoundingMode) -> Result<DocumentLine, Overflow> {
        let back = |amount: i64| self.back(amount, qty, mode);
        let mut discounts = Vec::with_capacity(self.line.discounts.len());
        for discount in &self.line.discounts {
            discounts.push(LineDiscount { amount_minor: back(discount.amount_minor)?, ..discount.clone() });
        }
        let mut taxes = Vec::with_capacity(self.line.taxes.len());
        for tax in &self.line.taxes {
            let (base_minor, amount_minor) = (back(tax.base_minor)?, back(tax.amount_minor)?);
            taxes.push(LineTax { base_minor, amount_minor, ..tax.clone() });
        }
        let extended_minor = back(self.line.extended_minor)?;
        let discount_minor = sum(discounts.iter().map(|it| it.amount_minor))?;
        let redemption_minor = back(self.line.redemption_minor)?;
        let tax_minor = sum(taxes.iter().map(|it| it.amount_minor))?;
        let added_tax_minor = sum(taxes.iter().filter(|it| !it.inclusive).map(|it| it.amount_minor))?;
        let given = discount_minor.checked_add(redemption_minor).ok_or(Overflow)?;
        let paid =
            extended_minor.checked_sub(given).and_then(|paid| paid.checked_add(added_tax_minor)).ok_or(Overflow)?;
        let units =
            (!self.line.is_measured).then_some((self.returned / QTY_SCALE + 1, (self.returned + qty) / QTY_SCALE));
        Ok(DocumentLine {
            line_no,
            leg: LEG_RETURN.to_owned(),
            origin_document_id: Some(origin.document_id),
            origin_line_no: Some(self.line.line_no),
            origin_location_id: Some(origin.location_id),
            first_unit: units.map(|units| units.0),
            last_unit: units.map(|units| units.1),
            qty: -qty,
            disposition: None,
            extended_minor,
            discounts,
            discount_minor,
            redemption_minor,
            redemption_points: back(self.line.redemption_points)?,
            taxes,
            tax_minor,
            added_tax_minor,
            net_minor: paid.checked_sub(tax_minor).ok_or(Overflow)?,
            payable_minor: paid,
            ..self.line.clone()
        })
    }
}

fn sum(mut amounts: impl Iterator<Item = i64>) -> Result<i64, Overflow> {
    amounts.try_fold(0i64, |sum, amount| sum.checked_add(amount).ok_or(Overflow))
}

/// The document that a line was sold by, and where.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub document_id: DocumentId,
    pub location_id: LocationId,
}

pub const LEG_SALE: &str = "sale";
pub const LEG_RETURN: &str = "return";

/// What of a line cannot come back: never sold (422), or come back before (409).
pub fn check(sold: &SoldLine, wanted: &Returned, asked_in_all: i64, pointer: &str) -> Result<(), Refusal> {
    let at = format!("{pointer}/qty");
    if !sold.line.is_measured && wanted.qty % QTY_SCALE != 0 {
        return Err(Refusal::field(&at, "fractional_piece", format!("{} is sold by the piece", sold.line.sku)));
    }
    if asked_in_all > sold.line.qty {
        let message = format!("{} of them were sold", sold.line.qty);
        return Err(Refusal::field(&at, "quantity_exceeds_document", message));
    }
    if wanted.qty > sold.left() {
        let refusal = Refusal::conflict("already_refunded", format!("{} of them are left", sold.left())).at(&at);
        return Err(refusal.with("left", sold.left().into()));
    }
    Ok(())
}
