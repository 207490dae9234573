//! Which sale comes next: a pure function of the seed, the sale's number and the span it falls into,
//! so that the same seed and start sell the same again, byte for byte.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta, Utc};
use rand::distr::Distribution;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_distr::Zipf;
use schemas::money::RoundingMode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::business::{Business, TAX_PROFILES};
use super::names::{CARD_BRANDS, DISCOUNT_REASONS};
use super::trading_hours::TradingHours;
use crate::till_pricing::{Reduction, Taxes, payable};
use crate::wire::{Card, Discount, Line, Receipt, Sale, Tender, TenderKind};

/// Sales sent in one go, kept in the run directory: number of the first, how many, and their span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub first: u64,
    pub count: u64,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// Length of the first span.
pub const OPENING: TimeDelta = TimeDelta::days(7);

impl Span {
    /// The first sales of a business: the week from an instant on.
    pub fn opening(count: u64, from: DateTime<Utc>) -> Span {
        Span { first: 0, count, from, to: from + OPENING }
    }
}

/// What the API must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Sold,
    /// Sent twice: the second answer is 200 with the same bytes.
    SoldTwice,
    /// Refused with this status and code, and nothing of it stored.
    Refused(Refusal),
}

/// Ways in which a till goes wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    WrongTotal,
    UnknownVariant,
    OtherLocation,
    TendersShort,
    OtherMarket,
    ZeroQuantity,
    CashierOfAnotherLocation,
}

impl Refusal {
    pub const ALL: [Refusal; 7] = [
        Refusal::WrongTotal,
        Refusal::UnknownVariant,
        Refusal::OtherLocation,
        Refusal::TendersShort,
        Refusal::OtherMarket,
        Refusal::ZeroQuantity,
        Refusal::CashierOfAnotherLocation,
    ];
}

/// One sale to send.
#[derive(Debug, Clone)]
pub struct Planned {
    pub number: u64,
    pub place: usize,
    pub till: usize,
    pub sale: Sale,
    pub expect: Expect,
}

/// Ids that the API gave out when the business was made, in the order of the business.
#[derive(Debug, Clone, Default)]
pub struct Issued {
    pub variants: Vec<Uuid>,
    pub members: Vec<Uuid>,
}

/// Hands out sales in order; keeps the two series of every till.
pub struct Planner<'a> {
    business: &'a Business,
    issued: &'a Issued,
    taxes: Vec<Taxes>,
    zipf: [Zipf<f64>; 2],
    weights: Vec<u32>,
    /// Next terminal_seq and receipt number per place and till.
    next: Vec<Vec<i64>>,
    hours: Vec<TradingHours>,
    span: Span,
    at: u64,
    /// Sales with a discount per cashier and calendar day.
    discounted: HashMap<(Uuid, NaiveDate), u32>,
}

/// A business day has hours of two calendar days, and a cashier gives discounts twenty times on it.
const DISCOUNTED_MAX: u32 = 9;

