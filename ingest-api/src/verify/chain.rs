//! I19: the audit log is what was sealed, and what was sealed is what was signed. Everything is made again from the rows:
//! the leaf of each document, the hash of each seal, the root of each day; and compared with the signatures that were
//! published, which nobody who can write to the database can make.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::NaiveDate;
use schemas::codec::Codec;
use schemas::events::{AuditHeadSigned, AuditRootSigned};
use schemas::topics;
use sqlx::{FromRow, PgConnection, PgPool, Row};
use uuid::Uuid;

use super::clickhouse::ClickHouse;
use super::topics::{decoded, read};
use super::{Report, Stores};
use crate::audit::chain::{AuditRow, GENESIS, Hash, link};
use crate::audit::merkle;
use crate::audit::signing::{Head, PublicKeys, Root, Signed, hash_of_hex, unhex};
use crate::db::audit as db;
use crate::sales::hash::hex;

/// Seals read at once.
const PAGE: i64 = 2_000;
/// The sealer signs heads every ten seconds; then they have to travel.
const HEADS_LATE: Duration = Duration::from_secs(30);

/// Signed heads and roots as they were found outside the ledger, each with where.
#[derive(Debug, Default, Clone)]
pub struct Published {
    pub heads: Vec<(&'static str, Signed<Head>)>,
    pub roots: Vec<(&'static str, Signed<Root>)>,
    /// What could not be read as one of ours.
    pub unreadable: Vec<String>,
}

/// Every check, with what the topics and ClickHouse hold. The sealer is given the drain to finish.
pub async fn check_all(stores: &Stores, report: &mut Report) -> anyhow::Result<()> {
    settle(&stores.pg, stores.drain).await?;
    let mut published = Published::default();
    from_topics(stores, &mut published).await?;
    from_clickhouse(stores, &mut published).await?;
    let mut conn = stores.pg.acquire().await?;
    check(&mut conn, &published, &stores.keys, report).await
}

/// Every check inside one database, against these publications.
pub async fn check(
    conn: &mut PgConnection,
    published: &Published,
    keys: &PublicKeys,
    report: &mut Report,
) -> anyhow::Result<()> {
    unsealed(conn, report).await?;
    let stored = db::heads(conn).await?;
    let all = stored.iter().map(|head| ("ledger", head)).chain(published.heads.iter().map(|(at, head)| (*at, head)));
    let all: Vec<(&str, &Signed<Head>)> = all.collect();
    let seals = links(conn, all.iter().map(|(_, head)| (head.what.chain, head.what.seq)).collect(), report).await?;
    documents(conn, report).await?;
    let cuts = Cuts::of(conn).await?;
    let mut differing = published.unreadable.clone();
    heads(&all, keys, &seals, &cuts, &mut differing, report);
    late(conn, &stored, &seals, &mut differing).await?;
    let claim = "every signed head stands in its chain, every chain is signed to its end";
    report.add("I19", claim, all.len() as u64, differing);
    roots(conn, published, keys, &seals, &cuts, report).await
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

async fn from_topics(stores: &Stores, published: &mut Published) -> anyhow::Result<()> {
    let codec = Codec::new(&stores.registry.url);
    let mut reading = read(stores, topics::AUDIT_HEADS.name, topics::AUDIT_HEADS.partitions);
    while let Some(record) = reading.next().await? {
        let Some(event) = decoded::<AuditHeadSigned>(&codec, &record).await? else { continue };
        match Signed::<Head>::of_event(&event) {
            Some(head) => published.heads.push(("topic", head)),
            None => published.unreadable.push(format!("head of {} at {} on the topic", event.chain_id, event.seq)),
        }
    }
    let mut reading = read(stores, topics::AUDIT_ROOTS.name, topics::AUDIT_ROOTS.partitions);
    while let Some(record) = reading.next().await? {
        let Some(event) = decoded::<AuditRootSigned>(&codec, &record).await? else { continue };
        match Signed::<Root>::of_event(&event) {
            Some(root) => published.roots.push(("topic", root)),
            None => published.unreadable.push(format!("root of {} on the topic", event.location_id)),
        }
    }
    Ok(())
}

async fn from_clickhouse(stores: &Stores, published: &mut Published) -> anyhow::Result<()> {
    let clickhouse = ClickHouse::of(stores)?;
    let heads = "select toString(chain_id), epoch, seq, hash, toUnixTimestamp64Micro(signed_at), key_id, signature
                   from vorca_raw.audit_heads final";
    for line in clickhouse.text(heads).await?.lines() {
        match head_of(line) {
            Some(head) => published.heads.push(("ClickHouse", head)),
            None => published.unreadable.push(format!("head in ClickHouse: {line}")),
        }
    }
    let roots = "select toString(location_id), business_date, root_no, epoch, through_seq, leaf_count, root,
                        toUnixTimestamp64Micro(signed_at), key_id, signature from vorca_raw.audit_roots final";
    for line in clickhouse.text(roots).await?.lines() {
        match root_of(line) {
            Some(root) => published.roots.push(("ClickHouse", root)),
            None => published.unreadable.push(format!("root in ClickHouse: {line}")),
        }
    }
    Ok(())
}

fn head_of(line: &str) -> Option<Signed<Head>> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [chain, epoch, seq, hash, signed_at, key_id, signature] = fields.as_slice() else { return None };
    let what = Head {
        chain: chain.parse().ok()?,
        epoch: epoch.parse().ok()?,
        seq: seq.parse().ok()?,
        hash: hash_of_hex(hash)?,
        signed_at: signed_at.parse().ok()?,
    };
    Some(Signed { what, key_id: (*key_id).to_owned(), signature: unhex(signature)? })
}

fn root_of(line: &str) -> Option<Signed<Root>> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [location, date, number, epoch, through, count, hash, signed_at, key_id, signature] = fields.as_slice() else {
        return None;
    };
    let what = Root {
        location: location.parse().ok()?,
        date: date.parse().ok()?,
        number: number.parse().ok()?,
        epoch: epoch.parse().ok()?,
        through_seq: through.parse().ok()?,
        leaf_count: count.parse().ok()?,
        hash: hash_of_hex(hash)?,
        signed_at: signed_at.parse().ok()?,
    };
    Some(Signed { what, key_id: (*key_id).to_owned(), signature: unhex(signature)? })
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
struct Seals {
    /// Seals in each chain.
    ends: HashMap<Uuid, i64>,
    /// Hashes of the seals that were asked for.
    hashes: HashMap<(Uuid, i64), Hash>,
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
                 or not exists (select from audit_log a where a.target = 'sale/' || d.document_id))",
    )
    .fetch_all(&mut *conn)
    .await?;
    report.add("I19", "every document is in the chain of its location", count as u64, differing);
    let differing = sqlx::query_scalar::<_, String>(
        "select format('document %s: its digest is not that of its lines and tenders', document_id) from documents d
          where document_digest <> sha256(convert_to(
                coalesce((select string_agg(concat_ws('|', line_no, variant_id, qty, extended_minor, discount_minor, tax_minor,
                                                      added_tax_minor, net_minor, payable_minor) || E'\\n', '' order by line_no)
                            from document_lines l where l.document_id = d.document_id), '')
             || coalesce((select string_agg(concat_ws('|', tender_no, kind, amount_minor, tip_minor) || E'\\n', '' order by tender_no)
                            from document_tenders t where t.document_id = d.document_id), ''), 'UTF8'))",
    )
    .fetch_all(conn)
    .await?;
    report.add("I19", "a document's digest covers its lines and tenders", count as u64, differing);
    Ok(())
}

