//! One loop for both roles. A batch is decoded and folded; then effects and resync requests are emitted, states
//! written and offsets committed, each awaited before the next. See the crate's README for why that order.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;
use runtime::config;
use runtime::consumer::{Batch, ConsumerConfig, Failure, Handler, Record, Reject};
use runtime::kafka::{Producer, TopicSpec, check_topics};
use runtime::lifecycle::{Shutdown, Unavailable};
use runtime::names;
use runtime::ops::Health;
use schemas::codec::{Codec, DecodeError, Record as _, unframe};
use schemas::events::{ResyncRequested, StockFellLow};
use schemas::time::Timestamp;
use schemas::topics;
use tokio::sync::Mutex;

use crate::audit::{self, Known, StateReader};
use crate::fold::{Effect, Fold};
use crate::memory::{Arrived, Counts, Draft, Memory};
use crate::publish;

/// How often the owner looks whether somebody wrote older states behind its own.
const AUDIT_EVERY: Duration = Duration::from_secs(30);
const START_RETRY: Duration = Duration::from_secs(1);

/// Where a role reads and writes.
#[derive(Debug, Clone)]
pub struct Topics {
    pub group: String,
    pub input: String,
    pub state: String,
    pub alerts: String,
    pub resync: String,
}

impl Topics {
    /// The names of the contract.
    pub fn contract<F: Fold>() -> Self {
        Self {
            group: F::GROUP.name.to_owned(),
            input: F::Event::TOPIC.name.to_owned(),
            state: F::State::TOPIC.name.to_owned(),
            alerts: topics::ALERTS.name.to_owned(),
            resync: topics::RESYNC.name.to_owned(),
        }
    }
}

/// State of the assigned partitions with everything it takes to keep it: one per process.
pub struct Processor<F: Fold> {
    pub(crate) producer: Producer,
    pub(crate) codec: Arc<Codec>,
    pub(crate) states: StateReader<F>,
    pub(crate) topics: Topics,
    pub(crate) memory: Memory<F>,
    /// What is known of each assigned state partition.
    pub(crate) known: BTreeMap<i32, Known>,
}

impl<F: Fold> Processor<F> {
    /// A processor without partitions; nothing is connected yet.
    pub fn new(kafka: &config::Kafka, registry: &config::Registry, topics: Topics) -> anyhow::Result<Self> {
        let codec = Arc::new(Codec::new(&registry.url));
        let (kafka, topic) = (kafka.clone(), topics.state.clone());
        Ok(Self {
            producer: Producer::new(&kafka)?,
            codec: Arc::clone(&codec),
            states: StateReader { kafka, topic, codec, fold: PhantomData },
            topics,
            memory: Memory::default(),
            known: BTreeMap::new(),
        })
    }

    /// The state held, for tests and metrics.
    pub fn memory(&self) -> &Memory<F> {
        &self.memory
    }

