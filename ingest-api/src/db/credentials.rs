//! What a user logs in with: passwords and their resets, PINs.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::PgExecutor;
use uuid::Uuid;

/// A user as far as signing in goes.
#[derive(Clone, sqlx::FromRow)]
pub struct Credentials {
    pub user_id: Uuid,
    pub login: String,
    pub code: String,
    pub password_hash: Option<String>,
    pub pin_hash: Option<String>,
    pub session_version: i32,
    pub is_active: bool,
}

const COLUMNS: &str = "user_id, login, code, password_hash, pin_hash, session_version, is_active";

pub async fn of_login(executor: impl PgExecutor<'_>, login: &str) -> Result<Option<Credentials>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from users where login = $1")))
        .bind(login)
        .fetch_optional(executor)
        .await
}

pub async fn of_user(executor: impl PgExecutor<'_>, user_id: Uuid) -> Result<Option<Credentials>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from users where user_id = $1")))
        .bind(user_id)
        .fetch_optional(executor)
        .await
}

pub async fn of_code(executor: impl PgExecutor<'_>, code: &str) -> Result<Option<Credentials>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from users where code = $1")))
        .bind(code)
        .fetch_optional(executor)
        .await
}

/// As they are now, and so until the transaction ends.
pub async fn lock(tx: &mut PgTx, user_id: Uuid) -> Result<Option<Credentials>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from users where user_id = $1 for no key update")))
        .bind(user_id)
        .fetch_optional(&mut **tx)
        .await
}

/// The first password of a user is a change that others see, so it raises the version.
pub async fn set_password(tx: &mut PgTx, user_id: Uuid, hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update users set password_hash = $2, version = version + case when password_hash is null then 1 else 0 end
         where user_id = $1",
    )
    .bind(user_id)
    .bind(hash)
    .execute(&mut **tx)
    .await?;
    forget_reset(tx, user_id).await
}

/// The same password under another hash, unless the password was changed meanwhile.
pub async fn rehash(tx: &mut PgTx, user_id: Uuid, (weak, stronger): (&str, &str)) -> Result<(), sqlx::Error> {
    sqlx::query("update users set password_hash = $3 where user_id = $1 and password_hash = $2")
        .bind(user_id)
        .bind(weak)
        .bind(stronger)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub async fn set_pin(tx: &mut PgTx, user_id: Uuid, hash: Option<&str>, by: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update users set pin_hash = $2, pin_set_by = $3 where user_id = $1")
        .bind(user_id)
        .bind(hash)
        .bind(by)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Who set the PIN, where that is known; the outer none: there is no PIN.
pub async fn pin_set_by(tx: &mut PgTx, user_id: Uuid) -> Result<Option<Option<Uuid>>, sqlx::Error> {
    sqlx::query_scalar("select pin_set_by from users where user_id = $1 and pin_hash is not null")
        .bind(user_id)
        .fetch_optional(&mut **tx)
        .await
}

/// Ends an open reset code.
pub async fn forget_reset(tx: &mut PgTx, user_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("delete from password_resets where user_id = $1").bind(user_id).execute(&mut **tx).await?;
    Ok(())
}

/// One reset at a time: an earlier code ends.
pub async fn insert_reset(
    tx: &mut PgTx,
    user_id: Uuid,
    code_hash: &[u8],
    expires_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into password_resets (user_id, code_hash, expires_at) values ($1, $2, $3)
         on conflict (user_id) do update set code_hash = excluded.code_hash, expires_at = excluded.expires_at",
    )
    .bind(user_id)
    .bind(code_hash)
    .bind(expires_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// True when this was the user's code and in time; it is used up.
pub async fn spend_reset(tx: &mut PgTx, user_id: Uuid, code_hash: &[u8]) -> Result<bool, sqlx::Error> {
    let spent = sqlx::query("delete from password_resets where user_id = $1 and code_hash = $2 and expires_at > now()")
        .bind(user_id)
        .bind(code_hash)
        .execute(&mut **tx)
        .await?;
    Ok(spent.rows_affected() == 1)
}
