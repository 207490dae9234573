//! The routes: parse, hand over, answer.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{NaiveDate, Utc};
use schemas::ids::LocationId;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::check;
use super::read::preview;
use super::returnable;
use super::store::{self, Answer, Input};
use super::types::{NewExchange, NewExchangePreview, NewRefund, NewRefundPreview, NewVoid, ValidReturn};
use crate::access::Access;
use crate::app::AppState;
use crate::approvals::Presented;
use crate::audit::proof::{self, ReceiptProof};
use crate::checks::Checks;
use crate::context::Context;
use crate::db::returns as db;
use crate::edits::json_response;
use crate::error::{ApiError, FieldProblem};
use crate::extract::{Body, IdempotencyKey, Params, PathId, Valid};
use crate::page;
use crate::sales::refusal::Refusal;

const LIST: &str = "documents";

/// Values are checked by [`check`], which also makes the valid types.
macro_rules! bodies {
    ($($body:ident)*) => {
        $(impl Body for $body {
            fn check(&mut self, _: &mut Checks) {}
        })*
    };
}
bodies!(NewRefund NewExchange NewVoid NewRefundPreview NewExchangePreview);

/// `POST /refunds`: 201 with the document, or 200 with the very same bytes when it is stored already.
pub async fn create_refund(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewRefund>,
) -> Result<Response, ApiError> {
    let (terminal, approval) = (terminal(&access, new.location_id)?, new.approval.clone());
    commit(app, context, key, check::valid_refund(new, terminal, Utc::now()), approval).await
}

/// `POST /exchanges`: as [`create_refund`].
pub async fn create_exchange(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewExchange>,
) -> Result<Response, ApiError> {
    let (terminal, approval) = (terminal(&access, new.location_id)?, new.approval.clone());
    commit(app, context, key, check::valid_exchange(new, terminal, Utc::now()), approval).await
}

/// `POST /voids`: as [`create_refund`].
pub async fn create_void(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    key: IdempotencyKey,
    Valid(new): Valid<NewVoid>,
) -> Result<Response, ApiError> {
    let (terminal, approval) = (terminal(&access, new.location_id)?, new.approval.clone());
    commit(app, context, key, check::valid_void(new, terminal, Utc::now()), approval).await
}

fn terminal(access: &Access, location: Uuid) -> Result<schemas::ids::TerminalId, ApiError> {
    let (terminal, _) = access.require_terminal()?;
    access.require_named(LocationId(location))?;
    Ok(terminal)
}