impl<'a> Planner<'a> {
    /// A planner standing before the very first sale of the first span.
    pub fn new(business: &'a Business, issued: &'a Issued, span: Span) -> anyhow::Result<Planner<'a>> {
        let zipf = |market: usize| Zipf::new(business.ranking[market].len().max(1) as f64, 1.05);
        let mut planner = Planner {
            business,
            issued,
            taxes: TAX_PROFILES.iter().map(|profile| profile.taxes()).collect::<anyhow::Result<_>>()?,
            zipf: [zipf(0)?, zipf(1)?],
            weights: business.places.iter().map(|place| place.weight).collect(),
            next: business.places.iter().map(|place| vec![1; place.tills.len()]).collect(),
            hours: Vec::new(),
            span: span.clone(),
            at: span.first,
            discounted: HashMap::new(),
        };
        planner.enter(span);
        Ok(planner)
    }

    /// Goes on with another span; the series of the tills continue.
    pub fn enter(&mut self, span: Span) {
        let hours = |place: &super::business::Place| TradingHours::new(place.zone, span.from, span.to);
        self.hours = self.business.places.iter().map(hours).collect();
        self.at = span.first;
        self.span = span;
    }

    /// The next sale of the span.
    pub fn next_sale(&mut self) -> anyhow::Result<Option<Planned>> {
        if self.at >= self.span.first + self.span.count {
            return Ok(None);
        }
        let number = self.at;
        self.at += 1;
        let key = self.business.seed.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = StdRng::seed_from_u64(key);
        let place = self.pick_place(&mut rng);
        let till = rng.random_range(0..self.business.places[place].tills.len());
        let expect = match rng.random_range(0..1_000) {
            0..20 => Expect::SoldTwice,
            20..30 => Expect::Refused(*Refusal::ALL.choose(&mut rng).unwrap_or(&Refusal::WrongTotal)),
            _ => Expect::Sold,
        };
        let mut sale = self.good_sale(&mut rng, number, place, till)?;
        match expect {
            Expect::Refused(how) => self.spoil(&mut rng, &mut sale, place, how),
            Expect::Sold | Expect::SoldTwice => {
                self.next[place][till] += 1;
                self.keep_to_limits(place, &mut sale)?;
            }
        }
        Ok(Some(Planned { number, place, till, sale, expect }))
    }

    /// Who has given enough discounts for the day calls the manager to the till.
    fn keep_to_limits(&mut self, place: usize, sale: &mut Sale) -> anyhow::Result<()> {
        if sale.lines.iter().all(|line| line.discount.is_none()) {
            return Ok(());
        }
        let here = &self.business.places[place];
        let day = sale.occurred_at.parse::<DateTime<Utc>>()?.with_timezone(&here.zone).date_naive();
        let given = self.discounted.entry((sale.cashier_id, day)).or_default();
        *given += 1;
        if *given > DISCOUNTED_MAX {
            sale.cashier_id = here.manager;
        }
        Ok(())
    }

    fn pick_place(&self, rng: &mut StdRng) -> usize {
        let mut left = rng.random_range(0..self.weights.iter().sum::<u32>().max(1));
        for (index, weight) in self.weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        0
    }

    fn good_sale(&self, rng: &mut StdRng, number: u64, place: usize, till: usize) -> anyhow::Result<Sale> {
        let here = &self.business.places[place];
        let occurred_at = self.hours[place].instant(number - self.span.first, self.span.count);
        let mut lines = Vec::new();
        let mut total = 0;
        for line_no in 1..=basket_size(rng) {
            let (line, amount) = self.line(rng, place, line_no)?;
            lines.push(line);
            total += amount;
        }
        let seq = self.next[place][till];
        let customer_id = if rng.random_ratio(1, 5) { self.issued.members.choose(rng).copied() } else { None };
        Ok(Sale {
            sale_id: sale_id(rng, occurred_at),
            location_id: here.location_id,
            terminal_seq: seq,
            receipt: Receipt { series_epoch: 1, number: seq },
            cashier_id: *here.cashiers.choose(rng).unwrap_or(&here.manager),
            customer_id,
            occurred_at: occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            currency: here.market.currency().to_owned(),
            lines,
            tenders: tenders(rng, total),
            total_minor: total,
            approval: None,
        })
    }

    fn line(&self, rng: &mut StdRng, place: usize, line_no: i32) -> anyhow::Result<(Line, i64)> {
        let market = self.business.places[place].market;
        let ranked = self.business.ranked(market);
        let rank = (self.zipf[market as usize].sample(rng) as usize).clamp(1, ranked.len());
        let index = ranked[rank - 1];
        let variant = &self.business.variants[index];
        let qty = match rng.random_range(0..20) {
            _ if variant.is_measured => rng.random_range(8..=120) * 10,
            0..16 => 1_000,
            16..19 => 2_000,
            _ => rng.random_range(3..=6) * 1_000,
        };
        let reason = (*DISCOUNT_REASONS.choose(rng).unwrap_or(&"")).to_owned();
        let (reduction, discount) = match rng.random_range(0..100) {
            0..6 => {
                let per_mille = *[100, 150, 200, 55].choose(rng).unwrap_or(&100);
                let percent = format!("{}.{}", per_mille / 10, per_mille % 10);
                (Reduction::PerMille(per_mille), Some(Discount::Percent { percent, reason }))
            }
            6..9 => {
                // A fifth of the line at most: what a cashier may give.
                let amount_minor = rng.random_range(1..=50).min(variant.price_minor * qty / 5_000);
                (Reduction::Amount(amount_minor), Some(Discount::Amount { amount_minor, reason }))
            }
            _ => (Reduction::None, None),
        };
        let taxes = &self.taxes[variant.tax_profile];
        let amount = payable(variant.price_minor, qty, reduction, taxes, RoundingMode::HalfEven)?;
        let variant_id = *self.issued.variants.get(index).unwrap_or(&Uuid::nil());
        Ok((Line { line_no, variant_id, qty, discount, override_: None }, amount))
    }

    fn spoil(&self, rng: &mut StdRng, sale: &mut Sale, place: usize, how: Refusal) {
        let places = &self.business.places;
        let elsewhere = Some(&places[(place + 1) % places.len()]).filter(|_| places.len() > 1);
        let stranger = Uuid::from_u128(rng.random());
        let other_market = if self.business.places[place].market as usize == 0 { 1 } else { 0 };
        match how {
            Refusal::WrongTotal => sale.total_minor += 1,
            Refusal::UnknownVariant => sale.lines[0].variant_id = stranger,
            Refusal::OtherLocation => sale.location_id = elsewhere.map_or(stranger, |place| place.location_id),
            Refusal::TendersShort => {
                let short = sale.total_minor - 1;
                sale.tenders = vec![Tender { kind: TenderKind::Other, amount_minor: short, card: None }];
            }
            Refusal::OtherMarket => {
                let index = self.business.ranking[other_market].choose(rng).copied().unwrap_or(0);
                sale.lines[0].variant_id = *self.issued.variants.get(index).unwrap_or(&Uuid::nil());
                // What it replaces may be sold by weight.
                sale.lines[0].qty = 1_000;
            }
            Refusal::ZeroQuantity => sale.lines[0].qty = 0,
            Refusal::CashierOfAnotherLocation => {
                sale.cashier_id = elsewhere.map_or(stranger, |place| place.cashiers[0]);
            }
        }
    }
}

