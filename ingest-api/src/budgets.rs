//! How much each caller may ask for: a budget per till, API client and user, one for what may take its time, and tight
//! ones for who has no token yet.
//!
//! Every request is judged in this process and waits for nothing. What a caller spent here is told to Redis ten times a
//! second, and what the caller owes over all processes comes back ([`share`]). So each process may let through the
//! quota of a caller once before it hears of the others; what that was too much is paid off before more is admitted.
//! While Redis is away each process goes by what it knows itself: nobody is refused for it, but sign-ins count double.

pub mod gcra;
pub mod key;
pub mod layer;
mod share;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use metrics::Counter;
use moka::sync::Cache;
use redis::aio::ConnectionManager;
use runtime::config::{self, Quota};
use runtime::names;

use crate::auth::tokens::Subject;
use crate::error::ApiError;
use gcra::{Meter, Pace, Reading};
pub use key::Key;
use share::Shares;

/// Callers that each budget remembers. Who is forgotten begins anew, so more of them at a time than this is lenient.
const CALLERS_MAX: u64 = 50_000;
/// What a sign-in counts for while Redis does not say what other processes admitted.
const SIGN_IN_COST_ALONE: u32 = 2;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    Till,
    Replay,
    Integrator,
    Office,
    SignIn,
    Public,
}

impl Budget {
    pub const ALL: [Budget; 6] =
        [Budget::Till, Budget::Replay, Budget::Integrator, Budget::Office, Budget::SignIn, Budget::Public];

    /// As in headers, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Budget::Till => "till",
            Budget::Replay => "replay",
            Budget::Integrator => "integrator",
            Budget::Office => "office",
            Budget::SignIn => "sign_in",
            Budget::Public => "public",
        }
    }

    /// The everyday budget of a caller.
    pub fn of(subject: Subject) -> Self {
        match subject {
            Subject::Terminal(..) => Budget::Till,
            Subject::Client(_) => Budget::Integrator,
            Subject::User(_) | Subject::Enrolling(_) => Budget::Office,
        }
    }

    fn quota(self, config: &config::Quotas) -> Quota {
        match self {
            Budget::Till => config.till,
            Budget::Replay => config.replay,
            Budget::Integrator => config.integrator,
            Budget::Office => config.office,
            Budget::SignIn => config.sign_in,
            Budget::Public => config.public,
        }
    }
}

/// The budgets of one process.
pub struct Budgets {
    ledgers: [Ledger; Budget::ALL.len()],
    /// None where there is no Redis: then one process is all there is.
    shares: Option<Shares>,
    is_alone: AtomicBool,
    began: Instant,
}

/// One budget with its callers.
struct Ledger {
    pace: Pace,
    policy: HeaderValue,
    accounts: Cache<Key, Arc<Mutex<Account>>>,
    admitted: Counter,
    refused: Counter,
}

/// One caller's use of one budget.
#[derive(Debug, Default)]
struct Account {
    meter: Meter,
    /// Spent here and not told to Redis yet.
    untold: u32,
}

impl Budgets {
    /// Metrics count into the recorder that is installed by now.
    pub fn new(config: &config::Quotas, redis: Option<ConnectionManager>) -> Arc<Self> {
        let is_alone = AtomicBool::new(redis.is_some());
        Arc::new(Budgets {
            ledgers: Budget::ALL.map(|budget| Ledger::new(budget, budget.quota(config))),
            shares: redis.map(Shares::new),
            is_alone,
            began: Instant::now(),
        })
    }

    /// Counts one request of this caller.
    pub fn take(&self, budget: Budget, key: Key) -> Standing {
        let ledger = self.ledger(budget);
        let is_dear = budget == Budget::SignIn && self.is_alone();
        let cost = if is_dear { SIGN_IN_COST_ALONE } else { 1 };
        let account = ledger.accounts.get_with(key, Arc::default);
        let reading = {
            let mut held = lock(&account);
            let reading = held.meter.take(ledger.pace, self.now(), cost);
            if let Some(shares) = self.shares.as_ref().filter(|_| reading.is_admitted) {
                // Already waiting to be told when something is untold.
                if held.untold > 0 || shares.enqueue(budget, key, &account) {
                    held.untold += cost;
                }
            }
            reading
        };
        let counter = if reading.is_admitted { &ledger.admitted } else { &ledger.refused };
        counter.increment(1);
        Standing { budget, policy: ledger.policy.clone(), reading }
    }

    /// 429 when too many want to sign in as this account, from wherever.
    pub fn sign_in_as(&self, account: &str) -> Result<(), ApiError> {
        let standing = self.take(Budget::SignIn, Key::account(account));
        if standing.reading.is_admitted { Ok(()) } else { Err(standing.problem()) }
    }

    /// While it does not hear of other processes.
    pub fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    fn ledger(&self, budget: Budget) -> &Ledger {
        &self.ledgers[budget as usize]
    }

