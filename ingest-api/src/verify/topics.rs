//! I12 to I15: what the topics hold against the outbox, each entity's order, and the processors' newest
//! state against the ledgers.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use runtime::kafka::Record;
use schemas::codec::{Codec, DecodeError};
use schemas::events::{
    AuditHeadSigned, AuditRootSigned, Cashier, DocumentCommitted, Location, LoyaltyBalance, LoyaltyPosted,
    StockFellLow, StockLevel, StockMoved, Variant,
};
use schemas::topics::{self, Topic};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::kept::{Kept, Restores};
use super::{Report, Stores};
use crate::worker::retire::RETIRED;

/// Topics read at a time. A reading waits for brokers far more than it works.
pub(super) const SIDE_BY_SIDE: usize = 4;

/// What later checks need of the topics.
#[derive(Default)]
pub struct Dump {
    /// Alerts on the topic by their id.
    pub alerts: HashMap<Uuid, StockFellLow>,
    /// The lowest number of each location among the movements on the topic.
    pub movements_from: HashMap<Uuid, i64>,
    pub restores: Restores,
}

/// Reads each topic from its beginning to the end it has now.
pub async fn check(stores: &Stores, report: &mut Report) -> anyhow::Result<Dump> {
    let codec = Codec::new(&stores.registry.url);
    let mut dump = Dump { restores: Restores::of(&stores.pg).await?, ..Dump::default() };
    published(stores, &codec, &dump.restores, report).await?;
    order(stores, &codec, &mut dump, report).await?;
    let deadline = Instant::now() + stores.drain;
    stock_state(stores, &codec, deadline, report).await?;
    loyalty_state(stores, &codec, deadline, report).await?;
    let mut alerts = read(stores, topics::ALERTS.name, topics::PARTITIONS);
    while let Some(record) = alerts.next().await? {
        let Some(alert) = decoded::<StockFellLow>(&codec, &record).await? else { continue };
        dump.alerts.insert(alert.alert_id, alert);
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

/// When its fact was recorded, from its `ce_time` header.
fn recorded_at(record: &Record) -> Option<DateTime<Utc>> {
    record.headers.get_str("ce_time")?.parse().ok()
}

/// I12: the set of event ids on each topic is the set in the outbox, as far back as both reach. A compacted
/// topic forgets older states, so there only the newest event of each key has to be present.
async fn published(stores: &Stores, codec: &Codec, restores: &Restores, report: &mut Report) -> anyhow::Result<()> {
    let kept = Kept::at(Utc::now());
    let mut duplicates = 0u64;
    let topics = topics::FROM_OUTBOX.iter().map(|topic| published_in(stores, codec, restores, kept, topic));
    let mut topics = stream::iter(topics).buffered(SIDE_BY_SIDE);
    while let Some((topic, found, in_outbox)) = topics.try_next().await? {
        duplicates += found.duplicates;
        let compared = in_outbox.known.len() as u64;
        let differing = found.compare(topic.name, &in_outbox);
        report.add("I12", "the topic holds exactly the outbox's events", compared, differing);
    }
    report.notes.push(format!("I12 {duplicates} duplicates on the topics (harmless: consumers apply by version)"));
    Ok(())
}

/// One topic beside the outbox.
async fn published_in<'a>(
    stores: &Stores,
    codec: &Codec,
    restores: &Restores,
    kept: Kept,
    topic: &'a Topic,
) -> anyhow::Result<(&'a Topic, Published, OutboxEvents)> {
    // Before the topic is read: what is published meanwhile is on neither side's account.
    let required = outbox_events(&stores.pg, topic, kept).await?.required;
    let mut found = Published::default();
    let mut reading = read(stores, topic.name, topic.partitions);
    while let Some(record) = reading.next().await? {
        let Some(id) = event_id(&record) else {
            found.without_id += 1;
            continue;
        };
        let was_dropped = recorded_at(&record).is_some_and(|at| at < kept.outbox);
        let needs_none = was_dropped || is_given_up(codec, restores, topic, &record).await?;
        found.duplicates += u64::from(found.needs_none.insert(id, needs_none).is_some());
    }
    let known = outbox_events(&stores.pg, topic, kept).await?.known;
    Ok((topic, found, OutboxEvents { known, required }))
}

/// What a topic holds.
#[derive(Default)]
struct Published {
    /// Event ids, each with whether it needs no outbox row (any more).
    needs_none: HashMap<Uuid, bool>,
    without_id: u64,
    duplicates: u64,
}

impl Published {
    fn compare(&self, topic: &str, outbox: &OutboxEvents) -> Vec<String> {
        let mut differing = Vec::new();
        if self.without_id > 0 {
            differing.push(format!("{topic}: {} records without an event id", self.without_id));
        }
        for (id, cause) in outbox.required.iter().filter(|(id, _)| !self.needs_none.contains_key(*id)) {
            differing.push(format!("{topic}: event {id} of {cause} was never published"));
        }
        for (id, _) in self.needs_none.iter().filter(|(id, needs_none)| !**needs_none && !outbox.known.contains(*id)) {
            differing.push(format!("{topic}: event {id} is on the topic and not in the outbox"));
        }
        differing
    }
}

/// Whether a restore gave up what the record is about.
async fn is_given_up(codec: &Codec, restores: &Restores, topic: &Topic, record: &Record) -> anyhow::Result<bool> {
    if restores.is_empty() {
        return Ok(false);
    }
    Ok(match topic.name {
        name if name == topics::SALES.name => {
            let event = decoded::<DocumentCommitted>(codec, record).await?;
            event.is_some_and(|it| restores.gave_up(it.location_id.0, it.epoch, it.location_seq))
        }
        name if name == topics::MOVEMENTS.name => {
            let event = decoded::<StockMoved>(codec, record).await?;
            let shop = |it: &StockMoved| it.parent_location_id.unwrap_or(it.location_id).0;
            event.is_some_and(|it| restores.gave_up(shop(&it), it.epoch, it.location_seq))
        }
        name if name == topics::LOYALTY_ENTRIES.name => {
            let event = decoded::<LoyaltyPosted>(codec, record).await?;
            event.is_some_and(|it| restores.gave_up(it.location_id.unwrap_or_default().0, it.epoch, it.location_seq))
        }
        name if name == topics::VARIANTS.name => {
            decoded::<Variant>(codec, record).await?.is_some_and(|it| restores.superseded(it.epoch))
        }
        name if name == topics::LOCATIONS.name => {
            decoded::<Location>(codec, record).await?.is_some_and(|it| restores.superseded(it.epoch))
        }
        name if name == topics::AUDIT_HEADS.name => {
            decoded::<AuditHeadSigned>(codec, record).await?.is_some_and(|it| restores.superseded(it.epoch))
        }
        name if name == topics::AUDIT_ROOTS.name => {
            decoded::<AuditRootSigned>(codec, record).await?.is_some_and(|it| restores.superseded(it.epoch))
        }
        _ => decoded::<Cashier>(codec, record).await?.is_some_and(|it| restores.superseded(it.epoch)),
    })
}

struct OutboxEvents {
    known: HashSet<Uuid>,
    required: HashMap<Uuid, String>,
}

async fn outbox_events(pg: &PgPool, topic: &Topic, kept: Kept) -> anyhow::Result<OutboxEvents> {
    let mut events = OutboxEvents { known: HashSet::new(), required: HashMap::new() };
    let mut newest: HashMap<String, (Uuid, String)> = HashMap::new();
    let is_state = topic.retention == topics::Retention::State;
    let mut rows = sqlx::query(
        "select r.event_id, r.key, o.cause_type || ' ' || o.cause_id, o.created_at
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
        } else if row.get::<DateTime<Utc>, _>(3) >= kept.topics {
            events.required.insert(id, cause);
        }
    }
    drop(rows);
    events.required.extend(newest.into_values());
    Ok(events)
}

