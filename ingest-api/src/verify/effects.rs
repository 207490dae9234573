//! For I26: what a record has to leave behind in its reader's store, and what the stores hold.

use std::collections::HashMap;
use std::fmt;

use anyhow::Context;
use schemas::codec::{Codec, DecodeError};
use schemas::events::{
    AuditHeadSigned, AuditRootSigned, Cashier, DocumentCommitted, Location, LoyaltyBalance, LoyaltyPosted,
    ResyncRequested, StockFellLow, StockLevel, StockMoved, Variant,
};
use schemas::ids::LocationId;
use schemas::topics::groups::{self, Group};
use schemas::topics::{self, Topic};
use sinks::withdraw::{Cut, Cuts};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::Stores;
use super::clickhouse::ClickHouse;
use super::topics::{decoded, read};

/// An entity of a store: both parts of its identity (the second nil where there is one), and its version where
/// the store keeps each version by itself.
type Key = (Uuid, Uuid, i64);
/// Epoch and version.
type Position = (i64, i64);

/// What a record has to leave behind: its entity, at this position or a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Effect {
    pub key: Key,
    pub at: Position,
    /// Location and `location_seq` of the act, for readers that give lost time lines up.
    pub act: Option<(Uuid, i64)>,
}

impl Effect {
    /// Whether its act belongs to a time line that a restore gave up.
    pub fn is_withdrawn(&self, cuts: &Cuts) -> bool {
        self.act.is_some_and(|(location, seq)| cuts.lost(LocationId(location), self.at.0, seq))
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Effect { key: (first, second, _), at: (_, version), .. } = self;
        if second.is_nil() {
            return write!(f, "{first} version {version}");
        }
        write!(f, "{first}:{second} version {version}")
    }
}

/// Whether the group rejects a record without a body.
pub fn wants_payload(group: &Group) -> bool {
    ![groups::CLICKHOUSE_SINK.name, groups::VIEW_SINK.name].contains(&group.name)
}

/// What a record has to leave behind in the store of a group that reads it.
pub async fn wanted(codec: &Codec, group: &Group, topic: &Topic, payload: &[u8]) -> Result<Effect, DecodeError> {
    let is_sink = group.name == groups::CLICKHOUSE_SINK.name;
    let one = |id: Uuid, at: Position| Effect { key: (id, Uuid::nil(), 0), at, act: None };
    Ok(match topic.name {
        name if name == topics::SALES.name => {
            let e: DocumentCommitted = codec.decode(payload).await?;
            Effect { act: Some((e.location_id.0, e.location_seq)), ..one(e.document_id.0, (e.epoch, 0)) }
        }
        name if name == topics::MOVEMENTS.name => {
            let e: StockMoved = codec.decode(payload).await?;
            let key = (e.location_id.0, e.variant_id.0, if is_sink { e.version } else { 0 });
            // An act is of the location that a system location belongs to.
            let shop = e.parent_location_id.unwrap_or(e.location_id);
            Effect { key, at: (e.epoch, e.version), act: Some((shop.0, e.location_seq)) }
        }
        name if name == topics::LOYALTY_ENTRIES.name => {
            let e: LoyaltyPosted = codec.decode(payload).await?;
            let by_account = (e.account_id.0, Uuid::nil(), e.version);
            let key = if is_sink { by_account } else { (e.customer_id.0, e.program_id.0, 0) };
            let location = e.location_id.unwrap_or_default();
            Effect { key, at: (e.epoch, e.version), act: Some((location.0, e.location_seq)) }
        }
        name if name == topics::ALERTS.name => {
            let e: StockFellLow = codec.decode(payload).await?;
            Effect { act: Some((e.location_id.0, e.location_seq)), ..one(e.alert_id, (e.epoch, 0)) }
        }
        name if name == topics::VARIANTS.name => {
            let e: Variant = codec.decode(payload).await?;
            one(e.variant_id.0, (e.epoch, e.version))
        }
        name if name == topics::LOCATIONS.name => {
            let e: Location = codec.decode(payload).await?;
            one(e.location_id.0, (e.epoch, e.version))
        }
        name if name == topics::CASHIERS.name => {
            let e: Cashier = codec.decode(payload).await?;
            one(e.cashier_id.0, (e.epoch, e.version))
        }
        name if name == topics::AUDIT_HEADS.name => {
            let e: AuditHeadSigned = codec.decode(payload).await?;
            Effect { key: (e.chain_id, Uuid::nil(), e.seq), at: (e.epoch, 0), act: None }
        }
        name if name == topics::AUDIT_ROOTS.name => {
            let e: AuditRootSigned = codec.decode(payload).await?;
            let root = i64::from(e.business_date.0) * 1_000_000 + i64::from(e.root_no);
            Effect { key: (e.location_id.0, Uuid::nil(), root), at: (e.epoch, 0), act: None }
        }
        name if name == topics::STOCK.name => {
            let e: StockLevel = codec.decode(payload).await?;
            Effect { key: (e.location_id.0, e.variant_id.0, 0), at: (e.epoch, e.version), act: None }
        }
        name if name == topics::BALANCES.name => {
            let e: LoyaltyBalance = codec.decode(payload).await?;
            Effect { key: (e.customer_id.0, e.program_id.0, 0), at: (e.epoch, e.version), act: None }
        }
        name if name == topics::RESYNC.name => {
            let e: ResyncRequested = codec.decode(payload).await?;
            let (first, second) = e.entity.split_once(':').unwrap_or((&e.entity, ""));
            let id = |text: &str| text.parse::<Uuid>().unwrap_or_default();
            // A resync above what the reader saw answers it.
            Effect { key: (id(first), id(second), 0), at: (e.seen_epoch, e.seen_version + 1), act: None }
        }
        other => return Err(DecodeError::Malformed(format!("no reader of {other} is known"))),
    })
}

