use std::time::{Duration, Instant};

use runtime::config;
use runtime::kafka::{
    Keep, OutRecord, Producer, SendError, TopicSpec, check_topics, ensure_topics, partition_for, read_to_end,
};
use runtime::lifecycle::Unavailable;

use crate::support::{DEADLINE, Place, broker, make, suffix};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_read_back_whole_and_in_order() {
    let place = Place::without_dead_letters(3).await;
    let record = |n: u32| {
        let record = OutRecord::new(place.topic.clone(), format!("key-{}", n % 50), format!("value {n}"));
        let record = record.with_header("ce_id", n.to_string()).with_header("empty", "");
        if n.is_multiple_of(10) { OutRecord { payload: None, ..record } } else { record }
    };
    let sent: Vec<OutRecord> = (0..5_000).map(record).collect();
    Producer::new(&place.kafka).unwrap().send_all(&sent).await.unwrap();
    let read = place.read(&place.topic).await;
    assert_eq!(read.len(), sent.len());
    for (partition, records) in (0..3).map(|p| (p, read.iter().filter(move |r| r.partition == p))) {
        let expected = sent.iter().filter(|r| partition_for(r.key.as_ref().unwrap(), 3) == partition);
        for (got, want) in records.zip(expected) {
            // The partition the client chose is the one we compute, so the Java client's too.
            assert_eq!((&got.key, &got.payload), (&want.key, &want.payload));
            assert_eq!(got.headers.to_owned_pairs(), want.headers);
            assert!(got.timestamp_ms > 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_to_the_end_ends_where_the_topic_ended_when_it_began() {
    let place = Place::without_dead_letters(2).await;
    // Its partitions have leaders from here on.
    assert!(place.read(&place.topic).await.is_empty());
    let nothing = read_to_end(&place.kafka, &place.topic, &[0, 1], |_| panic!("empty")).await.unwrap();
    assert_eq!((nothing.records, nothing.ends[&0]), (0, 0));
    place.produce(0, 1_500).await;
    let mut offsets = Vec::new();
    let read = read_to_end(&place.kafka, &place.topic, &[1], |r| offsets.push((r.partition, r.offset))).await.unwrap();
    assert_eq!(read.records, 1_500);
    assert_eq!(offsets, (0..1_500).map(|o| (1, o)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_and_a_wrong_partition_count_are_refused_by_name() {
    let kafka = broker();
    let spec = TopicSpec { name: format!("test.{}", suffix()), partitions: 3, keep: Keep::State };
    let error = check_topics(&kafka, std::slice::from_ref(&spec)).await.unwrap_err().to_string();
    assert!(error.contains(&spec.name) && error.contains("does not exist"), "{error}");
    make(&kafka, spec.clone()).await;
    make(&kafka, spec.clone()).await;
    let wrong = TopicSpec { partitions: 12, ..spec.clone() };
    for result in [check_topics(&kafka, std::slice::from_ref(&wrong)).await, ensure_topics(&kafka, &[wrong]).await] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(&format!("topic {} has 3 partitions, expected 12", spec.name)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_can_never_be_sent_is_refused_and_the_producer_goes_on() {
    let place = Place::without_dead_letters(1).await;
    let producer = Producer::new(&place.kafka).unwrap();
    // Random, or it would be small once compressed.
    let noise: Vec<u8> = (0..1_200_000).map(|_| rand::random()).collect();
    let huge = OutRecord::new(place.topic.clone(), "k", noise);
    let error = producer.send_all(&[huge]).await.unwrap_err();
    assert!(matches!(&error, SendError::Refused { topic, .. } if *topic == place.topic), "{error}");
    producer.send_all(&[OutRecord::new(place.topic.clone(), "k", "small")]).await.unwrap();
    assert_eq!(place.read(&place.topic).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_sending_fails_in_time_again_and_again() {
    let nobody = config::Kafka::at("127.0.0.1:1");
    let producer = Producer::with_delivery_limit(&nobody, Duration::from_millis(1_500)).unwrap();
    for _ in 0..2 {
        let began = Instant::now();
        let batch: Vec<_> = (0..100).map(|n| OutRecord::new("t", n.to_string(), "v")).collect();
        let error = producer.send_all(&batch).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    }
    let error = check_topics(&nobody, &[]).await.unwrap_err();
    assert!(error.is::<Unavailable>(), "{error}");
}
