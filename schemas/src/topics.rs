//! Topics: names, record types, partition counts, retention and consumer groups. Made by `migrate`;
//! a process refuses to start when the broker's partition count differs from the one here.

/// How the broker keeps a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Facts, deleted after 30 days.
    Events,
    /// Latest state per key, compacted with a lag of 24 h.
    State,
}

/// How long the broker keeps events and dead letters.
pub const EVENTS_KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// How long every version of a state record stays readable before it may be compacted away.
pub const COMPACTION_LAG_MS: i64 = 24 * 3_600_000;
/// Largest batch the broker takes, which is also the largest record.
pub const MAX_MESSAGE_BYTES: i64 = 1 << 20;

impl Retention {
    /// The broker's settings for such a topic, as given when it is made.
    pub fn settings(self) -> Vec<(&'static str, String)> {
        let mut settings = match self {
            Retention::Events => {
                vec![("cleanup.policy", "delete".to_owned()), ("retention.ms", EVENTS_KEPT_MS.to_string())]
            }
            Retention::State => {
                vec![("cleanup.policy", "compact".to_owned()), ("min.compaction.lag.ms", COMPACTION_LAG_MS.to_string())]
            }
        };
        settings.push(("max.message.bytes", MAX_MESSAGE_BYTES.to_string()));
        settings
    }
}

/// One topic of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    pub name: &'static str,
    /// Name of the Avro record, and of `avro/<record>.v<n>.avsc`.
    pub record: &'static str,
    /// CloudEvents type.
    pub event_type: &'static str,
    pub retention: Retention,
    pub partitions: i32,
}

/// Partitions of every topic: a state topic has as many as its input.
pub const PARTITIONS: i32 = 12;

macro_rules! topics {
    ($($const:ident = $name:literal, $record:literal, $type:literal, $retention:ident;)*) => {
        $(pub const $const: Topic = Topic {
            name: $name, record: $record, event_type: $type, retention: Retention::$retention, partitions: PARTITIONS,
        };)*
        /// Every topic that carries records of the contract.
        pub const ALL: &[Topic] = &[$($const),*];
    };
}

topics! {
    SALES = "vorca.sales.v1", "DocumentCommitted", "vorca.document.committed.v1", Events;
    MOVEMENTS = "vorca.inventory.movements.v1", "StockMoved", "vorca.stock.moved.v1", Events;
    LOYALTY_ENTRIES = "vorca.loyalty.entries.v1", "LoyaltyPosted", "vorca.loyalty.posted.v1", Events;
    ALERTS = "vorca.inventory.alerts.v1", "StockFellLow", "vorca.stock.fell_low.v1", Events;
    RESYNC = "vorca.resync.requests.v1", "ResyncRequested", "vorca.resync.requested.v1", Events;
    STOCK = "vorca.inventory.stock.v1", "StockLevel", "vorca.stock.level.v1", State;
    BALANCES = "vorca.loyalty.balances.v1", "LoyaltyBalance", "vorca.loyalty.balance.v1", State;
    VARIANTS = "vorca.catalog.variants.v1", "Variant", "vorca.catalog.variant.v1", State;
    LOCATIONS = "vorca.catalog.locations.v1", "Location", "vorca.catalog.location.v1", State;
    CASHIERS = "vorca.catalog.cashiers.v1", "Cashier", "vorca.catalog.cashier.v1", State;
    AUDIT_HEADS = "vorca.audit.heads.v1", "AuditHeadSigned", "vorca.audit.head_signed.v1", State;
    AUDIT_ROOTS = "vorca.audit.roots.v1", "AuditRootSigned", "vorca.audit.root_signed.v1", State;
}

/// Topics whose every record comes out of the outbox.
pub const FROM_OUTBOX: &[Topic] =
    &[SALES, MOVEMENTS, LOYALTY_ENTRIES, VARIANTS, LOCATIONS, CASHIERS, AUDIT_HEADS, AUDIT_ROOTS];

/// Consumer groups: stable names, each with the topics it reads. A dead-letter topic exists for each pair.
pub mod groups {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    pub struct Group {
        pub name: &'static str,
        pub topics: &'static [Topic],
    }
    pub const STOCK_PROCESSOR: Group = Group { name: "vorca.stock", topics: &[MOVEMENTS] };
    pub const LOYALTY_PROCESSOR: Group = Group { name: "vorca.loyalty", topics: &[LOYALTY_ENTRIES] };
    pub const CLICKHOUSE_SINK: Group = Group {
        name: "vorca.clickhouse",
        topics: &[SALES, MOVEMENTS, LOYALTY_ENTRIES, ALERTS, VARIANTS, LOCATIONS, CASHIERS, AUDIT_HEADS, AUDIT_ROOTS],
    };
    pub const VIEW_SINK: Group = Group { name: "vorca.view", topics: &[STOCK, BALANCES] };
    pub const RESYNC_WORKER: Group = Group { name: "vorca.resync", topics: &[RESYNC] };
    pub const ALL: &[Group] = &[STOCK_PROCESSOR, LOYALTY_PROCESSOR, CLICKHOUSE_SINK, VIEW_SINK, RESYNC_WORKER];
}

/// Names of every dead-letter topic: one for each consumer group and each topic it reads. They are kept as
/// [`Retention::Events`], with [`PARTITIONS`] partitions.
pub fn dead_letters() -> Vec<String> {
    groups::ALL.iter().flat_map(|group| group.topics.iter().map(|topic| dead_letter(topic.name, group.name))).collect()
}

/// `<topic>.<consumer group>.dlt`: original bytes and headers, and `dlt_*` headers with the cause.
pub fn dead_letter(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.dlt")
}

/// The topic with this name, if it is one of the contract.
pub fn by_name(name: &str) -> Option<&'static Topic> {
    ALL.iter().find(|topic| topic.name == name)
}