    /// The whole life of a batch up to its offsets, which the consumer loop commits. Repeating it after a
    /// failure at any point derives the same again.
    pub async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        self.take_over(batch).await.map_err(Failure::Retry)?;
        let (arrived, rejects) = self.decode(batch).await.map_err(Failure::Retry)?;
        let draft = self.memory.fold(&arrived, Timestamp::from(Utc::now()));
        self.emit(&draft).await?;
        self.write_states(&draft).await?;
        self.settle(draft);
        Ok(rejects)
    }

    /// Drops the state of partitions that went and restores that of partitions that came.
    pub async fn take_over(&mut self, batch: &Batch) -> anyhow::Result<()> {
        for (_, partition) in &batch.revoked {
            self.memory.revoke(*partition);
            self.known.remove(partition);
        }
        let unknown = batch.records.iter().map(|record| record.partition).filter(|p| !self.memory.holds(*p));
        let mut partitions: Vec<i32> = batch.assigned.iter().map(|(_, partition)| *partition).chain(unknown).collect();
        partitions.sort_unstable();
        partitions.dedup();
        if partitions.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.restore(&partitions).await.context("restoring state")?;
        let (entities, _) = self.memory.size();
        metrics::histogram!(names::PROCESSOR_RESTORE_SECONDS, "role" => F::KIND).record(began.elapsed());
        tracing::info!(
            role = F::KIND,
            ?partitions,
            entities,
            duration_ms = began.elapsed().as_millis(),
            "state restored"
        );
        Ok(())
    }

    /// The events of the batch, and the records that are none.
    pub async fn decode(&self, batch: &Batch) -> anyhow::Result<(Vec<Arrived<F::Event>>, Vec<Reject>)> {
        let own_id = self.codec.schema_id::<F::Event>().await.context("asking for our schema id")?;
        let mut arrived = Vec::with_capacity(batch.records.len());
        let mut rejects = Vec::new();
        for (index, record) in batch.records.iter().enumerate() {
            match self.decode_one(record).await {
                Ok(event) => arrived.push(Arrived { partition: record.partition, trace: record.trace(), event }),
                Err(error @ DecodeError::Unavailable(_)) => return Err(error.into()),
                Err(error) => {
                    let schema_id =
                        record.payload.as_deref().and_then(|payload| unframe(payload).ok()).map(|(id, _)| id);
                    rejects.push(Reject {
                        index,
                        code: error.code(),
                        error: error.to_string(),
                        own_schema: schema_id == Some(own_id),
                    });
                }
            }
        }
        Ok((arrived, rejects))
    }

    async fn decode_one(&self, record: &Record) -> Result<F::Event, DecodeError> {
        match &record.payload {
            Some(payload) => self.codec.decode(payload).await,
            None => Err(DecodeError::Malformed("a tombstone is no event".to_owned())),
        }
    }

    /// Publishes alerts and resync requests; returns when the broker has them all.
    pub async fn emit(&self, draft: &Draft<F>) -> Result<(), Failure> {
        let mut out = Vec::with_capacity(draft.effects.len() + draft.requests.len());
        if !draft.effects.is_empty() {
            let id = self.codec.schema_id::<StockFellLow>().await.map_err(Failure::retry)?;
            out.extend(draft.effects.iter().map(|effect| {
                let Effect::StockFellLow(alert) = &effect.body;
                publish::record(&self.topics.alerts, id, alert, alert.recorded_at, effect.trace.as_ref())
            }));
        }
        if !draft.requests.is_empty() {
            let id = self.codec.schema_id::<ResyncRequested>().await.map_err(Failure::retry)?;
            out.extend(draft.requests.iter().map(|request| {
                report_gap(&request.body, request.partition);
                publish::record(
                    &self.topics.resync,
                    id,
                    &request.body,
                    request.body.requested_at,
                    request.trace.as_ref(),
                )
            }));
        }
        self.producer.send_all(&out).await.map_err(|error| failure(error, "emitting"))?;
        metrics::counter!(names::PROCESSOR_ALERTS, "role" => F::KIND).increment(draft.effects.len() as u64);
        metrics::counter!(names::PROCESSOR_RESYNCS_REQUESTED, "role" => F::KIND).increment(draft.requests.len() as u64);
        Ok(())
    }

    /// Writes the last state of each entity of the batch into the partition its input came from.
    pub async fn write_states(&self, draft: &Draft<F>) -> Result<(), Failure> {
        let id = self.codec.schema_id::<F::State>().await.map_err(Failure::retry)?;
        let records = draft.states().map(|state| {
            publish::record(&self.topics.state, id, state.body, F::updated_at(state.body), state.trace.as_ref())
                .with_partition(state.partition)
        });
        let out: Vec<_> = records.collect();
        self.producer.send_all(&out).await.map_err(|error| failure(error, "writing state"))
    }

    /// Takes over what was written.
    pub fn settle(&mut self, draft: Draft<F>) {
        count::<F>(&draft.counts);
        self.wrote(draft.states().map(|state| state.partition));
        self.memory.settle(draft);
        let (entities, parked) = self.memory.size();
        metrics::gauge!(names::PROCESSOR_ENTITIES, "role" => F::KIND).set(entities as f64);
        metrics::gauge!(names::PROCESSOR_PARKED_ENTITIES, "role" => F::KIND).set(parked as f64);
    }
}

