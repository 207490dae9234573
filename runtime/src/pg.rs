//! Postgres: one pool per purpose, time limits in the database, and the unit of work.
//!
//! A handler's future is dropped when its client hangs up. Dropped in the middle of `begin`, it would leave a
//! pooled connection inside a transaction, and the next borrower would work in it. So every write runs in a
//! task of its own ([`Writer::write`]), and the pool asks the server before each loan ([`pool`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::BoxFuture;
use rand::Rng as _;
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgPool, Row as _};
use tokio_util::task::TaskTracker;

use crate::config::{ConfigError, Postgres};
use crate::lifecycle::{Shutdown, exit};
use crate::names;

pub type PgTx = sqlx::Transaction<'static, sqlx::Postgres>;

/// A request that waits longer for a connection is answered 503 with `Retry-After`.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a unit of work is repeated after a serialisation failure or a deadlock.
const RETRIES: u32 = 3;
/// A pool that lends nothing for this long, while a direct connection works, has leaked: only a restart heals it.
const LEAK_LIMIT: Duration = Duration::from_secs(30);
const GUARD_TICK: Duration = Duration::from_secs(2);

/// Limits of the sessions of one pool; zero switches a limit off.
#[derive(Debug, Clone)]
pub struct Limits {
    pub statement_ms: u32,
    pub lock_ms: u32,
    pub idle_in_transaction_ms: u32,
    pub acquire: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { statement_ms: 2_000, lock_ms: 1_000, idle_in_transaction_ms: 5_000, acquire: ACQUIRE_TIMEOUT }
    }
}

/// A pool of at most `max` connections for one purpose (`sales`, `reads`, ...), so that none starves another.
/// Connects on first use; only an unusable URL is an error. Needs a running tokio runtime.
pub fn pool(config: &Postgres, purpose: &'static str, max: u32) -> anyhow::Result<PgPool> {
    pool_with(config, purpose, max, &Limits::default())
}

/// Like [`pool`], with other limits (a long report, a bulk upsert).
pub fn pool_with(config: &Postgres, purpose: &'static str, max: u32, limits: &Limits) -> anyhow::Result<PgPool> {
    Ok(pool_counted(config, purpose, max, limits, Arc::default())?)
}

/// Like [`pool_with`], watched: exports the pool's gauges, and ends the process (code 70) when the pool has
/// lent no connection for half a minute although the server accepts a direct one.
pub fn pool_watched(
    config: &Postgres,
    purpose: &'static str,
    max: u32,
    limits: &Limits,
    shutdown: &Shutdown,
) -> anyhow::Result<PgPool> {
    let loans = Arc::new(AtomicU64::new(0));
    let pool = pool_counted(config, purpose, max, limits, Arc::clone(&loans))?;
    tokio::spawn(watch(pool.clone(), purpose, connect_options(config, purpose, limits)?, loans, shutdown.clone()));
    Ok(pool)
}

fn connect_options(config: &Postgres, purpose: &str, limits: &Limits) -> Result<PgConnectOptions, ConfigError> {
    let options: PgConnectOptions = config
        .url
        .expose_secret()
        .parse()
        .map_err(|error| ConfigError::new(format!("VORCA__POSTGRES__URL is not usable: {error}")))?;
    let ms = |value: u32| format!("{value}ms");
    Ok(options.application_name(&format!("vorca-{purpose}")).options([
        ("statement_timeout", ms(limits.statement_ms)),
        ("lock_timeout", ms(limits.lock_ms)),
        ("idle_in_transaction_session_timeout", ms(limits.idle_in_transaction_ms)),
        ("TimeZone", "UTC".to_owned()),
    ]))
}

fn pool_counted(
    config: &Postgres,
    purpose: &'static str,
    max: u32,
    limits: &Limits,
    loans: Arc<AtomicU64>,
) -> Result<PgPool, ConfigError> {
    let new = Arc::clone(&loans);
    Ok(PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(limits.acquire)
        .test_before_acquire(false)
        .after_connect(move |_, _| {
            new.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        })
        .before_acquire(move |connection, _| {
            let loans = Arc::clone(&loans);
            Box::pin(async move {
                let fresh = !is_stale(connection).await?;
                if fresh {
                    loans.fetch_add(1, Ordering::Relaxed);
                } else {
                    metrics::counter!(names::PG_STALE_CONNECTIONS, "pool" => purpose).increment(1);
                }
                Ok(fresh)
            })
        })
        .connect_lazy_with(connect_options(config, purpose, limits)?))
}

/// Asks the server whether this connection is still inside a transaction: its clock stands still there. The
/// driver's own counter does not notice. A simple query, so it also works where nothing can be prepared.
async fn is_stale(connection: &mut sqlx::PgConnection) -> Result<bool, sqlx::Error> {
    let probe = sqlx::raw_sql("select now() <> statement_timestamp()");
    let row = sqlx::Executor::fetch_one(connection, probe).await?;
    row.try_get(0)
}