/// One to twelve lines, mostly few.
fn basket_size(rng: &mut StdRng) -> i32 {
    let mut lines = 1;
    while lines < 12 && rng.random_ratio(62, 100) {
        lines += 1;
    }
    lines
}

/// Cash as people hand it over, a card to the cent, or part by part.
fn tenders(rng: &mut StdRng, total: i64) -> Vec<Tender> {
    let cash = |amount_minor| Tender { kind: TenderKind::Cash, amount_minor, card: None };
    match rng.random_range(0..20) {
        _ if total == 0 => Vec::new(),
        0..8 => vec![cash(handed_over(rng, total))],
        8 if total > 1_000 => vec![card(rng, total - 500), cash(500)],
        _ => vec![card(rng, total)],
    }
}

fn handed_over(rng: &mut StdRng, total: i64) -> i64 {
    let note = *[1, 100, 500, 1_000, 2_000].choose(rng).unwrap_or(&1);
    (total + note - 1) / note * note
}

fn card(rng: &mut StdRng, amount_minor: i64) -> Tender {
    let card = Card {
        // letters only: a run of digits could read like a card number
        token: (0..20).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect(),
        brand: (*CARD_BRANDS.choose(rng).unwrap_or(&"visa")).to_owned(),
        last_four: format!("{:04}", rng.random_range(0..10_000)),
        expiry: format!("{:02}/{}", rng.random_range(1..=12), rng.random_range(27..32)),
    };
    Tender { kind: TenderKind::Card, amount_minor, card: Some(card) }
}

/// A UUIDv7 of the sale's instant, its random part from the plan.
fn sale_id(rng: &mut StdRng, at: DateTime<Utc>) -> Uuid {
    let millis = at.timestamp_millis().max(0) as u64;
    uuid::Builder::from_unix_timestamp_millis(millis, &rng.random::<[u8; 10]>()).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::business::VARIANTS;
    use std::collections::HashSet;

    fn plan(seed: u64, count: u64) -> Vec<Planned> {
        let business = Business::new(seed, 20, VARIANTS);
        let issued = Issued {
            variants: (1..=2_000).map(Uuid::from_u128).collect(),
            members: (1..=50).map(Uuid::from_u128).collect(),
        };
        let from = "2026-04-27T12:00:00Z".parse().unwrap();
        let mut planner = Planner::new(&business, &issued, Span::opening(count, from)).unwrap();
        std::iter::from_fn(|| planner.next_sale().unwrap()).collect()
    }

    #[test]
    fn the_same_seed_sells_the_same_again() {
        let text = |plan: &[Planned]| plan.iter().map(|p| serde_json::to_string(&p.sale).unwrap()).collect::<Vec<_>>();
        assert_eq!(text(&plan(3, 300)), text(&plan(3, 300)));
        assert_ne!(text(&plan(3, 300)), text(&plan(4, 300)));
    }

    #[test]
    fn the_mix_is_as_promised_and_numbers_are_gapless_per_till() {
        let plan = plan(1, 20_000);
        let share = |what: fn(&Planned) -> bool| plan.iter().filter(|p| what(p)).count();
        assert!((300..500).contains(&share(|p| p.expect == Expect::SoldTwice)));
        assert!((140..260).contains(&share(|p| matches!(p.expect, Expect::Refused(_)))));
        assert!((3_700..4_300).contains(&share(|p| p.sale.customer_id.is_some())));
        assert!(share(|p| p.sale.lines.len() == 12) > 0);
        let foreign = plan.iter().filter(|p| p.expect == Expect::Refused(Refusal::OtherMarket));
        assert!(foreign.clone().count() > 10);
        assert!(foreign.clone().all(|p| p.sale.lines[0].qty == 1_000), "refused for its market, not for its quantity");
        let ids: HashSet<_> = plan.iter().map(|p| p.sale.sale_id).collect();
        assert_eq!(ids.len(), plan.len());
        let mut last = std::collections::HashMap::new();
        for p in plan.iter().filter(|p| !matches!(p.expect, Expect::Refused(_))) {
            let before = last.insert((p.place, p.till), p.sale.terminal_seq).unwrap_or(0);
            assert_eq!(p.sale.terminal_seq, before + 1);
        }
    }

    #[test]
    fn tenders_cover_the_total() {
        for p in plan(2, 2_000).iter().filter(|p| p.expect == Expect::Sold) {
            let given: i64 = p.sale.tenders.iter().map(|tender| tender.amount_minor).sum();
            assert!(given >= p.sale.total_minor, "{given} < {}", p.sale.total_minor);
        }
    }
}
