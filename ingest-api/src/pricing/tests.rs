use std::collections::HashMap;

use chrono::NaiveTime;
use proptest::prelude::*;
use schemas::ids::{ProductId, ProgramId, TaxProfileId};
use schemas::money::{self, RoundingMode};

use super::snapshot::{Price, RateSet, Tax, TaxProfile};
use super::*;
use crate::loyalty::accrual::EarnRule;
use crate::loyalty::program::{Program, Worth};

const SHOP: LocationId = LocationId(Uuid::from_u128(1));
const AT: &str = "2026-05-04T10:00:00Z";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub(crate) fn tax(n: u128, rate: &str) -> Tax {
    Tax {
        tax_id: Uuid::from_u128(n),
        name: format!("tax {n}").into(),
        rate: rate.parse().unwrap(),
        rate_text: rate.into(),
        is_inclusive: false,
        is_compound: false,
        is_per_order: false,
    }
}
pub(crate) fn included(tax: Tax) -> Tax {
    Tax { is_inclusive: true, ..tax }
}
pub(crate) fn compound(tax: Tax) -> Tax {
    Tax { is_compound: true, ..tax }
}
pub(crate) fn per_order(tax: Tax) -> Tax {
    Tax { is_per_order: true, ..tax }
}

/// A shop with one variant per price, all under one profile.
pub(crate) fn shop(mode: RoundingMode, taxes: Vec<Tax>, prices: &[i64]) -> Snapshot {
    let profile = TaxProfileId(Uuid::from_u128(9));
    let is_inclusive = taxes.iter().any(|tax| tax.is_inclusive);
    let location = Location {
        location_id: SHOP,
        currency: "EUR".into(),
        zone: chrono_tz::Europe::Berlin,
        day_cutoff: NaiveTime::MIN,
        opened_on: at(AT).date_naive(),
        rounding_mode: mode,
        cash_step: 1,
        cash_mode: RoundingMode::HalfUp,
        denies_oversell: false,
        is_active: true,
    };
    let rate_sets = vec![RateSet { valid_from: DateTime::UNIX_EPOCH, taxes }];
    let mut snapshot = Snapshot { version: 7, epoch: 1, ..Snapshot::default() };
    snapshot.locations = HashMap::from([(SHOP, Arc::new(location))]);
    snapshot.tax_profiles = HashMap::from([(profile, Arc::new(TaxProfile { tax_profile_id: profile, rate_sets }))]);
    for (index, amount_minor) in prices.iter().enumerate() {
        let variant_id = variant(index);
        snapshot.variants.insert(
            variant_id,
            Arc::new(Variant {
                variant_id,
                product_id: ProductId(variant_id.0),
                sku: format!("SKU{index}"),
                name: "thing".into(),
                category: "things".into(),
                unit: "piece".into(),
                is_measured: false,
                tracks_stock: true,
                tax_profile_id: profile,
                unit_cost: None,
                is_active: true,
            }),
        );
        snapshot.prices.insert(variant_id, vec![list_price(*amount_minor, is_inclusive)].into());
    }
    snapshot
}

fn list_price(amount_minor: i64, tax_inclusive: bool) -> Price {
    Price {
        price_id: Uuid::from_u128(5),
        location_id: None,
        currency: "EUR".into(),
        amount_minor,
        tax_inclusive,
        valid_from: DateTime::UNIX_EPOCH,
        valid_to: None,
    }
}

pub(crate) fn variant(index: usize) -> VariantId {
    VariantId(Uuid::from_u128(100 + index as u128))
}

pub(crate) fn line(index: usize, qty: i64) -> CartLine {
    CartLine { line_no: index as i32 + 1, variant_id: variant(index), qty, discount: None, override_: None }
}

pub(crate) fn cart(lines: Vec<CartLine>) -> Cart {
    Cart {
        location_id: SHOP,
        currency: "EUR".into(),
        occurred_at: at(AT),
        customer_id: None,
        lines,
        order_discount: None,
        coupons: Vec::new(),
        redemption: None,
    }
}

