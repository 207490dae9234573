//! A broker that stands still right before a commit: the member goes on, stops in time, and nothing is skipped.

use std::sync::Arc;
use std::time::Duration;

use runtime::consumer::{Batch, ConsumerConfig, Failure, Handler, Reject};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::cable::Cable;
use crate::support::{DEADLINE, Member, Place, all_places, sorted};

/// Beyond every budget of a stop (15, 5 and 3 s), below what the client itself waits for an answer (60 s).
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// Says when it is at work, and finishes a batch when it is let.
struct Halting {
    at_work: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Handler for Halting {
    async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        if !batch.records.is_empty() {
            self.at_work.add_permits(1);
            self.go.acquire().await.unwrap().forget();
        }
        Ok(vec![])
    }
}

struct Held {
    at_work: Arc<Semaphore>,
    go: Arc<Semaphore>,
    stop: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Held {
    fn start(config: ConsumerConfig) -> Self {
        let (at_work, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let handler = Halting { at_work: Arc::clone(&at_work), go: Arc::clone(&go) };
        let stop = Shutdown::new();
        let task = tokio::spawn(runtime::consumer::run(config, stop.clone(), Health::new(), handler));
        Held { at_work, go, stop, task }
    }

    /// Waits until the next batch is at work.
    async fn is_at_work(&self) {
        tokio::time::timeout(DEADLINE, self.at_work.acquire()).await.expect("a batch").unwrap().forget();
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(STOP_LIMIT, self.task).await.expect("stops in time").unwrap().unwrap();
    }
}

/// Batches of five, through the cable; a commit is waited for briefly.
fn config(place: &Place, cable: &Cable) -> ConsumerConfig {
    let commit_answer_max = Duration::from_millis(200);
    ConsumerConfig { kafka: cable.kafka.clone(), commit_answer_max, ..place.config_of_one_batch(5) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_broker_that_stands_still() {
    let place = Place::new(1).await;
    place.produce(0, 5).await;
    let cable = Cable::to(&place.kafka).await;
    let member = Held::start(config(&place, &cable));
    member.is_at_work().await;
    cable.freeze();
    member.go.add_permits(1);
    member.stop().await;
    assert!(place.committed().await.is_empty(), "the commit went another way");

    // Not committed, so replayed: its next owner has it, as soon as the broker misses the first one.
    let next = Member::start(place.config(), |_| Ok(vec![]));
    next.wait("the batch again", |seen| seen.done.len() >= 5).await;
    assert_eq!(sorted(next.stop().await), all_places(1, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_go_on_without_the_answer_to_a_commit_which_is_made_good_later() {
    let place = Place::new(1).await;
    place.produce(0, 10).await;
    let cable = Cable::to(&place.kafka).await;
    let member = Held::start(config(&place, &cable));
    member.is_at_work().await;
    cable.freeze();
    // What was fetched before goes on, although nothing is committed.
    member.go.add_permits(1);
    member.is_at_work().await;
    assert!(place.committed().await.is_empty(), "the commit went another way");
    cable.thaw();
    // As often as it is replayed: the broker may have given the member up meanwhile.
    member.go.add_permits(1_000);
    place.wait_committed(10).await;
    member.stop().await;
}
