//! Outbox partitions ahead and behind, the age of idempotency keys, and what is left of sessions that are over.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use sqlx::{AssertSqlSafe, PgPool};

/// Days that have their partition before they begin.
const DAYS_AHEAD: i64 = 3;
/// Outbox rows stay at least this long, so that a topic can be refilled from them.
const DAYS_KEPT: i64 = 7;
const KEYS_KEPT: &str = "7 days";
const SESSIONS_KEPT: &str = "7 days";
/// Keys deleted by one statement: short locks beat a quick end.
const KEYS_AT_ONCE: i64 = 5_000;
const PAUSE: Duration = Duration::from_secs(600);

/// Does all of it now and every ten minutes until `stop`. A failure is reported and tried again.
pub async fn run(pool: PgPool, stop: Shutdown, health: Health) {
    loop {
        match once(&pool).await {
            Ok(()) => health.detail("upkeep", "done"),
            Err(error) => {
                tracing::warn!(%error, "upkeep failed, it is tried again");
                health.detail("upkeep", format!("failed: {error}"));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Every row written at this instant or later is in the outbox: days before it may have been dropped.
pub fn kept_since(now: DateTime<Utc>) -> DateTime<Utc> {
    (now.date_naive() - TimeDelta::days(DAYS_KEPT)).and_time(NaiveTime::MIN).and_utc()
}

async fn once(pool: &PgPool) -> Result<(), sqlx::Error> {
    make_partitions(pool).await?;
    drop_partitions(pool).await?;
    expire_keys(pool).await?;
    forget_sessions(pool).await
}

/// Sessions that ended or ran out a week ago, with their tokens; successors whose grace is over; failures that count no
/// more. Spent tokens of a session that lasts stay: one of them that comes again has to be known.
pub async fn forget_sessions(pool: &PgPool) -> Result<(), sqlx::Error> {
    for statement in [
        "delete from sessions where expires_at < now() - $1::interval or ended_at < now() - $1::interval",
        "update refresh_tokens set successor = null where successor is not null and spent_at < now() - interval '10 seconds'",
        "delete from sign_in_failures where counted_from < now() - interval '1 hour' and coalesce(locked_until < now(), true)",
    ] {
        let query = sqlx::query(statement);
        let query = if statement.contains("$1") { query.bind(SESSIONS_KEPT) } else { query };
        query.execute(pool).await?;
    }
    Ok(())
}

fn name(day: NaiveDate) -> String {
    format!("outbox_{}", day.format("%Y%m%d"))
}

/// Makes the partitions of today and the days after it. They are attached, not created in place: creating one in
/// place would lock the whole outbox against the sales that append to it.
pub async fn make_partitions(pool: &PgPool) -> Result<(), sqlx::Error> {
    let today = Utc::now().date_naive();
    for day in (0..=DAYS_AHEAD).map(|ahead| today + TimeDelta::days(ahead)) {
        let (table, next) = (name(day), day + TimeDelta::days(1));
        let known: bool = sqlx::query_scalar("select to_regclass($1) is not null").bind(&table).fetch_one(pool).await?;
        if known {
            continue;
        }
        // Rows of this day that went to the default partition would refuse the new one; they are fine where they are.
        let late: bool = sqlx::query_scalar(
            "select exists (select 1 from outbox_default where created_at >= $1 and created_at < $2)",
        )
        .bind(day.and_time(NaiveTime::MIN).and_utc())
        .bind(next.and_time(NaiveTime::MIN).and_utc())
        .fetch_one(pool)
        .await?;
        if late {
            continue;
        }
        let sql = format!(
            "create table {table} (like outbox including defaults including constraints);
             alter table outbox attach partition {table} for values from ('{day} 00:00+00') to ('{next} 00:00+00')"
        );
        let mut conn = pool.acquire().await?;
        // One simple query is one transaction: an attached table or none.
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Drops partitions whose day is over for a week and whose every row is published.
async fn drop_partitions(pool: &PgPool) -> Result<(), sqlx::Error> {
    let oldest = kept_since(Utc::now()).date_naive();
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
          where i.inhparent = 'outbox'::regclass and c.relname ~ '^outbox_[0-9]{8}$' and c.relname < $1",
    )
    .bind(name(oldest))
    .fetch_all(pool)
    .await?;
    for table in tables {
        let unpublished: bool = sqlx::query_scalar(AssertSqlSafe(format!(
            "select exists (select 1 from {table} o join stream_progress p using (stream_id) where o.seq > p.published_seq)"
        )))
        .fetch_one(pool)
        .await?;
        if unpublished {
            tracing::warn!(partition = table, "an outbox partition is a week old and not published; it stays");
            continue;
        }
        sqlx::raw_sql(AssertSqlSafe(format!("alter table outbox detach partition {table}; drop table {table}")))
            .execute(pool)
            .await?;
        tracing::info!(partition = table, "published outbox partition dropped");
    }
    Ok(())
}

async fn expire_keys(pool: &PgPool) -> Result<(), sqlx::Error> {
    loop {
        let gone = sqlx::query(
            "delete from idempotency_keys where (principal, route, key) in
               (select principal, route, key from idempotency_keys where created_at < now() - $1::interval limit $2)",
        )
        .bind(KEYS_KEPT)
        .bind(KEYS_AT_ONCE)
        .execute(pool)
        .await?
        .rows_affected();
        if (gone as i64) < KEYS_AT_ONCE {
            return Ok(());
        }
    }
}
