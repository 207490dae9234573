//! The serving view: state topics -> Redis, for whatever wants an answer in well under a millisecond. Never
//! truth, always rebuildable: every write carries (epoch, version) and loses against a newer one.
//!
//! Redis itself says what it has seen: the next offset of each partition is stored by the script that writes
//! the entities, beside a generation that an empty Redis does not have. A partition is filled, from its
//! beginning or from where Redis stands, when it is assigned and whenever that offset or the generation shows
//! that data was lost; nobody has to notice and nobody has to start a rebuild. Offsets are committed after the
//! write; while Redis is away the batch is retried, partitions paused, and the role is not ready.
//!
//! The view is complete when `vorca:view:offsets` holds every partition of both topics ([`is_complete`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use redis::aio::ConnectionManager;
use runtime::consumer::{self, Batch, ConsumerConfig, Failure, Handler, Partition, Record, Reject};
use runtime::kafka::read_from;
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::{config, names};
use schemas::codec::{Codec, DecodeError, unframe};
use schemas::events::{LoyaltyBalance, StockLevel};
use schemas::topics;
use tokio::sync::Mutex;

pub mod entry;
pub mod store;

use entry::Entry;
use store::{Slice, Store, Written};

/// How often an idle sink asks Redis whether it still holds what was written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// States wait this long for newer ones of the same entity, which replace them.
const BATCH_AGE_MAX: Duration = Duration::from_millis(500);
/// Entities that a fill holds before it writes them.
const FILL_ENTRIES: usize = 5_000;
/// Attempts at a batch against a Redis that keeps losing data, before the batch is retried as a whole.
const LOSSES_MAX: usize = 3;
const CHECK: &str = "redis";

/// Where the view reads. Names other than the contract's are for tests.
#[derive(Debug, Clone)]
pub struct Topics {
    pub group: String,
    pub stock: String,
    pub balances: String,
}

impl Topics {
    /// The names of the contract.
    pub fn contract() -> Self {
        Self {
            group: topics::groups::VIEW_SINK.name.to_owned(),
            stock: topics::STOCK.name.to_owned(),
            balances: topics::BALANCES.name.to_owned(),
        }
    }
}

/// Whether Redis holds every partition of the contract, and under which generation.
pub async fn is_complete(connection: &ConnectionManager) -> redis::RedisResult<Option<String>> {
    let (generation, seen) = Store::new(connection.clone()).seen().await?;
    let wanted = [topics::STOCK, topics::BALANCES];
    let has_all = |topic: &topics::Topic| (0..topic.partitions).all(|p| seen.contains_key(&field(topic.name, p)));
    Ok(generation.filter(|_| wanted.iter().all(has_all)))
}

