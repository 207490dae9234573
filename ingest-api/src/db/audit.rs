//! What the sealer reads and writes. Rows of the log become visible in another order than they were written in, so it
//! goes by transactions: below the oldest one that ran when it looked, nothing can appear any more.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::audit::chain::{AuditRow, DocumentRecord, Hash};
use crate::audit::signing::{Head, Root, Signed};

/// A seal to be.
#[derive(Debug, Clone)]
pub struct Seal {
    pub chain: Uuid,
    pub seq: i64,
    pub audit_id: Uuid,
    /// Document, business day and leaf.
    pub document: Option<(Uuid, NaiveDate, Hash)>,
    pub prev_hash: Hash,
    pub hash: Hash,
}

/// Rows without a seal, and what the sealer may forget once they have one.
pub struct Unsealed {
    pub rows: Vec<AuditRow>,
    /// Every transaction below is sealed with these rows.
    horizon: String,
}

/// Forgets the horizon when it is of another database: a copy numbers its transactions anew.
pub async fn settle_horizon(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update audit_progress p set horizon = '0', cluster = c.system_identifier, database = d.oid
         from pg_control_system() c, pg_database d
         where d.datname = current_database() and (p.cluster, p.database) <> (c.system_identifier, d.oid)",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The first rows without a seal, in order of their transactions.
pub async fn unsealed(conn: &mut PgConnection, limit: i64) -> Result<Unsealed, sqlx::Error> {
    // Taken before the rows are: what is finished here is visible there.
    let mut horizon: String =
        sqlx::query_scalar("select pg_snapshot_xmin(pg_current_snapshot())::text").fetch_one(&mut *conn).await?;
    let found = sqlx::query(
        "select a.audit_id, a.epoch, a.recorded_at, a.location_id, a.actor, a.actor_role, a.approver, a.action, a.target,
                a.before_digest, a.after_digest, a.reason, a.outcome, a.request_id, a.terminal_id, a.address,
                least(a.xid, $2::xid8)::text
         from audit_log a
         where a.xid >= (select horizon from audit_progress)
           and not exists (select from audit_seals s where s.audit_id = a.audit_id)
         order by a.xid, a.recorded_at, a.audit_id limit $1",
    )
    .bind(limit)
    .bind(&horizon)
    .fetch_all(conn)
    .await?;
    if let Some(last) = found.last()
        && found.len() as i64 == limit
    {
        horizon = last.get(16);
    }
    let rows = found.iter().map(sqlx::FromRow::from_row).collect::<Result<_, _>>()?;
    Ok(Unsealed { rows, horizon })
}

/// What the stored documents among these are.
pub async fn documents(conn: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, DocumentRecord>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let found: Vec<DocumentRecord> =
        sqlx::query_as(include_str!("document_record.sql")).bind(ids).fetch_all(conn).await?;
    Ok(found.into_iter().map(|record| (record.document_id, record)).collect())
}

/// Number and hash of the last seal of each of these chains.
pub async fn last_seals(conn: &mut PgConnection, chains: &[Uuid]) -> Result<HashMap<Uuid, (i64, Hash)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, Hash)> = sqlx::query_as(
        "select c.chain, s.seq, s.hash from unnest($1::uuid[]) c (chain),
                lateral (select seq, hash from audit_seals where chain = c.chain order by seq desc limit 1) s",
    )
    .bind(chains)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(chain, seq, hash)| (chain, (seq, hash))).collect())
}

/// Appends seals and moves the horizon. A second sealer that got here with the same rows fails on their identity.
pub async fn seal(conn: &mut PgConnection, seals: &[Seal], unsealed: &Unsealed) -> Result<(), sqlx::Error> {
    let column = |of: fn(&Seal) -> Uuid| seals.iter().map(of).collect::<Vec<_>>();
    sqlx::query(
        "insert into audit_seals (chain, seq, audit_id, document_id, business_date, leaf, prev_hash, hash, sealed_at)
         select chain, seq, audit_id, document_id, business_date, leaf, prev_hash, hash, now()
         from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::date[], $6::bytea[], $7::bytea[], $8::bytea[])
              as s (chain, seq, audit_id, document_id, business_date, leaf, prev_hash, hash)",
    )
    .bind(column(|seal| seal.chain))
    .bind(seals.iter().map(|seal| seal.seq).collect::<Vec<_>>())
    .bind(column(|seal| seal.audit_id))
    .bind(seals.iter().map(|seal| seal.document.map(|(id, ..)| id)).collect::<Vec<_>>())
    .bind(seals.iter().map(|seal| seal.document.map(|(_, date, _)| date)).collect::<Vec<_>>())
    .bind(seals.iter().map(|seal| seal.document.map(|(.., leaf)| leaf)).collect::<Vec<_>>())
    .bind(seals.iter().map(|seal| seal.prev_hash).collect::<Vec<_>>())
    .bind(seals.iter().map(|seal| seal.hash).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await?;
    sqlx::query("update audit_progress set horizon = $1::xid8 where horizon < $1::xid8")
        .bind(&unsealed.horizon)
        .execute(conn)
        .await?;
    Ok(())
}

