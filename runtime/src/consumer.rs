//! The one consumer loop: batches in, offsets committed after, nothing skipped.
//!
//! 1. A dedicated thread owns the client ([`reader`]) and hands batches to the async handler over a channel
//!    of capacity one.
//! 2. A batch closes by count, bytes or age. One whose records were all filtered still moves offsets.
//! 3. Nothing is polled while an attempt runs, so an ordinary revocation waits for the batch and its commit;
//!    an attempt is bounded to a quarter of `max.poll.interval.ms`.
//! 4. Between retries partitions are paused and polling goes on. A partition revoked then takes its share of
//!    the batch with it, uncommitted.
//! 5. Offsets are committed synchronously, next offset only, for partitions still owned, by a thread of its own
//!    ([`committer`]). A commit that fails means replay, not an error; one that gets no answer within
//!    `commit_answer_max` is left to that thread, so that polling, a stop and the watchdog go on.
//! 6. A rejected record is in the dead-letter topic, delivery awaited, before its offset counts as done.
//! 7. At a stop the batch is finished or abandoned within the budget, what is done is committed, and the
//!    member leaves its group.

use std::future::Future;
use std::sync::mpsc as sync_mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use schemas::topics;
use tokio::sync::mpsc;

use crate::failure::HaltGuard;
use crate::kafka::{OutRecord, Producer, TopicSpec, check_topics, partition_counts};
use crate::lifecycle::{Shutdown, Unavailable};
use crate::offsets::Changes;
use crate::ops::Health;
use crate::{config, dead_letter, names};

mod committer;
mod context;
mod reader;

pub use crate::failure::{Failure, Reject};
pub use crate::kafka::{Headers, Record};
pub use crate::offsets::Partition;

/// A member that does not poll for this long is evicted.
pub(crate) const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);
const START_RETRY: Duration = Duration::from_secs(1);

/// One member of one consumer group.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    pub kafka: config::Kafka,
    /// Consumer group: stable, see `schemas::topics::groups`.
    pub group: String,
    pub topics: Vec<String>,
    /// A batch closes at this many records,
    pub batch_records_max: usize,
    /// or this many bytes,
    pub batch_bytes_max: usize,
    /// or when its first record has waited this long.
    pub batch_age_max: Duration,
    /// An attempt that takes longer is given up and repeated; at most a quarter of [`MAX_POLL_INTERVAL`].
    pub attempt_max: Duration,
    /// First pause between attempts; doubles with jitter up to `retry_pause_max`.
    pub retry_pause_min: Duration,
    pub retry_pause_max: Duration,
    /// A commit that the broker has not answered after this long counts as not done; it goes on in the background.
    pub commit_answer_max: Duration,
    /// `consumer` (KIP-848) or `classic`.
    pub group_protocol: &'static str,
}

impl ConsumerConfig {
    /// Sensible limits for a fold, which passes an event on within two tenths of a second; a sink raises them. A batch costs
    /// a dozen requests whatever it holds, so events are gathered for some tens of milliseconds.
    pub fn new(kafka: &config::Kafka, group: impl Into<String>, topics: &[&str]) -> Self {
        ConsumerConfig {
            kafka: kafka.clone(),
            group: group.into(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            batch_records_max: 2_000,
            batch_bytes_max: 4 << 20,
            batch_age_max: Duration::from_millis(100),
            attempt_max: MAX_POLL_INTERVAL / 5,
            retry_pause_min: Duration::from_millis(200),
            retry_pause_max: Duration::from_secs(10),
            commit_answer_max: Duration::from_secs(10),
            group_protocol: "consumer",
        }
    }

    /// The group and topics of the contract.
    pub fn of(kafka: &config::Kafka, group: &topics::groups::Group) -> Self {
        let names: Vec<&str> = group.topics.iter().map(|topic| topic.name).collect();
        Self::new(kafka, group.name, &names)
    }
}

/// Why a batch was closed; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    Count,
    Bytes,
    Age,
    /// No records: the assignment changed.
    Assignment,
}

impl Trigger {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Trigger::Count => "count",
            Trigger::Bytes => "bytes",
            Trigger::Age => "age",
            Trigger::Assignment => "assignment",
        }
    }
}

