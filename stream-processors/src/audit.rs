//! The state topic, read back: at assignment to restore, and while owned to find states that somebody who had
//! lost the partition wrote late. Compaction would keep those, so the newest state is written again.
//!
//! A partition that has grown by exactly what its owner wrote holds nothing of anybody else and is not read.

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

/// What is known of a state partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Up to where it was read (exclusive).
    read_to: i64,
    /// Records the broker has taken from us since.
    written: i64,
}

impl Known {
    /// Where it ends unless somebody else wrote to it. A write of ours that got no answer counts as somebody else's.
    fn end(self) -> i64 {
        self.read_to + self.written
    }
}

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
        self.has_read(ends, &outdated);
        Ok(())
    }

    /// Takes note of what was read, and of what was written behind it.
    fn has_read(&mut self, ends: BTreeMap<i32, i64>, rewritten: &[OutRecord]) {
        self.known.extend(ends.into_iter().map(|(partition, read_to)| (partition, Known { read_to, written: 0 })));
        self.wrote(rewritten.iter().filter_map(|record| record.partition));
    }

    /// Takes note of records the broker has taken, by partition.
    pub(crate) fn wrote(&mut self, partitions: impl Iterator<Item = i32>) {
        for partition in partitions {
            if let Some(known) = self.known.get_mut(&partition) {
                known.written += 1;
            }
        }
    }

    /// Passes over what we wrote ourselves; of partitions that hold something else, up to where they were read.
    /// No batch may be under way.
    async fn pass_over_own(&mut self) -> anyhow::Result<BTreeMap<i32, i64>> {
        let ends = self.producer.ends(&self.topics.state, self.known.keys().copied().collect()).await?;
        let mut foreign = BTreeMap::new();
        for (partition, known) in &mut self.known {
            match ends.get(partition) {
                Some(end) if *end == known.end() => *known = Known { read_to: *end, written: 0 },
                _ => drop(foreign.insert(*partition, known.read_to)),
            }
        }
        Ok(foreign)
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

/// Rewrites every entity whose newest record is older than memory, looking at what others wrote to the owned state
/// partitions since the last look; returns how many partitions that were. Most is read while batches go on; only the
/// rest is read under the lock.
pub async fn audit<F: Fold>(processor: &Mutex<Processor<F>>) -> anyhow::Result<usize> {
    let (states, from) = {
        let mut processor = processor.lock().await;
        let foreign = processor.pass_over_own().await?;
        (processor.states.clone(), foreign)
    };
    if from.is_empty() {
        return Ok(0);
    }
    let mut logs = Logs::default();
    let mut ends = states.read(&from, &mut logs).await?;
    let mut processor = processor.lock().await;
    // Partitions that went meanwhile, or went and came back, were dropped or restored: nothing to audit there.
    let read_to = |partition: &i32| processor.known.get(partition).map(|known| known.read_to);
    let is_still_ours = |partition: &i32| read_to(partition) == from.get(partition).copied();
    ends.retain(|partition, _| is_still_ours(partition));
    logs.retain(|partition, _| is_still_ours(partition));
    let ends = states.read(&ends, &mut logs).await?;
    let held = |partition, entity| processor.memory.get(partition, entity).cloned();
    let outdated = processor.outdated(&logs, held).await?;
    processor.producer.send_all(&outdated).await.context("rewriting states")?;
    processor.has_read(ends, &outdated);
    Ok(from.len())
}
