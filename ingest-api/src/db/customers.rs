//! Members, their loyalty accounts and lots.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::ids::AccountId;
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};
use uuid::Uuid;

use super::loyalty;
use crate::customers::export::ExportedEntry;
use crate::customers::{Lot, LoyaltyAccount, LoyaltyEntry, Member, MemberParams, MemberRow, StoredMember};
use crate::loyalty::lots;

pub(super) const COLUMNS: &str = "customer_id, external_id, member_number, version, created_at, merged_into, erased_at";
const LOTS_MAX: i64 = 500;
const ENTRIES_MAX: i64 = 100;

/// Inserts a member and an account in every program.
pub async fn insert(
    tx: &mut PgTx,
    id: Uuid,
    external_id: Option<&str>,
    member_number: &str,
) -> Result<Member, sqlx::Error> {
    let member = sqlx::query_as(AssertSqlSafe(format!(
        "insert into customers (customer_id, external_id, member_number, version) values ($1, $2, $3, 1)
         returning {COLUMNS}"
    )))
    .bind(id)
    .bind(external_id)
    .bind(member_number)
    .fetch_one(&mut **tx)
    .await?;
    insert_accounts(tx, &[id]).await?;
    Ok(member)
}

async fn insert_accounts(tx: &mut PgTx, customers: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into loyalty_accounts (account_id, customer_id, program_id)
         select gen_random_uuid(), customer_id, program_id
         from unnest($1::uuid[]) as row (customer_id) cross join loyalty_programs",
    )
    .bind(customers)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Inserts the members whose external id is not known, except where their number is taken; returns how many.
pub async fn insert_missing(tx: &mut PgTx, rows: &[MemberRow], numbers: &[String]) -> Result<usize, sqlx::Error> {
    let created: Vec<Uuid> = sqlx::query_scalar(
        "insert into customers (customer_id, external_id, member_number, version)
         select customer_id, external_id, member_number, 1
         from unnest($1::uuid[], $2::text[], $3::text[]) as row (customer_id, external_id, member_number)
         order by external_id
         on conflict do nothing returning customer_id",
    )
    .bind(rows.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.external_id.as_str()).collect::<Vec<_>>())
    .bind(numbers)
    .fetch_all(&mut **tx)
    .await?;
    insert_accounts(tx, &created).await?;
    Ok(created.len())
}

/// Rows that [`insert_missing`] left out because their number is taken, counted from 0; at most a hundred.
pub async fn still_missing(tx: &mut PgTx, rows: &[MemberRow]) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select place - 1 from unnest($1::text[]) with ordinality as row (external_id, place)
         where not exists (select from customers c where c.external_id = row.external_id) order by place limit 100",
    )
    .bind(rows.iter().map(|row| row.external_id.as_str()).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await
}

