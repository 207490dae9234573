//! The fold of batches against naive oracles, through every crash, repetition and cut of batches.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::events::{StockLevel, StockMoved};
use schemas::ids::VariantId;
use schemas::time::Day;
use uuid::Uuid;

use super::*;
use crate::fold::Stock;
use crate::low_stock::alert_id;
use crate::stock::tests::moved;

const PARTITION: i32 = 3;
const NOW: Timestamp = Timestamp(5_000_000);

/// One act on one of three variants, as the database would number it.
#[derive(Debug, Clone)]
enum Act {
    Move {
        variant: u8,
        delta: i64,
        reason: &'static str,
        neutral: bool,
        day: i32,
    },
    Threshold {
        variant: u8,
        threshold: Option<i64>,
        hysteresis: i64,
    },
    /// A restore: every variant opens the new epoch with a resync.
    Restore,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let reason = prop_oneof![4 => Just("sale"), 1 => Just("receipt"), 1 => Just("damage")];
    let movement = (0..3u8, -4_000..4_000i64, reason, prop::bool::weighted(0.1), 0..60i32)
        .prop_map(|(variant, delta, reason, neutral, day)| Act::Move { variant, delta, reason, neutral, day });
    let threshold = (0..3u8, prop::option::weighted(0.8, -2_000..5_000i64), 0..3_000i64)
        .prop_map(|(variant, threshold, hysteresis)| Act::Threshold { variant, threshold, hysteresis });
    prop::collection::vec(prop_oneof![12 => movement, 3 => threshold, 1 => Just(Act::Restore)], 1..80)
}

/// The database's side: levels and the ledger of all movements.
#[derive(Default)]
struct Ledger {
    epoch: i64,
    levels: BTreeMap<u8, StockMoved>,
    movements: Vec<StockMoved>,
}

impl Ledger {
    fn new() -> Self {
        Self { epoch: 1, ..Self::default() }
    }

    fn last(&self, variant: u8) -> StockMoved {
        let new = StockMoved { variant_id: VariantId(Uuid::from_u128(variant.into())), ..moved(0, 0, 0) };
        self.levels.get(&variant).cloned().unwrap_or(new)
    }

    fn write(&mut self, variant: u8, change: impl FnOnce(&mut StockMoved)) -> StockMoved {
        let before = self.last(variant);
        let mut event = StockMoved {
            epoch: self.epoch,
            version: before.version + 1,
            location_seq: self.movements.len() as i64 + 1,
            cause_id: Uuid::from_u128(self.movements.len() as u128 + 1_000),
            delta: 0,
            neutral: false,
            resync: false,
            reason: "correction".into(),
            ..before.clone()
        };
        change(&mut event);
        event.qty_after = before.qty_after + event.delta;
        self.levels.insert(variant, event.clone());
        self.movements.push(event.clone());
        event
    }

    fn resync(&mut self, variant: u8) -> StockMoved {
        self.write(variant, |event| event.resync = true)
    }

    fn act(&mut self, act: &Act) -> Vec<StockMoved> {
        match act {
            Act::Move { variant, delta, reason, neutral, day } => vec![self.write(*variant, |event| {
                event.delta = *delta;
                event.reason = (*reason).into();
                event.neutral = *neutral;
                event.business_date = Day(20_000 + day);
            })],
            Act::Threshold { variant, threshold, hysteresis } => vec![self.write(*variant, |event| {
                event.threshold = *threshold;
                event.hysteresis = *hysteresis;
            })],
            Act::Restore => {
                self.epoch += 1;
                let known: Vec<u8> = self.levels.keys().copied().collect();
                known.into_iter().map(|variant| self.resync(variant)).collect()
            }
        }
    }

    fn quantities(&self) -> BTreeMap<Entity, (i64, i64, i64)> {
        self.levels.values().map(|last| (Stock::entity(last), (last.epoch, last.version, last.qty_after))).collect()
    }
}

/// The alert rule told as a story over the whole ledger, without any state of a fold.
fn alerts_by_the_book(ledger: &[StockMoved]) -> BTreeSet<Uuid> {
    let mut alerts = BTreeSet::new();
    let variants: BTreeSet<VariantId> = ledger.iter().map(|event| event.variant_id).collect();
    for variant in variants {
        let (mut is_armed, mut epoch) = (true, 0);
        for event in ledger.iter().filter(|event| event.variant_id == variant) {
            is_armed |= event.epoch != epoch;
            epoch = event.epoch;
            match event.threshold {
                None => is_armed = true,
                Some(_) if event.neutral => {}
                Some(threshold) if is_armed && event.qty_after < threshold => {
                    is_armed = false;
                    alerts.insert(alert_id(event.location_id, variant, event.epoch, event.version));
                }
                Some(threshold) => is_armed |= event.qty_after >= threshold + event.hysteresis,
            }
        }
    }
    alerts
}

