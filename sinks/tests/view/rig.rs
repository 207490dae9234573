//! Topics and a Redis database of its own for every test.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;
use runtime::config;
use runtime::kafka::{Keep, OutRecord, Producer, TopicSpec, ensure_topics, read_to_end};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use schemas::codec::{self, Codec, Record as _};
use schemas::events::{LoyaltyBalance, StockLevel};
use schemas::ids::{AccountId, CustomerId, LocationId, ProgramId, VariantId};
use schemas::time::Timestamp;
use schemas::topics;
use sinks::view::entry;
use sinks::view::{self, Topics, View};
use tokio::sync::{OnceCell, mpsc};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::proxy::Proxy;

/// Of every wait. Far beyond what anything here takes: it only ends a test that would never end.
const LIMIT: Duration = Duration::from_secs(120);

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
    pub redis: ConnectionManager,
    pub proxy: Proxy,
    codec: Codec,
    /// Straight to Redis, and through the cable.
    direct: String,
    proxied: String,
    location: LocationId,
}

impl Rig {
    /// `database` is this test's own; it is emptied.
    pub async fn new(database: u8) -> Self {
        codec::init();
        let kafka = config::Kafka::at(variable("VORCA__KAFKA__BROKERS"));
        let registry = config::Registry { url: variable("VORCA__REGISTRY__URL") };
        let url = variable("VORCA__REDIS__URL");
        let (head, rest) = url.split_once("://").expect("a URL");
        let (login, host) = rest.rsplit_once('@').map_or((String::new(), rest), |(l, h)| (format!("{l}@"), h));
        let host = host.split('/').next().expect("a host").to_owned();
        let proxy = Proxy::to(host.clone()).await;
        let direct = format!("{head}://{login}{host}/{database}");
        let proxied = format!("{head}://{login}{}/{database}", proxy.address);
        let own = |topic: &str| format!("test.{}.{topic}", Uuid::now_v7().simple());
        let topics = Topics { group: own("group"), stock: own("stock"), balances: own("balances") };
        register(&registry.url).await;
        let spec = |name: &str, keep| TopicSpec { name: name.to_owned(), partitions: topics::PARTITIONS, keep };
        let dead = |topic: &str| spec(&topics::dead_letter(topic, &topics.group), Keep::DeadLetters);
        let specs = [
            spec(&topics.stock, Keep::State),
            spec(&topics.balances, Keep::State),
            dead(&topics.stock),
            dead(&topics.balances),
        ];
        // A broker with much to do may answer too late at first.
        eventually("topics", || async { ensure_topics(&kafka, &specs).await.ok() }).await;
        let rig = Self {
            producer: Producer::new(&kafka).expect("a producer"),
            redis: runtime::redis::connect(&config::Redis { url: direct.clone().into() }).expect("a client"),
            codec: Codec::new(&registry.url),
            location: LocationId(Uuid::now_v7()),
            kafka,
            registry,
            topics,
            proxy,
            direct,
            proxied,
        };
        rig.flush().await;
        rig
    }

    /// A level of another variant at the rig's location.
    pub fn level(&mut self, version: i64, qty: i64) -> StockLevel {
        StockLevel {
            epoch: 1,
            location_id: self.location,
            variant_id: VariantId(Uuid::now_v7()),
            version,
            location_seq: version,
            qty,
            threshold: Some(2_000),
            hysteresis: 1_000,
            is_fired: false,
            daily_sales: Vec::new(),
            updated_at: Timestamp(1),
        }
    }

    pub fn balance(&self, version: i64, points: i64) -> LoyaltyBalance {
        LoyaltyBalance {
            epoch: 1,
            account_id: AccountId(Uuid::now_v7()),
            customer_id: CustomerId(Uuid::now_v7()),
            program_id: ProgramId(Uuid::now_v7()),
            version,
            points,
            updated_at: Timestamp(1),
        }
    }

    pub async fn send_stock(&self, levels: &[StockLevel]) {
        let id = self.codec.schema_id::<StockLevel>().await.expect("a schema id");
        let record = |level: &StockLevel| {
            let topic = self.topics.stock.clone();
            OutRecord::new(topic, level.key(), codec::frame(id, &codec::encode(level))).with_partition(3)
        };
        self.producer.send_all(&levels.iter().map(record).collect::<Vec<_>>()).await.expect("sent");
    }

