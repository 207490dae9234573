//! Terminals: devices that number their documents, each at one register of one location.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::{Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::terminals as db;
use crate::edits::{json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, Params, PathId, Valid};
use crate::page::{self, Page};

const LIST: &str = "terminals";
const REGISTER_CHARS_MAX: usize = 20;

/// A terminal to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTerminal {
    pub terminal_id: Option<Uuid>,
    pub location_id: Uuid,
    /// The cash point, unique in its location; part of every receipt number.
    pub register_id: String,
    pub name: String,
}

impl Body for NewTerminal {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/terminal_id", self.terminal_id);
        checks.text("/register_id", &mut self.register_id, REGISTER_CHARS_MAX);
        checks.text("/name", &mut self.name, NAME_CHARS_MAX);
    }
}

/// A terminal as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Terminal {
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub register_id: String,
    pub name: String,
    pub series_epoch: i32,
    pub is_active: bool,
    /// Null until a device has been bound to it.
    pub enrolled_at: Option<DateTime<Utc>>,
    pub version: i64,
}

/// A terminal with the numbers its next document takes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TerminalWithNumbers {
    #[serde(flatten)]
    pub terminal: Terminal,
    pub next_terminal_seq: i64,
    pub next_receipt_number: i64,
}

/// `POST /terminals`
pub async fn create_terminal(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewTerminal>,
) -> Result<Response, ApiError> {
    access.require_named(LocationId(new.location_id))?;
    let terminal = app
        .writer
        .write((new, access.principal, context), |tx, (new, who, context)| {
            Box::pin(async move {
                if crate::db::locations::find(&mut **tx, new.location_id).await?.is_none() {
                    return Err(ApiError::invalid_value("/location_id", "no such location"));
                }
                let terminal = db::insert(tx, new.terminal_id.unwrap_or_else(Uuid::now_v7), new).await?;
                let target = format!("terminal/{}", terminal.terminal_id);
                let entry = Entry::done(who, "terminal.create", target).at(LocationId(new.location_id));
                audit::record(tx, context, entry.states(None, &terminal)).await?;
                Ok(terminal)
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &terminal, terminal.version)
}

/// `GET /terminals/{terminal_id}`: a terminal sees itself only.
pub async fn find_terminal(
    State(app): State<AppState>,
    access: Access,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let absent = || ApiError::not_found("terminal");
    let terminal = db::find(&app.reads, id).await?.ok_or_else(absent)?;
    access.require_object_at(LocationId(terminal.location_id), "terminal")?;
    if access.principal.terminal().is_some_and(|(own, _)| own.0 != id) {
        return Err(absent());
    }
    let mut tx = app.snapshot().await?;
    let numbers = db::numbers(&mut tx, id).await?;
    let version = terminal.version;
    let body = TerminalWithNumbers {
        terminal,
        next_terminal_seq: numbers.next_terminal_seq,
        next_receipt_number: numbers.next_receipt_number,
    };
    with_etag(StatusCode::OK, &body, version)
}

/// Query of the list of terminals.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TerminalParams {
    pub location_id: Option<Uuid>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// `GET /terminals`
pub async fn list_terminals(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<TerminalParams>,
) -> Result<Response, ApiError> {
    if let Some(location) = params.location_id {
        access.require_named(LocationId(location))?;
    }
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let scope = params.location_id.map(|location| vec![location]).or_else(|| access.scope());
    let only = match access.principal {
        Principal::Terminal { terminal_id, .. } => Some(terminal_id.0),
        _ => None,
    };
    let rows = db::list(&app.reads, scope, only, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &Terminal| row.terminal_id)?;
    json_response(StatusCode::OK, &page)
}