/// What the store of a group holds: each entity at its newest position.
pub struct Effects {
    held: HashMap<Key, Position>,
    /// An entity that the store never had asks for nothing.
    may_be_absent: bool,
}

impl Effects {
    pub fn new(held: HashMap<Key, Position>) -> Self {
        Effects { held, may_be_absent: false }
    }

    /// Reads the store of `group` as far as `topic` goes into it.
    pub async fn of(
        stores: &Stores,
        clickhouse: &ClickHouse,
        codec: &Codec,
        group: &Group,
        topic: &Topic,
    ) -> anyhow::Result<Effects> {
        Ok(match group.name {
            name if name == groups::STOCK_PROCESSOR.name => Effects::new(stock_states(stores, codec).await?),
            name if name == groups::LOYALTY_PROCESSOR.name => Effects::new(balances(stores, codec).await?),
            name if name == groups::CLICKHOUSE_SINK.name => Effects::new(raw(clickhouse, topic).await?),
            name if name == groups::VIEW_SINK.name => Effects::new(view(stores, topic).await?),
            _ => Effects { held: resyncs(&stores.pg).await?, may_be_absent: true },
        })
    }

    pub fn holds(&self, effect: &Effect) -> bool {
        self.held.get(&effect.key).map_or(self.may_be_absent, |held| *held >= effect.at)
    }

    /// Where the store stands, for a report.
    pub fn newest(&self, effect: &Effect) -> String {
        match self.held.get(&effect.key) {
            Some((epoch, version)) => format!("version {version} of epoch {epoch}"),
            None => "nothing of it".to_owned(),
        }
    }
}

fn raise(held: &mut HashMap<Key, Position>, key: Key, at: Position) {
    let newest = held.entry(key).or_insert(at);
    *newest = (*newest).max(at);
}

async fn stock_states(stores: &Stores, codec: &Codec) -> anyhow::Result<HashMap<Key, Position>> {
    let mut held = HashMap::new();
    let mut reading = read(stores, topics::STOCK.name, topics::STOCK.partitions);
    while let Some(record) = reading.next().await? {
        let Some(level) = decoded::<StockLevel>(codec, &record).await? else { continue };
        raise(&mut held, (level.location_id.0, level.variant_id.0, 0), (level.epoch, level.version));
    }
    Ok(held)
}

async fn balances(stores: &Stores, codec: &Codec) -> anyhow::Result<HashMap<Key, Position>> {
    let mut held = HashMap::new();
    let mut reading = read(stores, topics::BALANCES.name, topics::BALANCES.partitions);
    while let Some(record) = reading.next().await? {
        let Some(balance) = decoded::<LoyaltyBalance>(codec, &record).await? else { continue };
        raise(&mut held, (balance.customer_id.0, balance.program_id.0, 0), (balance.epoch, balance.version));
    }
    Ok(held)
}

