//! Pure: lots, the parts of a loyalty balance with the age they have (rule T6, `domain.md` section 7).
//!
//! The balance of an account is the sum of what remains of its lots; a debt is a lot below zero. Functions say how lots
//! change and change none, [`apply`] apart: the caller writes the deltas, whose sum is that of the entry.

use chrono::{DateTime, TimeDelta, Utc};
use schemas::events::LotChange;
use schemas::ids::LotId;
use uuid::Uuid;

use super::accrual::{EarnRule, earn};

/// Points that were earned together, or one debt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lot {
    pub lot_id: LotId,
    /// The document that made it; points that move to another member keep it.
    pub cause_id: Uuid,
    pub earned_at: DateTime<Utc>,
    /// Pending before.
    pub available_at: DateTime<Utc>,
    /// Lost from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// What it was made with; below zero for a debt.
    pub points: i64,
    pub remaining: i64,
}

/// A change of one lot, with the lot's dates: what an entry stores and publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LotDelta {
    pub lot_id: LotId,
    pub delta: i64,
    pub earned_at: DateTime<Utc>,
    pub available_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// The lot that takes what a claw-back finds nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DebtLot {
    pub lot_id: LotId,
    /// When points are taken back.
    pub at: DateTime<Utc>,
}

/// All that remains of it.
impl From<&Lot> for LotDelta {
    fn from(lot: &Lot) -> Self {
        lot.change(lot.remaining)
    }
}

/// As it is published.
impl From<&LotDelta> for LotChange {
    fn from(delta: &LotDelta) -> Self {
        LotChange {
            lot_id: delta.lot_id.0,
            delta: delta.delta,
            earned_at: delta.earned_at.into(),
            available_at: delta.available_at.into(),
            expires_at: delta.expires_at.map(Into::into),
        }
    }
}

impl Lot {
    pub fn is_debt(&self) -> bool {
        self.remaining < 0
    }
    /// Lost, whether or not the run that writes it off has been.
    pub fn is_expired(&self, at: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|end| end <= at)
    }
    pub fn is_pending(&self, at: DateTime<Utc>) -> bool {
        self.available_at > at && !self.is_expired(at)
    }
    fn is_spendable(&self, at: DateTime<Utc>) -> bool {
        self.remaining > 0 && self.available_at <= at && !self.is_expired(at)
    }
    fn change(&self, delta: i64) -> LotDelta {
        LotDelta {
            lot_id: self.lot_id,
            delta,
            earned_at: self.earned_at,
            available_at: self.available_at,
            expires_at: self.expires_at,
        }
    }
}

/// Points that can be spent at an instant: neither pending nor expired, less every debt; never below zero.
pub fn available(lots: &[Lot], at: DateTime<Utc>) -> i64 {
    let counted = lots.iter().filter(|lot| lot.is_debt() || lot.is_spendable(at));
    counted.map(|lot| i128::from(lot.remaining)).sum::<i128>().clamp(0, i64::MAX.into()) as i64
}

/// Points that can be spent later than at an instant.
pub fn pending(lots: &[Lot], at: DateTime<Utc>) -> i64 {
    let counted = lots.iter().filter(|lot| lot.remaining > 0 && lot.is_pending(at));
    counted.map(|lot| lot.remaining).fold(0, i64::saturating_add)
}

/// Points that are owed.
pub fn debt(lots: &[Lot]) -> i64 {
    lots.iter().filter(|lot| lot.is_debt()).map(|lot| lot.remaining.saturating_neg()).fold(0, i64::saturating_add)
}

/// Burns available lots oldest first (`earned_at`, then id); when they are short: what is available.
pub fn redeem(lots: &[Lot], points: i64, at: DateTime<Utc>) -> Result<Vec<LotDelta>, i64> {
    let available = available(lots, at);
    if points > available {
        return Err(available);
    }
    Ok(take(oldest_first(lots.iter().filter(|lot| lot.is_spendable(at))), points).0)
}

/// Points that a refund takes back, whatever the order and splitting of the refunds of a sale (rule T6):
/// `earn(base) - earn(base - refunded_before - refunded_now)` less what the refunds before it took.
pub fn revoked(base: i64, refunded_before: i64, refunded_now: i64, rule: EarnRule) -> i64 {
    let left = base.saturating_sub(refunded_before);
    earn(left, rule).saturating_sub(earn(left.saturating_sub(refunded_now), rule))
}

/// Takes points back: from the sale's own lots (pending ones first), then from the others oldest first, and what is left
/// becomes one debt. Expired lots are passed over, so that nothing depends on when they are written off.
pub fn claw_back(lots: &[Lot], sale: Uuid, points: i64, debt: DebtLot) -> Vec<LotDelta> {
    let held = || lots.iter().filter(|lot| lot.remaining > 0 && !lot.is_expired(debt.at));
    let mut own = oldest_first(held().filter(|lot| lot.cause_id == sale));
    own.sort_by_key(|lot| !lot.is_pending(debt.at));
    let others = oldest_first(held().filter(|lot| lot.cause_id != sale));
    let (mut deltas, owed) = take(own.into_iter().chain(others).collect(), points);
    if owed > 0 {
        let DebtLot { lot_id, at } = debt;
        deltas.push(LotDelta { lot_id, delta: -owed, earned_at: at, available_at: at, expires_at: None });
    }
    deltas
}

