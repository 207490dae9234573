//! Reading a topic from its beginning to where it ended when the reading began: how folds restore their
//! state from a compacted topic, and how checks and redrive read a whole topic.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Record, client};
use crate::config;

const REQUEST_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
/// Records handed over at once; a few such chunks are under way, so memory stays small.
const CHUNK: usize = 1_000;
const CHUNKS_UNDER_WAY: usize = 4;
/// Reading that gets nothing for this long has failed.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    pub records: u64,
    /// Per partition, the offset reading went up to (exclusive): the end when it began.
    pub ends: BTreeMap<i32, i64>,
}

/// Gives `each` every record of these partitions, tombstones included, in offset order per partition, up to
/// the ends found at the start. Belongs to no consumer group and commits nothing.
pub async fn read_to_end(
    kafka: &config::Kafka,
    topic: &str,
    partitions: &[i32],
    mut each: impl FnMut(Record),
) -> anyhow::Result<Restored> {
    let mut reading = read_from(kafka, topic, partitions.iter().map(|&partition| (partition, 0)).collect());
    while let Some(chunk) = reading.next().await {
        chunk.into_iter().for_each(&mut each);
    }
    reading.finish().await
}

/// Starts reading these partitions from the given offsets (or from what is left, if that begins later) to the
/// ends found at the start. Memory is bounded: reading waits for whoever takes the chunks.
pub fn read_from(kafka: &config::Kafka, topic: &str, from: BTreeMap<i32, i64>) -> Reading {
    let mut settings = client(kafka);
    settings
        .set("group.id", "vorca.read-to-end")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.max.messages.kbytes", "16384");
    let (send, chunks) = mpsc::channel(CHUNKS_UNDER_WAY);
    let (topic, name) = (topic.to_owned(), topic.to_owned());
    let thread = tokio::task::spawn_blocking(move || read(&settings, &name, &from, &send));
    Reading { topic, chunks, thread }
}

/// A topic being read. Dropping it ends the reading.
#[derive(Debug)]
pub struct Reading {
    topic: String,
    chunks: mpsc::Receiver<Vec<Record>>,
    thread: JoinHandle<anyhow::Result<Restored>>,
}

impl Reading {
    /// The next records, in offset order per partition; nothing when all were read, or reading failed.
    pub async fn next(&mut self) -> Option<Vec<Record>> {
        self.chunks.recv().await
    }

    /// What was read, once [`Reading::next`] has given everything.
    pub async fn finish(self) -> anyhow::Result<Restored> {
        drop(self.chunks);
        self.thread.await.context("reading thread")?.with_context(|| format!("reading {} to its end", self.topic))
    }
}

fn read(
    settings: &ClientConfig,
    topic: &str,
    from: &BTreeMap<i32, i64>,
    send: &mpsc::Sender<Vec<Record>>,
) -> anyhow::Result<Restored> {
    let consumer: BaseConsumer = settings.create()?;
    let mut restored = Restored::default();
    let mut open: HashMap<i32, i64> = HashMap::new();
    let mut assignment = TopicPartitionList::new();
    for (&partition, &from) in from {
        let (low, high) = consumer.fetch_watermarks(topic, partition, REQUEST_LIMIT)?;
        restored.ends.insert(partition, high);
        let start = from.max(low);
        if start < high {
            open.insert(partition, high);
            assignment.add_partition_offset(topic, partition, Offset::Offset(start))?;
        }
    }
    if open.is_empty() {
        return Ok(restored);
    }
    consumer.assign(&assignment)?;
    let name: Arc<str> = Arc::from(topic);
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut progress = Instant::now();
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                progress = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let Some(end) = open.get(&partition).copied() else { continue };
                if offset < end {
                    restored.records += 1;
                    chunk.push(Record::copy(&message, Arc::clone(&name)));
                }
                if offset + 1 >= end {
                    open.remove(&partition);
                }
            }
            // The last offsets of a compacted partition may hold no record.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            Some(Err(error)) => tracing::warn!(topic, %error, "reading to the end goes on"),
            None => {}
        }
        if progress.elapsed() > STALL_LIMIT {
            bail!("nothing came for {} s, partitions {:?} are open", STALL_LIMIT.as_secs(), open.keys());
        }
        if chunk.len() >= CHUNK && send.blocking_send(std::mem::take(&mut chunk)).is_err() {
            bail!("nobody waits for the records any more");
        }
    }
    if !chunk.is_empty() {
        // When nobody waits any more, nobody looks at the result either.
        send.blocking_send(chunk).ok();
    }
    Ok(restored)
}
