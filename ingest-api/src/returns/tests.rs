//! Rules T3 to T6 as properties, and the examples of the guide by name, in currencies with 0, 2 and 3 decimals.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::DocumentLine;
use schemas::ids::{LocationId, LotId, ProductId, TaxProfileId, TerminalId, VariantId};
use schemas::money::{Currency, RoundingMode};
use uuid::Uuid;

use super::legs::{LEG_RETURN, Place, SoldLine};
use super::origin::{Accrued, Held, Origin, Origins, Spent};
use super::payout::{self, Share};
use super::plan::{Plan, plan};
use super::points::{self, Account, Moment, taken_back};
use super::types::{Disposition, Kind, Payment, Returned, TenderRef, ValidReturn};
use crate::approvals::Presented;
use crate::loyalty::accrual::EarnRule;
use crate::loyalty::lots::{Lot, LotDelta};
use crate::pricing::snapshot::{Location, Price, RateSet, Snapshot, Tax, TaxProfile, Variant};
use crate::pricing::{Cart, CartLine, Discount, Terms, price};
use crate::sales::events::document_line;
use crate::sales::refusal::Refusal;
use crate::sales::types::{Receipt, TenderKind, ValidSale};

const SHOP: LocationId = LocationId(Uuid::from_u128(1));
const PROFILE: TaxProfileId = TaxProfileId(Uuid::from_u128(2));
const SALE: Uuid = Uuid::from_u128(7);

fn now() -> DateTime<Utc> {
    "2026-05-04T12:00:00Z".parse().unwrap()
}

/// What a test sells with: a currency, taxes, prices of its variants.
#[derive(Debug, Clone)]
struct Shop {
    currency: &'static str,
    mode: RoundingMode,
    cash_step: i64,
    taxes: Vec<(String, bool, bool)>,
    prices: Vec<(i64, bool)>,
}

impl Shop {
    fn new(currency: &'static str, rate: &str, is_inclusive: bool, prices: &[i64]) -> Shop {
        let prices = prices.iter().map(|amount| (*amount, false)).collect();
        let taxes = vec![(rate.to_owned(), is_inclusive, false)];
        Shop { currency, mode: RoundingMode::HalfEven, cash_step: 1, taxes, prices }
    }

    fn snapshot(&self) -> Snapshot {
        let location = Location {
            location_id: SHOP,
            currency: self.currency.into(),
            zone: chrono_tz::Europe::Berlin,
            day_cutoff: NaiveTime::MIN,
            opened_on: NaiveDate::MIN,
            rounding_mode: self.mode,
            cash_step: self.cash_step,
            cash_mode: RoundingMode::HalfUp,
            denies_oversell: false,
            is_active: true,
        };
        let taxes = self.taxes.iter().zip(1u128..).map(|((rate, is_inclusive, is_per_order), id)| Tax {
            tax_id: Uuid::from_u128(id),
            name: "VAT".into(),
            rate: rate.parse().unwrap(),
            rate_text: rate.as_str().into(),
            is_inclusive: *is_inclusive,
            is_compound: false,
            is_per_order: *is_per_order,
        });
        let rate_sets = vec![RateSet { valid_from: DateTime::UNIX_EPOCH, taxes: taxes.collect() }];
        let mut snapshot = Snapshot { version: 1, epoch: 1, ..Snapshot::default() };
        snapshot.locations = HashMap::from([(SHOP, Arc::new(location))]);
        snapshot.tax_profiles = HashMap::from([(PROFILE, Arc::new(TaxProfile { tax_profile_id: PROFILE, rate_sets }))]);
        for (index, (amount_minor, is_measured)) in self.prices.iter().enumerate() {
            let variant_id = variant(index);
            let made = Variant {
                category: String::new(),
                variant_id,
                product_id: ProductId(variant_id.0),
                sku: format!("SKU{index}"),
                name: "thing".into(),
                unit: "piece".into(),
                is_measured: *is_measured,
                tracks_stock: true,
                tax_profile_id: PROFILE,
                unit_cost: Some(7),
                is_active: true,
            };
            let price = Price {
                price_id: Uuid::from_u128(5),
                location_id: None,
                currency: self.currency.into(),
                amount_minor: *amount_minor,
                tax_inclusive: self.taxes.iter().any(|(_, is_inclusive, _)| *is_inclusive),
                valid_from: DateTime::UNIX_EPOCH,
                valid_to: None,
            };
            snapshot.variants.insert(variant_id, Arc::new(made));
            snapshot.prices.insert(variant_id, vec![price].into());
        }
        snapshot
    }

