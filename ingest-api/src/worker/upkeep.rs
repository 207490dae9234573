//! Outbox partitions ahead and behind, the age of idempotency keys, and what is left of sessions that are over.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use sqlx::PgPool;

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

/// Makes the partitions of today and the days after it (`make_outbox_partition`, which says how).
pub async fn make_partitions(pool: &PgPool) -> Result<(), sqlx::Error> {
    let today = Utc::now().date_naive();
    for day in (0..=DAYS_AHEAD).map(|ahead| today + TimeDelta::days(ahead)) {
        sqlx::query("select make_outbox_partition($1)").bind(day).execute(pool).await?;
    }
    Ok(())
}

/// Drops partitions whose day is over for a week and whose every row is published.
async fn drop_partitions(pool: &PgPool) -> Result<(), sqlx::Error> {
    let oldest = kept_since(Utc::now()).date_naive();
    let days: Vec<NaiveDate> = sqlx::query_scalar(
        "select day from (select to_date(right(c.relname, 8), 'YYYYMMDD') as day
                            from pg_inherits i join pg_class c on c.oid = i.inhrelid
                           where i.inhparent = 'outbox'::regclass and c.relname ~ '^outbox_[0-9]{8}$') d
          where day < $1 order by day",
    )
    .bind(oldest)
    .fetch_all(pool)
    .await?;
    for day in days {
        let is_dropped: bool = sqlx::query_scalar("select drop_outbox_partition($1)").bind(day).fetch_one(pool).await?;
        if is_dropped {
            tracing::info!(%day, "published outbox partition dropped");
        } else {
            tracing::warn!(%day, "an outbox partition is a week old and not published; it stays");
        }
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
