//! KPI marts: slices computed from raw and written whole.
//!
//! A slice is one row of a mart table, its figures an array. It carries `slice_version` = (definition version,
//! data version); the table keeps the highest, so an older computation loses whenever it arrives, a figure that
//! vanished from raw vanishes with its slice, and nobody can read half of one. The data version is a sum of row
//! versions read in the very scan that made the figures, so it never claims more than they hold.
//!
//! Which slices are stale is found by comparing raw with mart, not by remembering; what the sink reports as
//! touched only makes it quick. The comparison goes piece by piece, so that a long history holds up nobody's figures.

use std::collections::BTreeSet;

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;

use crate::store::{Store, StoreError};

mod definition;
mod keeper;
pub use definition::{Definition, Grain, PRODUCTS, SALES};
pub use keeper::{Keeper, PENDING_MAX};

/// What is computed and replaced as one. A slice of a day has slot 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Row, Deserialize)]
pub struct Slice {
    #[serde(with = "clickhouse::serde::uuid")]
    pub location_id: Uuid,
    /// Days since 1970-01-01.
    pub business_date: i32,
    pub slot: u16,
}

/// Which slices a comparison covers.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    Days(Days),
    Locations(&'a [Uuid]),
}

/// Business days from the first to the last, as days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Row, Deserialize)]
pub struct Days {
    pub first: i32,
    pub last: i32,
}

/// Slices of one statement: bounds its length and memory.
const SLICES_MAX: usize = 500;

/// Rows of raw that a withdrawal takes out still count in a slice's data version.
#[derive(Debug, Row, Deserialize)]
struct Withdrawn {
    #[serde(with = "clickhouse::serde::uuid")]
    location_id: Uuid,
    business_date: i32,
    slot: u16,
    version: u128,
}

/// Slices whose mart row is missing or older than raw, in order.
pub async fn stale(store: &Store, kpi: &Definition, scope: Scope<'_>) -> Result<Vec<Slice>, StoreError> {
    stale_after(store, kpi, scope, None, usize::MAX).await
}

/// The first `max` of them, beyond `after`.
pub async fn stale_after(
    store: &Store,
    kpi: &Definition,
    scope: Scope<'_>,
    after: Option<Slice>,
    max: usize,
) -> Result<Vec<Slice>, StoreError> {
    let scope = match scope {
        Scope::Days(Days { first, last }) => format!("business_date BETWEEN toDate32({first}) AND toDate32({last})"),
        Scope::Locations(ids) => format!("has({}, location_id)", uuids(ids)),
    };
    let beyond = after.map_or("1".to_owned(), |Slice { location_id, business_date, slot }| {
        format!(
            "(location_id, business_date, slot) > (toUUID('{location_id}'), toDate32({business_date}), toUInt16({slot}))"
        )
    });
    let Definition { raw, slot, weight, mart, .. } = kpi;
    store
        .fetch(&format!(
            "SELECT location_id, business_date, slot
             FROM (
                 SELECT location_id, business_date, slot, sum(part) AS data_version
                 FROM (
                     SELECT location_id, business_date, {slot} AS slot, sum(toUInt128(version)) AS part
                     FROM vorca_raw.{raw} FINAL WHERE {scope} GROUP BY 1, 2, 3
                     UNION ALL
                     SELECT location_id, business_date, {slot} AS slot, sum(toUInt128(version) * {weight}) AS part
                     FROM vorca_raw.withdrawals FINAL WHERE {scope} GROUP BY 1, 2, 3
                 ) GROUP BY 1, 2, 3
             ) AS wanted
             LEFT JOIN (
                 SELECT location_id, business_date, slot, slice_version
                 FROM vorca_raw.{mart} FINAL WHERE {scope}
             ) AS held USING (location_id, business_date, slot)
             WHERE held.slice_version < {} + data_version AND {beyond}
             ORDER BY 1, 2, 3 LIMIT {max}",
            kpi.version_base()
        ))
        .await
}

/// Rows of raw whose slices are compared by one question.
const PIECE_ROWS: u64 = 1_000_000;

/// The history of a mart in stretches of days with about [`PIECE_ROWS`] rows of raw each, or one day; oldest first.
pub async fn pieces(store: &Store, kpi: &Definition) -> Result<Vec<Days>, StoreError> {
    store
        .fetch(&format!(
            "SELECT toInt32(min(day)) AS first, toInt32(max(day)) AS last
             FROM (
                 SELECT business_date AS day, intDiv(sum(count()) OVER (ORDER BY business_date), {PIECE_ROWS}) AS piece
                 FROM (
                     SELECT business_date FROM vorca_raw.{raw} UNION ALL SELECT business_date FROM vorca_raw.withdrawals
                 ) GROUP BY business_date
             ) GROUP BY piece ORDER BY piece",
            raw = kpi.raw
        ))
        .await
}

/// Computes the slices from raw and writes each whole. Computing one that is up to date changes nothing.
pub async fn recompute(store: &Store, kpi: &Definition, slices: &BTreeSet<Slice>) -> Result<(), StoreError> {
    let slices: Vec<Slice> = slices.iter().copied().collect();
    for chunk in slices.chunks(SLICES_MAX) {
        // Read before the scan: a withdrawal that counts here has its tombstones in raw already.
        let withdrawn = withdrawn(store, kpi, chunk).await?;
        store.execute(&recompute_sql(kpi, chunk, &withdrawn)).await?;
    }
    Ok(())
}

async fn withdrawn(store: &Store, kpi: &Definition, slices: &[Slice]) -> Result<Vec<Withdrawn>, StoreError> {
    let Definition { slot, weight, .. } = kpi;
    let condition = kpi.condition(slices);
    let sql = format!(
        "SELECT location_id, business_date, {slot} AS slot, sum(toUInt128(version) * {weight}) AS version
         FROM vorca_raw.withdrawals FINAL WHERE {condition} GROUP BY 1, 2, 3"
    );
    store.fetch(&sql).await
}

fn recompute_sql(kpi: &Definition, slices: &[Slice], withdrawn: &[Withdrawn]) -> String {
    let mut parts = kpi.select.replace("{slices}", &kpi.condition(slices));
    for row in withdrawn {
        parts.push_str(&format!(
            "\nUNION ALL SELECT toUUID('{}'), toDate32({}), toUInt16({}), toUInt128('{}'), toDateTime64(0, 6, 'UTC'), []",
            row.location_id, row.business_date, row.slot, row.version
        ));
    }
    format!(
        "INSERT INTO vorca_raw.{mart}
             (location_id, business_date, slot, slice_version, newest_recorded_at, computed_at, figures)
         SELECT location_id, business_date, slot, {base} + sum(data_version), max(newest_recorded_at), now64(6, 'UTC'),
             groupArrayArray(figures)
         FROM ({parts})
         GROUP BY location_id, business_date, slot
         SETTINGS max_partitions_per_insert_block = 0, async_insert = 0",
        mart = kpi.mart,
        base = kpi.version_base(),
    )
}

fn uuids(ids: &[Uuid]) -> String {
    let list: Vec<String> = ids.iter().map(|id| format!("toUUID('{id}')")).collect();
    format!("CAST([{}] AS Array(UUID))", list.join(", "))
}
/// Slices of documents that an insert touched.
pub type Touched = BTreeSet<Slice>;
