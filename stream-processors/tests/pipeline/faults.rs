//! Gaps, bytes nobody can read, and a broker that is set up wrongly.

use runtime::kafka::{Keep, OutRecord, TopicSpec, ensure_topics};
use schemas::codec::{self, Record as _};
use schemas::events::StockMoved;
use schemas::topics;

use crate::rig::{Rig, eventually, location};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_parks_one_entity_until_its_resync_arrives() {
    let mut rig = Rig::new().await;
    let here = location();
    let first = [rig.moved(here, 1, 9_000), rig.moved(here, 2, 9_000)];
    rig.send(&first).await;
    let role = rig.start();
    rig.settled().await;

    rig.moved(here, 1, -1_000);
    let beyond = [rig.moved(here, 1, -1_000), rig.moved(here, 1, -1_000), rig.moved(here, 2, -1_000)];
    rig.send(&beyond).await;
    let requests = eventually("a resync request", || async {
        let requests = rig.requests().await;
        (!requests.is_empty()).then_some(requests)
    })
    .await;
    let request = &requests[0];
    assert_eq!((request.entity_kind.as_str(), request.entity.clone()), ("stock", beyond[0].event_entity()));
    assert_eq!((request.expected_version, request.seen_version, request.expected_epoch), (2, 3, 1));
    eventually("the other variant goes on", || async {
        rig.newest().await.into_values().find(|level| level.variant_id == first[1].variant_id && level.version == 2)
    })
    .await;
    let parked = rig.newest().await.into_values().find(|level| level.variant_id == first[0].variant_id);
    assert_eq!(parked.map(|level| level.version), Some(1), "parked");

    let answer = [rig.resync(here, 1), rig.moved(here, 1, -1_000)];
    rig.send(&answer).await;
    let healed = eventually("the resync frees it", || async {
        rig.newest().await.into_values().find(|level| level.version == 6)
    })
    .await;
    assert_eq!(healed.qty, answer[1].qty_after);
    role.stop().await;
    assert_eq!(rig.requests().await.len(), 1, "asked once");
}

trait Named {
    fn event_entity(&self) -> String;
}

impl Named for StockMoved {
    fn event_entity(&self) -> String {
        codec::stock_key(self.location_id, self.variant_id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_read_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let mut rig = Rig::new().await;
    let here = location();
    let event = rig.moved(here, 1, 9_000);
    let id = rig.codec.schema_id::<StockMoved>().await.expect("a schema id");
    let datum = codec::encode(&event);
    let bad = [
        b"not avro at all".to_vec(),
        codec::frame(2_000_000_000, &datum),
        codec::frame(id, &datum[..datum.len() / 2]),
        vec![0, 0],
    ];
    let bad = bad.map(|bytes| OutRecord::new(rig.topics.input.clone(), event.key(), bytes));
    rig.producer.send_all(&bad).await.expect("sent");
    rig.send(&[event]).await;
    let role = rig.start();
    rig.settled().await;
    role.stop().await;

    let letters = rig.read(&rig.dead_letters()).await;
    assert_eq!(letters.len(), 4);
    assert_eq!(
        letters.iter().map(|letter| letter.payload.clone()).collect::<Vec<_>>(),
        bad.map(|record| record.payload)
    );
    for letter in &letters {
        assert!(letter.headers.get_str("dlt_error_code").is_some_and(|code| code.starts_with("malformed")));
    }
    assert!(rig.requests().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_partition_count_stops_the_start_and_is_named() {
    codec::init();
    let rig = Rig::without_topics();
    let spec = |name: &str, partitions| TopicSpec { name: name.to_owned(), partitions, keep: Keep::Events };
    let specs = [
        spec(&rig.topics.input, topics::PARTITIONS),
        spec(&rig.topics.state, topics::PARTITIONS - 1),
        spec(&rig.topics.alerts, topics::PARTITIONS),
        spec(&rig.topics.resync, topics::PARTITIONS),
        spec(&rig.dead_letters(), topics::PARTITIONS),
    ];
    eventually("topics", || async { ensure_topics(&rig.kafka, &specs).await.ok() }).await;
    let role = rig.start();
    let refused = role.task.await.expect("no panic").expect_err("refused").to_string();
    assert!(refused.contains(&format!("{} has 11 partitions, expected 12", rig.topics.state)), "{refused}");
    assert!(!role.health.is_ready());
}
