use super::*;
use RoundingMode::*;
use proptest::prelude::*;

fn any_mode() -> impl Strategy<Value = RoundingMode> {
    prop::sample::select(RoundingMode::ALL.to_vec())
}

#[test]
fn each_mode_acts_on_the_magnitude() {
    // columns: -2.5, -1.5, -0.4, 0.4, 0.5, 1.5, 2.5, 2.6
    let tenths = [-25, -15, -4, 4, 5, 15, 25, 26];
    for (mode, expected) in [
        (HalfEven, [-2, -2, 0, 0, 0, 2, 2, 3]),
        (HalfUp, [-3, -2, 0, 0, 1, 2, 3, 3]),
        (HalfDown, [-2, -1, 0, 0, 0, 1, 2, 3]),
        (Down, [-2, -1, 0, 0, 0, 1, 2, 2]),
        (Up, [-3, -2, -1, 1, 1, 2, 3, 3]),
    ] {
        assert_eq!(tenths.map(|n| round(n, 10, mode).unwrap()), expected, "{mode}");
    }
}

#[test]
fn round_refuses_what_does_not_fit() {
    assert_eq!(round(1, 0, HalfEven), Err(Overflow));
    assert_eq!(round(i64::MAX.into(), 1, HalfEven), Ok(i64::MAX));
    assert_eq!(round(i64::MIN.into(), 1, HalfEven), Ok(i64::MIN));
    assert_eq!(round(i128::from(i64::MAX) + 1, 1, HalfEven), Err(Overflow));
    assert_eq!(round(i128::from(i64::MAX) * 2 + 1, 2, HalfUp), Err(Overflow));
    assert_eq!(round(i128::MIN, 1, Up), Err(Overflow));
    assert_eq!(round(i128::MIN, i128::MIN, Up), Ok(1));
    assert_eq!(extended(i64::MAX, 1_000_000, HalfEven), Err(Overflow));
}

#[test]
fn exclusive_tax_per_line_and_per_order() {
    // three lines of 1.15 at 8.875 %
    let (num, den) = ratio("0.08875".parse().unwrap());
    assert_eq!(round(num * 115, den, HalfEven), Ok(10));
    let order = round(num * 345, den, HalfEven).unwrap();
    assert_eq!(order, 31);
    assert_eq!(alloc(order, &[115, 115, 115]), [11, 10, 10]);
}

#[test]
fn inclusive_tax_per_line_and_per_order() {
    // three lines of 3.33 including 20 %: g * R / (1 + R)
    let (num, den) = ratio("0.20".parse().unwrap());
    assert_eq!(round(num * 333, den + num, HalfEven), Ok(56));
    let order = round(num * 999, den + num, HalfEven).unwrap();
    assert_eq!(order, 166);
    assert_eq!(alloc(order, &[333, 333, 333]), [56, 55, 55]);
}

#[test]
fn cash_rounds_to_its_step() {
    // 12.91, card 10.00, the rest in cash with a step of 0.05
    let due = 1291 - 1000;
    let rounded = to_step(due, 5, HalfUp).unwrap();
    assert_eq!((rounded, rounded - due), (290, -1));
    assert_eq!(to_step(-due, 5, HalfUp), Ok(-290));
    assert_eq!(to_step(293, 5, HalfUp), Ok(295));
    assert_eq!(to_step(291, 0, HalfUp), Ok(291));
    assert_eq!(to_step(i64::MAX, 5, Up), Err(Overflow));
}

#[test]
fn units_of_a_discount_refund_to_the_whole() {
    // 3 x 10.00 less 2.99
    let discount = units(299, 3);
    assert_eq!(discount, [100, 100, 99]);
    let refunds: Vec<i64> = units(3000, 3).iter().zip(&discount).map(|(price, off)| price - off).collect();
    assert_eq!(refunds, [900, 900, 901]);
    assert_eq!(refunds.iter().sum::<i64>(), 2701);
}

#[test]
fn alloc_decides_the_odd_cases_on_purpose() {
    assert_eq!(alloc(0, &[3, 0, 5]), [0, 0, 0]);
    assert_eq!(alloc(5, &[]), [0_i64; 0]);
    // nobody weighs anything: as equal as can be, nothing lost
    assert_eq!(alloc(5, &[0, 0, 0]), [2, 2, 1]);
    assert_eq!(alloc(-5, &[0, 0, 0]), [-2, -2, -1]);
    // the legs of a refund weigh what those of its sale weighed
    assert_eq!(alloc(-31, &[-115, -115, -115]), [-11, -10, -10]);
    // the largest fraction first, and a line that weighs nothing gets nothing
    assert_eq!(alloc(10, &[0, 1, 5]), [0, 2, 8]);
    assert_eq!(alloc(i64::MIN, &[i64::MAX]), [i64::MIN]);
}

