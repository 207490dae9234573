//! The thread that owns the client: polls, collects, hands over, waits, commits. Never two of these at once, except
//! that a commit the broker does not answer in time goes on in [`super::committer`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::Rng as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use tokio::sync::mpsc::Sender;

use super::committer::Committer;
use super::context::{Change, Events};
use super::{Attempt, Batch, ConsumerConfig, MAX_POLL_INTERVAL, Outcome, Trigger, Work};
use crate::kafka::{OutRecord, Record, client};
use crate::lifecycle::Shutdown;
use crate::names;
use crate::offsets::Offsets;
use crate::ops::{Health, Watchdog};

mod commits;

const POLL: Duration = Duration::from_millis(100);
/// A stop waits this long for a running attempt, then for its commit ([`commits`]), then for leaving the group:
/// together within `lifecycle::DRAIN_BUDGET`.
const STOP_BUDGET: Duration = Duration::from_secs(15);
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// Beyond the longest attempt and the wait for its commit.
const WATCHDOG_MARGIN: Duration = Duration::from_secs(90);

/// Everything the thread holds.
struct Reader<'a> {
    cfg: &'a ConsumerConfig,
    stop: &'a Shutdown,
    health: &'a Health,
    check: String,
    watchdog: Watchdog,
    consumer: Arc<BaseConsumer<Events>>,
    committer: Committer,
    offsets: Offsets,
    /// Polled, not yet handed over.
    collected: Vec<Record>,
    collected_bytes: usize,
    collecting_since: Instant,
    topic_names: Vec<Arc<str>>,
    /// When the broker refused the latest marks.
    commit_failed: Option<Instant>,
    retrying: bool,
    last_handled_ms: i64,
    lag_shown: Instant,
}

/// Runs until the stop or a fatal failure, then leaves the group.
pub(super) fn run(
    cfg: &ConsumerConfig,
    stop: &Shutdown,
    health: &Health,
    work: &Sender<Work>,
    answers: &Receiver<Attempt>,
) -> anyhow::Result<()> {
    let consumer: BaseConsumer<Events> = settings(cfg).create_with_context(Events::new(&cfg.group))?;
    let topics: Vec<&str> = cfg.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).context("subscribing")?;
    let consumer = Arc::new(consumer);
    let check = format!("consumer:{}", cfg.group);
    let now = Instant::now();
    let mut reader = Reader {
        cfg,
        stop,
        health,
        watchdog: health.watchdog(&check, cfg.attempt_max + WATCHDOG_MARGIN),
        check,
        committer: Committer::start(&cfg.group, Arc::clone(&consumer))?,
        consumer,
        offsets: Offsets::default(),
        collected: Vec::new(),
        collected_bytes: 0,
        collecting_since: now,
        topic_names: Vec::new(),
        commit_failed: None,
        retrying: false,
        last_handled_ms: 0,
        lag_shown: now,
    };
    let result = reader.work(work, answers);
    reader.commit_last();
    let Reader { consumer, committer, .. } = reader;
    drop(consumer);
    if !committer.leave(LEAVE_LIMIT) {
        tracing::warn!(group = cfg.group, "stopped without leaving the group: the broker does not answer");
    }
    result
}

fn settings(cfg: &ConsumerConfig) -> rdkafka::ClientConfig {
    let mut settings = client(&cfg.kafka);
    settings
        .set("group.id", &cfg.group)
        .set("group.protocol", cfg.group_protocol)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("max.poll.interval.ms", MAX_POLL_INTERVAL.as_millis().to_string())
        // What lies in the client's queues is memory: bounded, and refilled without its default pause of 1 s.
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "20")
        // The broker answers when this much has gathered, or after this long: not for each batch of the relay.
        .set("fetch.min.bytes", "65536")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.max.bytes", "16777216")
        .set("statistics.interval.ms", "5000");
    if cfg.group_protocol == "classic" {
        settings.set("partition.assignment.strategy", "cooperative-sticky").set("session.timeout.ms", "10000");
    }
    settings
}

