//! Products: the group that variants belong to. They are made by `POST /catalog/upsert`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::catalog::note_variant;
use crate::checks::{Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::catalog as db;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Params, PathId, Valid};
use crate::page::{self, Page, PageParams};

const LIST: &str = "products";

/// A product as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Product {
    pub product_id: Uuid,
    pub external_id: String,
    pub name: String,
    /// Empty when it has none.
    pub category: String,
    pub is_active: bool,
    pub version: i64,
}

/// What may change about a product; absent fields stay.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProductEdit {
    pub name: Option<String>,
    pub category: Option<String>,
    pub is_active: Option<bool>,
}

impl Body for ProductEdit {
    fn check(&mut self, checks: &mut Checks) {
        checks.text_opt("/name", &mut self.name, NAME_CHARS_MAX);
        checks.text_opt("/category", &mut self.category, NAME_CHARS_MAX);
    }
}

/// `PATCH /products/{product_id}`: its variants carry name and category, so they take a version too.
pub async fn edit_product(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(edit): Valid<ProductEdit>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let product = app
        .writer
        .write((id, if_match, edit, access.principal, context), |tx, (id, if_match, edit, who, context)| {
            Box::pin(async move {
                let mut write = CatalogWrite::begin(tx).await?;
                let before = db::find_product(&mut **tx, *id).await?.ok_or_else(|| ApiError::not_found("product"))?;
                check_version(*if_match, before.version, edit, &before)?;
                let product = db::update_product(tx, *id, edit).await?;
                write.change(Kind::Product, (*id, product.version), None, &product)?;
                if (&product.name, &product.category) != (&before.name, &before.category) {
                    for variant in db::touch_variants_of(tx, &[*id]).await? {
                        note_variant(&mut write, &variant)?;
                    }
                }
                let entry = Entry::done(who, "product.edit", format!("product/{id}")).states(Some(&before), &product);
                audit::record(tx, context, entry).await?;
                write.finish(tx, context, *id).await?;
                Ok::<_, ApiError>(product)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &product, product.version)
}

/// `GET /products/{product_id}`
pub async fn find_product(State(app): State<AppState>, PathId(id): PathId) -> Result<Response, ApiError> {
    let product = db::find_product(&app.reads, id).await?.ok_or_else(|| ApiError::not_found("product"))?;
    with_etag(StatusCode::OK, &product, product.version)
}

/// `GET /products`
pub async fn list_products(
    State(app): State<AppState>,
    Params(params): Params<PageParams>,
) -> Result<Response, ApiError> {
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let rows = db::list_products(&app.reads, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &Product| row.product_id)?;
    json_response(StatusCode::OK, &page)
}
