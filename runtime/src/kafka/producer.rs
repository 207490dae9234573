//! The producer: idempotent, every delivery awaited, rebuilt after a fatal error.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::Notify;

use super::{MAX_DEAD_LETTER_BYTES, OutRecord, client};
use crate::{config, names};

/// Above the longest outage we ride out without reporting a failure to the caller.
const DELIVERY_LIMIT: Duration = Duration::from_secs(600);
/// While deliveries are awaited, the producer is asked this often whether it has died.
const FATAL_CHECK: Duration = Duration::from_millis(500);
/// How long a full queue is given to drain before it is tried again.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(20);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Why a batch was not delivered as a whole. Some of its records may have arrived: send all of them again,
/// receivers recognise what they have by version or `ce_id`.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The broker or the client refuses a record for what it is; sending it again does not help.
    #[error("record for {topic} refused: {reason}")]
    Refused { topic: String, reason: String },
    /// Not delivered this time: broker away, or the producer had to be rebuilt.
    #[error("not delivered: {0}")]
    Undelivered(String),
}

impl SendError {
    pub fn is_retryable(&self) -> bool {
        matches!(self, SendError::Undelivered(_))
    }
}

/// Sends batches of records. Clones share one client.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    config: ClientConfig,
    current: Mutex<Arc<ThreadedProducer<Reports>>>,
}

impl Producer {
    /// Connects in the background; an unreachable broker is not an error here.
    pub fn new(kafka: &config::Kafka) -> anyhow::Result<Self> {
        Self::with_delivery_limit(kafka, DELIVERY_LIMIT)
    }

    /// Like [`Producer::new`], giving up on a record after `limit`.
    pub fn with_delivery_limit(kafka: &config::Kafka, limit: Duration) -> anyhow::Result<Self> {
        let mut config = client(kafka);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A record given up on stops the producer: nothing may be delivered behind it, or the order of its
            // entity would break. The caller sends the whole batch again.
            .set("enable.gapless.guarantee", "true")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("message.max.bytes", (2 * MAX_DEAD_LETTER_BYTES).to_string())
            .set("message.timeout.ms", limit.as_millis().to_string())
            .set("topic.metadata.propagation.max.ms", "10000")
            // Bounds the memory of a process whose broker is away.
            .set("queue.buffering.max.kbytes", "32768");
        let current = Mutex::new(Arc::new(start(&config)?));
        Ok(Producer { shared: Arc::new(Shared { config, current }) })
    }

    /// Sends all records, in order per partition, and returns when the broker has acknowledged every one of
    /// them. Memory is bounded: while the queue is full it waits. On an error send the same batch again.
    pub async fn send_all(&self, records: &[OutRecord]) -> Result<(), SendError> {
        if records.is_empty() {
            return Ok(());
        }
        let producer = self.current();
        let pending = Arc::new(Pending::default());
        let mut enqueued = Ok(());
        for record in records {
            enqueued = enqueue(&producer, record, &pending).await;
            if enqueued.is_err() {
                break;
            }
        }
        if is_dead(&producer) {
            purge(&producer);
        }
        // Also after an error: whatever was enqueued is reported before the caller decides anything.
        while !pending.wait(FATAL_CHECK).await {
            if is_dead(&producer) {
                purge(&producer);
            }
        }
        let result = enqueued.and_then(|()| pending.result());
        if result.is_ok() {
            count_delivered(records);
        }
        if let Some((code, reason)) = producer.client().fatal_error() {
            self.rebuild(&producer, code, &reason)?;
        }
        result
    }

    /// Where these partitions end now: the offset that the next record gets.
    pub async fn ends(&self, topic: &str, partitions: Vec<i32>) -> anyhow::Result<BTreeMap<i32, i64>> {
        let (producer, topic) = (self.current(), topic.to_owned());
        let ask = move || {
            let end = |partition| producer.client().fetch_watermarks(&topic, partition, REQUEST_LIMIT);
            partitions.into_iter().map(|partition| Ok((partition, end(partition)?.1))).collect()
        };
        tokio::task::spawn_blocking(ask).await.context("asking where partitions end")?
    }

