//! Pure: what promotions give to a cart, and why the others give nothing.
//!
//! They apply in the order of priority, then id; each works on what the earlier ones left of a line, so that they never
//! take more than it is worth. The lines stand in the order of their numbers, whatever the order in which they were sent.

pub mod effect;
pub mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemas::money::{Overflow, RoundingMode, alloc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::snapshot::{Location, Variant};
use super::trace::{Step, Trace};
use effect::{Gift, Off, gift, sum};
use rule::{Effect, Promotion};

/// A line as promotions see it.
#[derive(Debug)]
pub struct Line<'a> {
    pub line_no: i32,
    pub variant: &'a Variant,
    pub qty: i64,
    /// What the line is still worth.
    pub left_minor: i64,
    /// A price that was set by hand or brought in, and a gift card, stay as they are.
    pub is_fixed: bool,
}

/// What a promotion with a budget or a limit of uses has given so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub given_minor: i64,
    pub uses: i64,
}

/// What decides about promotions beside the cart's lines.
#[derive(Debug)]
pub struct Circumstances<'a> {
    pub location: &'a Location,
    pub occurred_at: DateTime<Utc>,
    pub customer_id: Option<Uuid>,
    /// Coupons of the cart: their codes by the promotion that they open.
    pub coupons: &'a HashMap<Uuid, String>,
    /// Absent: nothing so far.
    pub usage: &'a HashMap<Uuid, Usage>,
}

/// A promotion that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub promotion_id: Uuid,
    pub name: Arc<str>,
    pub group: Option<Arc<str>>,
    pub amount_minor: i64,
    /// Counted under its lock when the sale is committed.
    pub is_counted: bool,
    pub coupon: Option<String>,
    /// By place of the line; those that bear nothing are missing.
    pub shares: Vec<(usize, i64)>,
}

/// Why a promotion gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = NotAppliedReason)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    NotStarted,
    Ended,
    OutsideWindow,
    OtherLocation,
    WrongCurrency,
    MembersOnly,
    OtherMember,
    NeedsCoupon,
    /// No line has goods that it is about.
    NoItem,
    /// The goods are excluded, or their price was set by hand.
    ExcludedItem,
    MinQty,
    MinAmount,
    /// Another promotion of its group applies.
    BlockedBy,
    /// What it would give is more than its budget has left.
    BudgetSpent,
    UsesSpent,
    /// The goods cost no more without it.
    NothingLeft,
}

/// A promotion that does not apply, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub promotion_id: Uuid,
    pub name: Arc<str>,
    pub reason: Reason,
    pub blocked_by: Option<Uuid>,
}

/// What became of every active promotion, in their order.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub given: Vec<Given>,
    pub skipped: Vec<Skipped>,
    /// Whether what a promotion gave so far took part in this: under the locks it is asked again.
    pub is_counted: bool,
}

