//! Topics as somebody outside the platform reads and spoils them.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::DEADLINE;

/// A record as it lies in its topic.
#[derive(Debug, Clone)]
pub struct Letter {
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Letter {
    /// The value of a header; empty when it is missing.
    pub fn header(&self, name: &str) -> String {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

impl From<OwnedMessage> for Letter {
    fn from(message: OwnedMessage) -> Self {
        let text = |header: Header<'_, &[u8]>| {
            (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
        };
        Letter {
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: message.headers().into_iter().flat_map(|headers| headers.iter()).map(text).collect(),
        }
    }
}

/// Every record of a topic up to its present end.
pub async fn read(brokers: &str, topic: &str) -> Vec<Letter> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let read = tokio::task::spawn_blocking(move || messages(&brokers, &topic)).await.unwrap();
    read.into_iter().map(Letter::from).collect()
}

fn messages(brokers: &str, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "operators")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let (mut list, mut left) = (TopicPartitionList::new(), 0);
    for partition in 0..schemas::topics::PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(60)).unwrap();
        list.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
        left += high - low;
    }
    consumer.assign(&list).unwrap();
    let (mut found, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while (found.len() as i64) < left {
        assert!(Instant::now() < deadline, "{topic} cannot be read");
        // What goes wrong in between is tried again by the client.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            found.push(message.detach());
        }
    }
    found
}

/// A record that nobody can read, and where it lies.
#[derive(Debug)]
pub struct Spoilt {
    /// What its dead letters have to say.
    pub how: &'static str,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    /// That of the record it is a copy of.
    pub ce_id: String,
    pub partition: i32,
    pub offset: i64,
}

/// Puts copies of a record of the topic into it, each spoilt in another way.
pub async fn spoil(brokers: &str, topic: &str) -> Vec<Spoilt> {
    let source = read(brokers, topic).await.into_iter().next().expect("a record to spoil");
    let (id, datum) = schemas::codec::unframe(&source.payload).unwrap();
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("partitioner", "murmur2_random").create().unwrap();
    let mut spoilt = Vec::new();
    for (how, payload) in [
        ("magic byte", b"no frame at all".to_vec()),
        ("2000000000", schemas::codec::frame(2_000_000_000, datum)),
        ("StockMoved", schemas::codec::frame(id, &datum[..datum.len() / 2])),
    ] {
        let headers = source
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        let record = FutureRecord::to(topic).key(&source.key).payload(&payload).headers(headers);
        let sent = producer.send(record, DEADLINE).await.map_err(|(error, _)| error).unwrap();
        let (key, ce_id) = (source.key.clone(), source.header("ce_id"));
        spoilt.push(Spoilt { how, key, payload, ce_id, partition: sent.partition, offset: sent.offset });
    }
    spoilt
}