/// `<topic>/<partition>`: the field of a partition in [`entry::OFFSETS_KEY`].
pub fn field(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// Keeps the view of the assigned partitions: one per process.
pub struct View {
    kafka: config::Kafka,
    codec: Codec,
    topics: Topics,
    store: Store,
    /// The generation that was filled; none before the first contact.
    generation: Option<String>,
    assigned: BTreeSet<Partition>,
    /// What Redis is known to have seen, of the partitions that are filled.
    seen: BTreeMap<Partition, i64>,
}

impl View {
    /// A view without partitions; nothing is connected yet.
    pub fn new(kafka: &config::Kafka, registry: &config::Registry, redis: ConnectionManager, topics: Topics) -> Self {
        Self {
            kafka: kafka.clone(),
            codec: Codec::new(&registry.url),
            topics,
            store: Store::new(redis),
            generation: None,
            assigned: BTreeSet::new(),
            seen: BTreeMap::new(),
        }
    }

    async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        self.note_assignment(batch);
        let mut shares: BTreeMap<Partition, (Vec<Entry>, i64)> = BTreeMap::new();
        let mut rejects = Vec::new();
        for (index, record) in batch.records.iter().enumerate() {
            let partition = (Arc::clone(&record.topic), record.partition);
            let (entries, next) = shares.entry(partition).or_default();
            *next = record.offset + 1;
            match self.decode(record).await {
                Ok(entry) => entries.extend(entry),
                Err(error @ DecodeError::Unavailable(_)) => return Err(Failure::retry(error)),
                Err(error) => rejects.push(self.reject(index, record, &error).await?),
            }
        }
        let shares = shares.into_iter().map(|(partition, (entries, next))| (partition, entry::newest(entries), next));
        let shares: Vec<_> = shares.collect();
        for _ in 0..LOSSES_MAX {
            self.fill_missing().await.map_err(Failure::Retry)?;
            if self.write(&shares).await.map_err(Failure::retry)? {
                return Ok(rejects);
            }
            self.forget_what_was_seen();
        }
        Err(Failure::Retry(anyhow::anyhow!("Redis lost its data {LOSSES_MAX} times while one batch was written")))
    }

    fn note_assignment(&mut self, batch: &Batch) {
        for partition in &batch.revoked {
            self.assigned.remove(partition);
            self.seen.remove(partition);
        }
        self.assigned.extend(batch.assigned.iter().cloned());
        self.assigned.extend(batch.records.iter().map(|record| (Arc::clone(&record.topic), record.partition)));
    }

    /// Writes the shares of a batch; false when Redis has lost data meanwhile.
    async fn write(&mut self, shares: &[(Partition, Vec<Entry>, i64)]) -> redis::RedisResult<bool> {
        for (partition, entries, next) in shares {
            let at_least = self.seen.get(partition).copied();
            let slice = Slice {
                generation: self.generation.as_deref().unwrap_or_default(),
                field: &field(&partition.0, partition.1),
                at_least,
                next: Some(*next),
                announce: true,
                entries,
            };
            let Written::Done { changed } = self.store.write(&slice).await? else { return Ok(false) };
            count(&partition.0, entries.len(), changed);
            self.seen.insert(partition.clone(), at_least.unwrap_or(0).max(*next));
        }
        Ok(true)
    }

    /// Fills every assigned partition that is not known to be in Redis.
    async fn fill_missing(&mut self) -> anyhow::Result<()> {
        if self.generation.is_none() {
            self.generation = Some(self.store.generation().await.context("asking Redis for the view's generation")?);
        }
        let missing = self.assigned.iter().filter(|partition| !self.seen.contains_key(*partition));
        let mut by_topic: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
        missing.for_each(|(topic, partition)| by_topic.entry(Arc::clone(topic)).or_default().push(*partition));
        for (topic, partitions) in by_topic {
            if !self.fill(&topic, &partitions).await.with_context(|| format!("filling from {topic}"))? {
                self.forget_what_was_seen();
                anyhow::bail!("Redis lost its data while it was being filled");
            }
        }
        Ok(())
    }

    /// Brings Redis from what it has seen of these partitions up to their present ends. What it had missed of
    /// a partition it knows is announced; the filling of an empty one is not. False when Redis lost data again.
    async fn fill(&mut self, topic: &Arc<str>, partitions: &[i32]) -> anyhow::Result<bool> {
        let (_, offsets) = self.store.seen().await?;
        let stored: BTreeMap<i32, Option<i64>> =
            partitions.iter().map(|&partition| (partition, offsets.get(&field(topic, partition)).copied())).collect();
        let from = stored.iter().map(|(&partition, stored)| (partition, stored.unwrap_or(0))).collect();
        let mut reading = read_from(&self.kafka, topic, from);
        let mut shares: BTreeMap<i32, Fill> =
            stored.iter().map(|(&partition, stored)| (partition, Fill::new(*stored))).collect();
        while let Some(chunk) = reading.next().await {
            for record in chunk {
                let Some(share) = shares.get_mut(&record.partition) else { continue };
                match self.decode(&record).await {
                    Ok(entry) => share.entries.extend(entry),
                    Err(error @ DecodeError::Unavailable(_)) => return Err(error.into()),
                    // It was, or will be, rejected as a record of a batch.
                    Err(error) => tracing::warn!(kafka.offset = record.offset, %error, "record passed over"),
                }
                if share.entries.len() >= FILL_ENTRIES && !self.fill_some(topic, record.partition, share, None).await? {
                    return Ok(false);
                }
            }
        }
        let ends = reading.finish().await?.ends;
        for (partition, mut share) in shares {
            let end = ends.get(&partition).copied().unwrap_or(0).max(share.stored.unwrap_or(0));
            if !self.fill_some(topic, partition, &mut share, Some(end)).await? {
                return Ok(false);
            }
            self.seen.insert((Arc::clone(topic), partition), end);
            share.report(topic, partition);
        }
        Ok(true)
    }

    async fn fill_some(
        &mut self,
        topic: &str,
        partition: i32,
        share: &mut Fill,
        next: Option<i64>,
    ) -> redis::RedisResult<bool> {
        share.records += share.entries.len();
        let entries = entry::newest(share.entries.drain(..));
        let slice = Slice {
            generation: self.generation.as_deref().unwrap_or_default(),
            field: &field(topic, partition),
            at_least: None,
            next,
            announce: share.stored.is_some(),
            entries: &entries,
        };
        Ok(self.store.write(&slice).await? != Written::Lost)
    }

    /// Redis is not what it was: everything has to be compared with it again.
    fn forget_what_was_seen(&mut self) {
        tracing::warn!("Redis lost data: filling the view again");
        metrics::counter!(names::VIEW_LOSSES).increment(1);
        self.generation = None;
        self.seen.clear();
    }

    /// Compares Redis with what was written, and fills again what it lost.
    async fn look(&mut self) -> anyhow::Result<()> {
        let Some(generation) = &self.generation else { return self.fill_missing().await };
        let (stored, offsets) = self.store.seen().await?;
        let is_behind = |(partition, seen): (&Partition, &i64)| {
            offsets.get(&field(&partition.0, partition.1)).is_none_or(|stored| stored < seen)
        };
        if stored.as_ref() != Some(generation) || self.seen.iter().any(is_behind) {
            self.forget_what_was_seen();
        }
        self.fill_missing().await
    }

    async fn decode(&self, record: &Record) -> Result<Option<Entry>, DecodeError> {
        // A tombstone takes nothing away: what a restore withdrew loses against its newer epoch.
        let Some(payload) = &record.payload else { return Ok(None) };
        let is_stock = *record.topic == *self.topics.stock;
        Ok(Some(if is_stock {
            entry::stock(&self.codec.decode::<StockLevel>(payload).await?)
        } else {
            entry::balance(&self.codec.decode::<LoyaltyBalance>(payload).await?)
        }))
    }

    async fn reject(&self, index: usize, record: &Record, error: &DecodeError) -> Result<Reject, Failure> {
        let own_id = if *record.topic == *self.topics.stock {
            self.codec.schema_id::<StockLevel>().await
        } else {
            self.codec.schema_id::<LoyaltyBalance>().await
        };
        let own_id = own_id.map_err(Failure::retry)?;
        let schema_id = record.payload.as_deref().and_then(|payload| unframe(payload).ok()).map(|(id, _)| id);
        Ok(Reject { index, code: error.code(), error: error.to_string(), own_schema: schema_id == Some(own_id) })
    }
}