    /// The lines of a sale as they are stored.
    fn sell(&self, lines: Vec<CartLine>) -> Vec<DocumentLine> {
        let sale = self.sale(lines);
        let priced = price(&self.snapshot(), &sale.cart, &Terms::default()).unwrap();
        priced.lines.iter().map(|line| document_line(&sale, line)).collect()
    }

    fn sale(&self, lines: Vec<CartLine>) -> ValidSale {
        ValidSale {
            document_id: SALE.into(),
            terminal_id: TerminalId::NIL,
            terminal_seq: 1,
            receipt: Receipt { series_epoch: 1, number: 1 },
            cashier_id: Uuid::nil().into(),
            customer_id: None,
            lease_id: None,
            sent_at: None,
            cart: Cart {
                location_id: SHOP,
                currency: self.currency.into(),
                occurred_at: now(),
                lines,
                customer_id: None,
                order_discount: None,
                coupons: Vec::new(),
                redemption: None,
            },
            tenders: Vec::new(),
            total_minor: 0,
            content_hash: [0; 32],
            presented: Presented::Nothing,
        }
    }

    fn plan(&self, origins: &Origins, returned: &[(i32, i64)], lines: Vec<CartLine>) -> Result<Plan, Refusal> {
        let kind = if lines.is_empty() { Kind::Refund } else { Kind::Exchange };
        let returned = returned.iter().zip(500..).map(|((origin_line_no, qty), line_no)| Returned {
            line_no,
            origin_document_id: SALE,
            origin_line_no: *origin_line_no,
            qty: *qty,
            disposition: Disposition::Resellable,
        });
        let document = ValidReturn {
            kind,
            sale: ValidSale { document_id: Uuid::from_u128(8).into(), ..self.sale(lines) },
            reason: "defect".to_owned(),
            returned: returned.collect(),
            payments: Vec::new(),
        };
        plan(&self.snapshot(), &document, origins)
    }
}

fn variant(index: usize) -> VariantId {
    VariantId(Uuid::from_u128(100 + index as u128))
}

fn line(index: usize, qty: i64) -> CartLine {
    CartLine { line_no: index as i32 + 1, variant_id: variant(index), qty, discount: None, override_: None }
}

fn off(line: CartLine, amount_minor: i64) -> CartLine {
    CartLine { discount: Some(Discount::Amount { amount_minor, reason: "off".into() }), ..line }
}

/// A stored sale of these lines, with what has come back of each.
fn origins(currency: &str, mode: RoundingMode, lines: Vec<DocumentLine>, returned: &[i64]) -> Origins {
    let lines = lines
        .into_iter()
        .enumerate()
        .map(|(index, line)| SoldLine { line, returned: returned.get(index).copied().unwrap_or_default() });
    let origin = Origin {
        document_id: SALE.into(),
        kind: "sale".to_owned(),
        location_id: SHOP,
        currency: currency.to_owned(),
        rounding_mode: mode,
        customer_id: None,
        lines: lines.collect(),
        chain: vec![SALE],
        accrued: Vec::new(),
        spent: Vec::new(),
    };
    Origins { documents: vec![origin], held: Vec::new() }
}

fn place() -> Place {
    Place { document_id: SALE.into(), location_id: SHOP }
}

/// Every stored amount of a line, in order.
fn amounts(line: &DocumentLine) -> Vec<i64> {
    let mut all = vec![
        line.qty,
        line.extended_minor,
        line.discount_minor,
        line.redemption_minor,
        line.redemption_points,
        line.tax_minor,
        line.added_tax_minor,
        line.net_minor,
        line.payable_minor,
    ];
    all.extend(line.discounts.iter().map(|discount| discount.amount_minor));
    all.extend(line.taxes.iter().flat_map(|tax| [tax.base_minor, tax.amount_minor]));
    all
}

