//! Loyalty accounts outside a sale: lock them, read their lots, post an entry.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::events::LoyaltyPosted;
use serde_json::json;
use uuid::Uuid;

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct AccountRow {
    pub account_id: Uuid,
    pub customer_id: Uuid,
    pub program_id: Uuid,
    pub points: i64,
    pub version: i64,
}

/// A lot with points left, or a debt.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct LotRow {
    pub lot_id: Uuid,
    pub account_id: Uuid,
    pub cause_id: Uuid,
    pub earned_at: DateTime<Utc>,
    pub available_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub remaining: i64,
}

/// Locks the accounts of these members in order of their ids: the last locks of an act.
pub async fn lock_accounts(tx: &mut PgTx, customers: &[Uuid]) -> Result<Vec<AccountRow>, sqlx::Error> {
    sqlx::query_as(
        "select account_id, customer_id, program_id, points, version from loyalty_accounts
         where customer_id = any($1) order by account_id for no key update",
    )
    .bind(customers)
    .fetch_all(&mut **tx)
    .await
}

/// The lots of an account that are not used up, oldest first.
pub async fn open_lots(tx: &mut PgTx, account: Uuid) -> Result<Vec<LotRow>, sqlx::Error> {
    sqlx::query_as(
        "select lot_id, account_id, cause_id, earned_at, available_at, expires_at, remaining from loyalty_lots
         where account_id = $1 and remaining <> 0 order by earned_at, lot_id",
    )
    .bind(account)
    .fetch_all(&mut **tx)
    .await
}

pub async fn use_up_lots(tx: &mut PgTx, account: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update loyalty_lots set remaining = 0 where account_id = $1 and remaining <> 0")
        .bind(account)
        .execute(&mut **tx)
        .await
        .map(drop)
}

pub async fn insert_lot(tx: &mut PgTx, lot: &LotRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into loyalty_lots (lot_id, account_id, cause_id, earned_at, available_at, expires_at, points, remaining)
         values ($1, $2, $3, $4, $5, $6, $7, $7)",
    )
    .bind(lot.lot_id)
    .bind(lot.account_id)
    .bind(lot.cause_id)
    .bind(lot.earned_at)
    .bind(lot.available_at)
    .bind(lot.expires_at)
    .bind(lot.remaining)
    .execute(&mut **tx)
    .await
    .map(drop)
}

/// Writes an entry and the balance that follows from it. The account is locked.
pub async fn post(tx: &mut PgTx, entry: &LoyaltyPosted, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let instant = |at: schemas::time::Timestamp| DateTime::from_timestamp_micros(at.0);
    let lots: Vec<_> = entry
        .lots
        .iter()
        .map(|lot| {
            json!({"lot_id": lot.lot_id, "delta": lot.delta, "earned_at": instant(lot.earned_at),
                   "available_at": instant(lot.available_at), "expires_at": lot.expires_at.and_then(instant)})
        })
        .collect();
    sqlx::query(
        "with a as (update loyalty_accounts set points = $7, version = $2 where account_id = $1)
         insert into loyalty_entries (account_id, version, epoch, location_seq, program_id, kind, points_after, delta, lots,
                                      cause_type, cause_id, actor, effective_at, recorded_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
    )
    .bind(entry.account_id.0)
    .bind(entry.version)
    .bind(entry.epoch)
    .bind(entry.location_seq)
    .bind(entry.program_id.0)
    .bind(&entry.kind)
    .bind(entry.points_after)
    .bind(entry.delta)
    .bind(serde_json::Value::Array(lots))
    .bind(&entry.cause_type)
    .bind(entry.cause_id)
    .bind(entry.actor.0)
    .bind(at)
    .execute(&mut **tx)
    .await
    .map(drop)
}