async fn commit(
    app: AppState,
    context: Context,
    key: IdempotencyKey,
    checked: Result<ValidReturn, Vec<FieldProblem>>,
    approval: Option<String>,
) -> Result<Response, ApiError> {
    let mut document = checked.map_err(Refusal::fields)?;
    document.sale.presented = Presented::read(&app.auth.tokens, approval.as_deref());
    let document_id = document.sale.document_id;
    let input = Input { document, key: key.0, context, catalog: app.catalog.clone() };
    let answer = app.writer.write(input, |tx, input| Box::pin(store::commit(tx, input))).await?;
    let mut response = match answer {
        Answer::Created(body) => json(StatusCode::CREATED, body),
        Answer::Replayed(body) => {
            let mut response = json(StatusCode::OK, body);
            let replayed = HeaderName::from_static("idempotency-replayed");
            response.headers_mut().insert(replayed, HeaderValue::from_static("true"));
            response
        }
    };
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/documents/{document_id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `POST /refunds/preview`: every figure of a refund with the tenders that need no approval; nothing is stored.
pub async fn preview_refund(
    State(app): State<AppState>,
    access: Access,
    Valid(new): Valid<NewRefundPreview>,
) -> Result<Response, ApiError> {
    let location = LocationId(new.location_id);
    access.require_named(location)?;
    let currency = currency(&app, location).await?;
    let document = check::valid_refund_preview(new, &currency, Utc::now()).map_err(Refusal::fields)?;
    json_response(StatusCode::OK, &preview(&app, document).await?)
}

/// `POST /exchanges/preview`: as [`preview_refund`].
pub async fn preview_exchange(
    State(app): State<AppState>,
    access: Access,
    Valid(new): Valid<NewExchangePreview>,
) -> Result<Response, ApiError> {
    let location = LocationId(new.location_id);
    access.require_named(location)?;
    let currency = currency(&app, location).await?;
    let document = check::valid_exchange_preview(new, &currency, Utc::now()).map_err(Refusal::fields)?;
    json_response(StatusCode::OK, &preview(&app, document).await?)
}

/// The location's currency; empty where there is no such location, which is refused in its turn.
async fn currency(app: &AppState, location: LocationId) -> Result<String, ApiError> {
    let of = |snapshot: &crate::pricing::snapshot::Snapshot| {
        snapshot.locations.get(&location).map(|location| location.currency.to_string())
    };
    match of(&app.catalog.current()) {
        Some(currency) => Ok(currency),
        None => Ok(of(&*app.catalog.refresh().await?).unwrap_or_default()),
    }
}

/// `GET /documents/{document_id}`: the stored bytes of a sale, refund, exchange or void.
pub async fn find_document(State(app): State<AppState>, access: Access, id: PathId) -> Result<Response, ApiError> {
    Ok(json(StatusCode::OK, visible(&app, &access, id.0).await?.1))
}

/// The location and the stored answer of a document that the caller may read.
async fn visible(app: &AppState, access: &Access, id: Uuid) -> Result<(LocationId, String), ApiError> {
    let found = db::find(&app.reads, id).await?;
    let (location, _, body) = found.ok_or_else(|| ApiError::not_found("document"))?;
    access.require_object_at(LocationId(location), "document")?;
    Ok((LocationId(location), body))
}

/// `GET /documents/{document_id}/proof`: 409 `not_rooted` until the root over its business day is signed.
pub async fn prove_document(State(app): State<AppState>, access: Access, id: PathId) -> Result<Response, ApiError> {
    let (_, receipt) = visible(&app, &access, id.0).await?;
    let mut tx = app.snapshot().await?;
    let proof: ReceiptProof = proof::of_sale(&mut tx, id.0, receipt).await?;
    tx.rollback().await?;
    json_response(StatusCode::OK, &proof)
}

/// `GET /documents/{document_id}/returnable`: what is left of what it sold, and what its tenders still hold.
pub async fn find_returnable(State(app): State<AppState>, access: Access, id: PathId) -> Result<Response, ApiError> {
    visible(&app, &access, id.0).await?;
    let mut tx = app.snapshot().await?;
    let chains = db::chains(&mut tx, &[id.0]).await?;
    let origins = db::origins(&mut tx, &[id.0], &chains).await?;
    tx.rollback().await?;
    let origin = origins.find(id.0).ok_or_else(|| ApiError::not_found("document"))?;
    json_response(StatusCode::OK, &returnable::of(origin, &origins))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKindParam {
    Sale,
    Refund,
    Exchange,
    Void,
}

/// Query of the list of documents.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DocumentParams {
    /// Only this location.
    pub location_id: Option<Uuid>,
    /// Only this business day.
    pub business_date: Option<NaiveDate>,
    /// `sale`, `refund`, `exchange` or `void`.
    #[param(inline)]
    pub kind: Option<DocumentKindParam>,
    /// Only what took goods back of this sale or exchange.
    pub origin_id: Option<Uuid>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// `GET /documents`: documents of the caller's locations, oldest id first.
pub async fn list_documents(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<DocumentParams>,
) -> Result<Response, ApiError> {
    let locations = match params.location_id {
        Some(location) => {
            access.require_named(LocationId(location))?;
            Some(vec![location])
        }
        None => access.scope(),
    };
    let limit = page::limit(params.limit)?;
    let of = (params.location_id, params.business_date, params.kind, params.origin_id);
    let list = format!("{LIST} {of:?}");
    let after: Option<Uuid> = app.auth.cursors.open(&list, params.cursor.as_deref())?;
    let kind = params.kind.map(|kind| match kind {
        DocumentKindParam::Sale => "sale",
        DocumentKindParam::Refund => "refund",
        DocumentKindParam::Exchange => "exchange",
        DocumentKindParam::Void => "void",
    });
    let wanted = db::Wanted { locations, business_date: params.business_date, kind, origin: params.origin_id };
    let mut rows = db::list(&app.reads, &wanted, after, limit + 1).await?;
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