/// Takes the parts back one after the other; the sum of each amount, and the legs.
fn take_back(line: &DocumentLine, parts: &[i64], mode: RoundingMode) -> (Vec<i64>, Vec<DocumentLine>) {
    let mut sold = SoldLine { line: line.clone(), returned: 0 };
    let mut sums = vec![0; amounts(line).len()];
    let mut legs = Vec::new();
    for part in parts {
        let leg = sold.leg(1, *part, place(), mode).unwrap();
        sums.iter_mut().zip(amounts(&leg)).for_each(|(sum, amount)| *sum += amount);
        sold.returned += part;
        legs.push(leg);
    }
    (sums, legs)
}

fn negated(line: &DocumentLine) -> Vec<i64> {
    amounts(line).into_iter().map(|amount| -amount).collect()
}

/// T4: 3 x 10.00 less 2.99: shares 1.00 / 1.00 / 0.99; refunds 9.00, 9.00, 9.01 = 27.01; a fourth is 409.
#[test]
fn partial_refund_of_the_guide() {
    for currency in ["EUR", "JPY", "KWD"] {
        assert!(currency.parse::<Currency>().is_ok());
        let shop = Shop::new(currency, "0", true, &[1000]);
        let lines = shop.sell(vec![off(line(0, 3000), 299)]);
        let mut refunds = Vec::new();
        for returned in [0, 1000, 2000] {
            let plan =
                shop.plan(&origins(currency, shop.mode, lines.clone(), &[returned]), &[(1, 1000)], vec![]).unwrap();
            refunds.push((plan.total_minor, plan.lines[0].discount_minor, plan.lines[0].first_unit));
        }
        assert_eq!(refunds, [(-900, -100, Some(1)), (-900, -100, Some(2)), (-901, -99, Some(3))]);
        let spent = origins(currency, shop.mode, lines.clone(), &[3000]);
        let refusal = shop.plan(&spent, &[(1, 1000)], vec![]).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (409, "already_refunded"));
        let whole = origins(currency, shop.mode, lines, &[]);
        let refusal = shop.plan(&whole, &[(1, 4000)], vec![]).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (422, "quantity_exceeds_document"));
        assert_eq!(refusal.errors[0].pointer, "/lines/0/qty");
        let refusal = shop.plan(&whole, &[(1, 500)], vec![]).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (422, "fractional_piece"));
        // Two lines of one document count together.
        let refusal = shop.plan(&whole, &[(1, 2000), (1, 2000)], vec![]).unwrap_err();
        assert_eq!((refusal.code, refusal.errors[0].pointer.as_str()), ("quantity_exceeds_document", "/lines/1/qty"));
        let split = shop.plan(&whole, &[(1, 2000), (1, 1000)], vec![]).unwrap();
        assert_eq!((split.total_minor, split.lines[1].first_unit), (-2701, Some(3)));
    }
}

/// T5: return 25.00 + 2.22 (8.875 %) = 27.22, buy 40.00 + 3.55 = 43.55: collect 16.33; points at 1 per 1.00: -25 + 40.
#[test]
fn exchange_of_the_guide() {
    let shop = Shop::new("USD", "0.08875", false, &[2500, 4000]);
    let sold = shop.sell(vec![line(0, 1000)]);
    assert_eq!(sold[0].payable_minor, 2722);
    let mut known = origins("USD", shop.mode, sold, &[]);
    let program = Uuid::from_u128(9).into();
    known.documents[0].accrued = vec![Accrued { program_id: program, points: 25 }];
    let plan = shop.plan(&known, &[(1, 1000)], vec![line(1, 1000)]).unwrap();
    assert_eq!((plan.lines[0].payable_minor, plan.lines[1].payable_minor, plan.total_minor), (-2722, 4355, 1633));
    assert_eq!((plan.lines[0].leg.as_str(), plan.returned().len()), (LEG_RETURN, 1));
    let account = account(program, 25, vec![lot(1, SALE, 0, 25)]);
    let moment = Moment { document_id: Uuid::from_u128(8).into(), occurred_at: now(), base_minor: plan.sold_net() };
    let posted = points::entries(&account, &known, plan.returned(), moment);
    let told: Vec<_> =
        posted.iter().map(|entry| (entry.kind, entry.version, entry.delta, entry.points_after)).collect();
    assert_eq!(told, [("claw_back", 4, -25, 0), ("accrual", 5, 40, 40)]);
}

