//! The sale routes: quote, create, read, list. Thin: parse, price, hand over to the lane, answer.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDate, Utc};
use schemas::ids::LocationId;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::check::{valid_quote, valid_sale};
use super::explain::explain;
use super::price::offered;
use super::redemption;
use super::refusal::Refusal;
use super::response::quote_body;
use super::types::{NewQuote, NewSale, ValidSale};
use crate::access::Access;
use crate::app::AppState;
use crate::approvals::Presented;
use crate::checks::Checks;
use crate::context::Context;
use crate::db::sales::{self as db, Origin};
use crate::db::{loyalty, promotions};
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, IdempotencyKey, Params, PathId, Valid};
use crate::lanes::{Answer, Offer};
use crate::page;
use crate::pricing::snapshot::Snapshot;
use crate::pricing::{Priced, Terms, price};

const LIST: &str = "sales";

/// Values are checked by [`valid_sale`], which also makes the valid types.
impl Body for NewSale {
    fn check(&mut self, _: &mut Checks) {}
}

/// Values are checked by [`valid_quote`].
impl Body for NewQuote {
    fn check(&mut self, _: &mut Checks) {}
}

/// `POST /sales`: 201 with the sale, or 200 with the very same bytes when it is stored already.
pub async fn create_sale(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewSale>,
) -> Result<Response, ApiError> {
    let (terminal_id, _) = access.require_terminal()?;
    access.require_named(LocationId(new.location_id))?;
    let presented = Presented::read(&app.auth.tokens, new.approval.as_deref());
    let sale = ValidSale { presented, ..valid_sale(new, terminal_id, Utc::now()).map_err(Refusal::fields)? };
    let sale_id = sale.document_id;
    let snapshot = app.catalog.current();
    // Also a refusal goes through the lane: its twin may be stored, or the catalog newer than the one here.
    let offer = Offer {
        offered: offered(&snapshot, &sale, &Terms::default()),
        priced_at: (snapshot.version, snapshot.epoch),
        key: key.0,
        origin: Origin { request_id: context.request_id, trace_parent: context.trace_parent, address: context.address },
        sale,
    };
    let mut response = match app.lanes.commit(offer).await? {
        Answer::Created(body) => json(StatusCode::CREATED, body.to_string()),
        Answer::Replayed(body) => {
            let mut response = json(StatusCode::OK, body.to_string());
            let replayed = HeaderName::from_static("idempotency-replayed");
            response.headers_mut().insert(replayed, HeaderValue::from_static("true"));
            response
        }
    };
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/sales/{sale_id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `POST /quotes`: every figure of a cart with its trace; the sale that follows has the same, byte for byte.
pub async fn create_quote(
    State(app): State<AppState>,
    access: Access,
    Valid(new): Valid<NewQuote>,
) -> Result<Response, ApiError> {
    let location_id = LocationId(new.location_id);
    access.require_named(location_id)?;
    let customer = new.customer_id;
    let known = app.catalog.current();
    let mut answer = quote(&app, &known, new.clone()).await;
    if answer.is_err() {
        // What is unknown here may have been made on another node a moment ago.
        let newest = app.catalog.refresh().await?;
        answer = if newest.version == known.version { answer } else { quote(&app, &newest, new).await };
    }
    let (priced, occurred_at) = answer?;
    let mut body = quote_body(&priced, occurred_at);
    if let Some(customer) = customer {
        let mut tx = app.snapshot().await?;
        let balances = loyalty::balances(&mut tx, customer).await?;
        if balances.is_empty() {
            return Err(Refusal::field("/customer_id", "unknown_customer", "no such customer").into());
        }
        body.redeemable = redemption::redeemable(&priced, &balances, occurred_at.max(Utc::now()));
    }
    Ok(json(StatusCode::OK, serde_json::to_string(&body).map_err(ApiError::internal)?))
}

async fn quote(app: &AppState, snapshot: &Snapshot, new: NewQuote) -> Result<(Priced, DateTime<Utc>), ApiError> {
    let location = snapshot.locations.get(&LocationId(new.location_id));
    let currency = location.map_or("", |location| &*location.currency);
    let cart = valid_quote(new, currency, Utc::now()).map_err(Refusal::fields)?;
    let mut priced = price(snapshot, &cart, &Terms::default()).map_err(Refusal::fields)?;
    if priced.promotions.is_counted || !cart.coupons.is_empty() {
        let counted = promotions::counted(&snapshot.promotions);
        let promoted = promotions::look_up(&app.reads, &cart.coupons, &counted).await?;
        priced = price(snapshot, &cart, &promoted.terms(&cart)?).map_err(Refusal::fields)?;
    }
    Ok((priced, cart.occurred_at))
}

/// `GET /sales/{sale_id}`: the stored bytes of a sale; `GET /documents/{document_id}` reads any document.
pub async fn find_sale(State(app): State<AppState>, access: Access, id: PathId) -> Result<Response, ApiError> {
    let found = db::find(&app.reads, id.0).await?;
    let (location_id, body) = found.ok_or_else(|| ApiError::not_found("sale"))?;
    access.require_object_at(LocationId(location_id), "sale")?;
    Ok(json(StatusCode::OK, body))
}

/// `GET /sales/{sale_id}/explain`: every cent computed again from the stored trace, in words.
pub async fn explain_sale(State(app): State<AppState>, access: Access, id: PathId) -> Result<Response, ApiError> {
    let mut tx = app.snapshot().await?;
    let (location_id, stored) = db::stored(&mut tx, id.0).await?.ok_or_else(|| ApiError::not_found("sale"))?;
    access.require_object_at(LocationId(location_id), "sale")?;
    json_response(StatusCode::OK, &explain(&stored))
}

/// Query of the list of sales.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SaleParams {
    /// Only this location.
    pub location_id: Option<Uuid>,
    /// Only this business day.
    pub business_date: Option<NaiveDate>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// `GET /sales`: sales of the caller's locations, oldest id first.
pub async fn list_sales(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<SaleParams>,
) -> Result<Response, ApiError> {
    let locations = match params.location_id {
        Some(location) => {
            access.require_named(LocationId(location))?;
            Some(vec![location])
        }
        None => access.scope(),
    };
    let limit = page::limit(params.limit)?;
    let list = format!("{LIST} {:?} {:?}", params.location_id, params.business_date);
    let after: Option<Uuid> = app.auth.cursors.open(&list, params.cursor.as_deref())?;
    let mut rows = db::list(&app.reads, locations, params.business_date, after, limit + 1).await?;
    let has_more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let next_cursor = match rows.last() {
        Some((last, _)) if has_more => Some(app.auth.cursors.seal(&list, last)?),
        _ => None,
    };
    let items: Vec<&str> = rows.iter().map(|(_, body)| body.as_str()).collect();
    let next = serde_json::to_string(&next_cursor).map_err(ApiError::internal)?;
    Ok(json(StatusCode::OK, format!(r#"{{"items":[{}],"next_cursor":{next}}}"#, items.join(","))))
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