    pub async fn send_balance(&self, balance: &LoyaltyBalance) {
        let id = self.codec.schema_id::<LoyaltyBalance>().await.expect("a schema id");
        let topic = self.topics.balances.clone();
        let record = OutRecord::new(topic, balance.key(), codec::frame(id, &codec::encode(balance)));
        self.producer.send_all(&[record]).await.expect("sent");
    }

    pub async fn dead_letters(&self) -> u64 {
        let topic = topics::dead_letter(&self.topics.stock, &self.topics.group);
        let all: Vec<i32> = (0..topics::PARTITIONS).collect();
        let read = || async { read_to_end(&self.kafka, &topic, &all, |_| {}).await.ok() };
        eventually("a readable topic", read).await.records
    }

    pub async fn hash(&self, key: &str) -> HashMap<String, String> {
        eventually("an answer of Redis", || async { self.redis.clone().hgetall(key).await.ok() }).await
    }

    pub async fn get(&self, key: &str) -> Option<String> {
        eventually("an answer of Redis", || async { self.redis.clone().get(key).await.ok() }).await
    }

    pub async fn flush(&self) {
        let flush = || async { redis::cmd("FLUSHDB").exec_async(&mut self.redis.clone()).await.ok() };
        eventually("an empty database", flush).await;
    }

    /// Waits until Redis holds exactly this level.
    pub async fn holds(&self, level: &StockLevel) {
        let wanted: HashMap<String, String> =
            entry::stock(level).fields.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        let key = entry::stock_key(level.location_id, level.variant_id);
        eventually(&format!("{key} is {wanted:?}"), || async { (self.hash(&key).await == wanted).then_some(()) }).await;
    }

    /// Sets entity and offsets back, both at once, as an older copy of the data would.
    pub async fn restore(&self, level: &StockLevel, offsets: &HashMap<String, String>) {
        let fields: Vec<_> = entry::stock(level).fields;
        let offsets: Vec<_> = offsets.iter().collect();
        redis::pipe()
            .atomic()
            .hset_multiple(entry::stock_key(level.location_id, level.variant_id), &fields)
            .hset_multiple(entry::OFFSETS_KEY, &offsets)
            .exec_async(&mut self.redis.clone())
            .await
            .expect("Redis answers");
    }

    /// Messages of a channel, from now on.
    pub async fn listen(&self, channel: &str) -> mpsc::UnboundedReceiver<String> {
        let (send, heard) = mpsc::unbounded_channel();
        let (ready_send, ready) = tokio::sync::oneshot::channel();
        let (url, channel) = (self.direct.clone(), channel.to_owned());
        std::thread::spawn(move || {
            let mut connection = redis::Client::open(url).expect("a client").get_connection().expect("a connection");
            let mut subscription = connection.as_pubsub();
            subscription.subscribe(channel).expect("subscribed");
            ready_send.send(()).expect("the test waits");
            while let Ok(message) = subscription.get_message() {
                if send.send(message.get_payload().expect("text")).is_err() {
                    return;
                }
            }
        });
        ready.await.expect("subscribed");
        heard
    }

    /// Runs the real role, through the cable, until the guard is stopped.
    pub fn start(&self) -> Running {
        let (stop, health) = (Shutdown::new(), Health::new());
        health.started();
        let redis = config::Redis { url: self.proxied.clone().into() };
        let redis = runtime::redis::connect(&redis).expect("a client");
        let view = View::new(&self.kafka, &self.registry, redis, self.topics.clone());
        let task = tokio::spawn(view::run(view, stop.clone(), health.clone()));
        Running { stop, health, task }
    }
}

/// The level at another version.
pub fn at(level: &StockLevel, epoch: i64, version: i64, qty: i64) -> StockLevel {
    StockLevel { epoch, version, qty, ..level.clone() }
}

pub struct Running {
    stop: Shutdown,
    pub health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.task).await.expect("stops in time").expect("no panic").expect("no failure");
    }
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