async fn watch(
    pool: PgPool,
    purpose: &'static str,
    direct: PgConnectOptions,
    loans: Arc<AtomicU64>,
    shutdown: Shutdown,
) {
    let gauge = |name: &'static str, value: u32| metrics::gauge!(name, "pool" => purpose).set(f64::from(value));
    gauge(names::PG_POOL_MAX, pool.options().get_max_connections());
    let (mut last_loans, mut since) = (0, Instant::now());
    while !shutdown.is_cancelled() && !pool.is_closed() {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        gauge(names::PG_POOL_IDLE, idle);
        gauge(names::PG_POOL_IN_USE, pool.size().saturating_sub(idle));
        // The probe is a loan like any other: it counts when it succeeds.
        if pool.acquire().await.is_err() {
            metrics::counter!(names::PG_POOL_TIMEOUTS, "pool" => purpose).increment(1);
        }
        let now = loans.load(Ordering::Relaxed);
        if now != last_loans {
            (last_loans, since) = (now, Instant::now());
        } else if since.elapsed() > LEAK_LIMIT {
            if direct.connect().await.is_ok() {
                tracing::error!(pool = purpose, "the pool lends nothing while the server answers: ending this process");
                std::process::exit(i32::from(exit::SOFTWARE));
            }
            since = Instant::now();
        }
        tokio::select! { () = tokio::time::sleep(GUARD_TICK) => {}, () = shutdown.cancelled() => {} }
    }
}

/// An error of a unit of work: knows the SQLSTATE it came from, so that [`Writer::write`] can repeat it.
pub trait WriteFailure: From<sqlx::Error> + Send + 'static {
    fn sqlstate(&self) -> Option<String>;
}

impl WriteFailure for sqlx::Error {
    fn sqlstate(&self) -> Option<String> {
        self.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned())
    }
}

impl WriteFailure for anyhow::Error {
    fn sqlstate(&self) -> Option<String> {
        self.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>()).and_then(WriteFailure::sqlstate)
    }
}

/// The only way to write: `writer.write(input, |tx, input| Box::pin(work(tx, input)))`.
#[derive(Debug, Clone)]
pub struct Writer {
    pool: PgPool,
    tasks: TaskTracker,
}

impl Writer {
    /// Units of work run as tasks that `shutdown.drain` waits for.
    pub fn new(pool: PgPool, shutdown: &Shutdown) -> Self {
        Writer { pool, tasks: shutdown.tasks().clone() }
    }

    /// The pool, for reading outside a transaction.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs `work` in one transaction and commits it, in a task of its own: a caller that goes away neither
    /// interrupts it nor poisons a connection. An error rolls back. Serialisation failures and deadlocks are
    /// repeated up to three times with jitter, so `work` may run more than once and must act on the
    /// transaction only. A panic in `work` is reported as `sqlx::Error::WorkerCrashed`.
    pub async fn write<I, T, E, F>(&self, input: I, work: F) -> Result<T, E>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
        E: WriteFailure,
        F: for<'t> Fn(&'t mut PgTx, &'t I) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
    {
        let pool = self.pool.clone();
        let task = self.tasks.spawn(async move {
            let mut attempt = 0;
            loop {
                match once(&pool, &input, &work).await {
                    Err(error) if attempt < RETRIES && is_repeatable(&error) => {
                        attempt += 1;
                        metrics::counter!(names::PG_WRITE_RETRIES).increment(1);
                        let pause = Duration::from_millis(rand::rng().random_range(1..=(10 << attempt)));
                        tokio::time::sleep(pause).await;
                    }
                    result => return result,
                }
            }
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a unit of work panicked");
            Err(E::from(sqlx::Error::WorkerCrashed))
        })
    }
}

fn is_repeatable<E: WriteFailure>(error: &E) -> bool {
    // serialization_failure, deadlock_detected
    matches!(error.sqlstate().as_deref(), Some("40001" | "40P01"))
}

async fn once<I, T, E, F>(pool: &PgPool, input: &I, work: &F) -> Result<T, E>
where
    E: WriteFailure,
    F: for<'t> Fn(&'t mut PgTx, &'t I) -> BoxFuture<'t, Result<T, E>>,
{
    #[expect(clippy::disallowed_methods, reason = "this is the unit of work")]
    let mut tx = pool.begin().await?;
    match work(&mut tx, input).await {
        Ok(value) => {
            tx.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // The first error is the one to report; a failed rollback closes the connection anyway.
            if let Err(rollback) = tx.rollback().await {
                tracing::warn!(error = %rollback, "rollback failed");
            }
            Err(error)
        }
    }
}

/// Waits until the server answers, at most `limit`: for one-shot tasks, which have nothing else to do.
pub async fn ping(pool: &PgPool, limit: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        match sqlx::Executor::execute(pool, sqlx::raw_sql("select 1")).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(crate::lifecycle::Unavailable(format!("Postgres: {error}")))
                    .context("waiting for Postgres");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
