//! What the run directory remembers of the demonstration business: its seed, when it was started, and
//! which spans were sold. With it the same sales come again and an interrupted run goes on.

use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};

use super::planner::Span;
use crate::endpoints::write_private;

/// Content of `demo.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub seed: u64,
    pub locations: usize,
    /// Secret from which the keys of the simulated devices derive; never leaves this directory.
    pub device_secret: String,
    pub started_at: DateTime<Utc>,
    pub spans: Vec<Span>,
    /// Whether the last span was sold to its end.
    pub is_complete: bool,
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("demo.json")
}

impl State {
    /// The state of this clone's business, if it has one.
    pub fn find(run_dir: &Path) -> anyhow::Result<Option<State>> {
        match std::fs::read(path(run_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context("demo.json is damaged: ./dev reset")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot read demo.json"),
        }
    }

    /// The kept state when seed and size are the same, else a fresh one; another seed is another business
    /// and needs other data.
    pub fn find_or_start(run_dir: &Path, seed: u64, locations: usize) -> anyhow::Result<State> {
        match State::find(run_dir)? {
            Some(state) if state.seed == seed && state.locations == locations => Ok(state),
            Some(state) => anyhow::bail!(
                "this clone holds the business of seed {} with {} locations; ./dev reset first, or use the same",
                state.seed,
                state.locations
            ),
            None => {
                let state = State {
                    seed,
                    locations,
                    device_secret: format!("{:032x}", rand::random::<u128>()),
                    started_at: Utc::now().trunc_subsecs(3),
                    spans: Vec::new(),
                    is_complete: true,
                };
                state.write(run_dir)?;
                Ok(state)
            }
        }
    }

    /// The span to sell now: an interrupted one again, else a new one after the last.
    pub fn open_span(&mut self, run_dir: &Path, sales: u64) -> anyhow::Result<Span> {
        if !self.is_complete
            && let Some(open) = self.spans.last()
        {
            return Ok(open.clone());
        }
        let span = match self.spans.last() {
            None => Span::opening(sales, self.started_at),
            Some(last) => Span {
                first: last.first + last.count,
                count: sales,
                from: last.to,
                to: Utc::now().trunc_subsecs(3).max(last.to + chrono::TimeDelta::seconds(1)),
            },
        };
        self.spans.push(span.clone());
        self.is_complete = false;
        self.write(run_dir)?;
        Ok(span)
    }

    /// Notes that the last span is sold.
    pub fn close_span(&mut self, run_dir: &Path) -> anyhow::Result<()> {
        self.is_complete = true;
        self.write(run_dir)
    }

    fn write(&self, run_dir: &Path) -> anyhow::Result<()> {
        write_private(&path(run_dir), &serde_json::to_vec_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_span_comes_again_and_a_finished_one_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::find_or_start(dir.path(), 1, 20).unwrap();
        let first = state.open_span(dir.path(), 100).unwrap();
        let mut again = State::find_or_start(dir.path(), 1, 20).unwrap();
        assert_eq!(again.open_span(dir.path(), 999).unwrap(), first);
        again.close_span(dir.path()).unwrap();
        let next = again.open_span(dir.path(), 50).unwrap();
        assert_eq!((next.first, next.count, next.from), (100, 50, first.to));
        assert!(State::find_or_start(dir.path(), 2, 20).is_err());
    }
}