/// Identities in raw, withdrawn ones too: that their rows equal Postgres is I17.
async fn raw(clickhouse: &ClickHouse, topic: &Topic) -> anyhow::Result<HashMap<Key, Position>> {
    let nil = "toUUID('00000000-0000-0000-0000-000000000000')";
    let (table, first, second, version, at) = match topic.name {
        name if name == topics::SALES.name => ("documents", "document_id", nil, "0", "0"),
        name if name == topics::MOVEMENTS.name => {
            ("movements", "location_id", "variant_id", "entity_version", "entity_version")
        }
        name if name == topics::LOYALTY_ENTRIES.name => {
            ("loyalty_entries", "account_id", nil, "entity_version", "entity_version")
        }
        name if name == topics::ALERTS.name => ("alerts", "alert_id", nil, "0", "0"),
        name if name == topics::VARIANTS.name => {
            ("dim_variants", "variant_id", nil, "0", "bitAnd(version, 1099511627775)")
        }
        name if name == topics::LOCATIONS.name => {
            ("dim_locations", "location_id", nil, "0", "bitAnd(version, 1099511627775)")
        }
        name if name == topics::AUDIT_HEADS.name => ("audit_heads", "chain_id", nil, "seq", "0"),
        name if name == topics::AUDIT_ROOTS.name => {
            ("audit_roots", "location_id", nil, "toInt64(toInt32(business_date)) * 1000000 + root_no", "0")
        }
        _ => ("dim_cashiers", "cashier_id", nil, "0", "bitAnd(version, 1099511627775)"),
    };
    let sql = format!(
        "select toString(a), toString(b), v, tupleElement(newest, 1), tupleElement(newest, 2)
           from (select {first} as a, {second} as b, toInt64({version}) as v, max((toInt64(epoch), toInt64({at}))) as newest
                   from vorca_raw.{table} group by a, b, v)"
    );
    let mut held = HashMap::new();
    for line in clickhouse.text(&sql).await?.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [a, b, v, epoch, at] = fields.as_slice() else { anyhow::bail!("an answer of five columns: {line}") };
        held.insert((a.parse()?, b.parse()?, v.parse()?), (epoch.parse()?, at.parse()?));
    }
    Ok(held)
}

/// Acts that restores gave up, as the sink knows them.
pub async fn cuts(clickhouse: &ClickHouse) -> anyhow::Result<Cuts> {
    let text = clickhouse.text("select epoch, toString(location_id), kept_seq from vorca_raw.epoch_cuts final").await?;
    let cut = |line: &str| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().context("an answer of three columns");
        Ok(Cut { epoch: field()?.parse()?, location_id: field()?.parse()?, kept_seq: field()?.parse()? })
    };
    Ok(Cuts::new(text.lines().map(cut).collect::<anyhow::Result<Vec<_>>>()?))
}

/// Entities of the serving view. Keys are walked, so that Redis is never stopped for long.
async fn view(stores: &Stores, topic: &Topic) -> anyhow::Result<HashMap<Key, Position>> {
    let prefix = if topic.name == topics::STOCK.name { "vorca:stock:" } else { "vorca:loyalty:" };
    let mut redis = runtime::redis::connect(&stores.redis).context("the Redis URL")?;
    let (mut held, mut cursor) = (HashMap::new(), 0u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1_000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut redis).await.context("walking the view")?;
        let mut pipe = redis::pipe();
        for key in &keys {
            pipe.cmd("HMGET").arg(key).arg("epoch").arg("version");
        }
        let positions: Vec<(Option<i64>, Option<i64>)> =
            if keys.is_empty() { Vec::new() } else { pipe.query_async(&mut redis).await.context("reading Redis")? };
        for (key, position) in keys.iter().zip(positions) {
            let parts = key.strip_prefix(prefix).and_then(|rest| rest.split_once(':'));
            let (Some((first, second)), (Some(epoch), Some(version))) = (parts, position) else { continue };
            held.insert((first.parse()?, second.parse()?, 0), (epoch, version));
        }
        cursor = next;
        if cursor == 0 {
            return Ok(held);
        }
    }
}

/// The newest resync of each entity of the ledgers; (0, 0) where there was none.
async fn resyncs(pg: &PgPool) -> anyhow::Result<HashMap<Key, Position>> {
    let mut held = HashMap::new();
    let rows = sqlx::query(
        "select l.location_id, l.variant_id, coalesce(m.epoch, 0), coalesce(m.version, 0) from stock_levels l
           left join lateral (select epoch, version from stock_movements m
                               where (m.location_id, m.variant_id) = (l.location_id, l.variant_id) and m.resync
                               order by epoch desc, version desc limit 1) m on true
          where l.version > 0
         union all
         select a.account_id, '00000000-0000-0000-0000-000000000000', coalesce(e.epoch, 0), coalesce(e.version, 0)
           from loyalty_accounts a
           left join lateral (select epoch, version from loyalty_entries e
                               where e.account_id = a.account_id and e.kind = 'resync'
                               order by epoch desc, version desc limit 1) e on true
          where a.version > 0",
    )
    .fetch_all(pg)
    .await?;
    for row in rows {
        held.insert((row.get(0), row.get(1), 0), (row.get(2), row.get(3)));
    }
    Ok(held)
}