/// The other way round money is paid out, and nothing where both are worth the same.
#[test]
fn an_exchange_pays_out_what_is_left() {
    let shop = Shop::new("USD", "0.08875", false, &[2500, 4000]);
    let known = origins("USD", shop.mode, shop.sell(vec![line(1, 1000)]), &[]);
    assert_eq!(shop.plan(&known, &[(1, 1000)], vec![]).unwrap_err().code, "invalid_value");
    let known = origins("USD", shop.mode, shop.sell(vec![CartLine { line_no: 1, ..line(1, 1000) }]), &[]);
    let plan = shop.plan(&known, &[(1, 1000)], vec![line(0, 1000)]).unwrap();
    assert_eq!((plan.total_minor, plan.order.cash_minor), (-1633, 1633));
    let even = shop.plan(&known, &[(1, 1000)], vec![CartLine { line_no: 2, ..line(1, 1000) }]).unwrap();
    assert_eq!((even.total_minor, even.order), (0, payout::Order::default()));
}

/// T6: 1 per 10.00, base 21.90: 2 points; refunds 5 + 5 + 5 revoke 1, 0, 1.
#[test]
fn points_of_the_guide_are_taken_back() {
    let rule = EarnRule { step_minor: 1000, points_per_step: 1 };
    let taken = [0, 500, 1000].map(|before| taken_back(2, 2190, (before, 500), rule));
    assert_eq!(taken, [1, 0, 1]);
    // Where the rule has changed since: in proportion, and all of it in the end.
    let given = 17;
    let taken: Vec<i64> = (0..4).map(|n| taken_back(given, 2000, (n * 500, 500), rule)).collect();
    assert_eq!((taken.iter().sum::<i64>(), taken_back(given, 2000, (0, 2000), rule)), (17, 17));
}

fn account(program_id: schemas::ids::ProgramId, points: i64, lots: Vec<Lot>) -> Account {
    Account {
        account_id: Uuid::from_u128(10).into(),
        program_id,
        points,
        version: 3,
        rule: EarnRule { step_minor: 100, points_per_step: 1 },
        expires_after_days: None,
        pending_days: None,
        lots,
    }
}

fn lot(id: u128, cause_id: Uuid, day: i64, remaining: i64) -> Lot {
    let at = now() + TimeDelta::days(day);
    let (earned_at, available_at) = (at, at);
    Lot {
        lot_id: LotId(Uuid::from_u128(id)),
        cause_id,
        earned_at,
        available_at,
        expires_at: None,
        points: 99,
        remaining,
    }
}

#[test]
fn points_that_are_gone_become_a_debt_and_spent_ones_come_back() {
    let shop = Shop::new("EUR", "0", true, &[1000]);
    let mut sold = shop.sell(vec![line(0, 2000)]);
    (sold[0].redemption_minor, sold[0].redemption_points) = (500, 50);
    (sold[0].net_minor, sold[0].payable_minor) = (1500, 1500);
    let mut known = origins("EUR", shop.mode, sold, &[]);
    let program = Uuid::from_u128(9).into();
    let spent = |id: u128, delta: i64| {
        let at = now();
        LotDelta { lot_id: LotId(Uuid::from_u128(id)), delta, earned_at: at, available_at: at, expires_at: None }
    };
    known.documents[0].accrued = vec![Accrued { program_id: program, points: 15 }];
    known.documents[0].spent =
        vec![Spent { program_id: program, consumed: vec![spent(1, -30), spent(2, -20)], restored: 0 }];
    let plan = shop.plan(&known, &[(1, 2000)], vec![]).unwrap();
    assert_eq!((plan.lines[0].redemption_minor, plan.lines[0].redemption_points), (-500, -50));
    let moment = Moment { document_id: Uuid::from_u128(8).into(), occurred_at: now(), base_minor: 0 };
    let posted = points::entries(&account(program, 3, vec![lot(5, SALE, 0, 3)]), &known, plan.returned(), moment);
    assert_eq!(posted.len(), 2);
    let deltas = |n: usize| posted[n].lots.iter().map(|lot| lot.delta).collect::<Vec<_>>();
    // In reverse order of consumption, and before anything is taken: what comes back pays.
    assert_eq!((posted[0].kind, posted[0].delta, deltas(0)), ("redemption_return", 50, vec![20, 30]));
    assert_eq!((posted[1].kind, posted[1].delta, deltas(1)), ("claw_back", -15, vec![-3, -12]));
    assert!(posted[1].lots.iter().all(|lot| lot.lot_id.0.as_u128() < 10), "no debt: {:?}", posted[1].lots);
    assert_eq!(posted[1].points_after, 38);
}