fn sold(snapshot: &Snapshot, qtys: &[i64]) -> Priced {
    let lines = qtys.iter().enumerate().map(|(index, qty)| line(index, *qty)).collect();
    price(snapshot, &cart(lines), &Terms::default()).unwrap()
}

/// What the pricing of this cart refuses: code and place of each finding.
fn refused(snapshot: &Snapshot, lines: Vec<CartLine>) -> Vec<(&'static str, String)> {
    let problems = price(snapshot, &cart(lines), &Terms::default()).unwrap_err();
    problems.into_iter().map(|problem| (problem.code, problem.pointer)).collect()
}

#[test]
fn no_figure_goes_beyond_what_every_store_can_hold() {
    let free = |line: CartLine| {
        let percent = Decimal::ONE_HUNDRED;
        CartLine { discount: Some(Discount::Percent { percent, reason: "gift".into() }), ..line }
    };
    // 900,000.00 a piece: the limit is reached with a million of them, and not passed.
    let snapshot = shop(RoundingMode::HalfEven, vec![tax(1, "0.19")], &[90_000_000, 100_000_000, 1_000_000_000_000]);
    assert_eq!(
        price(&snapshot, &cart(vec![free(line(0, QTY_MAX))]), &Terms::default()).unwrap().subtotal_minor,
        money::FIGURE_MAX
    );
    let qty = |index: usize| vec![("overflow", format!("/lines/{index}/qty"))];
    assert_eq!(refused(&snapshot, vec![free(line(1, QTY_MAX))]), qty(0));
    // A sum of lines, a tax on top, and a price for one unit made of the amount for a thousandth.
    let all = vec![("overflow", "/lines".to_owned())];
    assert_eq!(refused(&snapshot, vec![free(line(0, QTY_MAX)), CartLine { line_no: 2, ..free(line(2, 1_000)) }]), all);
    assert_eq!(refused(&snapshot, vec![line(0, QTY_MAX)]), all);
    let override_ = Some(Override::LineAmount { amount_minor: 1_000_000_000_000, reason: "imported".into() });
    let mut measured = snapshot.clone();
    let variant = Arc::make_mut(measured.variants.get_mut(&variant(0)).unwrap());
    variant.is_measured = true;
    assert_eq!(refused(&measured, vec![CartLine { override_, ..line(0, 1) }]), qty(0));
}

fn tax_amounts(priced: &Priced) -> Vec<i64> {
    priced.lines.iter().map(|line| line.tax_minor).collect()
}

#[test]
fn exclusive_tax_per_line() {
    let priced = sold(&shop(RoundingMode::HalfEven, vec![tax(1, "0.08875")], &[115; 3]), &[1000; 3]);
    assert_eq!(tax_amounts(&priced), [10, 10, 10]);
    assert_eq!((priced.tax_minor, priced.total_minor), (30, 375));
}

#[test]
fn exclusive_tax_per_order_is_rounded_once_and_allocated() {
    let priced = sold(&shop(RoundingMode::HalfEven, vec![per_order(tax(1, "0.08875"))], &[115; 3]), &[1000; 3]);
    assert_eq!(tax_amounts(&priced), [11, 10, 10]);
    assert_eq!(priced.total_minor, 376);
    assert!(
        priced.trace.contains(
            r#""base":345,"exact":"4899/160","mode":"half_even","result":31,"shares":[[1,11],[2,10],[3,10]]"#
        )
    );
}

