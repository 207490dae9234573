//! What the stores still have to hold: the outbox and the topics forget with time, and a restore gives a time line up.
//! Only what both sides of a comparison must still have is compared.

use std::collections::BTreeMap;
use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::topics::EVENTS_KEPT_MS;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::worker::upkeep;

/// How far back the outbox and the topics of events reach for certain.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Acts of this instant and later have their outbox row.
    pub outbox: DateTime<Utc>,
    /// Events of this instant and later are on their topic.
    pub topics: DateTime<Utc>,
}

impl Kept {
    pub fn at(now: DateTime<Utc>) -> Self {
        Kept { outbox: upkeep::kept_since(now), topics: now - TimeDelta::milliseconds(EVENTS_KEPT_MS) }
    }
}

/// What restores of the ledger gave up.
#[derive(Debug, Default)]
pub struct Restores {
    /// By the epoch that a restore began: each stream with the last number that survived.
    cuts: BTreeMap<i64, HashMap<Uuid, i64>>,
}

impl Restores {
    pub async fn of(pg: &PgPool) -> anyhow::Result<Restores> {
        let mut restores = Restores::default();
        for row in sqlx::query("select epoch, stream_id, kept_seq from epoch_cuts").fetch_all(pg).await? {
            restores.cuts.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
        }
        Ok(restores)
    }

    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty()
    }

    /// Whether an act belongs to a time line that was given up: of an older epoch, above what was kept of its stream,
    /// of which nothing was kept when the restored ledger did not have it.
    pub fn gave_up(&self, stream: Uuid, epoch: i64, seq: i64) -> bool {
        self.cuts.iter().any(|(cut, kept)| epoch < *cut && seq > kept.get(&stream).copied().unwrap_or(0))
    }

    /// Whether a state of the catalog is of an older epoch: the present one began with all of them.
    pub fn superseded(&self, epoch: i64) -> bool {
        self.cuts.keys().any(|cut| epoch < *cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_above_the_cut_in_an_older_epoch_was_given_up() {
        let (kept, lost) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let restores = Restores { cuts: BTreeMap::from([(3, HashMap::from([(kept, 10)]))]) };
        assert!(!restores.gave_up(kept, 2, 10) && restores.gave_up(kept, 2, 11) && restores.gave_up(kept, 1, 11));
        assert!(!restores.gave_up(kept, 3, 11), "what came after the restore");
        assert!(restores.gave_up(lost, 2, 1), "a location made after the backup");
        assert!(restores.superseded(2) && !restores.superseded(3));
        assert!(Restores::default().is_empty() && !Restores::default().gave_up(lost, 1, 1));
    }
}
