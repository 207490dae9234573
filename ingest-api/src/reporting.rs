//! `GET /reports/kpis`: figures out of ClickHouse, over its own connection and limits. When ClickHouse is
//! away this route says so (503) and nothing else notices.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, NaiveDate, Utc};
use schemas::ids::LocationId;
use schemas::money::Currency;
use serde::{Deserialize, Serialize};
use sinks::reports::{self, GroupBy, KpiQuery, KpiRow, ReportError};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::checks::Checks;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::Params;

/// What figures are told apart by, beside the currency.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    Day,
    Hour,
    Location,
    Product,
    Cashier,
    Tender,
}

/// Query of the KPIs. Days are business days, both included.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KpiParams {
    #[param(inline)]
    pub group_by: Grouping,
    pub from: NaiveDate,
    pub to: NaiveDate,
    pub location_id: Option<Uuid>,
    pub currency: Option<String>,
}

/// Figures of one group in one currency; what a group does not define is absent.
#[derive(Debug, Serialize, ToSchema)]
pub struct KpiItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_date: Option<NaiveDate>,
    /// Hour of the business day, from its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hour: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cashier_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tender: Option<String>,
    /// Name of the location or product, code of the cashier.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average_basket_minor: Option<i64>,
}

impl From<KpiRow> for KpiItem {
    fn from(row: KpiRow) -> Self {
        KpiItem {
            business_date: row.business_date,
            hour: row.hour,
            location_id: row.location_id.map(|id| id.0),
            product_id: row.product_id.map(|id| id.0),
            cashier_id: row.cashier_id.map(|id| id.0),
            tender: row.tender,
            name: row.name,
            currency: row.currency,
            documents: row.documents,
            gross_minor: row.gross_minor,
            discounts_minor: row.discounts_minor,
            returns_minor: row.returns_minor,
            net_minor: row.net_minor,
            tax_minor: row.tax_minor,
            collected_minor: row.collected_minor,
            units: row.units,
            average_basket_minor: row.average_basket_minor,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct KpiReport {
    /// Commit time of the newest document in what was asked for; null when there is none.
    pub fresh_as_of: Option<DateTime<Utc>>,
    /// Milliseconds since then.
    pub lag_ms: Option<i64>,
    /// More groups exist than were answered (10,000).
    pub is_truncated: bool,
    pub items: Vec<KpiItem>,
}

/// `GET /reports/kpis`
pub async fn list_kpis(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<KpiParams>,
) -> Result<Response, ApiError> {
    let mut checks = Checks::default();
    checks.date("/from", params.from);
    checks.date("/to", params.to);
    if let Some(currency) = &params.currency {
        checks.currency("/currency", currency);
    }
    checks.done()?;
    let locations = match params.location_id {
        Some(location) => {
            access.require_named(LocationId(location))?;
            Some(vec![LocationId(location)])
        }
        None => access.scope().map(|scope| scope.into_iter().map(LocationId).collect()),
    };
    let query = KpiQuery {
        group_by: match params.group_by {
            Grouping::Day => GroupBy::Day,
            Grouping::Hour => GroupBy::Hour,
            Grouping::Location => GroupBy::Location,
            Grouping::Product => GroupBy::Product,
            Grouping::Cashier => GroupBy::Cashier,
            Grouping::Tender => GroupBy::Tender,
        },
        from: params.from,
        to: params.to,
        locations,
        currency: params.currency.as_deref().and_then(|code| code.parse::<Currency>().ok()),
    };
    let away = || ApiError::unavailable("unavailable", "reports are not available; selling is not affected");
    let store = app.reports.as_ref().ok_or_else(away)?;
    let answer = reports::kpis(store, &query, Utc::now()).await.map_err(|error| match error {
        ReportError::Period => ApiError::invalid_value("/to", error.to_string()),
        ReportError::Unavailable(_) | ReportError::TimedOut => away().with_source(error),
    })?;
    let report = KpiReport {
        fresh_as_of: answer.fresh_as_of,
        lag_ms: answer.lag_ms,
        is_truncated: answer.is_truncated,
        items: answer.rows.into_iter().map(KpiItem::from).collect(),
    };
    json_response(StatusCode::OK, &report)
}
