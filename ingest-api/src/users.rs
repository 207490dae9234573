//! Users and what they are granted. Owners grant anything; managers look after the cashiers of their
//! own locations.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use runtime::pg::PgTx;
use schemas::events;
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Granted, Permission, Principal, Role, RoleName};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::{principals, sessions, step_up};
use crate::checks::{CODE_CHARS_MAX, Checks};
use crate::context::Context;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::db::{credentials, roles, users as db};
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Params, PathId, Valid};
use crate::page::{self, Page, PageParams};

const LIST: &str = "users";
const GRANTS_MAX: usize = 1_000;
const CODE_MAX: usize = 20;

/// A role (built in, or one of the company's own by its id) at a location; without one, at every location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserGrant {
    pub role: RoleName,
    pub location_id: Option<Uuid>,
}

/// A user to be.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    pub user_id: Option<Uuid>,
    /// Unique; compared in lower case.
    pub login: String,
    /// Short, unique; stands for the person on receipts and in reports.
    pub code: String,
    /// At least ten characters, and none of those that are guessed first; without one the user cannot log in (a cashier at a
    /// till need not).
    pub password: Option<String>,
    pub grants: Vec<UserGrant>,
}

impl Body for NewUser {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/user_id", self.user_id);
        checks.text("/login", &mut self.login, CODE_CHARS_MAX);
        self.login = self.login.to_lowercase();
        checks.text("/code", &mut self.code, CODE_MAX);
        check_grants(checks, &mut self.grants);
    }
}

/// What may change about a user; absent fields stay, grants are replaced as a whole. Other grants and `is_active: false`
/// end every session.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserEdit {
    pub code: Option<String>,
    pub grants: Option<Vec<UserGrant>>,
    pub is_active: Option<bool>,
}

impl Body for UserEdit {
    fn check(&mut self, checks: &mut Checks) {
        checks.text_opt("/code", &mut self.code, CODE_MAX);
        if let Some(grants) = &mut self.grants {
            check_grants(checks, grants);
        }
    }
}

fn check_grants(checks: &mut Checks, grants: &mut Vec<UserGrant>) {
    checks.that(grants.len() <= GRANTS_MAX, "/grants", "holds more than 1,000 grants");
    grants.sort_unstable();
    grants.dedup();
}

/// A user as it is. Never carries the password or anything made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct User {
    pub user_id: Uuid,
    pub login: String,
    pub code: String,
    pub is_active: bool,
    /// Whether the user may log in with a password.
    pub has_password: bool,
    pub grants: Vec<UserGrant>,
    pub version: i64,
}

/// What the catalog feed says about a cashier: a till decides by it who may sell.
#[derive(Serialize)]
struct CashierBody<'a> {
    cashier_id: Uuid,
    code: &'a str,
    is_active: bool,
    /// Locations where the user may sell, of those that the reader may know of; null: everywhere.
    sells_at: Option<Vec<Uuid>>,
    version: i64,
}

/// Whether these grants are the caller's to give, take or see.
pub fn is_in_charge(access: &Access, grants: &[UserGrant]) -> bool {
    looks_after(&access.principal, access.permission, grants)
}

fn looks_after(who: &Principal, permission: Permission, grants: &[UserGrant]) -> bool {
    let is_owner = match who {
        Principal::User { grants, .. } => {
            grants.iter().any(|grant| grant.role == Granted::BuiltIn(Role::Owner) && grant.location_id.is_none())
        }
        _ => false,
    };
    is_owner
        || (!grants.is_empty()
            && grants.iter().all(|grant| {
                grant.role == RoleName::BuiltIn(Role::Cashier)
                    && grant.location_id.is_some_and(|location| who.may(permission, LocationId(location)))
            }))
}

fn require_charge(access: &Access, grants: &[UserGrant]) -> Result<(), ApiError> {
    if is_in_charge(access, grants) {
        return Ok(());
    }
    Err(ApiError::forbidden("forbidden", "you may grant `cashier` at your own locations only"))
}

