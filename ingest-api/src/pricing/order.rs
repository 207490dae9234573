//! What comes off a document as a whole: promotions, then the discount on the order that is given by hand.

use schemas::money::{self, Overflow, RoundingMode};

use super::lines::Extended;
use super::promotions::effect::sum;
use super::promotions::{self, Circumstances, Outcome};
use super::snapshot::Snapshot;
use super::trace::{Step, Trace};
use super::{Discount, PricedDiscount};
use crate::error::FieldProblem;

/// Takes what promotions give off the lines.
pub fn promote(
    snapshot: &Snapshot,
    lines: &mut [Extended<'_>],
    around: &Circumstances<'_>,
    trace: &mut Trace,
) -> Result<Outcome, Overflow> {
    if snapshot.promotions.is_empty() {
        return Ok(Outcome::default());
    }
    let mut seen: Vec<promotions::Line<'_>> = lines
        .iter()
        .map(|line| promotions::Line {
            line_no: line.line_no,
            variant: line.found.variant,
            qty: line.qty,
            left_minor: line.left_minor(),
            is_fixed: line.is_fixed,
        })
        .collect();
    let outcome = promotions::apply(&snapshot.promotions, &mut seen, around, trace)?;
    for given in &outcome.given {
        for (place, share) in &given.shares {
            let promotion_id = Some(given.promotion_id);
            let name = given.name.clone();
            lines[*place].take(PricedDiscount { kind: "promotion", promotion_id, name, amount_minor: *share });
        }
    }
    Ok(outcome)
}

/// Takes the discount on the order off the lines: one rounding, allocated on what is left of each.
pub fn discount(
    discount: &Discount,
    lines: &mut [Extended<'_>],
    mode: RoundingMode,
    trace: &mut Trace,
) -> Result<(), FieldProblem> {
    let overflow = |Overflow| FieldProblem::new("/order_discount", "overflow", "the discount is out of range");
    let weights: Vec<i64> = lines.iter().map(Extended::left_minor).collect();
    let base = sum(weights.iter().copied()).map_err(overflow)?;
    let exact = discount.exact(base).map_err(overflow)?;
    let result = exact.round(mode).map_err(overflow)?;
    if result > base {
        let message = format!("the order is worth {base}");
        return Err(FieldProblem::new("/order_discount", "discount_exceeds_order", message));
    }
    let (kind, rule) = match discount {
        Discount::Percent { .. } => ("order_percent", "order_discount_percent"),
        Discount::Amount { .. } => ("order_amount", "order_discount_amount"),
    };
    let parts = money::alloc(result, &weights);
    let shares: Vec<(i32, i64)> = lines.iter().map(|line| line.line_no).zip(parts.iter().copied()).collect();
    trace.push(Step { line: 0, rule, id: None, base, exact, mode, result, shares: &shares });
    for (line, amount_minor) in lines.iter_mut().zip(parts).filter(|(_, part)| *part != 0) {
        line.take(PricedDiscount { kind, promotion_id: None, name: discount.reason().into(), amount_minor });
    }
    Ok(())
}
