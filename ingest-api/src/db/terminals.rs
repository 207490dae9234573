//! Terminals and the numbers they go on with.

use runtime::pg::PgTx;
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor};
use uuid::Uuid;

use crate::auth::enrolment::Enrolled;
use crate::terminals::{NewTerminal, Terminal};

const COLUMNS: &str = "terminal_id, location_id, register_id, name, series_epoch, is_active, enrolled_at, version";

pub async fn insert(tx: &mut PgTx, id: Uuid, new: &NewTerminal) -> Result<Terminal, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "insert into terminals (terminal_id, location_id, register_id, name, version) values ($1, $2, $3, $4, 1)
         returning {COLUMNS}"
    )))
    .bind(id)
    .bind(new.location_id)
    .bind(&new.register_id)
    .bind(&new.name)
    .fetch_one(&mut **tx)
    .await
}

pub async fn find(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Terminal>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from terminals where terminal_id = $1")))
        .bind(id)
        .fetch_optional(executor)
        .await
}

/// The key of the device that is bound to a terminal now.
pub async fn device_key(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let key: Option<Option<Vec<u8>>> =
        sqlx::query_scalar("select device_public_key from terminals where terminal_id = $1")
            .bind(id)
            .fetch_optional(executor)
            .await?;
    Ok(key.flatten())
}

/// Unbinds the device: its tokens and its unused codes are worth nothing. The next device goes on in a new receipt series.
pub async fn unbind(tx: &mut PgTx, id: Uuid) -> Result<Terminal, sqlx::Error> {
    sqlx::query("delete from enrolment_codes where terminal_id = $1 and used_at is null")
        .bind(id)
        .execute(&mut **tx)
        .await?;
    sqlx::query_as(AssertSqlSafe(format!(
        "update terminals set device_public_key = null, session_version = session_version + 1, version = version + 1
         where terminal_id = $1 returning {COLUMNS}"
    )))
    .bind(id)
    .fetch_one(&mut **tx)
    .await
}

/// Terminals in scope, in the order of their ids.
pub async fn list(
    executor: impl PgExecutor<'_>,
    scope: Option<Vec<Uuid>>,
    only: Option<Uuid>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Terminal>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from terminals
         where ($1::uuid[] is null or location_id = any($1)) and ($2::uuid is null or terminal_id = $2)
           and ($3::uuid is null or terminal_id > $3)
         order by terminal_id limit $4"
    )))
    .bind(scope)
    .bind(only)
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// The numbers that the next document of this terminal takes, with what its location counts in.
pub async fn numbers(conn: &mut PgConnection, id: Uuid) -> Result<Enrolled, sqlx::Error> {
    sqlx::query_as(
        "select t.terminal_id, t.location_id, t.register_id, t.series_epoch, l.currency, l.time_zone,
                coalesce((select max(d.terminal_seq) from documents d where d.terminal_id = t.terminal_id), 0) + 1
                    as next_terminal_seq,
                coalesce((select max(d.receipt_number) from documents d
                          where d.location_id = t.location_id and d.register_id = t.register_id
                            and d.series_epoch = t.series_epoch), 0) + 1 as next_receipt_number
         from terminals t join locations l using (location_id) where t.terminal_id = $1",
    )
    .bind(id)
    .fetch_one(conn)
    .await
}
