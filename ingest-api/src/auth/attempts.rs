//! Failed attempts, counted in Postgres, so that they hold on every node and after a restart: ten against one log-in name
//! or from one address within half an hour lock it for half an hour; five against a PIN lock that. A name is counted
//! whether a user has it or not. Of IPv6 a network of 64 bits counts as one address: whoever has one has them all.

use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::budgets::key::network;
use crate::db::attempts as db;
use crate::error::ApiError;

/// Failures that lock a log-in name or an address.
const FAILURES_MAX: i32 = 10;
/// Failures that lock a PIN.
const PIN_FAILURES_MAX: i32 = 5;
/// For how long failures count, and for how long a lock holds.
const LOCK_MINUTES: i64 = 30;

/// What an attempt is aimed at, or comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    subject: String,
    failures_max: i32,
}

impl Target {
    /// A log-in name, in lower case.
    pub fn login(login: &str) -> Self {
        Target { subject: format!("login/{}", hashed(login)), failures_max: FAILURES_MAX }
    }
    /// The network that the address belongs to; none where it is not known.
    pub fn address(address: &str) -> Option<Self> {
        Self::of_network("address", address)
    }
    /// Where a secret or signature came from that was wrong and that nobody can guess.
    pub fn keys(address: &str) -> Option<Self> {
        Self::of_network("keys", address)
    }
    fn of_network(kind: &str, address: &str) -> Option<Self> {
        let network = network(address.parse().ok()?);
        Some(Target { subject: format!("{kind}/{network}"), failures_max: FAILURES_MAX })
    }
    /// The PIN of a cashier at a terminal, by the code that was typed.
    pub fn pin(terminal: Uuid, cashier_code: &str) -> Self {
        Target { subject: format!("{}{terminal}", pins_of(cashier_code)), failures_max: PIN_FAILURES_MAX }
    }
    /// A log-in name and where the request comes from.
    pub fn log_in(login: &str, address: &str) -> Vec<Self> {
        [Some(Self::login(login)), Self::address(address)].into_iter().flatten().collect()
    }
}

/// Names are hashed: people type passwords into the wrong field.
fn hashed(name: &str) -> String {
    Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn subjects(targets: &[Target]) -> Vec<String> {
    targets.iter().map(|target| target.subject.clone()).collect()
}

fn pins_of(cashier_code: &str) -> String {
    format!("pin/{}/", hashed(cashier_code))
}

/// The counters of one attempt, locked until its transaction ends: attempts at the same time are judged one after
/// another, so none slips in above the limit.
pub struct Attempt {
    targets: Vec<Target>,
    now: DateTime<Utc>,
}

/// When a lock that holds at `now` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked(pub DateTime<Utc>);

impl Locked {
    /// 429, whatever the attempt would have been.
    pub fn problem(self, now: DateTime<Utc>) -> ApiError {
        let left = (self.0 - now).num_seconds().max(1);
        let problem = ApiError::new(
            axum::http::StatusCode::TOO_MANY_REQUESTS,
            "locked",
            "too many failed attempts: wait, or have it unlocked",
        );
        problem.retry_after(left as u64)
    }
}

impl Attempt {
    /// Locks the counters of these targets. `Err(Locked)` when one of them is.
    pub async fn begin(
        tx: &mut PgTx,
        mut targets: Vec<Target>,
        now: DateTime<Utc>,
    ) -> Result<Result<Self, Locked>, sqlx::Error> {
        targets.sort_unstable();
        let locked_until = db::lock(tx, &subjects(&targets), now).await?;
        Ok(match locked_until {
            Some(until) => Err(Locked(until)),
            None => Ok(Attempt { targets, now }),
        })
    }

    /// Counts the failure everywhere; true when that locked one of the targets.
    pub async fn failed(self, tx: &mut PgTx) -> Result<bool, sqlx::Error> {
        let (now, since) = (self.now, self.now - TimeDelta::minutes(LOCK_MINUTES));
        let until = now + TimeDelta::minutes(LOCK_MINUTES);
        let mut is_locked = false;
        for target in &self.targets {
            is_locked |= db::count(tx, &target.subject, target.failures_max, (since, now, until)).await?;
        }
        Ok(is_locked)
    }

    /// Forgets the failures against what the attempt was aimed at. Those of the address stay: whoever knows one password
    /// could wipe them out between guesses at others.
    pub async fn succeeded(self, tx: &mut PgTx) -> Result<(), sqlx::Error> {
        let aimed_at = self.targets.iter().filter(|target| !target.subject.starts_with("address/"));
        db::forget(tx, &aimed_at.map(|target| target.subject.clone()).collect::<Vec<_>>()).await
    }
}

/// The lock that holds, asked before anything that costs work. The last word has [`Attempt::begin`].
pub async fn find_lock(
    pool: &sqlx::PgPool,
    targets: &[Target],
    now: DateTime<Utc>,
) -> Result<Option<Locked>, sqlx::Error> {
    Ok(db::locked_until(pool, &subjects(targets), now).await?.map(Locked))
}

/// 429 when an address is locked.
pub async fn refuse_locked_address(pool: &sqlx::PgPool, address: &str, now: DateTime<Utc>) -> Result<(), ApiError> {
    let Some(target) = Target::address(address) else { return Ok(()) };
    match find_lock(pool, &[target], now).await? {
        Some(locked) => Err(locked.problem(now)),
        None => Ok(()),
    }
}

/// Ends the locks of a user, of the log-in name and of every PIN; whether one held.
pub async fn unlock_user(tx: &mut PgTx, login: &str, code: &str) -> Result<bool, sqlx::Error> {
    db::unlock(tx, &[Target::login(login).subject], Some(&pins_of(code))).await
}

/// Ends the lock of an address; whether one held.
pub async fn unlock_address(tx: &mut PgTx, address: &str) -> Result<bool, sqlx::Error> {
    let targets: Vec<Target> = [Target::address(address), Target::keys(address)].into_iter().flatten().collect();
    db::unlock(tx, &subjects(&targets), None).await
}
