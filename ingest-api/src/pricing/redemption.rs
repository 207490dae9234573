//! Rule T6: points that pay for a part of a cart. Their money lowers the tax base after all discounts; money and points
//! are each handed to the lines by what these were worth before.

use std::sync::Arc;

use schemas::ids::ProgramId;
use schemas::money;

use super::ratio::Ratio;
use super::snapshot::Snapshot;
use super::trace::{Step, Trace};
use super::{Extended, Location};
use crate::error::FieldProblem;

/// Points that a customer spends on a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redemption {
    pub program_id: ProgramId,
    /// Above zero.
    pub points: i64,
}

/// With what they are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PricedRedemption {
    pub program_id: ProgramId,
    pub points: i64,
    pub amount_minor: i64,
}

/// Takes a redemption off the lines. Its points must be worth whole minor units, and no more than the lines are.
pub(super) fn redeem(
    snapshot: &Snapshot,
    location: &Arc<Location>,
    redemption: Redemption,
    lines: &mut [Extended<'_>],
    trace: &mut Trace,
) -> Result<PricedRedemption, FieldProblem> {
    let Redemption { program_id, points } = redemption;
    let at = |field: &str, code, message: String| FieldProblem::new(format!("/redemption/{field}"), code, message);
    let Some(program) = snapshot.programs.get(&program_id) else {
        return Err(at("program_id", "unknown_program", "no such program".to_owned()));
    };
    let Some(worth) = program.worth else {
        return Err(at("program_id", "not_redeemable", "points of this program cannot be spent".to_owned()));
    };
    let Some(amount_minor) = worth.of(points) else {
        return Err(at("points", "invalid_value", format!("must be a multiple of {}", worth.unit())));
    };
    let bases: Vec<i64> = lines.iter().map(Extended::left_minor).collect();
    // At most 1000 lines of 90,000,000,000,000 each.
    let base = bases.iter().sum();
    if amount_minor > base {
        let message = format!("the points are worth {amount_minor}, the lines {base}");
        return Err(at("points", "redemption_exceeds_base", message));
    }
    let (money, points_of) = (money::alloc(amount_minor, &bases), money::alloc(points, &bases));
    let shares: Vec<(i32, i64)> = lines.iter().map(|line| line.line_no).zip(money.iter().copied()).collect();
    trace.push(Step {
        line: 0,
        rule: "redemption",
        id: Some(program_id.0),
        base,
        exact: Ratio::whole(amount_minor),
        mode: location.rounding_mode,
        result: amount_minor,
        shares: &shares,
    });
    for ((line, money), points) in lines.iter_mut().zip(money).zip(points_of) {
        (line.redemption_minor, line.redemption_points) = (money, points);
    }
    Ok(PricedRedemption { program_id, points, amount_minor })
}