/// A chain whose last seal has no signed head of this epoch.
#[derive(Debug, sqlx::FromRow)]
pub struct DueHead {
    pub chain: Uuid,
    pub seq: i64,
    pub hash: Hash,
}

/// Chains that went on since their last signed head, or were not signed in this epoch.
pub async fn due_heads(conn: &mut PgConnection, epoch: i64, limit: i64) -> Result<Vec<DueHead>, sqlx::Error> {
    sqlx::query_as(
        "select c.stream_id as chain, s.seq, s.hash from streams c
         cross join lateral (select seq, hash from audit_seals where chain = c.stream_id order by seq desc limit 1) s
         left join lateral (select seq, epoch from audit_heads where chain = c.stream_id order by seq desc, epoch desc limit 1) h
              on true
         where h.seq is null or h.seq < s.seq or h.epoch < $1
         order by c.stream_id limit $2",
    )
    .bind(epoch)
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// One of these heads whose chain holds another hash in its place, or nothing.
pub async fn fallen(conn: &mut PgConnection, heads: &[(Uuid, i64, Hash)]) -> Result<Option<(Uuid, i64)>, sqlx::Error> {
    sqlx::query_as(
        "select h.chain, h.seq from unnest($1::uuid[], $2::bigint[], $3::bytea[]) h (chain, seq, hash)
         where not exists (select from audit_seals s where s.chain = h.chain and s.seq = h.seq and s.hash = h.hash)
         order by 1 limit 1",
    )
    .bind(heads.iter().map(|(chain, ..)| *chain).collect::<Vec<_>>())
    .bind(heads.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>())
    .bind(heads.iter().map(|(.., hash)| *hash).collect::<Vec<_>>())
    .fetch_optional(conn)
    .await
}

/// Keeps a public key that signs from now on.
pub async fn keep_key(conn: &mut PgConnection, key_id: &str, public_key: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into audit_keys (key_id, public_key, first_used) values ($1, $2, now()) on conflict do nothing",
    )
    .bind(key_id)
    .bind(public_key)
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn insert_head(conn: &mut PgConnection, head: &Signed<Head>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into audit_heads (chain, seq, epoch, hash, key_id, signature, signed_at) values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(head.what.chain)
    .bind(head.what.seq)
    .bind(head.what.epoch)
    .bind(head.what.hash)
    .bind(&head.key_id)
    .bind(&head.signature)
    .bind(instant(head.what.signed_at))
    .execute(conn)
    .await?;
    Ok(())
}

/// Every signed head of a chain.
pub async fn heads(conn: &mut PgConnection) -> Result<Vec<Signed<Head>>, sqlx::Error> {
    let rows =
        sqlx::query("select chain, seq, epoch, hash, key_id, signature, signed_at from audit_heads order by 1, 2")
            .fetch_all(conn)
            .await?;
    rows.iter()
        .map(|row| {
            let what = Head {
                chain: row.try_get(0)?,
                seq: row.try_get(1)?,
                epoch: row.try_get(2)?,
                hash: row.try_get(3)?,
                signed_at: row.try_get::<DateTime<Utc>, _>(6)?.timestamp_micros(),
            };
            Ok(Signed { what, key_id: row.try_get(4)?, signature: row.try_get(5)? })
        })
        .collect()
}

/// Documents of one business day that are under no root yet.
#[derive(Debug, sqlx::FromRow)]
pub struct Unrooted {
    pub business_date: NaiveDate,
    /// Seal of the first of them.
    pub first_seq: i64,
    /// Number of the day's last root; 0 without one.
    pub root_no: i32,
}

/// Days of a chain with documents under no root, and the number of its last seal.
pub async fn unrooted(conn: &mut PgConnection, chain: Uuid) -> Result<(Vec<Unrooted>, i64), sqlx::Error> {
    let last: Option<i64> = sqlx::query_scalar("select max(seq) from audit_seals where chain = $1")
        .bind(chain)
        .fetch_one(&mut *conn)
        .await?;
    let last = last.unwrap_or_default();
    let days = sqlx::query_as(
        "select s.business_date, min(s.seq) as first_seq, coalesce(r.root_no, 0) as root_no
         from audit_seals s
         left join (select distinct on (business_date) business_date, root_no, through_seq from audit_roots
                    where location_id = $1 order by business_date, root_no desc) r using (business_date)
         where s.chain = $1 and s.document_id is not null and s.seq <= $2
           and s.seq > coalesce((select seq from audit_rooted where chain = $1), 0)
           and s.seq > coalesce(r.through_seq, 0)
         group by s.business_date, r.root_no order by s.business_date",
    )
    .bind(chain)
    .bind(last)
    .fetch_all(conn)
    .await?;
    Ok((days, last))
}

/// Documents and leaves of a day between two seals of a chain, in the order of the chain.
pub async fn leaves(
    conn: &mut PgConnection,
    (chain, date): (Uuid, NaiveDate),
    (after, through): (i64, i64),
) -> Result<Vec<(Uuid, Hash)>, sqlx::Error> {
    sqlx::query_as(
        "select document_id, leaf from audit_seals
         where chain = $1 and seq > $3 and seq <= $4 and business_date = $2 and document_id is not null order by seq",
    )
    .bind(chain)
    .bind(date)
    .bind(after)
    .bind(through)
    .fetch_all(conn)
    .await
}

/// Appends a root that covers the seals above `after`.
pub async fn insert_root(conn: &mut PgConnection, root: &Signed<Root>, after: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into audit_roots (location_id, business_date, root_no, epoch, after_seq, through_seq, leaf_count, root,
                                  key_id, signature, signed_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(root.what.location)
    .bind(root.what.date)
    .bind(root.what.number)
    .bind(root.what.epoch)
    .bind(after)
    .bind(root.what.through_seq)
    .bind(root.what.leaf_count)
    .bind(root.what.hash)
    .bind(&root.key_id)
    .bind(&root.signature)
    .bind(instant(root.what.signed_at))
    .execute(conn)
    .await?;
    Ok(())
}

/// Every document of the chain up to this seal is under a root.
pub async fn mark_rooted(conn: &mut PgConnection, chain: Uuid, seq: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into audit_rooted (chain, seq) values ($1, $2)
         on conflict (chain) do update set seq = excluded.seq where audit_rooted.seq < excluded.seq",
    )
    .bind(chain)
    .bind(seq)
    .execute(conn)
    .await?;
    Ok(())
}

/// Every root, with the seal it begins after.
pub async fn roots(conn: &mut PgConnection) -> Result<Vec<(Signed<Root>, i64)>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{ROOT} order by location_id, business_date, root_no")))
        .fetch_all(conn)
        .await?;
    rows.iter().map(root_of).collect()
}