impl Reader<'_> {
    fn work(&mut self, work: &Sender<Work>, answers: &Receiver<Attempt>) -> anyhow::Result<()> {
        self.ready(true, "");
        while !self.stop.is_cancelled() {
            self.poll(self.poll_time())?;
            self.tend_commits();
            let Some(trigger) = self.trigger() else { continue };
            let batch = self.take_batch(trigger);
            if !self.see_through(batch, work, answers)? {
                break;
            }
        }
        Ok(())
    }

    /// One poll: at most one record, collected; rebalances applied first.
    fn poll(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.watchdog.beat();
        let polled = match self.consumer.poll(limit) {
            None => None,
            Some(Ok(message)) => {
                let name = topic_name(&mut self.topic_names, message.topic());
                Some(Record::copy(&message, name))
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            Some(Err(error)) => {
                tracing::warn!(group = self.cfg.group, %error, "polling goes on");
                None
            }
        };
        self.apply_changes();
        if let Some(record) = polled
            && self.offsets.owns(&record)
        {
            self.consumer.context().saw_broker();
            if self.collected.is_empty() {
                self.collecting_since = Instant::now();
            }
            self.collected_bytes += record.size();
            self.collected.push(record);
        }
        self.show_lag(None);
        Ok(())
    }

    fn poll_time(&self) -> Duration {
        if self.collected.is_empty() {
            return POLL;
        }
        self.cfg.batch_age_max.saturating_sub(self.collecting_since.elapsed()).min(POLL)
    }

    fn trigger(&self) -> Option<Trigger> {
        if self.collected.len() >= self.cfg.batch_records_max {
            Some(Trigger::Count)
        } else if self.collected_bytes >= self.cfg.batch_bytes_max {
            Some(Trigger::Bytes)
        } else if !self.collected.is_empty() {
            (self.collecting_since.elapsed() >= self.cfg.batch_age_max).then_some(Trigger::Age)
        } else {
            (!self.offsets.changes().is_empty()).then_some(Trigger::Assignment)
        }
    }

    fn take_batch(&mut self, trigger: Trigger) -> Batch {
        let records = std::mem::take(&mut self.collected);
        self.collected_bytes = 0;
        let group = self.cfg.group.clone();
        metrics::counter!(names::CONSUMER_BATCHES, "group" => group.clone(), "trigger" => trigger.label()).increment(1);
        metrics::histogram!(names::CONSUMER_BATCH_RECORDS, "group" => group).record(records.len() as f64);
        Batch { records, revoked: Vec::new(), assigned: Vec::new(), attempt: 0, trigger }
    }

    /// Attempts a batch until it is done and its offsets are committed. False: stop, the rest uncommitted.
    fn see_through(
        &mut self,
        mut batch: Batch,
        work: &Sender<Work>,
        answers: &Receiver<Attempt>,
    ) -> anyhow::Result<bool> {
        let mut letters: Option<Vec<OutRecord>> = None;
        loop {
            batch.attempt += 1;
            if letters.is_none() {
                batch.set_changes(self.offsets.changes());
            }
            self.show_lag(Some(&batch));
            if work.blocking_send(Work { batch, letters: letters.take() }).is_err() {
                return Ok(false);
            }
            let Some(attempt) = self.wait_for(answers) else { return Ok(false) };
            batch = attempt.batch;
            let why = match attempt.outcome {
                Outcome::Done => {
                    self.done(&batch);
                    return Ok(true);
                }
                Outcome::Fatal(error) => return Err(error),
                Outcome::Retry(why) => why,
                Outcome::RetryLetters(undelivered, why) => {
                    // The handler has dealt with these changes; later ones wait for the next batch.
                    self.offsets.forget(&batch.changes());
                    (batch.revoked, batch.assigned) = (Vec::new(), Vec::new());
                    letters = Some(undelivered);
                    why
                }
            };
            if !self.pause_between(&mut batch, &why)? {
                return Ok(false);
            }
        }
    }

    /// Nothing is polled here: a revocation waits until the batch is committed.
    fn wait_for(&self, answers: &Receiver<Attempt>) -> Option<Attempt> {
        let mut stopping: Option<Instant> = None;
        loop {
            match answers.recv_timeout(POLL) {
                Ok(attempt) => return Some(attempt),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.stop.is_cancelled() && stopping.get_or_insert_with(Instant::now).elapsed() > STOP_BUDGET {
                tracing::warn!(group = self.cfg.group, "stopped in the middle of a batch, which will be replayed");
                return None;
            }
        }
    }

    fn done(&mut self, batch: &Batch) {
        self.offsets.forget(&batch.changes());
        self.offsets.done(&batch.records);
        self.commit();
        let now = chrono::Utc::now().timestamp_millis();
        let mut oldest: BTreeMap<&Arc<str>, (u64, i64)> = BTreeMap::new();
        for record in &batch.records {
            let (count, oldest) = oldest.entry(&record.topic).or_insert((0, i64::MAX));
            *count += 1;
            *oldest = (*oldest).min(record.timestamp_ms);
            self.last_handled_ms = self.last_handled_ms.max(record.timestamp_ms);
        }
        for (topic, (count, oldest)) in oldest {
            let labels = [("group", self.cfg.group.clone()), ("topic", topic.to_string())];
            metrics::counter!(names::CONSUMER_RECORDS, &labels).increment(count);
            let age = (now - oldest).max(0) as f64 / 1000.0;
            metrics::histogram!(names::CONSUMER_END_TO_END_SECONDS, &labels).record(age);
        }
        if std::mem::take(&mut self.retrying) {
            self.resume();
            self.ready(true, "");
            tracing::info!(group = self.cfg.group, attempts = batch.attempt, "batch done after retries");
        }
        self.show_lag(None);
    }

    /// Waits before the next attempt: partitions paused, polling on, so that the member is never evicted.
    /// What is revoked meanwhile leaves the batch. False when told to stop.
    fn pause_between(&mut self, batch: &mut Batch, why: &str) -> anyhow::Result<bool> {
        let pause = back_off(batch.attempt, self.cfg.retry_pause_min, self.cfg.retry_pause_max);
        self.retrying = true;
        self.ready(false, why);
        metrics::gauge!(names::CONSUMER_RETRYING, "group" => self.cfg.group.clone()).set(1.0);
        tracing::warn!(
            group = self.cfg.group,
            attempt = batch.attempt,
            records = batch.records.len(),
            again_in_ms = pause.as_millis() as u64,
            error = why,
            "batch not done, trying again"
        );
        let until = Instant::now() + pause;
        loop {
            // Also those assigned meanwhile.
            self.each_owned(|consumer, owned| consumer.pause(owned));
            self.poll(until.saturating_duration_since(Instant::now()).min(POLL))?;
            self.tend_commits();
            let offsets = &self.offsets;
            batch.records.retain(|record| offsets.owns(record));
            self.show_lag(Some(batch));
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            if Instant::now() >= until {
                return Ok(true);
            }
        }
    }

    fn resume(&mut self) {
        self.each_owned(|consumer, owned| consumer.resume(owned));
        metrics::gauge!(names::CONSUMER_RETRYING, "group" => self.cfg.group.clone()).set(0.0);
    }

    fn each_owned(&self, act: impl FnOnce(&BaseConsumer<Events>, &TopicPartitionList) -> Result<(), KafkaError>) {
        let mut owned = TopicPartitionList::new();
        for (topic, partition) in self.offsets.owned() {
            owned.add_partition(topic, *partition);
        }
        if let Err(error) = act(&self.consumer, &owned) {
            tracing::warn!(group = self.cfg.group, %error, "pausing or resuming");
        }
    }

    fn apply_changes(&mut self) {
        for change in self.consumer.context().take() {
            let (kind, count) = match &change {
                Change::Assigned(partitions) => ("assigned", partitions.len()),
                Change::Revoked { partitions, lost: false } => ("revoked", partitions.len()),
                Change::Revoked { partitions, lost: true } => ("lost", partitions.len()),
            };
            metrics::counter!(names::CONSUMER_REBALANCES, "group" => self.cfg.group.clone(), "kind" => kind)
                .increment(1);
            match change {
                Change::Assigned(partitions) => partitions.into_iter().for_each(|p| self.offsets.assign(p)),
                Change::Revoked { partitions, .. } => partitions.iter().for_each(|p| {
                    self.offsets.revoke(p);
                    self.committer.forget(p);
                }),
            }
            let offsets = &self.offsets;
            self.collected.retain(|record| offsets.owns(record));
            self.collected_bytes = self.collected.iter().map(Record::size).sum();
            let owned = self.offsets.owned().len();
            metrics::gauge!(names::CONSUMER_PARTITIONS, "group" => self.cfg.group.clone()).set(owned as f64);
            tracing::info!(group = self.cfg.group, kind, count, owned, "assignment changed");
        }
    }

    fn ready(&self, ok: bool, why: &str) {
        self.health.set(&self.check, ok, why);
    }

    /// Age of the oldest record not handled yet, once a second.
    fn show_lag(&mut self, under_way: Option<&Batch>) {
        if self.lag_shown.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.lag_shown = Instant::now();
        let waiting = under_way.map_or(&[][..], |batch| &batch.records).iter().chain(&self.collected);
        let oldest = waiting.map(|record| record.timestamp_ms).min();
        let lag = self.consumer.context().lag();
        // Nothing at hand but the broker has more: what comes next is at least as young as what came last.
        let oldest = oldest.or_else(|| lag.filter(|lag| *lag > 0).map(|_| self.last_handled_ms).filter(|ms| *ms > 0));
        let age = oldest.map_or(0, |ms| (chrono::Utc::now().timestamp_millis() - ms).max(0));
        metrics::gauge!(names::CONSUMER_LAG_SECONDS, "group" => self.cfg.group.clone()).set(age as f64 / 1000.0);
        let is_up = self.consumer.context().is_broker_up();
        if !self.retrying {
            self.ready(is_up, if is_up { "" } else { "no broker answers" });
        }
        let broker = if is_up { "up" } else { "down" };
        let records = lag.map_or("unknown".to_owned(), |lag| lag.to_string());
        self.health.detail(&self.check, format!("broker {broker}, lag {records} records, {age} ms"));
    }
}

fn topic_name(known: &mut Vec<Arc<str>>, topic: &str) -> Arc<str> {
    if let Some(name) = known.iter().find(|name| &***name == topic) {
        return Arc::clone(name);
    }
    let name: Arc<str> = Arc::from(topic);
    known.push(Arc::clone(&name));
    name
}

/// Doubles from `min` to `max` with the attempts; the second half of it is random.
fn back_off(attempt: u32, min: Duration, max: Duration) -> Duration {
    let full = min.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(max);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}
