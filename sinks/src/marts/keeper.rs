//! Keeps the marts up to date: coalesces touched slices, paces recomputation, compares everything at start.
//!
//! A round computes what was touched, and only then goes on comparing, for a short while: what was just sold never waits
//! for the history, however long that is.
//!
//! The sink commits offsets without waiting for a mart: what a crash leaves stale is found by the comparison
//! at the next start, or when partitions are assigned.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use runtime::lifecycle::Shutdown;
use runtime::names;
use tokio::sync::Notify;

use super::{Days, Definition, PRODUCTS, SALES, Scope, Slice, Touched, pieces, recompute, stale_after};
use crate::store::{Store, StoreError};

/// How long a mart rests between two rounds at least. It also rests for a multiple of what the round took, so that neither
/// takes more than its share of the store: a third of a core, and a tenth for the products.
const SALES_PACE: Duration = Duration::from_millis(500);
const PRODUCTS_PACE: Duration = Duration::from_secs(15);
/// Raw and marts are compared as a whole this often, beside the start.
const COMPARE_EVERY: Duration = Duration::from_secs(600);
/// How long one round goes on comparing, once what was touched is done; it ends with the piece it is at.
const COMPARE_MAX: Duration = Duration::from_secs(1);
/// Stale slices of a piece that are computed before the time is looked at.
const STALE_MAX: usize = 500;
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Above this many waiting slices the sink waits for the marts.
pub const PENDING_MAX: usize = 50_000;

#[derive(Default)]
struct Pending {
    slices: BTreeSet<Slice>,
    compare: bool,
}

/// What a comparison has not looked at yet, the next piece last: the newest days come first.
#[derive(Default)]
struct Comparison {
    left: Vec<Days>,
    /// Of the next piece, up to where its stale slices are computed.
    after: Option<Slice>,
}

/// One mart and what waits for it.
struct Mart {
    kpi: Definition,
    pace: Duration,
    /// Rest per time worked.
    rest: u32,
    pending: Mutex<Pending>,
    wake: Notify,
}

/// All marts. [`Keeper::run`] does the work; [`Keeper::touch`] says where.
pub struct Keeper {
    store: Store,
    marts: [Mart; 2],
}

impl Keeper {
    pub fn new(store: Store) -> Self {
        Self::of(store, SALES.clone(), PRODUCTS.clone())
    }

    /// Keeps marts of other definitions than those of this release.
    pub fn of(store: Store, sales: Definition, products: Definition) -> Self {
        let mart = |kpi, pace, rest| Mart { kpi, pace, rest, pending: Mutex::default(), wake: Notify::new() };
        Keeper { store, marts: [mart(sales, SALES_PACE, 2), mart(products, PRODUCTS_PACE, 9)] }
    }

    /// Asks for these slices to be computed again, soon.
    pub fn touch(&self, touched: &Touched) {
        for mart in &self.marts {
            mart.pending().slices.extend(touched.iter().map(|slice| mart.kpi.slice(*slice)));
            mart.wake.notify_one();
        }
    }

    /// Asks for raw and marts to be compared: at start, and when partitions come from another process.
    pub fn compare(&self) {
        for mart in &self.marts {
            mart.pending().compare = true;
            mart.wake.notify_one();
        }
    }

    /// Slices that wait, of the mart that has most.
    pub fn waiting(&self) -> usize {
        self.marts.iter().map(|mart| mart.pending().slices.len()).max().unwrap_or(0)
    }

    /// Works until stopped, and then finishes what waits for the sales mart.
    pub async fn run(&self, stop: Shutdown) {
        self.compare();
        let [sales, products] = &self.marts;
        tokio::join!(self.keep(sales, &stop), self.keep(products, &stop));
    }

    async fn keep(&self, mart: &Mart, stop: &Shutdown) {
        let mut failures = 0u32;
        let mut comparison = Comparison::default();
        let mut compared = Instant::now();
        while !stop.is_cancelled() {
            if compared.elapsed() >= COMPARE_EVERY {
                mart.pending().compare = true;
            }
            let work = mart.take(comparison.left.is_empty());
            if work.slices.is_empty() && !work.compare && comparison.left.is_empty() {
                tokio::select! {
                    () = mart.wake.notified() => {}
                    () = tokio::time::sleep(COMPARE_EVERY) => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            let began = Instant::now();
            let rest = match self.round(mart, &work, &mut comparison).await {
                Ok(()) => {
                    failures = 0;
                    if work.compare {
                        compared = began;
                    }
                    mart.pace.max(began.elapsed() * mart.rest)
                }
                Err(error) => {
                    failures += 1;
                    counter!(names::MART_FAILURES, "mart" => mart.kpi.name).increment(1);
                    tracing::warn!(mart = mart.kpi.name, %error, failures, "mart round failed, trying again");
                    mart.put_back(work);
                    RETRY_MAX.min(mart.pace.max(Duration::from_millis(250)) * failures.min(20))
                }
            };
            gauge!(names::MART_WAITING, "mart" => mart.kpi.name).set(mart.pending().slices.len() as f64);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = stop.cancelled() => {}
            }
        }
        let work = mart.take(false);
        if mart.pace == SALES_PACE
            && let Err(error) = self.compute(mart, &work.slices).await
        {
            tracing::warn!(mart = mart.kpi.name, %error, "left for the next start");
        }
    }

    async fn round(&self, mart: &Mart, work: &Pending, comparison: &mut Comparison) -> Result<(), StoreError> {
        let began = Instant::now();
        self.compute(mart, &work.slices).await?;
        if work.compare {
            *comparison = Comparison { left: pieces(&self.store, &mart.kpi).await?, after: None };
        }
        self.compare_some(mart, comparison).await?;
        histogram!(names::MART_ROUND_SECONDS, "mart" => mart.kpi.name).record(began.elapsed().as_secs_f64());
        Ok(())
    }

    async fn compute(&self, mart: &Mart, slices: &Touched) -> Result<(), StoreError> {
        recompute(&self.store, &mart.kpi, slices).await?;
        counter!(names::MART_SLICES, "mart" => mart.kpi.name).increment(slices.len() as u64);
        Ok(())
    }

    /// Compares piece by piece until nothing is left or the time is up; what failed is looked at again.
    async fn compare_some(&self, mart: &Mart, comparison: &mut Comparison) -> Result<(), StoreError> {
        let began = Instant::now();
        while let Some(days) = comparison.left.last() {
            let scope = Scope::Days(*days);
            let found = stale_after(&self.store, &mart.kpi, scope, comparison.after, STALE_MAX).await?;
            comparison.after = found.last().copied().filter(|_| found.len() == STALE_MAX);
            self.compute(mart, &found.into_iter().collect()).await?;
            if comparison.after.is_none() {
                comparison.left.pop();
            }
            if began.elapsed() >= COMPARE_MAX {
                break;
            }
        }
        Ok(())
    }
}

impl Mart {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits; the wish for a comparison only when none is under way: what a process left stale while
    /// one ran may lie in a piece it had passed.
    fn take(&self, compares: bool) -> Pending {
        let mut pending = self.pending();
        let compare = compares && std::mem::take(&mut pending.compare);
        Pending { slices: std::mem::take(&mut pending.slices), compare }
    }

    fn put_back(&self, work: Pending) {
        let mut pending = self.pending();
        pending.slices.extend(work.slices);
        pending.compare |= work.compare;
    }
}
