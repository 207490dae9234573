//! The key store: wrapped data keys, digests to look members up by, and whom to forget. Each call is one statement.

use sqlx::PgPool;
use uuid::Uuid;

/// A data key as it is kept.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredKey {
    pub customer_id: Uuid,
    pub key_id: Uuid,
    /// Fingerprint of the master key that wraps it.
    pub master_key: String,
    pub nonce: Vec<u8>,
    pub wrapped: Vec<u8>,
}

pub async fn find_key(pool: &PgPool, customer: Uuid) -> Result<Option<StoredKey>, sqlx::Error> {
    sqlx::query_as("select customer_id, key_id, master_key, nonce, wrapped from vault.data_keys where customer_id = $1")
        .bind(customer)
        .fetch_optional(pool)
        .await
}

/// Unless the member has a key, or was erased.
pub async fn insert_key(pool: &PgPool, key: &StoredKey) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into vault.data_keys (customer_id, key_id, master_key, nonce, wrapped)
         select $1, $2, $3, $4, $5 where not exists (select from vault.erasures where customer_id = $1)
         on conflict do nothing",
    )
    .bind(key.customer_id)
    .bind(key.key_id)
    .bind(&key.master_key)
    .bind(&key.nonce)
    .bind(&key.wrapped)
    .execute(pool)
    .await
    .map(drop)
}

/// Keys and, with them, lookups; what stays is whom to forget.
pub async fn forget(pool: &PgPool, customers: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with gone as (delete from vault.data_keys where customer_id = any($1))
         insert into vault.erasures (customer_id) select unnest($1) on conflict do nothing",
    )
    .bind(customers)
    .execute(pool)
    .await
    .map(drop)
}

pub async fn delete_keys(pool: &PgPool, customers: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query("delete from vault.data_keys where customer_id = any($1)").bind(customers).execute(pool).await.map(drop)
}

pub async fn erased_after(pool: &PgPool, after: Uuid, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("select customer_id from vault.erasures where customer_id > $1 order by 1 limit $2")
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await
}

pub async fn insert_lookups(pool: &PgPool, customer: Uuid, digests: &[Vec<u8>]) -> Result<(), sqlx::Error> {
    sqlx::query("insert into vault.lookups (digest, customer_id) select unnest($2::bytea[]), $1 on conflict do nothing")
        .bind(customer)
        .bind(digests)
        .execute(pool)
        .await
        .map(drop)
}

pub async fn keep_lookups(pool: &PgPool, customer: Uuid, digests: &[Vec<u8>]) -> Result<(), sqlx::Error> {
    sqlx::query("delete from vault.lookups where customer_id = $1 and digest <> all($2)")
        .bind(customer)
        .bind(digests)
        .execute(pool)
        .await
        .map(drop)
}

pub async fn find_by_digest(pool: &PgPool, digest: &[u8], limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("select customer_id from vault.lookups where digest = $1 order by 1 limit $2")
        .bind(digest)
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// Keys that another master key wraps.
pub async fn keys_of_others(pool: &PgPool, master_key: &str, limit: i64) -> Result<Vec<StoredKey>, sqlx::Error> {
    sqlx::query_as(
        "select customer_id, key_id, master_key, nonce, wrapped from vault.data_keys
         where master_key <> $1 order by customer_id limit $2",
    )
    .bind(master_key)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Whether the key was there, still wrapped by `old`.
pub async fn replace_key(pool: &PgPool, old: &str, key: &StoredKey) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "update vault.data_keys set master_key = $3, nonce = $4, wrapped = $5
         where key_id = $1 and master_key = $2",
    )
    .bind(key.key_id)
    .bind(old)
    .bind(&key.master_key)
    .bind(&key.nonce)
    .bind(&key.wrapped)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() > 0)
}
