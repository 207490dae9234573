//! The state topic, read back: at assignment to restore, and while owned to find states that somebody who had
//! lost the partition wrote late. Compaction would keep those, so the newest state is written again.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

use anyhow::Context as _;
use runtime::config;
use runtime::kafka::{OutRecord, Record, read_from};
use runtime::names;
use schemas::codec::{Codec, DecodeError};
use tokio::sync::Mutex;

use crate::fold::{Entity, Fold};
use crate::processor::Processor;
use crate::publish;
use crate::state::StateLog;

/// What was read of each state partition.
type Logs<F> = HashMap<i32, StateLog<F>>;

/// Reads stretches of the state topic.
pub(crate) struct StateReader<F> {
    pub(crate) kafka: config::Kafka,
    pub(crate) topic: String,
    pub(crate) codec: Arc<Codec>,
    pub(crate) fold: PhantomData<fn() -> F>,
}

impl<F> Clone for StateReader<F> {
    fn clone(&self) -> Self {
        Self { kafka: self.kafka.clone(), topic: self.topic.clone(), codec: Arc::clone(&self.codec), fold: PhantomData }
    }
}

impl<F: Fold> StateReader<F> {
    /// Reads from the given offsets to the present ends, which it returns.
    async fn read(&self, from: &BTreeMap<i32, i64>, logs: &mut Logs<F>) -> anyhow::Result<BTreeMap<i32, i64>> {
        if from.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut reading = read_from(&self.kafka, &self.topic, from.clone());
        while let Some(chunk) = reading.next().await {
            for record in chunk {
                self.observe(&record, logs).await?;
            }
        }
        Ok(reading.finish().await?.ends)
    }

    /// A record that cannot be decoded is passed over: its entity starts from an older state and shows a gap.
    async fn observe(&self, record: &Record, logs: &mut Logs<F>) -> anyhow::Result<()> {
        let Some(payload) = &record.payload else { return Ok(()) };
        match self.codec.decode::<F::State>(payload).await {
            Ok(state) => logs.entry(record.partition).or_default().observe(state),
            Err(error @ DecodeError::Unavailable(_)) => return Err(error.into()),
            Err(error) => tracing::error!(
                kafka.topic = &*record.topic,
                kafka.partition = record.partition,
                kafka.offset = record.offset,
                %error,
                "state record passed over"
            ),
        }
        Ok(())
    }
}

impl<F: Fold> Processor<F> {
    /// Reads the state partitions from their beginning, takes over the highest version of each entity, and
    /// rewrites those whose last record is an older one.
    pub(crate) async fn restore(&mut self, partitions: &[i32]) -> anyhow::Result<()> {
        let from: BTreeMap<i32, i64> = partitions.iter().map(|&partition| (partition, 0)).collect();
        let mut logs = Logs::default();
        let ends = self.states.read(&from, &mut logs).await?;
        let outdated = self.outdated(&logs, |_, _| None).await?;
        self.producer.send_all(&outdated).await.context("rewriting states")?;
        for &partition in partitions {
            self.memory.assign(partition, logs.remove(&partition).unwrap_or_default().into_highest());
        }
        self.read_to.extend(ends);
        Ok(())
    }

    /// Records that bring the last record of each entity up to its newest state.
    async fn outdated(
        &self,
        logs: &Logs<F>,
        held: impl Fn(i32, Entity) -> Option<F::State>,
    ) -> anyhow::Result<Vec<OutRecord>> {
        let id = self.codec.schema_id::<F::State>().await?;
        let mut out = Vec::new();
        for (&partition, log) in logs {
            out.extend(log.outdated(|entity| held(partition, entity)).iter().map(|state| {
                publish::record(&self.topics.state, id, state, F::updated_at(state), None).with_partition(partition)
            }));
        }
        if !out.is_empty() {
            tracing::warn!(role = F::KIND, states = out.len(), "older states were written last: rewriting the newest");
            metrics::counter!(names::PROCESSOR_STATES_REWRITTEN, "role" => F::KIND).increment(out.len() as u64);
        }
        Ok(out)
    }
}

/// Reads what was written to the owned state partitions since the last look and rewrites every entity whose
/// newest record is older than memory. Most is read while batches go on; only the rest is read under the lock.
pub async fn audit<F: Fold>(processor: &Mutex<Processor<F>>) -> anyhow::Result<()> {
    let (states, from) = {
        let processor = processor.lock().await;
        (processor.states.clone(), processor.read_to.clone())
    };
    let mut logs = Logs::default();
    let mut ends = states.read(&from, &mut logs).await?;
    let mut processor = processor.lock().await;
    // Partitions that went meanwhile, or went and came back, were dropped or restored: nothing to audit there.
    let is_still_ours = |partition: &i32| processor.read_to.get(partition) == from.get(partition);
    ends.retain(|partition, _| is_still_ours(partition));
    logs.retain(|partition, _| is_still_ours(partition));
    let ends = states.read(&ends, &mut logs).await?;
    let held = |partition, entity| processor.memory.get(partition, entity).cloned();
    let outdated = processor.outdated(&logs, held).await?;
    processor.producer.send_all(&outdated).await.context("rewriting states")?;
    processor.read_to.extend(ends);
    Ok(())
}
