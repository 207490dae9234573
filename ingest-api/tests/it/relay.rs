//! The relay against a real Postgres: many writers with random delays before COMMIT and rollbacks, two relays
//! fighting for the lead. Nothing may be lost or out of order per location, stock row and account; a reader
//! that follows `id > cursor` must fail the same check.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ingest_api::relay::{Publish, Relay};
use rand::Rng;
use runtime::kafka::{OutRecord, SendError};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::rig::eventually;

const WRITERS: usize = 12;
const ACTS_PER_WRITER: usize = 120;
const LOCATIONS: usize = 4;
const ENTITIES: usize = 3;

/// A random pause.
fn micros(from: u64, to: u64) -> Duration {
    Duration::from_micros(rand::rng().random_range(from..to))
}

/// What an act says of itself: stream and number, and entity and version of what it changed.
type Note = (String, i64, String, i64, String, i64);

/// Stands in for the broker: keeps what it was given, slowly, and sometimes refuses to confirm.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Publish for Recorder {
    async fn publish(&self, records: &[OutRecord]) -> Result<(), SendError> {
        let cut =
            if rand::rng().random_bool(0.1) { rand::rng().random_range(0..=records.len()) } else { records.len() };
        for record in &records[..cut] {
            let framed = record.payload.clone().unwrap();
            self.0.lock().unwrap().push(String::from_utf8(framed[5..].to_vec()).unwrap());
        }
        let pause = micros(0, 3_000);
        tokio::time::sleep(pause).await;
        if cut < records.len() { Err(SendError::Undelivered("unconfirmed".into())) } else { Ok(()) }
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn nothing_is_lost_or_out_of_order(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.max_connections(WRITERS as u32 + 4).connect_with(options.clone()).await.unwrap();
    let locations = seed(&pool).await;
    let (recorder, stop) = (Recorder::default(), Shutdown::new());
    let relays: Vec<_> = (0..2)
        .map(|_| {
            let relay = Relay {
                options: options.clone(),
                producer: recorder.clone(),
                wake: None,
                health: Health::new(),
                // Small, so that there is nearly always a batch to read ahead.
                batch_acts: 7,
            };
            let stop = stop.clone();
            tokio::spawn(async move { relay.run(stop).await })
        })
        .collect();
    let naive = tokio::spawn(follow_naively(options.clone(), stop.clone()));
    let unseat = tokio::spawn(unseat_leaders(pool.clone(), stop.clone()));

    let writers = (0..WRITERS).map(|_| tokio::spawn(write_acts(pool.clone(), locations.clone())));
    let committed: HashSet<String> =
        futures::future::join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    wait_until_drained(&pool).await;
    stop.cancel();
    for task in relays {
        task.await.unwrap();
    }
    unseat.await.unwrap();

    let published = recorder.0.lock().unwrap().clone();
    assert_eq!(check(&published, &committed), Vec::<String>::new());
    let broken = check(&naive.await.unwrap(), &committed);
    assert!(!broken.is_empty(), "the naive reader passed: this check proves nothing");
}

/// Streams with progress, stock rows, accounts as counters, a pinned schema id.
async fn seed(pool: &PgPool) -> Vec<Uuid> {
    let locations: Vec<Uuid> = (0..LOCATIONS).map(|_| Uuid::now_v7()).collect();
    sqlx::query("insert into streams (stream_id) select unnest($1::uuid[])")
        .bind(&locations)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("insert into stream_progress (stream_id) select unnest($1::uuid[])")
        .bind(&locations)
        .execute(pool)
        .await
        .unwrap();
    sqlx::raw_sql(
        "create table entities (entity text primary key, version bigint not null default 0);
         insert into schema_ids values ('vorca.sales.v1-value', 1, 7);",
    )
    .execute(pool)
    .await
    .unwrap();
    for location in &locations {
        for n in 0..ENTITIES {
            let stock = format!("{location}/{n}");
            sqlx::query("insert into entities (entity) values ($1)").bind(stock).execute(pool).await.unwrap();
        }
    }
    for n in 0..ENTITIES {
        sqlx::query("insert into entities (entity) values ($1)")
            .bind(format!("account/{n}"))
            .execute(pool)
            .await
            .unwrap();
    }
    locations
}

/// Acts in the total lock order: location, stock row, account; a tenth is rolled back.
async fn write_acts(pool: PgPool, locations: Vec<Uuid>) -> Vec<String> {
    let mut committed = Vec::new();
    for _ in 0..ACTS_PER_WRITER {
        let location = locations[rand::rng().random_range(0..LOCATIONS)];
        let stock = format!("{location}/{}", rand::rng().random_range(0..ENTITIES));
        let account = format!("account/{}", rand::rng().random_range(0..ENTITIES));
        let mut tx = pool.begin().await.unwrap();
        let seq = ingest_api::db::outbox::lock_stream(&mut tx, location).await.unwrap();
        let mut versions = Vec::new();
        for entity in [&stock, &account] {
            let raise = "update entities set version = version + 1 where entity = $1 returning version";
            versions.push(sqlx::query_scalar::<_, i64>(raise).bind(entity).fetch_one(&mut *tx).await.unwrap());
        }
        let note: Note = (location.to_string(), seq, stock, versions[0], account, versions[1]);
        let body = serde_json::to_string(&note).unwrap();
        sqlx::query(
            "insert into outbox (stream_id, seq, epoch, cause_type, cause_id, created_at, topics, keys, event_ids,
                                 schema_versions, bodies)
             values ($1, $2, 1, 'test', $3, now(), '{vorca.sales.v1}', array[$1::text], array[$3], '{1}', array[$4])",
        )
        .bind(location)
        .bind(seq)
        .bind(Uuid::now_v7())
        .bind(body.as_bytes())
        .execute(&mut *tx)
        .await
        .unwrap();
        tokio::time::sleep(micros(0, 4_000)).await;
        if rand::rng().random_bool(0.1) {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            committed.push(body);
        }
    }
    committed
}

