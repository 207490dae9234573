//! Shops: the unit of order, access, business day and currency.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{NaiveDate, NaiveTime};
use chrono_tz::Tz;
use runtime::pg::PgTx;
use schemas::events;
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::{CODE_CHARS_MAX, Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::db::locations as db;
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Params, PathId, Valid};
use crate::page::{self, Page, PageParams};

const LIST: &str = "locations";
const CASH_STEP_MAX: i64 = 100_000;

/// How a figure with more digits than the currency is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    HalfEven,
    HalfUp,
    HalfDown,
    Down,
    Up,
}

impl Rounding {
    pub fn as_str(self) -> &'static str {
        match self {
            Rounding::HalfEven => "half_even",
            Rounding::HalfUp => "half_up",
            Rounding::HalfDown => "half_down",
            Rounding::Down => "down",
            Rounding::Up => "up",
        }
    }
}

/// What happens when a sale wants more than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Oversell {
    Deny,
    AllowAndFlag,
}

impl Oversell {
    pub fn as_str(self) -> &'static str {
        match self {
            Oversell::Deny => "deny",
            Oversell::AllowAndFlag => "allow_and_flag",
        }
    }
}

/// A location to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLocation {
    pub location_id: Option<Uuid>,
    /// The caller's own identifier, unique.
    pub external_id: String,
    pub name: String,
    /// ISO 4217, for ever.
    pub currency: String,
    /// IANA name, for instance `Europe/Berlin`; for ever.
    pub time_zone: String,
    /// Local time at which the business day starts (00:00:00).
    pub day_cutoff: Option<NaiveTime>,
    /// First business day; documents before it are refused.
    pub opened_on: NaiveDate,
    pub rounding_mode: Option<Rounding>,
    /// Smallest cash amount in minor units (1).
    pub cash_step: Option<i64>,
    pub cash_mode: Option<Rounding>,
    pub oversell: Option<Oversell>,
}

impl Body for NewLocation {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/location_id", self.location_id);
        checks.text("/external_id", &mut self.external_id, CODE_CHARS_MAX);
        checks.text("/name", &mut self.name, NAME_CHARS_MAX);
        checks.currency("/currency", &self.currency);
        checks.that(self.time_zone.parse::<Tz>().is_ok(), "/time_zone", "is no IANA time zone");
        checks.date("/opened_on", self.opened_on);
        checks.range("/cash_step", self.cash_step.unwrap_or(1), 1..=CASH_STEP_MAX);
    }
}

/// What may change about a location; absent fields stay. Currency and time zone never do.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LocationEdit {
    pub name: Option<String>,
    pub day_cutoff: Option<NaiveTime>,
    pub opened_on: Option<NaiveDate>,
    pub rounding_mode: Option<Rounding>,
    pub cash_step: Option<i64>,
    pub cash_mode: Option<Rounding>,
    pub oversell: Option<Oversell>,
    pub is_active: Option<bool>,
}

impl Body for LocationEdit {
    fn check(&mut self, checks: &mut Checks) {
        checks.text_opt("/name", &mut self.name, NAME_CHARS_MAX);
        if let Some(date) = self.opened_on {
            checks.date("/opened_on", date);
        }
        checks.range("/cash_step", self.cash_step.unwrap_or(1), 1..=CASH_STEP_MAX);
    }
}

/// A location as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Location {
    pub location_id: Uuid,
    pub external_id: String,
    pub name: String,
    pub currency: String,
    pub time_zone: String,
    pub day_cutoff: NaiveTime,
    pub opened_on: NaiveDate,
    pub rounding_mode: String,
    pub cash_step: i64,
    pub cash_mode: String,
    pub oversell: String,
    pub is_active: bool,
    pub version: i64,
}

/// `POST /locations`
pub async fn create_location(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewLocation>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let input = (new, access.principal, context);
    let location = app
        .writer
        .write(input, |tx, (new, who, context)| {
            Box::pin(async move {
                let mut write = CatalogWrite::begin(tx).await?;
                let location = db::insert(tx, new.location_id.unwrap_or_else(Uuid::now_v7), new).await?;
                record(tx, &mut write, who, context, "location.create", None, &location).await?;
                write.finish(tx, context, location.location_id).await?;
                Ok::<_, ApiError>(location)
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &location, location.version)
}

/// `PATCH /locations/{location_id}`
pub async fn edit_location(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(edit): Valid<LocationEdit>,
) -> Result<Response, ApiError> {
    access.require_object_at(LocationId(id), "location")?;
    let input = (id, if_match, edit, access.principal, context);
    let location = app
        .writer
        .write(input, |tx, (id, if_match, edit, who, context)| {
            Box::pin(async move {
                let mut write = CatalogWrite::begin(tx).await?;
                let before = db::find(&mut **tx, *id).await?.ok_or_else(|| ApiError::not_found("location"))?;
                check_version(*if_match, before.version, edit, &before)?;
                let location = db::update(tx, *id, edit).await?;
                record(tx, &mut write, who, context, "location.edit", Some(&before), &location).await?;
                write.finish(tx, context, *id).await?;
                Ok::<_, ApiError>(location)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &location, location.version)
}

async fn record(
    tx: &mut PgTx,
    write: &mut CatalogWrite,
    who: &Principal,
    context: &Context,
    action: &str,
    before: Option<&Location>,
    location: &Location,
) -> Result<(), ApiError> {
    let id = location.location_id;
    let catalog_version = write.change(Kind::Location, (id, location.version), Some(vec![id]), location)?;
    write.publish(&events::Location {
        epoch: write.epoch,
        location_id: LocationId(id),
        version: location.version,
        catalog_version,
        external_id: location.external_id.clone(),
        name: location.name.clone(),
        currency: location.currency.clone(),
        time_zone: location.time_zone.clone(),
        day_cutoff: location.day_cutoff.format("%H:%M:%S").to_string(),
        opened_on: location.opened_on.into(),
        is_active: location.is_active,
        recorded_at: write.at.into(),
    });
    let entry = Entry::done(who, action, format!("location/{id}")).at(LocationId(id)).states(before, location);
    audit::record(tx, context, entry).await?;
    Ok(())
}

/// `GET /locations/{location_id}`
pub async fn find_location(
    State(app): State<AppState>,
    access: Access,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    access.require_object_at(LocationId(id), "location")?;
    let location = db::find(&app.reads, id).await?.ok_or_else(|| ApiError::not_found("location"))?;
    with_etag(StatusCode::OK, &location, location.version)
}

/// `GET /locations`
pub async fn list_locations(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<PageParams>,
) -> Result<Response, ApiError> {
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let rows = db::list(&app.reads, access.scope(), after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &Location| row.location_id)?;
    json_response(StatusCode::OK, &page)
}
