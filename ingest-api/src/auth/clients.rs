//! API clients: programs of integrators. A client has an id, permissions and locations of its own, and one secret, or two
//! while it changes from one to the next. Nobody gives a client more than they hold themselves.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Permission};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::codes::{hash_token, random_token};
use crate::auth::tokens::{IssuedToken, Subject};
use crate::auth::{refusals, step_up};
use crate::checks::{Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::api_clients as db;
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Params, PathId, Valid};
use crate::page::{self, Page, PageParams};

const LIST: &str = "api-clients";
const LOCATIONS_MAX: usize = 1_000;
/// One in use, one to change to.
const SECRETS_MAX: i64 = 2;
const SECRET_CHARS_MAX: usize = 64;

/// An API client to be.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiClient {
    pub client_id: Option<Uuid>,
    pub name: String,
    pub permissions: Vec<Permission>,
    /// Absent: every location.
    pub location_ids: Option<Vec<Uuid>>,
    /// The client ends then; absent: it does not.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Body for NewApiClient {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/client_id", self.client_id);
        checks.text("/name", &mut self.name, NAME_CHARS_MAX);
        check_permissions(checks, &mut self.permissions);
        check_locations(checks, self.location_ids.as_mut());
        check_future(checks, self.expires_at);
    }
}

/// What may change about a client; absent fields stay. Its tokens of before are worth nothing afterwards.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiClientEdit {
    pub name: Option<String>,
    pub permissions: Option<Vec<Permission>>,
    pub location_ids: Option<Vec<Uuid>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub is_active: Option<bool>,
}

impl Body for ApiClientEdit {
    fn check(&mut self, checks: &mut Checks) {
        checks.text_opt("/name", &mut self.name, NAME_CHARS_MAX);
        if let Some(permissions) = &mut self.permissions {
            check_permissions(checks, permissions);
        }
        check_locations(checks, self.location_ids.as_mut());
        check_future(checks, self.expires_at);
    }
}

fn check_permissions(checks: &mut Checks, permissions: &mut Vec<Permission>) {
    for (i, permission) in permissions.iter().enumerate() {
        let is_fit = *permission != Permission::Public && permission.is_for_clients();
        checks.that(is_fit, format!("/permissions/{i}"), "is not for API clients");
    }
    checks.that(!permissions.is_empty(), "/permissions", "must not be empty");
    permissions.sort_unstable();
    permissions.dedup();
}

fn check_locations(checks: &mut Checks, locations: Option<&mut Vec<Uuid>>) {
    if let Some(locations) = locations {
        checks.rows("/location_ids", locations.len(), LOCATIONS_MAX);
        locations.sort_unstable();
        locations.dedup();
    }
}

fn check_future(checks: &mut Checks, at: Option<DateTime<Utc>>) {
    if let Some(at) = at {
        checks.instant("/expires_at", at);
        checks.that(at > Utc::now(), "/expires_at", "is over");
    }
}

/// A client as it is. Never carries a secret or anything made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ApiClient {
    pub client_id: Uuid,
    pub name: String,
    pub permissions: Vec<Permission>,
    /// Null: every location.
    pub location_ids: Option<Vec<Uuid>>,
    pub is_active: bool,
    pub expires_at: Option<DateTime<Utc>>,
    /// Those that are good now.
    pub secrets: Vec<SecretStanding>,
    pub version: i64,
}

/// A secret, without what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretStanding {
    pub secret_id: Uuid,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// A secret as it is handed out: shown this once.
#[derive(Serialize, ToSchema)]
pub struct ClientSecret {
    pub client_id: Uuid,
    pub secret_id: Uuid,
    pub client_secret: String,
    pub expires_at: Option<DateTime<Utc>>,
}

/// 403 unless the caller holds each of these permissions at each of these places.
fn require_holds(access: &Access, permissions: &[Permission], locations: Option<&[Uuid]>) -> Result<(), ApiError> {
    let holds = |permission: Permission| match locations {
        None => access.principal.may_everywhere(permission),
        Some(locations) => locations.iter().all(|location| access.principal.may(permission, LocationId(*location))),
    };
    if permissions.iter().all(|permission| holds(*permission)) {
        return Ok(());
    }
    Err(ApiError::forbidden("forbidden", "you may give a client no more than you hold yourself"))
}

async fn require_known(tx: &mut PgTx, locations: Option<&Vec<Uuid>>) -> Result<(), ApiError> {
    let named = locations.cloned().unwrap_or_default();
    let known = crate::db::catalog::currencies(tx, named.clone()).await?;
    match named.iter().position(|location| !known.contains_key(location)) {
        None => Ok(()),
        Some(i) => Err(ApiError::invalid_value(format!("/location_ids/{i}"), "no such location")),
    }
}

/// `POST /api-clients`: with its first secret.
pub async fn create_client(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewApiClient>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    require_holds(&access, &new.permissions, new.location_ids.as_deref())?;
    let secret = app
        .writer
        .write((new, access, context), |tx, (new, access, context)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                require_known(tx, new.location_ids.as_ref()).await?;
                let client_id = new.client_id.unwrap_or_else(Uuid::now_v7);
                db::insert(tx, client_id, new).await?;
                let secret = add_secret(tx, client_id, None).await?;
                let client = find(tx, client_id).await?;
                let entry = Entry::done(&access.principal, "api_client.create", format!("api_client/{client_id}"));
                audit::record(tx, context, entry.states(None, &client)).await?;
                Ok::<_, ApiError>(secret)
            })
        })
        .await?;
    json_response(StatusCode::CREATED, &secret)
}

