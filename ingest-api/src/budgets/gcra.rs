//! The arithmetic of one budget, without clock or lock: a generic cell rate algorithm in whole nanoseconds.
//!
//! A budget is a debt that time pays off. Each request adds its share of the window; one that would bring the debt above
//! the whole window is refused and adds nothing. So a caller who was away may use the whole quota at once, and over any
//! span of time gets through what the quota allows for that span, and once the quota besides.

use runtime::config::Quota;

/// A quota as the arithmetic needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// What one request adds to the debt.
    pub interval: u64,
    /// The highest debt that a request may leave.
    pub debt_max: u64,
}

impl From<Quota> for Pace {
    fn from(quota: Quota) -> Self {
        // At least a thousand: a quota has no more than a million requests a second.
        let interval = u64::from(quota.seconds()) * 1_000_000_000 / u64::from(quota.requests());
        Pace { interval, debt_max: interval * u64::from(quota.requests()) }
    }
}

/// What one caller owes. A new one owes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// When nothing is owed any more.
    paid_at: u64,
}

/// What a request found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub is_admitted: bool,
    /// Requests that would be admitted now, after this one.
    pub left: u32,
    /// Nanoseconds until the whole quota is there again.
    pub whole_in: u64,
    /// Nanoseconds until the same request would be admitted; 0 when it was.
    pub retry_in: u64,
}

impl Meter {
    /// A request at `now` that counts for `cost`, at most for the whole quota.
    pub fn take(&mut self, pace: Pace, now: u64, cost: u32) -> Reading {
        let share = (pace.interval * u64::from(cost)).min(pace.debt_max);
        let debt = self.debt(now);
        let is_admitted = debt + share <= pace.debt_max;
        if is_admitted {
            self.paid_at = now + debt + share;
        }
        let debt = self.debt(now);
        let retry_in = if is_admitted { 0 } else { debt + share - pace.debt_max };
        let left = pace.debt_max.saturating_sub(debt) / pace.interval;
        Reading { is_admitted, left: u32::try_from(left).unwrap_or(u32::MAX), whole_in: debt, retry_in }
    }

    /// Learns that this much is owed at `now`, all told; less than is known already changes nothing.
    pub fn learn(&mut self, now: u64, debt: u64) {
        self.paid_at = self.paid_at.max(now + debt);
    }

    fn debt(self, now: u64) -> u64 {
        self.paid_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn pace(requests: u32, seconds: u32) -> Pace {
        Quota::new(requests, seconds).unwrap().into()
    }

    /// The promise itself, from the list of all that was admitted: no span that begins with an admitted request holds
    /// more than the quota and what comes back within that span.
    #[derive(Default)]
    struct Slow {
        admitted: Vec<(u64, u64)>,
    }

    impl Slow {
        fn take(&mut self, pace: Pace, now: u64, cost: u32) -> bool {
            let share = (pace.interval * u64::from(cost)).min(pace.debt_max);
            self.admitted.push((now, share));
            let fits = (0..self.admitted.len()).all(|from| {
                let held: u64 = self.admitted[from..].iter().map(|(_, share)| share).sum();
                held <= pace.debt_max + (now - self.admitted[from].0)
            });
            if !fits {
                self.admitted.pop();
            }
            fits
        }
    }

    proptest! {
        #[test]
        fn admits_what_the_promise_admits(
            (requests, seconds) in (1u32..20, 1u32..20),
            steps in prop::collection::vec((prop_oneof![Just(0), 0u64..SECOND, 0u64..30 * SECOND], 1u32..4), 1..120),
        ) {
            let (pace, mut meter, mut slow, mut now) = (pace(requests, seconds), Meter::default(), Slow::default(), 7);
            for (pause, cost) in steps {
                now += pause;
                prop_assert_eq!(meter.take(pace, now, cost).is_admitted, slow.take(pace, now, cost));
            }
        }

        #[test]
        fn says_exactly_what_is_left_and_when_to_come_back(
            (requests, seconds) in (1u32..50, 1u32..50),
            steps in prop::collection::vec((0u64..2 * SECOND, 1u32..3), 1..60),
        ) {
            let (pace, mut meter, mut now) = (pace(requests, seconds), Meter::default(), 0);
            for (pause, cost) in steps {
                now += pause;
                let before = meter;
                let reading = meter.take(pace, now, cost);
                if !reading.is_admitted {
                    prop_assert_eq!(meter.debt(now), before.debt(now), "a refusal costs nothing");
                    let at = |then| {
                        let mut meter = before;
                        meter.take(pace, then, cost).is_admitted
                    };
                    prop_assert!(!at(now + reading.retry_in - 1) && at(now + reading.retry_in));
                }
                let mut spent = meter;
                let more = (0..=requests).take_while(|_| spent.take(pace, now, 1).is_admitted).count();
                prop_assert_eq!(more as u32, reading.left);
                let mut later = meter;
                prop_assert_eq!(later.take(pace, now + reading.whole_in, 1).left, requests - 1);
            }
        }

        #[test]
        fn what_is_learnt_only_ever_adds(
            debts in prop::collection::vec((0u64..SECOND, 0u64..20 * SECOND), 1..30)
        ) {
            let (mut meter, mut now) = (Meter::default(), 0);
            for (pause, debt) in debts {
                now += pause;
                let before = meter.debt(now);
                meter.learn(now, debt);
                prop_assert_eq!(meter.debt(now), before.max(debt));
            }
        }
    }

    #[test]
    fn a_register_gets_its_quota_at_once_and_then_evenly() {
        let (pace, mut meter) = (pace(3_000, 300), Meter::default());
        let at_once = (0..10_000).filter(|_| meter.take(pace, 0, 1).is_admitted).count();
        assert_eq!(at_once, 3_000);
        let in_five_minutes = (1..=300_000u64).filter(|ms| meter.take(pace, ms * 1_000_000, 1).is_admitted).count();
        assert_eq!(in_five_minutes, 3_000);
    }

    #[test]
    fn a_cost_above_the_quota_is_the_whole_quota() {
        let (pace, mut meter) = (pace(1, 60), Meter::default());
        assert!(meter.take(pace, 0, 2).is_admitted);
        let refused = meter.take(pace, 0, 2);
        assert_eq!((refused.is_admitted, refused.left, refused.retry_in), (false, 0, 60 * SECOND));
    }
}
