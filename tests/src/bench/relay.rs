//! The relay draining a backlog beside a bare producer: the same records, keys, headers and partitions, to the same
//! broker, with the same producer settings. The relay also reads them from Postgres, frames them and records progress.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use schemas::topics::{self, PARTITIONS};
use serde::Serialize;

use super::machine::{median, process_cpu, service_cpu};
use super::{Options, Ratio, Stage};
use crate::stack::Service;

/// Topics that the outbox of a sale goes to.
const TOPICS: [&str; 3] = [topics::SALES.name, topics::MOVEMENTS.name, topics::LOYALTY_ENTRIES.name];

#[derive(Debug, Clone, Serialize)]
pub struct RelayReport {
    pub records: i64,
    pub bytes_per_record: f64,
    pub pairs: Vec<RelayPair>,
    pub records_per_s: f64,
    pub bare_records_per_s: f64,
    pub ratio: Ratio,
}

#[derive(Debug, Clone, Serialize)]
pub struct RelayPair {
    pub records_per_s: f64,
    pub bare_records_per_s: f64,
    /// CPU microseconds a record.
    pub relay_us: f64,
    pub postgres_us: f64,
    pub bare_us: f64,
}

/// Drains the outbox `pairs` times, rewound in between, each time followed by the bare producer.
pub async fn measure(stage: &Stage, options: &Options) -> Result<RelayReport> {
    let records = stage.waiting_records().await?;
    ensure!(records > 0, "nothing waits in the outbox");
    // The first drain warms the broker and leaves the records from which the bare producer sends.
    drain(stage, records).await?;
    let brokers = stage.stack.endpoints()?.kafka;
    let sent = {
        let brokers = brokers.clone();
        tokio::task::spawn_blocking(move || read_back(&brokers, records as usize)).await??
    };
    let bytes: usize = sent.iter().map(size).sum();
    make_topics(&brokers).await?;
    let sent = std::sync::Arc::new(sent);
    let mut pairs = Vec::new();
    for n in 1..=options.pairs.min(3) {
        stage.rewind().await?;
        let (records_per_s, relay_us, postgres_us) = drain(stage, records).await?;
        let (brokers, sent) = (brokers.clone(), sent.clone());
        let (bare_records_per_s, bare_us) = tokio::task::spawn_blocking(move || produce(&brokers, &sent)).await??;
        eprintln!(
            "  pair {n}: relay {records_per_s:.0} records/s, bare producer {bare_records_per_s:.0}: {:.2}",
            records_per_s / bare_records_per_s
        );
        pairs.push(RelayPair { records_per_s, bare_records_per_s, relay_us, postgres_us, bare_us });
    }
    Ok(RelayReport {
        records,
        bytes_per_record: bytes as f64 / sent.len() as f64,
        records_per_s: median(pairs.iter().map(|pair| pair.records_per_s)),
        bare_records_per_s: median(pairs.iter().map(|pair| pair.bare_records_per_s)),
        ratio: Ratio::of(pairs.iter().map(|pair| pair.records_per_s / pair.bare_records_per_s)),
        pairs,
    })
}

/// Starts a relay over `records` waiting ones: records a second from its first progress to the last, CPU microseconds a
/// record of relay and Postgres.
async fn drain(stage: &Stage, records: i64) -> Result<(f64, f64, f64)> {
    // Before the relay runs: what it does while it becomes ready counts as done.
    let total = stage.waiting_acts().await?;
    let postgres_before = service_cpu(&stage.stack, Service::Postgres)?;
    stage.start(&[Service::Relay]).await?;
    // The clock starts with the first progress seen: starting up is not draining.
    let mut first = None;
    let waited = Instant::now();
    let (begin, at_begin) = loop {
        let waiting = stage.waiting_acts().await?;
        if waiting < total && first.is_none() {
            first = Some((Instant::now(), waiting));
        }
        if waiting == 0 {
            break first.unwrap_or((waited, total));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let took = begin.elapsed().as_secs_f64();
    // The relay is a new process: all it has used, it used for this.
    let relay = service_cpu(&stage.stack, Service::Relay)?;
    let postgres = service_cpu(&stage.stack, Service::Postgres)? - postgres_before;
    stage.stop(&[Service::Relay]).await?;
    let share = at_begin as f64 / total.max(1) as f64;
    let us = |seconds: f64| seconds * 1e6 / records as f64;
    Ok((records as f64 * share / took, us(relay), us(postgres)))
}

/// Records of the topics as the relay wrote them, from the beginning, at most `count`.
fn read_back(brokers: &str, count: usize) -> Result<Vec<OwnedMessage>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "4194304")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    let mut there = 0;
    for topic in TOPICS {
        for partition in 0..PARTITIONS {
            let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10))?;
            there += (high - low) as usize;
            assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&assignment)?;
    let mut all = Vec::with_capacity(there);
    while all.len() < there {
        match consumer.poll(Duration::from_secs(20)) {
            Some(message) => all.push(message?.detach()),
            None => anyhow::bail!("{} of {there} records could be read back", all.len()),
        }
    }
    // A first drain that was interrupted may have left more than waited.
    all.truncate(count);
    Ok(all)
}

fn size(message: &OwnedMessage) -> usize {
    message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len)
}

fn bare(topic: &str) -> String {
    format!("bench.{topic}")
}

async fn make_topics(brokers: &str) -> Result<()> {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let names = TOPICS.map(bare);
    let topics: Vec<_> = names.iter().map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))).collect();
    for made in admin.create_topics(&topics, &AdminOptions::new()).await? {
        if let Err((name, code)) = made {
            ensure!(code == RDKafkaErrorCode::TopicAlreadyExists, "{name}: {code}");
        }
    }
    Ok(())
}

/// Sends all and waits for the last acknowledgement: records a second, CPU microseconds a record of the sending thread
/// and the client's own threads together.
fn produce(brokers: &str, records: &[OwnedMessage]) -> Result<(f64, f64)> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("queue.buffering.max.kbytes", "32768")
        .create()?;
    let (begin, cpu) = (Instant::now(), process_cpu(std::process::id() as i32));
    let topics = TOPICS.map(|topic| (topic, bare(topic)));
    for record in records {
        let topic = topics.iter().find(|(name, _)| *name == record.topic()).context("a record of another topic")?;
        let headers = record.headers().cloned().unwrap_or_else(OwnedHeaders::new);
        let mut next = BaseRecord::to(&topic.1)
            .partition(record.partition())
            .key(record.key().unwrap_or_default())
            .payload(record.payload().unwrap_or_default())
            .headers(headers);
        while let Err((error, again)) = producer.send(next) {
            ensure!(
                matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)),
                "the bare producer: {error}"
            );
            next = again;
            producer.poll(Duration::from_millis(5));
        }
        producer.poll(Duration::ZERO);
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(5));
    }
    let took = begin.elapsed().as_secs_f64();
    let used = process_cpu(std::process::id() as i32) - cpu;
    Ok((records.len() as f64 / took, used * 1e6 / records.len() as f64))
}