/// I13: within an entity the first occurrence of each version follows the one before it; a key stays in one partition.
async fn order(stores: &Stores, codec: &Codec, dump: &mut Dump, report: &mut Report) -> anyhow::Result<()> {
    let mut entities = Order::default();
    let mut reading = read(stores, topics::MOVEMENTS.name, topics::PARTITIONS);
    while let Some(record) = reading.next().await? {
        entities.key(&record);
        let Some(event) = decoded::<StockMoved>(codec, &record).await? else { continue };
        let from = dump.movements_from.entry(event.location_id.0).or_insert(event.location_seq);
        *from = (*from).min(event.location_seq);
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
                // A later epoch opens with a resync, or with version 1 of what the restored ledger never had.
                let next = if epoch == newest.0 { newest.1 + 1 } else { 1 };
                if version != next && !resync {
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
        state.retain(|_, (_, version, _)| *version != RETIRED);
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
        state.retain(|_, (_, version, _)| *version != RETIRED);
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
    use super::*;

    #[test]
    fn a_skipped_version_is_named_a_duplicate_is_not() {
        let mut order = Order::default();
        for (version, resync) in [(1, false), (2, false), (1, false), (2, false), (4, false), (7, true)] {
            order.see("stock a:b".to_owned(), 1, version, resync);
        }
        assert_eq!(order.differing, ["stock a:b: version 4 follows 2"]);
    }

    #[test]
    fn a_later_epoch_opens_with_a_resync_or_with_something_new() {
        let mut order = Order::default();
        for (entity, epoch, version, resync) in
            [("a", 1, 4, false), ("a", 2, 3, true), ("a", 2, 4, false), ("b", 1, 2, true), ("b", 2, 1, false)]
        {
            order.see(entity.to_owned(), epoch, version, resync);
        }
        assert!(order.differing.is_empty(), "{:?}", order.differing);
        order.see("b".to_owned(), 3, 2, false);
        assert_eq!(order.differing, ["b: version 2 follows 1"]);
    }

    #[test]
    fn only_what_both_still_keep_has_to_be_on_both_sides() {
        let id = Uuid::from_u128;
        let needs_none = HashMap::from([(id(1), false), (id(2), true), (id(3), false)]);
        let found = Published { needs_none, ..Published::default() };
        let outbox = OutboxEvents {
            known: HashSet::from([id(1), id(4), id(5)]),
            required: HashMap::from([(id(1), "sale a".to_owned()), (id(4), "sale b".to_owned())]),
        };
        let mut named = found.compare("t", &outbox);
        named.sort();
        let wanted = [
            format!("t: event {} is on the topic and not in the outbox", id(3)),
            format!("t: event {} of sale b was never published", id(4)),
        ];
        assert_eq!(named, wanted, "2 lost its outbox row with its day, 5 its record");
    }
}
