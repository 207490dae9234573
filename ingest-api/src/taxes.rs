//! Tax profiles: named taxes with dated rates. A document is judged by the rates in force when it occurred.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::{CODE_CHARS_MAX, Checks, NAME_CHARS_MAX, plain_decimal};
use crate::context::Context;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::db::taxes as db;
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Params, PathId, Valid};
use crate::page::{self, Page, PageParams};

const LIST: &str = "tax-profiles";
const RATES_MAX: usize = 10;

/// What a rate is taken of: each line, or the lines of a document together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaxScope {
    Line,
    Order,
}

impl TaxScope {
    pub fn as_str(self) -> &'static str {
        match self {
            TaxScope::Line => "line",
            TaxScope::Order => "order",
        }
    }
}

/// One tax of a rate set; their order is the order of computation.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRate {
    pub name: String,
    /// Exact decimal as text, 0 to below 10, at most six places: `"0.19"` is 19 %.
    #[serde(serialize_with = "rust_decimal::serde::str::serialize", deserialize_with = "plain_decimal")]
    #[schema(value_type = String)]
    pub rate: Decimal,
    /// Whether the price contains it.
    pub inclusive: bool,
    /// Taken of the base plus the taxes before it.
    #[serde(default)]
    pub compound: bool,
    #[serde(default = "line")]
    pub scope: TaxScope,
}

fn line() -> TaxScope {
    TaxScope::Line
}

/// A profile to be, with its first rate set.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTaxProfile {
    pub tax_profile_id: Option<Uuid>,
    pub external_id: String,
    pub name: String,
    pub valid_from: DateTime<Utc>,
    pub rates: Vec<NewRate>,
}

impl Body for NewTaxProfile {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/tax_profile_id", self.tax_profile_id);
        checks.text("/external_id", &mut self.external_id, CODE_CHARS_MAX);
        checks.text("/name", &mut self.name, NAME_CHARS_MAX);
        checks.instant("/valid_from", self.valid_from);
        check_rates(&mut self.rates, checks);
    }
}

/// The rates in force from an instant on; they replace the ones before as a whole.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRates {
    pub valid_from: DateTime<Utc>,
    pub rates: Vec<NewRate>,
}

impl Body for NewRates {
    fn check(&mut self, checks: &mut Checks) {
        checks.instant("/valid_from", self.valid_from);
        check_rates(&mut self.rates, checks);
    }
}

fn check_rates(rates: &mut [NewRate], checks: &mut Checks) {
    checks.rows("/rates", rates.len(), RATES_MAX);
    let mut names = Vec::new();
    for (i, rate) in rates.iter_mut().enumerate().take(RATES_MAX) {
        checks.text(format_args!("/rates/{i}/name"), &mut rate.name, NAME_CHARS_MAX);
        let is_in_range = rate.rate >= Decimal::ZERO && rate.rate < Decimal::TEN && rate.rate.normalize().scale() <= 6;
        checks.that(is_in_range, format_args!("/rates/{i}/rate"), "must lie in 0 to below 10, with six places at most");
        checks.that(!names.contains(&rate.name), format_args!("/rates/{i}/name"), "stands twice");
        names.push(rate.name.clone());
    }
}

/// One dated tax as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Rate {
    #[serde(skip)]
    #[schema(ignore)]
    pub tax_profile_id: Uuid,
    pub valid_from: DateTime<Utc>,
    pub ordinal: i16,
    pub tax_id: Uuid,
    pub name: String,
    #[serde(with = "rust_decimal::serde::str")]
    #[schema(value_type = String)]
    pub rate: Decimal,
    pub inclusive: bool,
    pub compound: bool,
    /// `line` or `order`.
    pub scope: String,
}

/// A profile with every rate it ever had, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaxProfile {
    pub tax_profile_id: Uuid,
    pub external_id: String,
    pub name: String,
    pub version: i64,
    pub rates: Vec<Rate>,
}

/// `POST /tax-profiles`
pub async fn create_tax_profile(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewTaxProfile>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let profile = app
        .writer
        .write((new, access.principal, context), |tx, (new, who, context)| {
            Box::pin(async move {
                let id = new.tax_profile_id.unwrap_or_else(Uuid::now_v7);
                let write = CatalogWrite::begin(tx).await?;
                db::insert(tx, id, &new.external_id, &new.name).await?;
                db::insert_rates(tx, id, new.valid_from, &new.rates).await?;
                finish(tx, write, who, context, "tax_profile.create", id, None).await
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &profile, profile.version)
}

/// `POST /tax-profiles/{tax_profile_id}/rates`
pub async fn add_rates(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(new): Valid<NewRates>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let profile = app
        .writer
        .write((id, if_match, new, access.principal, context), |tx, (id, if_match, new, who, context)| {
            Box::pin(async move {
                let write = CatalogWrite::begin(tx).await?;
                let before = db::find(tx, *id).await?.ok_or_else(|| ApiError::not_found("tax profile"))?;
                check_version(*if_match, before.version, new, &before)?;
                if before.rates.iter().any(|rate| rate.valid_from == new.valid_from) {
                    return Err(ApiError::conflict("already_exists", "rates from this instant on exist already"));
                }
                db::raise_version(tx, *id).await?;
                db::insert_rates(tx, *id, new.valid_from, &new.rates).await?;
                finish(tx, write, who, context, "tax_profile.rates", *id, Some(before)).await
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &profile, profile.version)
}

async fn finish(
    tx: &mut PgTx,
    mut write: CatalogWrite,
    who: &Principal,
    context: &Context,
    action: &str,
    id: Uuid,
    before: Option<TaxProfile>,
) -> Result<TaxProfile, ApiError> {
    let profile = db::find(tx, id).await?.ok_or_else(|| ApiError::not_found("tax profile"))?;
    write.change(Kind::TaxProfile, (id, profile.version), None, &profile)?;
    let entry = Entry::done(who, action, format!("tax_profile/{id}")).states(before.as_ref(), &profile);
    audit::record(tx, context, entry).await?;
    write.finish(tx, context, id).await?;
    Ok(profile)
}

/// `GET /tax-profiles/{tax_profile_id}`
pub async fn find_tax_profile(State(app): State<AppState>, PathId(id): PathId) -> Result<Response, ApiError> {
    let mut tx = app.snapshot().await?;
    let profile = db::find(&mut tx, id).await?.ok_or_else(|| ApiError::not_found("tax profile"))?;
    with_etag(StatusCode::OK, &profile, profile.version)
}

/// `GET /tax-profiles`
pub async fn list_tax_profiles(
    State(app): State<AppState>,
    Params(params): Params<PageParams>,
) -> Result<Response, ApiError> {
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let mut tx = app.snapshot().await?;
    let rows = db::list(&mut tx, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &TaxProfile| row.tax_profile_id)?;
    json_response(StatusCode::OK, &page)
}