#[test]
fn a_compound_tax_bears_on_the_exact_lower_tax() {
    // 5 % of 10.10 is 0.505; 10 % of 10.605 is 1.0605 -> 1.06, of the rounded 10.60 or 10.61 it would be 1.06 too,
    // so the second case takes amounts where only the exact base gives 1.00.
    let taxes = vec![tax(1, "0.05"), compound(tax(2, "0.1"))];
    let priced = sold(&shop(RoundingMode::HalfUp, taxes, &[1010]), &[1000]);
    let amounts: Vec<i64> = priced.lines[0].taxes.iter().map(|tax| tax.amount_minor).collect();
    assert_eq!(amounts, [51, 106]);
    let taxes = vec![tax(1, "0.05"), compound(tax(2, "0.5"))];
    let priced = sold(&shop(RoundingMode::HalfUp, taxes, &[110]), &[1000]);
    // 0.055 -> 0.06; 0.5 * 1.155 = 0.5775 -> 0.58; on the rounded 1.16 also 0.58
    let amounts: Vec<i64> = priced.lines[0].taxes.iter().map(|tax| tax.amount_minor).collect();
    assert_eq!(amounts, [6, 58]);
    let taxes = vec![tax(1, "0.05"), compound(tax(2, "0.9"))];
    let priced = sold(&shop(RoundingMode::HalfUp, taxes, &[30]), &[1000]);
    // 0.015 -> 0.02; 0.9 * 0.315 = 0.2835 -> 0.28; on the rounded 0.32 it would be 0.288 -> 0.29
    let amounts: Vec<i64> = priced.lines[0].taxes.iter().map(|tax| tax.amount_minor).collect();
    assert_eq!(amounts, [2, 28]);
}

#[test]
fn inclusive_tax_per_line_and_per_order_keep_the_gross() {
    let per_line = sold(&shop(RoundingMode::HalfEven, vec![included(tax(1, "0.2"))], &[333; 3]), &[1000; 3]);
    assert_eq!(tax_amounts(&per_line), [56, 56, 56]);
    let order = sold(&shop(RoundingMode::HalfEven, vec![per_order(included(tax(1, "0.2")))], &[333; 3]), &[1000; 3]);
    assert_eq!(tax_amounts(&order), [56, 55, 55]);
    for priced in [per_line, order] {
        assert_eq!(priced.total_minor, 999);
        assert!(priced.lines.iter().all(|line| line.net_minor + line.tax_minor == 333));
    }
}

#[test]
fn several_inclusive_taxes_are_one_total_split_by_exact_shares() {
    let taxes = vec![included(tax(1, "0.1")), compound(included(tax(2, "0.1")))];
    let priced = sold(&shop(RoundingMode::HalfEven, taxes, &[1210]), &[1000]);
    let amounts: Vec<i64> = priced.lines[0].taxes.iter().map(|tax| tax.amount_minor).collect();
    assert_eq!((amounts, priced.lines[0].net_minor), (vec![100, 110], 1000));
}

