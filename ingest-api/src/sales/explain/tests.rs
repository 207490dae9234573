use std::sync::Arc;

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::money::RoundingMode;

use super::*;
use crate::pricing::promotions::rule::{Conditions, Effect, Items, Promotion, Rule};
use crate::pricing::tests::{any_tax, cart, compound, line, per_order, shop, tax};
use crate::pricing::{Cart, CartLine, Discount, Override, Priced, Terms, price};

/// As a sale of `priced` is stored and read again.
fn stored(priced: &Priced) -> Stored {
    let sale_id = Uuid::from_u128(1);
    let line = |line: &crate::pricing::PricedLine| StoredLine {
        line_no: line.line_no,
        name: line.variant.name.clone(),
        qty: line.qty,
        unit: line.variant.unit.clone(),
        is_measured: line.variant.is_measured,
        list_price_minor: line.list_price_minor,
        unit_price_minor: line.unit_price_minor,
        override_reason: line.override_reason.clone(),
        extended_minor: line.extended_minor,
        discounts: line
            .discounts
            .iter()
            .map(|it| StoredDiscount {
                discount_id: it.id(sale_id, line.line_no),
                kind: it.kind.to_owned(),
                name: it.name.to_string(),
                amount_minor: it.amount_minor,
            })
            .collect(),
        discount_minor: line.discount_minor,
        redemption_minor: line.redemption_minor,
        taxes: line
            .taxes
            .iter()
            .map(|it| StoredTax {
                tax_id: it.tax_id,
                name: it.name.to_string(),
                rate: it.rate.to_string(),
                inclusive: it.is_inclusive,
                amount_minor: it.amount_minor,
            })
            .collect(),
        tax_minor: line.tax_minor,
        added_tax_minor: line.added_tax_minor,
        payable_minor: line.payable_minor,
    };
    Stored {
        sale_id,
        currency: "EUR".parse().unwrap(),
        total_minor: priced.total_minor,
        tax_minor: priced.tax_minor,
        discount_minor: priced.discount_minor,
        lines: priced.lines.iter().map(line).collect(),
        trace: serde_json::from_str(&priced.trace).unwrap(),
    }
}

fn percent_off(percent: i64) -> Arc<Promotion> {
    Arc::new(Promotion {
        promotion_id: Uuid::from_u128(70),
        name: "Happy hour".into(),
        priority: 0,
        exclusion_group: None,
        needs_coupon: false,
        budget_minor: None,
        uses_max: None,
        is_active: true,
        currency: None,
        rule: Rule {
            effect: Effect::BasketPercent { threshold_minor: 0, percent: percent.into() },
            items: Items::default(),
            conditions: Conditions::default(),
        },
    })
}

/// A sale with every kind of step.
fn everything() -> Stored {
    let taxes = vec![tax(1, "0.05"), compound(per_order(tax(2, "0.09975")))];
    let mut snapshot = shop(RoundingMode::HalfEven, taxes, &[1000, 333, 2000]);
    snapshot.promotions = vec![percent_off(10)];
    let mut cart = cart(vec![line(0, 2000), line(1, 3000), line(2, 1000)]);
    cart.lines[0].discount = Some(Discount::Percent { percent: "12.5".parse().unwrap(), reason: "staff".into() });
    cart.lines[2].override_ = Some(Override::UnitPrice { unit_price_minor: 1500, reason: "match".into() });
    cart.order_discount = Some(Discount::Amount { amount_minor: 100, reason: "regular".into() });
    stored(&price(&snapshot, &cart, &Terms::default()).unwrap())
}

