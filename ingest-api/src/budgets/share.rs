//! What processes tell each other about their callers, through Redis.
//!
//! One script adds what was spent to what is owed, on Redis' own clock, and answers what is owed now. Nothing waits for
//! it but the task that runs it; what cannot be told is forgotten, so it never piles up.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use metrics::{Counter, Gauge};
use redis::Script;
use redis::aio::ConnectionManager;
use runtime::names;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Account, Budget, Budgets, Key, lock};

const ROUND: Duration = Duration::from_millis(100);
/// A round that has nothing to tell asks whether Redis is there, this often.
const QUIET_ROUNDS_MAX: u32 = 10;
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Callers of one script: Redis serves others in between.
const BATCH: usize = 200;
/// Callers of one round. More of them at a time are counted in this process alone, so that a flood of addresses fills
/// neither this queue nor Redis.
const TOLD_MAX: usize = 1_000;

/// `KEYS`: callers. `ARGV`: for each what was spent, and the most that may be owed, in microseconds. A key goes when
/// nothing is owed. The bound heals a clock that was set back.
const ADD_AND_READ: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000000 + time[2]
    local debts = {}
    for i, key in ipairs(KEYS) do
        local paid_at = math.max(tonumber(redis.call('GET', key) or '0'), now) + ARGV[2 * i - 1]
        local debt = math.min(paid_at - now, tonumber(ARGV[2 * i]))
        if debt > 0 then
            redis.call('SET', key, string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000))
        end
        debts[i] = debt
    end
    return debts";

/// Who has spent something that Redis has not been told of.
pub struct Shares {
    redis: ConnectionManager,
    script: Script,
    waiting: Mutex<Vec<Spender>>,
    told: Counter,
    failed: Counter,
    alone: Gauge,
}

struct Spender {
    budget: Budget,
    key: Key,
    account: Arc<Mutex<Account>>,
}

impl Shares {
    pub fn new(redis: ConnectionManager) -> Self {
        let counted = |outcome| metrics::counter!(names::RATE_LIMIT_SHARES, "outcome" => outcome);
        Shares {
            redis,
            script: Script::new(ADD_AND_READ),
            waiting: Mutex::default(),
            told: counted("done"),
            failed: counted("failed"),
            alone: metrics::gauge!(names::RATE_LIMIT_ALONE),
        }
    }

    /// Has it told in the next round; false when that has no room.
    pub fn enqueue(&self, budget: Budget, key: Key, account: &Arc<Mutex<Account>>) -> bool {
        let mut waiting = lock(&self.waiting);
        let has_room = waiting.len() < TOLD_MAX;
        if has_room {
            waiting.push(Spender { budget, key, account: Arc::clone(account) });
        }
        has_room
    }
}

impl Budgets {
    /// Tells and hears for ever; ends at once where there is no Redis.
    pub async fn follow(self: Arc<Self>) {
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet = QUIET_ROUNDS_MAX;
        while let Some(shares) = &self.shares {
            rounds.tick().await;
            let is_quiet = lock(&shares.waiting).is_empty();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if !is_quiet || quiet >= QUIET_ROUNDS_MAX {
                quiet = 0;
                self.note(self.share().await);
            }
        }
    }

    /// One round: tells Redis what was spent here since the last one, and hears what these callers owe.
    pub async fn share(&self) -> anyhow::Result<()> {
        let Some(shares) = &self.shares else { return Ok(()) };
        let waiting = std::mem::take(&mut *lock(&shares.waiting));
        let told: Vec<(Spender, u32)> = waiting
            .into_iter()
            .map(|spender| {
                let spent = std::mem::take(&mut lock(&spender.account).untold);
                (spender, spent)
            })
            .collect();
        if told.is_empty() {
            let mut redis = shares.redis.clone();
            let ping = redis::cmd("PING");
            return Ok(timeout(ANSWER_MAX, ping.exec_async(&mut redis)).await.context("no answer in time")??);
        }
        for batch in told.chunks(BATCH) {
            self.tell(shares, batch).await?;
        }
        Ok(())
    }

    async fn tell(&self, shares: &Shares, batch: &[(Spender, u32)]) -> anyhow::Result<()> {
        let mut call = shares.script.prepare_invoke();
        for (Spender { budget, key, .. }, spent) in batch {
            let pace = self.ledger(*budget).pace;
            call.key(format!("vorca:budget:{}:{key}", budget.name()));
            call.arg((pace.interval * u64::from(*spent)).div_ceil(1_000)).arg(2 * pace.debt_max / 1_000);
        }
        let mut redis = shares.redis.clone();
        let debts: Vec<u64> =
            timeout(ANSWER_MAX, call.invoke_async(&mut redis)).await.context("no answer in time")??;
        for ((Spender { budget, account, .. }, _), debt) in batch.iter().zip(debts) {
            let mut held = lock(account);
            // What was spent while Redis answered is not in its answer.
            let since = self.ledger(*budget).pace.interval * u64::from(held.untold);
            held.meter.learn(self.now(), debt * 1_000 + since);
        }
        Ok(())
    }

    fn note(&self, round: anyhow::Result<()>) {
        let Some(shares) = &self.shares else { return };
        let was_alone = self.is_alone.swap(round.is_err(), Ordering::Relaxed);
        shares.alone.set(if round.is_err() { 1.0 } else { 0.0 });
        match round {
            Ok(()) => shares.told.increment(1),
            Err(error) => {
                shares.failed.increment(1);
                if !was_alone {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "budgets are not shared with other processes at present"
                    );
                }
            }
        }
    }
}