fn held(no: i32, kind: &str, amount: i64, left: i64) -> Held {
    Held {
        at: TenderRef { document_id: SALE, tender_no: no },
        occurred_at: now(),
        kind: kind.to_owned(),
        amount_minor: amount,
        held_minor: left,
        psp_reference: None,
        card_brand: None,
        card_last_four: None,
        card_expiry: None,
        liability_account_id: None,
    }
}

fn paid(kind: TenderKind, amount_minor: i64, to: Option<i32>) -> Payment {
    let origin = to.map(|tender_no| TenderRef { document_id: SALE, tender_no });
    Payment { kind, amount_minor, card: None, origin }
}

#[test]
fn money_goes_back_to_the_latest_tender_first_and_the_rest_is_cash() {
    let mut shop = Shop::new("EUR", "0", true, &[1291]);
    shop.cash_step = 5;
    let lines = shop.sell(vec![line(0, 1000)]);
    let mut known = origins("EUR", shop.mode, lines, &[]);
    known.held = vec![held(3, "other", 200, 200), held(1, "card", 1000, 800)];
    let plan = shop.plan(&known, &[(1, 1000)], vec![]).unwrap();
    let share = |tender_no, amount_minor| Share { to: TenderRef { document_id: SALE, tender_no }, amount_minor };
    assert_eq!((plan.order.shares.clone(), plan.order.cash_minor), (vec![share(3, 200), share(1, 800)], 291));
    let settle =
        |payments: &[Payment]| payout::settled(plan.total_minor, payments, &plan.order, &known, &plan.location);
    let other = paid(TenderKind::Other, -200, Some(3));
    let in_order = [other.clone(), paid(TenderKind::Card, -800, Some(1)), paid(TenderKind::Cash, -290, None)];
    let settled = settle(&in_order).unwrap();
    assert_eq!((settled.rounding_minor, settled.change_minor, settled.diverted_minor), (1, 0, 0));
    // All in cash: as much goes elsewhere as the tenders would have got.
    let cash = settle(&[paid(TenderKind::Cash, -1290, None)]).unwrap();
    assert_eq!((cash.rounding_minor, cash.diverted_minor), (1, 1000));
    let to_other_card = [other.clone(), paid(TenderKind::Card, -1091, None)];
    assert_eq!(settle(&to_other_card).unwrap().diverted_minor, 1091);
    let code = |payments: &[Payment]| {
        let refusal = settle(payments).unwrap_err();
        (refusal.status.as_u16(), refusal.code, refusal.errors[0].pointer.clone())
    };
    let at = |pointer: &str| pointer.to_owned();
    let card = |amount| paid(TenderKind::Card, amount, Some(1));
    assert_eq!(code(&[card(-900)]), (409, "already_refunded", at("/tenders/0/amount_minor")));
    assert_eq!(code(&[card(-500), card(-400)]), (409, "already_refunded", at("/tenders/1/amount_minor")));
    assert_eq!(code(&[card(-1001)]), (422, "quantity_exceeds_document", at("/tenders/0/amount_minor")));
    assert_eq!(code(&[paid(TenderKind::Other, -1, Some(1))]), (422, "invalid_value", at("/tenders/0/kind")));
    assert_eq!(code(&[paid(TenderKind::Card, -1, Some(9))]), (422, "invalid_value", at("/tenders/0/origin")));
    assert_eq!(code(&[paid(TenderKind::Cash, 1290, None)]), (422, "invalid_value", at("/tenders/0/amount_minor")));
    assert_eq!(code(&[card(-800)]), (422, "tenders_do_not_add_up", at("/tenders")));
    assert_eq!(code(&[paid(TenderKind::Cash, -1295, None)]), (422, "tenders_do_not_add_up", at("/tenders")));
    assert_eq!(code(&[]), (422, "tenders_do_not_add_up", at("/tenders")));
}

