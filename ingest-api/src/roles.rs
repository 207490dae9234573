//! Roles: the four that are built in, to be read, and those a company makes of the same permissions.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use runtime::pg::PgTx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Permission, Role};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::{sessions, step_up};
use crate::checks::{AMOUNT_MAX, Checks, NAME_CHARS_MAX};
use crate::context::Context;
use crate::db::catalog_writes::CatalogWrite;
use crate::db::roles::{self as db, OwnRole};
use crate::db::users as users_db;
use crate::edits::{check_version, json_response, with_etag};
use crate::error::{ApiError, FieldProblem};
use crate::extract::{Body, IfMatch, PathId, Valid};
use crate::limits::{Mode, Rule};
use crate::users::{self, Selling, User};

/// Roles of one company.
const ROLES_MAX: usize = 100;
/// Ceilings of one rule: more currencies than anybody trades in.
const CEILINGS_MAX: usize = 50;
/// Documents of one person on one day.
const PER_SHIFT_MAX: i64 = 100_000;

/// A role of the company's own, whole: what is not named is denied.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    /// Unique among the roles of the company, and none of the built-in names.
    pub name: String,
    /// Each permission once.
    pub rules: Vec<Rule>,
}

impl Body for NewRole {
    const BYTES_MAX: usize = 256 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.text("/name", &mut self.name, NAME_CHARS_MAX);
        let is_built_in = Role::parse(&self.name.to_lowercase().replace(' ', "_")).is_some();
        checks.that(!is_built_in, "/name", "is the name of a built-in role");
        // The names of several roles stand in one text of the audit log.
        checks.that(!self.name.contains(','), "/name", "must not hold a comma");
        checks.rows("/rules", self.rules.len(), Permission::ALL.len());
        for (i, rule) in self.rules.iter().enumerate().take(Permission::ALL.len()) {
            let is_first = self.rules.iter().position(|other| other.permission == rule.permission) == Some(i);
            checks.that(is_first, format_args!("/rules/{i}/permission"), "stands twice");
            check_rule(checks, i, rule);
        }
        self.rules.sort_unstable_by_key(|rule| rule.permission);
    }
}

fn check_rule(checks: &mut Checks, i: usize, rule: &Rule) {
    let at = |field: &str| format!("/rules/{i}/{field}");
    checks.that(rule.permission.is_for_roles(), at("permission"), "is none that a role can be given");
    let is_act = rule.permission.is_act();
    checks.that(is_act || rule.mode != Mode::Approval, at("mode"), "approvals are for acts only");
    let limited = is_act && rule.mode == Mode::Allow;
    if let Some(percent) = rule.percent_max {
        checks.that(limited, at("percent_max"), "limits are for acts that are allowed");
        checks.that(
            matches!(rule.permission, Permission::DiscountLines | Permission::OverridePrice),
            at("percent_max"),
            "such an act is no part of anything",
        );
        checks.range(at("percent_max"), percent, 0..=100);
    }
    if let Some(units) = rule.units_max {
        checks.that(limited, at("units_max"), "limits are for acts that are allowed");
        checks.range(at("units_max"), units, 0..=AMOUNT_MAX);
    }
    if let Some(per_shift) = rule.per_shift {
        checks.that(limited, at("per_shift"), "limits are for acts that are allowed");
        checks.range(at("per_shift"), per_shift, 0..=PER_SHIFT_MAX);
    }
    let Some(ceilings) = &rule.ceilings else { return };
    checks.that(limited, at("ceilings"), "limits are for acts that are allowed");
    checks.rows(at("ceilings"), ceilings.len(), CEILINGS_MAX);
    for (n, ceiling) in ceilings.iter().enumerate().take(CEILINGS_MAX) {
        let is_first = ceilings.iter().position(|other| other.currency == ceiling.currency) == Some(n);
        checks.currency(at(&format!("ceilings/{n}/currency")), &ceiling.currency);
        checks.that(is_first, at(&format!("ceilings/{n}/currency")), "stands twice");
        checks.range(at(&format!("ceilings/{n}/amount_minor")), ceiling.amount_minor, 0..=AMOUNT_MAX);
    }
}

/// A role as it is. `role` is what a grant names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RoleBody {
    pub role: String,
    pub name: String,
    /// Built-in roles cannot be changed; make one of your own of their rules.
    pub is_built_in: bool,
    /// Whether who holds it has to set up a second factor, whatever the sign-in policy says.
    pub needs_second_factor: bool,
    pub rules: Vec<Rule>,
    pub version: i64,
}

/// All roles, built-in ones first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Roles {
    pub items: Vec<RoleBody>,
}

impl RoleBody {
    fn of(role: OwnRole) -> Self {
        RoleBody {
            role: role.role_id.to_string(),
            name: role.name,
            is_built_in: false,
            needs_second_factor: needs_second_factor(&role.rules),
            rules: role.rules,
            version: role.version,
        }
    }
    fn built_in(role: Role) -> Self {
        let held = Permission::ALL.iter().filter(|it| it.is_for_roles() && it.is_held_by(role));
        RoleBody {
            role: role.as_str().to_owned(),
            name: role.as_str().to_owned(),
            is_built_in: true,
            needs_second_factor: matches!(role, Role::Owner | Role::ItAdmin),
            rules: held.map(|permission| permission.rule_of(role)).collect(),
            version: 1,
        }
    }
}