/// In the order of the rows.
pub async fn by_external_id(tx: &mut PgTx, rows: &[MemberRow]) -> Result<Vec<StoredMember>, sqlx::Error> {
    sqlx::query_as(
        "select c.external_id, c.customer_id, c.member_number
         from unnest($1::text[]) with ordinality as row (external_id, place) join customers c using (external_id)
         order by place",
    )
    .bind(rows.iter().map(|row| row.external_id.as_str()).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await
}

pub async fn find(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Member>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from customers where customer_id = $1")))
        .bind(id)
        .fetch_optional(executor)
        .await
}

pub async fn list(
    executor: impl PgExecutor<'_>,
    params: &MemberParams,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Member>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from customers
         where ($1::text is null or member_number = $1) and ($2::text is null or external_id = $2)
           and ($3::uuid is null or customer_id > $3)
         order by customer_id limit $4"
    )))
    .bind(&params.member_number)
    .bind(&params.external_id)
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// The accounts of a member as they are at an instant. Documents are named where they are of these locations; none means
/// every one.
pub async fn accounts(
    conn: &mut PgConnection,
    customer: Uuid,
    scope: Option<&[Uuid]>,
    at: DateTime<Utc>,
) -> Result<Vec<LoyaltyAccount>, sqlx::Error> {
    let accounts: Vec<(Uuid, Uuid, String, i64, i64)> = sqlx::query_as(
        "select a.account_id, a.program_id, p.name, a.points, a.version
         from loyalty_accounts a join loyalty_programs p using (program_id)
         where a.customer_id = $1 order by a.account_id",
    )
    .bind(customer)
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = accounts.iter().map(|account| account.0).collect();
    let held = loyalty::lots_of(&mut *conn, &ids).await?;
    let shown: Vec<Lot> = sqlx::query_as(
        "select account_id, lot_id, earned_at, available_at, expires_at, points, remaining,
                case when $3::uuid[] is null
                       or not exists (select from documents where document_id = cause_id and location_id <> all($3))
                     then cause_id end as cause_id
         from loyalty_lots where account_id = any($1) and remaining <> 0 order by earned_at, lot_id limit $2",
    )
    .bind(&ids)
    .bind(LOTS_MAX)
    .bind(scope)
    .fetch_all(&mut *conn)
    .await?;
    let entries: Vec<LoyaltyEntry> = sqlx::query_as(
        "select e.account_id, version, kind, delta, points_after, effective_at, recorded_at,
                case when $3::uuid[] is null or location_id is null or location_id = any($3) then cause_id end as cause_id
         from unnest($1::uuid[]) as a (account_id)
         cross join lateral (select * from loyalty_entries e where e.account_id = a.account_id
                             order by version desc limit $2) e",
    )
    .bind(&ids)
    .bind(ENTRIES_MAX)
    .bind(scope)
    .fetch_all(conn)
    .await?;
    let mut lots_by: HashMap<Uuid, Vec<Lot>> = HashMap::new();
    shown.into_iter().for_each(|lot| lots_by.entry(lot.account_id).or_default().push(lot));
    let mut entries_by: HashMap<Uuid, Vec<LoyaltyEntry>> = HashMap::new();
    entries.into_iter().for_each(|entry| entries_by.entry(entry.account_id).or_default().push(entry));
    let account = |(account_id, program_id, program, points, version)| {
        let held = held.get(&AccountId(account_id)).map_or(&[][..], Vec::as_slice);
        LoyaltyAccount {
            account_id,
            program_id,
            program,
            points,
            available: lots::available(held, at),
            pending: lots::pending(held, at),
            debt: lots::debt(held),
            version,
            lots: lots_by.remove(&account_id).unwrap_or_default(),
            entries: entries_by.remove(&account_id).unwrap_or_default(),
        }
    };
    Ok(accounts.into_iter().map(account).collect())
}

/// For the one statement that reads every document. Inside a transaction that only reads.
pub async fn allow_long_read(tx: &mut PgTx) -> Result<(), sqlx::Error> {
    sqlx::query("set local statement_timeout = '60s'").execute(&mut **tx).await.map(drop)
}

/// A member and everybody merged into it.
pub async fn with_aliases(conn: &mut PgConnection, id: Uuid) -> Result<Vec<Member>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from customers where customer_id = $1 or merged_into = $1 order by customer_id"
    )))
    .bind(id)
    .fetch_all(conn)
    .await
}

/// Every entry of these members, by account and version.
pub async fn entries(conn: &mut PgConnection, customers: &[Uuid]) -> Result<Vec<ExportedEntry>, sqlx::Error> {
    sqlx::query_as(
        "select account_id, e.version, kind, delta, points_after, cause_id, recorded_at
         from loyalty_entries e join loyalty_accounts a using (account_id)
         where a.customer_id = any($1) order by account_id, e.version",
    )
    .bind(customers)
    .fetch_all(conn)
    .await
}

/// The stored answer of every document of these members. Reads every document: an index by customer would cost each sale.
pub async fn documents(conn: &mut PgConnection, customers: &[Uuid]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("select response from documents where customer_id = any($1) order by document_id")
        .bind(customers)
        .fetch_all(conn)
        .await
}