/// The root that covers a seal of a day, with the seal it begins after.
pub async fn root_of_seal(
    conn: &mut PgConnection,
    (location, date): (Uuid, NaiveDate),
    seq: i64,
) -> Result<Option<(Signed<Root>, i64)>, sqlx::Error> {
    let query =
        format!("{ROOT} where location_id = $1 and business_date = $2 and after_seq < $3 and through_seq >= $3");
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(location).bind(date).bind(seq).fetch_optional(conn).await?;
    row.as_ref().map(root_of).transpose()
}

const ROOT: &str =
    "select location_id, business_date, root_no, epoch, through_seq, leaf_count, root, signed_at, key_id,
                           signature, after_seq from audit_roots";

fn root_of(row: &sqlx::postgres::PgRow) -> Result<(Signed<Root>, i64), sqlx::Error> {
    let what = Root {
        location: row.try_get(0)?,
        date: row.try_get(1)?,
        number: row.try_get(2)?,
        epoch: row.try_get(3)?,
        through_seq: row.try_get(4)?,
        leaf_count: row.try_get(5)?,
        hash: row.try_get(6)?,
        signed_at: row.try_get::<DateTime<Utc>, _>(7)?.timestamp_micros(),
    };
    Ok((Signed { what, key_id: row.try_get(8)?, signature: row.try_get(9)? }, row.try_get(10)?))
}

fn instant(micros: i64) -> DateTime<Utc> {
    schemas::time::Timestamp(micros).to_utc()
}
