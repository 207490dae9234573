//! Loyalty programs: how points are earned, when they can be spent and until when, and what they are worth. Part of the
//! catalog: whoever prices knows the program of a catalog version.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Access;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::{AMOUNT_MAX, Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::db::programs as db;
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, PathId, Valid};

/// A hundred years.
const DAYS_MAX: i64 = 36_500;

/// A program as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct LoyaltyProgram {
    pub program_id: Uuid,
    pub name: String,
    /// `points_per_step` points for each whole `step_minor` of the net a sale is worth, in minor units of its currency.
    pub step_minor: i64,
    pub points_per_step: i64,
    /// Days after which earned points are lost; null: never.
    pub expires_after_days: Option<i32>,
    /// So many points are worth `redeem_minor` minor units of the document's currency; null: they cannot be spent.
    pub redeem_points: Option<i64>,
    pub redeem_minor: Option<i64>,
    /// Days after which earned points can be spent, the return window; null: at once.
    pub pending_days: Option<i32>,
    /// Days that points live on which come back after their date; null: the next run writes them off.
    pub restore_days: Option<i32>,
    pub version: i64,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LoyaltyPrograms {
    pub programs: Vec<LoyaltyProgram>,
}

/// What may change about a program: an absent field stays as it is, null removes what may be absent. Points that were
/// given keep their dates; refunds take back by the rule of their sale.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoyaltyProgramEdit {
    pub name: Option<String>,
    pub step_minor: Option<i64>,
    pub points_per_step: Option<i64>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i32>)]
    pub expires_after_days: Option<Option<i64>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub redeem_points: Option<Option<i64>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub redeem_minor: Option<Option<i64>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i32>)]
    pub pending_days: Option<Option<i64>>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i32>)]
    pub restore_days: Option<Option<i64>>,
}

/// Tells null from absent.
fn given<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(reader).map(Some)
}

impl Body for LoyaltyProgramEdit {
    fn check(&mut self, checks: &mut Checks) {
        checks.text_opt("/name", &mut self.name, NAME_CHARS_MAX);
        checks.range("/step_minor", self.step_minor.unwrap_or(1), 1..=AMOUNT_MAX);
        checks.range("/points_per_step", self.points_per_step.unwrap_or(1), 1..=AMOUNT_MAX);
        checks.range("/redeem_points", self.redeem_points.flatten().unwrap_or(1), 1..=AMOUNT_MAX);
        checks.range("/redeem_minor", self.redeem_minor.flatten().unwrap_or(1), 1..=AMOUNT_MAX);
        checks.range("/expires_after_days", self.expires_after_days.flatten().unwrap_or(1), 1..=DAYS_MAX);
        checks.range("/pending_days", self.pending_days.flatten().unwrap_or(0), 0..=DAYS_MAX);
        checks.range("/restore_days", self.restore_days.flatten().unwrap_or(0), 0..=DAYS_MAX);
    }
}

impl LoyaltyProgram {
    /// The program after an edit whose values are in range.
    fn edited(&self, edit: &LoyaltyProgramEdit) -> LoyaltyProgram {
        let days = |given: Option<Option<i64>>, old: Option<i32>| match given {
            Some(days) => days.and_then(|days| i32::try_from(days).ok()),
            None => old,
        };
        LoyaltyProgram {
            program_id: self.program_id,
            name: edit.name.clone().unwrap_or_else(|| self.name.clone()),
            step_minor: edit.step_minor.unwrap_or(self.step_minor),
            points_per_step: edit.points_per_step.unwrap_or(self.points_per_step),
            expires_after_days: days(edit.expires_after_days, self.expires_after_days),
            redeem_points: edit.redeem_points.unwrap_or(self.redeem_points),
            redeem_minor: edit.redeem_minor.unwrap_or(self.redeem_minor),
            pending_days: days(edit.pending_days, self.pending_days),
            restore_days: days(edit.restore_days, self.restore_days),
            version: self.version + 1,
        }
    }

    /// What only the whole program can be wrong about.
    fn check(&self) -> Result<(), ApiError> {
        let mut checks = Checks::default();
        let is_priced = self.redeem_points.is_some() == self.redeem_minor.is_some();
        let missing = if self.redeem_minor.is_none() { "/redeem_minor" } else { "/redeem_points" };
        checks.that(is_priced, missing, "points and what they are worth belong together");
        let is_in_time = self.expires_after_days.is_none_or(|end| self.pending_days.unwrap_or(0) < end);
        checks.that(is_in_time, "/pending_days", "points would be lost before they can be spent");
        checks.done()
    }
}

/// `GET /loyalty/programs`
pub async fn list_programs(State(app): State<AppState>) -> Result<Response, ApiError> {
    json_response(StatusCode::OK, &LoyaltyPrograms { programs: db::list(&app.reads).await? })
}

/// `GET /loyalty/programs/{program_id}`
pub async fn find_program(State(app): State<AppState>, PathId(id): PathId) -> Result<Response, ApiError> {
    let program = db::find(&app.reads, id).await?.ok_or_else(|| ApiError::not_found("loyalty program"))?;
    with_etag(StatusCode::OK, &program, program.version)
}

/// `PATCH /loyalty/programs/{program_id}`
pub async fn edit_program(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(edit): Valid<LoyaltyProgramEdit>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let program = app
        .writer
        .write((id, if_match, edit, access.principal, context), |tx, (id, if_match, edit, who, context)| {
            Box::pin(async move {
                let mut write = CatalogWrite::begin(tx).await?;
                let before = db::find(&mut **tx, *id).await?.ok_or_else(|| ApiError::not_found("loyalty program"))?;
                check_version(*if_match, before.version, edit, &before)?;
                let program = before.edited(edit);
                program.check()?;
                db::update(tx, &program, write.next_version()).await?;
                write.change(Kind::LoyaltyProgram, (*id, program.version), None, &program)?;
                let entry = Entry::done(who, "loyalty_program.edit", format!("loyalty_program/{id}"));
                audit::record(tx, context, entry.states(Some(&before), &program)).await?;
                write.finish(tx, context, *id).await?;
                Ok::<_, ApiError>(program)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &program, program.version)
}
