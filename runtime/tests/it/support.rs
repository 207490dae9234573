//! Topics with random names, a scripted handler, and waiting with a deadline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use runtime::config;
use runtime::consumer::{self, Batch, ConsumerConfig, Failure, Handler, Partition, Record, Reject};
use runtime::kafka::{Keep, OutRecord, Producer, TopicSpec, ensure_topics, read_to_end};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use tokio::task::JoinHandle;

/// Of every wait. Far beyond what anything here takes: it only ends a test that would never end.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// An age that no batch reaches.
pub const NEVER: Duration = Duration::from_secs(3_600);

pub fn broker() -> config::Kafka {
    match std::env::var("VORCA__KAFKA__BROKERS") {
        Ok(brokers) => config::Kafka::at(brokers),
        Err(_) => panic!("VORCA__KAFKA__BROKERS is not set: run ./dev test"),
    }
}

pub fn suffix() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// A topic of its own, and the dead-letter topic of a group of its own.
pub struct Place {
    pub kafka: config::Kafka,
    pub topic: String,
    pub group: String,
    pub partitions: i32,
}

impl Place {
    pub async fn new(partitions: i32) -> Self {
        let place = Self::without_dead_letters(partitions).await;
        let name = schemas::topics::dead_letter(&place.topic, &place.group);
        make(&place.kafka, TopicSpec { name, partitions, keep: Keep::DeadLetters }).await;
        place
    }

    pub async fn without_dead_letters(partitions: i32) -> Self {
        let (topic, group) = (format!("test.{}", suffix()), format!("test.{}", suffix()));
        let place = Place { kafka: broker(), topic, group, partitions };
        let spec = TopicSpec { name: place.topic.clone(), partitions, keep: Keep::Events };
        make(&place.kafka, spec).await;
        place
    }

    pub fn dead_letters(&self) -> String {
        schemas::topics::dead_letter(&self.topic, &self.group)
    }

    /// Batches close by age: nothing may be assumed about what is in the first one.
    pub fn config(&self) -> ConsumerConfig {
        let mut config = ConsumerConfig::new(&self.kafka, &self.group, &[&self.topic]);
        config.retry_pause_min = Duration::from_millis(50);
        config.retry_pause_max = Duration::from_millis(200);
        config
    }

    /// Like [`Place::config`], with one batch of exactly these many records, however slowly they come.
    pub fn config_of_one_batch(&self, records: usize) -> ConsumerConfig {
        ConsumerConfig { batch_records_max: records, batch_age_max: NEVER, ..self.config() }
    }

    /// Sends `count` records per partition, numbered on from `from`.
    pub async fn produce(&self, from: i64, count: i64) {
        let record = |partition, n: i64| {
            OutRecord::new(self.topic.clone(), format!("k{n}"), n.to_string())
                .with_partition(partition)
                .with_header("ce_id", format!("{partition}-{n}"))
        };
        let all: Vec<_> = (0..self.partitions).flat_map(|p| (from..from + count).map(move |n| record(p, n))).collect();
        Producer::new(&self.kafka).unwrap().send_all(&all).await.unwrap();
    }

    pub async fn read(&self, topic: &str) -> Vec<Record> {
        let all: Vec<i32> = (0..self.partitions).collect();
        // A topic that was made just now may not have a leader yet.
        until(format!("reading {topic}"), async || {
            let mut records = Vec::new();
            read_to_end(&self.kafka, topic, &all, |record| records.push(record)).await.map(|_| records)
        })
        .await
    }

    /// The group's committed offsets; partitions without one are absent.
    pub async fn committed(&self) -> BTreeMap<i32, i64> {
        // A coordinator that is being loaded does not answer yet.
        until("the committed offsets".to_owned(), async || self.ask_committed().await).await
    }

    async fn ask_committed(&self) -> anyhow::Result<BTreeMap<i32, i64>> {
        let (brokers, group, topic, partitions) =
            (self.kafka.brokers.clone(), self.group.clone(), self.topic.clone(), self.partitions);
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", group).create().unwrap();
            let mut list = TopicPartitionList::new();
            for partition in 0..partitions {
                list.add_partition(&topic, partition);
            }
            let found = consumer.committed_offsets(list, Duration::from_secs(30))?;
            let offset = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match e.offset() {
                Offset::Offset(offset) => Some((e.partition(), offset)),
                _ => None,
            };
            Ok(found.elements().iter().filter_map(offset).collect())
        })
        .await
        .unwrap()
    }

    /// Waits until every partition is committed up to `offset`.
    pub async fn wait_committed(&self, offset: i64) {
        let found = self.wait_until_committed(self.partitions as usize, offset).await;
        assert!(found.values().all(|committed| *committed == offset), "committed {found:?}, wanted {offset}");
    }

    /// Waits until at least `partitions` are committed up to `offset` or beyond; what is committed then.
    pub async fn wait_until_committed(&self, partitions: usize, offset: i64) -> BTreeMap<i32, i64> {
        until(format!("{offset} in {partitions} partitions"), async || {
            let found = self.committed().await;
            let count = found.values().filter(|committed| **committed >= offset).count();
            anyhow::ensure!(count >= partitions, "committed {found:?}");
            Ok(found)
        })
        .await
    }
}

