//! The demonstration business as plain data: a pure function of the seed and the number of locations.

use chrono::NaiveDate;
use chrono_tz::Tz;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use schemas::ids::derived_id;
use uuid::Uuid;

use super::names::{PLACES, SHELVES, Shelf};
use crate::till_pricing::{TaxRate, Taxes};

/// Variants of the whole business, half of them of each market.
pub const VARIANTS: usize = 2_000;
/// Those of a business that is no subject itself: opening stock and state of fewer shelves are there sooner.
pub const FEW_VARIANTS: usize = 240;
pub const TILLS_PER_LOCATION: usize = 3;
pub const CASHIERS_PER_LOCATION: usize = 4;
/// Everything of the business is in force from here on.
pub const OPENED_ON: &str = "2024-01-02";
/// Long before the first sale, in every zone.
pub const VALID_FROM: &str = "2024-01-01T00:00:00Z";

/// Where a variant is sold: prices of Europe contain VAT, sales tax in the States is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Market {
    Europe,
    States,
}

impl Market {
    pub const ALL: [Market; 2] = [Market::Europe, Market::States];

    pub fn currency(self) -> &'static str {
        match self {
            Market::Europe => "EUR",
            Market::States => "USD",
        }
    }
    pub fn is_tax_inclusive(self) -> bool {
        self == Market::Europe
    }
    fn code(self) -> &'static str {
        match self {
            Market::Europe => "EU",
            Market::States => "US",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Place {
    pub location_id: Uuid,
    pub external_id: String,
    pub name: String,
    pub market: Market,
    pub zone: Tz,
    pub tills: Vec<Uuid>,
    pub cashiers: Vec<Uuid>,
    pub manager: Uuid,
    /// How busy it is beside the others.
    pub weight: u32,
}

#[derive(Debug, Clone)]
pub struct TaxProfile {
    pub external_id: &'static str,
    pub name: &'static str,
    /// (name, rate as text, inclusive)
    pub rates: &'static [(&'static str, &'static str, bool)],
}

pub const TAX_PROFILES: [TaxProfile; 4] = [
    TaxProfile { external_id: "eu-standard", name: "VAT standard", rates: &[("VAT 19 %", "0.19", true)] },
    TaxProfile { external_id: "eu-food", name: "VAT reduced", rates: &[("VAT 7 %", "0.07", true)] },
    TaxProfile {
        external_id: "us-general",
        name: "Sales tax general",
        rates: &[("State 4 %", "0.04", false), ("City 4.875 %", "0.04875", false)],
    },
    TaxProfile { external_id: "us-food", name: "Sales tax food", rates: &[("State 1.25 %", "0.0125", false)] },
];

impl TaxProfile {
    /// The profile as the till computes with it.
    pub fn taxes(&self) -> anyhow::Result<Taxes> {
        self.rates.iter().map(|(_, rate, inclusive)| TaxRate::parse(rate, *inclusive)).collect()
    }
}

#[derive(Debug, Clone)]
pub struct Product {
    pub external_id: String,
    pub name: String,
    pub category: &'static str,
}

#[derive(Debug, Clone)]
pub struct Variant {
    pub external_id: String,
    pub product: usize,
    pub sku: String,
    pub name: String,
    pub barcode: String,
    pub market: Market,
    pub is_measured: bool,
    /// Index into [`TAX_PROFILES`].
    pub tax_profile: usize,
    pub price_minor: i64,
    pub unit_cost_minor: i64,
}

/// The whole business.
#[derive(Debug, Clone)]
pub struct Business {
    pub seed: u64,
    pub places: Vec<Place>,
    pub products: Vec<Product>,
    pub variants: Vec<Variant>,
    /// Per market: indices of its variants, best seller first.
    pub ranking: [Vec<usize>; 2],
    pub it_admin: Uuid,
    pub members: usize,
}

impl Business {
    /// The same business for the same seed and size; one with more locations contains one with fewer.
    pub fn new(seed: u64, locations: usize, variants: usize) -> Business {
        let (products, variants) = assortment(seed, variants);
        let ranking = Market::ALL.map(|market| {
            let mut of_market: Vec<usize> = (0..variants.len()).filter(|i| variants[*i].market == market).collect();
            of_market.shuffle(&mut StdRng::seed_from_u64(seed ^ 0x72616e6b));
            of_market
        });
        Business {
            seed,
            members: variants.len() * 5 / 2,
            places: (0..locations).map(|n| place(seed, n)).collect(),
            products,
            variants,
            ranking,
            it_admin: derived_id("demo.user", &format!("{seed}/it")),
        }
    }

    /// Variants sold in a market, best seller first.
    pub fn ranked(&self, market: Market) -> &[usize] {
        &self.ranking[market as usize]
    }

    /// Opening stock (thousandths) and threshold of a variant by its rank in its market: what sells more
    /// is stocked more; one in eight was ordered too tight, and one in twelve is nearly out.
    pub fn opening_stock(&self, place: usize, rank: usize) -> (i64, i64) {
        let key = self.seed ^ ((place as u64) << 32) ^ rank as u64;
        let mut rng = StdRng::seed_from_u64(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let usual = 30 + 2_400 / (rank as i64 + 4);
        let threshold = (usual / 5).max(5);
        let ordered = match rng.random_range(0..24) {
            // a delivery is overdue
            0..2 => return ((threshold + 1) * 1_000, threshold * 1_000),
            2..5 => usual * 4 / 10,
            _ => usual,
        };
        ((ordered + rng.random_range(0..8)).max(threshold + 1) * 1_000, threshold * 1_000)
    }

    /// First day of trade.
    pub fn opened_on() -> NaiveDate {
        OPENED_ON.parse().unwrap_or_default()
    }
}

fn place(seed: u64, n: usize) -> Place {
    let (city, zone, currency) = PLACES[n % PLACES.len()];
    let round = n / PLACES.len();
    let key = format!("{seed}/{n}");
    let numbered = |kind: &str, count: usize| -> Vec<Uuid> {
        (0..count).map(|i| derived_id(&format!("demo.{kind}"), &format!("{key}/{i}"))).collect()
    };
    Place {
        location_id: derived_id("demo.location", &key),
        external_id: format!("demo-{seed}-{:03}", n + 1),
        name: if round == 0 { city.to_owned() } else { format!("{city} {}", round + 1) },
        market: if currency == "EUR" { Market::Europe } else { Market::States },
        zone: zone.parse().unwrap_or(Tz::UTC),
        tills: numbered("terminal", TILLS_PER_LOCATION),
        cashiers: numbered("cashier", CASHIERS_PER_LOCATION),
        manager: derived_id("demo.manager", &key),
        weight: 10 + (n as u32 * 7) % 11,
    }
}

fn assortment(seed: u64, wanted: usize) -> (Vec<Product>, Vec<Variant>) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x73686f70);
    let (mut products, mut variants) = (Vec::new(), Vec::new());
    let pairs: Vec<(&Shelf, &str, &str)> = SHELVES
        .iter()
        .flat_map(|shelf| shelf.things.iter().flat_map(move |t| shelf.makers.iter().map(move |m| (shelf, *m, *t))))
        .collect();
    let mut n = 0;
    while variants.len() < wanted {
        let (shelf, maker, thing) = pairs[n % pairs.len()];
        let edition = n / pairs.len();
        let suffix = if edition == 0 { String::new() } else { format!(" No. {}", edition + 1) };
        products.push(Product {
            external_id: format!("demo-{seed}-p{n:04}"),
            name: format!("{maker} {thing}{suffix}"),
            category: shelf.category,
        });
        let base = rng.random_range(shelf.price.0..=shelf.price.1);
        for (o, option) in shelf.options.iter().enumerate() {
            for market in Market::ALL {
                let price = retail(base * (10 + 7 * o as i64) / 10, market);
                variants.push(Variant {
                    external_id: format!("demo-{seed}-v{n:04}-{o}-{}", market.code()),
                    product: n,
                    sku: format!("{}-{n:04}-{o}{}", shelf.code, market.code()),
                    name: format!("{maker} {thing}{suffix}, {option}"),
                    barcode: ean13(200_000_000_000 + variants.len() as u64 * 37),
                    market,
                    is_measured: shelf.is_measured,
                    tax_profile: usize::from(shelf.is_food) + 2 * usize::from(market == Market::States),
                    price_minor: price,
                    unit_cost_minor: price * 55 / 100,
                });
            }
        }
        n += 1;
    }
    variants.truncate(wanted);
    (products, variants)
}