/// `POST /users`
pub async fn create_user(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(mut new): Valid<NewUser>,
) -> Result<Response, ApiError> {
    require_charge(&access, &new.grants)?;
    let hash = match new.password.take() {
        Some(password) => {
            app.auth.passwords.accept("/password", &password, &[&new.login, &new.code]).await?;
            Some(app.auth.passwords.hash(password).await?)
        }
        None => None,
    };
    let user = app
        .writer
        .write((new, hash, access, context), |tx, (new, hash, access, context)| {
            Box::pin(async move {
                if new.grants.iter().any(|grant| grant.role != RoleName::BuiltIn(Role::Cashier)) {
                    step_up::require(tx, access).await?;
                }
                let write = CatalogWrite::begin(tx).await?;
                check_grants_known(tx, &new.grants).await?;
                let id = new.user_id.unwrap_or_else(Uuid::now_v7);
                db::insert(tx, id, (&new.login, &new.code), hash.as_deref()).await?;
                db::replace_grants(tx, id, &new.grants).await?;
                finish(tx, write, access, context, "user.create", id, None).await
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &user, user.version)
}

/// `PATCH /users/{user_id}`
pub async fn edit_user(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(edit): Valid<UserEdit>,
) -> Result<Response, ApiError> {
    let user = app
        .writer
        .write((id, if_match, edit, access, context), |tx, (id, if_match, edit, access, context)| {
            Box::pin(async move {
                let write = CatalogWrite::begin(tx).await?;
                let before = db::find(tx, *id).await?.filter(|user| is_in_charge(access, &user.grants));
                let before = before.ok_or_else(|| ApiError::not_found("user"))?;
                check_version(*if_match, before.version, edit, &before)?;
                db::update(tx, *id, edit).await?;
                let mut held = before.grants.clone();
                held.sort_unstable();
                let other_grants = edit.grants.as_ref().filter(|grants| **grants != held);
                if let Some(grants) = other_grants {
                    require_charge(access, grants)?;
                    step_up::require(tx, access).await?;
                    check_grants_known(tx, grants).await?;
                    db::replace_grants(tx, *id, grants).await?;
                    if grants.iter().any(|grant| !held.contains(grant)) {
                        forget_foreign_pin(tx, (access, context), *id, grants).await?;
                    }
                }
                if other_grants.is_some() || edit.is_active == Some(false) {
                    sessions::cut(tx, *id, "rights changed").await?;
                }
                let user = finish(tx, write, access, context, "user.edit", *id, Some(before)).await?;
                // Somebody must be left who can undo this.
                if !db::has_owner(tx).await? {
                    return Err(ApiError::conflict("illegal_transition", "the last owner cannot go"));
                }
                Ok(user)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &user, user.version)
}

/// Takes away the PIN of a user who is given more than whoever set it, and so knows it, could give or take.
async fn forget_foreign_pin(
    tx: &mut PgTx,
    (access, context): (&Access, &Context),
    id: Uuid,
    grants: &[UserGrant],
) -> Result<(), ApiError> {
    let Some(setter) = credentials::pin_set_by(tx, id).await? else { return Ok(()) };
    let setter = match setter {
        Some(setter) => principals::user(tx, setter).await?,
        None => None,
    };
    if setter.is_some_and(|setter| looks_after(&setter, Permission::ManageUsers, grants)) {
        return Ok(());
    }
    credentials::set_pin(tx, id, None, access.actor().0).await?;
    let entry = Entry::done(&access.principal, "user.pin", format!("user/{id}")).because("set by somebody below");
    audit::record(tx, context, entry).await?;
    Ok(())
}

async fn check_grants_known(tx: &mut PgTx, grants: &[UserGrant]) -> Result<(), ApiError> {
    let own: Vec<Uuid> = grants.iter().filter_map(|grant| grant.role.own()).collect();
    if !own.is_empty() {
        let known: Vec<Uuid> = roles::list(&mut **tx, Some(&own)).await?.into_iter().map(|role| role.role_id).collect();
        let is_unknown = |grant: &UserGrant| grant.role.own().is_some_and(|role| !known.contains(&role));
        if let Some(i) = grants.iter().position(is_unknown) {
            return Err(ApiError::invalid_value(format!("/grants/{i}/role"), "no such role"));
        }
    }
    let named = grants.iter().filter_map(|grant| grant.location_id).collect();
    let known = crate::db::catalog::currencies(tx, named).await?;
    let is_unknown = |grant: &UserGrant| grant.location_id.is_some_and(|location| !known.contains_key(&location));
    match grants.iter().position(is_unknown) {
        None => Ok(()),
        Some(i) => Err(ApiError::invalid_value(format!("/grants/{i}/location_id"), "no such location")),
    }
}

async fn finish(
    tx: &mut PgTx,
    write: CatalogWrite,
    access: &Access,
    context: &Context,
    action: &str,
    id: Uuid,
    before: Option<User>,
) -> Result<User, ApiError> {
    let user = db::find(tx, id).await?.ok_or_else(|| ApiError::not_found("user"))?;
    let entry = Entry::done(&access.principal, action, format!("user/{id}")).states(before.as_ref(), &user);
    audit::record(tx, context, entry).await?;
    publish(tx, write, context, before.as_ref(), &user).await?;
    Ok(user)
}

/// What readers of the catalog feed are told of users.
pub struct Selling {
    /// Roles of the company's own whose holders may sell.
    own_roles: Vec<Uuid>,
}

impl Selling {
    pub async fn now(tx: &mut PgTx) -> Result<Self, sqlx::Error> {
        Ok(Selling { own_roles: roles::selling(tx).await? })
    }

    /// Locations where the user may sell; none: everywhere.
    fn sells_at(&self, user: &User) -> Option<Vec<Uuid>> {
        let sells = |grant: &&UserGrant| match grant.role {
            RoleName::BuiltIn(role) => Permission::Sell.is_held_by(role),
            RoleName::Own(role) => self.own_roles.contains(&role),
        };
        // One grant without a location makes the whole none.
        user.grants.iter().filter(sells).map(|grant| grant.location_id).collect()
    }
}

/// Who is told of a user: the places where they may sell, and those where they could until now.
fn concerned(before: Option<Option<Vec<Uuid>>>, now: Option<Vec<Uuid>>) -> Option<Vec<Uuid>> {
    let mut places = now?;
    if let Some(before) = before {
        places.extend(before?);
    }
    places.sort_unstable();
    places.dedup();
    Some(places)
}

/// Ends a write to a user: feed, compacted topic.
pub async fn publish(
    tx: &mut PgTx,
    mut write: CatalogWrite,
    context: &Context,
    before: Option<&User>,
    user: &User,
) -> Result<(), ApiError> {
    let selling = Selling::now(tx).await?;
    note(&mut write, before.map(|before| (&selling, before)), (&selling, user))?;
    write.finish(tx, context, user.user_id).await?;
    Ok(())
}

/// Notes in a catalog write what became of a user.
pub fn note(
    write: &mut CatalogWrite,
    before: Option<(&Selling, &User)>,
    (selling, user): (&Selling, &User),
) -> Result<(), ApiError> {
    let sells_at = selling.sells_at(user);
    let concerned = concerned(before.map(|(selling, user)| selling.sells_at(user)), sells_at.clone());
    let body = CashierBody {
        cashier_id: user.user_id,
        code: &user.code,
        is_active: user.is_active,
        sells_at,
        version: user.version,
    };
    let catalog_version = write.change(Kind::Cashier, (user.user_id, user.version), concerned, &body)?;
    write.publish(&events::Cashier {
        epoch: write.epoch,
        cashier_id: user.user_id.into(),
        version: user.version,
        catalog_version,
        code: user.code.clone(),
        is_active: user.is_active,
        recorded_at: write.at.into(),
    });
    Ok(())
}

/// `GET /users/{user_id}`
pub async fn find_user(State(app): State<AppState>, access: Access, PathId(id): PathId) -> Result<Response, ApiError> {
    let mut tx = app.snapshot().await?;
    let user = db::find(&mut tx, id).await?.filter(|user| is_visible(&access, user));
    let user = as_seen_by(&access, user.ok_or_else(|| ApiError::not_found("user"))?);
    with_etag(StatusCode::OK, &user, user.version)
}

/// Without the grants at locations that the reader does not see.
fn as_seen_by(access: &Access, mut user: User) -> User {
    let sees = |grant: &UserGrant| {
        grant.location_id.is_none_or(|place| access.principal.may(access.permission, LocationId(place)))
    };
    user.grants.retain(sees);
    user
}

/// Whoever is not granted everywhere sees the users of their own locations.
fn is_visible(access: &Access, user: &User) -> bool {
    access.principal.may_everywhere(access.permission)
        || user
            .grants
            .iter()
            .filter_map(|grant| grant.location_id)
            .any(|location| access.principal.may(access.permission, LocationId(location)))
}

/// `GET /users`
pub async fn list_users(
    State(app): State<AppState>,
    access: Access,
    Params(params): Params<PageParams>,
) -> Result<Response, ApiError> {
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let mut tx = app.snapshot().await?;
    let rows = db::list(&mut tx, access.scope(), after, limit + 1).await?;
    let rows = rows.into_iter().map(|user| as_seen_by(&access, user)).collect();
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &User| row.user_id)?;
    json_response(StatusCode::OK, &page)
}
