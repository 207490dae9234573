use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use runtime::config::Postgres;
use runtime::lifecycle::Shutdown;
use runtime::pg::{self, WriteFailure, Writer};
use sqlx::{Executor as _, PgPool, Row as _};

fn database() -> Postgres {
    match std::env::var("DATABASE_URL") {
        Ok(url) => Postgres { url: url.into() },
        Err(_) => panic!("DATABASE_URL is not set: run ./dev test"),
    }
}

fn pool(max: u32) -> PgPool {
    // Test machines are busy: the half second of production is not the subject here.
    pool_with(max, pg::Limits::default())
}

fn pool_with(max: u32, limits: pg::Limits) -> PgPool {
    let limits = pg::Limits { acquire: Duration::from_secs(120), ..limits };
    pg::pool_with(&database(), "test", max, &limits).unwrap()
}

async fn is_inside_transaction(pool: &PgPool) -> bool {
    let row = pool.fetch_one(sqlx::raw_sql("select now() <> statement_timestamp()")).await.unwrap();
    row.get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_left_inside_a_transaction_is_never_lent_again() {
    let pool = pool(1);
    let mut poisoned = pool.acquire().await.unwrap();
    // Behind the driver's back, as after a cancelled `begin`.
    poisoned.execute(sqlx::raw_sql("begin")).await.unwrap();
    drop(poisoned);
    assert!(!is_inside_transaction(&pool).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_hang_ups_leave_every_unit_whole_and_every_connection_clean() {
    // Nor are the limits of a statement: a unit that met one would rightly be rolled back.
    let pool =
        pool_with(4, pg::Limits { statement_ms: 60_000, idle_in_transaction_ms: 60_000, ..pg::Limits::default() });
    let table = format!("runtime_hang_ups_{:016x}", rand::random::<u64>());
    sqlx::query(sqlx::AssertSqlSafe(format!("create table {table} (n int not null)"))).execute(&pool).await.unwrap();
    let shutdown = Shutdown::new();
    let writer = Writer::new(pool.clone(), &shutdown);
    let began = Arc::new(AtomicU32::new(0));
    for n in 0..2_000_i32 {
        let statement = format!("insert into {table} values ($1)");
        let counter = Arc::clone(&began);
        let write = writer.write(n, move |tx, n| {
            let (statement, counter) = (statement.clone(), Arc::clone(&counter));
            Box::pin(async move {
                counter.fetch_add(1, Ordering::Relaxed);
                // Two rows: a unit is whole or absent.
                for _ in 0..2 {
                    sqlx::query(sqlx::AssertSqlSafe(statement.clone())).bind(n).execute(&mut **tx).await?;
                }
                Ok::<_, sqlx::Error>(())
            })
        });
        let patience = Duration::from_micros(rand::rng().random_range(0..3_000));
        // The client hangs up at a random instant.
        tokio::time::timeout(patience, write).await.ok();
    }
    assert!(shutdown.drain(Duration::from_secs(120)).await);
    let count = format!("select count(*), count(distinct n) from {table}");
    let row = sqlx::query(sqlx::AssertSqlSafe(count)).fetch_one(&pool).await.unwrap();
    let (rows, units): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(rows, units * 2, "no half unit");
    assert_eq!(units, i64::from(began.load(Ordering::Relaxed)), "every unit that began was finished");
    for _ in 0..200 {
        assert!(!is_inside_transaction(&pool).await);
    }
    sqlx::query(sqlx::AssertSqlSafe(format!("drop table {table}"))).execute(&pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serialisation_failures_are_repeated_three_times_and_other_errors_not_at_all() {
    let shutdown = Shutdown::new();
    let writer = Writer::new(pool(2), &shutdown);
    let run = async |failures: u32, state: &'static str| {
        let runs = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&runs);
        let result = writer
            .write((), move |tx, ()| {
                let counter = Arc::clone(&counter);
                Box::pin(async move {
                    if counter.fetch_add(1, Ordering::Relaxed) < failures {
                        let raise = format!("do $$ begin raise exception 'x' using errcode = '{state}'; end $$");
                        tx.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(raise))).await?;
                    }
                    Ok::<_, sqlx::Error>(())
                })
            })
            .await;
        (result.map_err(|e| e.sqlstate().unwrap_or_default()), runs.load(Ordering::Relaxed))
    };
    assert_eq!(run(3, "40001").await, (Ok(()), 4));
    assert_eq!(run(4, "40P01").await, (Err("40P01".into()), 4));
    assert_eq!(run(1, "23505").await, (Err("23505".into()), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_an_error_that_rolls_back_and_time_limits_hold() {
    let shutdown = Shutdown::new();
    let pool = pool(1);
    let writer = Writer::new(pool.clone(), &shutdown);
    let result: Result<(), sqlx::Error> = writer.write((), |_, ()| Box::pin(async { panic!("planted") })).await;
    assert!(matches!(result, Err(sqlx::Error::WorkerCrashed)));
    assert!(!is_inside_transaction(&pool).await);
    for (setting, value) in [("statement_timeout", "2s"), ("lock_timeout", "1s")] {
        let row = sqlx::query("select current_setting($1)").bind(setting).fetch_one(&pool).await.unwrap();
        assert_eq!(row.get::<String, _>(0), value);
    }
    let slow = sqlx::query("select pg_sleep(30)").execute(&pool).await.unwrap_err();
    assert_eq!(slow.sqlstate().as_deref(), Some("57014"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_says_so_within_its_limit() {
    let pool = pg::pool(&database(), "test", 1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let _held = loop {
        match pool.acquire().await {
            Ok(held) => break held,
            // A busy machine may take longer than the limit to connect.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    assert!(matches!(pool.acquire().await, Err(sqlx::Error::PoolTimedOut)));
}
