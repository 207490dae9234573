//! `ingest-api worker retire`: after a restore, what the compacted topics still hold of entities that the restored ledger
//! never had. Nothing is deleted: each gets one more state, of the present epoch with version 0, which wins over whatever
//! the lost time line wrote: nothing in stock, no points, not active. May be repeated at any time.
//!
//! The row of the audit log commits before anything is sent: no state leaves without it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use runtime::config;
use runtime::kafka::{OutRecord, Producer, read_from};
use runtime::pg::{PgTx, Writer};
use schemas::codec::{Codec, DecodeError, Record, encode, frame};
use schemas::events::{Cashier, Location, LoyaltyBalance, StockLevel, Variant};
use schemas::headers::{self, CloudEvent, SOURCE_INGEST_API};
use schemas::time::Timestamp;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::epoch::publish;
use crate::audit::{self, Entry};
use crate::context::Context;
use crate::error::ApiError;
use crate::operator::Operator;

/// The version of a state that retires its entity; the ledger counts from 1.
pub const RETIRED: i64 = 0;

/// How many entities of each kind were retired.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Retired {
    pub stock_levels: usize,
    pub balances: usize,
    pub variants: usize,
    pub locations: usize,
    pub cashiers: usize,
}

/// Retires what the ledger does not have. States of the processors are written here, into the partitions they lie in;
/// those of the catalog go through the outbox.
pub async fn retire(
    writer: &Writer,
    kafka: &config::Kafka,
    registry: &config::Registry,
    by: Operator,
) -> anyhow::Result<Retired> {
    let (pool, codec) = (writer.pool(), Codec::new(&registry.url));
    let epoch: i64 = sqlx::query_scalar("select max(epoch) from epochs").fetch_one(pool).await?;
    let now = Utc::now();
    let task = Task { kafka, codec: &codec, epoch, now: now.into() };

    let levels = pairs(pool, "select location_id, variant_id from stock_levels where version > 0").await?;
    let stock = task.lost(|level: &StockLevel| (level.location_id.0, level.variant_id.0), levels).await?;
    let accounts = pairs(pool, "select customer_id, program_id from loyalty_accounts where version > 0").await?;
    let balances =
        task.lost(|balance: &LoyaltyBalance| (balance.customer_id.0, balance.program_id.0), accounts).await?;
    let variants =
        task.lost(|it: &Variant| it.variant_id.0, ids(pool, "select variant_id from variants").await?).await?;
    let locations =
        task.lost(|it: &Location| it.location_id.0, ids(pool, "select location_id from locations").await?).await?;
    let cashiers = task.lost(|it: &Cashier| it.cashier_id.0, ids(pool, "select user_id from users").await?).await?;
    let retired = Retired {
        stock_levels: stock.len(),
        balances: balances.len(),
        variants: variants.len(),
        locations: locations.len(),
        cashiers: cashiers.len(),
    };
    if retired == Retired::default() {
        return Ok(retired);
    }
    let act = Act { variants: bodies(variants), locations: bodies(locations), cashiers: bodies(cashiers), epoch, now };
    let written =
        writer.write((act, retired.clone(), by), |tx, (act, retired, by)| Box::pin(write(tx, act, retired, by)));
    written.await.map_err(|error| anyhow!("publishing catalog states: {error}"))?;
    let producer = Producer::new(kafka)?;
    producer.send_all(&task.records(&stock).await?).await.context("retiring stock levels")?;
    producer.send_all(&task.records(&balances).await?).await.context("retiring balances")?;
    Ok(retired)
}

/// What goes through the outbox.
struct Act {
    variants: Vec<Variant>,
    locations: Vec<Location>,
    cashiers: Vec<Cashier>,
    epoch: i64,
    now: DateTime<Utc>,
}

async fn write(tx: &mut PgTx, act: &Act, retired: &Retired, by: &Operator) -> Result<(), ApiError> {
    let reason = serde_json::to_string(retired).map_err(ApiError::internal)?;
    let entry = Entry::of_operator(by, "records.retire", format!("epoch/{}", act.epoch)).because(&reason);
    audit::record(tx, &Context::of_task("worker-retire"), entry).await?;
    publish(tx, act.epoch, act.now, &act.variants).await?;
    publish(tx, act.epoch, act.now, &act.locations).await?;
    publish(tx, act.epoch, act.now, &act.cashiers).await?;
    Ok(())
}

