use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime::consumer::Failure;

use crate::support::{Member, Place, all_places, sorted};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_no_record_is_skipped() {
    let place = Arc::new(Place::new(4).await);
    let enough = Arc::new(AtomicBool::new(false));
    let mut config = place.config();
    config.batch_records_max = 50;
    // Work that takes its time: a member is in the middle of a batch when the group changes.
    let slow = |_: &runtime::consumer::Batch| {
        std::thread::sleep(Duration::from_millis(2));
        Ok(vec![])
    };
    let first = Member::start(config.clone(), slow);
    let feeding = {
        let (place, enough) = (Arc::clone(&place), Arc::clone(&enough));
        // Goes on until both have had their share, however long the group takes to agree on it.
        tokio::spawn(async move {
            let mut next = 0;
            while next < 1_500 || !enough.load(Ordering::Relaxed) {
                place.produce(next, 25).await;
                next += 25;
            }
            next
        })
    };
    first.wait("a start", |seen| seen.done.len() >= 100).await;
    let second = Member::start(config, slow);
    second.wait("a share of two", |seen| seen.owned.len() == 2).await;
    first.wait("two given away", |seen| seen.owned.len() == 2 && seen.revoked.len() >= 2).await;
    second.wait("work", |seen| !seen.done.is_empty()).await;
    let mut done = first.stop().await;
    second.wait("all four", |seen| seen.owned.len() == 4).await;
    enough.store(true, Ordering::Relaxed);
    let end = feeding.await.unwrap();
    place.wait_committed(end).await;
    let theirs = second.stop().await;
    for member in [&done, &theirs] {
        for partition in 0..4 {
            let offsets: Vec<i64> = member.iter().filter(|(p, _)| *p == partition).map(|(_, o)| *o).collect();
            assert!(offsets.is_sorted(), "partition {partition} went backwards within one assignment");
        }
    }
    done.extend(theirs);
    let doubled = done.len() as i64 - 4 * end;
    done.sort_unstable();
    done.dedup();
    assert_eq!(done, all_places(4, end), "every record, whoever handled it");
    assert_eq!(doubled, 0, "an ordinary rebalance replays nothing: the batch was committed first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_during_retries_leaves_the_batch_and_is_handled_by_its_new_owner() {
    let place = Place::new(4).await;
    place.produce(0, 50).await;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    // The batch that is stuck never grows, so it must hold everything from the start.
    let stuck = Member::start(place.config_of_one_batch(200), move |batch| match is_broken.load(Ordering::Relaxed) {
        true if !batch.records.is_empty() => Err(Failure::retry(anyhow::anyhow!("the store is away"))),
        _ => Ok(vec![]),
    });
    stuck.wait("a stuck batch", |seen| seen.calls >= 3 && seen.latest.len() == 200).await;
    let healthy = Member::start(place.config(), |_| Ok(vec![]));
    healthy.wait("the share it was given", |seen| seen.done.len() == 100).await;
    stuck
        .wait("a smaller batch", |seen| seen.owned.len() == 2 && seen.latest.iter().all(|(p, _)| owns(seen, *p)))
        .await;
    let committed = place.wait_until_committed(2, 50).await;
    assert_eq!(committed.len(), 2, "only what was done is committed");
    broken.store(false, Ordering::Relaxed);
    place.wait_committed(50).await;
    let mut done = stuck.stop().await;
    assert_eq!(done.len(), 100);
    done.extend(healthy.stop().await.into_iter().take(100));
    assert_eq!(sorted(done), all_places(4, 50), "each exactly once");
}

fn owns(seen: &crate::support::Seen, partition: i32) -> bool {
    seen.owned.iter().any(|(_, p)| *p == partition)
}
