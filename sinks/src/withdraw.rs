//! Takes rows of a lost time line out (D15): a restore of the ledger begins a new epoch, and what earlier epochs
//! wrote above the last surviving number of a location never happened.
//!
//! A withdrawn row gets a tombstone of version (new epoch, 0): above everything the lost epoch wrote, below
//! everything the new one writes, so a sale that is sent again is visible again. The cuts stay in
//! `vorca_raw.epoch_cuts`, so that lost records that are still on their way are kept out as well.

use std::collections::HashMap;

use clickhouse::Row;
use schemas::ids::{LocationId, row_version};
use serde::Deserialize;
use uuid::Uuid;

use crate::marts::Touched;
use crate::store::{Store, StoreError};

/// What a restore kept of one location: everything up to `kept_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Row, Deserialize)]
pub struct Cut {
    /// Epoch that the restore began.
    pub epoch: i64,
    /// Nil: acts of the company.
    #[serde(with = "clickhouse::serde::uuid")]
    pub location_id: Uuid,
    pub kept_seq: i64,
}

/// The epoch a database is created with: nothing came before it.
const FIRST_EPOCH: i64 = 1;

/// All cuts, asked for each record.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Cuts(HashMap<Uuid, Vec<Cut>>);

impl Cuts {
    pub fn new(cuts: impl IntoIterator<Item = Cut>) -> Self {
        let mut all = Cuts::default();
        cuts.into_iter().for_each(|cut| all.insert(cut));
        all
    }

    /// Whether an act belongs to a time line that was given up.
    pub fn lost(&self, location: LocationId, epoch: i64, location_seq: i64) -> bool {
        let cuts = self.0.get(&location.0).map(Vec::as_slice).unwrap_or_default();
        cuts.iter().any(|cut| epoch < cut.epoch && location_seq > cut.kept_seq)
    }

    /// The cut that an act of a later epoch implies, unless it is known: numbers are gapless and published in
    /// order, so the first of an epoch follows the last that survived.
    pub fn implied(&self, location: LocationId, epoch: i64, location_seq: i64) -> Option<Cut> {
        let cuts = self.0.get(&location.0).map(Vec::as_slice).unwrap_or_default();
        let is_known = cuts.iter().any(|cut| cut.epoch == epoch && cut.kept_seq < location_seq);
        (epoch > FIRST_EPOCH && !is_known).then_some(Cut { epoch, location_id: location.0, kept_seq: location_seq - 1 })
    }

    /// Adds a cut.
    pub fn insert(&mut self, cut: Cut) {
        self.0.entry(cut.location_id).or_default().push(cut);
    }

    /// Cuts that `other` does not know.
    pub fn beyond(&self, other: &Cuts) -> Vec<Cut> {
        let known = |cut: &Cut| other.0.get(&cut.location_id).is_some_and(|cuts| cuts.contains(cut));
        self.0.values().flatten().filter(|cut| !known(cut)).copied().collect()
    }
}

/// All cuts ever made.
pub async fn cuts(store: &Store) -> Result<Cuts, StoreError> {
    let sql = "SELECT epoch, location_id, kept_seq FROM vorca_raw.epoch_cuts FINAL";
    Ok(Cuts::new(store.fetch::<Cut>(sql).await?))
}

/// Records the cuts and withdraws what they give up; returns the slots to compute again. May be repeated.
pub async fn withdraw(store: &Store, cuts: &[Cut]) -> Result<Touched, StoreError> {
    let mut touched = Touched::new();
    for chunk in cuts.chunks(200) {
        let values: Vec<String> =
            chunk.iter().map(|cut| format!("({}, '{}', {})", cut.epoch, cut.location_id, cut.kept_seq)).collect();
        let record = format!(
            "INSERT INTO vorca_raw.epoch_cuts (epoch, location_id, kept_seq) SELECT c.1, toUUID(c.2), c.3
             FROM (SELECT arrayJoin([{}]) AS c) SETTINGS async_insert = 0",
            values.join(", ")
        );
        store.execute(&record).await?;
        for cut in chunk {
            touched.extend(apply(store, cut).await?);
        }
    }
    Ok(touched)
}

