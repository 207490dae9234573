//! What a processor holds in memory, and the pure fold of a batch over it.
//!
//! A batch is folded into a [`Draft`] beside the memory. Only when everything derived from it is written does
//! [`Memory::settle`] take it over, so that an attempt which failed half-way starts again from the same state
//! and derives the same events.

use std::collections::{BTreeMap, HashMap};

use runtime::trace::TraceContext;
use schemas::events::ResyncRequested;
use schemas::time::Timestamp;

use crate::fold::{Applied, Effect, Entity, Fold, GapCause, Position};

/// A parked entity asks again when another of its records arrives this long after the last request.
const ASK_AGAIN_MICROS: i64 = 60_000_000;

/// An entity that showed a gap: nothing but a resync changes it until one arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Parked {
    asked_at: Timestamp,
}

/// State and parked entities of one assigned partition.
#[derive(Debug)]
struct Partition<S> {
    states: HashMap<Entity, S>,
    parked: HashMap<Entity, Parked>,
}

/// State of every assigned partition.
#[derive(Debug)]
pub struct Memory<F: Fold> {
    partitions: BTreeMap<i32, Partition<F::State>>,
}

impl<F: Fold> Default for Memory<F> {
    fn default() -> Self {
        Self { partitions: BTreeMap::new() }
    }
}

/// A decoded record and where it came from.
#[derive(Debug)]
pub struct Arrived<E> {
    pub partition: i32,
    pub trace: Option<TraceContext>,
    pub event: E,
}

/// Something to publish: its partition of origin and the trace it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived<T> {
    pub partition: i32,
    pub trace: Option<TraceContext>,
    pub body: T,
}

/// What an entity becomes when the draft is settled.
#[derive(Debug)]
struct Change<S> {
    state: Option<S>,
    parked: Option<Parked>,
    trace: Option<TraceContext>,
}

/// Everything that follows from one batch, in the order to write it: effects and requests, then states.
#[derive(Debug)]
pub struct Draft<F: Fold> {
    pub effects: Vec<Derived<Effect>>,
    pub requests: Vec<Derived<ResyncRequested>>,
    pub counts: Counts,
    changes: BTreeMap<(i32, Entity), Change<F::State>>,
}

/// What happened to the records of a batch; metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub applied: u64,
    pub replayed: u64,
    /// Gaps, in the order of [`GapCause::ALL`].
    gaps: [u64; GapCause::ALL.len()],
    /// Records of parked entities that were dropped.
    pub dropped: u64,
    /// Parked entities that a resync freed.
    pub freed: u64,
}

impl Counts {
    /// Gaps by cause.
    pub fn gaps(&self) -> impl Iterator<Item = (GapCause, u64)> {
        GapCause::ALL.into_iter().zip(self.gaps)
    }
}

impl<F: Fold> Draft<F> {
    /// The last state of each entity that changed: one record per entity, however long the batch.
    pub fn states(&self) -> impl Iterator<Item = Derived<&F::State>> {
        self.changes.iter().filter_map(|(&(partition, _), change)| {
            change.state.as_ref().map(|body| Derived { partition, trace: change.trace, body })
        })
    }
}

impl<F: Fold> Memory<F> {
    /// Takes a partition over with what its state topic holds, replacing what was held before.
    pub fn assign(&mut self, partition: i32, states: HashMap<Entity, F::State>) {
        self.partitions.insert(partition, Partition { states, parked: HashMap::new() });
    }

    /// Forgets a partition.
    pub fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// The assigned partitions.
    pub fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    pub fn holds(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    pub fn get(&self, partition: i32, entity: Entity) -> Option<&F::State> {
        self.partitions.get(&partition)?.states.get(&entity)
    }

    /// Entities held and entities parked, over all partitions.
    pub fn size(&self) -> (usize, usize) {
        self.partitions
            .values()
            .fold((0, 0), |(held, parked), partition| (held + partition.states.len(), parked + partition.parked.len()))
    }

    /// Folds a batch in order, changing nothing. Records of partitions that are not held are ignored: the
    /// caller restores them first.
    pub fn fold<'a>(&self, records: impl IntoIterator<Item = &'a Arrived<F::Event>>, now: Timestamp) -> Draft<F> {
        let mut draft =
            Draft { effects: Vec::new(), requests: Vec::new(), counts: Counts::default(), changes: BTreeMap::new() };
        for record in records {
            if let Some(partition) = self.partitions.get(&record.partition) {
                partition.fold_one::<F>(record, now, &mut draft);
            }
        }
        draft
    }

