//! What each record of the contract is: its topic, its schemas, its key and its event id.

use std::sync::LazyLock;

use apache_avro::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::encode::Datum;
use crate::events::{
    AuditHeadSigned, AuditRootSigned, Cashier, DocumentCommitted, Location, LoyaltyBalance, LoyaltyPosted,
    ResyncRequested, StockFellLow, StockLevel, StockMoved, Variant,
};
use crate::ids::{LocationId, VariantId, event_id};
use crate::topics::{self, Topic};

/// A record of the contract. One topic carries one record, so the type names its topic.
pub trait Record:
    Datum + Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static
{
    const TOPIC: Topic;
    /// Version of the schema this build writes and reads: the last of [`Record::VERSIONS`].
    const SCHEMA_VERSION: i16;
    /// Every schema version that was ever released with its text, oldest first.
    const VERSIONS: &'static [SchemaText];

    /// The parsed schema of [`Record::SCHEMA_VERSION`].
    fn schema() -> &'static Schema;

    /// The partition key: text, never empty. State topics use the partition of their input instead of
    /// hashing it (see `docs/events.md`).
    fn key(&self) -> String;

    /// The CloudEvents id: the same for every send of the same fact.
    fn event_id(&self) -> Uuid;
}

/// One released schema of a record, as its `.avsc` file holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaText {
    pub version: i16,
    pub json: &'static str,
}

/// Registry subject of a topic's values (topic name strategy).
pub fn subject(topic: &Topic) -> String {
    format!("{}-value", topic.name)
}

/// A topic with every released schema of its record, oldest first.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub topic: Topic,
    pub versions: &'static [SchemaText],
}

/// `location:variant`, the key of a stock level and the aggregate of its movements.
pub fn stock_key(location: LocationId, variant: VariantId) -> String {
    format!("{location}:{variant}")
}

/// Counts, for the newest version, the files a record lists.
const fn newest(versions: &[SchemaText]) -> i16 {
    versions[versions.len() - 1].version
}

macro_rules! records {
    ($($record:ident on $topic:ident, versions [$($version:literal),+],
       |$event:ident| key $key:expr, id ($aggregate:expr, $epoch:expr, $entity_version:expr);)*) => {
        $(impl Record for $record {
            const TOPIC: Topic = topics::$topic;
            const SCHEMA_VERSION: i16 = newest(Self::VERSIONS);
            const VERSIONS: &'static [SchemaText] = &[$(SchemaText {
                version: $version,
                json: include_str!(concat!("../../avro/", stringify!($record), ".v", $version, ".avsc")),
            }),+];

            fn schema() -> &'static Schema {
                static SCHEMA: LazyLock<Schema> = LazyLock::new(|| compiled(<$record as Record>::VERSIONS));
                &SCHEMA
            }
            fn key(&self) -> String {
                let $event = self;
                $key
            }
            fn event_id(&self) -> Uuid {
                let $event = self;
                event_id(Self::TOPIC.event_type, &$aggregate, $epoch, $entity_version)
            }
        })*

        /// Every subject of the contract, in the order of [`topics::ALL`].
        pub const SUBJECTS: &[Subject] =
            &[$(Subject { topic: topics::$topic, versions: <$record as Record>::VERSIONS }),*];
    };
}

fn compiled(versions: &[SchemaText]) -> Schema {
    let text = versions.last().map_or("", |newest| newest.json);
    Schema::parse_str(text).expect("a schema file of this crate parses: the contract test reads every one")
}

records! {
    DocumentCommitted on SALES, versions [1, 2],
        |it| key it.location_id.to_string(), id (it.document_id.to_string(), it.epoch, it.location_seq);
    StockMoved on MOVEMENTS, versions [1],
        |it| key it.parent_location_id.unwrap_or(it.location_id).to_string(),
        id (stock_key(it.location_id, it.variant_id), it.epoch, it.version);
    LoyaltyPosted on LOYALTY_ENTRIES, versions [1],
        |it| key it.customer_id.to_string(), id (it.account_id.to_string(), it.epoch, it.version);
    StockFellLow on ALERTS, versions [1],
        |it| key it.location_id.to_string(), id (stock_key(it.location_id, it.variant_id), it.epoch, it.version);
    ResyncRequested on RESYNC, versions [1],
        |it| key it.entity.clone(),
        id (format!("{}:{}:{}", it.entity_kind, it.entity, it.consumer_group), it.seen_epoch, it.seen_version);
    StockLevel on STOCK, versions [1],
        |it| key stock_key(it.location_id, it.variant_id),
        id (stock_key(it.location_id, it.variant_id), it.epoch, it.version);
    LoyaltyBalance on BALANCES, versions [1],
        |it| key format!("{}:{}", it.customer_id, it.program_id), id (it.account_id.to_string(), it.epoch, it.version);
    Variant on VARIANTS, versions [1],
        |it| key it.variant_id.to_string(), id (it.variant_id.to_string(), it.epoch, it.version);
    Location on LOCATIONS, versions [1],
        |it| key it.location_id.to_string(), id (it.location_id.to_string(), it.epoch, it.version);
    Cashier on CASHIERS, versions [1],
        |it| key it.cashier_id.to_string(), id (it.cashier_id.to_string(), it.epoch, it.version);
    AuditHeadSigned on AUDIT_HEADS, versions [1],
        |it| key it.chain_id.to_string(), id (it.chain_id.to_string(), it.epoch, it.seq);
    AuditRootSigned on AUDIT_ROOTS, versions [1],
        |it| key format!("{}:{}:{}", it.location_id, it.business_date.to_date(), it.root_no),
        id (format!("{}:{}", it.location_id, it.business_date.to_date()), it.epoch, it.root_no.into());
}
