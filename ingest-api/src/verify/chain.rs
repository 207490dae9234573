//! I19: the audit log is what was sealed, and what was sealed is what was signed. Everything is made again from the rows:
//! the leaf of each document, the hash of each seal, the root of each day; and compared with the signatures that were
//! published, which nobody who can write to the database can make.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::NaiveDate;
use sqlx::{FromRow, PgConnection, PgPool, Row};
use uuid::Uuid;

use super::published::Published;
use super::{Report, Stores, Trust, signatures};
use crate::audit::chain::{AuditRow, GENESIS, Hash, link};
use crate::audit::signing::{Head, Signed};
use crate::db::audit as db;

/// Seals read at once.
const PAGE: i64 = 2_000;
/// The sealer signs heads every ten seconds; then they have to travel.
pub(super) const HEADS_LATE: Duration = Duration::from_secs(30);

/// Every check, with what the topics and ClickHouse hold. The sealer is given the drain to finish.
pub async fn check_all(stores: &Stores, report: &mut Report) -> anyhow::Result<()> {
    settle(&stores.pg, stores.drain).await?;
    let published = Published::of(stores).await?;
    let mut conn = stores.pg.acquire().await?;
    check(&mut conn, &published, &stores.trust, report).await
}

/// Every check inside one database, against these publications.
pub async fn check(
    conn: &mut PgConnection,
    published: &Published,
    trust: &Trust,
    report: &mut Report,
) -> anyhow::Result<()> {
    unsealed(conn, report).await?;
    let stored = db::heads(conn).await?;
    let all = stored.iter().map(|head| ("ledger", head)).chain(published.heads.iter().map(|(at, head)| (*at, head)));
    let all: Vec<(&str, &Signed<Head>)> = all.collect();
    let seals = links(conn, all.iter().map(|(_, head)| (head.what.chain, head.what.seq)).collect(), report).await?;
    documents(conn, report).await?;
    let cuts = signatures::Cuts::of(conn, &trust.restored, report).await?;
    let mut differing = published.unreadable.clone();
    signatures::heads(&all, &trust.keys, &seals, &cuts, &mut differing, report);
    signatures::late(conn, &stored, &seals, &mut differing).await?;
    let claim = "every signed head stands in its chain, every chain is signed to its end";
    report.add("I19", claim, all.len() as u64, differing);
    signatures::roots(conn, published, &trust.keys, &seals, &cuts, report).await
}

