//! KPI questions to ClickHouse, as a library: the ingest API is the one public door. Reads the views of the
//! database `vorca` with their own connection and limits, so that a slow ClickHouse slows nobody who sells.
//!
//! Amounts come back as minor units with their currency; every row has exactly one currency, so nothing adds two.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clickhouse::Row;
use schemas::ids::{LocationId, ProductId, UserId};
use schemas::money::Currency;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Longest a KPI question may take.
pub const QUERY_MAX: Duration = Duration::from_secs(5);
/// Most rows of one answer.
pub const ROWS_MAX: u32 = 10_000;
/// Most business days of one question.
pub const DAYS_MAX: i64 = 400;

/// What the figures are told apart by, beside the currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Business day.
    Day,
    /// Business day and hour of it.
    Hour,
    Location,
    Product,
    Cashier,
    /// Kind of tender: documents and collected only.
    Tender,
}

/// One question. Days are business days, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KpiQuery {
    pub group_by: GroupBy,
    pub from: NaiveDate,
    pub to: NaiveDate,
    /// Locations the asker may see; none: all.
    pub locations: Option<Vec<LocationId>>,
    pub currency: Option<Currency>,
}

/// Figures of one group and currency. What the group does not define is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KpiRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_date: Option<NaiveDate>,
    /// Hour of the business day, from its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location_id: Option<LocationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_id: Option<ProductId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cashier_id: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tender: Option<String>,
    /// Name of the location or product, code of the cashier; absent while ClickHouse has not seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub currency: String,
    pub documents: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gross_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discounts_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returns_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tax_minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collected_minor: Option<i64>,
    /// Thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<i64>,
    /// net / documents, rounded half away from zero; absent without documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_basket_minor: Option<i64>,
}

/// The answer and how fresh it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KpiAnswer {
    /// Commit time of the newest document in the slices these figures come from; absent when there is none.
    pub fresh_as_of: Option<DateTime<Utc>>,
    /// Time since then. An upper bound of how far the figures are behind: it also grows while nobody sells.
    pub lag_ms: Option<i64>,
    /// More groups exist than [`ROWS_MAX`].
    pub is_truncated: bool,
    pub rows: Vec<KpiRow>,
}

/// A question that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// `from` lies after `to`, or more than [`DAYS_MAX`] days apart.
    #[error("the period must start before it ends and have at most {DAYS_MAX} days")]
    Period,
    /// ClickHouse is away, slow or refuses: selling goes on, reports do not.
    #[error("reports are not available: {0}")]
    Unavailable(#[source] StoreError),
    #[error("the question took longer than {} s", QUERY_MAX.as_secs())]
    TimedOut,
}

#[derive(Debug, Row, Deserialize)]
struct Answered {
    business_date: i32,
    hour: u8,
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    label: String,
    currency: String,
    documents: u64,
    gross: i64,
    discounts: i64,
    returns: i64,
    net: i64,
    tax: i64,
    collected: i64,
    units: i64,
    /// Microseconds, of all groups together.
    newest: i64,
}

/// Answers a question as of `now`. Two questions about the same state give the same rows in the same order.
pub async fn kpis(store: &Store, query: &KpiQuery, now: DateTime<Utc>) -> Result<KpiAnswer, ReportError> {
    let days = (query.to - query.from).num_days();
    if !(0..DAYS_MAX).contains(&days) {
        return Err(ReportError::Period);
    }
    let answered = match tokio::time::timeout(QUERY_MAX, store.fetch::<Answered>(&sql(query))).await {
        Ok(done) => done.map_err(ReportError::Unavailable)?,
        Err(_) => return Err(ReportError::TimedOut),
    };
    let fresh_as_of = answered.first().and_then(|row| DateTime::from_timestamp_micros(row.newest));
    let is_truncated = answered.len() > ROWS_MAX as usize;
    let rows = answered.into_iter().take(ROWS_MAX as usize).map(|row| row.into_kpi(query.group_by)).collect();
    let lag_ms = fresh_as_of.map(|at| (now - at).max(TimeDelta::zero()).num_milliseconds());
    Ok(KpiAnswer { fresh_as_of, lag_ms, is_truncated, rows })
}

