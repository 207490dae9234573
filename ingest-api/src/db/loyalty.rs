//! Loyalty accounts: lock them, read their lots, write entries and what these do to lots.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::ids::{AccountId, LotId, ProgramId};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::loyalty::accrual::EarnRule;
use crate::loyalty::lots::{Lot, LotDelta};

#[derive(Debug, Clone, sqlx::FromRow)]
pub struct AccountRow {
    pub account_id: Uuid,
    pub customer_id: Uuid,
    pub program_id: Uuid,
    pub points: i64,
    pub version: i64,
}

#[derive(sqlx::FromRow)]
struct LotRow {
    account_id: Uuid,
    lot_id: Uuid,
    cause_id: Uuid,
    earned_at: DateTime<Utc>,
    available_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    points: i64,
    remaining: i64,
}

/// One entry to be written; its account is locked and written by the caller.
#[derive(Debug, Clone)]
pub struct NewEntry {
    pub account_id: Uuid,
    pub version: i64,
    /// None: an act of the company.
    pub location_id: Option<Uuid>,
    pub location_seq: i64,
    pub program_id: Uuid,
    pub kind: &'static str,
    pub delta: i64,
    pub points_after: i64,
    pub lots: Vec<LotDelta>,
    pub cause_type: &'static str,
    pub cause_id: Uuid,
    pub actor: Uuid,
    pub effective_at: DateTime<Utc>,
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

/// Locks these accounts in order of their ids.
pub async fn lock(tx: &mut PgTx, accounts: &[Uuid]) -> Result<Vec<AccountRow>, sqlx::Error> {
    sqlx::query_as(
        "select account_id, customer_id, program_id, points, version from loyalty_accounts
         where account_id = any($1) order by account_id for no key update",
    )
    .bind(accounts)
    .fetch_all(&mut **tx)
    .await
}

/// The lots of accounts that are not used up, debts among them, oldest first. Every account asked for is in the answer.
/// To be decided on, read them in a statement after the one that locked the accounts.
pub async fn lots_of(
    executor: impl PgExecutor<'_>,
    accounts: &[Uuid],
) -> Result<HashMap<AccountId, Vec<Lot>>, sqlx::Error> {
    let rows: Vec<LotRow> = sqlx::query_as(
        "select account_id, lot_id, cause_id, earned_at, available_at, expires_at, points, remaining from loyalty_lots
         where account_id = any($1) and remaining <> 0 order by earned_at, lot_id",
    )
    .bind(accounts)
    .fetch_all(executor)
    .await?;
    let mut by_account: HashMap<AccountId, Vec<Lot>> =
        accounts.iter().map(|account| (AccountId(*account), Vec::new())).collect();
    for row in rows {
        let LotRow { account_id, lot_id, cause_id, earned_at, available_at, expires_at, points, remaining } = row;
        let lot = Lot { lot_id: LotId(lot_id), cause_id, earned_at, available_at, expires_at, points, remaining };
        by_account.entry(AccountId(account_id)).or_default().push(lot);
    }
    Ok(by_account)
}

/// The accounts of a member with their open lots, without a lock: for answers only.
pub async fn balances(
    conn: &mut PgConnection,
    customer: Uuid,
) -> Result<Vec<(AccountId, ProgramId, Vec<Lot>)>, sqlx::Error> {
    let accounts: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "select account_id, program_id from loyalty_accounts where customer_id = $1 order by program_id",
    )
    .bind(customer)
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = accounts.iter().map(|(account, _)| *account).collect();
    let mut lots = lots_of(conn, &ids).await?;
    let with_lots = |(account, program): (Uuid, Uuid)| {
        (AccountId(account), ProgramId(program), lots.remove(&AccountId(account)).unwrap_or_default())
    };
    Ok(accounts.into_iter().map(with_lots).collect())
}

/// How a program gave points to documents that were priced from this catalog version.
pub async fn rule_at(
    conn: &mut PgConnection,
    program: ProgramId,
    catalog_version: i64,
) -> Result<Option<EarnRule>, sqlx::Error> {
    let row: Option<(i64, i64)> = sqlx::query_as(
        "select step_minor, points_per_step from loyalty_program_versions
         where program_id = $1 and catalog_version <= $2 order by version desc limit 1",
    )
    .bind(program.0)
    .bind(catalog_version)
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|(step_minor, points_per_step)| EarnRule { step_minor, points_per_step }))
}

