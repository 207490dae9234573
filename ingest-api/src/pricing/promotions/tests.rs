use std::collections::HashSet;

use chrono::{NaiveDate, NaiveTime};
use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::ids::{LocationId, ProductId, TaxProfileId, VariantId};

use super::rule::{Conditions, Day, Items, Part, Rule, Window};
use super::*;

const AT: &str = "2026-05-04T10:00:00Z";

fn location() -> Location {
    Location {
        location_id: LocationId(Uuid::from_u128(1)),
        currency: "EUR".into(),
        zone: chrono_tz::Europe::Berlin,
        day_cutoff: NaiveTime::MIN,
        opened_on: NaiveDate::MIN,
        rounding_mode: RoundingMode::HalfEven,
        cash_step: 1,
        cash_mode: RoundingMode::HalfUp,
        denies_oversell: false,
        is_active: true,
    }
}

fn goods(n: u128, category: &str) -> Variant {
    Variant {
        variant_id: VariantId(Uuid::from_u128(100 + n)),
        product_id: ProductId(Uuid::from_u128(200 + n)),
        sku: format!("SKU{n}"),
        name: "thing".into(),
        category: category.into(),
        unit: "piece".into(),
        is_measured: false,
        tracks_stock: true,
        tax_profile_id: TaxProfileId(Uuid::from_u128(9)),
        unit_cost: None,
        is_active: true,
    }
}

/// Lines of (goods, pieces, worth), numbered from 1.
fn lines<'a>(goods: &'a [Variant], of: &[(usize, i64, i64)]) -> Vec<Line<'a>> {
    let line = |(place, (which, pieces, left_minor)): (usize, &(usize, i64, i64))| Line {
        line_no: place as i32 + 1,
        variant: &goods[*which],
        qty: pieces * 1000,
        left_minor: *left_minor,
        is_fixed: false,
    };
    of.iter().enumerate().map(line).collect()
}

fn promotion(n: u128, effect: Effect) -> Promotion {
    Promotion {
        promotion_id: Uuid::from_u128(n),
        name: format!("promotion {n}").into(),
        priority: 0,
        exclusion_group: None,
        needs_coupon: false,
        budget_minor: None,
        uses_max: None,
        is_active: true,
        currency: None,
        rule: Rule { effect, items: Items::default(), conditions: Conditions::default() },
    }
}

fn percent(percent: i64) -> Effect {
    Effect::Percent { percent: percent.into() }
}

fn of_category(category: &str) -> Items {
    Items { categories: vec![category.into()], ..Items::default() }
}

struct Case {
    customer_id: Option<Uuid>,
    coupons: HashMap<Uuid, String>,
    usage: HashMap<Uuid, Usage>,
    at: DateTime<Utc>,
}