/// Makes a topic; a broker with much to do may answer too late at first.
pub async fn make(kafka: &config::Kafka, spec: TopicSpec) {
    until(format!("making {}", spec.name), async || ensure_topics(kafka, std::slice::from_ref(&spec)).await).await;
}

/// Tries again until it succeeds: the one place where these tests wait for a state.
pub async fn until<T>(what: String, mut attempt: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < deadline, "{what}: {error:#}"),
        }
        // Between two looks.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a handler saw and finished.
#[derive(Debug, Default)]
pub struct Seen {
    /// (partition, offset) of each record of each batch that succeeded, in order.
    pub done: Vec<(i32, i64)>,
    pub calls: u32,
    pub assigned: Vec<Partition>,
    pub revoked: Vec<Partition>,
    /// Partitions owned according to what the handler was told.
    pub owned: std::collections::BTreeSet<Partition>,
    /// Records of the latest call.
    pub latest: Vec<(i32, i64)>,
}

type Answer = Result<Vec<Reject>, Failure>;

/// Answers as told and keeps a diary.
pub struct Scripted {
    pub seen: Arc<Mutex<Seen>>,
    answer: Box<dyn FnMut(&Batch) -> Answer + Send>,
}

impl Handler for Scripted {
    async fn handle(&mut self, batch: &Batch) -> Answer {
        let places: Vec<_> = batch.records.iter().map(|r| (r.partition, r.offset)).collect();
        {
            let mut seen = self.seen.lock().unwrap();
            seen.calls += 1;
            seen.latest.clone_from(&places);
            for partition in &batch.revoked {
                seen.owned.remove(partition);
            }
            seen.owned.extend(batch.assigned.iter().cloned());
            for record in &batch.records {
                let partition = (Arc::clone(&record.topic), record.partition);
                assert!(seen.owned.contains(&partition), "a record of a partition that was never announced");
            }
        }
        tokio::task::yield_now().await;
        let answer = (self.answer)(batch);
        if answer.is_ok() {
            let mut seen = self.seen.lock().unwrap();
            seen.done.extend(places);
            seen.assigned.extend(batch.assigned.iter().cloned());
            seen.revoked.extend(batch.revoked.iter().cloned());
        }
        answer
    }
}

/// A member of a group under test.
pub struct Member {
    pub stop: Shutdown,
    pub health: Health,
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Member {
    pub fn start(config: ConsumerConfig, answer: impl FnMut(&Batch) -> Answer + Send + 'static) -> Self {
        let (stop, health, seen) = (Shutdown::new(), Health::new(), Arc::<Mutex<Seen>>::default());
        health.started();
        let handler = Scripted { seen: Arc::clone(&seen), answer: Box::new(answer) };
        let task = tokio::spawn(consumer::run(config, stop.clone(), health.clone(), handler));
        Member { stop, health, seen, task }
    }

    /// Waits until what was seen is as wanted.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Seen) -> bool) {
        eventually(what, || wanted(&self.seen.lock().unwrap())).await;
    }

    pub async fn stop(self) -> Vec<(i32, i64)> {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.expect("must stop").unwrap().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap().done)
    }

    /// Waits for the member to end by itself, with an error.
    pub async fn error(self) -> String {
        let ended = tokio::time::timeout(DEADLINE, self.task).await.expect("must end");
        format!("{:#}", ended.unwrap().expect_err("must fail"))
    }
}

pub async fn eventually(what: &str, mut wanted: impl FnMut() -> bool) {
    until(what.to_owned(), async || {
        anyhow::ensure!(wanted(), "not within {} s", DEADLINE.as_secs());
        Ok(())
    })
    .await;
}

/// Every (partition, offset) up to `end`.
pub fn all_places(partitions: i32, end: i64) -> Vec<(i32, i64)> {
    (0..partitions).flat_map(|p| (0..end).map(move |o| (p, o))).collect()
}

pub fn sorted(mut places: Vec<(i32, i64)>) -> Vec<(i32, i64)> {
    places.sort_unstable();
    places
}
