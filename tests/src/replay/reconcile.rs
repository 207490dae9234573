//! The end of an import: every row accepted, or refused with its reason; what was accepted stands in file,
//! Postgres and ClickHouse to the minor unit, per location and day.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::NaiveDate;
use chrono_tz::Tz;
use schemas::time::Day;
use serde::Deserialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::map::Map;
use super::plan::{self, Document, Files, Lines, Plan, id};
use super::progress_log::ProgressLog;
use super::rows::Refused;
use crate::endpoints::Endpoints;

/// How long ClickHouse may take to catch up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines and paid amounts of one location on one business day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DayTotal {
    pub lines: u64,
    pub paid_minor: i64,
}

/// Totals by location and business day.
pub type Totals = BTreeMap<(Uuid, NaiveDate), DayTotal>;

/// One location and day on which the three do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub location_id: Uuid,
    pub day: NaiveDate,
    pub file: DayTotal,
    pub postgres: DayTotal,
    pub clickhouse: DayTotal,
}

/// The result of an import.
#[derive(Debug)]
pub struct Reconciliation {
    pub accepted_rows: u64,
    /// Rows not accepted, by code.
    pub refused: BTreeMap<String, u64>,
    pub total: DayTotal,
    pub days: usize,
    pub differences: Vec<Difference>,
}

/// Compares the three and writes the report of refused rows.
pub async fn reconcile(
    endpoints: &Endpoints,
    map: &Map,
    plan: &Plan,
    files: &Files,
    log: &ProgressLog,
    report: &Path,
) -> anyhow::Result<Reconciliation> {
    let mut refused = BTreeMap::new();
    let file = in_file(map, plan, files, log, report, &mut refused)?;
    let postgres = in_postgres(&endpoints.postgres, map, plan).await.context("Postgres")?;
    let begin = Instant::now();
    let differences = loop {
        let clickhouse = in_clickhouse(endpoints, map, plan).await.context("ClickHouse")?;
        let differences = compare(&file, &postgres, &clickhouse);
        if differences.is_empty() || begin.elapsed() > PATIENCE || file != postgres {
            break differences;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let total = file.values().fold(DayTotal::default(), |sum, day| DayTotal {
        lines: sum.lines + day.lines,
        paid_minor: sum.paid_minor + day.paid_minor,
    });
    Ok(Reconciliation { accepted_rows: total.lines, refused, total, days: file.len(), differences })
}

/// What the file says was accepted; writes the refused rows on the way.
fn in_file(
    map: &Map,
    plan: &Plan,
    files: &Files,
    log: &ProgressLog,
    report: &Path,
    refused: &mut BTreeMap<String, u64>,
) -> anyhow::Result<Totals> {
    let mut report = csv::Writer::from_path(report).with_context(|| report.display().to_string())?;
    let mut note = |row: &Refused| -> anyhow::Result<()> {
        *refused.entry(row.code.clone()).or_default() += 1;
        Ok(report.serialize(row)?)
    };
    for row in plan::refused_rows(files)? {
        note(&row?)?;
    }
    let mut totals = Totals::new();
    for location in &plan.locations {
        let location_id = id(map, "location", &location.external_id);
        let documents: Lines<Document> = Lines::open(&files.documents(), location.offset)?;
        for document in documents.take(location.documents as usize) {
            let document = document?;
            if let Some(why) = log.refused(document.sale_id) {
                for line in &document.lines {
                    note(&Refused {
                        line: line.line,
                        document: document.document.clone(),
                        sku: line.sku.clone(),
                        code: why.code.clone(),
                        reason: why.reason.clone(),
                    })?;
                }
                continue;
            }
            let day = document.occurred_at.with_timezone::<Tz>(&map.constants.zone).date_naive();
            let total = totals.entry((location_id, day)).or_default();
            total.lines += document.lines.len() as u64;
            total.paid_minor += document.paid_minor();
        }
    }
    report.flush()?;
    Ok(totals)
}

async fn in_postgres(url: &str, map: &Map, plan: &Plan) -> anyhow::Result<Totals> {
    let pool = PgPool::connect(url).await?;
    let locations: Vec<Uuid> =
        plan.locations.iter().map(|location| id(map, "location", &location.external_id)).collect();
    let rows: Vec<(Uuid, NaiveDate, i64, i64)> = sqlx::query_as(
        "select d.location_id, d.business_date, count(*), sum(l.payable_minor)::bigint
         from documents d join document_lines l using (document_id)
         where d.location_id = any($1) group by 1, 2",
    )
    .bind(&locations)
    .fetch_all(&pool)
    .await?;
    pool.close().await;
    Ok(rows
        .into_iter()
        .map(|(id, day, lines, paid)| ((id, day), DayTotal { lines: lines as u64, paid_minor: paid }))
        .collect())
}

async fn in_clickhouse(endpoints: &Endpoints, map: &Map, plan: &Plan) -> anyhow::Result<Totals> {
    #[derive(Deserialize)]
    struct Row {
        location_id: Uuid,
        day: i32,
        lines: u64,
        paid_minor: i64,
    }
    let minor_units = 10_i64.pow(map.constants.currency.exponent());
    let mut totals = Totals::new();
    for locations in plan.locations.chunks(200) {
        let ids: Vec<String> =
            locations.iter().map(|location| format!("'{}'", id(map, "location", &location.external_id))).collect();
        let sql = format!(
            "select location_id, toInt32(business_date) as day, count() as lines, toInt64(sum(payable) * {minor_units}) as paid_minor
             from vorca.fct_lines where location_id in ({}) group by 1, 2
             format JSONEachRow settings output_format_json_quote_64bit_integers = 0",
            ids.join(",")
        );
        for row in crate::analyst::query::<Row>(endpoints, &sql).await? {
            let day = Day(row.day).to_date();
            totals.insert((row.location_id, day), DayTotal { lines: row.lines, paid_minor: row.paid_minor });
        }
    }
    Ok(totals)
}

/// Every location and day on which the three differ.
pub fn compare(file: &Totals, postgres: &Totals, clickhouse: &Totals) -> Vec<Difference> {
    let mut keys: Vec<&(Uuid, NaiveDate)> = file.keys().chain(postgres.keys()).chain(clickhouse.keys()).collect();
    keys.sort();
    keys.dedup();
    let of = |totals: &Totals, key: &(Uuid, NaiveDate)| totals.get(key).copied().unwrap_or_default();
    keys.into_iter()
        .filter(|key| of(file, key) != of(postgres, key) || of(file, key) != of(clickhouse, key))
        .map(|key| Difference {
            location_id: key.0,
            day: key.1,
            file: of(file, key),
            postgres: of(postgres, key),
            clickhouse: of(clickhouse, key),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cent_or_a_line_apart_is_a_difference_wherever_it_is() {
        let day = |n| (Uuid::from_u128(n), NaiveDate::from_ymd_opt(2017, 1, 1).unwrap());
        let totals: Totals = (1..4).map(|n| (day(n), DayTotal { lines: 2, paid_minor: 100 })).collect();
        assert_eq!(compare(&totals, &totals, &totals), []);
        let mut cent = totals.clone();
        cent.insert(day(2), DayTotal { lines: 2, paid_minor: 101 });
        let mut missing = totals.clone();
        missing.remove(&day(3));
        for (file, postgres, clickhouse) in
            [(&cent, &totals, &totals), (&totals, &cent, &totals), (&totals, &totals, &missing)]
        {
            assert_eq!(compare(file, postgres, clickhouse).len(), 1);
        }
    }
}
