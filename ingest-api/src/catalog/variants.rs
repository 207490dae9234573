//! Variants: what is stocked and sold. They are made by `POST /catalog/upsert`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::catalog::note_variant;
use crate::checks::{AMOUNT_MAX, CODE_CHARS_MAX, Checks, NAME_CHARS_MAX, canonical_sku, is_gtin};
use crate::context::Context;
use crate::db::catalog as db;
use crate::db::catalog_writes::CatalogWrite;
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Params, PathId, Valid};
use crate::page::{self, Page};

const LIST: &str = "variants";
const BARCODES_MAX: usize = 20;
const UNIT_CHARS_MAX: usize = 20;

/// A variant as it is, with what a till shows of its product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Variant {
    pub variant_id: Uuid,
    pub external_id: String,
    pub product_id: Uuid,
    pub product_name: String,
    pub category: String,
    /// Case folded, unique.
    pub sku: String,
    pub name: String,
    /// GTINs.
    pub barcodes: Vec<String>,
    pub unit: String,
    /// Sold by measure: quantities may have thousandths.
    pub is_measured: bool,
    pub tracks_stock: bool,
    pub tax_profile_id: Uuid,
    pub unit_cost_minor: Option<i64>,
    pub is_active: bool,
    pub version: i64,
}

/// What may change about a variant; absent fields stay.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VariantEdit {
    pub sku: Option<String>,
    pub name: Option<String>,
    #[serde(default, deserialize_with = "barcodes")]
    pub barcodes: Option<Vec<String>>,
    pub tracks_stock: Option<bool>,
    pub tax_profile_id: Option<Uuid>,
    pub unit_cost_minor: Option<i64>,
    pub is_active: Option<bool>,
}

impl Body for VariantEdit {
    fn check(&mut self, checks: &mut Checks) {
        if let Some(sku) = &mut self.sku {
            check_sku(checks, "/sku", sku);
        }
        checks.text_opt("/name", &mut self.name, NAME_CHARS_MAX);
        if let Some(barcodes) = &self.barcodes {
            check_barcodes(checks, "/barcodes", barcodes);
        }
        check_cost(checks, "/unit_cost_minor", self.unit_cost_minor);
    }
}

/// Brings a SKU into its one spelling.
pub fn check_sku(checks: &mut Checks, pointer: impl std::fmt::Display, sku: &mut String) {
    checks.text(pointer, sku, CODE_CHARS_MAX);
    *sku = canonical_sku(sku);
}

/// Texts of a type of their own, by which the card filter knows that a GTIN may look like a card number.
pub fn barcodes<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    struct Barcode(String);
    let barcodes = Option::<Vec<Barcode>>::deserialize(reader)?;
    Ok(barcodes.map(|barcodes| barcodes.into_iter().map(|Barcode(code)| code).collect()))
}

pub fn check_barcodes(checks: &mut Checks, pointer: impl std::fmt::Display, barcodes: &[String]) {
    checks.that(barcodes.len() <= BARCODES_MAX, &pointer, "holds more than 20 barcodes");
    for (i, code) in barcodes.iter().enumerate().take(BARCODES_MAX) {
        checks.that(is_gtin(code), format_args!("{pointer}/{i}"), "is no GTIN with its check digit");
    }
}

pub fn check_cost(checks: &mut Checks, pointer: impl std::fmt::Display, cost: Option<i64>) {
    checks.range(pointer, cost.unwrap_or(0), 0..=AMOUNT_MAX);
}

/// Units of measure are short codes.
pub fn check_unit(checks: &mut Checks, pointer: impl std::fmt::Display, unit: &mut Option<String>) {
    checks.text_opt(pointer, unit, UNIT_CHARS_MAX);
}

/// `PATCH /variants/{variant_id}`
pub async fn edit_variant(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(edit): Valid<VariantEdit>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let variant = app
        .writer
        .write((id, if_match, edit, access.principal, context), |tx, (id, if_match, edit, who, context)| {
            Box::pin(async move {
                let mut write = CatalogWrite::begin(tx).await?;
                let before = db::find_variant(&mut **tx, *id).await?.ok_or_else(|| ApiError::not_found("variant"))?;
                check_version(*if_match, before.version, edit, &before)?;
                if let Some(profile) = edit.tax_profile_id
                    && !db::has_tax_profile(tx, profile).await?
                {
                    return Err(ApiError::invalid_value("/tax_profile_id", "no such tax profile"));
                }
                let variant = db::update_variant(tx, *id, edit).await?;
                note_variant(&mut write, &variant)?;
                let entry = Entry::done(who, "variant.edit", format!("variant/{id}")).states(Some(&before), &variant);
                audit::record(tx, context, entry).await?;
                write.finish(tx, context, *id).await?;
                Ok::<_, ApiError>(variant)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &variant, variant.version)
}

/// `GET /variants/{variant_id}`
pub async fn find_variant(State(app): State<AppState>, PathId(id): PathId) -> Result<Response, ApiError> {
    let variant = db::find_variant(&app.reads, id).await?.ok_or_else(|| ApiError::not_found("variant"))?;
    with_etag(StatusCode::OK, &variant, variant.version)
}

/// Query of the list of variants.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct VariantParams {
    pub product_id: Option<Uuid>,
    /// In any spelling.
    pub sku: Option<String>,
    pub barcode: Option<String>,
    pub external_id: Option<String>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// `GET /variants`
pub async fn list_variants(
    State(app): State<AppState>,
    Params(mut params): Params<VariantParams>,
) -> Result<Response, ApiError> {
    let mut checks = Checks::default();
    checks.text_opt("/sku", &mut params.sku, CODE_CHARS_MAX);
    checks.text_opt("/barcode", &mut params.barcode, CODE_CHARS_MAX);
    checks.text_opt("/external_id", &mut params.external_id, CODE_CHARS_MAX);
    checks.done()?;
    params.sku = params.sku.as_deref().map(canonical_sku);
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let rows = db::list_variants(&app.reads, &params, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &Variant| row.variant_id)?;
    json_response(StatusCode::OK, &page)
}