/// A state topic's record as far as retiring goes.
trait State: Record {
    fn position(&self) -> (i64, i64);
    /// The state that retires the entity.
    fn retired(self, epoch: i64, now: Timestamp) -> Self;
}

struct Task<'a> {
    kafka: &'a config::Kafka,
    codec: &'a Codec,
    epoch: i64,
    now: Timestamp,
}

impl Task<'_> {
    /// Last states of an older epoch whose entity is not among `known`, retired, each with its partition.
    async fn lost<S: State, K: Hash + Eq>(
        &self,
        key: impl Fn(&S) -> K,
        known: HashSet<K>,
    ) -> anyhow::Result<Vec<(i32, S)>> {
        let mut newest: HashMap<K, (i32, S)> = HashMap::new();
        let topic = S::TOPIC;
        let mut reading = read_from(self.kafka, topic.name, (0..topic.partitions).map(|it| (it, 0)).collect());
        while let Some(chunk) = reading.next().await {
            for record in chunk {
                let Some(payload) = &record.payload else { continue };
                let state: S = match self.codec.decode(payload).await {
                    Ok(state) => state,
                    Err(DecodeError::Malformed(_)) => continue,
                    Err(error) => return Err(error).with_context(|| format!("a record of {}", topic.name)),
                };
                let key = key(&state);
                if !known.contains(&key) && newest.get(&key).is_none_or(|(_, held)| held.position() < state.position())
                {
                    newest.insert(key, (record.partition, state));
                }
            }
        }
        reading.finish().await?;
        let is_lost = |state: &S| state.position().0 < self.epoch && state.position().1 != RETIRED;
        let lost = newest.into_values().filter(|(_, state)| is_lost(state));
        Ok(lost.map(|(partition, state)| (partition, state.retired(self.epoch, self.now))).collect())
    }

    async fn records<S: State>(&self, states: &[(i32, S)]) -> anyhow::Result<Vec<OutRecord>> {
        let id = self.codec.schema_id::<S>().await?;
        let record = |(partition, state): &(i32, S)| {
            let key = Bytes::from(state.key());
            let event = CloudEvent {
                event_type: S::TOPIC.event_type,
                event_id: state.event_id(),
                source: SOURCE_INGEST_API,
                time: headers::time(self.now),
                subject: key.clone(),
                trace_parent: None,
            };
            OutRecord::new(S::TOPIC.name, key, frame(id, &encode(state)))
                .with_headers(event.headers())
                .with_partition(*partition)
        };
        Ok(states.iter().map(record).collect())
    }
}

fn bodies<S>(states: Vec<(i32, S)>) -> Vec<S> {
    states.into_iter().map(|(_, state)| state).collect()
}

async fn ids(pool: &PgPool, sql: &'static str) -> sqlx::Result<HashSet<Uuid>> {
    Ok(sqlx::query_scalar::<_, Uuid>(sql).fetch_all(pool).await?.into_iter().collect())
}

async fn pairs(pool: &PgPool, sql: &'static str) -> sqlx::Result<HashSet<(Uuid, Uuid)>> {
    Ok(sqlx::query_as::<_, (Uuid, Uuid)>(sql).fetch_all(pool).await?.into_iter().collect())
}

impl State for StockLevel {
    fn position(&self) -> (i64, i64) {
        (self.epoch, self.version)
    }
    fn retired(self, epoch: i64, now: Timestamp) -> Self {
        let (version, qty, threshold) = (RETIRED, 0, None);
        StockLevel { epoch, version, qty, threshold, is_fired: false, daily_sales: Vec::new(), updated_at: now, ..self }
    }
}

impl State for LoyaltyBalance {
    fn position(&self) -> (i64, i64) {
        (self.epoch, self.version)
    }
    fn retired(self, epoch: i64, now: Timestamp) -> Self {
        LoyaltyBalance { epoch, version: RETIRED, points: 0, updated_at: now, ..self }
    }
}

macro_rules! catalog_state {
    ($($state:ident)*) => {$(
        impl State for $state {
            fn position(&self) -> (i64, i64) {
                (self.epoch, self.version)
            }
            fn retired(self, epoch: i64, now: Timestamp) -> Self {
                $state { epoch, version: RETIRED, is_active: false, recorded_at: now, ..self }
            }
        }
    )*};
}

catalog_state!(Variant Location Cashier);
