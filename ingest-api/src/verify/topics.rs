//! I12 to I15: what the topics hold against the outbox, each entity's order, and the processors' newest
//! state against the ledgers.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::TryStreamExt;
use runtime::kafka::Record;
use schemas::codec::{Codec, DecodeError};
use schemas::events::{LoyaltyBalance, LoyaltyPosted, StockFellLow, StockLevel, StockMoved};
use schemas::topics::{self, Topic};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::{Report, Stores};

/// What later checks need of the topics.
#[derive(Default)]
pub struct Dump {
    /// Alerts on the topic: id to the stock level it is about.
    pub alerts: HashMap<Uuid, String>,
}

/// Topics whose every record comes from the outbox.
const FROM_OUTBOX: &[Topic] =
    &[topics::SALES, topics::MOVEMENTS, topics::LOYALTY_ENTRIES, topics::VARIANTS, topics::LOCATIONS, topics::CASHIERS];

/// Reads each topic from its beginning to the end it has now.
pub async fn check(stores: &Stores, report: &mut Report) -> anyhow::Result<Dump> {
    let codec = Codec::new(&stores.registry.url);
    published(stores, report).await?;
    order(stores, &codec, report).await?;
    let deadline = Instant::now() + stores.drain;
    stock_state(stores, &codec, deadline, report).await?;
    loyalty_state(stores, &codec, deadline, report).await?;
    let mut dump = Dump::default();
    let mut alerts = read(stores, topics::ALERTS.name, topics::PARTITIONS);
    while let Some(record) = alerts.next().await? {
        let Some(alert) = decoded::<StockFellLow>(&codec, &record).await? else { continue };
        dump.alerts.insert(alert.alert_id, format!("{}:{}", alert.location_id, alert.variant_id));
    }
    Ok(dump)
}

/// Every record of a topic up to the end it has now, a few at a time, so that memory stays flat.
pub(super) struct Reading {
    records: tokio::sync::mpsc::Receiver<Record>,
    reader: tokio::task::JoinHandle<anyhow::Result<()>>,
    topic: String,
}

pub(super) fn read(stores: &Stores, topic: &str, partitions: i32) -> Reading {
    let (sender, records) = tokio::sync::mpsc::channel(1_000);
    let (kafka, name) = (stores.kafka.clone(), topic.to_owned());
    let partitions: Vec<i32> = (0..partitions).collect();
    let reader = tokio::spawn(async move {
        let read = runtime::kafka::read_to_end(&kafka, &name, &partitions, |record| {
            // A closed channel: the check gave up, and says why itself.
            tokio::task::block_in_place(|| sender.blocking_send(record)).ok();
        });
        read.await.map(|_| ())
    });
    Reading { records, reader, topic: topic.to_owned() }
}

impl Reading {
    /// The next record, or none at the end of the topic.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Record>> {
        if let Some(record) = self.records.recv().await {
            return Ok(Some(record));
        }
        (&mut self.reader).await?.with_context(|| format!("reading {}", self.topic))?;
        Ok(None)
    }
}

/// The event of a record; nothing when it is a tombstone or cannot be read, which is I26's affair.
pub(super) async fn decoded<E: schemas::codec::Record>(codec: &Codec, record: &Record) -> anyhow::Result<Option<E>> {
    let Some(payload) = &record.payload else { return Ok(None) };
    match codec.decode(payload).await {
        Ok(event) => Ok(Some(event)),
        Err(DecodeError::Malformed(_)) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("a record of {}", record.topic)),
    }
}

/// Event id of a record, from its `ce_id` header.
fn event_id(record: &Record) -> Option<Uuid> {
    record.headers.get_str("ce_id")?.parse().ok()
}

