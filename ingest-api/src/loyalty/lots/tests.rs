use proptest::prelude::*;

use super::*;

const RULE: EarnRule = EarnRule { step_minor: 1000, points_per_step: 1 };

fn day(days: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + days * 86_400, 0).unwrap()
}

fn id(number: u128) -> LotId {
    LotId(Uuid::from_u128(number))
}

/// A lot of sale `number`, earned that day and available at once.
fn lot(number: u128, points: i64) -> Lot {
    let earned_at = day(number as i64);
    let cause_id = Uuid::from_u128(number);
    Lot {
        lot_id: id(number),
        cause_id,
        earned_at,
        available_at: earned_at,
        expires_at: None,
        points,
        remaining: points,
    }
}

fn debt(at: i64) -> DebtLot {
    DebtLot { lot_id: id(999), at: day(at) }
}

fn of(deltas: &[LotDelta]) -> Vec<(u128, i64)> {
    deltas.iter().map(|delta| (delta.lot_id.0.as_u128(), delta.delta)).collect()
}

/// The lots after these changes, by id.
fn apply(lots: &[Lot], deltas: &[LotDelta], cause: u128) -> Vec<Lot> {
    let mut after = lots.to_vec();
    super::apply(&mut after, deltas, Uuid::from_u128(cause));
    after.sort_by_key(|lot| lot.lot_id);
    after
}

fn balance(lots: &[Lot]) -> i64 {
    lots.iter().map(|lot| lot.remaining).sum()
}

/// Rule T6: 1 per 10.00, base 21.90 gives 2 points; refunds of 5 + 5 + 5 revoke 1, 0, 1.
#[test]
fn three_refunds_of_five_take_back_one_none_one() {
    assert_eq!(earn(2190, RULE), 2);
    let taken: Vec<i64> = (0..3).map(|before| revoked(2190, before * 500, 500, RULE)).collect();
    assert_eq!(taken, [1, 0, 1]);
    assert_eq!(revoked(2190, 0, 1500, RULE), 2);
}

/// Rule T5: at 1 per 1.00 an exchange of 25.00 for 40.00 gives -25 and +40.
#[test]
fn an_exchange_takes_and_gives() {
    let rule = EarnRule { step_minor: 100, points_per_step: 1 };
    assert_eq!((revoked(2500, 0, 2500, rule), earn(4000, rule)), (25, 40));
}

#[test]
fn the_oldest_available_points_are_spent_first() {
    let mut lots = vec![lot(3, 10), lot(1, 4), lot(2, 5)];
    lots[2].expires_at = Some(day(20));
    assert_eq!(of(&redeem(&lots, 6, day(10)).unwrap()), [(1, -4), (2, -2)]);
    assert_eq!(of(&redeem(&lots, 6, day(20)).unwrap()), [(1, -4), (3, -2)], "lot 2 is lost on its day");
    assert_eq!(redeem(&lots, 20, day(10)), Err(19));
    let twins = [Lot { earned_at: day(1), ..lot(8, 3) }, lot(1, 1), Lot { earned_at: day(1), ..lot(7, 3) }];
    assert_eq!(of(&redeem(&twins, 5, day(9)).unwrap()), [(1, -1), (7, -3), (8, -1)], "then by id");
}

#[test]
fn pending_points_cannot_be_spent() {
    let pending = Lot { available_at: day(14), ..lot(1, 10) };
    assert_eq!(redeem(std::slice::from_ref(&pending), 1, day(13)), Err(0));
    assert_eq!(redeem(&[pending], 10, day(14)).map(|deltas| deltas.len()), Ok(1));
}

#[test]
fn a_debt_counts_against_what_is_available() {
    let lots = [lot(1, 10), Lot { points: -4, remaining: -4, ..lot(2, 0) }];
    assert_eq!(available(&lots, day(9)), 6);
    assert_eq!(redeem(&lots, 7, day(9)), Err(6));
    assert_eq!(available(&lots[1..], day(9)), 0, "nobody has points below zero to spend");
}

#[test]
fn a_claw_back_takes_the_sales_own_points_then_the_oldest_then_owes() {
    let lots = [lot(1, 3), lot(2, 4), lot(3, 5)];
    assert_eq!(of(&claw_back(&lots, Uuid::from_u128(3), 4, debt(9))), [(3, -4)]);
    assert_eq!(of(&claw_back(&lots, Uuid::from_u128(2), 6, debt(9))), [(2, -4), (1, -2)]);
    assert_eq!(of(&claw_back(&lots, Uuid::from_u128(2), 15, debt(9))), [(2, -4), (1, -3), (3, -5), (999, -3)]);
    assert_eq!(of(&claw_back(&[], Uuid::from_u128(2), 0, debt(9))), []);
}