#[test]
fn line_discounts_lower_the_base_of_the_tax() {
    let snapshot = shop(RoundingMode::HalfEven, vec![included(tax(1, "0.19"))], &[1000, 1000]);
    let mut lines = vec![line(0, 3000), line(1, 1000)];
    lines[0].discount = Some(Discount::Amount { amount_minor: 299, reason: "dented".into() });
    lines[1].discount = Some(Discount::Percent { percent: "10.5".parse().unwrap(), reason: "staff".into() });
    let priced = price(&snapshot, &cart(lines), &Terms::default()).unwrap();
    assert_eq!((priced.lines[0].payable_minor, priced.lines[1].payable_minor), (2701, 895));
    assert!(unit_shares(&priced.lines[0]).contains(r#""n":3,"extended":[1000,0],"discounts":[[99,2]]"#));
    assert_eq!(priced.discount_minor, 404);
}

#[test]
fn a_discount_on_the_order_is_handed_to_the_lines_by_what_is_left_of_them() {
    let snapshot = shop(RoundingMode::HalfEven, vec![tax(1, "0.1")], &[1000, 1000, 1000]);
    let mut cart = cart(vec![line(2, 1000), line(0, 1000), line(1, 1000)]);
    cart.lines[1].discount = Some(Discount::Amount { amount_minor: 400, reason: "dented".into() });
    cart.order_discount = Some(Discount::Amount { amount_minor: 100, reason: "regular".into() });
    let priced = price(&snapshot, &cart, &Terms::default()).unwrap();
    let lines: Vec<_> = priced.lines.iter().map(|line| (line.line_no, line.discount_minor, line.tax_minor)).collect();
    // 100 on 600, 1000, 1000: 23.08, 38.46, 38.46; the unit that is left goes to the larger fraction, then the earlier line.
    assert_eq!(lines, [(1, 423, 58), (2, 39, 96), (3, 38, 96)]);
    let ids: Vec<_> = priced.lines[0].discounts.iter().map(|it| (it.kind, it.id(Uuid::nil(), 1))).collect();
    assert_eq!((ids[0].0, ids[1].0), ("amount", "order_amount"));
    assert_ne!(ids[0].1, ids[1].1);
    assert!(priced.trace.contains(r#""rule":"order_discount_amount","base":2600"#));
    assert!(priced.trace.contains(r#""shares":[[1,23],[2,39],[3,38]]"#));
    cart.order_discount = Some(Discount::Amount { amount_minor: 2601, reason: "regular".into() });
    let problems = price(&snapshot, &cart, &Terms::default()).unwrap_err();
    assert_eq!((problems[0].code, problems[0].pointer.as_str()), ("discount_exceeds_order", "/order_discount"));
}

#[test]
fn a_full_discount_has_no_tax_and_a_larger_one_is_refused() {
    let snapshot = shop(RoundingMode::HalfEven, vec![tax(1, "0.19")], &[1000]);
    let mut lines = vec![line(0, 1000)];
    lines[0].discount = Some(Discount::Percent { percent: 100.into(), reason: "gift".into() });
    let priced = price(&snapshot, &cart(lines.clone()), &Terms::default()).unwrap();
    assert_eq!((priced.tax_minor, priced.total_minor), (0, 0));
    lines[0].discount = Some(Discount::Amount { amount_minor: 1001, reason: "gift".into() });
    let problems = price(&snapshot, &cart(lines), &Terms::default()).unwrap_err();
    assert_eq!((problems[0].code, problems[0].pointer.as_str()), ("discount_exceeds_line", "/lines/0/discount"));
}

#[test]
fn an_override_replaces_the_price_and_an_imported_line_carries_its_own_amount() {
    let snapshot = shop(RoundingMode::HalfEven, vec![included(tax(1, "0.2"))], &[1000, 1000]);
    let mut lines = vec![line(0, 2000), line(1, 3000)];
    lines[0].override_ = Some(Override::UnitPrice { unit_price_minor: 800, reason: "match".into() });
    lines[1].override_ = Some(Override::LineAmount { amount_minor: 7, reason: "imported".into() });
    let priced = price(&snapshot, &cart(lines), &Terms::default()).unwrap();
    assert_eq!((priced.lines[0].extended_minor, priced.lines[0].list_price_minor), (1600, 1000));
    assert_eq!((priced.lines[1].extended_minor, priced.lines[1].unit_price_minor), (7, 2));
}

#[test]
fn the_price_in_force_is_of_the_location_then_the_latest_and_ends_before_valid_to() {
    let mut snapshot = shop(RoundingMode::HalfEven, vec![tax(1, "0")], &[1000]);
    let here = |amount, from: &str, to: Option<&str>| Price {
        location_id: Some(SHOP),
        valid_from: at(from),
        valid_to: to.map(at),
        ..list_price(amount, false)
    };
    snapshot.prices.insert(
        variant(0),
        vec![
            Price { valid_from: at("2026-05-03T00:00:00Z"), ..list_price(900, false) },
            here(700, "2026-05-02T00:00:00Z", Some("2026-05-04T12:00:00Z")),
            here(600, "2026-05-01T00:00:00Z", None),
            list_price(1000, false),
        ]
        .into(),
    );
    let amount = |when: &str| snapshot.price_at(variant(0), SHOP, "EUR", at(when)).map(|price| price.amount_minor);
    assert_eq!(amount("2026-05-04T11:59:59Z"), Some(700));
    assert_eq!(amount("2026-05-04T12:00:00Z"), Some(600));
    assert_eq!(amount("2026-04-30T00:00:00Z"), Some(1000));
    assert_eq!(amount("1969-12-31T00:00:00Z"), None);
    assert_eq!(snapshot.price_at(variant(0), LocationId::NIL, "EUR", at(AT)).unwrap().amount_minor, 900);
    assert!(snapshot.price_at(variant(0), SHOP, "USD", at(AT)).is_none());
}

#[test]
fn wrong_lines_are_all_named() {
    let snapshot = shop(RoundingMode::HalfEven, vec![tax(1, "0.2")], &[i64::MAX / 1000, 100]);
    let mut unknown = line(0, 1000);
    unknown.variant_id = VariantId::NIL;
    let problems =
        price(&snapshot, &cart(vec![unknown, line(1, 1500), line(0, QTY_MAX)]), &Terms::default()).unwrap_err();
    let named: Vec<_> = problems.iter().map(|problem| (problem.pointer.as_str(), problem.code)).collect();
    assert_eq!(
        named,
        [
            ("/lines/0/variant_id", "unknown_variant"),
            ("/lines/1/qty", "fractional_piece"),
            ("/lines/2/qty", "overflow")
        ]
    );
    let two_big = vec![line(0, 1_000_000), line(0, 1_000_000)];
    assert_eq!(price(&snapshot, &cart(two_big), &Terms::default()).unwrap_err()[0].code, "overflow");
}

pub(crate) fn any_tax() -> impl Strategy<Value = Tax> {
    (1u128..6, 0i64..3_000_000, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(id, micros, is_inclusive, is_compound, is_per_order)| {
            let rate = Decimal::new(micros, 7).round_dp(6);
            Tax { is_inclusive, is_compound, is_per_order, rate, ..tax(id, "0") }
        },
    )
}

proptest! {
    #[test]
    fn lines_sum_to_the_header_and_a_contained_tax_never_changes_the_gross(
        taxes in prop::collection::vec(any_tax(), 0..4),
        lines in prop::collection::vec((0i64..100_000, 1i64..50, 0u32..101), 1..12),
        mode in 0usize..5,
    ) {
        let mut taxes = taxes;
        for (index, tax) in taxes.iter_mut().enumerate() { tax.tax_id = Uuid::from_u128(index as u128); }
        let prices: Vec<i64> = lines.iter().map(|(price, _, _)| *price).collect();
        let snapshot = shop(RoundingMode::ALL[mode], taxes, &prices);
        let lines = lines.iter().enumerate().map(|(index, (_, pieces, percent))| CartLine {
            discount: Some(Discount::Percent { percent: (*percent).into(), reason: "x".into() }),
            ..line(index, pieces * 1000)
        }).collect();
        let cart = cart(lines);
        let priced = price(&snapshot, &cart, &Terms::default()).unwrap();
        let sum = |figure: fn(&PricedLine) -> i64| priced.lines.iter().map(figure).sum::<i64>();
        prop_assert_eq!(priced.subtotal_minor - priced.discount_minor + sum(|line| line.added_tax_minor), priced.total_minor);
        prop_assert_eq!(sum(|line| line.payable_minor), priced.total_minor);
        prop_assert_eq!(sum(|line| line.net_minor) + priced.tax_minor, priced.total_minor);
        for line in &priced.lines {
            let contained: i64 = line.taxes.iter().filter(|tax| tax.is_inclusive).map(|tax| tax.amount_minor).sum();
            prop_assert!(line.taxes.iter().all(|tax| tax.amount_minor >= 0));
            prop_assert_eq!(line.tax_minor - contained, line.added_tax_minor);
            prop_assert_eq!(line.net_minor + contained, line.extended_minor - line.discount_minor);
        }
        prop_assert!(serde_json::from_str::<serde_json::Value>(&priced.trace).is_ok());
        // The quote and the commit call the same function: the same cart gives the same bytes.
        prop_assert_eq!(format!("{:?}", price(&snapshot, &cart, &Terms::default()).unwrap()), format!("{priced:?}"));
    }
}

const PROGRAM: ProgramId = ProgramId(Uuid::from_u128(77));

/// A shop whose points are worth a minor unit each.
fn with_points(mut snapshot: Snapshot) -> Snapshot {
    let worth = Some(Worth { points: 1, minor: 1 });
    let rule = EarnRule { step_minor: 100, points_per_step: 1 };
    let program = Program { program_id: PROGRAM, rule, expires_after_days: None, pending_days: None, worth };
    snapshot.programs = Arc::new(HashMap::from([(PROGRAM, program)]));
    snapshot
}

fn redeemed(snapshot: &Snapshot, lines: Vec<CartLine>, points: i64) -> Result<Priced, Vec<FieldProblem>> {
    let redemption = Some(Redemption { program_id: PROGRAM, points });
    price(snapshot, &Cart { redemption, ..cart(lines) }, &Terms::default())
}

/// Rule T6: money and points by the bases before redemption, after the discounts of the lines.
#[test]
fn points_are_handed_to_lines_by_what_they_were_worth_before() {
    let snapshot = with_points(shop(RoundingMode::HalfEven, vec![tax(1, "0.10")], &[1000, 500, 0]));
    let half = Discount::Percent { percent: Decimal::from(50), reason: "half".into() };
    let lines = vec![CartLine { discount: Some(half), ..line(0, 1000) }, line(1, 3000), line(2, 1000)];
    let priced = redeemed(&snapshot, lines, 333).unwrap();
    let of: Vec<_> =
        priced.lines.iter().map(|line| (line.redemption_minor, line.redemption_points, line.tax_minor)).collect();
    assert_eq!(of, [(83, 83, 42), (250, 250, 125), (0, 0, 0)]);
    assert_eq!((priced.discount_minor, priced.tax_minor, priced.total_minor), (833, 167, 2000 - 333 + 167));
    let shares = r#"{"n":3,"extended":[500,0],"discounts":[],"redemption":[83,1],"redemption_points":[83,1],"added_tax":[41,2],"taxes":[[41,2]]}"#;
    assert_eq!(unit_shares(&priced.lines[1]), shares);
}

proptest! {
    #[test]
    fn a_redemption_lowers_the_total_by_its_money_and_its_taxes_and_no_line_below_zero(
        prices in prop::collection::vec(0i64..5_000, 1..8), share in 0i64..=100, mode in 0usize..5, inclusive: bool,
        order: bool) {
        let rate = tax(1, "0.0775");
        let rate = if order { per_order(rate) } else { rate };
        let rate = if inclusive { included(rate) } else { rate };
        let snapshot = with_points(shop(RoundingMode::ALL[mode], vec![rate], &prices));
        let lines = || (0..prices.len()).map(|index| line(index, 2000)).collect::<Vec<_>>();
        let base: i64 = prices.iter().map(|price| 2 * price).sum();
        let points = base * share / 100;
        prop_assume!(points > 0);
        let priced = redeemed(&snapshot, lines(), points).unwrap();
        prop_assert_eq!(priced.redemption.map(|it| it.amount_minor), Some(points));
        prop_assert_eq!(priced.lines.iter().map(|line| line.redemption_minor).sum::<i64>(), points);
        prop_assert_eq!(priced.lines.iter().map(|line| line.redemption_points).sum::<i64>(), points);
        let added: i64 = priced.lines.iter().map(|line| line.added_tax_minor).sum();
        prop_assert_eq!(priced.total_minor, base - points + added);
        prop_assert_eq!(priced.discount_minor, points);
        for line in &priced.lines {
            prop_assert!(line.redemption_minor <= line.extended_minor && line.payable_minor >= 0 && line.net_minor >= 0);
        }
        let more = redeemed(&snapshot, lines(), base + 1).unwrap_err();
        prop_assert_eq!((more[0].code, more[0].pointer.as_str()), ("redemption_exceeds_base", "/redemption/points"));
    }
}