/// Gives redeemed points back to the lots they came from, in reverse order of consumption, with their old dates.
/// `consumed` are the deltas of the redemption in its order, `already_restored` what returns before this one gave back.
/// Never more than was consumed.
pub fn restore(consumed: &[LotDelta], already_restored: i64, points: i64) -> Vec<LotDelta> {
    let (mut skipped, mut left) = (already_restored.max(0), points.max(0));
    let mut deltas = Vec::new();
    for taken in consumed.iter().rev() {
        let room = taken.delta.saturating_neg().max(0);
        let skip = room.min(skipped);
        skipped -= skip;
        let back = (room - skip).min(left);
        left -= back;
        if back > 0 {
            deltas.push(LotDelta { delta: back, ..taken.clone() });
        }
    }
    deltas
}

/// Points that come back after their date live on for `days`, in a lot of their own that `lot_id` names by the old one:
/// what is left in the old lot stays lost.
pub fn prolong(
    restored: Vec<LotDelta>,
    at: DateTime<Utc>,
    days: Option<i32>,
    lot_id: impl Fn(LotId) -> LotId,
) -> Vec<LotDelta> {
    let Some(end) = days.and_then(|days| at.checked_add_signed(TimeDelta::days(days.into()))) else { return restored };
    let one = |delta: LotDelta| match delta.expires_at {
        Some(old) if old <= at => LotDelta { lot_id: lot_id(delta.lot_id), expires_at: Some(end), ..delta },
        _ => delta,
    };
    restored.into_iter().map(one).collect()
}

/// New points pay debts first, the oldest before the others; the new lot gets the rest, if there is any.
pub fn accrue(lots: &[Lot], new: Lot) -> Vec<LotDelta> {
    let mut left = new.points.max(0);
    let mut deltas = Vec::new();
    for debt in oldest_first(lots.iter().filter(|lot| lot.is_debt())) {
        let paid = debt.remaining.saturating_neg().min(left);
        left -= paid;
        if paid > 0 {
            deltas.push(debt.change(paid));
        }
    }
    if left > 0 {
        deltas.push(new.change(left));
    }
    deltas
}

/// What is lost at an instant: all that remains of each expired lot.
pub fn expire(lots: &[Lot], at: DateTime<Utc>) -> Vec<LotDelta> {
    let expired = oldest_first(lots.iter().filter(|lot| lot.remaining > 0 && lot.is_expired(at)));
    expired.into_iter().map(|lot| lot.change(-lot.remaining)).collect()
}

/// Pays debts with what is there, oldest with oldest: changes that sum to zero. For whoever gives points to an account
/// otherwise than by an accrual, so that an account that is not below zero owes nothing.
pub fn settle(lots: &[Lot], at: DateTime<Utc>) -> Vec<LotDelta> {
    let held = oldest_first(lots.iter().filter(|lot| lot.remaining > 0 && !lot.is_expired(at)));
    let debts = oldest_first(lots.iter().filter(|lot| lot.is_debt()));
    let owed = debts.iter().map(|lot| lot.remaining.saturating_neg()).fold(0, i64::saturating_add);
    let (mut deltas, short) = take(held, owed);
    let mut left = owed - short;
    for debt in debts {
        let paid = debt.remaining.saturating_neg().min(left);
        left -= paid;
        if paid > 0 {
            deltas.push(debt.change(paid));
        }
    }
    deltas
}

/// Brings lots up to date; those that are not among them are made, by this document or act.
pub fn apply(lots: &mut Vec<Lot>, deltas: &[LotDelta], cause_id: Uuid) {
    for delta in deltas {
        if let Some(lot) = lots.iter_mut().find(|lot| lot.lot_id == delta.lot_id) {
            lot.remaining = lot.remaining.saturating_add(delta.delta);
            continue;
        }
        let LotDelta { lot_id, delta, earned_at, available_at, expires_at } = *delta;
        lots.push(Lot { lot_id, cause_id, earned_at, available_at, expires_at, points: delta, remaining: delta });
    }
}

/// The sum of the deltas: that of their entry.
pub fn sum(deltas: &[LotDelta]) -> i64 {
    deltas.iter().map(|delta| delta.delta).fold(0, i64::saturating_add)
}

fn oldest_first<'a>(lots: impl Iterator<Item = &'a Lot>) -> Vec<&'a Lot> {
    let mut lots: Vec<&Lot> = lots.collect();
    lots.sort_by_key(|lot| (lot.earned_at, lot.lot_id));
    lots
}

/// Takes points from lots in their order; what they are short of.
fn take(lots: Vec<&Lot>, points: i64) -> (Vec<LotDelta>, i64) {
    let mut left = points.max(0);
    let mut deltas = Vec::new();
    for lot in lots {
        let part = lot.remaining.min(left);
        left -= part;
        if part > 0 {
            deltas.push(lot.change(-part));
        }
    }
    (deltas, left)
}

#[cfg(test)]
mod tests;