/// Takes what `promotions`, in their order, give off `lines`.
pub fn apply(
    promotions: &[Arc<Promotion>],
    lines: &mut [Line<'_>],
    around: &Circumstances<'_>,
    trace: &mut Trace,
) -> Result<Outcome, Overflow> {
    let mut outcome = Outcome::default();
    for promotion in promotions.iter().filter(|promotion| promotion.is_active) {
        let mode = around.location.rounding_mode;
        let skipped = match offered(promotion, lines, around, &outcome.given)? {
            Ok(gift) => {
                let steps = rounded(gift, mode)?;
                let amount = sum(steps.iter().map(|step| step.result))?;
                outcome.is_counted |= promotion.is_counted();
                match affordable(promotion, amount, around.usage) {
                    None => {
                        outcome.given.push(take(promotion, lines, amount, steps, around, mode, trace));
                        continue;
                    }
                    Some(reason) => (reason, None),
                }
            }
            Err(skipped) => skipped,
        };
        let (reason, blocked_by) = skipped;
        let (promotion_id, name) = (promotion.promotion_id, promotion.name.clone());
        outcome.skipped.push(Skipped { promotion_id, name, reason, blocked_by });
    }
    Ok(outcome)
}

/// What the promotion would give, or why nothing.
fn offered(
    promotion: &Promotion,
    lines: &[Line<'_>],
    around: &Circumstances<'_>,
    given: &[Given],
) -> Result<Result<Gift, (Reason, Option<Uuid>)>, Overflow> {
    if let Some(reason) = unmet(promotion, around) {
        return Ok(Err((reason, None)));
    }
    if let Some(blocker) = blocker(promotion, given) {
        return Ok(Err((Reason::BlockedBy, Some(blocker))));
    }
    let rule = &promotion.rule;
    let wanted = |line: &Line<'_>| match &rule.effect {
        Effect::Bundle { parts, .. } => parts.iter().any(|part| part.items.contain(line.variant)),
        _ => rule.items.contain(line.variant),
    };
    let all: Vec<usize> = (0..lines.len()).filter(|place| wanted(&lines[*place])).collect();
    let chosen: Vec<usize> = all.iter().copied().filter(|place| !lines[*place].is_fixed).collect();
    if chosen.is_empty() {
        return Ok(Err((if all.is_empty() { Reason::NoItem } else { Reason::ExcludedItem }, None)));
    }
    let qty = sum(chosen.iter().map(|place| lines[*place].qty))?;
    let worth = sum(chosen.iter().map(|place| lines[*place].left_minor))?;
    if rule.conditions.min_qty.is_some_and(|least| qty < least) {
        return Ok(Err((Reason::MinQty, None)));
    }
    if rule.conditions.min_amount_minor.is_some_and(|least| worth < least) {
        return Ok(Err((Reason::MinAmount, None)));
    }
    let short = match rule.effect {
        Effect::BasketAmount { .. } | Effect::BasketPercent { .. } => Reason::MinAmount,
        _ => Reason::MinQty,
    };
    Ok(gift(&rule.effect, lines, &chosen)?.ok_or((short, None)))
}

/// The condition about time, place and person that does not hold.
fn unmet(promotion: &Promotion, around: &Circumstances<'_>) -> Option<Reason> {
    let conditions = &promotion.rule.conditions;
    let (at, location) = (around.occurred_at, around.location);
    let is_of_member = |id: Uuid| conditions.customer_ids.is_empty() || conditions.customer_ids.contains(&id);
    let is_local = conditions.location_ids.is_empty() || conditions.location_ids.contains(&location.location_id.0);
    let is_open = conditions.windows.is_empty() || conditions.windows.iter().any(|it| it.holds(at, location.zone));
    let is_for_members = conditions.members_only || !conditions.customer_ids.is_empty();
    let reasons = [
        (conditions.starts_at.is_none_or(|start| start <= at), Reason::NotStarted),
        (conditions.ends_at.is_none_or(|end| at < end), Reason::Ended),
        (is_local, Reason::OtherLocation),
        (promotion.currency.as_ref().is_none_or(|currency| *currency == location.currency), Reason::WrongCurrency),
        (is_open, Reason::OutsideWindow),
        (!is_for_members || around.customer_id.is_some(), Reason::MembersOnly),
        (around.customer_id.is_none_or(is_of_member), Reason::OtherMember),
        (!promotion.needs_coupon || around.coupons.contains_key(&promotion.promotion_id), Reason::NeedsCoupon),
    ];
    reasons.into_iter().find(|(holds, _)| !holds).map(|(_, reason)| reason)
}

/// The promotion of the same group that applies already.
fn blocker(promotion: &Promotion, given: &[Given]) -> Option<Uuid> {
    let group = promotion.exclusion_group.as_ref()?;
    given.iter().find(|given| given.group.as_ref() == Some(group)).map(|given| given.promotion_id)
}

/// Why the budget does not bear the amount.
fn affordable(promotion: &Promotion, amount: i64, usage: &HashMap<Uuid, Usage>) -> Option<Reason> {
    if amount == 0 {
        return Some(Reason::NothingLeft);
    }
    let used = usage.get(&promotion.promotion_id).copied().unwrap_or_default();
    if promotion.uses_max.is_some_and(|most| used.uses >= most) {
        return Some(Reason::UsesSpent);
    }
    let is_within = |budget: i64| used.given_minor.checked_add(amount).is_some_and(|given| given <= budget);
    (!promotion.budget_minor.is_none_or(is_within)).then_some(Reason::BudgetSpent)
}

/// One rounding step of a promotion and what it means for the lines.
struct Rounded {
    off: Off,
    result: i64,
    /// Place of the line and its share; one for a step of a line by itself.
    shares: Vec<(usize, i64)>,
    is_together: bool,
}

fn rounded(gift: Gift, mode: RoundingMode) -> Result<Vec<Rounded>, Overflow> {
    match gift {
        Gift::Each(offs) => offs
            .into_iter()
            .map(|(place, off)| {
                let result = off.exact.round(mode)?;
                Ok(Rounded { off, result, shares: vec![(place, result)], is_together: false })
            })
            .collect(),
        Gift::Together(off, weights) => {
            let result = off.exact.round(mode)?;
            let parts = alloc(result, &weights.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
            let shares = weights.iter().map(|(place, _)| *place).zip(parts).collect();
            Ok(vec![Rounded { off, result, shares, is_together: true }])
        }
    }
}

/// Takes the rounded amounts off the lines and notes each step.
fn take(
    promotion: &Promotion,
    lines: &mut [Line<'_>],
    amount_minor: i64,
    steps: Vec<Rounded>,
    around: &Circumstances<'_>,
    mode: RoundingMode,
    trace: &mut Trace,
) -> Given {
    let mut shares = Vec::new();
    let id = Some(promotion.promotion_id);
    for step in steps {
        let Off { base, exact } = step.off;
        let parts: Vec<(i32, i64)> = step.shares.iter().map(|(place, share)| (lines[*place].line_no, *share)).collect();
        let (line, handed) = match parts.first() {
            Some((line_no, _)) if !step.is_together => (*line_no, &[][..]),
            _ => (0, parts.as_slice()),
        };
        trace.push(Step { line, rule: "promotion", id, base, exact, mode, result: step.result, shares: handed });
        for (place, share) in step.shares.into_iter().filter(|(_, share)| *share != 0) {
            lines[place].left_minor -= share;
            shares.push((place, share));
        }
    }
    Given {
        promotion_id: promotion.promotion_id,
        name: promotion.name.clone(),
        group: promotion.exclusion_group.clone(),
        amount_minor,
        is_counted: promotion.is_counted(),
        coupon: promotion.needs_coupon.then(|| around.coupons.get(&promotion.promotion_id).cloned()).flatten(),
        shares,
    }
}
