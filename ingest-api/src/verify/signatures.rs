//! The other half of I19: what was signed stands, as signed, in the chains and days it was signed about.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::NaiveDate;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::Report;
use super::chain::{HEADS_LATE, Seals};
use super::published::Published;
use crate::audit::chain::Hash;
use crate::audit::merkle;
use crate::audit::signing::{Head, PublicKeys, Root, Signed};
use crate::db::audit as db;
use crate::sales::hash::hex;

/// What restores gave up of the chains.
pub(super) struct Cuts(BTreeMap<i64, HashMap<Uuid, i64>>);

impl Cuts {
    /// Of the restores that somebody knows of; each other one is reported, and gives nothing up.
    pub async fn of(conn: &mut PgConnection, restored: &BTreeSet<i64>, report: &mut Report) -> anyhow::Result<Cuts> {
        let mut cuts: BTreeMap<i64, HashMap<Uuid, i64>> = BTreeMap::new();
        let epochs: Vec<i64> =
            sqlx::query_scalar("select epoch from epochs where epoch > 1 order by 1").fetch_all(&mut *conn).await?;
        let unknown = epochs.iter().filter(|epoch| !restored.contains(epoch));
        let differing = unknown.map(|epoch| {
            format!(
                "epoch {epoch}: --restored-epochs does not name it; a restore that nobody made hides what was forged"
            )
        });
        report.add(
            "I19",
            "every epoch began with a restore that is known of",
            epochs.len() as u64,
            differing.collect(),
        );
        cuts.extend(epochs.iter().filter(|epoch| restored.contains(epoch)).map(|epoch| (*epoch, HashMap::new())));
        for row in sqlx::query("select epoch, chain, kept_seq from audit_cuts").fetch_all(conn).await? {
            if let Some(kept) = cuts.get_mut(&row.get(0)) {
                kept.insert(row.get(1), row.get(2));
            }
        }
        Ok(Cuts(cuts))
    }

    /// Whether this seal of this epoch lies above what a later restore kept of the chain.
    fn gave_up(&self, chain: Uuid, epoch: i64, seq: i64) -> bool {
        self.0.iter().any(|(cut, kept)| epoch < *cut && seq > kept.get(&chain).copied().unwrap_or(0))
    }
}

/// Each signed head, stored or published, is the hash that stands in the chain.
pub(super) fn heads(
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
pub(super) async fn late(
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
pub(super) async fn roots(
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
        let stored = known.get(&(location, date, number));
        if !keys.vouch_for(root) {
            differing.push(format!("{name}: no trusted key signed it"));
        } else if stored.is_some_and(|stored| *stored == root) {
            continue;
        } else if stored.is_some_and(|stored| stored.what.epoch > epoch && stored.what.hash == hash) {
            // Signed after the copy that was restored, over documents that the copy held.
            report.notes.push(format!("I19 {name}: made again after a restore"));
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
