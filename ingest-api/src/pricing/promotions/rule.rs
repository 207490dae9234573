//! What a promotion says: to which goods, under which conditions, what it gives. The same form is stored, sent and applied.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveTime, Utc, Weekday};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use rust_decimal::serde::str as as_text;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::checks::plain_decimal;
use crate::pricing::snapshot::Variant;

/// A promotion as pricing applies it.
#[derive(Debug, Clone)]
pub struct Promotion {
    pub promotion_id: Uuid,
    pub name: Arc<str>,
    /// Lower is earlier; then by id.
    pub priority: i32,
    /// At most one promotion of a group applies to a document: the first one.
    pub exclusion_group: Option<Arc<str>>,
    pub needs_coupon: bool,
    /// Most that it gives over all documents, and most documents that it gives to.
    pub budget_minor: Option<i64>,
    pub uses_max: Option<i64>,
    pub is_active: bool,
    /// Of every amount in it, ISO 4217; None: it names no amount.
    pub currency: Option<Arc<str>>,
    pub rule: Rule,
}

impl Promotion {
    /// Whether what it gave so far decides about it.
    pub fn is_counted(&self) -> bool {
        self.budget_minor.is_some() || self.uses_max.is_some()
    }
}

/// What it gives, to which goods, and when: as it is stored, and a part of what a promotion looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = PromotionRule)]
pub struct Rule {
    pub effect: Effect,
    /// Goods it is about; absent: all.
    #[serde(default)]
    pub items: Items,
    #[serde(default)]
    pub conditions: Conditions,
}

/// What a promotion gives. Amounts are minor units of its currency; percentages are decimals as text, above 0 to 100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = PromotionEffect)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// Of what is left of each line.
    Percent {
        #[serde(serialize_with = "as_text::serialize", deserialize_with = "plain_decimal")]
        #[schema(value_type = String)]
        percent: Decimal,
    },
    /// Off each unit; of measured goods for each whole unit of measure in proportion.
    AmountPerUnit { amount_minor: i64 },
    /// The unit costs this, where it costs more.
    UnitPrice { unit_price_minor: i64 },
    /// Of each `buy + get` units the `get` cheapest cost `percent` less. Pieces only.
    BuyGet {
        buy: i64,
        get: i64,
        #[serde(serialize_with = "as_text::serialize", deserialize_with = "plain_decimal")]
        #[schema(value_type = String)]
        percent: Decimal,
    },
    /// So many units of each part together cost the price, as often as there are enough of all. Pieces only.
    Bundle { parts: Vec<Part>, price_minor: i64 },
    /// Of the goods together, once they are worth the threshold.
    BasketPercent {
        threshold_minor: i64,
        #[serde(serialize_with = "as_text::serialize", deserialize_with = "plain_decimal")]
        #[schema(value_type = String)]
        percent: Decimal,
    },
    /// Off the goods together, once they are worth the threshold.
    BasketAmount { threshold_minor: i64, amount_minor: i64 },
}

/// One part of a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = BundlePart)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub items: Items,
    pub units: i64,
}

/// Goods that a promotion is about: everything when nothing is included, less what is excluded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = PromotionItems)]
#[serde(deny_unknown_fields, default)]
pub struct Items {
    pub variant_ids: HashSet<Uuid>,
    pub product_ids: HashSet<Uuid>,
    /// A category includes those below it: `food` also means `food/dairy`.
    pub categories: Vec<String>,
    pub excluded_variant_ids: HashSet<Uuid>,
    pub excluded_product_ids: HashSet<Uuid>,
    pub excluded_categories: Vec<String>,
}

impl Items {
    pub fn contain(&self, variant: &Variant) -> bool {
        let (id, product) = (variant.variant_id.0, variant.product_id.0);
        let is_any = self.variant_ids.is_empty() && self.product_ids.is_empty() && self.categories.is_empty();
        let is_included = is_any
            || self.variant_ids.contains(&id)
            || self.product_ids.contains(&product)
            || is_below(&variant.category, &self.categories);
        let is_excluded = self.excluded_variant_ids.contains(&id)
            || self.excluded_product_ids.contains(&product)
            || is_below(&variant.category, &self.excluded_categories);
        is_included && !is_excluded
    }
}

fn is_below(category: &str, wanted: &[String]) -> bool {
    let is_one = |wanted: &String| {
        category.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    !category.is_empty() && wanted.iter().any(is_one)
}

/// When it applies; all of them must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = PromotionConditions)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// From this instant on.
    pub starts_at: Option<DateTime<Utc>>,
    /// Before this instant.
    pub ends_at: Option<DateTime<Utc>>,
    /// Hours of the week by the clock of the location; absent: always.
    pub windows: Vec<Window>,
    /// Absent: everywhere.
    pub location_ids: HashSet<Uuid>,
    /// For members only, whoever they are.
    pub members_only: bool,
    /// For these members only.
    pub customer_ids: HashSet<Uuid>,
    /// Thousandths of the goods together.
    pub min_qty: Option<i64>,
    /// Of the goods together, before this promotion.
    pub min_amount_minor: Option<i64>,
}

/// Hours of some days, half-open, by the clock of the location. One whose end is not after its start ends the next day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PromotionWindow)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// `mon` to `sun`: the day on which it begins.
    pub days: Vec<Day>,
    /// `HH:MM` or `HH:MM:SS`.
    #[schema(value_type = String)]
    pub from: NaiveTime,
    #[schema(value_type = String)]
    pub to: NaiveTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = WeekDay)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    fn is(self, day: Weekday) -> bool {
        self as u32 == day.num_days_from_monday()
    }
}

impl Window {
    /// Whether the location's clock stands in it. An hour that the clock shows twice counts both times.
    pub fn holds(&self, at: DateTime<Utc>, zone: Tz) -> bool {
        let local = at.with_timezone(&zone);
        let (today, clock) = (local.weekday(), local.time());
        let begins = |day: Weekday| self.days.iter().any(|wanted| wanted.is(day));
        if self.from < self.to {
            return begins(today) && self.from <= clock && clock < self.to;
        }
        (begins(today) && self.from <= clock) || (begins(today.pred()) && clock < self.to)
    }
}
