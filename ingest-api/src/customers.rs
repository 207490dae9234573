//! Members: a random identifier and an opaque member number. What is known of the person stands in a sealed profile, and
//! nowhere else. The loyalty account is made with the member, never inside a sale.

pub mod erasure;
pub mod export;
pub mod lookup;
pub mod merge;
pub mod points;
pub mod profile;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::access::{Access, Permission};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::codes::random_text;
use crate::catalog::upsert::BulkTurn;
use crate::checks::{BULK_ROWS_MAX, CODE_CHARS_MAX, Checks};
use crate::context::Context;
use crate::db::customers as db;
use crate::edits::{json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, Params, PathId, Valid};
use crate::page::{self, Page};
use crate::phone;
use profile::{Profile, ProfileEdit};

const LIST: &str = "members";
const NUMBER_CHARS_MAX: usize = 40;

/// A member to be.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    pub customer_id: Option<Uuid>,
    pub external_id: Option<String>,
    /// Generated when absent.
    pub member_number: Option<String>,
    pub profile: Option<ProfileEdit>,
}

impl Body for NewMember {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/customer_id", self.customer_id);
        checks.text_opt("/external_id", &mut self.external_id, CODE_CHARS_MAX);
        checks.text_opt("/member_number", &mut self.member_number, NUMBER_CHARS_MAX);
        check_opaque(checks, "/external_id", self.external_id.as_deref());
        check_opaque(checks, "/member_number", self.member_number.as_deref());
        if let Some(profile) = &mut self.profile {
            profile.check(checks, "/profile");
        }
    }
}

/// Identifiers are kept in the clear: an address belongs into the profile.
fn check_opaque(checks: &mut Checks, pointer: impl std::fmt::Display, text: Option<&str>) {
    let is_address = text.is_some_and(|text| text.contains('@') || phone::normalised(text).is_some());
    checks.that(!is_address, pointer, "must not be an e-mail address or a telephone number");
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberRow {
    pub external_id: String,
    /// Generated when absent; of a known member it stays as it is.
    pub member_number: Option<String>,
}

/// Members by the caller's own identifiers, 1 to 10,000.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MembersUpsert {
    pub members: Vec<MemberRow>,
}

impl Body for MembersUpsert {
    const BYTES_MAX: usize = 8 << 20;
    fn check(&mut self, checks: &mut Checks) {
        checks.rows("/members", self.members.len(), BULK_ROWS_MAX);
        let mut seen = std::collections::HashSet::new();
        for (i, row) in self.members.iter_mut().enumerate().take(BULK_ROWS_MAX) {
            checks.text(format_args!("/members/{i}/external_id"), &mut row.external_id, CODE_CHARS_MAX);
            checks.text_opt(format_args!("/members/{i}/member_number"), &mut row.member_number, NUMBER_CHARS_MAX);
            check_opaque(checks, format_args!("/members/{i}/external_id"), Some(&row.external_id));
            check_opaque(checks, format_args!("/members/{i}/member_number"), row.member_number.as_deref());
            checks.that(seen.insert(row.external_id.clone()), format_args!("/members/{i}/external_id"), "stands twice");
        }
    }
}

