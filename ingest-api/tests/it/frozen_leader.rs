//! A leader that stands still, as under SIGSTOP: another relay takes over, and what the first one does when it goes on
//! is at most to repeat what the other has published.

use std::sync::{Arc, Condvar, Mutex};

use ingest_api::relay::Publish;
use runtime::kafka::{OutRecord, SendError};
use runtime::lifecycle::Shutdown;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::outbox::{Heard, acts, drained, relay, stream};

/// Stops every thread that comes by while it is closed.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        *self.is_closed.lock().unwrap() = closed;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let closed = self.is_closed.lock().unwrap();
        drop(self.moved.wait_while(closed, |closed| *closed).unwrap());
    }
}

/// Stands still right before it hands a batch over, and the whole thread of its relay with it.
#[derive(Clone)]
struct Freezing {
    heard: Heard,
    gate: Arc<Gate>,
}

impl Publish for Freezing {
    async fn publish(&self, records: &[OutRecord]) -> Result<(), SendError> {
        self.gate.pass();
        self.heard.take(records);
        Ok(())
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_leader_that_stood_still_repeats_at_most_what_another_has_published(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let stream = stream(&pool).await;
    let (gate, stop) = (Arc::new(Gate::default()), Shutdown::new());
    let first = Freezing { heard: Heard::default(), gate: Arc::clone(&gate) };
    let thread = std::thread::spawn({
        let (relay, stop) = (relay(&options, first.clone(), 2), stop.clone());
        let alone = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        move || alone.block_on(relay.run(stop))
    });
    let mut ids = acts(&pool, stream, 4).await;
    drained(&pool, stream).await;
    assert_eq!(first.heard.ids(), ids);

    // It reads a batch and stands still; the other one leads once the silent session has ended.
    gate.set(true);
    let second = Heard::default();
    let other = tokio::spawn({
        let (relay, stop) = (relay(&options, second.clone(), 2), stop.clone());
        async move { relay.run(stop).await }
    });
    ids.extend(acts(&pool, stream, 6).await);
    drained(&pool, stream).await;
    assert_eq!(second.ids(), ids[4..]);

    // It goes on: with the batch it held (one act, or two), and then it is no leader any more.
    gate.set(false);
    let with_late = first.heard.wait(5).await;
    ids.extend(acts(&pool, stream, 4).await);
    drained(&pool, stream).await;
    stop.cancel();
    other.await.unwrap();
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    assert_eq!(with_late, ids[..with_late.len()]);
    assert_eq!(first.heard.ids(), with_late, "nothing but the batch it held");
    assert_eq!(second.ids(), ids[4..], "in order, once");
}
