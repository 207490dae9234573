//! Second factors, recovery codes, and who needs a second factor.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

/// A user's second factor as stored.
#[derive(Debug, sqlx::FromRow)]
pub struct Factor {
    /// Sealed; none until it was confirmed.
    pub secret: Option<Vec<u8>>,
    /// Sealed; offered and not confirmed yet.
    pub pending: Option<Vec<u8>>,
    pub last_step: i64,
}

/// Locked until the transaction ends, so that one code counts once.
pub async fn lock(tx: &mut PgTx, user_id: Uuid) -> Result<Option<Factor>, sqlx::Error> {
    sqlx::query_as("select secret, pending, last_step from second_factors where user_id = $1 for update")
        .bind(user_id)
        .fetch_optional(&mut **tx)
        .await
}

pub async fn offer(tx: &mut PgTx, user_id: Uuid, pending: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into second_factors (user_id, pending) values ($1, $2)
         on conflict (user_id) do update set pending = excluded.pending",
    )
    .bind(user_id)
    .bind(pending)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// What was offered is the factor from now on.
pub async fn confirm(tx: &mut PgTx, user_id: Uuid, step: i64, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update second_factors set secret = pending, pending = null, last_step = $2, confirmed_at = $3
         where user_id = $1",
    )
    .bind(user_id)
    .bind(step)
    .bind(at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn spend_step(tx: &mut PgTx, user_id: Uuid, step: i64) -> Result<(), sqlx::Error> {
    sqlx::query("update second_factors set last_step = $2 where user_id = $1")
        .bind(user_id)
        .bind(step)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// False when there was none.
pub async fn remove(tx: &mut PgTx, user_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query("delete from recovery_codes where user_id = $1").bind(user_id).execute(&mut **tx).await?;
    let gone = sqlx::query("delete from second_factors where user_id = $1").bind(user_id).execute(&mut **tx).await?;
    Ok(gone.rows_affected() == 1)
}

pub async fn replace_recovery_codes(tx: &mut PgTx, user_id: Uuid, hashes: &[Vec<u8>]) -> Result<(), sqlx::Error> {
    sqlx::query("delete from recovery_codes where user_id = $1").bind(user_id).execute(&mut **tx).await?;
    sqlx::query("insert into recovery_codes (user_id, code_hash) select $1, * from unnest($2::bytea[])")
        .bind(user_id)
        .bind(hashes)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// True when the code was there and not used yet.
pub async fn spend_recovery_code(tx: &mut PgTx, user_id: Uuid, hash: &[u8]) -> Result<bool, sqlx::Error> {
    let spent = sqlx::query(
        "update recovery_codes set used_at = now() where user_id = $1 and code_hash = $2 and used_at is null",
    )
    .bind(user_id)
    .bind(hash)
    .execute(&mut **tx)
    .await?;
    Ok(spent.rows_affected() == 1)
}

/// Since when a user has a second factor, and how many recovery codes are left.
pub async fn standing(
    executor: impl PgExecutor<'_>,
    user_id: Uuid,
) -> Result<(Option<DateTime<Utc>>, i64), sqlx::Error> {
    sqlx::query_as(
        "select (select confirmed_at from second_factors where user_id = $1),
                (select count(*) from recovery_codes where user_id = $1 and used_at is null)",
    )
    .bind(user_id)
    .fetch_one(executor)
    .await
}

/// Some sealed secret, if there is one.
pub async fn any(executor: impl PgExecutor<'_>) -> Result<Option<(Uuid, Vec<u8>)>, sqlx::Error> {
    sqlx::query_as("select user_id, secret from second_factors where secret is not null limit 1")
        .fetch_optional(executor)
        .await
}

/// Whether one of the user's roles needs a second factor: owner and it_admin always, as do roles of the company's own that
/// hold what only those two hold; others as the policy says.
pub async fn is_compulsory(conn: &mut PgConnection, user_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from grants g, sign_in_policy p where g.user_id = $1
                          and (g.role in ('owner', 'it_admin') or g.role = any(p.second_factor_roles)
                               or exists (select from roles r where r.role_id = g.role_id and r.needs_second_factor)))",
    )
    .bind(user_id)
    .fetch_one(conn)
    .await
}
