//! Pure: the points a sale earns.

/// How a program gives points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarnRule {
    pub step_minor: i64,
    pub points_per_step: i64,
}

/// `floor(k * floor(base / step))`: points for the eligible amount, net of discounts and without tax.
/// Never negative; what leaves the range of an i64 is capped, so a sale is never refused for its points.
pub fn earn(base_minor: i64, rule: EarnRule) -> i64 {
    if base_minor <= 0 || rule.step_minor <= 0 {
        return 0;
    }
    (base_minor / rule.step_minor).saturating_mul(rule.points_per_step.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_steps_earn() {
        let rule = EarnRule { step_minor: 1000, points_per_step: 1 };
        assert_eq!((earn(2190, rule), earn(999, rule), earn(0, rule), earn(-5000, rule)), (2, 0, 0, 0));
        assert_eq!(earn(2190, EarnRule { step_minor: 100, points_per_step: 3 }), 63);
        assert_eq!(earn(i64::MAX, EarnRule { step_minor: 1, points_per_step: 2 }), i64::MAX);
    }
}