#[test]
fn a_claw_back_takes_pending_points_of_the_sale_first_and_no_expired_ones() {
    let sale = Uuid::from_u128(2);
    let moved = Lot { lot_id: id(20), earned_at: day(5), available_at: day(30), ..lot(2, 6) };
    let lots = [lot(1, 3), lot(2, 4), moved, Lot { expires_at: Some(day(8)), ..lot(0, 50) }];
    assert_eq!(of(&claw_back(&lots, sale, 20, debt(9))), [(20, -6), (2, -4), (1, -3), (999, -7)]);
}

#[test]
fn points_return_to_their_lots_in_reverse_order_with_their_dates() {
    let lots = [lot(1, 4), Lot { expires_at: Some(day(60)), ..lot(2, 5) }];
    let consumed = redeem(&lots, 7, day(10)).unwrap();
    let first = restore(&consumed, 0, 5);
    assert_eq!(of(&first), [(2, 3), (1, 2)]);
    assert_eq!((first[0].earned_at, first[0].expires_at), (day(2), Some(day(60))));
    assert_eq!(of(&restore(&consumed, 5, 2)), [(1, 2)]);
    assert_eq!(of(&restore(&consumed, 7, 1)), [], "no more than was taken");
}

#[test]
fn restored_points_past_their_date_live_on_when_the_program_says_so() {
    let lots = [Lot { expires_at: Some(day(20)), ..lot(1, 4) }, lot(2, 5)];
    let restored = restore(&redeem(&lots, 6, day(10)).unwrap(), 0, 6);
    let other = |old: LotId| LotId(Uuid::from_u128(old.0.as_u128() + 100));
    assert_eq!(prolong(restored.clone(), day(30), None, other), restored);
    assert_eq!(prolong(restored.clone(), day(19), Some(7), other), restored);
    let prolonged = prolong(restored, day(30), Some(7), other);
    assert_eq!(of(&prolonged), [(2, 2), (101, 4)]);
    assert_eq!((prolonged[1].earned_at, prolonged[1].expires_at), (day(1), Some(day(37))));
}

#[test]
fn new_points_pay_debts_first() {
    let debts = [Lot { points: -4, remaining: -3, ..lot(2, 0) }, Lot { points: -2, remaining: -2, ..lot(1, 0) }];
    assert_eq!(of(&accrue(&debts, lot(5, 10))), [(1, 2), (2, 3), (5, 5)]);
    assert_eq!(of(&accrue(&debts, lot(5, 4))), [(1, 2), (2, 2)]);
    assert_eq!(of(&accrue(&[lot(1, 7)], lot(5, 4))), [(5, 4)]);
}

#[test]
fn expired_points_are_written_off_whole() {
    let lots =
        [Lot { expires_at: Some(day(8)), ..lot(1, 3) }, Lot { expires_at: Some(day(9)), ..lot(2, 4) }, lot(3, 5)];
    assert_eq!(of(&expire(&lots, day(8))), [(1, -3)]);
    assert_eq!(of(&expire(&lots, day(9))), [(1, -3), (2, -4)]);
}

prop_compose! {
    fn lots()(parts in prop::collection::vec((1i64..50, 0i64..20, prop::option::of(5i64..40)), 0..6),
              owed in prop::option::of(1i64..30)) -> Vec<Lot> {
        let mut lots: Vec<Lot> = parts
            .into_iter()
            .enumerate()
            .map(|(i, (points, pending, life))| {
                let lot = lot(i as u128 + 1, points);
                let expires_at = life.map(|life| lot.earned_at + TimeDelta::days(life));
                Lot { available_at: lot.earned_at + TimeDelta::days(pending), expires_at, ..lot }
            })
            .collect();
        lots.extend(owed.map(|owed| Lot { points: -owed, remaining: -owed, ..lot(50, 0) }));
        lots
    }
}

