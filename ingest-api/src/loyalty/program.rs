//! Pure: what a program says: how points are earned, from when and until when they count, what they are worth.

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::ProgramId;

use super::accrual::EarnRule;

/// A program as pricing and commit lanes see it; part of the catalog snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub program_id: ProgramId,
    pub rule: EarnRule,
    pub expires_after_days: Option<i32>,
    /// The return window: points cannot be spent before its end.
    pub pending_days: Option<i32>,
    /// None: its points cannot be spent.
    pub worth: Option<Worth>,
}

/// So many points are worth so many minor units of the document's currency; both above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worth {
    pub points: i64,
    pub minor: i64,
}

impl Program {
    pub fn available_at(&self, earned_at: DateTime<Utc>) -> DateTime<Utc> {
        self.pending_days.and_then(|days| after(earned_at, days)).unwrap_or(earned_at)
    }
    pub fn expires_at(&self, earned_at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.expires_after_days.and_then(|days| after(earned_at, days))
    }
}

fn after(at: DateTime<Utc>, days: i32) -> Option<DateTime<Utc>> {
    at.checked_add_signed(TimeDelta::days(days.into()))
}

impl Worth {
    /// Fewest points that are worth whole minor units; every redemption is a multiple of it, so that nothing of a point
    /// is ever rounded away.
    pub fn unit(self) -> i64 {
        self.points / gcd(self.points, self.minor)
    }
    /// What points are worth; none where that is no whole number of minor units, or out of range.
    pub fn of(self, points: i64) -> Option<i64> {
        let exact = i128::from(points) * i128::from(self.minor);
        let is_whole = exact % i128::from(self.points) == 0;
        i64::try_from(exact / i128::from(self.points)).ok().filter(|_| is_whole)
    }
    /// Most points that may be spent of `available` on a base of `base_minor`, and what they are worth.
    pub fn most(self, available: i64, base_minor: i64) -> (i64, i64) {
        let (unit, minor) = (self.unit(), self.minor / gcd(self.points, self.minor));
        let units = (available.max(0) / unit).min(base_minor.max(0) / minor);
        (units * unit, units * minor)
    }
}

/// Of two numbers above zero.
fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_whole_minor_units_are_redeemed() {
        let worth = Worth { points: 150, minor: 100 };
        assert_eq!((worth.unit(), worth.of(3), worth.of(4), worth.of(150)), (3, Some(2), None, Some(100)));
        assert_eq!(worth.of(i64::MAX / 3 * 3), Some(i64::MAX / 3 * 2));
        assert_eq!(Worth { points: 1, minor: 3 }.of(i64::MAX), None);
        assert_eq!(worth.most(100, 1000), (99, 66));
        assert_eq!(worth.most(100, 7), (9, 6));
        assert_eq!(worth.most(-5, 7), (0, 0));
    }

    proptest! {
        #[test]
        fn the_most_that_may_be_spent_is_allowed_and_no_unit_more_is(points in 1i64..500, minor in 1i64..500,
            available in 0i64..100_000, base in 0i64..100_000) {
            let worth = Worth { points, minor };
            let (most, amount) = worth.most(available, base);
            prop_assert!(most <= available && amount <= base);
            prop_assert_eq!(worth.of(most), Some(amount));
            let more = worth.of(most + worth.unit());
            prop_assert!(most + worth.unit() > available || more.is_none_or(|more| more > base));
            prop_assert!((1..worth.unit().min(40)).all(|less| worth.of(less).is_none()));
        }
    }
}