impl Case {
    fn new() -> Self {
        Case { customer_id: None, coupons: HashMap::new(), usage: HashMap::new(), at: AT.parse().unwrap() }
    }
    fn run(&self, promotions: Vec<Promotion>, lines: &mut [Line<'_>]) -> Outcome {
        let location = location();
        let around = Circumstances {
            location: &location,
            occurred_at: self.at,
            customer_id: self.customer_id,
            coupons: &self.coupons,
            usage: &self.usage,
        };
        let promotions: Vec<_> = promotions.into_iter().map(Arc::new).collect();
        apply(&promotions, lines, &around, &mut Trace::new()).unwrap()
    }
    /// The one reason why `promotion` gives nothing.
    fn refused(&self, promotion: Promotion, lines: &mut [Line<'_>]) -> Reason {
        let outcome = self.run(vec![promotion], lines);
        assert!(outcome.given.is_empty(), "{outcome:?}");
        outcome.skipped[0].reason
    }
}

fn given(outcome: &Outcome) -> Vec<(i64, Vec<(usize, i64)>)> {
    outcome.given.iter().map(|given| (given.amount_minor, given.shares.clone())).collect()
}

#[test]
fn each_works_on_what_the_earlier_ones_left() {
    let goods = [goods(1, "")];
    let mut cart = lines(&goods, &[(0, 1, 1000)]);
    let outcome = Case::new().run(vec![promotion(1, percent(50)), promotion(2, percent(50))], &mut cart);
    assert_eq!(given(&outcome), [(500, vec![(0, 500)]), (250, vec![(0, 250)])]);
    let take_all = Effect::AmountPerUnit { amount_minor: 10_000 };
    let outcome = Case::new().run(vec![promotion(1, take_all.clone()), promotion(2, take_all)], &mut cart);
    assert_eq!((given(&outcome)[0].0, cart[0].left_minor), (250, 0));
    assert_eq!(outcome.skipped[0].reason, Reason::NothingLeft);
}

#[test]
fn a_fixed_price_lowers_dearer_goods_and_leaves_cheaper_ones() {
    let goods = [goods(1, ""), goods(2, "")];
    let mut cart = lines(&goods, &[(0, 3, 3000), (1, 2, 1000)]);
    let outcome = Case::new().run(vec![promotion(1, Effect::UnitPrice { unit_price_minor: 799 })], &mut cart);
    assert_eq!(given(&outcome), [(603, vec![(0, 603)])]);
}

#[test]
fn the_cheapest_units_are_the_free_ones() {
    let goods = [goods(1, ""), goods(2, ""), goods(3, "")];
    // 5.00, 4.00, 4.00, 3.00, 3.00: two of five in groups of two and one: one is free, the cheapest.
    let mut cart = lines(&goods, &[(0, 1, 500), (1, 2, 800), (2, 2, 600)]);
    let two_and_one = |percent: i64| Effect::BuyGet { buy: 2, get: 1, percent: percent.into() };
    assert_eq!(given(&Case::new().run(vec![promotion(1, two_and_one(100))], &mut cart)), [(300, vec![(2, 300)])]);
    let mut six = lines(&goods, &[(0, 1, 500), (1, 2, 800), (2, 3, 1000)]);
    // Of 3.34, 3.33, 3.33 the two cheapest at half.
    assert_eq!(given(&Case::new().run(vec![promotion(1, two_and_one(50))], &mut six)), [(333, vec![(2, 333)])]);
    let mut two = lines(&goods, &[(0, 2, 1000)]);
    assert_eq!(Case::new().refused(promotion(1, two_and_one(100)), &mut two), Reason::MinQty);
}

#[test]
fn a_bundle_is_filled_as_often_as_all_its_parts_are_there() {
    let goods = [goods(1, "pasta"), goods(2, "sauce"), goods(3, "wine")];
    let part = |category: &str, units| Part { items: of_category(category), units };
    let menu = Effect::Bundle { parts: vec![part("pasta", 2), part("sauce", 1)], price_minor: 400 };
    // Two bundles of 2 x 1.50 + 2.00 = 5.00: 2.00 off, by worth 6.00 and 4.00; a pasta and the wine stay.
    let mut cart = lines(&goods, &[(0, 5, 750), (1, 2, 400), (2, 1, 900)]);
    let outcome = Case::new().run(vec![promotion(1, menu.clone())], &mut cart);
    assert_eq!(given(&outcome), [(200, vec![(0, 120), (1, 80)])]);
    let mut without = lines(&goods, &[(0, 5, 750), (2, 1, 900)]);
    assert_eq!(Case::new().refused(promotion(1, menu.clone()), &mut without), Reason::MinQty);
    let mut cheap = lines(&goods, &[(0, 2, 100), (1, 1, 100)]);
    assert_eq!(Case::new().refused(promotion(1, menu), &mut cheap), Reason::NothingLeft);
}

#[test]
fn a_basket_counts_its_goods_alone_and_pays_to_them_alone() {
    let goods = [goods(1, "food/dairy"), goods(2, "books"), goods(3, "foods")];
    let mut food = promotion(1, Effect::BasketAmount { threshold_minor: 500, amount_minor: 101 });
    food.rule.items = of_category("food");
    let mut cart = lines(&goods, &[(0, 1, 300), (1, 1, 9000), (0, 1, 200), (2, 1, 100)]);
    assert_eq!(given(&Case::new().run(vec![food.clone()], &mut cart)), [(101, vec![(0, 61), (2, 40)])]);
    assert_eq!(Case::new().refused(food, &mut cart), Reason::MinAmount);
}

#[test]
fn each_condition_has_its_reason() {
    let goods = [goods(1, "books")];
    let cart = || lines(&goods, &[(0, 1, 1000)]);
    let other = Uuid::from_u128(77);
    let on = |change: &dyn Fn(&mut Promotion)| {
        let mut changed = promotion(1, percent(10));
        change(&mut changed);
        changed
    };
    let at = |text: &str| Some(text.parse().unwrap());
    let refused = |change: &dyn Fn(&mut Promotion), reason| {
        assert_eq!(Case::new().refused(on(change), &mut cart()), reason);
    };
    refused(&|it| it.rule.conditions.starts_at = at("2026-05-04T10:00:01Z"), Reason::NotStarted);
    refused(&|it| it.rule.conditions.ends_at = at(AT), Reason::Ended);
    refused(&|it| it.rule.conditions.location_ids = HashSet::from([other]), Reason::OtherLocation);
    refused(&|it| it.currency = Some("USD".into()), Reason::WrongCurrency);
    refused(&|it| it.rule.conditions.members_only = true, Reason::MembersOnly);
    refused(&|it| it.needs_coupon = true, Reason::NeedsCoupon);
    refused(&|it| it.rule.items.variant_ids = HashSet::from([other]), Reason::NoItem);
    refused(&|it| it.rule.items.excluded_categories = vec!["books".into()], Reason::NoItem);
    refused(&|it| it.rule.conditions.min_qty = Some(1001), Reason::MinQty);
    refused(&|it| it.rule.conditions.min_amount_minor = Some(1001), Reason::MinAmount);
    let mut fixed = cart();
    fixed[0].is_fixed = true;
    assert_eq!(Case::new().refused(promotion(1, percent(10)), &mut fixed), Reason::ExcludedItem);
    let member = Case { customer_id: Some(other), ..Case::new() };
    let for_one = on(&|it| it.rule.conditions.customer_ids = HashSet::from([Uuid::from_u128(78)]));
    assert_eq!(member.refused(for_one, &mut cart()), Reason::OtherMember);
}

#[test]
fn one_of_a_group_applies_and_the_others_name_it() {
    let goods = [goods(1, "")];
    let grouped = |n, effect| Promotion { exclusion_group: Some("sale".into()), ..promotion(n, effect) };
    let never = Effect::BasketPercent { threshold_minor: 5000, percent: 10.into() };
    let all = vec![grouped(1, never), grouped(2, percent(10)), grouped(3, percent(20)), promotion(4, percent(5))];
    let outcome = Case::new().run(all, &mut lines(&goods, &[(0, 1, 1000)]));
    let applied: Vec<_> = outcome.given.iter().map(|given| given.promotion_id.as_u128()).collect();
    assert_eq!(applied, [2, 4]);
    let blocked = &outcome.skipped[1];
    assert_eq!((blocked.reason, blocked.blocked_by), (Reason::BlockedBy, Some(Uuid::from_u128(2))));
}

#[test]
fn a_budget_is_spent_in_full_or_not_at_all() {
    let goods = [goods(1, "")];
    let limited = Promotion { budget_minor: Some(250), uses_max: Some(3), ..promotion(1, percent(10)) };
    let after = |given_minor, uses| Case {
        usage: HashMap::from([(limited.promotion_id, Usage { given_minor, uses })]),
        ..Case::new()
    };
    let mut cart = lines(&goods, &[(0, 1, 1000)]);
    assert_eq!(after(151, 1).refused(limited.clone(), &mut cart), Reason::BudgetSpent);
    assert_eq!(after(0, 3).refused(limited.clone(), &mut cart), Reason::UsesSpent);
    let outcome = after(150, 2).run(vec![limited], &mut cart);
    assert_eq!((given(&outcome)[0].0, outcome.is_counted, outcome.given[0].is_counted), (100, true, true));
}

#[test]
fn windows_are_by_the_clock_of_the_location() {
    let clock = |text: &str| text.parse::<NaiveTime>().unwrap();
    let happy = Window { days: vec![Day::Mon], from: clock("17:00:00"), to: clock("19:00:00") };
    let late = Window { days: vec![Day::Sat], from: clock("22:00:00"), to: clock("02:00:00") };
    let holds = |window: &Window, at: &str| window.holds(at.parse().unwrap(), chrono_tz::Europe::Berlin);
    // 4 May 2026 is a Monday; Berlin is two hours ahead.
    assert!(holds(&happy, "2026-05-04T15:00:00Z") && !holds(&happy, "2026-05-04T17:00:00Z"));
    assert!(!holds(&happy, "2026-05-05T15:00:00Z") && !holds(&happy, "2026-05-04T14:59:59Z"));
    assert!(holds(&late, "2026-05-02T20:00:00Z") && holds(&late, "2026-05-02T23:59:59Z"));
    assert!(!holds(&late, "2026-05-03T00:00:00Z") && !holds(&late, "2026-05-03T20:00:00Z"));
    // In the night of 25 October the clock shows 02:30 twice: both times.
    let night = Window { days: vec![Day::Sun], from: clock("02:00:00"), to: clock("03:00:00") };
    assert!(holds(&night, "2026-10-25T00:30:00Z") && holds(&night, "2026-10-25T01:30:00Z"));
}

#[test]
fn a_rule_is_stored_as_it_is_sent() {
    let sent = r#"{"effect":{"kind":"buy_get","buy":2,"get":1,"percent":"100"},
        "items":{"categories":["food"]},
        "conditions":{"windows":[{"days":["mon","sun"],"from":"17:00:00","to":"19:00:00"}],"members_only":true}}"#;
    let rule: Rule = serde_json::from_str(sent).unwrap();
    assert_eq!(rule.effect, Effect::BuyGet { buy: 2, get: 1, percent: Decimal::ONE_HUNDRED });
    let again: Rule = serde_json::from_str(&serde_json::to_string(&rule).unwrap()).unwrap();
    assert_eq!(again, rule);
    for wrong in
        [r#"{"effect":{"kind":"percent","percent":"1e1"}}"#, r#"{"effect":{"kind":"percent","percent":"1","x":1}}"#]
    {
        assert!(serde_json::from_str::<Rule>(wrong).is_err(), "{wrong}");
    }
}

fn any_effect() -> impl Strategy<Value = Effect> {
    let part = |category: &'static str, units| Part { items: of_category(category), units };
    prop_oneof![
        (1i64..=1_000_000).prop_map(|ppm| Effect::Percent { percent: Decimal::new(ppm, 4) }),
        (1i64..3000).prop_map(|amount_minor| Effect::AmountPerUnit { amount_minor }),
        (0i64..3000).prop_map(|unit_price_minor| Effect::UnitPrice { unit_price_minor }),
        (1i64..4, 1i64..3, 1i64..=100).prop_map(|(buy, get, percent)| Effect::BuyGet {
            buy,
            get,
            percent: percent.into()
        }),
        (0i64..4000, 1i64..3, 1i64..3).prop_map(move |(price_minor, a, b)| Effect::Bundle {
            parts: vec![part("a", a), part("b", b)],
            price_minor
        }),
        (0i64..20_000, 1i64..=100)
            .prop_map(|(threshold_minor, percent)| Effect::BasketPercent { threshold_minor, percent: percent.into() }),
        (0i64..20_000, 1i64..9000)
            .prop_map(|(threshold_minor, amount_minor)| Effect::BasketAmount { threshold_minor, amount_minor }),
    ]
}

proptest! {
    /// Whatever applies, a line is never worth less than nothing, shares add up, and each amount is what came off.
    #[test]
    fn promo_total_never_exceeds_base(
        effects in prop::collection::vec((any_effect(), prop::option::of(0u8..2)), 1..8),
        of in prop::collection::vec((0usize..3, 1i64..9, 0i64..9000), 1..10),
    ) {
        let goods = [goods(1, "a"), goods(2, "b"), goods(3, "a/c")];
        let mut cart = lines(&goods, &of);
        let before: i64 = cart.iter().map(|line| line.left_minor).sum();
        let all = effects.into_iter().enumerate().map(|(n, (effect, group))| Promotion {
            exclusion_group: group.map(|group| group.to_string().into()), ..promotion(n as u128, effect)
        });
        let outcome = Case::new().run(all.collect(), &mut cart);
        let taken: i64 = outcome.given.iter().map(|given| given.amount_minor).sum();
        prop_assert!(cart.iter().all(|line| line.left_minor >= 0));
        prop_assert_eq!(before - taken, cart.iter().map(|line| line.left_minor).sum::<i64>());
        for given in &outcome.given {
            prop_assert!(given.amount_minor > 0 && given.shares.iter().all(|(_, share)| *share > 0));
            prop_assert_eq!(given.amount_minor, given.shares.iter().map(|(_, share)| share).sum::<i64>());
        }
    }
}
