//! The one row of the sign-in policy.

use runtime::pg::PgTx;
use sqlx::PgExecutor;

use crate::access::Role;
use crate::auth::policy::{SignInPolicy, SignInPolicyEdit};

type Row = (Vec<String>, i32, i64);

fn policy((roles, lease_hours, version): Row) -> SignInPolicy {
    let stored = roles.iter().filter_map(|role| Role::parse(role));
    let mut second_factor_roles: Vec<Role> = stored.chain([Role::Owner, Role::ItAdmin]).collect();
    second_factor_roles.sort_unstable();
    second_factor_roles.dedup();
    SignInPolicy { second_factor_roles, lease_hours, version }
}

pub async fn find(executor: impl PgExecutor<'_>) -> Result<SignInPolicy, sqlx::Error> {
    let row = sqlx::query_as("select second_factor_roles, lease_hours, version from sign_in_policy");
    row.fetch_one(executor).await.map(policy)
}

pub async fn lock(tx: &mut PgTx) -> Result<SignInPolicy, sqlx::Error> {
    let row = sqlx::query_as("select second_factor_roles, lease_hours, version from sign_in_policy for update");
    row.fetch_one(&mut **tx).await.map(policy)
}

pub async fn update(tx: &mut PgTx, edit: &SignInPolicyEdit) -> Result<SignInPolicy, sqlx::Error> {
    let roles = edit.second_factor_roles.as_ref();
    sqlx::query_as(
        "update sign_in_policy set second_factor_roles = coalesce($1, second_factor_roles),
                lease_hours = coalesce($2, lease_hours), version = version + 1
         returning second_factor_roles, lease_hours, version",
    )
    .bind(roles.map(|roles| roles.iter().map(|role| role.as_str()).collect::<Vec<_>>()))
    .bind(edit.lease_hours)
    .fetch_one(&mut **tx)
    .await
    .map(policy)
}
