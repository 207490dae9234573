//! What the company asks of signing in, beyond what holds anyway.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{Access, Role};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::step_up;
use crate::checks::Checks;
use crate::context::Context;
use crate::db::sign_in_policy as db;
use crate::edits::{check_version, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Valid};

const LEASE_HOURS_MAX: i64 = 720;

/// The policy as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SignInPolicy {
    /// Roles that need a second factor; `owner` and `it_admin` always do.
    pub second_factor_roles: Vec<Role>,
    /// How long a cashier may sell at a till that does not reach the server.
    pub lease_hours: i32,
    pub version: i64,
}

/// What may change; absent fields stay.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInPolicyEdit {
    pub second_factor_roles: Option<Vec<Role>>,
    /// 1 to 720.
    pub lease_hours: Option<i32>,
}

impl Body for SignInPolicyEdit {
    fn check(&mut self, checks: &mut Checks) {
        if let Some(roles) = &mut self.second_factor_roles {
            roles.extend([Role::Owner, Role::ItAdmin]);
            roles.sort_unstable();
            roles.dedup();
        }
        if let Some(hours) = self.lease_hours {
            checks.range("/lease_hours", hours.into(), 1..=LEASE_HOURS_MAX);
        }
    }
}

/// `GET /sign-in-policy`
pub async fn find_policy(State(app): State<AppState>, access: Access) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let policy = db::find(&app.reads).await?;
    with_etag(StatusCode::OK, &policy, policy.version)
}

/// `PATCH /sign-in-policy`. Sessions go on; who now needs a second factor is asked for it at the next log-in.
pub async fn edit_policy(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    if_match: IfMatch,
    Valid(edit): Valid<SignInPolicyEdit>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let policy = app
        .writer
        .write((if_match, edit, access, context), |tx, (if_match, edit, access, context)| {
            Box::pin(async move {
                step_up::require(tx, access).await?;
                let before = db::lock(tx).await?;
                check_version(*if_match, before.version, edit, &before)?;
                let policy = db::update(tx, edit).await?;
                let entry = Entry::done(&access.principal, "sign_in_policy.edit", "sign_in_policy".to_owned());
                audit::record(tx, context, entry.states(Some(&before), &policy)).await?;
                Ok::<_, ApiError>(policy)
            })
        })
        .await?;
    with_etag(StatusCode::OK, &policy, policy.version)
}
