//! The map of a retailer's export: which column means what, and what is the same for every row.

use std::path::Path;

use anyhow::{Context, ensure};
use chrono::NaiveTime;
use chrono_tz::Tz;
use rust_decimal::Decimal;
use schemas::money::Currency;
use serde::Deserialize;

use super::rows::{CODE_MAX, clean};

/// Longest name of an import.
const NAME_MAX: usize = 49;

/// A whole map file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// Names the import; every id derives from it, so the same name is the same import.
    pub name: String,
    pub columns: Columns,
    pub constants: Constants,
    #[serde(default)]
    pub master: Option<Master>,
}

/// One column, or several whose cells are joined by a space.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Names {
    One(String),
    Many(Vec<String>),
}

impl Names {
    pub fn all(&self) -> &[String] {
        match self {
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Number of the document (receipt, basket, ticket). Several columns make one number.
    pub document: Names,
    pub location: String,
    #[serde(default)]
    pub location_name: Option<String>,
    /// Date and time, in one column or two.
    pub time: Names,
    pub sku: String,
    #[serde(default)]
    pub description: Option<Names>,
    #[serde(default)]
    pub category: Option<String>,
    pub quantity: String,
    /// What the customer paid for the line, after the discounts below.
    #[serde(default)]
    pub paid: Option<String>,
    /// The line's amount before the discounts below.
    #[serde(default)]
    pub amount: Option<String>,
    /// Price of one unit before the discounts below.
    #[serde(default)]
    pub unit_price: Option<String>,
    /// Discounts of the line, summed.
    #[serde(default)]
    pub discounts: Vec<String>,
    #[serde(default)]
    pub customer: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constants {
    pub currency: Currency,
    /// IANA zone of the times in the file and of its locations.
    #[serde(deserialize_with = "zone")]
    pub zone: Tz,
    /// `strftime` patterns tried in order; also `rfc3339`, `epoch_s`, `epoch_ms`.
    pub time_formats: Vec<String>,
    /// For formats that carry no time of day.
    #[serde(default = "noon")]
    pub time_of_day: NaiveTime,
    /// A label of the WHATWG encoding standard.
    #[serde(default = "utf8")]
    pub encoding: String,
    #[serde(default = "comma")]
    pub delimiter: char,
    #[serde(default = "quote")]
    pub quote: char,
    #[serde(default = "point")]
    pub decimal: char,
    /// How discounts are written: `positive` (the default) or `negative` amounts.
    #[serde(default)]
    pub discount_sign: Sign,
    /// Round amounts finer than a minor unit instead of refusing their rows.
    #[serde(default)]
    pub round_amounts: bool,
    /// Ticket numbers start again every day, so the day belongs to the document's identity.
    #[serde(default)]
    pub documents_restart_daily: bool,
    #[serde(default)]
    pub tax: Tax,
    #[serde(default = "one")]
    pub tills_per_location: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    #[default]
    Positive,
    Negative,
}

/// The tax contained in the amounts of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tax {
    pub profile: String,
    /// Exact decimal, for instance `0.07`.
    pub rate: String,
}

impl Default for Tax {
    fn default() -> Tax {
        Tax { profile: "imported".to_owned(), rate: "0".to_owned() }
    }
}

/// A second file that names the products, beside the first.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Master {
    pub file: String,
    pub sku: String,
    pub description: Names,
    #[serde(default)]
    pub category: Option<String>,
}

fn zone<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn noon() -> NaiveTime {
    NaiveTime::from_hms_opt(12, 0, 0).unwrap_or_default()
}
fn utf8() -> String {
    "utf-8".to_owned()
}
fn comma() -> char {
    ','
}
fn quote() -> char {
    '"'
}
fn point() -> char {
    '.'
}
fn one() -> usize {
    1
}

impl Map {
    /// Reads and checks a map file.
    pub fn read(path: &Path) -> anyhow::Result<Map> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Map::parse(&text).with_context(|| format!("map {}", path.display()))
    }

    /// Checks across fields what the types cannot.
    pub fn parse(text: &str) -> anyhow::Result<Map> {
        let map: Map = toml::from_str(text)?;
        let amounts = [&map.columns.paid, &map.columns.amount, &map.columns.unit_price];
        ensure!(
            amounts.iter().filter(|column| column.is_some()).count() == 1,
            "columns: name exactly one of paid, amount and unit_price"
        );
        ensure!(!map.constants.time_formats.is_empty(), "constants.time_formats is empty");
        ensure!(map.constants.delimiter.is_ascii() && map.constants.quote.is_ascii(), "delimiter and quote are ASCII");
        ensure!(
            encoding_rs::Encoding::for_label(map.constants.encoding.as_bytes()).is_some(),
            "constants.encoding {} is unknown",
            map.constants.encoding
        );
        ensure!((1..=99).contains(&map.constants.tills_per_location), "tills_per_location is 1 to 99");
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(!map.name.is_empty() && map.name.chars().all(is_plain), "name: a-z, 0-9 and - only");
        // together with a slash and a code it is an identifier of the API
        ensure!(map.name.len() <= NAME_MAX, "name: {NAME_MAX} characters at most, this has {}", map.name.len());
        let tax = &map.constants.tax;
        let is_code = clean(&tax.profile) == tax.profile && (1..=CODE_MAX).contains(&tax.profile.chars().count());
        ensure!(is_code, "constants.tax.profile: 1 to {CODE_MAX} visible characters");
        let is_rate = tax
            .rate
            .parse::<Decimal>()
            .is_ok_and(|rate| !rate.is_sign_negative() && rate < Decimal::TEN && rate.normalize().scale() <= 6);
        ensure!(is_rate, "constants.tax.rate: a decimal from 0 to below 10 with six places at most");
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_map_is_valid() {
        Map::parse(include_str!("../../../maps/completejourney.toml")).unwrap();
    }

    #[test]
    fn two_amount_columns_and_unknown_keys_are_refused() {
        let text = include_str!("../../../maps/completejourney.toml");
        assert!(Map::parse(&text.replace("quantity =", "amount = \"x\"\nquantity =")).is_err());
        assert!(Map::parse(&text.replace("quantity =", "quantiy = \"x\"\nquantity =")).is_err());
    }
    #[test]
    fn what_the_api_would_refuse_of_a_map_is_named_before_anything_is_made() {
        let text = include_str!("../../../maps/completejourney.toml");
        let refused = |old: &str, new: &str| Map::parse(&text.replace(old, new)).map(drop).unwrap_err().to_string();
        let name = |length| format!("name = \"{}\"", "n".repeat(length));
        Map::parse(&text.replace("name = \"completejourney\"", &name(49))).unwrap();
        let why = refused("name = \"completejourney\"", &name(50));
        assert_eq!(why, "name: 49 characters at most, this has 50");
        assert!(refused("rate = \"0\"", "rate = \"19 %\"").contains("tax.rate"));
        assert!(refused("profile = \"completejourney\"", "profile = \" \"").contains("tax.profile"));
    }
}