/// A price that looks like one: ends in 9, dearer across the ocean.
fn retail(minor: i64, market: Market) -> i64 {
    let minor = if market == Market::States { minor * 112 / 100 } else { minor };
    (minor / 10) * 10 + 9
}

/// Twelve digits and their check digit.
fn ean13(twelve: u64) -> String {
    let digits = format!("{twelve:012}");
    let sum: u32 = digits.bytes().enumerate().map(|(i, d)| u32::from(d - b'0') * if i % 2 == 0 { 1 } else { 3 }).sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_business_has_the_promised_size_and_no_name_twice() {
        let business = Business::new(1, 20, VARIANTS);
        assert_eq!((business.variants.len(), business.members), (VARIANTS, 5_000));
        assert_eq!(business.places.iter().map(|place| place.tills.len()).sum::<usize>(), 60);
        let zones: HashSet<_> = business.places.iter().map(|place| place.zone).collect();
        assert_eq!(zones.len(), 3);
        let skus: HashSet<_> = business.variants.iter().map(|variant| &variant.sku).collect();
        let barcodes: HashSet<_> = business.variants.iter().map(|variant| &variant.barcode).collect();
        let names: HashSet<_> = business.products.iter().map(|product| &product.name).collect();
        assert_eq!((skus.len(), barcodes.len(), names.len()), (VARIANTS, VARIANTS, business.products.len()));
        assert_eq!(business.ranked(Market::Europe).len() + business.ranked(Market::States).len(), VARIANTS);
    }

    #[test]
    fn a_smaller_business_is_part_of_a_larger_one_and_seeds_differ() {
        let (small, large) = (Business::new(7, 3, FEW_VARIANTS), Business::new(7, 20, FEW_VARIANTS));
        assert_eq!(small.places[2].location_id, large.places[2].location_id);
        assert_ne!(Business::new(8, 3, FEW_VARIANTS).places[0].location_id, small.places[0].location_id);
    }

    #[test]
    fn a_barcode_carries_its_check_digit() {
        assert_eq!(ean13(400_638_133_393), "4006381333931");
    }
}