fn sql(query: &KpiQuery) -> String {
    const NIL: &str = "toUUID('00000000-0000-0000-0000-000000000000')";
    let shape = |date: &str, hour: &str, id: &str, label: &str| {
        format!("{date} AS business_date, {hour} AS hour, {id} AS id, {label} AS label")
    };
    let (view, keys) = match query.group_by {
        GroupBy::Day => ("agg_slot_sales", shape("f.business_date", "toUInt8(0)", NIL, "''")),
        GroupBy::Hour => ("agg_slot_sales", shape("f.business_date", "f.hour", NIL, "''")),
        GroupBy::Location => ("agg_slot_sales", shape("toDate32(0)", "toUInt8(0)", "f.location_id", "''")),
        GroupBy::Product => ("agg_day_products", shape("toDate32(0)", "toUInt8(0)", "f.product_id", "''")),
        GroupBy::Cashier => ("agg_slot_sales", shape("toDate32(0)", "toUInt8(0)", "f.cashier_id", "''")),
        GroupBy::Tender => ("agg_slot_tenders", shape("toDate32(0)", "toUInt8(0)", NIL, "toString(f.tender)")),
    };
    // Exact: decimals times the scale of their currency.
    let minor = |figure: &str| format!("toInt64(sum(f.{figure}) * any(f.currency_scale)) AS {figure}");
    let none = |figure: &str| format!("toInt64(0) AS {figure}");
    let has_sales = query.group_by != GroupBy::Tender;
    let has_collected = query.group_by != GroupBy::Product;
    let mut figures: Vec<String> = ["gross", "discounts", "returns", "net", "tax"]
        .map(|figure| if has_sales { minor(figure) } else { none(figure) })
        .to_vec();
    figures.push(if has_collected { minor("collected") } else { none("collected") });
    figures.push(if has_sales { "toInt64(sum(f.units) * 1000) AS units".to_owned() } else { none("units") });
    let mut conditions =
        vec![format!("f.business_date BETWEEN toDate32('{}') AND toDate32('{}')", query.from, query.to)];
    if let Some(locations) = &query.locations {
        let ids: Vec<String> = locations.iter().map(|id| format!("toUUID('{id}')")).collect();
        conditions.push(if ids.is_empty() { "0".to_owned() } else { format!("f.location_id IN ({})", ids.join(", ")) });
    }
    if let Some(currency) = &query.currency {
        conditions.push(format!("f.currency = '{}'", currency.as_str()));
    }
    let (join, name) = match query.group_by {
        GroupBy::Location => ("LEFT JOIN vorca.dim_location AS d ON d.location_id = k.id", "d.name"),
        GroupBy::Product => (
            "LEFT JOIN (SELECT product_id, any(product_name) AS name FROM vorca.dim_product GROUP BY product_id) AS d
             ON d.product_id = k.id",
            "d.name",
        ),
        GroupBy::Cashier => ("LEFT JOIN vorca.dim_cashier AS d ON d.cashier_id = k.id", "toString(d.code)"),
        _ => ("", "k.label"),
    };
    format!(
        "SELECT k.business_date, k.hour, k.id, {name} AS label, k.currency, k.documents,
             k.gross, k.discounts, k.returns, k.net, k.tax, k.collected, k.units,
             toUnixTimestamp64Micro(max(k.newest) OVER ()) AS newest
         FROM (
             SELECT {keys}, toString(f.currency) AS currency, sum(f.documents) AS documents, {figures},
                 max(f.newest_recorded_at) AS newest
             FROM vorca.{view} AS f WHERE {conditions}
             GROUP BY business_date, hour, id, label, currency
         ) AS k {join}
         ORDER BY k.business_date, k.hour, k.currency, k.net DESC, k.collected DESC, k.id, label
         LIMIT {limit}",
        figures = figures.join(", "),
        conditions = conditions.join(" AND "),
        limit = ROWS_MAX + 1,
    )
}

impl Answered {
    fn into_kpi(self, group_by: GroupBy) -> KpiRow {
        let mut row = KpiRow { currency: self.currency, documents: self.documents, ..KpiRow::default() };
        let date = || schemas::time::Day(self.business_date).to_date();
        let name = Some(self.label).filter(|text| !text.is_empty());
        match group_by {
            GroupBy::Day => row.business_date = Some(date()),
            GroupBy::Hour => (row.business_date, row.hour) = (Some(date()), Some(self.hour)),
            GroupBy::Location => (row.location_id, row.name) = (Some(LocationId(self.id)), name),
            GroupBy::Product => (row.product_id, row.name) = (Some(ProductId(self.id)), name),
            GroupBy::Cashier => (row.cashier_id, row.name) = (Some(UserId(self.id)), name),
            GroupBy::Tender => row.tender = name,
        }
        if group_by != GroupBy::Product {
            row.collected_minor = Some(self.collected);
        }
        if group_by != GroupBy::Tender {
            row.gross_minor = Some(self.gross);
            row.discounts_minor = Some(self.discounts);
            row.returns_minor = Some(self.returns);
            row.net_minor = Some(self.net);
            row.tax_minor = Some(self.tax);
            row.units = Some(self.units);
            row.average_basket_minor = average(self.net, self.documents);
        }
        row
    }
}

/// net / documents, rounded half away from zero.
fn average(net: i64, documents: u64) -> Option<i64> {
    let (net, documents) = (i128::from(net), i128::from(documents));
    if documents == 0 {
        return None;
    }
    i64::try_from((2 * net + net.signum() * documents) / (2 * documents)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_exact_and_mirrors_returns() {
        assert_eq!(average(1000, 3), Some(333));
        assert_eq!(average(1001, 2), Some(501));
        assert_eq!(average(-1001, 2), Some(-501));
        assert_eq!(average(0, 5), Some(0));
        assert_eq!(average(7, 0), None);
    }
}