/// A processor with its topics as vectors; everything in `memory` dies with a crash.
struct Machine {
    memory: Memory<Stock>,
    input: Vec<StockMoved>,
    committed: usize,
    state_topic: Vec<StockLevel>,
    alerts: Vec<Uuid>,
    requests: Vec<Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Crash {
    Never,
    BeforeEmit,
    AfterEmit,
    AfterState,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self {
            memory: Memory::default(),
            input: Vec::new(),
            committed: 0,
            state_topic: Vec::new(),
            alerts: Vec::new(),
            requests: Vec::new(),
        };
        machine.restore();
        machine
    }

    fn restore(&mut self) {
        let mut log = crate::state::StateLog::<Stock>::default();
        for state in &self.state_topic {
            log.observe(state.clone());
        }
        self.memory = Memory::default();
        self.memory.assign(PARTITION, log.into_highest());
    }

    /// Handles at most `size` records beyond the committed offset, dying at `crash`.
    fn step(&mut self, size: usize, crash: Crash) {
        let end = (self.committed + size).min(self.input.len());
        let batch: Vec<Arrived<StockMoved>> = self.input[self.committed..end]
            .iter()
            .map(|event| Arrived { partition: PARTITION, trace: None, event: event.clone() })
            .collect();
        let draft = self.memory.fold(&batch, NOW);
        if crash == Crash::BeforeEmit {
            return self.restore();
        }
        self.alerts.extend(draft.effects.iter().map(|effect| match &effect.body {
            Effect::StockFellLow(alert) => alert.alert_id,
        }));
        self.requests.extend(draft.requests.iter().map(|request| {
            request.body.entity.split_once(':').expect("location:variant").1.parse::<Uuid>().expect("a variant")
        }));
        if crash == Crash::AfterEmit {
            return self.restore();
        }
        self.state_topic.extend(draft.states().map(|state| state.body.clone()));
        if crash == Crash::AfterState {
            return self.restore();
        }
        self.memory.settle(draft);
        self.committed = end;
    }

    fn run_to_end(&mut self, size: usize) {
        while self.committed < self.input.len() {
            self.step(size, Crash::Never);
        }
    }

    fn quantities(&self) -> BTreeMap<Entity, (i64, i64, i64)> {
        let levels = self.memory.partitions[&PARTITION].states.iter();
        levels.map(|(&entity, level)| (entity, (level.epoch, level.version, level.qty))).collect()
    }
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![
        4 => Just(Crash::Never),
        1 => Just(Crash::BeforeEmit),
        1 => Just(Crash::AfterEmit),
        1 => Just(Crash::AfterState),
    ]
}

proptest! {
    /// Duplicated stretches of the input, any cut into batches, a crash at any point and a zombie's old state
    /// records written last: the same state and exactly the same alert ids.
    #[test]
    fn replays_crashes_and_batch_cuts_change_nothing(
        acts in acts(),
        repeats in prop::collection::vec((any::<prop::sample::Index>(), 1..12usize), 0..6),
        steps in prop::collection::vec((1..9usize, crash(), prop::option::weighted(0.2, any::<prop::sample::Index>())), 0..60),
    ) {
        let mut ledger = Ledger::new();
        let mut machine = Machine::new();
        machine.input = acts.iter().flat_map(|act| ledger.act(act)).collect();
        for (from, length) in repeats {
            // A relay that died after publishing sends a stretch again, right behind itself.
            let from = from.index(machine.input.len().max(1)).min(machine.input.len());
            let to = (from + length).min(machine.input.len());
            let again: Vec<StockMoved> = machine.input[from..to].to_vec();
            machine.input.splice(to..to, again);
        }
        for (size, crash, zombie) in steps {
            machine.step(size, crash);
            if let Some(old) = zombie && !machine.state_topic.is_empty() {
                let stale = machine.state_topic[old.index(machine.state_topic.len())].clone();
                machine.state_topic.push(stale);
            }
        }
        machine.restore();
        machine.run_to_end(7);
        prop_assert_eq!(machine.quantities(), ledger.quantities());
        let emitted: BTreeSet<Uuid> = machine.alerts.iter().copied().collect();
        prop_assert_eq!(emitted, alerts_by_the_book(&ledger.movements));
        prop_assert!(machine.requests.is_empty(), "no gap was there");
        // Full equality of the states, sales history included, with an undisturbed run.
        let mut calm = Machine::new();
        calm.input = ledger.movements.clone();
        calm.run_to_end(1);
        prop_assert_eq!(&machine.memory.partitions[&PARTITION].states, &calm.memory.partitions[&PARTITION].states);
    }

    /// Records lost or swapped on the way: the entity is parked, asks, and after the answer stands where the
    /// ledger stands; the other entities never notice.
    #[test]
    fn a_gap_parks_and_a_resync_heals(
        acts in acts(),
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..5),
        sizes in prop::collection::vec(1..9usize, 1..20),
    ) {
        let mut ledger = Ledger::new();
        let mut machine = Machine::new();
        machine.input = acts.iter().flat_map(|act| ledger.act(act)).collect();
        for (at, lose) in faults {
            let at = at.index(machine.input.len().max(1));
            if lose && at < machine.input.len() {
                machine.input.remove(at);
            } else if at + 1 < machine.input.len() {
                machine.input.swap(at, at + 1);
            }
        }
        // A last movement of each variant makes even a loss at the very end visible.
        for variant in ledger.levels.keys().copied().collect::<Vec<_>>() {
            machine.input.push(ledger.write(variant, |event| event.delta = -1_000));
        }
        let mut answered = 0;
        for size in sizes.iter().cycle() {
            machine.step(*size, Crash::Never);
            for variant in machine.requests.split_off(answered) {
                machine.input.push(ledger.resync(variant.as_u128() as u8));
            }
            answered = machine.requests.len();
            if machine.committed == machine.input.len() {
                break;
            }
        }
        prop_assert_eq!(machine.quantities(), ledger.quantities());
        prop_assert_eq!(machine.memory.size().1, 0, "nothing stays parked");
    }
}

