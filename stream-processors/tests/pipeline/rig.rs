//! Topics of its own for every test, events as the database would number them, and eyes on what came out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use runtime::config;
use runtime::consumer::ConsumerConfig;
use runtime::kafka::{Keep, OutRecord, Producer, Record, TopicSpec, ensure_topics, partition_for, read_to_end};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use schemas::codec::{self, Codec, Record as _};
use schemas::events::{ResyncRequested, StockFellLow, StockLevel, StockMoved};
use schemas::ids::{LocationId, UserId, VariantId};
use schemas::time::{Day, Timestamp};
use schemas::topics;
use stream_processors::fold::{Applied, Effect, Entity, Fold as _, Stock};
use stream_processors::processor::{self, Topics};
use stream_processors::stock;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Of every wait. Far beyond what anything here takes: it only ends a test that would never end.
pub const LIMIT: Duration = Duration::from_secs(120);
pub const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run ./dev test"))
}

/// Registers the schemas once, however many tests run at a time.
async fn register(registry: &str) {
    static REGISTERED: OnceCell<()> = OnceCell::const_new();
    let register = || async { schemas::registry::register_all(registry).await.ok() };
    // A registry that has just started takes its time.
    REGISTERED.get_or_init(async || drop(eventually("the schemas are registered", register).await)).await;
}

pub struct Rig {
    pub kafka: config::Kafka,
    pub registry: config::Registry,
    pub topics: Topics,
    pub producer: Producer,
    pub codec: Codec,
    pub ledger: Vec<StockMoved>,
}

impl Rig {
    pub async fn new() -> Self {
        codec::init();
        let rig = Self::without_topics();
        register(&rig.registry.url).await;
        let spec = |name: &str, keep| TopicSpec { name: name.to_owned(), partitions: topics::PARTITIONS, keep };
        let specs = [
            spec(&rig.topics.input, Keep::Events),
            spec(&rig.topics.state, Keep::State),
            spec(&rig.topics.alerts, Keep::Events),
            spec(&rig.topics.resync, Keep::Events),
            spec(&rig.dead_letters(), Keep::DeadLetters),
        ];
        // A broker with much to do may answer too late at first.
        eventually("topics", || async { ensure_topics(&rig.kafka, &specs).await.ok() }).await;
        rig
    }

    pub fn without_topics() -> Self {
        let kafka = config::Kafka::at(variable("VORCA__KAFKA__BROKERS"));
        let registry = config::Registry { url: variable("VORCA__REGISTRY__URL") };
        let own = |topic: &str| format!("test.{}.{topic}", Uuid::now_v7().simple());
        let topics = Topics {
            group: own("group"),
            input: own("movements"),
            state: own("stock"),
            alerts: own("alerts"),
            resync: own("resync"),
        };
        Self {
            producer: Producer::new(&kafka).expect("a producer"),
            codec: Codec::new(&registry.url),
            kafka,
            registry,
            topics,
            ledger: Vec::new(),
        }
    }

    pub fn dead_letters(&self) -> String {
        topics::dead_letter(&self.topics.input, &self.topics.group)
    }

    /// A member that takes few records at a time, so that a test has many batches.
    pub fn consumer(&self, records: usize) -> ConsumerConfig {
        ConsumerConfig {
            batch_records_max: records,
            batch_age_max: Duration::from_millis(10),
            ..ConsumerConfig::new(&self.kafka, &self.topics.group, &[&self.topics.input])
        }
    }

    /// The next movement of a variant in the ledger; not sent yet.
    pub fn moved(&mut self, location: LocationId, variant: u128, delta: i64) -> StockMoved {
        let variant_id = VariantId(Uuid::from_u128(variant));
        let last = self.ledger.iter().rfind(|m| (m.location_id, m.variant_id) == (location, variant_id));
        let (version, qty) = last.map_or((0, 0), |last| (last.version, last.qty_after));
        let event = StockMoved {
            epoch: 1,
            location_id: location,
            parent_location_id: None,
            location_seq: self.ledger.len() as i64 + 1,
            variant_id,
            version: version + 1,
            delta,
            qty_after: qty + delta,
            cause_type: "sale".into(),
            cause_id: Uuid::now_v7(),
            cause_line: 1,
            transfer_id: None,
            reason: if delta < 0 { "sale" } else { "receipt" }.into(),
            document_uri: None,
            actor: UserId::NIL,
            approval_id: None,
            effective_at: Timestamp(1_000_000),
            recorded_at: Timestamp(1_000_000 + self.ledger.len() as i64),
            business_date: Day(20_000),
            neutral: false,
            threshold: Some(5_000),
            hysteresis: 1_000,
            resync: false,
            unit_cost: None,
        };
        self.ledger.push(event.clone());
        event
    }

