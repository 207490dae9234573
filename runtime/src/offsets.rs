//! Pure: what may be committed, and what changed in the assignment. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kafka::Record;

/// A topic and a partition of it.
pub type Partition = (Arc<str>, i32);

/// The only place where one is added: a group's offset is the next record to read.
fn next(offset: i64) -> i64 {
    offset + 1
}

/// What has been done and not yet been committed, and which partitions are ours.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    /// Ours, with what has been committed in this assignment.
    owned: BTreeMap<Partition, i64>,
    done: BTreeMap<Partition, i64>,
    changes: Changes,
}

/// What changed in the assignment since the handler last finished a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) revoked: BTreeSet<Partition>,
    pub(crate) assigned: BTreeSet<Partition>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.revoked.is_empty() && self.assigned.is_empty()
    }
}

impl Offsets {
    pub(crate) fn assign(&mut self, partition: Partition) {
        self.changes.assigned.insert(partition.clone());
        self.owned.entry(partition).or_insert(0);
    }

    /// Whatever was done there and is not committed will be replayed by the next owner.
    pub(crate) fn revoke(&mut self, partition: &Partition) {
        self.done.remove(partition);
        self.owned.remove(partition);
        self.changes.assigned.remove(partition);
        self.changes.revoked.insert(partition.clone());
    }

    pub(crate) fn owns(&self, record: &Record) -> bool {
        // Ranges cannot borrow half of a key: the clone is a reference count.
        self.owned.contains_key(&(Arc::clone(&record.topic), record.partition))
    }

    pub(crate) fn owned(&self) -> impl ExactSizeIterator<Item = &Partition> {
        self.owned.keys()
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The handler has seen these changes.
    pub(crate) fn forget(&mut self, seen: &Changes) {
        self.changes.revoked.retain(|partition| !seen.revoked.contains(partition));
        self.changes.assigned.retain(|partition| !seen.assigned.contains(partition));
    }

    /// These records are done, whether accepted, filtered or in the dead-letter topic. Those of partitions
    /// that are no longer ours do not count.
    pub(crate) fn done<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        for record in records {
            let partition = (Arc::clone(&record.topic), record.partition);
            // Offsets never go backwards within an assignment.
            if self.owned.get(&partition).is_some_and(|committed| *committed < next(record.offset)) {
                let mark = self.done.entry(partition).or_default();
                *mark = (*mark).max(next(record.offset));
            }
        }
    }

    /// What may be committed now.
    pub(crate) fn committable(&self) -> &BTreeMap<Partition, i64> {
        &self.done
    }

    /// The broker has these; later marks stay.
    pub(crate) fn committed(&mut self, offsets: &BTreeMap<Partition, i64>) {
        for (partition, offset) in offsets {
            if let Some(committed) = self.owned.get_mut(partition) {
                *committed = (*committed).max(*offset);
            }
        }
        self.done.retain(|partition, mark| offsets.get(partition).is_none_or(|committed| committed < mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Headers;
    use proptest::prelude::*;

    fn at(partition: i32) -> Partition {
        (Arc::from("t"), partition)
    }

    fn record(partition: i32, offset: i64) -> Record {
        Record {
            topic: Arc::from("t"),
            partition,
            offset,
            timestamp_ms: 0,
            key: None,
            payload: None,
            headers: Headers::default(),
        }
    }

    #[test]
    fn the_next_offset_of_what_is_done_is_committed() {
        let mut offsets = Offsets::default();
        offsets.assign(at(0));
        offsets.assign(at(1));
        offsets.done(&[record(0, 7), record(1, 3), record(0, 8)]);
        assert_eq!(offsets.committable(), &BTreeMap::from([(at(0), 9), (at(1), 4)]));
        offsets.done(&[record(0, 9)]);
        offsets.committed(&BTreeMap::from([(at(0), 9), (at(1), 4)]));
        assert_eq!(offsets.committable(), &BTreeMap::from([(at(0), 10)]), "done during the commit stays");
    }

    #[test]
    fn a_revoked_partition_is_never_committed_even_when_it_comes_back() {
        let mut offsets = Offsets::default();
        offsets.assign(at(0));
        offsets.done(&[record(0, 5)]);
        offsets.revoke(&at(0));
        offsets.done(&[record(0, 6)]);
        assert!(offsets.committable().is_empty());
        offsets.assign(at(0));
        assert!(offsets.committable().is_empty());
    }

    #[test]
    fn the_handler_is_told_to_drop_and_to_restore_until_it_has_done_so() {
        let mut offsets = Offsets::default();
        offsets.assign(at(0));
        offsets.assign(at(1));
        let first = offsets.changes().clone();
        assert_eq!(first.assigned, BTreeSet::from([at(0), at(1)]));
        offsets.revoke(&at(1));
        offsets.assign(at(2));
        offsets.forget(&first);
        assert_eq!(offsets.changes().assigned, BTreeSet::from([at(2)]));
        assert_eq!(offsets.changes().revoked, BTreeSet::from([at(1)]));
        offsets.assign(at(1));
        // lost and back: the old state goes, then a new one is read
        assert_eq!(offsets.changes().assigned, BTreeSet::from([at(1), at(2)]));
        assert_eq!(offsets.changes().revoked, BTreeSet::from([at(1)]));
    }

    proptest! {
        /// Whatever happens in whatever order, only owned partitions are committed, never beyond what is done.
        #[test]
        fn never_beyond_done_never_foreign(steps in prop::collection::vec((0..4u8, 0..3i32, 0..50i64), 0..200)) {
            let mut offsets = Offsets::default();
            let mut owned = BTreeSet::new();
            let mut handled: BTreeMap<i32, i64> = BTreeMap::new();
            for (step, partition, offset) in steps {
                match step {
                    0 => { offsets.assign(at(partition)); owned.insert(partition); }
                    1 => { offsets.revoke(&at(partition)); owned.remove(&partition); handled.remove(&partition); }
                    2 => {
                        offsets.done(&[record(partition, offset)]);
                        if owned.contains(&partition) {
                            let mark = handled.entry(partition).or_insert(offset);
                            *mark = (*mark).max(offset);
                        }
                    }
                    _ => { let all = offsets.committable().clone(); offsets.committed(&all); }
                }
                for ((_, partition), mark) in offsets.committable() {
                    prop_assert!(owned.contains(partition));
                    prop_assert_eq!(*mark, handled[partition] + 1);
                }
            }
        }
    }
}