/// I12: the set of event ids on each topic is the set in the outbox, as far back as both reach. A compacted
/// topic forgets older states, so there only the newest event of each key has to be present.
async fn published(stores: &Stores, report: &mut Report) -> anyhow::Result<()> {
    let mut duplicates = 0u64;
    for topic in FROM_OUTBOX {
        let (mut on_topic, mut without_id) = (HashSet::new(), 0u64);
        let mut reading = read(stores, topic.name, topic.partitions);
        while let Some(record) = reading.next().await? {
            match event_id(&record) {
                Some(id) if !on_topic.insert(id) => duplicates += 1,
                Some(_) => {}
                None => without_id += 1,
            }
        }
        let in_outbox = outbox_events(&stores.pg, topic).await?;
        let mut differing = Vec::new();
        if without_id > 0 {
            differing.push(format!("{}: {without_id} records without an event id", topic.name));
        }
        for (id, cause) in &in_outbox.required {
            if !on_topic.contains(id) {
                differing.push(format!("{}: event {id} of {cause} was never published", topic.name));
            }
        }
        for id in on_topic.iter().filter(|id| !in_outbox.known.contains(*id)) {
            differing.push(format!("{}: event {id} is on the topic and not in the outbox", topic.name));
        }
        report.add("I12", "the topic holds exactly the outbox's events", in_outbox.known.len() as u64, differing);
    }
    report.notes.push(format!("I12 {duplicates} duplicates on the topics (harmless: consumers apply by version)"));
    Ok(())
}

struct OutboxEvents {
    known: HashSet<Uuid>,
    required: HashMap<Uuid, String>,
}

async fn outbox_events(pg: &PgPool, topic: &Topic) -> anyhow::Result<OutboxEvents> {
    let mut events = OutboxEvents { known: HashSet::new(), required: HashMap::new() };
    let mut newest: HashMap<String, (Uuid, String)> = HashMap::new();
    let is_state = topic.retention == topics::Retention::State;
    let mut rows = sqlx::query(
        "select r.event_id, r.key, o.cause_type || ' ' || o.cause_id
           from outbox o, unnest(o.topics, o.keys, o.event_ids) r(topic, key, event_id)
          where r.topic = $1 and o.seq <= (select published_seq from stream_progress p where p.stream_id = o.stream_id)
          order by o.id",
    )
    .bind(topic.name)
    .fetch(pg);
    while let Some(row) = rows.try_next().await? {
        let (id, key, cause): (Uuid, String, String) = (row.get(0), row.get(1), row.get(2));
        events.known.insert(id);
        if is_state {
            newest.insert(key, (id, cause));
        } else {
            events.required.insert(id, cause);
        }
    }
    drop(rows);
    events.required.extend(newest.into_values());
    Ok(events)
}

/// I13: within an entity the first occurrence of each version follows the one before it; a key stays in one partition.
async fn order(stores: &Stores, codec: &Codec, report: &mut Report) -> anyhow::Result<()> {
    let mut entities = Order::default();
    let mut reading = read(stores, topics::MOVEMENTS.name, topics::PARTITIONS);
    while let Some(record) = reading.next().await? {
        entities.key(&record);
        let Some(event) = decoded::<StockMoved>(codec, &record).await? else { continue };
        entities.see(
            format!("stock {}:{}", event.location_id, event.variant_id),
            event.epoch,
            event.version,
            event.resync,
        );
    }
    report.add(
        "I13",
        "each stock level's movements are in order, each location in one partition",
        entities.seen,
        entities.differing,
    );
    let mut entities = Order::default();
    let mut reading = read(stores, topics::LOYALTY_ENTRIES.name, topics::PARTITIONS);
    while let Some(record) = reading.next().await? {
        entities.key(&record);
        let Some(event) = decoded::<LoyaltyPosted>(codec, &record).await? else { continue };
        entities.see(format!("account {}", event.account_id), event.epoch, event.version, event.resync);
    }
    report.add(
        "I13",
        "each account's entries are in order, each customer in one partition",
        entities.seen,
        entities.differing,
    );
    Ok(())
}

#[derive(Default)]
struct Order {
    seen: u64,
    newest: HashMap<String, (i64, i64)>,
    partitions: HashMap<Vec<u8>, i32>,
    differing: Vec<String>,
}

impl Order {
    fn key(&mut self, record: &Record) {
        let key = record.key.as_deref().unwrap_or_default();
        let first = *self.partitions.entry(key.to_vec()).or_insert(record.partition);
        if first != record.partition {
            let key = String::from_utf8_lossy(key);
            self.differing.push(format!("key {key} is in partitions {first} and {}", record.partition));
        }
    }