    /// Takes over what the draft decided, once it is written. Partitions revoked meanwhile stay forgotten.
    pub fn settle(&mut self, draft: Draft<F>) {
        for ((number, entity), change) in draft.changes {
            let Some(partition) = self.partitions.get_mut(&number) else { continue };
            if let Some(state) = change.state {
                partition.states.insert(entity, state);
            }
            match change.parked {
                Some(parked) => partition.parked.insert(entity, parked),
                None => partition.parked.remove(&entity),
            };
        }
    }
}

impl<S> Partition<S> {
    fn fold_one<F: Fold<State = S>>(&self, record: &Arrived<F::Event>, now: Timestamp, draft: &mut Draft<F>)
    where
        S: Clone,
    {
        let event = &record.event;
        let entity = F::entity(event);
        let change = draft.changes.get(&(record.partition, entity));
        let state = change.and_then(|change| change.state.as_ref()).or_else(|| self.states.get(&entity));
        let parked = match change {
            Some(change) => change.parked,
            None => self.parked.get(&entity).copied(),
        };
        match (F::apply(state, event), parked) {
            (Applied::Replay, _) => draft.counts.replayed += 1,
            (Applied::Next { .. }, Some(still)) if !F::is_resync(event) => {
                draft.counts.dropped += 1;
                self.ask_again::<F>(record, entity, still, now, draft);
            }
            (Applied::Next { state, effects }, parked) => {
                draft.counts.applied += 1;
                draft.counts.freed += u64::from(parked.is_some());
                let (partition, trace) = (record.partition, record.trace);
                draft.effects.extend(effects.into_iter().map(|body| Derived { partition, trace, body }));
                draft.changes.insert((partition, entity), Change { state: Some(state), parked: None, trace });
            }
            (Applied::Gap { .. }, Some(still)) => {
                draft.counts.dropped += 1;
                self.ask_again::<F>(record, entity, still, now, draft);
            }
            (Applied::Gap { cause, .. }, None) => {
                draft.counts.gaps[cause as usize] += 1;
                self.ask::<F>(record, entity, now, draft);
            }
        }
    }

    fn ask_again<F: Fold<State = S>>(
        &self,
        record: &Arrived<F::Event>,
        entity: Entity,
        parked: Parked,
        now: Timestamp,
        draft: &mut Draft<F>,
    ) {
        if now.0.saturating_sub(parked.asked_at.0) >= ASK_AGAIN_MICROS {
            self.ask::<F>(record, entity, now, draft);
        }
    }

    /// Parks the entity as of now and requests its full state.
    fn ask<F: Fold<State = S>>(
        &self,
        record: &Arrived<F::Event>,
        entity: Entity,
        now: Timestamp,
        draft: &mut Draft<F>,
    ) {
        let change = draft.changes.entry((record.partition, entity)).or_insert(Change {
            state: None,
            parked: None,
            trace: record.trace,
        });
        change.parked = Some(Parked { asked_at: now });
        let held = change.state.as_ref().or_else(|| self.states.get(&entity)).map(F::state_position);
        let seen = F::position(&record.event);
        let expected =
            held.map_or(Position::new(seen.epoch, 1), |at| Position::new(at.epoch, at.version.saturating_add(1)));
        draft.requests.push(Derived {
            partition: record.partition,
            trace: record.trace,
            body: ResyncRequested {
                entity_kind: F::KIND.into(),
                entity: F::request_name(&record.event),
                expected_epoch: expected.epoch,
                expected_version: expected.version,
                seen_epoch: seen.epoch,
                seen_version: seen.version,
                consumer_group: F::GROUP.name.into(),
                requested_at: now,
            },
        });
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
