use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use runtime::config;
use runtime::consumer::{ConsumerConfig, Failure, Trigger};

use crate::support::{Member, NEVER, Place, all_places, eventually, sorted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_handled_once_in_order_and_a_restart_resumes_at_the_next_offset() {
    let place = Place::new(3).await;
    place.produce(0, 700).await;
    let first = Member::start(place.config(), |_| Ok(vec![]));
    first.wait("2100 records", |seen| seen.done.len() >= 2_100).await;
    place.wait_committed(700).await;
    eventually("ready", || first.health.is_ready()).await;
    assert_eq!(first.seen.lock().unwrap().owned.len(), 3);
    let done = first.stop().await;
    for partition in 0..3 {
        let offsets: Vec<i64> = done.iter().filter(|(p, _)| *p == partition).map(|(_, o)| *o).collect();
        assert_eq!(offsets, (0..700).collect::<Vec<_>>());
    }
    place.produce(700, 10).await;
    let second = Member::start(place.config(), |_| Ok(vec![]));
    second.wait("30 records", |seen| seen.done.len() >= 30).await;
    place.wait_committed(710).await;
    let expected: Vec<_> = all_places(3, 710).into_iter().filter(|(_, o)| *o >= 700).collect();
    assert_eq!(sorted(second.stop().await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_batch_is_repeated_until_it_succeeds_and_nothing_is_committed_before() {
    let place = Place::new(2).await;
    place.produce(0, 300).await;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let member = Member::start(place.config(), move |batch| match is_broken.load(Ordering::Relaxed) {
        true if !batch.records.is_empty() => Err(Failure::retry(anyhow::anyhow!("the store is away"))),
        _ => Ok(vec![]),
    });
    member.wait("five attempts", |seen| seen.calls >= 5 && !seen.latest.is_empty()).await;
    // More arrives while the batch is being retried.
    place.produce(300, 200).await;
    let calls = member.seen.lock().unwrap().calls;
    member.wait("more attempts", |seen| seen.calls >= calls + 5).await;
    assert!(!member.health.is_ready());
    assert!(place.committed().await.is_empty());
    broken.store(false, Ordering::Relaxed);
    member.wait("all records", |seen| seen.done.len() >= 1_000).await;
    place.wait_committed(500).await;
    eventually("ready again", || member.health.is_ready()).await;
    assert_eq!(sorted(member.stop().await), all_places(2, 500), "each exactly once");
}

/// Triggers and sizes of the batches that brought `records` to a member; each limit alone decides.
async fn batches(place: &Place, config: ConsumerConfig, records: usize) -> Vec<(Trigger, usize)> {
    let (send, receive) = std::sync::mpsc::channel();
    let member = Member::start(config, move |batch| {
        send.send((batch.trigger, batch.records.len())).unwrap();
        Ok(vec![])
    });
    member.wait("all records", |seen| seen.done.len() >= records).await;
    place.wait_committed(place.read(&place.topic).await.len() as i64).await;
    member.stop().await;
    receive.try_iter().filter(|(_, count)| *count > 0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_close_by_count_bytes_and_age() {
    let place = Place::new(1).await;
    place.produce(0, 80).await;
    let by_count = place.config_of_one_batch(40);
    assert_eq!(batches(&place, by_count, 80).await, [(Trigger::Count, 40), (Trigger::Count, 40)]);

    place.produce(80, 20).await;
    let one = place.read(&place.topic).await.last().unwrap().size();
    let by_bytes = ConsumerConfig { batch_bytes_max: one * 10, batch_age_max: NEVER, ..place.config() };
    assert_eq!(batches(&place, by_bytes, 20).await, [(Trigger::Bytes, 10), (Trigger::Bytes, 10)]);

    // In how many batches they come depends on the machine.
    place.produce(100, 20).await;
    let by_age = batches(&place, place.config(), 20).await;
    assert!(by_age.iter().all(|(trigger, _)| *trigger == Trigger::Age), "{by_age:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fatal_failure_ends_the_member_uncommitted() {
    let place = Place::new(1).await;
    place.produce(0, 5).await;
    let member = Member::start(place.config(), |batch| match batch.records.is_empty() {
        true => Ok(vec![]),
        false => Err(Failure::fatal(anyhow::anyhow!("the impossible happened"))),
    });
    let error = member.error().await;
    assert!(error.contains(&place.group) && error.contains("the impossible happened"), "{error}");
    assert!(place.committed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_hangs_is_given_up_and_repeated() {
    let place = Place::new(1).await;
    place.produce(0, 5).await;
    let mut config = place.config_of_one_batch(5);
    config.attempt_max = Duration::from_millis(200);
    struct Hangs(Arc<AtomicU32>);
    impl runtime::consumer::Handler for Hangs {
        async fn handle(
            &mut self,
            batch: &runtime::consumer::Batch,
        ) -> Result<Vec<runtime::consumer::Reject>, Failure> {
            if !batch.records.is_empty() && self.0.fetch_add(1, Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            Ok(vec![])
        }
    }
    let (calls, stop, health) = (Arc::default(), runtime::lifecycle::Shutdown::new(), runtime::ops::Health::new());
    let task = tokio::spawn(runtime::consumer::run(config, stop.clone(), health, Hangs(Arc::clone(&calls))));
    place.wait_committed(5).await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_the_running_batch_finish_and_commits_it() {
    let place = Place::new(1).await;
    place.produce(0, 5).await;
    struct Slow {
        began: Arc<AtomicBool>,
        go: Arc<tokio::sync::Notify>,
    }
    impl runtime::consumer::Handler for Slow {
        async fn handle(
            &mut self,
            batch: &runtime::consumer::Batch,
        ) -> Result<Vec<runtime::consumer::Reject>, Failure> {
            if !batch.records.is_empty() {
                self.began.store(true, Ordering::Relaxed);
                self.go.notified().await;
            }
            Ok(vec![])
        }
    }
    let (began, go) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let (stop, health) = (runtime::lifecycle::Shutdown::new(), runtime::ops::Health::new());
    let handler = Slow { began: Arc::clone(&began), go: Arc::clone(&go) };
    let task = tokio::spawn(runtime::consumer::run(place.config_of_one_batch(5), stop.clone(), health, handler));
    eventually("the handler is at work", || began.load(Ordering::Relaxed)).await;
    stop.cancel();
    go.notify_one();
    task.await.unwrap().unwrap();
    assert_eq!(place.committed().await[&0], 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_broker_is_waited_for_and_a_stop_is_heard() {
    let nobody = config::Kafka::at("127.0.0.1:1");
    let member = Member::start(ConsumerConfig::new(&nobody, "g", &["t"]), |_| Ok(vec![]));
    eventually("not ready", || !member.health.is_ready()).await;
    assert!(member.stop().await.is_empty());
}