    fn see(&mut self, entity: String, epoch: i64, version: i64, resync: bool) {
        self.seen += 1;
        match self.newest.get_mut(&entity) {
            None => {
                self.newest.insert(entity, (epoch, version));
            }
            Some(newest) if (epoch, version) <= *newest => {}
            Some(newest) => {
                if version != newest.1 + 1 && !resync {
                    self.differing.push(format!("{entity}: version {version} follows {}", newest.1));
                }
                *newest = (epoch, version);
            }
        }
    }
}

/// I14: the highest version per stock level in the state topic is the ledger's row.
async fn stock_state(stores: &Stores, codec: &Codec, deadline: Instant, report: &mut Report) -> anyhow::Result<()> {
    loop {
        let mut state: HashMap<(Uuid, Uuid), (i64, i64, i64)> = HashMap::new();
        let mut reading = read(stores, topics::STOCK.name, topics::PARTITIONS);
        while let Some(record) = reading.next().await? {
            let Some(level) = decoded::<StockLevel>(codec, &record).await? else { continue };
            let newest = state.entry((level.location_id.0, level.variant_id.0)).or_default();
            *newest = (*newest).max((level.epoch, level.version, level.qty));
        }
        let rows = sqlx::query("select location_id, variant_id, version, qty from stock_levels where version > 0");
        let rows = rows.fetch_all(&stores.pg).await?;
        let mut differing = Vec::new();
        for row in &rows {
            let (key, version, qty) =
                ((row.get::<Uuid, _>(0), row.get::<Uuid, _>(1)), row.get::<i64, _>(2), row.get::<i64, _>(3));
            match state.remove(&key) {
                Some((_, v, q)) if (v, q) == (version, qty) => {}
                other => differing.push(format!(
                    "stock {}:{}: ledger v{version} qty {qty}, state {}",
                    key.0,
                    key.1,
                    other.map_or("absent".to_owned(), |(_, v, q)| format!("v{v} qty {q}"))
                )),
            }
        }
        differing.extend(state.keys().map(|(l, v)| format!("stock {l}:{v} is in the state topic only")));
        if differing.is_empty() || Instant::now() >= deadline {
            report.add("I14", "the stock processor's state = stock levels", rows.len() as u64, differing);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// I15: the same for loyalty accounts.
async fn loyalty_state(stores: &Stores, codec: &Codec, deadline: Instant, report: &mut Report) -> anyhow::Result<()> {
    loop {
        let mut state: HashMap<Uuid, (i64, i64, i64)> = HashMap::new();
        let mut reading = read(stores, topics::BALANCES.name, topics::PARTITIONS);
        while let Some(record) = reading.next().await? {
            let Some(balance) = decoded::<LoyaltyBalance>(codec, &record).await? else { continue };
            let newest = state.entry(balance.account_id.0).or_default();
            *newest = (*newest).max((balance.epoch, balance.version, balance.points));
        }
        let rows = sqlx::query("select account_id, version, points from loyalty_accounts where version > 0");
        let rows = rows.fetch_all(&stores.pg).await?;
        let mut differing = Vec::new();
        for row in &rows {
            let (account, version, points): (Uuid, i64, i64) = (row.get(0), row.get(1), row.get(2));
            match state.remove(&account) {
                Some((_, v, p)) if (v, p) == (version, points) => {}
                other => differing.push(format!(
                    "account {account}: ledger v{version} {points} points, state {}",
                    other.map_or("absent".to_owned(), |(_, v, p)| format!("v{v} {p} points"))
                )),
            }
        }
        differing.extend(state.keys().map(|account| format!("account {account} is in the state topic only")));
        if differing.is_empty() || Instant::now() >= deadline {
            report.add("I15", "the loyalty processor's state = accounts", rows.len() as u64, differing);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn a_skipped_version_is_named_a_duplicate_is_not() {
        let mut order = Order::default();
        for (version, resync) in [(1, false), (2, false), (1, false), (2, false), (4, false), (7, true)] {
            order.see("stock a:b".to_owned(), 1, version, resync);
        }
        assert_eq!(order.differing, ["stock a:b: version 4 follows 2"]);
    }
}
