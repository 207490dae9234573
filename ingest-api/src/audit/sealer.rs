//! The sealer: numbers and hashes the rows of the audit log, signs the heads of the chains and the roots of finished
//! days, and hands both to the outbox. One leader among all workers, by a session advisory lock on the very connection
//! it works with; a second one could do no harm, since a row and a number are sealed once by their identity.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use schemas::ids::COMPANY_STREAM;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use super::chain::{self, GENESIS, Hash};
use super::roots;
use super::signing::{Head, Signer};
use crate::db::audit::{self as db, Seal};
use crate::db::outbox::{self, Act};

/// Advisory lock of the leader: "vorcasea" as a number.
const LEADER_LOCK: i64 = 0x766f_7263_6173_6561;
/// Rows sealed by one transaction.
const SEALS_AT_ONCE: i64 = 2_000;
/// Records of one outbox row.
pub(super) const RECORDS_AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_secs(1);
/// How often the heads of chains that went on are signed: between two heads a chain can be written anew unseen.
const HEADS_EVERY: Duration = Duration::from_secs(10);
/// How often days that are over are looked for; what arrives late waits at most this long for its root.
const ROOTS_EVERY: Duration = Duration::from_secs(900);
/// Cause type of what the sealer publishes.
pub(super) const CAUSE: &str = "audit";

