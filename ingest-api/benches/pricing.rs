//! What pricing costs: a basket of ten lines beside twenty active promotions, and the same basket without any.
//!
//! `cargo bench -p ingest-api --bench pricing` prints the median of alternating rounds on one core.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, NaiveTime, Utc};
use ingest_api::pricing::promotions::rule::{Conditions, Day, Effect, Items, Part, Promotion, Rule, Window};
use ingest_api::pricing::snapshot::{Location, Price, RateSet, Snapshot, Tax, TaxProfile, Variant};
use ingest_api::pricing::{Cart, CartLine, Discount, Terms, price};
use schemas::ids::{LocationId, ProductId, TaxProfileId, VariantId};
use schemas::money::RoundingMode;
use uuid::Uuid;

const LINES: usize = 10;
const ROUNDS: usize = 31;
const CARTS_A_ROUND: u32 = 2_000;

fn main() {
    let cart = cart();
    let (with, without) = (snapshot(promotions()), snapshot(Vec::new()));
    let priced = price(&with, &cart, &Terms::default()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (given, skipped) = (priced.promotions.given.len(), priced.promotions.skipped.len());
    let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (times, snapshot) in times.iter_mut().zip([&with, &without]) {
            let begin = Instant::now();
            for _ in 0..CARTS_A_ROUND {
                black_box(price(black_box(snapshot), black_box(&cart), &Terms::default()).is_ok());
            }
            times.push(begin.elapsed().as_secs_f64() * 1e6 / f64::from(CARTS_A_ROUND));
        }
    }
    let [with, without] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!(
        "{LINES} lines, {given} promotions apply and {skipped} do not: {with:.1} us; without promotions: {without:.1} us"
    );
}

fn cart() -> Cart {
    let line = |n: usize| CartLine {
        line_no: n as i32 + 1,
        variant_id: VariantId(id(100 + n)),
        qty: 1000 * (n as i64 % 3 + 1),
        discount: (n == 4).then(|| Discount::Percent { percent: 5.into(), reason: "staff".into() }),
        override_: None,
    };
    Cart {
        location_id: LocationId(id(1)),
        currency: "EUR".into(),
        occurred_at: noon(),
        customer_id: Some(id(5).into()),
        lines: (0..LINES).map(line).collect(),
        order_discount: None,
        coupons: Vec::new(),
        redemption: None,
    }
}

/// Monday, 4 May 2026, 14:00 in Berlin.
fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_777_896_000, 0).unwrap_or_default()
}

fn id(n: usize) -> Uuid {
    Uuid::from_u128(n as u128)
}

/// Twenty of every kind; about half of them apply.
fn promotions() -> Vec<Arc<Promotion>> {
    let of = |category: usize| Items { categories: vec![format!("category {category}")], ..Items::default() };
    let part = |category, units| Part { items: of(category), units };
    let effect = |n: usize| match n % 7 {
        0 => Effect::Percent { percent: 3.into() },
        1 => Effect::AmountPerUnit { amount_minor: 5 },
        2 => Effect::UnitPrice { unit_price_minor: 900 },
        3 => Effect::BuyGet { buy: 2, get: 1, percent: 50.into() },
        4 => Effect::Bundle { parts: vec![part(1, 1), part(2, 1)], price_minor: 1500 },
        5 => Effect::BasketPercent { threshold_minor: 5_000, percent: 2.into() },
        _ => Effect::BasketAmount { threshold_minor: 5_000, amount_minor: 100 },
    };
    let late = Window { days: vec![Day::Mon], from: clock(20), to: clock(22) };
    let promotion = |n: usize| {
        Arc::new(Promotion {
            promotion_id: id(500 + n),
            name: format!("Promotion {n}").into(),
            priority: n as i32,
            exclusion_group: (n % 5 == 4).then(|| "group".into()),
            needs_coupon: n % 9 == 8,
            budget_minor: None,
            uses_max: None,
            is_active: true,
            currency: None,
            rule: Rule {
                effect: effect(n),
                items: if n.is_multiple_of(2) { of(n % 4) } else { Items::default() },
                conditions: Conditions {
                    windows: if n % 6 == 5 { vec![late.clone()] } else { Vec::new() },
                    ..Conditions::default()
                },
            },
        })
    };
    (0..20).map(promotion).collect()
}

fn clock(hour: u32) -> NaiveTime {
    NaiveTime::from_hms_opt(hour, 0, 0).unwrap_or_default()
}

fn snapshot(promotions: Vec<Arc<Promotion>>) -> Snapshot {
    let (location_id, profile) = (LocationId(id(1)), TaxProfileId(id(9)));
    let location = Location {
        location_id,
        currency: "EUR".into(),
        zone: chrono_tz::Europe::Berlin,
        day_cutoff: NaiveTime::MIN,
        opened_on: chrono::NaiveDate::MIN,
        rounding_mode: RoundingMode::HalfEven,
        cash_step: 1,
        cash_mode: RoundingMode::HalfUp,
        denies_oversell: false,
        is_active: true,
    };
    let tax = Tax {
        tax_id: id(8),
        name: "VAT".into(),
        rate: rust_decimal::Decimal::new(19, 2),
        rate_text: "0.19".into(),
        is_inclusive: true,
        is_compound: false,
        is_per_order: false,
    };
    let rate_sets = vec![RateSet { valid_from: DateTime::UNIX_EPOCH, taxes: vec![tax] }];
    Snapshot {
        version: 1,
        epoch: 1,
        locations: HashMap::from([(location_id, Arc::new(location))]),
        variants: (0..LINES).map(|n| (VariantId(id(100 + n)), Arc::new(variant(n, profile)))).collect(),
        prices: (0..LINES).map(|n| (VariantId(id(100 + n)), vec![list_price(n)].into())).collect(),
        tax_profiles: HashMap::from([(profile, Arc::new(TaxProfile { tax_profile_id: profile, rate_sets }))]),
        promotions,
        programs: Arc::default(),
    }
}

fn variant(n: usize, tax_profile_id: TaxProfileId) -> Variant {
    Variant {
        variant_id: VariantId(id(100 + n)),
        product_id: ProductId(id(200 + n)),
        sku: format!("SKU{n}"),
        name: format!("Goods {n}"),
        category: format!("category {}", n % 4),
        unit: "piece".into(),
        is_measured: false,
        tracks_stock: true,
        tax_profile_id,
        unit_cost: None,
        is_active: true,
    }
}

fn list_price(n: usize) -> Price {
    Price {
        price_id: id(300 + n),
        location_id: None,
        currency: "EUR".into(),
        amount_minor: 799 + 100 * n as i64,
        tax_inclusive: true,
        valid_from: DateTime::UNIX_EPOCH,
        valid_to: None,
    }
}