/// Whether it holds what only roles with a compulsory second factor hold.
fn needs_second_factor(rules: &[Rule]) -> bool {
    let is_usual =
        |permission: Permission| [Role::Manager, Role::Cashier].iter().any(|role| permission.is_held_by(*role));
    rules.iter().any(|rule| rule.mode != Mode::Deny && !is_usual(rule.permission))
}

/// 403 unless the caller holds all of it everywhere: whoever gives a role could be its first holder.
fn require_holds(access: &Access, rules: &[Rule]) -> Result<(), ApiError> {
    let beyond = rules.iter().position(|rule| !access.principal.covers(rule));
    let Some(i) = beyond else { return Ok(()) };
    let mut problem = ApiError::forbidden("forbidden", "you may give a role no more than you hold yourself");
    problem.errors = vec![FieldProblem::new(format!("/rules/{i}"), "forbidden", "is more than you hold everywhere")];
    Err(problem)
}

/// `POST /roles`
pub async fn create_role(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewRole>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    require_holds(&access, &new.rules)?;
    let role = app
        .writer
        .write((new, access, context), |tx, (new, access, context)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                // The counter's lock lets one maker of roles go at a time.
                let write = CatalogWrite::begin(tx).await?;
                if db::list(&mut **tx, None).await?.len() >= ROLES_MAX {
                    return Err(ApiError::conflict("illegal_transition", format!("{ROLES_MAX} roles are enough")));
                }
                let role =
                    OwnRole { role_id: Uuid::now_v7(), name: new.name.clone(), rules: new.rules.clone(), version: 1 };
                db::save(tx, &role, needs_second_factor(&role.rules)).await?;
                let body = RoleBody::of(role);
                let entry = Entry::done(&access.principal, "role.create", format!("role/{}", body.role));
                audit::record(tx, context, entry.states(None, &body)).await?;
                write.finish(tx, context, Uuid::nil()).await?;
                Ok(body)
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &role, role.version)
}

/// `PUT /roles/{role_id}`: ends the sessions and leases of who holds it, so that it is judged by at once.
pub async fn replace_role(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(role_id): PathId,
    if_match: IfMatch,
    Valid(new): Valid<NewRole>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    require_holds(&access, &new.rules)?;
    let role = app
        .writer
        .write((role_id, if_match, new, access, context), |tx, (role_id, if_match, new, access, context)| {
            Box::pin(async move { replace(tx, *role_id, *if_match, new, (access, context)).await })
        })
        .await?;
    with_etag(StatusCode::OK, &role, role.version)
}

async fn replace(
    tx: &mut PgTx,
    role_id: Uuid,
    if_match: IfMatch,
    new: &NewRole,
    (access, context): (&Access, &Context),
) -> Result<RoleBody, ApiError> {
    step_up::require(tx, access).await?;
    let mut write = CatalogWrite::begin(tx).await?;
    let before = db::lock(tx, role_id).await?.ok_or_else(|| ApiError::not_found("role"))?;
    let shown = RoleBody::of(before.clone());
    check_version(if_match, before.version, new, &shown)?;
    let holders = db::holders(tx, role_id).await?;
    let sold = (Selling::now(tx).await?, holding(tx, &holders).await?);
    let role = OwnRole { name: new.name.clone(), rules: new.rules.clone(), version: before.version + 1, ..before };
    db::save(tx, &role, needs_second_factor(&role.rules)).await?;
    db::raise_versions(tx, &holders).await?;
    for user in &holders {
        sessions::cut(tx, *user, "rights changed").await?;
    }
    let sells = (Selling::now(tx).await?, holding(tx, &holders).await?);
    for (before, user) in sold.1.iter().zip(&sells.1) {
        users::note(&mut write, Some((&sold.0, before)), (&sells.0, user))?;
    }
    let body = RoleBody::of(role);
    let entry = Entry::done(&access.principal, "role.edit", format!("role/{role_id}"));
    audit::record(tx, context, entry.states(Some(&shown), &body)).await?;
    write.finish(tx, context, role_id).await?;
    Ok(body)
}

/// The holders as they are now, in the order of their ids.
async fn holding(tx: &mut PgTx, ids: &[Uuid]) -> Result<Vec<User>, ApiError> {
    let mut users = Vec::with_capacity(ids.len());
    for id in ids {
        users.extend(users_db::find(tx, *id).await?);
    }
    Ok(users)
}

/// `GET /roles/{role_id}`
pub async fn find_role(State(app): State<AppState>, _: Access, PathId(role_id): PathId) -> Result<Response, ApiError> {
    let found = db::list(&app.reads, Some(&[role_id])).await?.pop();
    let role = RoleBody::of(found.ok_or_else(|| ApiError::not_found("role"))?);
    with_etag(StatusCode::OK, &role, role.version)
}

/// `GET /roles`: no pages, a company has a hundred at most.
pub async fn list_roles(State(app): State<AppState>, _: Access) -> Result<Response, ApiError> {
    let own = db::list(&app.reads, None).await?.into_iter().map(RoleBody::of);
    let items = Role::ALL.map(RoleBody::built_in).into_iter().chain(own).collect();
    json_response(StatusCode::OK, &Roles { items })
}