#[test]
fn currencies_know_their_exponent() {
    for (code, exponent, text) in
        [("EUR", 2, "-12.91"), ("JPY", 0, "-1291"), ("KWD", 3, "-1.291"), ("CLF", 4, "-0.1291"), ("ZZZ", 2, "-12.91")]
    {
        let currency: Currency = code.parse().unwrap();
        assert_eq!((currency.exponent(), currency.text(-1291).as_str()), (exponent, text), "{code}");
    }
    assert_eq!("EUR".parse::<Currency>().unwrap().text(5), "0.05");
    assert_eq!("EUR".parse::<Currency>().unwrap().text(i64::MIN), "-92233720368547758.08");
    for (code, is_listed) in [("EUR", true), ("ZWG", true), ("ZZZ", false), ("XTS", false), ("XAU", false)] {
        assert_eq!(code.parse::<Currency>().unwrap().is_listed(), is_listed, "{code}");
    }
    for bad in ["eur", "EU", "EURO", "E€", ""] {
        assert!(bad.parse::<Currency>().is_err(), "{bad}");
    }
    assert_eq!(serde_json::to_string(&"EUR".parse::<Currency>().unwrap()).unwrap(), "\"EUR\"");
    assert!(serde_json::from_str::<Currency>("\"eur\"").is_err());
}

#[test]
fn what_the_views_cannot_hold_is_not_storable() {
    assert_eq!(storable(-FIGURE_MAX), Ok(-FIGURE_MAX));
    for figure in [FIGURE_MAX + 1, -FIGURE_MAX - 1, i64::MIN] {
        assert_eq!(storable(figure), Err(Overflow));
    }
}

#[test]
fn modes_have_one_name_everywhere() {
    for mode in RoundingMode::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
        assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{mode}\""));
    }
    assert!("bankers".parse::<RoundingMode>().unwrap_err().to_string().contains("half_even"));
    assert_eq!(RoundingMode::default(), HalfEven);
}

#[test]
fn sums_never_wrap() {
    assert_eq!(Minor(i64::MAX).plus(Minor(1)), Err(Overflow));
    assert_eq!(Minor(i64::MIN).minus(Minor(1)), Err(Overflow));
    assert_eq!(Qty(i64::MIN).negated(), Err(Overflow));
    assert_eq!(Minor::sum([Minor(2), Minor(-5)]), Ok(Minor(-3)));
    assert_eq!(Qty::sum([Qty(i64::MAX), Qty(1), Qty(-1)]), Err(Overflow));
}

proptest! {
    #[test]
    fn round_is_within_one_and_the_nearest_modes_within_a_half(
        num in -(1_i128 << 80)..(1_i128 << 80), den in 1_i128..(1 << 40), mode in any_mode(),
    ) {
        let Ok(rounded) = round(num, den, mode) else { return Ok(()) };
        let error = (i128::from(rounded) * den - num).abs();
        prop_assert!(error < den);
        match mode {
            Down => prop_assert!(i128::from(rounded).abs() * den <= num.abs()),
            Up => prop_assert!(i128::from(rounded).abs() * den >= num.abs()),
            _ => prop_assert!(2 * error <= den),
        }
    }

    #[test]
    fn round_mirrors_and_does_not_care_how_the_ratio_is_written(
        num in -(1_i128 << 70)..(1_i128 << 70), den in 1_i128..(1 << 30), k in 1_i128..1000, mode in any_mode(),
    ) {
        let rounded = round(num, den, mode);
        prop_assert_eq!(rounded, round(num * k, den * k, mode));
        prop_assert_eq!(rounded, round(-num, -den, mode));
        if let Ok(rounded) = rounded {
            prop_assert_eq!(Ok(-rounded), round(-num, den, mode));
        }
    }

    #[test]
    fn alloc_sums_exactly_and_each_part_is_within_one_of_its_share(
        total: i64, weights in prop::collection::vec(prop_oneof![0..1000_i64, any::<i64>()], 1..20),
    ) {
        let parts = alloc(total, &weights);
        prop_assert_eq!(parts.len(), weights.len());
        prop_assert_eq!(parts.iter().map(|part| i128::from(*part)).sum::<i128>(), i128::from(total));
        let whole: u128 = weights.iter().map(|w| u128::from(w.unsigned_abs())).sum();
        for (part, weight) in parts.iter().zip(&weights) {
            prop_assert!(*part == 0 || (*part < 0) == (total < 0));
            let share = u128::from(total.unsigned_abs()) * u128::from(weight.unsigned_abs());
            if let Some(floor) = share.checked_div(whole) {
                let above = u128::from(part.unsigned_abs()).checked_sub(floor);
                prop_assert!(above.is_some_and(|above| above <= 1), "{part} against floor {floor}");
                prop_assert!(*weight != 0 || *part == 0);
            }
        }
    }

    #[test]
    fn alloc_mirrors(total in -i64::MAX..i64::MAX, weights in prop::collection::vec(0..1_000_000_i64, 1..20)) {
        let mirrored: Vec<i64> = alloc(-total, &weights).iter().map(|part| -part).collect();
        prop_assert_eq!(alloc(total, &weights), mirrored);
    }

    #[test]
    fn alloc_never_gives_an_earlier_equal_line_less(
        total in 0..1_000_000_i64, weights in prop::collection::vec(0..5_i64, 1..20),
    ) {
        let parts = alloc(total, &weights);
        for i in 0..weights.len() {
            for j in i + 1..weights.len() {
                if weights[i] == weights[j] {
                    prop_assert!(parts[i] == parts[j] || parts[i] == parts[j] + 1);
                }
            }
        }
    }

    #[test]
    fn units_follow_their_closed_form(share in 0..i64::MAX, n in 1_usize..200) {
        let n_units = n as i64;
        for (i, part) in (1..).zip(units(share, n)) {
            prop_assert_eq!(part, share / n_units + i64::from(i <= share % n_units));
        }
    }
}