/// Session settings of the leader's connection. Its queries walk indexes from where it stands; only that is ever right.
const SETTINGS: [(&str, &str); 8] = [
    ("idle_session_timeout", "10s"),
    ("statement_timeout", "30s"),
    ("lock_timeout", "5s"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("TimeZone", "UTC"),
    ("application_name", "vorca-sealer"),
];

/// One sealing process: follower until it gets the lock, then leader until it loses it.
pub struct Sealer {
    pub options: PgConnectOptions,
    pub signer: Signer,
    pub health: Health,
}

impl Sealer {
    /// Runs until `stop`. Failures of the database are ridden out. Declares the readiness check `sealer`.
    pub async fn run(self, stop: Shutdown) {
        self.health.set("sealer", false, "starting");
        let mut signed = Heads::default();
        while !stop.is_cancelled() {
            if let Err(error) = self.lead(&mut signed, &stop).await {
                self.health.set("sealer", false, error.to_string());
                tracing::warn!(%error, "the sealer lost its session");
            }
            pause(&stop).await;
        }
    }

    /// One session: asks for the lock, and leads as long as it holds it.
    async fn lead(&self, signed: &mut Heads, stop: &Shutdown) -> Result<(), sqlx::Error> {
        let mut conn = connect(&self.options).await?;
        while !try_lock(&mut conn).await? {
            self.health.set("sealer", true, "follower");
            pause(stop).await;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
        db::settle_horizon(&mut conn).await?;
        tracing::info!(key = self.signer.key_id(), "this worker seals the audit log");
        self.health.set("sealer", true, "leader");
        let (mut heads, mut roots) = (None, None);
        while !stop.is_cancelled() {
            // A backlog is worked off without pause, and signed on the way.
            let is_behind = seal(&mut conn, SEALS_AT_ONCE).await? == SEALS_AT_ONCE as usize;
            if is_due(&mut heads, HEADS_EVERY) {
                self.sign_on(&mut conn, signed).await?;
            }
            if is_due(&mut roots, ROOTS_EVERY) {
                roots::close_days(&mut conn, &self.signer, Utc::now()).await?;
            }
            if !is_behind {
                pause(stop).await;
            }
        }
        // Gives the lock back at once; without this the session's end would.
        conn.close().await
    }

    /// Signs heads as long as those signed before still stand: a chain that was written anew gets no new signature from
    /// the one process that knows better. After a restore it has to be started again.
    async fn sign_on(&self, conn: &mut PgConnection, signed: &mut Heads) -> Result<(), sqlx::Error> {
        if let Some((chain, seq)) = signed.rewritten(conn).await? {
            let what = format!("chain {chain} does not hold the head signed at {seq}: nothing is signed any more");
            tracing::error!(%chain, seq, "a signed head does not stand; see the runbook audit-chain");
            self.health.set("sealer", false, what);
            return Ok(());
        }
        for head in sign_heads(conn, &self.signer).await? {
            signed.0.insert(head.chain, (head.seq, head.hash));
        }
        Ok(())
    }
}

/// A connection with the settings of the sealer.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect_with(&options.clone().options(SETTINGS).disable_statement_logging()).await
}

/// Whether it is time again; the first time always is.
fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let is_due = last.is_none_or(|last| last.elapsed() >= every);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

/// Seals at most `limit` rows; how many it were. One transaction.
pub async fn seal(conn: &mut PgConnection, limit: i64) -> Result<usize, sqlx::Error> {
    let mut tx = conn.begin().await?;
    let unsealed = db::unsealed(&mut tx, limit).await?;
    if unsealed.rows.is_empty() {
        tx.rollback().await?;
        return Ok(0);
    }
    let ids: Vec<Uuid> = unsealed.rows.iter().filter_map(|row| row.document()).collect();
    let documents = db::documents(&mut tx, &ids).await?;
    let mut chains: Vec<Uuid> = unsealed.rows.iter().map(|row| row.chain()).collect();
    chains.sort_unstable();
    chains.dedup();
    let mut last = db::last_seals(&mut tx, &chains).await?;
    let mut seals = Vec::with_capacity(unsealed.rows.len());
    for row in &unsealed.rows {
        let chain = row.chain();
        let (seq, prev_hash) = last.get(&chain).copied().unwrap_or((0, GENESIS));
        let record = row.document().and_then(|id| documents.get(&id));
        let document = record.map(|record| (record.document_id, record.business_date, record.leaf()));
        let encoded = row.encode(document.as_ref().map(|(.., leaf)| leaf));
        let hash = chain::link(chain, seq + 1, &prev_hash, &encoded);
        seals.push(Seal { chain, seq: seq + 1, audit_id: row.audit_id, document, prev_hash, hash });
        last.insert(chain, (seq + 1, hash));
    }
    db::seal(&mut tx, &seals, &unsealed).await?;
    tx.commit().await?;
    Ok(seals.len())
}

/// The newest head of each chain that this process has signed.
#[derive(Default)]
struct Heads(HashMap<Uuid, (i64, Hash)>);

impl Heads {
    /// A chain that holds something else in its place, or nothing.
    async fn rewritten(&self, conn: &mut PgConnection) -> Result<Option<(Uuid, i64)>, sqlx::Error> {
        let heads: Vec<(Uuid, i64, Hash)> = self.0.iter().map(|(chain, (seq, hash))| (*chain, *seq, *hash)).collect();
        db::fallen(conn, &heads).await
    }
}

/// Signs and publishes the head of every chain that went on, or was not signed in this epoch; which it were.
pub async fn sign_heads(conn: &mut PgConnection, signer: &Signer) -> Result<Vec<Head>, sqlx::Error> {
    let mut signed = Vec::new();
    loop {
        let mut tx = conn.begin().await?;
        let epoch = outbox::epoch(&mut tx).await?;
        let due = db::due_heads(&mut tx, epoch, RECORDS_AT_ONCE as i64).await?;
        if due.is_empty() {
            tx.rollback().await?;
            return Ok(signed);
        }
        let now = Utc::now();
        let seq = outbox::lock_stream(&mut tx, COMPANY_STREAM.0).await?;
        let mut act = Act::new(COMPANY_STREAM.0, seq, CAUSE, Uuid::now_v7(), "");
        db::keep_key(&mut tx, signer.key_id(), signer.public_key()).await?;
        let mut heads = Vec::with_capacity(due.len());
        for head in &due {
            let signed_at = now.timestamp_micros();
            let head = signer.sign(Head { chain: head.chain, epoch, seq: head.seq, hash: head.hash, signed_at });
            db::insert_head(&mut tx, &head).await?;
            act.push(&head.event());
            heads.push(head.what);
        }
        outbox::append(&mut tx, &act, epoch, now).await?;
        tx.commit().await?;
        signed.extend(heads);
    }
}

async fn try_lock(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LEADER_LOCK).fetch_one(conn).await
}

async fn pause(stop: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_due_at_once_and_then_after_its_time() {
        let mut last = None;
        assert!(is_due(&mut last, HEADS_EVERY) && !is_due(&mut last, HEADS_EVERY));
        assert!(is_due(&mut last, Duration::ZERO));
    }
}
