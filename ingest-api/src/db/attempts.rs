//! Counters of failed attempts.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::PgExecutor;

/// Locks the counters, which are made where they are missing; `subjects` are sorted. The end of a lock that holds.
pub async fn lock(
    tx: &mut PgTx,
    subjects: &[String],
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query(
        "insert into sign_in_failures (subject, counted_from) select s, $2 from unnest($1::text[]) s
         order by s on conflict do nothing",
    )
    .bind(subjects)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    let locks: Vec<Option<DateTime<Utc>>> = sqlx::query_scalar(
        "select locked_until from sign_in_failures where subject = any($1) order by subject for update",
    )
    .bind(subjects)
    .fetch_all(&mut **tx)
    .await?;
    Ok(locks.into_iter().flatten().filter(|until| *until > now).max())
}

/// One failure more, or the first of a new period; true when it locked the subject.
pub async fn count(
    tx: &mut PgTx,
    subject: &str,
    failures_max: i32,
    (since, now, until): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>),
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "update sign_in_failures f
            set failures = n.failures, counted_from = case when n.failures = 1 then $4 else counted_from end,
                locked_until = case when n.failures >= $2 then $5 end
           from (select subject, case when counted_from > $3 then failures + 1 else 1 end failures
                   from sign_in_failures where subject = $1) n
          where f.subject = n.subject returning f.locked_until is not null",
    )
    .bind(subject)
    .bind(failures_max)
    .bind(since)
    .bind(now)
    .bind(until)
    .fetch_one(&mut **tx)
    .await
}

pub async fn forget(tx: &mut PgTx, subjects: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query("delete from sign_in_failures where subject = any($1)").bind(subjects).execute(&mut **tx).await?;
    Ok(())
}

/// Forgets a subject, and every one that begins so; whether one of them was locked.
pub async fn unlock(tx: &mut PgTx, subject: &str, prefix: Option<&str>) -> Result<bool, sqlx::Error> {
    let locks: Vec<bool> = sqlx::query_scalar(
        "delete from sign_in_failures where subject = $1 or starts_with(subject, $2)
         returning coalesce(locked_until > now(), false)",
    )
    .bind(subject)
    .bind(prefix)
    .fetch_all(&mut **tx)
    .await?;
    Ok(locks.contains(&true))
}

/// The end of a lock that holds.
pub async fn locked_until(
    executor: impl PgExecutor<'_>,
    subject: &str,
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar("select locked_until from sign_in_failures where subject = $1 and locked_until > $2")
        .bind(subject)
        .bind(now)
        .fetch_optional(executor)
        .await
}