/// Cuts for the locations that raw knows of older epochs and `kept` does not name: a restored ledger that does not have a
/// location kept nothing of it. `kept` has to be the whole list.
pub async fn unlisted(store: &Store, epoch: i64, kept: &[Cut]) -> Result<Vec<Cut>, StoreError> {
    let nil = Uuid::nil();
    let known: Vec<KnownLocation> = store
        .fetch(&format!(
            "SELECT DISTINCT location_id FROM (
                 SELECT location_id FROM vorca_raw.documents WHERE epoch < {epoch}
                 UNION ALL SELECT if(parent_location_id = '{nil}', location_id, parent_location_id)
                   FROM vorca_raw.movements WHERE epoch < {epoch}
                 UNION ALL SELECT location_id FROM vorca_raw.alerts WHERE epoch < {epoch}
             ) ORDER BY 1"
        ))
        .await?;
    let lost = known.into_iter().filter(|known| kept.iter().all(|cut| cut.location_id != known.location_id));
    Ok(lost.map(|lost| Cut { epoch, location_id: lost.location_id, kept_seq: 0 }).collect())
}

#[derive(Debug, Row, Deserialize)]
struct KnownLocation {
    #[serde(with = "clickhouse::serde::uuid")]
    location_id: Uuid,
}

/// Raw tables by location; a document after what it consists of.
const TABLES: [&str; 6] = ["lines", "tenders", "movements", "loyalty_entries", "alerts", "documents"];

async fn apply(store: &Store, cut: &Cut) -> Result<Touched, StoreError> {
    let Cut { epoch, location_id, kept_seq } = cut;
    let (tombstone, nil) = (row_version(*epoch, 0), Uuid::nil());
    let lost = format!("location_id = '{location_id}' AND epoch < {epoch} AND location_seq > {kept_seq}");
    // Lost documents, those included that an interrupted run has marked already: the log below must have them.
    let slots: Vec<crate::marts::Slice> = store
        .fetch(&format!(
            "SELECT DISTINCT location_id, business_date, slot FROM vorca_raw.documents WHERE {lost} ORDER BY 1, 2, 3"
        ))
        .await?;
    let log = format!(
        "INSERT INTO vorca_raw.withdrawals (location_id, business_date, slot, document_id, epoch, version, line_count)
         SELECT location_id, business_date, slot, document_id, {epoch}, {tombstone}, max(line_count)
         FROM vorca_raw.documents WHERE {lost}
         GROUP BY location_id, business_date, slot, document_id
         SETTINGS max_partitions_per_insert_block = 0, async_insert = 0"
    );
    for table in TABLES {
        // Stock of a system location goes with the acts of the location it belongs to.
        let lost = match table {
            "movements" => lost.replacen(
                "location_id = ",
                &format!("if(parent_location_id = '{nil}', location_id, parent_location_id) = "),
                1,
            ),
            _ => lost.clone(),
        };
        let mark = format!(
            "INSERT INTO vorca_raw.{table}
             SELECT * REPLACE ({tombstone} AS version, 1 AS is_deleted, now64(6, 'UTC') AS _ingested_at)
             FROM vorca_raw.{table} FINAL WHERE {lost}
             SETTINGS max_partitions_per_insert_block = 0, async_insert = 0"
        );
        store.execute(&mark).await?;
    }
    // Last: a mart that counts a withdrawal must find its tombstones.
    store.execute(&log).await?;
    Ok(slots.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beyond_the_cut_of_a_later_epoch_is_lost() {
        let here = Uuid::from_u128(1);
        let cuts = Cuts::new([Cut { epoch: 3, location_id: here, kept_seq: 10 }]);
        assert!(cuts.lost(LocationId(here), 1, 11));
        assert!(cuts.lost(LocationId(here), 2, 11));
        assert!(!cuts.lost(LocationId(here), 2, 10));
        assert!(!cuts.lost(LocationId(here), 3, 11));
        assert!(!cuts.lost(LocationId(Uuid::from_u128(2)), 1, 11));
    }

    #[test]
    fn the_first_act_of_an_epoch_implies_its_cut() {
        let here = LocationId(Uuid::from_u128(1));
        let mut cuts = Cuts::default();
        assert_eq!(cuts.implied(here, 1, 5), None, "nothing came before the first epoch");
        let cut = Cut { epoch: 2, location_id: here.0, kept_seq: 4 };
        assert_eq!(cuts.implied(here, 2, 5), Some(cut));
        cuts.insert(cut);
        assert_eq!(cuts.implied(here, 2, 6), None);
        let earlier = cuts.implied(here, 2, 4).expect("an earlier number of the epoch gives up more");
        cuts.insert(earlier);
        assert!(cuts.lost(here, 1, 4) && !cuts.lost(here, 1, 3));
    }

    #[test]
    fn new_cuts_are_told_from_known_ones() {
        let cut = |epoch| Cut { epoch, location_id: Uuid::from_u128(1), kept_seq: 1 };
        let (old, new) = (Cuts::new([cut(2)]), Cuts::new([cut(2), cut(3)]));
        assert_eq!(new.beyond(&old), [cut(3)]);
        assert_eq!(old.beyond(&new), []);
    }
}