/// Stored lines of any shape: with discounts, taxes added and contained, redemption, in all modes.
fn any_line() -> impl Strategy<Value = (DocumentLine, RoundingMode)> {
    let taxes = prop::collection::vec((0i64..300_000, any::<bool>(), any::<bool>()), 0..3);
    (taxes, 0i64..200_000, 1i64..40, any::<bool>(), 0u32..=100, 0usize..5, 0i64..1_000, 0i64..500).prop_map(
        |(taxes, amount, count, is_measured, percent, mode, redeemed, points)| {
            let mode = RoundingMode::ALL[mode];
            let taxes = taxes.iter().map(|(micros, is_inclusive, is_per_order)| {
                (Decimal::new(*micros, 6).normalize().to_string(), *is_inclusive, *is_per_order)
            });
            let shop = Shop {
                currency: "EUR",
                mode,
                cash_step: 1,
                taxes: taxes.collect(),
                prices: vec![(amount, is_measured)],
            };
            let qty = if is_measured { count * 377 } else { count * 1000 };
            let discount = Discount::Percent { percent: percent.into(), reason: "off".into() };
            let mut line = shop.sell(vec![CartLine { discount: Some(discount), ..line(0, qty) }]).remove(0);
            // A second discount and what points paid, as far as the line is worth it.
            let more = redeemed.min(line.net_minor).max(0);
            line.discounts.push(line.discounts[0].clone());
            line.discount_minor *= 2;
            (line.redemption_minor, line.redemption_points) = (more, points);
            line.payable_minor =
                line.extended_minor - line.discount_minor - line.redemption_minor + line.added_tax_minor;
            line.net_minor = line.payable_minor - line.tax_minor;
            (line, mode)
        },
    )
}

/// A way to take all of it back: parts that add up to the quantity.
fn parts(line: &DocumentLine, cuts: &[usize]) -> Vec<i64> {
    let step = if line.is_measured { 1 } else { 1000 };
    let count = (line.qty / step) as usize;
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (count + 1)).chain([0, count]).collect();
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|two| (two[1] - two[0]) as i64 * step).collect()
}

