//! The catalog as pricing sees it: an immutable picture of one catalog version.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use schemas::ids::{LocationId, ProductId, ProgramId, TaxProfileId, VariantId};
use schemas::money::RoundingMode;
use uuid::Uuid;

use super::promotions::rule::Promotion;
use crate::loyalty::program::Program;

/// Everything a sale is priced and checked with, as of `version`.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Value of `catalog_counter` this picture was read at.
    pub version: i64,
    pub epoch: i64,
    pub locations: HashMap<LocationId, Arc<Location>>,
    pub variants: HashMap<VariantId, Arc<Variant>>,
    /// Price versions of a variant, in the order in which they win: latest `valid_from` first.
    pub prices: HashMap<VariantId, Arc<[Price]>>,
    pub tax_profiles: HashMap<TaxProfileId, Arc<TaxProfile>>,
    /// By priority, then id: the order in which they apply.
    pub promotions: Vec<Arc<Promotion>>,
    pub programs: Arc<Programs>,
}

/// Loyalty programs.
pub type Programs = HashMap<ProgramId, Program>;

#[derive(Debug, Clone)]
pub struct Location {
    pub location_id: LocationId,
    pub currency: Arc<str>,
    pub zone: Tz,
    pub day_cutoff: NaiveTime,
    pub opened_on: NaiveDate,
    pub rounding_mode: RoundingMode,
    pub cash_step: i64,
    pub cash_mode: RoundingMode,
    /// What happens when a sale wants more than is there.
    pub denies_oversell: bool,
    pub is_active: bool,
}

#[derive(Debug, Clone)]
pub struct Variant {
    pub variant_id: VariantId,
    pub product_id: ProductId,
    pub sku: String,
    pub name: String,
    /// Of its product; empty when it has none.
    pub category: String,
    pub unit: String,
    pub is_measured: bool,
    pub tracks_stock: bool,
    pub tax_profile_id: TaxProfileId,
    pub unit_cost: Option<i64>,
    pub is_active: bool,
}

#[derive(Debug, Clone)]
pub struct Price {
    pub price_id: Uuid,
    /// None: everywhere.
    pub location_id: Option<LocationId>,
    pub currency: String,
    pub amount_minor: i64,
    pub tax_inclusive: bool,
    pub valid_from: DateTime<Utc>,
    pub valid_to: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone)]
pub struct TaxProfile {
    pub tax_profile_id: TaxProfileId,
    /// Rate sets by the instant they come into force, latest first.
    pub rate_sets: Vec<RateSet>,
}

#[derive(Debug, Clone)]
pub struct RateSet {
    pub valid_from: DateTime<Utc>,
    /// In profile order.
    pub taxes: Vec<Tax>,
}

#[derive(Debug, Clone)]
pub struct Tax {
    pub tax_id: Uuid,
    pub name: Arc<str>,
    pub rate: Decimal,
    /// The rate as it is stored and published.
    pub rate_text: Arc<str>,
    pub is_inclusive: bool,
    pub is_compound: bool,
    /// Rounded once per document and allocated to the lines, instead of once per line.
    pub is_per_order: bool,
}

impl TaxProfile {
    /// The taxes in force at `at`, in profile order; None before the first rate set.
    pub fn taxes_at(&self, at: DateTime<Utc>) -> Option<&[Tax]> {
        self.rate_sets.iter().find(|set| set.valid_from <= at).map(|set| set.taxes.as_slice())
    }
}

impl Snapshot {
    /// The price of `variant` in force at `location` at `at`: one of the location before a general one,
    /// then the latest `valid_from`, then the latest recorded. A window ends before `valid_to`.
    pub fn price_at(
        &self,
        variant: VariantId,
        location: LocationId,
        currency: &str,
        at: DateTime<Utc>,
    ) -> Option<&Price> {
        let prices = self.prices.get(&variant)?;
        let in_force = |price: &&Price| {
            price.currency == currency && price.valid_from <= at && price.valid_to.is_none_or(|end| at < end)
        };
        prices
            .iter()
            .filter(in_force)
            .find(|price| price.location_id == Some(location))
            .or_else(|| prices.iter().filter(in_force).find(|price| price.location_id.is_none()))
    }
}