    /// What the worker answers to a resync request.
    pub fn resync(&mut self, location: LocationId, variant: u128) -> StockMoved {
        let event = StockMoved { resync: true, reason: "correction".into(), ..self.moved(location, variant, 0) };
        *self.ledger.last_mut().expect("just pushed") = event.clone();
        event
    }

    pub async fn send(&self, events: &[StockMoved]) {
        let id = self.codec.schema_id::<StockMoved>().await.expect("a schema id");
        let record = |event: &StockMoved| {
            OutRecord::new(self.topics.input.clone(), event.key(), codec::frame(id, &codec::encode(event)))
                .with_header("traceparent", TRACE)
        };
        self.producer.send_all(&events.iter().map(record).collect::<Vec<_>>()).await.expect("sent");
    }

    /// Writes a state record as some process would have.
    pub async fn send_state(&self, level: &StockLevel) {
        let id = self.codec.schema_id::<StockLevel>().await.expect("a schema id");
        let record = OutRecord::new(self.topics.state.clone(), level.key(), codec::frame(id, &codec::encode(level)))
            .with_partition(partition_of(level.location_id));
        self.producer.send_all(&[record]).await.expect("sent");
    }

    pub async fn read(&self, topic: &str) -> Vec<Record> {
        let all: Vec<i32> = (0..topics::PARTITIONS).collect();
        // A topic that was made just now may not have a leader yet.
        eventually("a readable topic", || async {
            let mut records = Vec::new();
            read_to_end(&self.kafka, topic, &all, |record| records.push(record)).await.ok().map(|_| records)
        })
        .await
    }

    async fn decoded<E: codec::Record>(&self, topic: &str) -> Vec<E> {
        let mut decoded = Vec::new();
        for record in self.read(topic).await {
            decoded.push(self.codec.decode(record.payload.as_deref().expect("a payload")).await.expect("decodes"));
        }
        decoded
    }

    pub async fn states(&self) -> Vec<StockLevel> {
        self.decoded(&self.topics.state).await
    }

    pub async fn alerts(&self) -> Vec<StockFellLow> {
        self.decoded(&self.topics.alerts).await
    }

    pub async fn requests(&self) -> Vec<ResyncRequested> {
        self.decoded(&self.topics.resync).await
    }

    /// The newest state of each entity in the state topic.
    pub async fn newest(&self) -> BTreeMap<Entity, StockLevel> {
        let mut newest: BTreeMap<Entity, StockLevel> = BTreeMap::new();
        for level in self.states().await {
            let held = newest.entry(Stock::state_entity(&level)).or_insert_with(|| level.clone());
            if Stock::state_position(&level) > Stock::state_position(held) {
                *held = level;
            }
        }
        newest
    }

    /// The ledger folded one by one: the states and the alert ids that have to come out.
    pub fn expected(&self) -> (BTreeMap<Entity, StockLevel>, BTreeSet<Uuid>) {
        let (mut states, mut alerts) = (BTreeMap::new(), BTreeSet::new());
        for event in &self.ledger {
            match stock::apply(states.get(&Stock::entity(event)), event) {
                Applied::Next { state, effects } => {
                    states.insert(Stock::entity(event), state);
                    alerts.extend(effects.iter().map(|Effect::StockFellLow(alert)| alert.alert_id));
                }
                other => panic!("the ledger itself is wrong: {other:?}"),
            }
        }
        (states, alerts)
    }

    /// Waits until the state topic holds what the ledger says.
    pub async fn settled(&self) {
        let (states, _) = self.expected();
        let mut newest = BTreeMap::new();
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            newest = self.newest().await;
            if newest == states {
                return;
            }
        }
        panic!("after {LIMIT:?} the state topic holds\n{newest:#?}\nand should hold\n{states:#?}");
    }

    /// Runs the real role until the guard is stopped.
    pub fn start(&self) -> Running {
        let (stop, health) = (Shutdown::new(), Health::new());
        let (kafka, registry, topics) = (self.kafka.clone(), self.registry.clone(), self.topics.clone());
        let task = tokio::spawn({
            let (stop, health) = (stop.clone(), health.clone());
            async move { processor::run::<Stock>(&kafka, &registry, topics, stop, health).await }
        });
        Running { stop, health, task }
    }
}

pub struct Running {
    stop: Shutdown,
    pub health: Health,
    pub task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.task).await.expect("stops in time").expect("no panic").expect("no failure");
    }
}

pub fn location() -> LocationId {
    LocationId(Uuid::now_v7())
}

pub fn partition_of(location: LocationId) -> i32 {
    partition_for(location.to_string().as_bytes(), topics::PARTITIONS)
}

/// Asks until the answer is yes.
pub async fn eventually<T, Fut: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> Fut) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
