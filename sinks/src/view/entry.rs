//! What the serving view holds, per state record. Pure.
//!
//! | key | type | fields |
//! |---|---|---|
//! | `vorca:stock:<location>:<variant>` | hash | `qty`, `version`, `epoch`, `location_seq`, `threshold` (empty: none), `hysteresis`, `is_fired` (0 or 1), `updated_at` (microseconds) |
//! | `vorca:loyalty:<customer>:<program>` | hash | `points`, `version`, `epoch`, `account_id`, `updated_at` |
//! | `vorca:view:generation` | string | one value for as long as Redis has lost nothing |
//! | `vorca:view:offsets` | hash | `<topic>/<partition>` to the next offset the view has not seen |
//!
//! Changes of stock levels are announced on channel `vorca:stock:<location>` as JSON.

use schemas::events::{LoyaltyBalance, StockLevel};
use schemas::ids::{CustomerId, LocationId, ProgramId, VariantId};
use serde::Serialize;

/// Names the view that Redis holds; a Redis that lost its data has none, and gets another.
pub const GENERATION_KEY: &str = "vorca:view:generation";
/// Next offset per topic partition; the view is complete when every partition of both topics has one.
pub const OFFSETS_KEY: &str = "vorca:view:offsets";

/// Key of a stock level.
pub fn stock_key(location: LocationId, variant: VariantId) -> String {
    format!("vorca:stock:{location}:{variant}")
}

/// Key of a loyalty balance.
pub fn loyalty_key(customer: CustomerId, program: ProgramId) -> String {
    format!("vorca:loyalty:{customer}:{program}")
}

/// Channel on which the changes of a location's stock levels are announced.
pub fn stock_channel(location: LocationId) -> String {
    format!("vorca:stock:{location}")
}

/// One entity of the view.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub epoch: i64,
    pub version: i64,
    pub fields: Vec<(&'static str, String)>,
    /// Channel and message that announce the change.
    pub announcement: Option<(String, String)>,
}

/// What is announced when a stock level changed: a hint, the changes feed completes it.
#[derive(Debug, Serialize)]
struct StockChanged {
    location_id: LocationId,
    location_seq: i64,
    variant_id: VariantId,
    epoch: i64,
    version: i64,
    qty: i64,
}

/// The entry of a stock level.
pub fn stock(level: &StockLevel) -> Entry {
    let changed = StockChanged {
        location_id: level.location_id,
        location_seq: level.location_seq,
        variant_id: level.variant_id,
        epoch: level.epoch,
        version: level.version,
        qty: level.qty,
    };
    let message = serde_json::to_string(&changed).ok();
    Entry {
        key: stock_key(level.location_id, level.variant_id),
        epoch: level.epoch,
        version: level.version,
        fields: vec![
            ("qty", level.qty.to_string()),
            ("version", level.version.to_string()),
            ("epoch", level.epoch.to_string()),
            ("location_seq", level.location_seq.to_string()),
            ("threshold", level.threshold.map(|threshold| threshold.to_string()).unwrap_or_default()),
            ("hysteresis", level.hysteresis.to_string()),
            ("is_fired", u8::from(level.is_fired).to_string()),
            ("updated_at", level.updated_at.0.to_string()),
        ],
        announcement: message.map(|message| (stock_channel(level.location_id), message)),
    }
}

/// The entry of a loyalty balance; not announced.
pub fn balance(balance: &LoyaltyBalance) -> Entry {
    Entry {
        key: loyalty_key(balance.customer_id, balance.program_id),
        epoch: balance.epoch,
        version: balance.version,
        fields: vec![
            ("points", balance.points.to_string()),
            ("version", balance.version.to_string()),
            ("epoch", balance.epoch.to_string()),
            ("account_id", balance.account_id.to_string()),
            ("updated_at", balance.updated_at.0.to_string()),
        ],
        announcement: None,
    }
}

/// Keeps the newest entry of each key, in order of first appearance.
pub fn newest(entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let mut order: Vec<Entry> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for entry in entries {
        match places.get(&entry.key) {
            None => {
                places.insert(entry.key.clone(), order.len());
                order.push(entry);
            }
            Some(&place) => {
                let held: &mut Entry = &mut order[place];
                if (entry.epoch, entry.version) > (held.epoch, held.version) {
                    *held = entry;
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::time::Timestamp;
    use uuid::Uuid;

    fn level(epoch: i64, version: i64, qty: i64) -> StockLevel {
        StockLevel {
            epoch,
            location_id: LocationId(Uuid::from_u128(1)),
            variant_id: VariantId(Uuid::from_u128(2)),
            version,
            location_seq: 40 + version,
            qty,
            threshold: None,
            hysteresis: 1_000,
            is_fired: false,
            daily_sales: Vec::new(),
            updated_at: Timestamp(9),
        }
    }

    #[test]
    fn the_newest_of_a_batch_survives_whatever_its_place() {
        let entries =
            [level(1, 7, 3_000), level(2, 1, 9_000), level(1, 8, 2_000)].iter().map(stock).collect::<Vec<_>>();
        let newest = newest(entries.clone());
        assert_eq!(newest, [entries[1].clone()]);
    }

    #[test]
    fn a_level_is_announced_to_its_location() {
        let (channel, message) = stock(&level(1, 7, 3_000)).announcement.expect("an announcement");
        assert_eq!(channel, "vorca:stock:00000000-0000-0000-0000-000000000001");
        let message: serde_json::Value = serde_json::from_str(&message).expect("JSON");
        assert_eq!((message["qty"].as_i64(), message["location_seq"].as_i64()), (Some(3_000), Some(47)));
    }
}