/// A member as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Member {
    pub customer_id: Uuid,
    pub external_id: Option<String>,
    pub member_number: String,
    pub version: i64,
    pub created_at: DateTime<Utc>,
    /// The member this one was merged into; what is asked about this one is answered about that one.
    pub merged_into: Option<Uuid>,
    /// Since then nobody can know who it was.
    pub erased_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct StoredMember {
    pub external_id: String,
    pub customer_id: Uuid,
    pub member_number: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MembersStored {
    pub created: usize,
    pub unchanged: usize,
    pub members: Vec<StoredMember>,
}

/// 60 random bits: tells nothing about who or when.
fn new_number() -> String {
    format!("M{}", random_text(12))
}

/// `POST /members`
pub async fn create_member(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewMember>,
) -> Result<Response, ApiError> {
    if new.profile.is_some() && !access.principal.may_anywhere(Permission::SignUpMembers) {
        return Err(ApiError::forbidden("forbidden", "this caller may not say who a member is"));
    }
    let vault = new.profile.is_some().then(|| app.vault()).transpose()?;
    let member = app
        .writer
        .write((new, vault, access.principal, context), |tx, (new, vault, who, context)| {
            Box::pin(async move {
                let id = new.customer_id.unwrap_or_else(Uuid::now_v7);
                let number = new.member_number.clone().unwrap_or_else(new_number);
                let member = db::insert(tx, id, new.external_id.as_deref(), &number).await?;
                if let (Some(edit), Some(vault)) = (&new.profile, vault) {
                    let profile = Profile::default().with(edit);
                    profile::store(tx, vault, id, &Profile::default(), &profile).await?;
                }
                let entry = Entry::done(who, "member.create", format!("member/{id}")).states(None, &member);
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(member)
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &member, member.version)
}

/// `POST /members/upsert`
pub async fn upsert_members(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    _turn: BulkTurn,
    Valid(rows): Valid<MembersUpsert>,
) -> Result<Response, ApiError> {
    let stored = app
        .writer
        .write((rows.members, access.principal, context), |tx, (rows, who, context)| {
            Box::pin(async move {
                crate::db::catalog::allow_bulk(tx).await?;
                let numbers: Vec<String> =
                    rows.iter().map(|row| row.member_number.clone().unwrap_or_else(new_number)).collect();
                let created = db::insert_missing(tx, rows, &numbers).await?;
                let taken = db::still_missing(tx, rows).await?;
                ApiError::taken(taken.into_iter().map(|i| format!("/members/{i}/member_number")))?;
                if created > 0 {
                    let entry = Entry::done(who, "member.upsert", format!("members/{created}"));
                    audit::record(tx, context, entry).await?;
                }
                let members = db::by_external_id(tx, rows).await?;
                Ok::<_, ApiError>(MembersStored { created, unchanged: rows.len() - created, members })
            })
        })
        .await?;
    json_response(StatusCode::OK, &stored)
}

/// `GET /members/{customer_id}`
pub async fn find_member(State(app): State<AppState>, PathId(id): PathId) -> Result<Response, ApiError> {
    let member = db::find(&app.reads, id).await?.ok_or_else(|| ApiError::not_found("member"))?;
    with_etag(StatusCode::OK, &member, member.version)
}

/// Query of the list of members.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MemberParams {
    pub member_number: Option<String>,
    pub external_id: Option<String>,
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// `GET /members`
pub async fn list_members(
    State(app): State<AppState>,
    Params(mut params): Params<MemberParams>,
) -> Result<Response, ApiError> {
    let mut checks = Checks::default();
    checks.text_opt("/member_number", &mut params.member_number, NUMBER_CHARS_MAX);
    checks.text_opt("/external_id", &mut params.external_id, CODE_CHARS_MAX);
    checks.done()?;
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let rows = db::list(&app.reads, &params, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &Member| row.customer_id)?;
    json_response(StatusCode::OK, &page)
}

/// Points of a member that were earned together and expire together; below zero: a debt, which the next points pay.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct Lot {
    #[serde(skip)]
    #[schema(ignore)]
    pub account_id: Uuid,
    pub lot_id: Uuid,
    /// The document that earned them; null when it is of a location outside the caller's grants.
    pub cause_id: Option<Uuid>,
    pub earned_at: DateTime<Utc>,
    /// Pending before.
    pub available_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub points: i64,
    pub remaining: i64,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LoyaltyAccount {
    pub account_id: Uuid,
    pub program_id: Uuid,
    pub program: String,
    /// The balance: everything below together, with what is past its date and not written off yet.
    pub points: i64,
    /// What can be spent now: debts count against it.
    pub available: i64,
    /// What can be spent later.
    pub pending: i64,
    /// What is owed.
    pub debt: i64,
    pub version: i64,
    /// Lots with points left and debts, oldest first; at most 500.
    pub lots: Vec<Lot>,
    /// The newest changes, newest first; at most 100.
    pub entries: Vec<LoyaltyEntry>,
}

/// One change of an account.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, ToSchema)]
pub struct LoyaltyEntry {
    #[serde(skip)]
    #[schema(ignore)]
    pub account_id: Uuid,
    pub version: i64,
    #[schema(example = "accrual")]
    pub kind: String,
    pub delta: i64,
    pub points_after: i64,
    /// The document or act that caused it; null when it is of a location outside the caller's grants.
    pub cause_id: Option<Uuid>,
    pub effective_at: DateTime<Utc>,
    pub recorded_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Loyalty {
    /// Of the survivor, where the member was merged.
    pub customer_id: Uuid,
    pub accounts: Vec<LoyaltyAccount>,
}

/// `GET /members/{customer_id}/loyalty`
pub async fn find_loyalty(
    State(app): State<AppState>,
    access: Access,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let mut tx = app.snapshot().await?;
    let id = profile::survivor(&mut tx, id).await?.customer_id;
    let accounts = db::accounts(&mut tx, id, access.scope().as_deref(), Utc::now()).await?;
    let loyalty = Loyalty { customer_id: id, accounts };
    json_response(StatusCode::OK, &loyalty)
}