proptest! {
    #[test]
    fn any_split_of_refunds_takes_what_one_refund_takes(base in 0i64..100_000, step in 1i64..5_000, k in 1i64..7,
        parts in prop::collection::vec(0i64..5_000, 1..20)) {
        let rule = EarnRule { step_minor: step, points_per_step: k };
        let (mut before, mut taken) = (0, 0);
        for part in parts {
            let now = part.min(base - before);
            let points = revoked(base, before, now, rule);
            prop_assert!(points >= 0);
            taken += points;
            before += now;
            prop_assert_eq!(taken, earn(base, rule) - earn(base - before, rule));
        }
        prop_assert_eq!(taken + revoked(base, before, base - before, rule), earn(base, rule));
    }

    #[test]
    fn a_redemption_takes_exactly_its_points_and_never_more_than_there_are(lots in lots(), points in 1i64..200, at in 0i64..40) {
        match redeem(&lots, points, day(at)) {
            Ok(deltas) => {
                prop_assert_eq!(sum(&deltas), -points);
                let after = apply(&lots, &deltas, 0);
                prop_assert_eq!(balance(&after), balance(&lots) - points);
                prop_assert!(after.iter().all(|lot| lot.is_debt() || lot.remaining >= 0));
                prop_assert_eq!(available(&after, day(at)), available(&lots, day(at)) - points);
                let taken = |lot: &Lot| deltas.iter().any(|delta| delta.lot_id == lot.lot_id);
                prop_assert!(lots.iter().filter(|lot| taken(lot)).all(|lot| lot.is_spendable(day(at))));
            }
            Err(left) => prop_assert!(left < points && left == available(&lots, day(at))),
        }
    }

    #[test]
    fn restoring_a_redemption_in_parts_leaves_the_lots_as_they_were(lots in lots(), share in 0i64..100, at in 0i64..40,
        parts in prop::collection::vec(1i64..20, 1..20)) {
        let points = available(&lots, day(at)) * share / 100;
        let consumed = redeem(&lots, points, day(at)).unwrap();
        let mut after = apply(&lots, &consumed, 0);
        let mut restored = 0;
        for part in parts.into_iter().chain([i64::MAX]) {
            let deltas = restore(&consumed, restored, part.min(points - restored));
            restored += sum(&deltas);
            after = apply(&after, &deltas, 0);
            prop_assert!(after.iter().all(|lot| lot.is_debt() || (0..=lot.points).contains(&lot.remaining)));
        }
        prop_assert_eq!(restored, points);
        prop_assert_eq!(after, apply(&lots, &[], 0));
    }

    #[test]
    fn a_claw_back_is_worth_its_points_and_owes_only_what_is_not_there(lots in lots(), points in 0i64..300, at in 0i64..40,
        sale in 1u128..7) {
        let deltas = claw_back(&lots, Uuid::from_u128(sale), points, debt(at));
        prop_assert_eq!(sum(&deltas), -points);
        let after = apply(&lots, &deltas, 0);
        prop_assert_eq!(balance(&after), balance(&lots) - points);
        if deltas.iter().any(|delta| delta.lot_id == id(999)) {
            prop_assert!(after.iter().all(|lot| lot.remaining <= 0 || lot.is_expired(day(at))));
        }
    }

    #[test]
    fn an_accrual_leaves_no_debt_beside_its_own_points(lots in lots(), points in 1i64..100) {
        let deltas = accrue(&lots, lot(70, points));
        prop_assert_eq!(sum(&deltas), points);
        let after = apply(&lots, &deltas, 70);
        prop_assert_eq!(balance(&after), balance(&lots) + points);
        prop_assert!(after.iter().all(|lot| lot.points < 0 || (0..=lot.points).contains(&lot.remaining)));
        let has_own = deltas.iter().any(|delta| delta.lot_id == id(70));
        prop_assert!(!has_own || after.iter().all(|lot| lot.remaining >= 0));
    }

    #[test]
    fn what_expires_was_never_available(lots in lots(), at in 0i64..60) {
        let deltas = expire(&lots, day(at));
        let after = apply(&lots, &deltas, 0);
        prop_assert_eq!(available(&after, day(at)), available(&lots, day(at)));
        prop_assert!(expire(&after, day(at)).is_empty());
    }

    #[test]
    fn after_settling_nobody_owes_and_has_points(lots in lots(), at in 0i64..60) {
        let deltas = settle(&lots, day(at));
        prop_assert_eq!(sum(&deltas), 0);
        let after = apply(&lots, &deltas, 0);
        let has_points = after.iter().any(|lot| lot.remaining > 0 && !lot.is_expired(day(at)));
        prop_assert!(!has_points || after.iter().all(|lot| !lot.is_debt()));
        prop_assert!(available(&after, day(at)) >= available(&lots, day(at)), "pending points pay too");
    }
}