/// Records handled together, in offset order per partition. May be empty when only the assignment changed.
#[derive(Debug)]
pub struct Batch {
    pub records: Vec<Record>,
    /// Partitions taken away since the handler last succeeded: drop their state first.
    pub revoked: Vec<Partition>,
    /// Partitions given since the handler last succeeded: restore their state (again, if it is there) before
    /// handling `records`. A partition may be in both lists: it went and came back.
    pub assigned: Vec<Partition>,
    /// 1 for the first attempt.
    pub attempt: u32,
    pub trigger: Trigger,
}

/// What a role does with its batches.
pub trait Handler: Send {
    /// Handles a batch completely, or not at all as far as anybody can tell: after `Retry`, or when the
    /// attempt is given up at a time limit (the future is dropped), the same batch comes again. So change
    /// the handler's own state only where repeating is harmless. Returns the records it refuses.
    fn handle(&mut self, batch: &Batch) -> impl Future<Output = Result<Vec<Reject>, Failure>> + Send;
}

/// A batch on its way to the handler.
pub(crate) struct Work {
    pub(crate) batch: Batch,
    /// The handler is through with this batch, only these letters are not delivered yet.
    pub(crate) letters: Option<Vec<OutRecord>>,
}

/// What came of one attempt; gives the batch back.
pub(crate) struct Attempt {
    pub(crate) batch: Batch,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    Done,
    /// Again, handler and all.
    Retry(String),
    /// The handler is through, its letters are not.
    RetryLetters(Vec<OutRecord>, String),
    Fatal(anyhow::Error),
}

/// Runs one member until `stop`, a fatal failure or an unusable set-up (a topic or its dead-letter topic is
/// missing, or has the wrong number of partitions). An absent broker is waited for, not ready. Declares the
/// readiness check `consumer:<group>` and a watchdog of the same name. A state to restore is announced by a
/// first batch without records.
pub async fn run<H: Handler>(
    cfg: ConsumerConfig,
    stop: Shutdown,
    health: Health,
    mut handler: H,
) -> anyhow::Result<()> {
    if cfg.attempt_max * 4 > MAX_POLL_INTERVAL {
        bail!("attempt_max must be at most a quarter of {} s", MAX_POLL_INTERVAL.as_secs());
    }
    let check = format!("consumer:{}", cfg.group);
    health.set(&check, false, "starting");
    if !wait_for_topics(&cfg, &stop, &health, &check).await? {
        return Ok(());
    }
    let producer = Producer::new(&cfg.kafka)?;
    let (work_send, mut work) = mpsc::channel::<Work>(1);
    let (answers, answers_receive) = sync_mpsc::channel::<Attempt>();
    let (ended_send, ended) = tokio::sync::oneshot::channel();
    let group = cfg.group.clone();
    let attempt_max = cfg.attempt_max;
    std::thread::Builder::new().name(format!("consumer {group}")).spawn(move || {
        let result = reader::run(&cfg, &stop, &health, &work_send, &answers_receive);
        health.set(&check, false, "stopped");
        // Nobody waits only when the whole member was dropped.
        ended_send.send(result).ok();
    })?;
    let mut guard = HaltGuard::default();
    while let Some(work) = work.recv().await {
        let began = Instant::now();
        let attempt = attempt(&group, &mut handler, &producer, &mut guard, attempt_max, work).await;
        let outcome = match attempt.outcome {
            Outcome::Done => "done",
            Outcome::Retry(_) | Outcome::RetryLetters(..) => "retry",
            Outcome::Fatal(_) => "fatal",
        };
        metrics::histogram!(names::CONSUMER_ATTEMPT_SECONDS, "group" => group.clone(), "outcome" => outcome)
            .record(began.elapsed());
        if answers.send(attempt).is_err() {
            break;
        }
    }
    ended.await.map_err(|_| anyhow!("the consumer thread panicked"))?.with_context(|| format!("consumer group {group}"))
}