fn arrived(event: StockMoved) -> Arrived<StockMoved> {
    Arrived { partition: PARTITION, trace: None, event }
}

fn assigned() -> Memory<Stock> {
    let mut memory = Memory::default();
    memory.assign(PARTITION, HashMap::new());
    memory
}

#[test]
fn a_batch_gives_one_state_record_per_entity_and_all_its_alerts() {
    let low = |version, delta, qty| StockMoved { threshold: Some(5_000), hysteresis: 0, ..moved(version, delta, qty) };
    let batch = [low(1, 9_000, 9_000), low(2, -5_000, 4_000), low(3, 2_000, 6_000), low(4, -2_000, 4_000)].map(arrived);
    let draft = assigned().fold(&batch, NOW);
    assert_eq!(draft.states().map(|state| state.body.version).collect::<Vec<_>>(), [4]);
    assert_eq!(draft.effects.len(), 2);
}

#[test]
fn an_attempt_that_failed_derives_the_same_again() {
    let mut memory = assigned();
    let batch = [arrived(StockMoved { threshold: Some(5_000), ..moved(1, 1_000, 1_000) })];
    let failed = memory.fold(&batch, NOW);
    let again = memory.fold(&batch, NOW);
    assert_eq!((failed.effects, failed.counts), (again.effects.clone(), again.counts));
    memory.settle(again);
    assert_eq!(memory.fold(&batch, NOW).counts, Counts { replayed: 1, ..Counts::default() });
}

#[test]
fn a_parked_entity_asks_once_and_again_only_after_a_minute() {
    let mut memory = assigned();
    let requests = |memory: &mut Memory<Stock>, version, now| {
        let draft = memory.fold(&[arrived(moved(version, -1_000, 0))], Timestamp(now));
        let requests: Vec<ResyncRequested> = draft.requests.iter().map(|request| request.body.clone()).collect();
        memory.settle(draft);
        requests
    };
    let first = requests(&mut memory, 5, 0);
    assert_eq!((first[0].expected_version, first[0].seen_version, first.len()), (1, 5, 1));
    assert_eq!(first[0].entity, Stock::entity(&moved(5, 0, 0)).to_string());
    assert!(requests(&mut memory, 6, 59_000_000).is_empty());
    assert_eq!(requests(&mut memory, 7, 60_000_000).len(), 1);
    assert!(requests(&mut memory, 8, 61_000_000).is_empty());
    assert_eq!(memory.size(), (0, 1));
}

#[test]
fn parked_means_parked_even_when_the_missing_record_comes_late() {
    let mut memory = assigned();
    let batch = [moved(1, 9_000, 9_000), moved(3, -1_000, 7_000), moved(2, -1_000, 8_000), moved(3, -1_000, 7_000)];
    let draft = memory.fold(&batch.map(arrived), NOW);
    assert_eq!(draft.counts, Counts { applied: 1, gaps: [1, 0, 0], dropped: 2, ..Counts::default() });
    memory.settle(draft);
    let resync = StockMoved { resync: true, ..moved(4, 0, 7_000) };
    let draft = memory.fold(&[arrived(resync), arrived(moved(5, -1_000, 6_000))], NOW);
    assert_eq!(draft.counts, Counts { applied: 2, freed: 1, ..Counts::default() });
}

#[test]
fn a_revoked_partition_is_forgotten_even_while_a_draft_is_out() {
    let mut memory = assigned();
    let draft = memory.fold(&[arrived(moved(1, 9_000, 9_000))], NOW);
    memory.revoke(PARTITION);
    memory.settle(draft);
    assert_eq!(memory.size(), (0, 0));
    assert!(!memory.holds(PARTITION));
}