proptest! {
    /// Rule T4: whatever the order and the splitting, each stored amount comes back to the minor unit.
    #[test]
    fn any_splitting_of_refunds_is_the_sale(
        (line, mode) in any_line(), cuts in prop::collection::vec(any::<usize>(), 0..6),
        others in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let (whole, _) = take_back(&line, &[line.qty], mode);
        prop_assert_eq!(&whole, &negated(&line));
        for cuts in [cuts, others] {
            let (sums, legs) = take_back(&line, &parts(&line, &cuts), mode);
            prop_assert_eq!(&sums, &whole, "{:?}", parts(&line, &cuts));
            for leg in legs {
                let added: i64 = leg.taxes.iter().filter(|tax| !tax.inclusive).map(|tax| tax.amount_minor).sum();
                prop_assert_eq!(leg.added_tax_minor, added);
                prop_assert_eq!(leg.tax_minor, leg.taxes.iter().map(|tax| tax.amount_minor).sum::<i64>());
                prop_assert_eq!(leg.net_minor + leg.tax_minor, leg.payable_minor);
                prop_assert_eq!(leg.unit_cost, line.unit_cost);
            }
        }
    }

    /// Units that came back are the lowest ones, without a hole and without an overlap.
    #[test]
    fn units_follow_each_other(pieces in 1i64..50, cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let line = Shop::new("JPY", "0.1", true, &[333]).sell(vec![line(0, pieces * 1000)]).remove(0);
        let (_, legs) = take_back(&line, &parts(&line, &cuts), RoundingMode::HalfEven);
        let mut next = 1;
        for leg in legs {
            prop_assert_eq!(leg.first_unit, Some(next));
            next = leg.last_unit.unwrap() + 1;
        }
        prop_assert_eq!(next, pieces + 1);
    }

    /// A refund of everything is the sale, document by document: totals, taxes, discounts.
    #[test]
    fn a_refund_of_everything_is_the_sale(
        lines in prop::collection::vec((1i64..100_000, 1i64..20, 0i64..500), 1..6), rate in 0i64..300_000,
        is_inclusive in any::<bool>(), is_per_order in any::<bool>(), currency in 0usize..3,
    ) {
        let currency = ["JPY", "EUR", "KWD"][currency];
        let prices: Vec<i64> = lines.iter().map(|(price, ..)| *price).collect();
        let rate = Decimal::new(rate, 6).normalize().to_string();
        let mut shop = Shop::new(currency, &rate, is_inclusive, &prices);
        shop.taxes[0].2 = is_per_order;
        let cart = lines.iter().enumerate().map(|(index, (price, count, discount))| {
            off(line(index, count * 1000), (*discount).min(price * count))
        });
        let sold = shop.sell(cart.collect());
        let sum = |of: fn(&DocumentLine) -> i64| sold.iter().map(of).sum::<i64>();
        let all: Vec<(i32, i64)> = sold.iter().map(|line| (line.line_no, line.qty)).collect();
        let plan = shop.plan(&origins(currency, shop.mode, sold.clone(), &[]), &all, vec![]).unwrap();
        prop_assert_eq!(plan.total_minor, -sum(|line| line.payable_minor));
        prop_assert_eq!(plan.tax_minor, -sum(|line| line.tax_minor));
        prop_assert_eq!(plan.discount_minor, -sum(|line| line.discount_minor));
        prop_assert_eq!(plan.subtotal_minor, -sum(|line| line.extended_minor));
        // An exchange against the very same goods is nothing, whatever the tax scope, line by line.
        prop_assert_eq!(plan.order.cash_minor, -plan.total_minor);
    }

    /// What goes back to tenders and in cash is what is owed, and no tender gets more than it holds.
    #[test]
    fn the_order_hands_out_what_is_owed(
        tenders in prop::collection::vec((1i64..5_000, 0i64..5_000), 0..6), amount in 0i64..20_000,
    ) {
        let mut known = origins("EUR", RoundingMode::HalfEven, vec![], &[]);
        known.held = tenders.iter().enumerate().map(|(no, (paid, back))| {
            held(no as i32 + 1, "card", *paid, (paid - back).max(0))
        }).collect();
        let order = payout::order(&known, &[(SALE.into(), amount)], amount);
        let given: i64 = order.shares.iter().map(|share| share.amount_minor).sum();
        prop_assert_eq!(given + order.cash_minor, amount);
        for share in &order.shares {
            let held = known.held.iter().find(|held| held.at == share.to).unwrap();
            prop_assert!(share.amount_minor > 0 && share.amount_minor <= held.held_minor);
        }
        let full = order.shares.iter().all(|share| {
            known.held.iter().any(|held| held.at == share.to && held.held_minor == share.amount_minor)
        });
        prop_assert!(order.cash_minor == 0 || full, "cash before a tender is empty");
    }

    /// T6: any splitting takes back the same in all, and never more than was given.
    #[test]
    fn points_are_taken_back_path_independently(
        base in 1i64..100_000, step in 1i64..5_000, per_step in 1i64..5, given in prop::option::of(0i64..500),
        cuts in prop::collection::vec(any::<i64>(), 0..6),
    ) {
        let rule = EarnRule { step_minor: step, points_per_step: per_step };
        let given = given.unwrap_or_else(|| crate::loyalty::accrual::earn(base, rule));
        let mut at: Vec<i64> = cuts.iter().map(|cut| cut.rem_euclid(base + 1)).chain([0, base]).collect();
        at.sort_unstable();
        let taken: i64 = at.windows(2).map(|two| taken_back(given, base, (two[0], two[1] - two[0]), rule)).sum();
        prop_assert_eq!(taken, given);
    }
}
