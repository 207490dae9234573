//! What the tills have seen so far; read by the progress line while they sell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::planner::Planned;

/// Latencies kept for the percentiles of the progress line.
const RECENT: usize = 4_096;
/// After so many surprises nothing is learned from more.
const HOPELESS: usize = 200;

/// Counts of one run.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Accepted sales, those of an earlier interrupted run included.
    pub sold: u64,
    /// Of these, committed by an earlier run already.
    pub sold_before: u64,
    /// Second sends answered 200 with the same bytes.
    pub replayed: u64,
    /// Refused as they had to be, by code.
    pub refused: BTreeMap<String, u64>,
    /// What must not happen; the first few in words.
    pub unexpected: usize,
    pub surprises: Vec<String>,
    pub total_minor: i64,
}

#[derive(Default)]
struct Inner {
    counts: Counts,
    recent: VecDeque<u32>,
    all: Vec<u32>,
}

/// Shared by all tills.
#[derive(Default)]
pub struct Tally {
    /// The span was begun by an earlier run: numbers that its refused sales gave back are taken since.
    pub is_resumed: bool,
    inner: Mutex<Inner>,
}

/// Milliseconds: median and 99th percentile.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // a till that panicked ends the run anyway; the figures stay readable
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty tally of a run that goes on with what an earlier one began, or of a fresh one.
    pub fn of_run(is_resumed: bool) -> Tally {
        Tally { is_resumed, ..Tally::default() }
    }

    pub fn sold(&self, total_minor: i64, before: bool) {
        let counts = &mut self.lock().counts;
        counts.sold += 1;
        counts.sold_before += u64::from(before);
        counts.total_minor = counts.total_minor.saturating_add(total_minor);
    }

    pub fn replayed(&self) {
        self.lock().counts.replayed += 1;
    }

    pub fn refused(&self, code: &str) {
        *self.lock().counts.refused.entry(code.to_owned()).or_default() += 1;
    }

    pub fn unexpected(&self, planned: &Planned, what: &str) {
        let counts = &mut self.lock().counts;
        counts.unexpected += 1;
        if counts.surprises.len() < 10 {
            counts.surprises.push(format!(
                "sale {} ({}), expected {:?}: {what}",
                planned.number, planned.sale.sale_id, planned.expect
            ));
        }
    }

    pub fn took(&self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let mut inner = self.lock();
        inner.all.push(micros);
        inner.recent.push_back(micros);
        if inner.recent.len() > RECENT {
            inner.recent.pop_front();
        }
    }

    pub fn is_hopeless(&self) -> bool {
        self.lock().counts.unexpected > HOPELESS
    }

    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Sales that have had their first answer.
    pub fn answered(&self) -> u64 {
        self.lock().all.len() as u64
    }

    /// Of the last few thousand sales.
    pub fn recent(&self) -> Percentiles {
        let values = self.lock().recent.iter().copied().collect();
        percentiles(values)
    }

    /// Of the whole run.
    pub fn overall(&self) -> Percentiles {
        let values = self.lock().all.clone();
        percentiles(values)
    }
}

fn percentiles(mut micros: Vec<u32>) -> Percentiles {
    micros.sort_unstable();
    let at = |per_mille: usize| {
        let index = (micros.len() * per_mille / 1_000).min(micros.len().saturating_sub(1));
        micros.get(index).map_or(0.0, |value| f64::from(*value) / 1_000.0)
    };
    Percentiles { p50_ms: at(500), p99_ms: at(990) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred_even_steps() {
        let found = percentiles((1..=100).map(|n| n * 1_000).collect());
        assert_eq!(found, Percentiles { p50_ms: 51.0, p99_ms: 100.0 });
        assert_eq!(percentiles(Vec::new()), Percentiles::default());
    }
}