    fn current(&self) -> Arc<ThreadedProducer<Reports>> {
        Arc::clone(&self.shared.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces a producer that reported a fatal error, once, whoever notices first.
    fn rebuild(
        &self,
        dead: &Arc<ThreadedProducer<Reports>>,
        code: RDKafkaErrorCode,
        reason: &str,
    ) -> Result<(), SendError> {
        let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, dead) {
            tracing::warn!(%code, reason, "the producer has ended, building another");
            metrics::counter!(names::PRODUCER_REBUILDS).increment(1);
            let new = start(&self.shared.config).map_err(|e| SendError::Undelivered(e.to_string()))?;
            let old = std::mem::replace(&mut *current, Arc::new(new));
            // Closing it waits for its thread.
            std::thread::spawn(move || drop(old));
        }
        Ok(())
    }
}

fn count_delivered(records: &[OutRecord]) {
    // A handful of topics, however many records.
    let mut by_topic: Vec<(&str, u64)> = Vec::new();
    for record in records {
        match by_topic.iter_mut().find(|(topic, _)| *topic == record.topic) {
            Some((_, count)) => *count += 1,
            None => by_topic.push((&record.topic, 1)),
        }
    }
    for (topic, count) in by_topic {
        metrics::counter!(names::PRODUCER_RECORDS, "topic" => topic.to_owned(), "outcome" => "delivered")
            .increment(count);
    }
}

fn start(config: &ClientConfig) -> KafkaResult<ThreadedProducer<Reports>> {
    config.create_with_context(Reports)
}

fn is_dead(producer: &ThreadedProducer<Reports>) -> bool {
    producer.client().fatal_error().is_some()
}

fn purge(producer: &ThreadedProducer<Reports>) {
    producer.purge(PurgeConfig::default().queue().inflight());
}

async fn enqueue(
    producer: &ThreadedProducer<Reports>,
    record: &OutRecord,
    pending: &Arc<Pending>,
) -> Result<(), SendError> {
    loop {
        pending.expect_one();
        let Err(error) = producer.send(base_record(record, pending)) else { return Ok(()) };
        pending.forget_one();
        match error.0 {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => pending.pause().await,
            error => return Err(failure(&record.topic, &error)),
        }
    }
}

fn base_record<'a>(record: &'a OutRecord, pending: &Arc<Pending>) -> BaseRecord<'a, [u8], [u8], Arc<Pending>> {
    let mut base = BaseRecord::with_opaque_to(&record.topic, Arc::clone(pending));
    base.partition = record.partition;
    base.key = record.key.as_deref();
    base.payload = record.payload.as_deref();
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        let add = |headers: OwnedHeaders, (name, value): &(_, Option<bytes::Bytes>)| {
            let name: &std::borrow::Cow<'_, str> = name;
            headers.insert(Header { key: name, value: value.as_deref() })
        };
        base.headers = Some(record.headers.iter().fold(headers, add));
    }
    base
}

/// Only what is wrong with the record itself is a refusal. A topic that is missing or forbidden is somebody's to repair:
/// until then its records wait, and none of them is set aside.
fn failure(topic: &str, error: &KafkaError) -> SendError {
    use RDKafkaErrorCode as E;
    match error.rdkafka_error_code() {
        Some(E::MessageSizeTooLarge | E::InvalidMessage | E::InvalidMessageSize | E::InvalidRecord) => {
            SendError::Refused { topic: topic.to_owned(), reason: error.to_string() }
        }
        _ => SendError::Undelivered(format!("{topic}: {error}")),
    }
}

/// Counts the deliveries of one batch: one allocation per batch, not one future per record.
#[derive(Debug, Default)]
struct Pending {
    outstanding: AtomicUsize,
    failed: Mutex<Option<SendError>>,
    progress: Notify,
}

impl Pending {
    fn expect_one(&self) {
        self.outstanding.fetch_add(1, Ordering::AcqRel);
    }

    fn forget_one(&self) {
        self.outstanding.fetch_sub(1, Ordering::AcqRel);
    }

    fn report(&self, failed: Option<SendError>) {
        if let Some(error) = failed {
            let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            // A refusal explains a batch better than what it dragged along.
            if first.as_ref().is_none_or(|known| known.is_retryable() && !error.is_retryable()) {
                *first = Some(error);
            }
        }
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.progress.notify_one();
        }
    }

    /// Waits until everything enqueued so far is reported, at most `limit`; true when it is.
    async fn wait(&self, limit: Duration) -> bool {
        let done = || self.outstanding.load(Ordering::Acquire) == 0;
        if !done() {
            // A stored notification may be an old one: look again.
            tokio::time::timeout(limit, self.progress.notified()).await.ok();
        }
        done()
    }

    async fn pause(&self) {
        self.wait(FULL_QUEUE_PAUSE).await;
        if self.outstanding.load(Ordering::Acquire) == 0 {
            // The queue is filled by other batches: nothing will notify us.
            tokio::time::sleep(FULL_QUEUE_PAUSE).await;
        }
    }

    fn result(&self) -> Result<(), SendError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// Receives the delivery reports, on the producer's own thread.
struct Reports;

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Arc<Pending>) {
        match result {
            Ok(_) => pending.report(None),
            Err((error, message)) => {
                metrics::counter!(names::PRODUCER_RECORDS, "topic" => message.topic().to_owned(), "outcome" => "failed")
                    .increment(1);
                pending.report(Some(failure(message.topic(), error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_record_itself_can_be_refused() {
        use RDKafkaErrorCode as E;
        let refused = |code| !failure("t", &KafkaError::MessageProduction(code)).is_retryable();
        assert!([E::MessageSizeTooLarge, E::InvalidRecord, E::InvalidMessageSize].into_iter().all(refused));
        let topics = [E::UnknownTopic, E::UnknownTopicOrPartition, E::UnknownPartition, E::TopicAuthorizationFailed];
        assert!(!topics.into_iter().any(refused), "a missing topic says nothing about a record");
    }
}
