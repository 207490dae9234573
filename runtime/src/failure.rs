//! How a batch can fail: one record is rejected, the batch is retried, or the process must end. And the guard
//! that notices when we, not the records, are wrong.

use std::collections::HashMap;
use std::sync::Arc;

use crate::kafka::Record;

/// One record the handler refuses: it goes to the dead-letter topic, the rest of the batch goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Index into `Batch::records`.
    pub index: usize,
    /// Stable word for the cause, a metric label: `malformed`, `unknown_schema`, `version_gap`, ...
    pub code: &'static str,
    /// For people.
    pub error: String,
    /// The record carries a schema id that we pinned ourselves. Rejecting many of those means that we are
    /// wrong, so they count towards halting; foreign bytes never do.
    pub own_schema: bool,
}

/// Why a batch could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A dependency is away or slow: the same batch again, for as long as it takes.
    #[error("to be retried: {0:#}")]
    Retry(#[source] anyhow::Error),
    /// No retry can heal it: the process ends, the batch stays uncommitted.
    #[error("fatal: {0:#}")]
    Fatal(#[source] anyhow::Error),
}

impl Failure {
    pub fn retry(error: impl Into<anyhow::Error>) -> Self {
        Failure::Retry(error.into())
    }

    pub fn fatal(error: impl Into<anyhow::Error>) -> Self {
        Failure::Fatal(error.into())
    }
}

/// Most rejects in a row, per topic.
const IN_A_ROW_MAX: u32 = 20;
/// The share is judged from this many records on.
const SHARE_RECORDS_MIN: u64 = 300;
/// Counts are halved here, so that the share follows the recent past.
const SHARE_WINDOW: u64 = 10_000;

/// Halts when more than 1 % of the recent records, or 20 in a row of one topic, are rejected although they
/// carry our own pinned schema ids.
#[derive(Debug, Default)]
pub(crate) struct HaltGuard {
    seen: u64,
    rejected: u64,
    in_a_row: HashMap<Arc<str>, u32>,
}

impl HaltGuard {
    /// Takes note of one handled batch; the error says why to halt.
    pub(crate) fn note(&mut self, records: &[Record], rejects: &[Reject]) -> Result<(), String> {
        let by_index: HashMap<usize, &Reject> = rejects.iter().map(|reject| (reject.index, reject)).collect();
        for (index, record) in records.iter().enumerate() {
            match by_index.get(&index) {
                Some(reject) if reject.own_schema => {
                    self.seen += 1;
                    self.rejected += 1;
                    let run = self.in_a_row.entry(Arc::clone(&record.topic)).or_default();
                    *run += 1;
                    if *run >= IN_A_ROW_MAX {
                        return Err(format!("{run} records in a row of {} rejected: {}", record.topic, reject.error));
                    }
                }
                // Neither good nor ours.
                Some(_) => {}
                None => {
                    self.seen += 1;
                    self.in_a_row.remove(&record.topic);
                }
            }
            if self.seen >= SHARE_RECORDS_MIN && self.rejected * 100 > self.seen {
                return Err(format!("{} of the last {} records rejected", self.rejected, self.seen));
            }
            if self.seen >= SHARE_WINDOW {
                self.seen /= 2;
                self.rejected /= 2;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Headers;

    fn records(n: usize) -> Vec<Record> {
        let record = |offset| Record {
            topic: Arc::from("t"),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: None,
            payload: None,
            headers: Headers::default(),
        };
        (0..n as i64).map(record).collect()
    }

    fn rejects(indices: impl IntoIterator<Item = usize>, own_schema: bool) -> Vec<Reject> {
        let reject = |index| Reject { index, code: "malformed", error: "bad".into(), own_schema };
        indices.into_iter().map(reject).collect()
    }

    #[test]
    fn nineteen_in_a_row_go_on_twenty_halt_also_across_batches() {
        let mut guard = HaltGuard::default();
        assert!(guard.note(&records(20), &rejects(0..19, true)).is_ok());
        let mut guard = HaltGuard::default();
        assert!(guard.note(&records(10), &rejects(0..10, true)).is_ok());
        let halt = guard.note(&records(10), &rejects(0..10, true)).unwrap_err();
        assert!(halt.contains("20 records in a row of t"), "{halt}");
    }

    #[test]
    fn more_than_one_percent_halts_once_there_are_enough_records() {
        let mut guard = HaltGuard::default();
        assert!(guard.note(&records(400), &rejects([50, 150, 250, 399], true)).is_ok(), "exactly 1 %");
        assert!(guard.note(&records(1), &rejects([0], true)).is_err());
        assert!(HaltGuard::default().note(&records(100), &rejects([0, 50], true)).is_ok(), "too few to judge");
    }

    #[test]
    fn foreign_bytes_never_halt() {
        let mut guard = HaltGuard::default();
        assert!(guard.note(&records(5_000), &rejects(0..5_000, false)).is_ok());
        // and do not interrupt a run of our own either
        assert!(guard.note(&records(10), &rejects(0..10, true)).is_ok());
        assert!(guard.note(&records(3), &rejects(0..3, false)).is_ok());
        assert!(guard.note(&records(10), &rejects(0..10, true)).is_err());
    }
}
