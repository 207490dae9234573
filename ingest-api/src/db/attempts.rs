//! Counters of failed attempts.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::PgExecutor;

/// Locks the counters, which are made where they are missing; `subjects` are sorted. The end of a lock that holds. One
/// statement: between two, a success at the same time could take a counter away.
pub async fn lock(
    tx: &mut PgTx,
    subjects: &[String],
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let locks: Vec<Option<DateTime<Utc>>> = sqlx::query_scalar(
        "insert into sign_in_failures (subject, counted_from) select s, $2 from unnest($1::text[]) s order by s
         on conflict (subject) do update set subject = excluded.subject returning locked_until",
    )
    .bind(subjects)
    .bind(now)
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
        "insert into sign_in_failures as f (subject, failures, counted_from, locked_until)
         values ($1, 1, $4, case when $2 <= 1 then $5 end)
         on conflict (subject) do update
            set (failures, counted_from, locked_until) =
                (select n, case when n = 1 then $4 else f.counted_from end, case when n >= $2 then $5 end
                   from (select case when f.counted_from > $3 then f.failures + 1 else 1 end n) counted)
         returning locked_until is not null",
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

/// Forgets these subjects, and every one that begins so; whether one of them was locked.
pub async fn unlock(tx: &mut PgTx, subjects: &[String], prefix: Option<&str>) -> Result<bool, sqlx::Error> {
    let locks: Vec<bool> = sqlx::query_scalar(
        "delete from sign_in_failures where subject = any($1) or starts_with(subject, $2)
         returning coalesce(locked_until > now(), false)",
    )
    .bind(subjects)
    .bind(prefix)
    .fetch_all(&mut **tx)
    .await?;
    Ok(locks.contains(&true))
}

/// The end of a lock that holds.
pub async fn locked_until(
    executor: impl PgExecutor<'_>,
    subjects: &[String],
    now: DateTime<Utc>,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar("select max(locked_until) from sign_in_failures where subject = any($1) and locked_until > $2")
        .bind(subjects)
        .bind(now)
        .fetch_one(executor)
        .await
}
