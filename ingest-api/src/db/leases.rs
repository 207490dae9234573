//! Leases of tills.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::{AssertSqlSafe, PgExecutor};
use uuid::Uuid;

use crate::auth::leases::{Lease, LeaseParams};
use crate::db::limits::json_text;
use crate::limits::Limits;

const COLUMNS: &str =
    "lease_id, terminal_id, location_id, cashier_id, permissions, issued_at, expires_at, revoked_at, revoke_reason";

/// A lease to be.
pub struct NewLease<'a> {
    pub lease_id: Uuid,
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub cashier_id: Uuid,
    pub device_public_key: &'a [u8],
    pub verifier: &'a str,
    pub permissions: &'a [String],
    pub limits: &'a Limits,
    pub issued_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

pub async fn insert(tx: &mut PgTx, new: &NewLease<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into leases (lease_id, terminal_id, location_id, cashier_id, device_public_key, verifier, permissions,
                             issued_at, expires_at, limits) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb)",
    )
    .bind(new.lease_id)
    .bind(new.terminal_id)
    .bind(new.location_id)
    .bind(new.cashier_id)
    .bind(new.device_public_key)
    .bind(new.verifier)
    .bind(new.permissions)
    .bind(new.issued_at)
    .bind(new.expires_at)
    .bind(json_text(new.limits)?)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Leases in scope, in the order of their ids, which is that of their issue.
pub async fn list(
    executor: impl PgExecutor<'_>,
    scope: Option<Vec<Uuid>>,
    params: &LeaseParams,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Lease>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from leases
         where ($1::uuid[] is null or location_id = any($1)) and ($2::uuid is null or terminal_id = $2)
           and ($3::uuid is null or cashier_id = $3) and ($4::uuid is null or lease_id > $4)
           and (not $5 or (revoked_at is null and expires_at > now()))
         order by lease_id limit $6"
    )))
    .bind(scope)
    .bind(params.terminal_id)
    .bind(params.cashier_id)
    .bind(after)
    .bind(params.live.unwrap_or(false))
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// Locked until the transaction ends.
pub async fn lock(tx: &mut PgTx, lease_id: Uuid) -> Result<Option<Lease>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from leases where lease_id = $1 for update")))
        .bind(lease_id)
        .fetch_optional(&mut **tx)
        .await
}

pub async fn revoke(tx: &mut PgTx, lease_id: Uuid, by: Uuid, reason: &str) -> Result<Lease, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "update leases set revoked_at = coalesce(revoked_at, now()), revoked_by = coalesce(revoked_by, $2),
                revoke_reason = coalesce(revoke_reason, $3)
         where lease_id = $1 returning {COLUMNS}"
    )))
    .bind(lease_id)
    .bind(by)
    .bind(reason)
    .fetch_one(&mut **tx)
    .await
}

/// Ends what a cashier holds, at every till.
pub async fn revoke_of_cashier(tx: &mut PgTx, cashier_id: Uuid, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update leases set revoked_at = now(), revoke_reason = $2 where cashier_id = $1 and revoked_at is null",
    )
    .bind(cashier_id)
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Ends what a device holds: all of it, or what one cashier has there.
pub async fn revoke_of_terminal(
    tx: &mut PgTx,
    terminal_id: Uuid,
    cashier_id: Option<Uuid>,
    reason: &str,
) -> Result<i64, sqlx::Error> {
    let done = sqlx::query(
        "update leases set revoked_at = now(), revoke_reason = $3
         where terminal_id = $1 and ($2::uuid is null or cashier_id = $2) and revoked_at is null",
    )
    .bind(terminal_id)
    .bind(cashier_id)
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() as i64)
}
