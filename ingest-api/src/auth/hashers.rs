//! Threads for password hashes: a few, apart from every other work, and behind it where cores are short.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::sync::{Semaphore, oneshot};

use crate::error::ApiError;

/// Of the threads: tills come first. A log-in beside a rush of sales takes a few times longer for it.
const NICENESS: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// Runs so many at once; so many more may wait, and whoever comes then is told to come back.
pub struct Hashers {
    places: Arc<Semaphore>,
    queue: SyncSender<Work>,
    begun: AtomicU64,
}

impl Hashers {
    /// The threads end when this is dropped and what waits is done.
    pub fn start(at_once: usize, waiting_max: usize) -> anyhow::Result<Self> {
        let places = at_once + waiting_max;
        let (queue, work) = sync_channel(places);
        let work = Arc::new(Mutex::new(work));
        for _ in 0..at_once {
            let work = Arc::clone(&work);
            let thread = std::thread::Builder::new().name("password-hash".to_owned());
            thread.spawn(move || hash_all(&work)).context("starting a thread for password hashes")?;
        }
        Ok(Hashers { places: Arc::new(Semaphore::new(places)), queue, begun: AtomicU64::new(0) })
    }

    /// How much work was taken so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// What the work came to; 503 when too many wait. It is done to its end, also when its caller has left, and holds its
    /// place until then.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let full = || ApiError::unavailable("overloaded", "too many log-ins are waiting");
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())?;
        let (send, result) = oneshot::channel();
        let work = Box::new(move || {
            // Nobody may be waiting any more.
            send.send(work()).ok();
            drop(place);
        });
        // Whoever has a place has room in the queue.
        self.queue.try_send(work).map_err(|_| full())?;
        self.begun.fetch_add(1, Ordering::Relaxed);
        result.await.map_err(|_| ApiError::internal(anyhow::anyhow!("a password hash ended without a result")))
    }
}

fn hash_all(work: &Mutex<Receiver<Work>>) {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "password hashes run at the priority of sales");
    }
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(next) = next else { return };
        // A panic was logged by the hook; its caller is answered because the sender went with it.
        catch_unwind(AssertUnwindSafe(next)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: std::time::Duration = std::time::Duration::from_millis(2);

    #[tokio::test]
    async fn a_storm_is_told_to_come_back() {
        let hashers = Hashers::start(2, 50).unwrap();
        let results = futures::future::join_all((0..72).map(|_| hashers.run(|| std::thread::sleep(SHORT)))).await;
        let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 20);
        assert!(refused.iter().all(|problem| problem.status == 503 && problem.code == "overloaded"));
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_caller_only() {
        let hashers = Hashers::start(1, 4).unwrap();
        let problem = hashers.run(|| -> i32 { panic!("as planned") }).await.expect_err("no result");
        assert_eq!(problem.status, 500);
        for n in 0..20 {
            assert_eq!(hashers.run(move || n).await.ok(), Some(n), "places are given back");
        }
    }

    #[tokio::test]
    async fn hashes_run_behind_other_work() {
        let hashers = Hashers::start(1, 1).unwrap();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        assert_eq!(hashers.run(priority).await.unwrap(), priority() + NICENESS);
    }
}
