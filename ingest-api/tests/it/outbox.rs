//! A stream with acts of its own, and stand-ins for the broker that remember what they were given.

use std::sync::{Arc, Mutex};

use ingest_api::relay::{Publish, Relay};
use runtime::kafka::{OutRecord, SendError};
use runtime::ops::Health;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::rig::eventually;

pub const TOPIC: &str = "vorca.sales.v1";

/// A stream, with its progress and a pinned schema id.
pub async fn stream(pool: &PgPool) -> Uuid {
    let stream = Uuid::now_v7();
    for query in [
        "insert into streams (stream_id) values ($1)",
        "insert into stream_progress (stream_id) values ($1)",
        "insert into schema_ids select 'vorca.sales.v1-value', 1, 7 where $1 is not null on conflict do nothing",
    ] {
        sqlx::query(query).bind(stream).execute(pool).await.unwrap();
    }
    stream
}

/// Appends an act with these bodies; the event ids of its records.
pub async fn act(pool: &PgPool, stream: Uuid, bodies: &[Vec<u8>]) -> Vec<Uuid> {
    let mut tx = pool.begin().await.unwrap();
    let seq = ingest_api::db::outbox::lock_stream(&mut tx, stream).await.unwrap();
    let ids: Vec<Uuid> = bodies.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query(
        "insert into outbox (stream_id, seq, epoch, cause_type, cause_id, created_at, topics, keys, event_ids,
                             schema_versions, bodies)
         values ($1, $2, 1, 'test', $3, now(), array_fill($4::text, array[cardinality($5)]),
                 array_fill($1::text, array[cardinality($5)]), $5, array_fill(1::int2, array[cardinality($5)]), $6)",
    )
    .bind(stream)
    .bind(seq)
    .bind(Uuid::now_v7())
    .bind(TOPIC)
    .bind(&ids)
    .bind(bodies)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    ids
}

/// Appends `count` acts with one small record each.
pub async fn acts(pool: &PgPool, stream: Uuid, count: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.extend(act(pool, stream, &[b"body".to_vec()]).await);
    }
    ids
}

/// Takes everything and remembers the event ids.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<Uuid>>>);

impl Heard {
    pub fn ids(&self) -> Vec<Uuid> {
        self.0.lock().unwrap().clone()
    }

    pub fn take(&self, records: &[OutRecord]) {
        let id = |record: &OutRecord| -> Uuid {
            let value = record.headers.iter().find(|(name, _)| name == "ce_id").and_then(|(_, value)| value.clone());
            std::str::from_utf8(&value.expect("ce_id")).unwrap().parse().unwrap()
        };
        self.0.lock().unwrap().extend(records.iter().map(id));
    }

    /// Waits until at least these many records were heard.
    pub async fn wait(&self, count: usize) -> Vec<Uuid> {
        eventually(async || {
            let ids = self.ids();
            if ids.len() >= count { Ok(ids) } else { Err(format!("{} of {count} records are published", ids.len())) }
        })
        .await
    }
}

impl Publish for Heard {
    async fn publish(&self, records: &[OutRecord]) -> Result<(), SendError> {
        self.take(records);
        Ok(())
    }
}

/// A relay over this database that takes a few acts at a time.
pub fn relay<P: Publish>(options: &PgConnectOptions, producer: P, batch_acts: i64) -> Relay<P> {
    Relay { options: options.clone(), producer, wake: None, health: Health::new(), batch_acts }
}

/// Waits until the relay has recorded that everything of the stream is published.
pub async fn drained(pool: &PgPool, stream: Uuid) {
    let query = "select s.last_seq = p.published_seq from streams s join stream_progress p using (stream_id)
                 where stream_id = $1";
    eventually(async || match sqlx::query_scalar(query).bind(stream).fetch_one(pool).await.unwrap() {
        true => Ok(()),
        false => Err("the stream is not published to its end".to_owned()),
    })
    .await;
}
