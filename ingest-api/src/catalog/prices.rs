//! Prices: append-only versions. A location's own price goes before the general one of its currency,
//! then the latest `valid_from`, then what was recorded last; windows are half-open.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::{AMOUNT_MAX, BULK_ROWS_MAX, Checks};
use crate::context::Context;
use crate::db::catalog as db;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::edits::json_response;
use crate::error::{ApiError, FieldProblem};
use crate::extract::{Body, Params, PathId, Valid};
use crate::page::{self, Page, PageParams};

const LIST: &str = "prices";

/// A price version as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Price {
    pub price_id: Uuid,
    pub variant_id: Uuid,
    /// Null: wherever the location has no price of its own and this currency.
    pub location_id: Option<Uuid>,
    pub currency: String,
    pub amount_minor: i64,
    pub tax_inclusive: bool,
    pub valid_from: DateTime<Utc>,
    /// The first instant it no longer holds.
    pub valid_to: Option<DateTime<Utc>>,
    pub catalog_version: i64,
}

/// A price version to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrice {
    pub variant_id: Uuid,
    pub location_id: Option<Uuid>,
    pub currency: String,
    pub amount_minor: i64,
    pub tax_inclusive: bool,
    pub valid_from: DateTime<Utc>,
    pub valid_to: Option<DateTime<Utc>>,
}

/// Price versions that come into being together or not at all.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrices {
    /// 1 to 10,000.
    pub prices: Vec<NewPrice>,
}

impl Body for NewPrices {
    const BYTES_MAX: usize = 8 << 20;
    fn check(&mut self, checks: &mut Checks) {
        checks.rows("/prices", self.prices.len(), BULK_ROWS_MAX);
        for (i, price) in self.prices.iter().enumerate().take(BULK_ROWS_MAX) {
            let terms = (price.currency.as_str(), price.amount_minor, price.valid_from, price.valid_to);
            check_terms(checks, &format_args!("/prices/{i}"), terms);
        }
    }
}

/// Checks that every price shares, in the bulk route too.
pub fn check_terms(
    checks: &mut Checks,
    at: &dyn std::fmt::Display,
    (currency, amount, from, to): (&str, i64, DateTime<Utc>, Option<DateTime<Utc>>),
) {
    checks.currency(format_args!("{at}/currency"), currency);
    checks.range(format_args!("{at}/amount_minor"), amount, 0..=AMOUNT_MAX);
    checks.instant(format_args!("{at}/valid_from"), from);
    if let Some(to) = to {
        checks.instant(format_args!("{at}/valid_to"), to);
        checks.that(to > from, format_args!("{at}/valid_to"), "must lie after valid_from");
    }
}

/// What was stored of a request for prices.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StoredPrices {
    pub catalog_version: i64,
    pub created: usize,
    /// Equal to what was in force already.
    pub unchanged: usize,
}

/// `POST /prices`
pub async fn create_prices(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewPrices>,
) -> Result<Response, ApiError> {
    require_scope(&access, new.prices.iter().map(|price| price.location_id))?;
    let _turn = super::upsert::one_at_a_time(&app).await?;
    let stored = app
        .writer
        .write((new.prices, access.principal, context), |tx, (prices, who, context)| {
            Box::pin(async move {
                db::allow_bulk(tx).await?;
                let mut write = CatalogWrite::begin(tx).await?;
                let created = store(tx, &mut write, prices, "/prices").await?;
                if created > 0 {
                    let target = format!("prices/{created}");
                    audit::record(tx, context, Entry::done(who, "price.create", target)).await?;
                }
                let catalog_version = write.finish(tx, context, Uuid::now_v7()).await?;
                Ok::<_, ApiError>(StoredPrices { catalog_version, created, unchanged: prices.len() - created })
            })
        })
        .await?;
    json_response(StatusCode::CREATED, &stored)
}

/// General prices need a grant for every location, a location's price one for it.
pub fn require_scope(access: &Access, locations: impl Iterator<Item = Option<Uuid>>) -> Result<(), ApiError> {
    for location in locations {
        match location {
            None => access.require_everywhere()?,
            Some(location) => access.require_named(LocationId(location))?,
        }
    }
    Ok(())
}

/// Stores the prices that say something new; returns how many. Variants and locations are checked.
pub async fn store(
    tx: &mut PgTx,
    write: &mut CatalogWrite,
    prices: &[NewPrice],
    pointer: &str,
) -> Result<usize, ApiError> {
    check_references(tx, prices, pointer).await?;
    let known = db::latest_prices(tx, prices).await?;
    let mut latest: HashMap<_, _> = known.into_iter().map(|price| (price_key(&price), price_terms(&price))).collect();
    let mut created = Vec::new();
    for new in prices {
        let price = Price {
            price_id: Uuid::now_v7(),
            variant_id: new.variant_id,
            location_id: new.location_id,
            currency: new.currency.clone(),
            amount_minor: new.amount_minor,
            tax_inclusive: new.tax_inclusive,
            valid_from: new.valid_from,
            valid_to: new.valid_to,
            catalog_version: write.next_version(),
        };
        let terms = price_terms(&price);
        if latest.insert(price_key(&price), terms) == Some(terms) {
            continue;
        }
        write.change(
            Kind::Price,
            (price.price_id, price.catalog_version),
            price.location_id.map(|at| vec![at]),
            &price,
        )?;
        created.push(price);
    }
    db::insert_prices(tx, &created).await?;
    Ok(created.len())
}

type PriceKey = (Uuid, Option<Uuid>, String, i64);

fn price_key(price: &Price) -> PriceKey {
    (price.variant_id, price.location_id, price.currency.clone(), price.valid_from.timestamp_micros())
}

fn price_terms(price: &Price) -> (i64, bool, Option<i64>) {
    (price.amount_minor, price.tax_inclusive, price.valid_to.map(|to| to.timestamp_micros()))
}

async fn check_references(tx: &mut PgTx, prices: &[NewPrice], pointer: &str) -> Result<(), ApiError> {
    let variants = db::known_variants(tx, prices.iter().map(|price| price.variant_id).collect()).await?;
    let currencies = db::currencies(tx, prices.iter().filter_map(|price| price.location_id).collect()).await?;
    let mut problems = Vec::new();
    for (i, price) in prices.iter().enumerate() {
        if !variants.contains(&price.variant_id) {
            problems.push(FieldProblem::value(format!("{pointer}/{i}/variant_id"), "no such variant"));
        }
        match price.location_id.map(|location| currencies.get(&location)) {
            Some(None) => problems.push(FieldProblem::value(format!("{pointer}/{i}/location_id"), "no such location")),
            Some(Some(currency)) if *currency != price.currency => {
                let text = format!("the location counts in {currency}");
                problems.push(FieldProblem::value(format!("{pointer}/{i}/currency"), text));
            }
            _ => {}
        }
    }
    problems.truncate(100);
    if problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(problems)) }
}

/// `GET /variants/{variant_id}/prices`
pub async fn list_prices(
    State(app): State<AppState>,
    access: Access,
    PathId(id): PathId,
    Params(params): Params<PageParams>,
) -> Result<Response, ApiError> {
    let limit = page::limit(params.limit)?;
    let list = format!("{LIST}/{id}");
    let after: Option<Uuid> = app.auth.cursors.open(&list, params.cursor.as_deref())?;
    if db::find_variant(&app.reads, id).await?.is_none() {
        return Err(ApiError::not_found("variant"));
    }
    let rows = db::list_prices(&app.reads, id, access.scope(), after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, &list, |row: &Price| row.price_id)?;
    json_response(StatusCode::OK, &page)
}