    /// Nanoseconds on the clock of this process.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

impl Ledger {
    fn new(budget: Budget, quota: Quota) -> Self {
        let policy = format!("\"{}\";q={};w={}", budget.name(), quota.requests(), quota.seconds());
        let window = Duration::from_secs(u64::from(quota.seconds()));
        let counted =
            |outcome| metrics::counter!(names::RATE_LIMIT_REQUESTS, "budget" => budget.name(), "outcome" => outcome);
        Ledger {
            pace: quota.into(),
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("")),
            // After twice the window nothing is owed: forgetting says the same.
            accounts: Cache::builder().max_capacity(CALLERS_MAX).time_to_idle(2 * window).build(),
            admitted: counted("admitted"),
            refused: counted("refused"),
        }
    }
}

/// What is inside stays right after any panic: each change is a few assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a caller stands after a request.
#[derive(Debug, Clone)]
pub struct Standing {
    budget: Budget,
    policy: HeaderValue,
    reading: Reading,
}

impl Standing {
    pub fn is_admitted(&self) -> bool {
        self.reading.is_admitted
    }

    /// Requests that are left now.
    pub fn left(&self) -> u32 {
        self.reading.left
    }

    /// 429 with the time to wait.
    pub fn problem(&self) -> ApiError {
        let text = format!("too many requests for the budget `{}`: wait as Retry-After says", self.budget.name());
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", text).retry_after(seconds(self.reading.retry_in))
    }

    /// `RateLimit-Policy` and `RateLimit`: the quota, what is left of it, and the seconds until it is whole again.
    pub fn write(self, headers: &mut HeaderMap) {
        let Reading { left, whole_in, .. } = self.reading;
        let standing = format!("\"{}\";r={left};t={}", self.budget.name(), seconds(whole_in));
        if let Ok(standing) = HeaderValue::from_str(&standing) {
            headers.insert(STANDING, standing);
        }
        headers.insert(POLICY, self.policy);
    }
}

/// Rounded up: who waits as long is early by nothing.
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn budgets() -> Arc<Budgets> {
        let five = Quota::new(5, 3_600).unwrap();
        Budgets::new(&config::Quotas { till: five, sign_in: five, ..config::Quotas::default() }, None)
    }

    fn admitted(budgets: &Budgets, budget: Budget, key: Key, requests: usize) -> usize {
        (0..requests).filter(|_| budgets.take(budget, key).is_admitted()).count()
    }

    #[test]
    fn budgets_and_callers_are_counted_apart() {
        let budgets = budgets();
        let (one, other) = (Key::Subject(Uuid::from_u128(1)), Key::Subject(Uuid::from_u128(2)));
        assert_eq!(admitted(&budgets, Budget::Till, one, 9), 5);
        assert_eq!(admitted(&budgets, Budget::Till, other, 9), 5);
        assert_eq!(admitted(&budgets, Budget::Replay, one, 9), 9);
    }

    #[test]
    fn an_answer_says_quota_rest_and_when_it_is_whole() {
        let budgets = budgets();
        let key = Key::Subject(Uuid::from_u128(1));
        let mut headers = HeaderMap::new();
        budgets.take(Budget::Till, key).write(&mut headers);
        assert_eq!(headers[POLICY], "\"till\";q=5;w=3600");
        assert_eq!(headers[STANDING], "\"till\";r=4;t=720");
        assert_eq!(admitted(&budgets, Budget::Till, key, 4), 4);
        let refused = budgets.take(Budget::Till, key);
        let problem = refused.problem();
        assert_eq!((problem.status.as_u16(), problem.code), (429, "rate_limited"));
        assert!((700..=720).contains(&problem.retry_after_s), "{}", problem.retry_after_s);
        refused.write(&mut headers);
        assert!(headers[STANDING].to_str().unwrap().starts_with("\"till\";r=0;t=3"), "{headers:?}");
    }

    #[test]
    fn who_waits_as_long_as_told_is_not_early() {
        let waits = [0, 1, 999_999_999, 1_000_000_000, 1_000_000_001].map(seconds);
        assert_eq!(waits, [0, 1, 1, 1, 2]);
    }

    #[test]
    fn callers_beyond_the_bound_are_forgotten_not_kept() {
        let budgets = budgets();
        for n in 0..CALLERS_MAX as u128 + 5_000 {
            budgets.take(Budget::Public, Key::Account(n));
        }
        let accounts = &budgets.ledger(Budget::Public).accounts;
        accounts.run_pending_tasks();
        assert!(accounts.entry_count() <= CALLERS_MAX, "{}", accounts.entry_count());
    }

    #[test]
    fn an_account_has_its_own_share_of_sign_ins() {
        let budgets = budgets();
        for _ in 0..5 {
            budgets.sign_in_as("anna").unwrap();
        }
        assert_eq!(budgets.sign_in_as("anna").unwrap_err().code, "rate_limited");
        budgets.sign_in_as("ben").unwrap();
    }
}