/// Waits until every row is sealed and every chain has its signed head, at most `limit`.
async fn settle(pg: &PgPool, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit.min(HEADS_LATE);
    loop {
        let waits: bool = sqlx::query_scalar(
            "select exists (select from audit_log a where a.xid >= (select horizon from audit_progress)
                               and not exists (select from audit_seals s where s.audit_id = a.audit_id))
                 or exists (select from streams c
                     cross join lateral (select seq from audit_seals where chain = c.stream_id order by seq desc limit 1) s
                     where not exists (select from audit_heads h where h.chain = c.stream_id and h.seq >= s.seq))",
        )
        .fetch_one(pg)
        .await?;
        if !waits || Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A row without a seal was added behind the sealer's back, or the sealer stands.
async fn unsealed(conn: &mut PgConnection, report: &mut Report) -> anyhow::Result<()> {
    let rows: i64 = sqlx::query_scalar("select count(*) from audit_log").fetch_one(&mut *conn).await?;
    // Five seconds for what was written a moment ago; a time of its own choosing helps no row.
    let differing = sqlx::query_scalar::<_, String>(
        "select format('%s %s of %s has no seal', action, audit_id, recorded_at) from audit_log a
          where not exists (select from audit_seals s where s.audit_id = a.audit_id)
            and (recorded_at not between now() - interval '5 seconds' and now() + interval '1 minute'
                 or xid < (select horizon from audit_progress))",
    )
    .fetch_all(conn)
    .await?;
    report.add("I19", "every row of the audit log is sealed", rows as u64, differing);
    Ok(())
}

/// What the chains hold, as far as somebody signed it.
#[derive(Default)]
pub(super) struct Seals {
    /// Seals in each chain.
    pub ends: HashMap<Uuid, i64>,
    /// Hashes of the seals that were asked for.
    pub hashes: HashMap<(Uuid, i64), Hash>,
}

/// Walks each chain from its beginning and makes every hash again; remembers those that are `wanted`.
async fn links(conn: &mut PgConnection, wanted: HashSet<(Uuid, i64)>, report: &mut Report) -> anyhow::Result<Seals> {
    let chains: Vec<Uuid> =
        sqlx::query_scalar("select distinct chain from audit_seals order by 1").fetch_all(&mut *conn).await?;
    let (mut compared, mut differing) = (0, Vec::new());
    let mut seals = Seals::default();
    for chain in chains {
        let mut walk = Walk { chain, last: 0, previous: GENESIS, differing: Vec::new() };
        while walk.page(conn, &wanted, &mut seals.hashes).await.with_context(|| format!("chain {chain}"))? {}
        compared += walk.last as u64;
        differing.extend(walk.differing);
        seals.ends.insert(chain, walk.last);
    }
    let claim = "each seal follows from the one before it, its row and its document";
    report.add("I19", claim, compared, differing);
    Ok(seals)
}

struct Walk {
    chain: Uuid,
    /// Number of the seal before.
    last: i64,
    /// Its hash, as stored: one wrong seal is one difference, not one for every seal after it.
    previous: Hash,
    differing: Vec<String>,
}

impl Walk {
    /// The next seals; false at the end of the chain.
    async fn page(
        &mut self,
        conn: &mut PgConnection,
        wanted: &HashSet<(Uuid, i64)>,
        hashes: &mut HashMap<(Uuid, i64), Hash>,
    ) -> anyhow::Result<bool> {
        let rows = sqlx::query(
            "select s.seq, s.prev_hash, s.hash, s.document_id, s.business_date, s.leaf, s.audit_id as sealed_id, a.*
             from audit_seals s left join audit_log a using (audit_id)
             where s.chain = $1 and s.seq > $2 order by s.seq limit $3",
        )
        .bind(self.chain)
        .bind(self.last)
        .bind(PAGE)
        .fetch_all(&mut *conn)
        .await?;
        let named: Vec<Uuid> = rows.iter().filter_map(|row| row.get::<Option<Uuid>, _>("document_id")).collect();
        let documents = db::documents(conn, &named).await?;
        for row in &rows {
            let seq: i64 = row.get("seq");
            if seq != self.last + 1 {
                let missing = self.last + 1;
                self.differing.push(format!("chain {}: seal {missing} is missing, {seq} follows", self.chain));
            }
            let hash: Hash = row.get("hash");
            if let Some(what) = self.wrong(row, &documents)? {
                self.differing.push(format!("chain {} seal {seq}: {what}", self.chain));
            }
            if wanted.contains(&(self.chain, seq)) {
                hashes.insert((self.chain, seq), hash);
            }
            (self.last, self.previous) = (seq, hash);
        }
        Ok(rows.len() as i64 == PAGE)
    }

    fn wrong(
        &self,
        row: &sqlx::postgres::PgRow,
        documents: &HashMap<Uuid, crate::audit::chain::DocumentRecord>,
    ) -> anyhow::Result<Option<String>> {
        let (seq, sealed): (i64, Uuid) = (row.get("seq"), row.get("sealed_id"));
        if row.get::<Option<Uuid>, _>("actor").is_none() {
            return Ok(Some(format!("its row {sealed} is gone")));
        }
        let act = AuditRow::from_row(row)?;
        if act.chain() != self.chain {
            return Ok(Some(format!("its row {sealed} belongs to chain {}", act.chain())));
        }
        let leaf: Option<Hash> = row.get("leaf");
        let document: Option<Uuid> = row.get("document_id");
        if act.document() != document {
            return Ok(Some(format!("row {sealed} and seal name different documents")));
        }
        if let Some(id) = document {
            let Some(stored) = documents.get(&id) else { return Ok(Some(format!("document {id} is gone"))) };
            let date: Option<NaiveDate> = row.get("business_date");
            if leaf != Some(stored.leaf()) || date != Some(stored.business_date) || stored.location_id != self.chain {
                return Ok(Some(format!("document {id} is not what was sealed")));
            }
        }
        if row.get::<Hash, _>("prev_hash") != self.previous {
            return Ok(Some("it does not follow the seal before it".to_owned()));
        }
        if row.get::<Hash, _>("hash") != link(self.chain, seq, &self.previous, &act.encode(leaf.as_ref())) {
            return Ok(Some(format!("row {sealed} ({}) is not what was sealed", act.action)));
        }
        Ok(None)
    }
}

/// A stored document that no seal names came in without its act; digests are made again from lines and tenders.
async fn documents(conn: &mut PgConnection, report: &mut Report) -> anyhow::Result<()> {
    let count: i64 = sqlx::query_scalar("select count(*) from documents").fetch_one(&mut *conn).await?;
    let differing = sqlx::query_scalar::<_, String>(
        "select format('document %s is in no chain', document_id) from documents d
          where not exists (select from audit_seals s where s.document_id = d.document_id)
            and (recorded_at not between now() - interval '5 seconds' and now() + interval '1 minute'
                 or not exists (select from audit_log a where a.target = d.kind || '/' || d.document_id))",
    )
    .fetch_all(&mut *conn)
    .await?;
    report.add("I19", "every document is in the chain of its location", count as u64, differing);
    let differing = sqlx::query_scalar::<_, String>(
        "select format('document %s: its digest is not that of its lines and tenders', document_id) from documents d
          where document_digest <> sha256(convert_to(
                coalesce((select string_agg(concat_ws('|', line_no, variant_id, qty, extended_minor, discount_minor, tax_minor,
                                                      added_tax_minor, net_minor, payable_minor,
                                                      case when (redemption_minor, redemption_points) <> (0, 0) then redemption_minor end,
                                                      case when (redemption_minor, redemption_points) <> (0, 0) then redemption_points end) || E'\\n', '' order by line_no)
                            from document_lines l where l.document_id = d.document_id), '')
             || coalesce((select string_agg(concat_ws('|', tender_no, kind, amount_minor, tip_minor) || E'\\n', '' order by tender_no)
                            from document_tenders t where t.document_id = d.document_id), ''), 'UTF8'))",
    )
    .fetch_all(conn)
    .await?;
    report.add("I19", "a document's digest covers its lines and tenders", count as u64, differing);
    Ok(())
}
