//! `POST /catalog/upsert`: products, variants and prices by the caller's own identifiers, up to 10,000
//! rows in one atomic call, set by set. Sent again it changes nothing and says so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::catalog::note_variant;
use crate::catalog::prices::{self, NewPrice, check_terms};
use crate::catalog::variants::{barcodes, check_barcodes, check_cost, check_sku, check_unit};
use crate::checks::{BULK_ROWS_MAX, CODE_CHARS_MAX, Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::catalog as db;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::edits::json_response;
use crate::error::{ApiError, FieldProblem};
use crate::extract::{Body, Valid};

const BULK_WAIT: Duration = Duration::from_secs(20);
const BODY_BYTES_MAX: usize = 32 << 20;

/// The turn of a company-wide bulk write, until it is dropped: 403 without a grant for every location, 503 when the
/// turn does not come. Taken before the body is read, so that only one large body is in memory.
pub struct BulkTurn(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

impl FromRequestParts<AppState> for BulkTurn {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        Access::from_request_parts(parts, app).await?.require_everywhere()?;
        one_at_a_time(app).await.map(BulkTurn)
    }
}

/// Waits for the turn of a bulk write; 503 when it does not come.
pub async fn one_at_a_time(app: &AppState) -> Result<OwnedSemaphorePermit, ApiError> {
    let busy = || ApiError::unavailable("overloaded", "another bulk write is running");
    let turn = Arc::clone(&app.bulk).acquire_owned();
    tokio::time::timeout(BULK_WAIT, turn).await.map_err(|_| busy())?.map_err(|_| busy())
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductRow {
    pub external_id: String,
    pub name: String,
    pub category: Option<String>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VariantRow {
    pub external_id: String,
    /// Of this call or of an earlier one.
    pub product_external_id: String,
    pub sku: String,
    pub name: String,
    /// GTINs, all of them; none unless said otherwise.
    #[serde(default, deserialize_with = "barcodes")]
    pub barcodes: Option<Vec<String>>,
    /// `piece` unless said otherwise.
    pub unit: Option<String>,
    /// False unless said otherwise.
    pub is_measured: Option<bool>,
    /// True unless said otherwise.
    pub tracks_stock: Option<bool>,
    pub tax_profile_external_id: String,
    pub unit_cost_minor: Option<i64>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    pub variant_external_id: String,
    /// Absent: the general price of this currency.
    pub location_external_id: Option<String>,
    pub currency: String,
    pub amount_minor: i64,
    pub tax_inclusive: bool,
    pub valid_from: DateTime<Utc>,
    pub valid_to: Option<DateTime<Utc>>,
}

/// The rows of one call, 1 to 10,000 together.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogUpsert {
    #[serde(default)]
    pub products: Vec<ProductRow>,
    #[serde(default)]
    pub variants: Vec<VariantRow>,
    #[serde(default)]
    pub prices: Vec<PriceRow>,
}

impl Body for CatalogUpsert {
    const BYTES_MAX: usize = BODY_BYTES_MAX;
    fn check(&mut self, checks: &mut Checks) {
        checks.rows("", self.products.len() + self.variants.len() + self.prices.len(), BULK_ROWS_MAX);
        for (i, row) in self.products.iter_mut().enumerate().take(BULK_ROWS_MAX) {
            checks.text(format_args!("/products/{i}/external_id"), &mut row.external_id, CODE_CHARS_MAX);
            checks.text(format_args!("/products/{i}/name"), &mut row.name, NAME_CHARS_MAX);
            if row.category.as_deref().is_some_and(|category| category.trim().is_empty()) {
                row.category = None;
            }
            checks.text_opt(format_args!("/products/{i}/category"), &mut row.category, NAME_CHARS_MAX);
        }
        for (i, row) in self.variants.iter_mut().enumerate().take(BULK_ROWS_MAX) {
            check_variant(checks, i, row);
        }
        for (i, row) in self.prices.iter_mut().enumerate().take(BULK_ROWS_MAX) {
            checks.text(format_args!("/prices/{i}/variant_external_id"), &mut row.variant_external_id, CODE_CHARS_MAX);
            checks.text_opt(
                format_args!("/prices/{i}/location_external_id"),
                &mut row.location_external_id,
                CODE_CHARS_MAX,
            );
            let terms = (row.currency.as_str(), row.amount_minor, row.valid_from, row.valid_to);
            check_terms(checks, &format_args!("/prices/{i}"), terms);
        }
        check_twins(checks, self);
    }
}

fn check_variant(checks: &mut Checks, i: usize, row: &mut VariantRow) {
    checks.text(format_args!("/variants/{i}/external_id"), &mut row.external_id, CODE_CHARS_MAX);
    checks.text(format_args!("/variants/{i}/product_external_id"), &mut row.product_external_id, CODE_CHARS_MAX);
    checks.text(
        format_args!("/variants/{i}/tax_profile_external_id"),
        &mut row.tax_profile_external_id,
        CODE_CHARS_MAX,
    );
    check_sku(checks, format_args!("/variants/{i}/sku"), &mut row.sku);
    checks.text(format_args!("/variants/{i}/name"), &mut row.name, NAME_CHARS_MAX);
    check_barcodes(checks, format_args!("/variants/{i}/barcodes"), row.barcodes.as_deref().unwrap_or_default());
    check_unit(checks, format_args!("/variants/{i}/unit"), &mut row.unit);
    check_cost(checks, format_args!("/variants/{i}/unit_cost_minor"), row.unit_cost_minor);
}

/// One call may say each thing once.
fn check_twins(checks: &mut Checks, rows: &CatalogUpsert) {
    let (mut products, mut variants, mut skus) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, row) in rows.products.iter().enumerate() {
        checks.that(products.insert(&row.external_id), format_args!("/products/{i}/external_id"), "stands twice");
    }
    for (i, row) in rows.variants.iter().enumerate() {
        checks.that(variants.insert(&row.external_id), format_args!("/variants/{i}/external_id"), "stands twice");
        checks.that(skus.insert(&row.sku), format_args!("/variants/{i}/sku"), "stands twice");
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StoredProduct {
    pub external_id: String,
    pub product_id: Uuid,
    pub version: i64,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StoredVariant {
    pub external_id: String,
    pub variant_id: Uuid,
    pub version: i64,
}

/// What a call did, with the identifier and version of each product and variant it named.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CatalogStored {
    pub catalog_version: i64,
    pub created: usize,
    pub updated: usize,
    pub unchanged: usize,
    pub products: Vec<StoredProduct>,
    pub variants: Vec<StoredVariant>,
}

/// Rows counted by what became of them.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    created: usize,
    updated: usize,
    unchanged: usize,
}

/// `POST /catalog/upsert`
pub async fn upsert_catalog(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    _turn: BulkTurn,
    Valid(rows): Valid<CatalogUpsert>,
) -> Result<Response, ApiError> {
    let stored = app
        .writer
        .write((rows, access.principal, context), |tx, (rows, who, context)| {
            Box::pin(async move { store(tx, rows, who, context).await })
        })
        .await?;
    json_response(StatusCode::OK, &stored)
}

async fn store(
    tx: &mut PgTx,
    rows: &CatalogUpsert,
    who: &Principal,
    context: &Context,
) -> Result<CatalogStored, ApiError> {
    db::allow_bulk(tx).await?;
    let mut write = CatalogWrite::begin(tx).await?;
    let mut counts = Counts::default();
    let (products, renamed) = store_products(tx, &mut write, &rows.products, &mut counts).await?;
    let variants = store_variants(tx, &mut write, &rows.variants, &mut counts).await?;
    touch_renamed(tx, &mut write, renamed).await?;
    let new_prices = resolve_prices(tx, &rows.prices).await?;
    let created = prices::store(tx, &mut write, &new_prices, "/prices").await?;
    counts.created += created;
    counts.unchanged += new_prices.len() - created;
    if counts.created + counts.updated > 0 {
        let target = format!("catalog/{}+{}", counts.created, counts.updated);
        audit::record(tx, context, Entry::done(who, "catalog.upsert", target)).await?;
    }
    let catalog_version = write.finish(tx, context, Uuid::now_v7()).await?;
    let Counts { created, updated, unchanged } = counts;
    // A rename in this very call gave some variants one more version.
    let variants = db::variant_versions(tx, variants.into_iter().map(|variant| variant.variant_id).collect()).await?;
    Ok(CatalogStored { catalog_version, created, updated, unchanged, products, variants })
}

async fn store_products(
    tx: &mut PgTx,
    write: &mut CatalogWrite,
    rows: &[ProductRow],
    counts: &mut Counts,
) -> Result<(Vec<StoredProduct>, Vec<Uuid>), ApiError> {
    let changed = db::upsert_products(tx, rows).await?;
    let mut renamed = Vec::new();
    for product in &changed {
        write.change(Kind::Product, (product.product_id, product.version), None, product)?;
        if product.version == 1 {
            counts.created += 1;
        } else {
            counts.updated += 1;
            renamed.push(product.product_id);
        }
    }
    counts.unchanged += rows.len() - changed.len();
    let named = rows.iter().map(|row| row.external_id.clone()).collect();
    Ok((db::product_versions(tx, named).await?, renamed))
}

async fn store_variants(
    tx: &mut PgTx,
    write: &mut CatalogWrite,
    rows: &[VariantRow],
    counts: &mut Counts,
) -> Result<Vec<StoredVariant>, ApiError> {
    let products = db::product_ids(tx, rows.iter().map(|row| row.product_external_id.clone()).collect()).await?;
    let profiles =
        db::tax_profile_ids(tx, rows.iter().map(|row| row.tax_profile_external_id.clone()).collect()).await?;
    let mut problems = Vec::new();
    let (mut product_ids, mut profile_ids) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for (i, row) in rows.iter().enumerate() {
        match products.get(&row.product_external_id) {
            Some(id) => product_ids.push(*id),
            None => problems.push(missing(format!("/variants/{i}/product_external_id"), "product")),
        }
        match profiles.get(&row.tax_profile_external_id) {
            Some(id) => profile_ids.push(*id),
            None => problems.push(missing(format!("/variants/{i}/tax_profile_external_id"), "tax profile")),
        }
    }
    refuse(problems)?;
    let taken = db::taken_skus(tx, rows).await?;
    ApiError::taken(taken.into_iter().map(|i| format!("/variants/{i}/sku")))?;
    let changed = db::upsert_variants(tx, rows, product_ids, profile_ids).await?;
    for variant in db::find_variants(tx, &changed).await? {
        if variant.version == 1 {
            counts.created += 1
        } else {
            counts.updated += 1
        }
        note_variant(write, &variant)?;
    }
    counts.unchanged += rows.len() - changed.len();
    Ok(db::variants_by_external_id(tx, rows.iter().map(|row| row.external_id.clone()).collect()).await?)
}

/// Variants repeat their product's name: those that this call did not change anyway take a version too.
async fn touch_renamed(tx: &mut PgTx, write: &mut CatalogWrite, renamed: Vec<Uuid>) -> Result<(), ApiError> {
    if renamed.is_empty() {
        return Ok(());
    }
    for variant in db::touch_variants_of(tx, &renamed).await? {
        note_variant(write, &variant)?;
    }
    Ok(())
}

async fn resolve_prices(tx: &mut PgTx, rows: &[PriceRow]) -> Result<Vec<NewPrice>, ApiError> {
    let named = rows.iter().map(|row| row.variant_external_id.clone()).collect();
    let variants: HashMap<String, Uuid> = db::variants_by_external_id(tx, named)
        .await?
        .into_iter()
        .map(|variant| (variant.external_id, variant.variant_id))
        .collect();
    let named = rows.iter().filter_map(|row| row.location_external_id.clone()).collect();
    let locations = db::location_ids(tx, named).await?;
    let mut problems = Vec::new();
    let mut prices = Vec::with_capacity(rows.len());
    for (i, row) in rows.iter().enumerate() {
        let Some(&variant_id) = variants.get(&row.variant_external_id) else {
            problems.push(missing(format!("/prices/{i}/variant_external_id"), "variant"));
            continue;
        };
        let location_id = match &row.location_external_id {
            None => None,
            Some(named) => match locations.get(named) {
                Some(id) => Some(*id),
                None => {
                    problems.push(missing(format!("/prices/{i}/location_external_id"), "location"));
                    continue;
                }
            },
        };
        prices.push(NewPrice {
            variant_id,
            location_id,
            currency: row.currency.clone(),
            amount_minor: row.amount_minor,
            tax_inclusive: row.tax_inclusive,
            valid_from: row.valid_from,
            valid_to: row.valid_to,
        });
    }
    refuse(problems)?;
    Ok(prices)
}

fn missing(pointer: String, what: &str) -> FieldProblem {
    FieldProblem::value(pointer, format!("no such {what}"))
}

fn refuse(mut problems: Vec<FieldProblem>) -> Result<(), ApiError> {
    problems.truncate(100);
    if problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(problems)) }
}
