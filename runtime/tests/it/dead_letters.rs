use runtime::consumer::Reject;
use runtime::dead_letter::{Filter, find};
use runtime::kafka::{Keep, TopicSpec};

use crate::support::{Member, Place, all_places, make, sorted};

fn reject_odd(batch: &runtime::consumer::Batch) -> Result<Vec<Reject>, runtime::consumer::Failure> {
    let odd = batch.records.iter().enumerate().filter(|(_, r)| r.offset % 2 == 1);
    let reject = |index| Reject { index, code: "malformed", error: "an odd one".into(), own_schema: false };
    Ok(odd.map(|(index, _)| reject(index)).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_record_is_kept_with_its_origin_and_comes_back_by_redrive() {
    let place = Place::new(2).await;
    place.produce(0, 10).await;
    let member = Member::start(place.config(), reject_odd);
    place.wait_committed(10).await;
    assert_eq!(sorted(member.stop().await), all_places(2, 10));

    let letters = place.read(&place.dead_letters()).await;
    assert_eq!(letters.len(), 10);
    let original = place.read(&place.topic).await;
    for letter in &letters {
        let header = |name: &str| letter.headers.get_str(name).unwrap_or_else(|| panic!("{name} is missing"));
        let place_of = (header("dlt_partition").parse().unwrap(), header("dlt_offset").parse().unwrap());
        let source = original.iter().find(|r| (r.partition, r.offset) == place_of).unwrap();
        assert_eq!((&letter.key, &letter.payload), (&source.key, &source.payload));
        assert_eq!(header("ce_id"), source.headers.get_str("ce_id").unwrap());
        assert_eq!((header("dlt_topic"), header("dlt_error_code")), (&*place.topic, "malformed"));
        assert_eq!((header("dlt_error"), header("dlt_attempts")), ("an odd one", "1"));
        assert!(header("dlt_time").ends_with('Z'));
    }

    let only = Filter { partition: Some(1), error_code: Some("malformed".into()), ..Filter::default() };
    let found = find(&place.kafka, &place.topic, &place.group, &only, 3).await.unwrap();
    assert_eq!((found.read, found.matched, found.count()), (10, 5, 3));
    assert_eq!(place.read(&place.topic).await.len(), original.len(), "finding them publishes nothing");
    found.publish(&place.kafka).await.unwrap();
    let after = place.read(&place.topic).await;
    let again: Vec<_> = after.iter().filter(|r| r.offset >= 10).collect();
    assert_eq!(again.len(), 3);
    for (record, source) in again.iter().zip([1, 3, 5]) {
        let source = original.iter().find(|r| (r.partition, r.offset) == (1, source)).unwrap();
        assert_eq!(record.partition, 1);
        assert_eq!((&record.key, &record.payload), (&source.key, &source.payload));
        assert_eq!(record.headers.to_owned_pairs(), source.headers.to_owned_pairs(), "ce_id kept, no dlt_ left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undeliverable_dead_letter_keeps_its_record_uncommitted() {
    let place = Place::without_dead_letters(1).await;
    // A dead-letter topic whose broker-side limit no letter meets.
    let admin: rdkafka::admin::AdminClient<_> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &place.kafka.brokers).create().unwrap();
    let name = place.dead_letters();
    let tight = rdkafka::admin::NewTopic::new(&name, 1, rdkafka::admin::TopicReplication::Fixed(1))
        .set("max.message.bytes", "100");
    for result in admin.create_topics([&tight], &rdkafka::admin::AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
    make(&place.kafka, TopicSpec { name, partitions: 1, keep: Keep::DeadLetters }).await;
    place.produce(0, 4).await;
    let member = Member::start(place.config(), reject_odd);
    let error = member.error().await;
    assert!(error.contains(&place.dead_letters()), "{error}");
    assert!(place.committed().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_dead_letter_topic_stops_the_start() {
    let place = Place::without_dead_letters(1).await;
    let error = Member::start(place.config(), |_| Ok(vec![])).error().await;
    assert!(error.contains(&place.dead_letters()) && error.contains("missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_of_our_own_in_a_row_halt_before_anything_is_sent_away() {
    let place = Place::new(1).await;
    place.produce(0, 30).await;
    let all = |batch: &runtime::consumer::Batch| {
        let reject = |index| Reject { index, code: "malformed", error: "cannot read".into(), own_schema: true };
        Ok((0..batch.records.len()).map(reject).collect())
    };
    let error = Member::start(place.config_of_one_batch(30), all).error().await;
    assert!(error.contains("halted") && error.contains("cannot read"), "{error}");
    assert!(place.committed().await.is_empty());
    assert!(place.read(&place.dead_letters()).await.is_empty());
}
