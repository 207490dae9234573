//! What the run directory remembers of the demonstration business: its seed, when its sales begin, and
//! which spans were sold. With it the same sales come again and an interrupted run goes on.

use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Serialize};

use super::Options;
use super::business::{Business, VARIANTS};
use super::planner::{OPENING, Span};
use crate::endpoints::write_private;

/// Content of `demo.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub seed: u64,
    pub locations: usize,
    #[serde(default = "all_variants")]
    pub variants: usize,
    /// Secret from which the keys of the simulated devices derive; never leaves this directory.
    pub device_secret: String,
    /// Begin of the first sales: seed, size and this instant give the same sales again.
    pub from: DateTime<Utc>,
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

    /// The kept state when seed, size and begin are the same, else a fresh one that begins at `from` (a week ago
    /// without); another seed or begin is another business and needs other data.
    pub fn find_or_start(run_dir: &Path, wanted: &Options) -> anyhow::Result<State> {
        let Options { seed, locations, variants, from, .. } = *wanted;
        match State::find(run_dir)? {
            Some(state)
                if (state.seed, state.locations, state.variants) == (seed, locations, variants)
                    && from.is_none_or(|from| from == state.from) =>
            {
                Ok(state)
            }
            Some(state) => anyhow::bail!(
                "this clone holds the business of seed {} with {} locations and {} variants from {} on; ./dev reset first, \
                 or use the same",
                state.seed,
                state.locations,
                state.variants,
                instant(state.from)
            ),
            None => {
                let a_week_ago = Utc::now().trunc_subsecs(3) - OPENING;
                let from = from.unwrap_or(a_week_ago);
                anyhow::ensure!(
                    from <= a_week_ago && from.date_naive() > Business::opened_on(),
                    "the first sales take a week that is over: begin after {} and by {}",
                    Business::opened_on(),
                    instant(a_week_ago)
                );
                let state = State {
                    seed,
                    locations,
                    variants,
                    device_secret: format!("{:032x}", rand::random::<u128>()),
                    from,
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
            None => Span::opening(sales, self.from),
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

    /// The command that sells the first sales again in an empty run directory; None before anything was sold.
    pub fn again(&self) -> Option<String> {
        let first = self.spans.first()?;
        let State { seed, locations, .. } = self;
        Some(format!(
            "./dev up --sales {} --locations {locations} --seed {seed} --from {}",
            first.count,
            instant(self.from)
        ))
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

fn all_variants() -> usize {
    VARIANTS
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::planner::{Issued, Planner};

    fn wanted(seed: u64, locations: usize, from: Option<DateTime<Utc>>) -> Options {
        Options { seed, locations, from, ..Options::default() }
    }

    /// Bodies that a fresh business of this seed and begin sends.
    fn bodies(seed: u64, from: Option<DateTime<Utc>>) -> (State, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::find_or_start(dir.path(), &wanted(seed, 4, from)).unwrap();
        let span = state.open_span(dir.path(), 50).unwrap();
        let business = Business::new(seed, 4, VARIANTS);
        let issued = Issued { variants: vec![uuid::Uuid::nil(); 2_000], members: vec![uuid::Uuid::nil()] };
        let mut planner = Planner::new(&business, &issued, span).unwrap();
        let sales = std::iter::from_fn(|| planner.next_sale().unwrap());
        (state, sales.map(|planned| serde_json::to_string(&planned.sale).unwrap()).collect())
    }

    #[test]
    fn what_is_printed_sells_the_same_again() {
        let (state, first) = bodies(7, None);
        let again = state.again().unwrap();
        let printed = again.rsplit(' ').next().unwrap();
        assert_eq!(again, format!("./dev up --sales 50 --locations 4 --seed 7 --from {printed}"));
        let from: DateTime<Utc> = printed.parse().unwrap();
        assert!(bodies(7, Some(from)).1 == first, "another body");
        // A day: an hour of the night changes nothing of what shops sell by day.
        assert!(bodies(7, Some(from - chrono::TimeDelta::days(1))).1 != first, "the instant does not matter");
    }

    #[test]
    fn a_first_week_that_is_not_over_or_before_the_opening_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for from in [Utc::now() - OPENING / 2, DateTime::UNIX_EPOCH] {
            assert!(State::find_or_start(dir.path(), &wanted(1, 4, Some(from))).is_err());
        }
        State::find_or_start(dir.path(), &wanted(1, 4, None)).unwrap();
        assert!(State::find_or_start(dir.path(), &wanted(1, 4, Some(Utc::now() - OPENING * 2))).is_err());
    }

    #[test]
    fn an_interrupted_span_comes_again_and_a_finished_one_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::find_or_start(dir.path(), &wanted(1, 20, None)).unwrap();
        let first = state.open_span(dir.path(), 100).unwrap();
        let mut again = State::find_or_start(dir.path(), &wanted(1, 20, None)).unwrap();
        assert_eq!(again.open_span(dir.path(), 999).unwrap(), first);
        again.close_span(dir.path()).unwrap();
        let next = again.open_span(dir.path(), 50).unwrap();
        assert_eq!((next.first, next.count, next.from), (100, 50, first.to));
        assert!(State::find_or_start(dir.path(), &wanted(2, 20, None)).is_err());
    }
}