/// Changes lots, each at most once in a statement, and makes those that do not exist, by this document or act.
pub async fn change_lots(conn: &mut PgConnection, changes: &[(AccountId, Uuid, &LotDelta)]) -> Result<(), sqlx::Error> {
    // What makes a lot says what it was made with; what changes it after that in the same batch does not.
    let mut rows: Vec<(AccountId, Uuid, &LotDelta, i64)> = Vec::with_capacity(changes.len());
    let mut places: HashMap<LotId, usize> = HashMap::new();
    for &(account, cause, delta) in changes {
        let place = *places.entry(delta.lot_id).or_insert(rows.len());
        match rows.get_mut(place) {
            Some((.., sum)) => *sum += delta.delta,
            None => rows.push((account, cause, delta, delta.delta)),
        }
    }
    sqlx::query(
        "insert into loyalty_lots as l (lot_id, account_id, cause_id, earned_at, available_at, expires_at, points, remaining)
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                              $7::bigint[], $8::bigint[])
         on conflict (lot_id) do update set remaining = l.remaining + excluded.remaining",
    )
    .bind(rows.iter().map(|(_, _, delta, _)| delta.lot_id.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|(account, ..)| account.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, cause, ..)| *cause).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, delta, _)| delta.earned_at).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, delta, _)| delta.available_at).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, delta, _)| delta.expires_at).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, _, delta, _)| delta.delta).collect::<Vec<_>>())
    .bind(rows.iter().map(|(.., sum)| *sum).collect::<Vec<_>>())
    .execute(conn)
    .await
    .map(drop)
}

/// Writes entries, with the documents or acts that cause them as those of the lots they make; nothing to write sends
/// nothing. `(epoch, recorded_at)` of the batch.
pub async fn insert_with_lots(
    conn: &mut PgConnection,
    stamp: (i64, DateTime<Utc>),
    entries: &[NewEntry],
) -> Result<(), sqlx::Error> {
    if entries.is_empty() {
        return Ok(());
    }
    insert_entries(conn, stamp, entries).await?;
    let mut changes: Vec<(AccountId, Uuid, &LotDelta)> = Vec::new();
    for entry in entries {
        changes.extend(entry.lots.iter().map(|delta| (AccountId(entry.account_id), entry.cause_id, delta)));
    }
    change_lots(conn, &changes).await
}

/// Writes entries alone. `(epoch, recorded_at)` of the act.
pub async fn insert_entries(
    conn: &mut PgConnection,
    (epoch, recorded_at): (i64, DateTime<Utc>),
    entries: &[NewEntry],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into loyalty_entries (account_id, version, epoch, location_id, location_seq, program_id, kind, delta,
                                      points_after, lots, cause_type, cause_id, actor, effective_at, recorded_at)
         select account_id, version, $1, location_id, location_seq, program_id, kind, delta, points_after, lots::jsonb,
                cause_type, cause_id, actor, effective_at, $2
         from unnest($3::uuid[], $4::bigint[], $5::uuid[], $6::bigint[], $7::uuid[], $8::text[], $9::bigint[],
                     $10::bigint[], $11::text[], $12::text[], $13::uuid[], $14::uuid[], $15::timestamptz[])
              as e (account_id, version, location_id, location_seq, program_id, kind, delta, points_after, lots,
                    cause_type, cause_id, actor, effective_at)",
    )
    .bind(epoch)
    .bind(recorded_at)
    .bind(entries.iter().map(|entry| entry.account_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.version).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.location_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.location_seq).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.program_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.kind).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.delta).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.points_after).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| lots_json(&entry.lots).to_string()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.cause_type).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.cause_id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.actor).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.effective_at).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await?;
    Ok(())
}

/// As entries keep them.
fn lots_json(lots: &[LotDelta]) -> Value {
    let lots = lots.iter().map(|lot| {
        json!({"lot_id": lot.lot_id, "delta": lot.delta, "earned_at": lot.earned_at, "available_at": lot.available_at,
               "expires_at": lot.expires_at})
    });
    lots.collect()
}

/// Writes the balance that follows from an entry. The account is locked.
pub async fn update_account(conn: &mut PgConnection, account: &AccountRow) -> Result<(), sqlx::Error> {
    sqlx::query("update loyalty_accounts set points = $2, version = $3 where account_id = $1")
        .bind(account.account_id)
        .bind(account.points)
        .bind(account.version)
        .execute(conn)
        .await
        .map(drop)
}

/// Accounts that hold points past their date, those that lost them first before the others.
pub async fn with_expired_lots(
    executor: impl PgExecutor<'_>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select account_id from loyalty_lots where remaining > 0 and expires_at <= $1
         group by account_id order by min(expires_at), account_id limit $2",
    )
    .bind(now)
    .bind(limit)
    .fetch_all(executor)
    .await
}
