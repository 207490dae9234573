//! Sealed fields of members, their erasure, and the aliases that merges leave.

use runtime::pg::PgTx;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgExecutor};
use uuid::Uuid;

use super::customers::COLUMNS;
use crate::customers::Member;
use crate::privacy::seal::Sealed;

/// One field as it is stored.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct SealedField {
    pub field: String,
    pub key_id: Uuid,
    pub nonce: Vec<u8>,
    pub ciphertext: Vec<u8>,
}

/// In order of their names.
pub async fn fields(executor: impl PgExecutor<'_>, customer: Uuid) -> Result<Vec<SealedField>, sqlx::Error> {
    sqlx::query_as("select field, key_id, nonce, ciphertext from customer_fields where customer_id = $1 order by field")
        .bind(customer)
        .fetch_all(executor)
        .await
}

pub async fn put_field(
    tx: &mut PgTx,
    customer: Uuid,
    field: &str,
    key_id: Uuid,
    sealed: &Sealed,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into customer_fields (customer_id, field, key_id, nonce, ciphertext) values ($1, $2, $3, $4, $5)
         on conflict (customer_id, field)
         do update set key_id = excluded.key_id, nonce = excluded.nonce, ciphertext = excluded.ciphertext",
    )
    .bind(customer)
    .bind(field)
    .bind(key_id)
    .bind(&sealed.nonce)
    .bind(&sealed.ciphertext)
    .execute(&mut **tx)
    .await
    .map(drop)
}

/// Removes every field of the member but these.
pub async fn keep_fields(tx: &mut PgTx, customer: Uuid, fields: &[&str]) -> Result<(), sqlx::Error> {
    sqlx::query("delete from customer_fields where customer_id = $1 and field <> all($2)")
        .bind(customer)
        .bind(fields)
        .execute(&mut **tx)
        .await
        .map(drop)
}

/// Locks these members, and those that were merged into one of them; in order of their ids.
pub async fn lock(tx: &mut PgTx, customers: &[Uuid]) -> Result<Vec<Member>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from customers where customer_id = any($1) or merged_into = any($1)
         order by customer_id for no key update"
    )))
    .bind(customers)
    .fetch_all(&mut **tx)
    .await
}

/// The next version of a member whose personal fields changed.
pub async fn raise_version(tx: &mut PgTx, customer: Uuid) -> Result<Member, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "update customers set version = version + 1 where customer_id = $1 returning {COLUMNS}"
    )))
    .bind(customer)
    .fetch_one(&mut **tx)
    .await
}

/// Points these members to the one they were merged into.
pub async fn set_survivor(tx: &mut PgTx, merged: &[Uuid], survivor: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update customers set merged_into = $2, version = version + 1 where customer_id = any($1)")
        .bind(merged)
        .bind(survivor)
        .execute(&mut **tx)
        .await
        .map(drop)
}

/// Removes everything of these members that leads to a person: the sealed fields, and the numbers other systems know.
pub async fn erase(tx: &mut PgTx, customers: &[Uuid], numbers: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query("delete from customer_fields where customer_id = any($1)").bind(customers).execute(&mut **tx).await?;
    sqlx::query(
        "update customers c set erased_at = now(), external_id = null, member_number = row.number, version = version + 1
         from unnest($1::uuid[], $2::text[]) as row (customer_id, number)
         where c.customer_id = row.customer_id and c.erased_at is null",
    )
    .bind(customers)
    .bind(numbers)
    .execute(&mut **tx)
    .await
    .map(drop)
}

/// Notes that the key store has forgotten these members.
pub async fn set_key_gone(tx: &mut PgTx, customers: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query("update customers set key_is_gone = true where customer_id = any($1) and erased_at is not null")
        .bind(customers)
        .execute(&mut **tx)
        .await
        .map(drop)
}

/// Erased members whose key may still be there.
pub async fn to_forget(executor: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select customer_id from customers where erased_at is not null and not key_is_gone order by 1 limit $1",
    )
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// Of these, the members that are here and not erased.
pub async fn not_erased(executor: impl PgExecutor<'_>, customers: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("select customer_id from customers where customer_id = any($1) and erased_at is null order by 1")
        .bind(customers)
        .fetch_all(executor)
        .await
}

/// Members that were merged and have points again, with their survivor.
pub async fn merged_with_points(executor: impl PgExecutor<'_>, limit: i64) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "select distinct c.customer_id, c.merged_into from customers c join loyalty_accounts a using (customer_id)
         where c.merged_into is not null and a.points <> 0 order by 1 limit $1",
    )
    .bind(limit)
    .fetch_all(executor)
    .await
}
