use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ACT: Permission = Permission::DiscountLines;

fn day(n: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, n).unwrap()
}

fn extent() -> impl Strategy<Value = Extent> {
    let currency = prop_oneof![Just("EUR"), Just("USD"), Just("JPY")];
    (currency, proptest::option::of(0i64..2_000), proptest::option::of(0i64..2_000_000)).prop_map(
        |(currency, amount_minor, share_ppm)| Extent { currency: currency.to_owned(), amount_minor, share_ppm },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let mode = prop_oneof![Just(Mode::Deny), Just(Mode::Approval), Just(Mode::Allow)];
    let ceiling = (prop_oneof![Just("EUR"), Just("USD")], 0i64..2_000)
        .prop_map(|(currency, amount_minor)| Ceiling { currency: currency.to_owned(), amount_minor });
    let limit = proptest::option::of(0i64..=100);
    (
        mode,
        limit,
        proptest::option::of(vec(ceiling, 1..3)),
        proptest::option::of(0i64..20),
        proptest::option::of(0i64..6),
    )
        .prop_map(|(mode, percent_max, mut ceilings, units_max, per_shift)| {
            // Each currency once, as the routes see to.
            ceilings.iter_mut().for_each(|all: &mut Vec<Ceiling>| {
                all.sort();
                all.dedup_by(|a, b| a.currency == b.currency);
            });
            Rule { permission: ACT, mode, percent_max, ceilings, units_max, per_shift }
        })
}

proptest! {
    /// What the lease says offline is what the server says: through JSON and back, and on the next day.
    #[test]
    fn lease_and_server_decide_alike(rules in vec(rule(), 0..4), used in 0i64..8, extent in extent(), next_day: bool) {
        let limits = Limits { version: VERSION, business_date: day(22), acts: vec![ActLimits { act: ACT, rules: rules.clone(), used }] };
        let leased: Limits = serde_json::from_str(&serde_json::to_string(&limits).unwrap()).unwrap();
        prop_assert_eq!(&leased, &limits);
        let (leased, counted) = if next_day { (leased.on(day(23)), 0) } else { (leased.on(day(22)), used) };
        prop_assert_eq!(leased.judge(ACT, &extent), judge(&rules, counted, &extent));
        prop_assert_eq!(leased.judge(Permission::AdjustStock, &extent), Verdict::Denied, "no rule, no right");
    }

    #[test]
    fn roles_add_up(left in vec(rule(), 0..3), right in vec(rule(), 0..3), used in 0i64..8, extent in extent()) {
        let both = [left.clone(), right.clone()].concat();
        let best = judge(&left, used, &extent).max(judge(&right, used, &extent));
        prop_assert_eq!(judge(&both, used, &extent), best);
    }

    #[test]
    fn more_is_never_more_permitted(rule in rule(), used in 0i64..8, extent in extent(), by in 0i64..500) {
        let more = Extent {
            amount_minor: extent.amount_minor.map(|amount| amount + by),
            share_ppm: extent.share_ppm.map(|share| share + by),
            ..extent.clone()
        };
        prop_assert!(rule.judge(used, &more) <= rule.judge(used, &extent));
        prop_assert!(rule.judge(used + by, &extent) <= rule.judge(used, &extent));
    }

    /// Nobody gives more than they hold: what a covered rule permits, the covering one permits.
    #[test]
    fn a_rule_that_covers_another_permits_at_least_as_much(mine in rule(), other in rule(), used in 0i64..8, extent in extent()) {
        if mine.covers(&other) {
            prop_assert!(mine.judge(used, &extent) >= other.judge(used, &extent));
        }
        prop_assert!(mine.covers(&mine));
        prop_assert!(Rule::new(ACT, Mode::Allow).covers(&mine));
        prop_assert!(mine.covers(&Rule::new(ACT, Mode::Deny)));
    }

    #[test]
    fn a_share_is_never_rounded_below_itself(part in 0i64..1_000_000_000, whole in 1i64..1_000_000_000) {
        let (part, whole) = (i128::from(part), i128::from(whole));
        let share = i128::from(share_ppm(part, whole));
        prop_assert!(share * whole >= part * PPM && (share - 1) * whole < part * PPM);
    }
}

#[test]
fn limits_hold_to_the_last_unit() {
    let rule = Rule {
        percent_max: Some(20),
        ceilings: Some(vec![Ceiling { currency: "EUR".into(), amount_minor: 500 }]),
        per_shift: Some(3),
        ..Rule::new(ACT, Mode::Allow)
    };
    let extent = |currency: &str, amount: Option<i64>, share: Option<i64>| Extent {
        currency: currency.into(),
        amount_minor: amount,
        share_ppm: share,
    };
    use Verdict::*;
    assert_eq!(rule.judge(2, &extent("EUR", Some(500), Some(200_000))), Allowed);
    assert_eq!(rule.judge(3, &extent("EUR", Some(500), Some(200_000))), NeedsApproval, "the fourth");
    assert_eq!(rule.judge(2, &extent("EUR", Some(501), Some(200_000))), NeedsApproval, "a cent more");
    assert_eq!(rule.judge(2, &extent("EUR", Some(500), Some(200_001))), NeedsApproval, "a millionth more");
    assert_eq!(rule.judge(2, &extent("USD", Some(1), Some(0))), NeedsApproval, "a currency without a ceiling");
    assert_eq!(rule.judge(2, &extent("USD", Some(0), Some(0))), Allowed, "nothing at all");
    assert_eq!(rule.judge(2, &extent("EUR", None, Some(0))), NeedsApproval, "what is not known is too much");
    assert_eq!(rule.judge(2, &extent("EUR", Some(0), None)), NeedsApproval);
    assert_eq!(share_ppm(1, 0), i64::MAX, "something of nothing");
}

#[test]
fn whole_units_are_of_every_currency() {
    let rule = Rule { units_max: Some(50), ..Rule::new(ACT, Mode::Allow) };
    let verdict = |currency: &str, amount: i64| {
        rule.judge(0, &Extent { currency: currency.to_owned(), amount_minor: Some(amount), share_ppm: None })
    };
    for (currency, most) in [("EUR", 5_000), ("JPY", 50), ("KWD", 50_000)] {
        assert_eq!((verdict(currency, most), verdict(currency, most + 1)), (Verdict::Allowed, Verdict::NeedsApproval));
    }
}
