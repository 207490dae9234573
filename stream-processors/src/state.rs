//! The compacted state topic as a log: which state of each entity is the newest by version, and which one
//! compaction would keep. They differ after a process that had lost its partitions wrote late.

use std::collections::HashMap;

use crate::fold::{Entity, Fold, Position};

/// What a stretch of one state partition holds, read in offset order.
#[derive(Debug)]
pub struct StateLog<F: Fold> {
    entries: HashMap<Entity, Entry<F::State>>,
}

#[derive(Debug)]
struct Entry<S> {
    highest: S,
    last: Position,
}

impl<F: Fold> Default for StateLog<F> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<F: Fold> StateLog<F> {
    /// Takes the next record of the log.
    pub fn observe(&mut self, state: F::State) {
        let last = F::state_position(&state);
        match self.entries.get_mut(&F::state_entity(&state)) {
            None => {
                self.entries.insert(F::state_entity(&state), Entry { highest: state, last });
            }
            Some(entry) => {
                entry.last = last;
                if last > F::state_position(&entry.highest) {
                    entry.highest = state;
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entities whose newest record in the log is older than the given state, or than a record before it:
    /// compaction would keep the older one, so the newer has to be written again.
    pub fn outdated(&self, held: impl Fn(Entity) -> Option<F::State>) -> Vec<F::State> {
        let newest = self.entries.iter().filter_map(|(&entity, entry)| {
            let held = held(entity).filter(|held| F::state_position(held) > F::state_position(&entry.highest));
            let newest = held.as_ref().unwrap_or(&entry.highest);
            (entry.last < F::state_position(newest)).then(|| newest.clone())
        });
        newest.collect()
    }

    /// The state to start from: the highest version of each entity, not the last record.
    pub fn into_highest(self) -> HashMap<Entity, F::State> {
        self.entries.into_iter().map(|(entity, entry)| (entity, entry.highest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::{Applied, Stock};
    use crate::stock::{apply, tests::moved};
    use schemas::events::StockLevel;

    fn level(version: i64) -> StockLevel {
        let event = schemas::events::StockMoved { resync: true, ..moved(version, 0, version * 1_000) };
        match apply(None, &event) {
            Applied::Next { state, .. } => state,
            other => panic!("{other:?}"),
        }
    }

    fn log(versions: &[i64]) -> StateLog<Stock> {
        let mut log = StateLog::default();
        versions.iter().for_each(|&version| log.observe(level(version)));
        log
    }

    #[test]
    fn restore_takes_the_highest_version_even_when_an_older_record_was_written_last() {
        let highest = log(&[1, 5, 3]).into_highest();
        assert_eq!(highest.values().map(|state| state.version).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_stale_last_record_is_to_be_rewritten() {
        let six = level(6);
        let rewritten = |log: &StateLog<Stock>, held: Option<&StockLevel>| -> Vec<i64> {
            log.outdated(|_| held.cloned()).iter().map(|state| state.version).collect()
        };
        assert_eq!(rewritten(&log(&[1, 5, 3]), None), [5]);
        assert!(rewritten(&log(&[1, 3, 5]), None).is_empty());
        assert!(rewritten(&log(&[5, 5]), Some(&level(5))).is_empty());
        assert_eq!(rewritten(&log(&[3]), Some(&six)), [6]);
        assert_eq!(rewritten(&log(&[6, 3]), Some(&six)), [6]);
        assert!(rewritten(&log(&[7]), Some(&six)).is_empty(), "newer than memory: another owner went on");
    }
}