async fn find(tx: &mut PgTx, client_id: Uuid) -> Result<ApiClient, ApiError> {
    db::find(tx, client_id).await?.ok_or_else(|| ApiError::not_found("API client"))
}

async fn add_secret(
    tx: &mut PgTx,
    client_id: Uuid,
    expires_at: Option<DateTime<Utc>>,
) -> Result<ClientSecret, sqlx::Error> {
    let (secret_id, client_secret) = (Uuid::now_v7(), random_token());
    db::insert_secret(tx, (client_id, secret_id), &hash_token(&client_secret), expires_at).await?;
    Ok(ClientSecret { client_id, secret_id, client_secret, expires_at })
}

/// `GET /api-clients`
pub async fn list_clients(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<PageParams>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let rows = db::list(&app.reads, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &ApiClient| row.client_id)?;
    json_response(StatusCode::OK, &page)
}

/// `GET /api-clients/{client_id}`
pub async fn find_client(
    State(app): State<AppState>,
    access: Access,
    PathId(client_id): PathId,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let mut tx = app.snapshot().await?;
    let client = find(&mut tx, client_id).await?;
    with_etag(StatusCode::OK, &client, client.version)
}

/// `PATCH /api-clients/{client_id}`
pub async fn edit_client(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(client_id): PathId,
    if_match: IfMatch,
    Valid(edit): Valid<ApiClientEdit>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let client = app
        .writer
        .write((client_id, if_match, edit, access, context), |tx, (client_id, if_match, edit, access, context)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                db::lock(tx, *client_id).await?;
                let before = find(tx, *client_id).await?;
                check_version(*if_match, before.version, edit, &before)?;
                require_known(tx, edit.location_ids.as_ref()).await?;
                db::update(tx, *client_id, edit).await?;
                let client = find(tx, *client_id).await?;
                require_holds(access, &client.permissions, client.location_ids.as_deref())?;
                let entry = Entry::done(&access.principal, "api_client.edit", format!("api_client/{client_id}"));
                audit::record(tx, context, entry.states(Some(&before), &client)).await?;
                Ok::<_, ApiError>(client)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &client, client.version)
}

/// A second secret to change to.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSecret {
    /// Absent: it is good until it is ended.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Body for NewSecret {
    fn check(&mut self, checks: &mut Checks) {
        check_future(checks, self.expires_at);
    }
}

/// `POST /api-clients/{client_id}/secrets`
pub async fn create_secret(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(client_id): PathId,
    Valid(new): Valid<NewSecret>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let secret = app
        .writer
        .write((client_id, new, access, context), |tx, (client_id, new, access, context)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                db::lock(tx, *client_id).await?;
                let client = find(tx, *client_id).await?;
                require_holds(access, &client.permissions, client.location_ids.as_deref())?;
                if client.secrets.len() as i64 >= SECRETS_MAX {
                    return Err(ApiError::conflict("illegal_transition", "two secrets are good already: end one"));
                }
                let secret = add_secret(tx, *client_id, new.expires_at).await?;
                let entry = Entry::done(&access.principal, "api_client.secret", format!("api_client/{client_id}"));
                audit::record(tx, context, entry).await?;
                Ok(secret)
            })
        })
        .await?;
    json_response(StatusCode::CREATED, &secret)
}

/// `POST /api-client-secrets/{secret_id}/end`: ends the client's tokens too.
pub async fn end_secret(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(secret_id): PathId,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let client = app
        .writer
        .write((secret_id, access, context), |tx, (secret_id, access, context)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                let client_id = db::end_secret(tx, *secret_id).await?.ok_or_else(|| ApiError::not_found("secret"))?;
                let entry = Entry::done(&access.principal, "api_client.end_secret", format!("api_client/{client_id}"));
                audit::record(tx, context, entry).await?;
                find(tx, client_id).await
            })
        })
        .await?;
    with_etag(StatusCode::OK, &client, client.version)
}

/// Client credentials.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTokenRequest {
    pub client_id: Uuid,
    pub client_secret: String,
}

impl Body for ClientTokenRequest {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.that(self.client_secret.len() <= SECRET_CHARS_MAX, "/client_secret", "is too long");
    }
}

/// `POST /auth/client-token`. An unknown client, a wrong or ended secret and a client that has ended are 401, whichever;
/// after ten from one address 429. A right secret is never refused for what others sent.
pub async fn issue_token(
    State(app): State<AppState>,
    context: Context,
    Valid(asked): Valid<ClientTokenRequest>,
) -> Result<Response, ApiError> {
    app.budgets.sign_in_as(&asked.client_id.to_string())?;
    let (client_id, now) = (asked.client_id, Utc::now());
    let mut entry = Entry::of_task("auth.client_token", format!("api_client/{client_id}"));
    (entry.actor, entry.role) = (client_id, "client".to_owned());
    let standing = db::session_version(&app.door, client_id, &hash_token(&asked.client_secret)).await?;
    let Some(session_version) = standing else {
        let is_known = db::is_known(&app.door, client_id).await?;
        let locked = refusals::count(&app, context, is_known.then_some(entry), now).await?;
        return Err(locked.map_or_else(ApiError::unauthenticated, |locked| locked.problem(now)));
    };
    app.writer
        .write((entry, context), |tx, (entry, context)| {
            Box::pin(async move { Ok::<_, ApiError>(audit::record(tx, context, entry.clone()).await?) })
        })
        .await?;
    let subject = Subject::Client(client_id);
    let token: IssuedToken =
        app.auth.tokens.issue(subject, Uuid::new_v4(), session_version).map_err(ApiError::internal)?;
    json_response(StatusCode::OK, &token)
}