#[test]
fn a_shopkeeper_can_read_every_cent() {
    let explained = explain(&everything());
    assert!(explained.agrees, "{:?}", explained.differences);
    let texts: Vec<&str> = explained.lines[0].steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "2 x 10.00: 20.00",
            "less the discount staff: 2.50 (on 20.00)",
            "less the promotion Happy hour: 1.75 (its part of 2.75 on 27.49; 2.749 exactly, rounded half even)",
            "less the discount on the order regular: 0.40 (its part of 1.00 on 39.74)",
            "plus 5 % tax 1: 0.77 (on 15.35; 0.7675 exactly, rounded half even)",
            "plus 9.975 % tax 2: 1.61 (its part of 4.06 on 38.74; 4.05753 exactly, rounded half even)",
        ]
    );
    assert_eq!(explained.lines[2].steps[0].text, "1 x 15.00, a price set by hand (match) instead of 20.00: 15.00");
    assert_eq!(explained.total, format!("17.73 + 10.13 + 16.88 = {} EUR", words_of(explained.total_minor)));
}

fn words_of(minor: i64) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}

#[test]
fn every_figure_that_was_changed_is_named() {
    let differs = |change: &dyn Fn(&mut Stored)| {
        let mut changed = everything();
        change(&mut changed);
        let explained = explain(&changed);
        assert!(!explained.agrees);
        explained.differences.join("; ")
    };
    assert!(differs(&|it| it.total_minor += 1).contains("total: the trace gives"));
    assert!(differs(&|it| it.tax_minor -= 1).contains("tax: the trace gives"));
    assert!(differs(&|it| it.lines[1].payable_minor += 1).contains("line 2, payable"));
    assert!(differs(&|it| it.lines[0].discounts[0].amount_minor += 1).contains("line 1, sum of discounts"));
    assert!(differs(&|it| it.trace[0].result += 1).contains("step 1 (price): 2000 rounds to 2000, not to 2001"));
    assert!(differs(&|it| it.trace[0].rule = "gift".into()).contains("unknown rule gift"));
    assert!(differs(&|it| it.trace[0].line = 9).contains("names line 9"));
    assert!(differs(&|it| it.trace[0].mode = "odd".into()).contains("cannot be read"));
    let promotion = |it: &mut Stored| it.trace.iter().position(|step| step.rule == "promotion").unwrap();
    assert!(
        differs(&|it| {
            let at = promotion(it);
            it.trace[at].shares[0].1 += 1
        })
        .contains("do not add up")
    );
    assert!(
        differs(&|it| {
            let at = promotion(it);
            it.trace.remove(at);
        })
        .contains("line 1, discount")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]
    #[test]
    fn explain_recomputes_total(
        taxes in prop::collection::vec(any_tax(), 0..3),
        lines in prop::collection::vec((0i64..100_000, 1i64..20, 0u32..60, any::<bool>()), 1..8),
        percent in 0i64..50,
        order in prop::option::of(0i64..10_000),
        mode in 0usize..5,
    ) {
        let mut taxes = taxes;
        for (index, tax) in taxes.iter_mut().enumerate() { tax.tax_id = Uuid::from_u128(index as u128); }
        let prices: Vec<i64> = lines.iter().map(|(price, ..)| *price).collect();
        let mut snapshot = shop(RoundingMode::ALL[mode], taxes, &prices);
        snapshot.promotions = vec![percent_off(percent)];
        let lines = lines.iter().enumerate().map(|(index, (amount, pieces, off, by_hand))| CartLine {
            discount: Some(Discount::Percent { percent: Decimal::from(*off), reason: "x".into() }),
            override_: by_hand.then(|| Override::LineAmount { amount_minor: *amount, reason: "imported".into() }),
            ..line(index, pieces * 1000)
        });
        let order_discount = order.map(|ppm| Discount::Percent { percent: Decimal::new(ppm, 2), reason: "y".into() });
        let cart = Cart { order_discount, ..cart(lines.collect()) };
        let priced = price(&snapshot, &cart, &Terms::default()).unwrap();
        let explained = explain(&stored(&priced));
        prop_assert!(explained.agrees, "{:?}", explained.differences);
        let told: i64 = explained.lines.iter().flat_map(|line| &line.steps).map(|step| step.amount_minor).sum();
        prop_assert_eq!(told, priced.total_minor);
    }
}
