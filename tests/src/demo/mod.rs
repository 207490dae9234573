//! The demonstration business of `./dev up`: made through the public API, sold in by simulated tills,
//! shown on a page at the end.

pub mod approval;
pub mod business;
pub mod make;
pub mod names;
pub mod page;
pub mod planner;
pub mod progress;
pub mod returns;
pub mod selling;
pub mod state;
pub mod tally;
pub mod trading_hours;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};

use crate::client::{Client, Identity};
use crate::endpoints::Endpoints;
use crate::journal::Journal;
use crate::session::Session;
use business::Business;
use planner::Planner;
use progress::{Progress, Watch};
use state::State;
use tally::{Counts, Percentiles, Tally};

/// What `./dev up` was asked to sell.
#[derive(Debug, Clone)]
pub struct Options {
    pub sales: u64,
    /// Sales a second, arriving whatever the answers do; None: as fast as the tills are answered.
    pub rate: Option<f64>,
    pub locations: usize,
    pub variants: usize,
    pub seed: u64,
    /// Begin of the first sales of a business that is yet to be made; None: a week ago.
    pub from: Option<DateTime<Utc>>,
    /// Where the tills note what they send and are answered; None: nowhere.
    pub journal: Option<PathBuf>,
    /// How long to wait, after the last sale, for everything to reach ClickHouse.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sales: 20_000,
            rate: None,
            locations: 20,
            variants: business::VARIANTS,
            seed: 1,
            from: None,
            journal: None,
            patience: Duration::from_secs(60),
        }
    }
}

impl Options {
    /// Options for selling in the business that this run directory holds; the default one where it holds none.
    pub fn of_run(run_dir: &Path) -> anyhow::Result<Options> {
        Ok(match State::find(run_dir)? {
            Some(State { seed, locations, variants, .. }) => {
                Options { seed, locations, variants, ..Options::default() }
            }
            None => Options::default(),
        })
    }
}

/// What a run did.
#[derive(Debug, Clone)]
pub struct DemoReport {
    pub counts: Counts,
    pub latency: Percentiles,
    pub selling: Duration,
    /// When everything committed had reached ClickHouse; None when it had not within a minute.
    pub drained: Option<Duration>,
    /// Start of the first sales of the business.
    pub sold_from: Option<DateTime<Utc>>,
}

impl DemoReport {
    /// Every sale was answered as it had to be.
    pub fn is_clean(&self) -> bool {
        self.counts.unexpected == 0
    }
}

/// A client acting as the Owner of this platform.
pub fn owner(endpoints: &Endpoints) -> anyhow::Result<Client> {
    anyhow::ensure!(!endpoints.owner.login.is_empty(), "this platform has no owner yet");
    Client::new(&endpoints.api, Identity::Office(Session::of_owner(endpoints)))
}

/// Makes the business if it is not there, sells `options.sales`, and waits for ClickHouse to hold them.
pub async fn run(endpoints: &Endpoints, options: &Options) -> anyhow::Result<DemoReport> {
    let mut state = State::find_or_start(&endpoints.run_dir, options)?;
    let business = Business::new(state.seed, state.locations, state.variants);
    let owner = owner(endpoints)?;
    let issued = make::business(&owner, &business, &|step| eprintln!("  made {step}")).await?;
    let tally = Arc::new(Tally::of_run(!state.is_complete));
    let begin = Instant::now();
    if options.sales > 0 || !state.is_complete {
        let journal = options.journal.as_deref().map(Journal::open).transpose()?;
        let tills = selling::tills(&owner, &business, &state.device_secret, journal.as_ref()).await?;
        let span = state.open_span(&endpoints.run_dir, options.sales)?;
        approval::show(&owner, &business, &issued, &state, journal.as_ref()).await.context("showing an approval")?;
        let mut planner = standing_before(&business, &issued, &state)?;
        let progress = Progress::start(Watch::new(endpoints)?, tally.clone(), span.count);
        let sold = selling::sell(tills, &mut planner, options.rate, &tally).await;
        progress.finish().await;
        sold.context("selling")?;
        // what was given up on is sold by the next run
        if !tally.is_hopeless() {
            state.close_span(&endpoints.run_dir)?;
            // Journals are of tills that sell; these documents are in none.
            if journal.is_none() {
                returns::show(&owner, &business, &state).await.context("showing returns")?;
            }
        }
    }
    let selling = begin.elapsed();
    let drained = drain(&Watch::new(endpoints)?, options.patience).await;
    let sold_from = state.spans.first().map(|span| span.from);
    Ok(DemoReport { counts: tally.counts(), latency: tally.overall(), selling, drained, sold_from })
}

/// A planner before the last span of `state`: the ones before it are planned through, which moves the
/// series of the tills to where they stood.
fn standing_before<'a>(
    business: &'a Business,
    issued: &'a planner::Issued,
    state: &State,
) -> anyhow::Result<Planner<'a>> {
    let mut spans = state.spans.iter();
    let first = spans.next().context("nothing to sell")?;
    let mut planner = Planner::new(business, issued, first.clone())?;
    for span in spans {
        while planner.next_sale()?.is_some() {}
        planner.enter(span.clone());
    }
    Ok(planner)
}

/// Waits until nothing is on its way any more; how long that took, None when it took too long.
pub async fn drain(watch: &Watch, patience: Duration) -> Option<Duration> {
    let begin = Instant::now();
    while begin.elapsed() < patience {
        let behind = watch.behind().await;
        let is_idle = |value: Option<f64>| value.is_some_and(|value| value < 0.5);
        if behind.outbox == 0 && is_idle(behind.processors) && is_idle(behind.clickhouse_s) {
            return Some(begin.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}