async fn attempt<H: Handler>(
    group: &str,
    handler: &mut H,
    producer: &Producer,
    guard: &mut HaltGuard,
    limit: Duration,
    work: Work,
) -> Attempt {
    let batch = work.batch;
    let letters = match work.letters {
        Some(letters) => letters,
        None => match tokio::time::timeout(limit, handler.handle(&batch)).await {
            Err(_) => {
                let outcome = Outcome::Retry(format!("no result within {} s", limit.as_secs()));
                return Attempt { batch, outcome };
            }
            Ok(Err(Failure::Retry(error))) => return Attempt { batch, outcome: Outcome::Retry(format!("{error:#}")) },
            Ok(Err(Failure::Fatal(error))) => return Attempt { batch, outcome: Outcome::Fatal(error) },
            Ok(Ok(rejects)) => match letters(group, guard, &batch, rejects) {
                Ok(letters) => letters,
                Err(error) => return Attempt { batch, outcome: Outcome::Fatal(error) },
            },
        },
    };
    let sent = tokio::time::timeout(limit, dead_letter::send(producer, &letters)).await;
    let outcome = match sent {
        Ok(Ok(())) => Outcome::Done,
        Ok(Err(error)) if !error.is_retryable() => Outcome::Fatal(error.into()),
        Ok(Err(error)) => Outcome::RetryLetters(letters, format!("dead letters: {error}")),
        Err(_) => Outcome::RetryLetters(letters, "dead letters: no delivery in time".to_owned()),
    };
    Attempt { batch, outcome }
}

fn letters(group: &str, guard: &mut HaltGuard, batch: &Batch, rejects: Vec<Reject>) -> anyhow::Result<Vec<OutRecord>> {
    if let Some(reject) = rejects.iter().find(|reject| reject.index >= batch.records.len()) {
        bail!("reject of record {} in a batch of {}", reject.index, batch.records.len());
    }
    // Before anything is sent away: when we are the ones who are wrong, the records must wait for us.
    guard.note(&batch.records, &rejects).map_err(|why| anyhow!("halted, this program is probably wrong: {why}"))?;
    let letter = |reject: &Reject| {
        let record = &batch.records[reject.index];
        tracing::warn!(
            kafka.topic = &*record.topic,
            kafka.partition = record.partition,
            kafka.offset = record.offset,
            code = reject.code,
            error = reject.error,
            "record rejected, going to the dead-letter topic"
        );
        let labels =
            [("group", group.to_owned()), ("topic", record.topic.to_string()), ("code", reject.code.to_owned())];
        metrics::counter!(names::DEAD_LETTERS, &labels).increment(1);
        dead_letter::letter(record, group, reject, batch.attempt)
    };
    Ok(rejects.iter().map(letter).collect())
}

/// Waits for the broker, then checks the topics; false when told to stop meanwhile.
async fn wait_for_topics(cfg: &ConsumerConfig, stop: &Shutdown, health: &Health, check: &str) -> anyhow::Result<bool> {
    let known: Vec<TopicSpec> =
        cfg.topics.iter().filter_map(|name| topics::by_name(name)).map(TopicSpec::from).collect();
    loop {
        if stop.is_cancelled() {
            return Ok(false);
        }
        let checked = tokio::select! {
            checked = check_set_up(cfg, &known) => checked,
            () = stop.cancelled() => return Ok(false),
        };
        match checked {
            Ok(()) => return Ok(true),
            Err(error) if error.is::<Unavailable>() => {
                health.set(check, false, format!("waiting: {error}"));
                tracing::warn!(group = cfg.group, %error, "waiting for Kafka");
            }
            Err(error) => return Err(error.context(format!("consumer group {}", cfg.group))),
        }
        tokio::select! { () = tokio::time::sleep(START_RETRY) => {}, () = stop.cancelled() => {} }
    }
}

async fn check_set_up(cfg: &ConsumerConfig, known: &[TopicSpec]) -> anyhow::Result<()> {
    let existing = partition_counts(&cfg.kafka).await?;
    for topic in &cfg.topics {
        let dead = topics::dead_letter(topic, &cfg.group);
        let missing = |name: &str| anyhow!("missing topic {name}: run `ingest-api migrate`");
        let partitions = existing.get(topic).ok_or_else(|| missing(topic))?;
        let letters = existing.get(&dead).ok_or_else(|| missing(&dead))?;
        // A letter keeps the partition of its record.
        if letters < partitions {
            bail!("topic {dead} has {letters} partitions, {topic} has {partitions}");
        }
    }
    check_topics(&cfg.kafka, known).await
}

impl Batch {
    pub(crate) fn set_changes(&mut self, changes: &Changes) {
        self.revoked = changes.revoked.iter().cloned().collect();
        self.assigned = changes.assigned.iter().cloned().collect();
    }

    /// The changes this batch tells the handler about.
    pub(crate) fn changes(&self) -> Changes {
        Changes { revoked: self.revoked.iter().cloned().collect(), assigned: self.assigned.iter().cloned().collect() }
    }
}
