//! Rule T3: what is tendered, rounded in cash and handed back.

use schemas::money::{self, Overflow, RoundingMode};

/// How a total is settled: `sum(tenders) - change = total + rounding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    pub rounding_minor: i64,
    pub change_minor: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenderProblem {
    /// What was tendered does not cover the amount due.
    Short {
        missing_minor: i64,
    },
    Overflow,
}

impl From<Overflow> for TenderProblem {
    fn from(_: Overflow) -> Self {
        TenderProblem::Overflow
    }
}

/// Settles `total` with `cash` given and `non_cash` paid. Only what is settled in cash is rounded, with the
/// location's own step and mode; a non-cash amount above the total is paid out as cash change.
pub fn settle(total: i64, cash: i64, non_cash: i64, step: i64, mode: RoundingMode) -> Result<Settled, TenderProblem> {
    let due = total.checked_sub(non_cash).ok_or(Overflow)?;
    if cash == 0 && due >= 0 {
        return if due == 0 { Ok(Settled::default()) } else { Err(TenderProblem::Short { missing_minor: due }) };
    }
    let rounded_due = money::to_step(due, step, mode)?;
    let change_minor = cash.checked_sub(rounded_due).ok_or(Overflow)?;
    if change_minor < 0 {
        return Err(TenderProblem::Short { missing_minor: -change_minor });
    }
    Ok(Settled { rounding_minor: rounded_due - due, change_minor })
}

/// Why money that goes to the customer does not settle what is owed to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayOutProblem {
    /// Less is paid out than is owed.
    Short {
        missing_minor: i64,
    },
    /// More is paid out than is owed: nobody hands change back to a till that pays.
    Over {
        excess_minor: i64,
    },
    Overflow,
}

impl From<Overflow> for PayOutProblem {
    fn from(_: Overflow) -> Self {
        PayOutProblem::Overflow
    }
}

/// What cash comes to when so much is owed in cash, rounded as [`settle`] rounds it; negative where it is paid out.
pub fn cash_of(due: i64, step: i64, mode: RoundingMode) -> Result<i64, Overflow> {
    money::to_step(due, step, mode)
}

/// The rounding of a document that pays out, all amounts negative: [`settle`] with the signs turned round, and without
/// change. `cash` is nothing where no cash moves; 0 is cash that rounding leaves nothing of.
pub fn pay_out(
    total: i64,
    cash: Option<i64>,
    non_cash: i64,
    step: i64,
    mode: RoundingMode,
) -> Result<i64, PayOutProblem> {
    let due = total.checked_sub(non_cash).ok_or(Overflow)?;
    let (paid, wanted) = match cash {
        Some(cash) => (cash, cash_of(due, step, mode)?),
        None => (0, due),
    };
    let difference = paid.checked_sub(wanted).ok_or(Overflow)?;
    match difference {
        0 => Ok(wanted - due),
        1.. => Err(PayOutProblem::Short { missing_minor: difference }),
        _ => Err(PayOutProblem::Over { excess_minor: difference.checked_neg().ok_or(Overflow)? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HALF_UP: RoundingMode = RoundingMode::HalfUp;

    #[test]
    fn only_the_cash_part_is_rounded() {
        let settled = settle(1291, 290, 1000, 5, HALF_UP);
        assert_eq!(settled, Ok(Settled { rounding_minor: -1, change_minor: 0 }));
        assert_eq!(settle(1291, 500, 1000, 5, HALF_UP), Ok(Settled { rounding_minor: -1, change_minor: 210 }));
        assert_eq!(settle(1291, 0, 1291, 5, HALF_UP), Ok(Settled::default()));
    }

    #[test]
    fn too_little_is_short_by_the_rounded_due() {
        assert_eq!(settle(1291, 289, 1000, 5, HALF_UP), Err(TenderProblem::Short { missing_minor: 1 }));
        assert_eq!(settle(1291, 0, 1290, 5, HALF_UP), Err(TenderProblem::Short { missing_minor: 1 }));
    }

    #[test]
    fn a_card_above_the_total_pays_out_cash() {
        assert_eq!(settle(1291, 0, 2000, 5, HALF_UP), Ok(Settled { rounding_minor: -1, change_minor: 710 }));
        assert_eq!(settle(i64::MIN, 1, i64::MAX, 1, HALF_UP), Err(TenderProblem::Overflow));
    }

    #[test]
    fn what_is_paid_out_is_exact_and_rounded_in_cash_only() {
        assert_eq!(pay_out(-1291, Some(-290), -1000, 5, HALF_UP), Ok(1));
        assert_eq!(pay_out(-1291, None, -1291, 5, HALF_UP), Ok(0));
        assert_eq!(pay_out(-1291, None, -1290, 5, HALF_UP), Err(PayOutProblem::Short { missing_minor: 1 }));
        assert_eq!(pay_out(-1291, Some(-295), -1000, 5, HALF_UP), Err(PayOutProblem::Over { excess_minor: 5 }));
        assert_eq!(pay_out(-1291, Some(0), -1300, 1, HALF_UP), Err(PayOutProblem::Over { excess_minor: 9 }));
        // Two cents in steps of five: cash that is nothing.
        assert_eq!(pay_out(-2, Some(0), 0, 5, HALF_UP), Ok(2));
        assert_eq!(pay_out(-2, None, 0, 5, HALF_UP), Err(PayOutProblem::Short { missing_minor: 2 }));
        assert_eq!(pay_out(i64::MIN, Some(0), 1, 1, HALF_UP), Err(PayOutProblem::Overflow));
    }

    proptest! {
        /// Rule T3: the modes act on magnitude, so paying out mirrors taking in.
        #[test]
        fn paying_out_mirrors_a_sale(total in 0i64..10_000_000, share in 0i64..=100, step in 1i64..100, mode in 0usize..5) {
            let (mode, non_cash) = (RoundingMode::ALL[mode], total * share / 100);
            let cash = money::to_step(total - non_cash, step, mode).unwrap();
            let rounding = pay_out(-total, Some(-cash), -non_cash, step, mode).unwrap();
            prop_assert_eq!(-cash - non_cash, -total + rounding);
            if cash > 0 {
                let settled = settle(total, cash, non_cash, step, mode).unwrap();
                prop_assert_eq!(settled, Settled { rounding_minor: -rounding, change_minor: 0 });
            }
            for other in [cash - 1, cash + 1] {
                prop_assert!(pay_out(-total, Some(-other), -non_cash, step, mode).is_err());
            }
        }

        #[test]
        fn tenders_less_change_equal_total_and_rounding(total in 0i64..10_000_000, cash in 0i64..20_000_000,
            non_cash in 0i64..20_000_000, step in 1i64..100, mode in 0usize..5) {
            if let Ok(settled) = settle(total, cash, non_cash, step, RoundingMode::ALL[mode]) {
                prop_assert_eq!(cash + non_cash - settled.change_minor, total + settled.rounding_minor);
                prop_assert!(settled.rounding_minor.abs() < step);
                prop_assert!(settled.change_minor >= 0);
            }
        }
    }
}