/// A partition being filled.
struct Fill {
    /// What Redis had seen of it; nothing when it held none of it.
    stored: Option<i64>,
    entries: Vec<Entry>,
    records: usize,
}

impl Fill {
    fn new(stored: Option<i64>) -> Self {
        Self { stored, entries: Vec::new(), records: 0 }
    }

    fn report(&self, topic: &str, partition: i32) {
        if self.records > 0 {
            let cause = if self.stored.is_some() { "behind" } else { "empty" };
            metrics::counter!(names::VIEW_FILLS, "topic" => topic.to_owned(), "cause" => cause).increment(1);
            tracing::info!(kafka.topic = topic, kafka.partition = partition, records = self.records, cause, "filled");
        }
    }
}

fn count(topic: &str, offered: usize, changed: usize) {
    let stale = offered.saturating_sub(changed);
    for (outcome, entries) in [("changed", changed), ("stale", stale)] {
        metrics::counter!(names::VIEW_ENTRIES, "topic" => topic.to_owned(), "outcome" => outcome)
            .increment(entries as u64);
    }
}

/// The view, shared by the consumer loop and the look at Redis.
struct Shared {
    view: Arc<Mutex<View>>,
    health: Health,
}

impl Handler for Shared {
    async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        let result = self.view.lock().await.handle(batch).await;
        match &result {
            Ok(_) => self.health.set(CHECK, true, ""),
            Err(error) => self.health.set(CHECK, false, error.to_string()),
        }
        result
    }
}

/// Runs the sink until `stop`.
pub async fn run(view: View, stop: Shutdown, health: Health) -> anyhow::Result<()> {
    health.set(CHECK, false, "not asked yet");
    let cfg = ConsumerConfig {
        batch_age_max: BATCH_AGE_MAX,
        ..ConsumerConfig::new(&view.kafka, &view.topics.group, &[&view.topics.stock, &view.topics.balances])
    };
    let view = Arc::new(Mutex::new(view));
    let looking = tokio::spawn(look_until(Arc::clone(&view), stop.clone(), health.clone()));
    let result = consumer::run(cfg, stop, health.clone(), Shared { view, health }).await;
    looking.abort();
    result
}

/// An idle sink notices a loss, too.
async fn look_until(view: Arc<Mutex<View>>, stop: Shutdown, health: Health) {
    loop {
        tokio::select! { () = tokio::time::sleep(LOOK_EVERY) => {}, () = stop.cancelled() => return }
        match view.lock().await.look().await {
            Ok(()) => health.set(CHECK, true, ""),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the view cannot be looked after, trying again");
                health.set(CHECK, false, format!("{error:#}"));
            }
        }
    }
}