/// Ends the leader's session now and then, in the middle of whatever it does.
async fn unseat_leaders(pool: PgPool, stop: Shutdown) {
    while !stop.is_cancelled() {
        tokio::time::sleep(micros(100_000, 400_000)).await;
        let end = "select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.database =
                   (select oid from pg_database where datname = current_database())";
        sqlx::query(end).execute(&pool).await.unwrap();
    }
}

/// The cursor that D2 forbids.
async fn follow_naively(options: PgConnectOptions, stop: Shutdown) -> Vec<String> {
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    let (mut seen, mut cursor) = (Vec::new(), 0i64);
    loop {
        let is_last = stop.is_cancelled();
        let query = "select id, bodies[1] from outbox where id > $1 order by id limit 500";
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(query).bind(cursor).fetch_all(&mut conn).await.unwrap();
        for (id, body) in rows {
            cursor = id;
            seen.push(String::from_utf8(body).unwrap());
        }
        if is_last {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn wait_until_drained(pool: &PgPool) {
    eventually(async || {
        let (rows, _) = ingest_api::db::relay::backlog(&mut pool.acquire().await.unwrap()).await.unwrap();
        if rows == 0 { Ok(()) } else { Err(format!("{rows} rows wait")) }
    })
    .await;
}

/// What is wrong with the first occurrences of everything published, at most a few words each.
fn check(published: &[String], committed: &HashSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = HashSet::new();
    let mut next: BTreeMap<String, i64> = BTreeMap::new();
    for body in published.iter().filter(|body| seen.insert((*body).clone())) {
        let (location, seq, stock, stock_version, account, account_version): Note = serde_json::from_str(body).unwrap();
        for (entity, version) in [(location, seq), (stock, stock_version), (account, account_version)] {
            let expected = next.entry(entity.clone()).or_insert(1);
            if version != *expected {
                wrong.push(format!("{entity}: {version} instead of {expected}"));
            }
            *expected = version + 1;
        }
    }
    wrong.extend(committed.difference(&seen).map(|body| format!("lost {body}")));
    wrong.extend(seen.difference(committed).map(|body| format!("foreign {body}")));
    wrong.truncate(5);
    wrong
}