/// What restores gave up of the chains.
struct Cuts(BTreeMap<i64, HashMap<Uuid, i64>>);

impl Cuts {
    async fn of(conn: &mut PgConnection) -> anyhow::Result<Cuts> {
        let mut cuts: BTreeMap<i64, HashMap<Uuid, i64>> = BTreeMap::new();
        let epochs: Vec<i64> =
            sqlx::query_scalar("select epoch from epochs where epoch > 1").fetch_all(&mut *conn).await?;
        cuts.extend(epochs.into_iter().map(|epoch| (epoch, HashMap::new())));
        for row in sqlx::query("select epoch, chain, kept_seq from audit_cuts").fetch_all(conn).await? {
            cuts.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
        }
        Ok(Cuts(cuts))
    }

    /// Whether this seal of this epoch lies above what a later restore kept of the chain.
    fn gave_up(&self, chain: Uuid, epoch: i64, seq: i64) -> bool {
        self.0.iter().any(|(cut, kept)| epoch < *cut && seq > kept.get(&chain).copied().unwrap_or(0))
    }
}

/// Each signed head, stored or published, is the hash that stands in the chain.
fn heads(
    all: &[(&str, &Signed<Head>)],
    keys: &PublicKeys,
    seals: &Seals,
    cuts: &Cuts,
    differing: &mut Vec<String>,
    report: &mut Report,
) {
    for (place, head) in all {
        let Head { chain, epoch, seq, hash, .. } = head.what;
        let name = format!("head of chain {chain} at {seq} in epoch {epoch} ({place}, {})", hex(&hash));
        let stands = seals.hashes.get(&(chain, seq));
        if !keys.vouch_for(head) {
            differing.push(format!("{name}: no trusted key signed it"));
        } else if stands == Some(&hash) {
            continue;
        } else if cuts.gave_up(chain, epoch, seq) {
            report.notes.push(format!("I19 {name}: given up by a restore"));
        } else {
            let stands = stands.map_or("nothing there".to_owned(), |hash| hex(hash));
            differing.push(format!("{name}: the chain holds {stands}"));
        }
    }
}

