//! What the relay reads and records. One statement is one snapshot.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::arrays::elements;

/// One unpublished outbox row, borrowed from what Postgres sent.
#[derive(Debug, Clone)]
pub struct OutboxRow<'r> {
    pub stream_id: Uuid,
    pub seq: i64,
    /// What `stream_progress` said in the same snapshot, or what was on its way then.
    pub published_seq: i64,
    pub created_at: DateTime<Utc>,
    pub trace_parent: &'r str,
    /// Beside each other: one element for each record of the act.
    pub topics: Vec<&'r str>,
    pub keys: Vec<&'r [u8]>,
    pub event_ids: Vec<Uuid>,
    pub schema_versions: Vec<i16>,
    pub bodies: Vec<&'r [u8]>,
}

impl<'r> OutboxRow<'r> {
    /// Reads a row of [`unpublished`].
    pub fn of(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        Ok(OutboxRow {
            stream_id: row.try_get(0)?,
            seq: row.try_get(1)?,
            published_seq: row.try_get(2)?,
            created_at: row.try_get(3)?,
            trace_parent: row.try_get(4)?,
            topics: elements(row, 5, |bytes| Ok(std::str::from_utf8(bytes)?))?,
            keys: elements(row, 6, Ok)?,
            event_ids: elements(row, 7, |bytes| Ok(Uuid::from_slice(bytes)?))?,
            schema_versions: elements(row, 8, |bytes| Ok(i16::from_be_bytes(bytes.try_into()?)))?,
            bodies: elements(row, 9, Ok)?,
        })
    }
}

/// Rows above the published number of each dirty stream, in `id` order. The lower bound is the smallest id
/// among the first unpublished rows: ids rise within a stream, so nothing unpublished lies below it.
const UNPUBLISHED: &str = "
    with dirty as materialized (
        select s.stream_id, greatest(p.published_seq, f.to_seq) as published_seq
        from streams s join stream_progress p using (stream_id)
        left join unnest($2::uuid[], $3::bigint[]) as f (stream_id, to_seq) using (stream_id)
        where s.last_seq > greatest(p.published_seq, f.to_seq)
    ), low as materialized (
        select min(o.id) as id
        from dirty d join outbox o on o.stream_id = d.stream_id and o.seq = d.published_seq + 1
    )
    select o.stream_id, o.seq, d.published_seq, o.created_at, o.trace_parent, o.topics, o.keys, o.event_ids,
           o.schema_versions, o.bodies
    from outbox o join dirty d on d.stream_id = o.stream_id
    where o.id >= (select id from low) and o.seq > d.published_seq
    order by o.id
    limit $1";

/// At most `limit` unpublished rows ([`OutboxRow::of`] reads them), in the order in which they must be published; what the
/// caller has on its way counts as published.
pub async fn unpublished(
    conn: &mut PgConnection,
    limit: i64,
    on_its_way: &[Progress],
) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::query(UNPUBLISHED)
        .bind(limit)
        .bind(on_its_way.iter().map(|progress| progress.stream_id).collect::<Vec<_>>())
        .bind(on_its_way.iter().map(|progress| progress.to_seq).collect::<Vec<_>>())
        .fetch_all(conn)
        .await
}

/// How far one stream has been published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub stream_id: Uuid,
    /// Where the batch found it.
    pub from_seq: i64,
    pub to_seq: i64,
}

/// Records progress, one row per touched stream. A stream that was rewound meanwhile keeps the lower number.
pub async fn mark_published(conn: &mut PgConnection, progress: &[Progress]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update stream_progress p set published_seq = u.to_seq, published_at = now()
         from unnest($1::uuid[], $2::bigint[], $3::bigint[]) as u (stream_id, from_seq, to_seq)
         where p.stream_id = u.stream_id and p.published_seq = u.from_seq",
    )
    .bind(progress.iter().map(|p| p.stream_id).collect::<Vec<_>>())
    .bind(progress.iter().map(|p| p.from_seq).collect::<Vec<_>>())
    .bind(progress.iter().map(|p| p.to_seq).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// One stream that was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Rewound {
    pub stream_id: Uuid,
    /// First act that is published again,
    pub from_seq: i64,
    /// and the last one that had been published.
    pub to_seq: i64,
}

/// Sets streams back to before their first act that has number `from` or above, was created at or after `since`, and
/// has a record for `topic`, as far as each is given; the leader publishes all that follows again. Streams that had not
/// got there are left alone.
pub async fn rewind(
    conn: &mut PgConnection,
    stream: Option<Uuid>,
    from: Option<i64>,
    since: Option<DateTime<Utc>>,
    topic: Option<&str>,
) -> Result<Vec<Rewound>, sqlx::Error> {
    sqlx::query_as(
        "with first as (
             select stream_id, min(seq) as seq from outbox
             where ($1::uuid is null or stream_id = $1) and ($2::bigint is null or seq >= $2)
               and ($3::timestamptz is null or created_at >= $3) and ($4::text is null or $4 = any (topics))
             group by stream_id
         ), found as (
             select p.stream_id, f.seq as from_seq, p.published_seq as to_seq
             from stream_progress p join first f using (stream_id) where p.published_seq >= f.seq for update of p
         ), moved as (
             update stream_progress p set published_seq = f.from_seq - 1 from found f where p.stream_id = f.stream_id
         )
         select stream_id, from_seq, to_seq from found order by stream_id",
    )
    .bind(stream)
    .bind(from)
    .bind(since)
    .bind(topic)
    .fetch_all(conn)
    .await
}

/// How far a stream was published, and the first number the outbox still has of it; nothing for an unknown stream.
pub async fn reach(conn: &mut PgConnection, stream: Uuid) -> Result<Option<(i64, Option<i64>)>, sqlx::Error> {
    sqlx::query_as(
        "select published_seq, (select min(seq) from outbox o where o.stream_id = p.stream_id)
         from stream_progress p where stream_id = $1",
    )
    .bind(stream)
    .fetch_optional(conn)
    .await
}

/// What waits: rows, and the age of the oldest in seconds.
pub async fn backlog(conn: &mut PgConnection) -> Result<(i64, f64), sqlx::Error> {
    sqlx::query_as(
        "with dirty as materialized (
             select s.stream_id, s.last_seq, p.published_seq
             from streams s join stream_progress p using (stream_id)
             where s.last_seq > p.published_seq
         )
         select coalesce(sum(d.last_seq - d.published_seq), 0)::bigint,
                coalesce(extract(epoch from now() - (
                    select min(o.created_at) from dirty f
                    join outbox o on o.stream_id = f.stream_id and o.seq = f.published_seq + 1)), 0)::float8
         from dirty d",
    )
    .fetch_one(conn)
    .await
}

/// Keeps a record that no broker takes for an operator; the relay goes on.
pub async fn park(
    conn: &mut PgConnection,
    row: &OutboxRow<'_>,
    ordinal: usize,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into outbox_parked (event_id, stream_id, seq, topic, reason) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
    )
    .bind(row.event_ids[ordinal])
    .bind(row.stream_id)
    .bind(row.seq)
    .bind(row.topics[ordinal])
    .bind(reason)
    .execute(conn)
    .await?;
    Ok(())
}

/// Registry ids by (subject, schema version), as `migrate` pinned them.
pub async fn schema_ids(conn: &mut PgConnection) -> Result<Vec<(String, i16, i32)>, sqlx::Error> {
    sqlx::query_as("select subject, schema_version, schema_id from schema_ids").fetch_all(conn).await
}
