//! The keys that sign access tokens.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::PgExecutor;

/// A key as stored; without `sealed` it is the configured one.
#[derive(sqlx::FromRow)]
pub struct StoredKey {
    pub kid: String,
    pub sealed: Option<Vec<u8>>,
    pub signs_from: DateTime<Utc>,
    pub accepted_until: Option<DateTime<Utc>>,
}

/// Keys that are accepted, now or soon.
pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<StoredKey>, sqlx::Error> {
    sqlx::query_as(
        "select kid, sealed, signs_from, accepted_until from signing_keys
         where accepted_until is null or accepted_until > now()",
    )
    .fetch_all(executor)
    .await
}

/// One rotation at a time.
pub async fn lock(tx: &mut PgTx) -> Result<(), sqlx::Error> {
    sqlx::query("lock table signing_keys in share row exclusive mode").execute(&mut **tx).await?;
    Ok(())
}

/// Whether tokens of two keys are accepted.
pub async fn is_rotating(tx: &mut PgTx, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from signing_keys where accepted_until > $1)")
        .bind(now)
        .fetch_one(&mut **tx)
        .await
}

/// Before the first rotation nothing says that the configured key has signed.
pub async fn note_configured(tx: &mut PgTx, kid: &str, public: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into signing_keys (kid, public_key, signs_from)
         select $1, $2, 'epoch' where not exists (select from signing_keys)",
    )
    .bind(kid)
    .bind(public)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn end_others(tx: &mut PgTx, accepted_until: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query("update signing_keys set accepted_until = $1 where accepted_until is null or accepted_until > $1")
        .bind(accepted_until)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub async fn insert(
    tx: &mut PgTx,
    kid: &str,
    public: &[u8],
    sealed: &[u8],
    signs_from: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query("insert into signing_keys (kid, public_key, sealed, signs_from) values ($1, $2, $3, $4)")
        .bind(kid)
        .bind(public)
        .bind(sealed)
        .bind(signs_from)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