/// Names each chain that goes on beyond its last signed head for longer than the sealer takes.
async fn late(
    conn: &mut PgConnection,
    stored: &[Signed<Head>],
    seals: &Seals,
    differing: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut newest: HashMap<Uuid, i64> = HashMap::new();
    for head in stored {
        let last = newest.entry(head.what.chain).or_default();
        *last = (*last).max(head.what.seq);
    }
    for (chain, end) in &seals.ends {
        let signed = newest.get(chain).copied().unwrap_or(0);
        let is_late: bool = sqlx::query_scalar(
            "select exists (select from audit_seals where chain = $1 and seq > $2 and sealed_at < now() - make_interval(secs => $3))",
        )
        .bind(chain)
        .bind(signed)
        .bind(HEADS_LATE.as_secs_f64())
        .fetch_one(&mut *conn)
        .await?;
        if is_late {
            differing.push(format!("chain {chain}: signed to {signed} of {end}"));
        }
    }
    Ok(())
}

/// Each root is that of its documents, and each published root is stored.
async fn roots(
    conn: &mut PgConnection,
    published: &Published,
    keys: &PublicKeys,
    seals: &Seals,
    cuts: &Cuts,
    report: &mut Report,
) -> anyhow::Result<()> {
    let stored = db::roots(conn).await?;
    let mut differing = Vec::new();
    let mut ends: HashMap<(Uuid, NaiveDate), (i32, i64)> = HashMap::new();
    for (root, after) in &stored {
        let Root { location, date, number, through_seq, leaf_count, hash, .. } = root.what;
        let name = format!("root {number} of {location} on {date}");
        let leaves = db::leaves(conn, (location, date), (*after, through_seq)).await?;
        let leaves: Vec<Hash> = leaves.into_iter().map(|(_, leaf)| leaf).collect();
        if !keys.vouch_for(root) {
            differing.push(format!("{name}: no trusted key signed it"));
        }
        if leaves.len() as i64 != leaf_count || merkle::root(&leaves) != hash {
            differing.push(format!("{name}: its {} documents give {}", leaves.len(), hex(&merkle::root(&leaves))));
        }
        let before = ends.insert((location, date), (number, through_seq)).unwrap_or((0, 0));
        if number != before.0 + 1 || *after < before.1 {
            differing.push(format!("{name} follows root {} badly", before.0));
        }
        let sealed = seals.ends.get(&location).copied().unwrap_or(0);
        if through_seq > sealed {
            differing.push(format!("{name} looked at seal {through_seq}, the chain ends at {sealed}"));
        }
    }
    let known: HashMap<_, _> =
        stored.iter().map(|(root, _)| ((root.what.location, root.what.date, root.what.number), root)).collect();
    for (place, root) in &published.roots {
        let Root { location, date, number, epoch, through_seq, hash, .. } = root.what;
        let name = format!("root {number} of {location} on {date} in epoch {epoch} ({place}, {})", hex(&hash));
        if !keys.vouch_for(root) {
            differing.push(format!("{name}: no trusted key signed it"));
        } else if known.get(&(location, date, number)).is_some_and(|stored| *stored == root) {
            continue;
        } else if cuts.gave_up(location, epoch, through_seq) {
            report.notes.push(format!("I19 {name}: given up by a restore"));
        } else {
            differing.push(format!("{name}: the ledger does not hold it"));
        }
    }
    let compared = (stored.len() + published.roots.len()) as u64;
    report.add("I19", "every signed root is that of its day's documents", compared, differing);
    Ok(())
}
