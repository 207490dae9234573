//! The outbox: one row per act with all its records, written last in the act's transaction.

use chrono::{DateTime, Utc};
use schemas::codec::{Record, encode};
use sqlx::PgConnection;
use uuid::Uuid;

/// The outbox row of one act: its place in its stream and its records in order.
#[derive(Debug, Clone)]
pub struct Act {
    pub stream_id: Uuid,
    pub seq: i64,
    pub cause_type: &'static str,
    pub cause_id: Uuid,
    pub trace_parent: String,
    pub topics: Vec<&'static str>,
    pub keys: Vec<String>,
    pub event_ids: Vec<Uuid>,
    pub schema_versions: Vec<i16>,
    pub bodies: Vec<Vec<u8>>,
}

impl Act {
    /// An act without records yet; `seq` is the number taken from `streams` under its lock.
    pub fn new(stream_id: Uuid, seq: i64, cause_type: &'static str, cause_id: Uuid, trace_parent: &str) -> Self {
        Act {
            stream_id,
            seq,
            cause_type,
            cause_id,
            trace_parent: trace_parent.to_owned(),
            topics: Vec::new(),
            keys: Vec::new(),
            event_ids: Vec::new(),
            schema_versions: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// Adds a record, encoded with the schema compiled into this binary.
    pub fn push<E: Record>(&mut self, event: &E) {
        self.topics.push(E::TOPIC.name);
        self.keys.push(event.key());
        self.event_ids.push(event.event_id());
        self.schema_versions.push(E::SCHEMA_VERSION);
        self.bodies.push(encode(event));
    }
}

/// Takes the next number of a stream and keeps its row locked until the transaction ends. The first
/// statement of every act outside the lanes; a location's stream is the location.
pub async fn lock_stream(conn: &mut PgConnection, stream_id: Uuid) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("update streams set last_seq = last_seq + 1 where stream_id = $1 returning last_seq")
        .bind(stream_id)
        .fetch_one(conn)
        .await
}

/// The epoch of this database; read it after the stream is locked.
pub async fn epoch(conn: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select max(epoch) from epochs").fetch_one(conn).await
}

/// Appends the row of one act. Call it last: the row's `id` must be taken after every lock (D2).
pub async fn append(
    conn: &mut PgConnection,
    act: &Act,
    epoch: i64,
    created_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into outbox (stream_id, seq, epoch, cause_type, cause_id, trace_parent, created_at, topics, keys,
                             event_ids, schema_versions, bodies)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(act.stream_id)
    .bind(act.seq)
    .bind(epoch)
    .bind(act.cause_type)
    .bind(act.cause_id)
    .bind(&act.trace_parent)
    .bind(created_at)
    .bind(&act.topics)
    .bind(&act.keys)
    .bind(&act.event_ids)
    .bind(&act.schema_versions)
    .bind(&act.bodies)
    .execute(conn)
    .await?;
    Ok(())
}