fn failure(error: runtime::kafka::SendError, doing: &'static str) -> Failure {
    let is_retryable = error.is_retryable();
    let error = anyhow::Error::from(error).context(doing);
    if is_retryable { Failure::Retry(error) } else { Failure::Fatal(error) }
}

fn report_gap(request: &ResyncRequested, partition: i32) {
    tracing::error!(
        entity.kind = request.entity_kind,
        entity.id = request.entity,
        kafka.partition = partition,
        expected_epoch = request.expected_epoch,
        expected_version = request.expected_version,
        seen_epoch = request.seen_epoch,
        seen_version = request.seen_version,
        "an event does not follow its entity's state: entity parked, resync requested"
    );
}

fn count<F: Fold>(counts: &Counts) {
    let outcomes = [("applied", counts.applied), ("replayed", counts.replayed), ("dropped", counts.dropped)];
    for (outcome, records) in outcomes {
        metrics::counter!(names::PROCESSOR_EVENTS, "role" => F::KIND, "outcome" => outcome).increment(records);
    }
    for (cause, gaps) in counts.gaps() {
        metrics::counter!(names::PROCESSOR_GAPS, "role" => F::KIND, "cause" => cause.label()).increment(gaps);
    }
    metrics::counter!(names::PROCESSOR_RESYNCS_APPLIED, "role" => F::KIND).increment(counts.freed);
}

/// A processor shared by the consumer loop and the audit of its state topic.
pub struct Shared<F: Fold>(pub Arc<Mutex<Processor<F>>>);

impl<F: Fold> Handler for Shared<F> {
    async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        self.0.lock().await.handle(batch).await
    }
}

/// Runs a role until `stop`. A missing topic or a wrong partition count ends it; an absent broker is waited for.
pub async fn run<F: Fold>(
    kafka: &config::Kafka,
    registry: &config::Registry,
    topics: Topics,
    stop: Shutdown,
    health: Health,
) -> anyhow::Result<()> {
    health.set("topics", false, "not checked yet");
    if !wait_for_topics::<F>(kafka, &topics, &stop, &health).await? {
        return Ok(());
    }
    let processor = Arc::new(Mutex::new(Processor::<F>::new(kafka, registry, topics.clone())?));
    let audit = tokio::spawn(audit_until(Arc::clone(&processor), stop.clone()));
    let cfg = ConsumerConfig::new(kafka, topics.group, &[&topics.input]);
    let result = runtime::consumer::run(cfg, stop, health, Shared(processor)).await;
    audit.abort();
    result
}

/// The topics a role writes to; the consumer loop checks those it reads.
async fn wait_for_topics<F: Fold>(
    kafka: &config::Kafka,
    topics: &Topics,
    stop: &Shutdown,
    health: &Health,
) -> anyhow::Result<bool> {
    let spec = |name: &str, topic: &topics::Topic| TopicSpec { name: name.to_owned(), ..TopicSpec::from(topic) };
    let written = [
        spec(&topics.input, &F::Event::TOPIC),
        spec(&topics.state, &F::State::TOPIC),
        spec(&topics.alerts, &topics::ALERTS),
        spec(&topics.resync, &topics::RESYNC),
    ];
    while !stop.is_cancelled() {
        match check_topics(kafka, &written).await {
            Ok(()) => {
                health.set("topics", true, "");
                return Ok(true);
            }
            Err(error) if error.is::<Unavailable>() => {
                health.set("topics", false, format!("waiting: {error}"));
                tracing::warn!(%error, "waiting for Kafka");
            }
            Err(error) => return Err(error),
        }
        tokio::select! { () = tokio::time::sleep(START_RETRY) => {}, () = stop.cancelled() => {} }
    }
    Ok(false)
}

async fn audit_until<F: Fold>(processor: Arc<Mutex<Processor<F>>>, stop: Shutdown) {
    loop {
        tokio::select! { () = tokio::time::sleep(AUDIT_EVERY) => {}, () = stop.cancelled() => return }
        if let Err(error) = audit::audit(&processor).await {
            tracing::warn!(error = format!("{error:#}"), "the state topic could not be audited, trying again later");
        }
    }
}
