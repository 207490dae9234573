//! The loop of one lane: take whatever waits, commit it, answer; put back what could not be locked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::names;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, mpsc};

use super::batch::{self, BatchError, Verdict};
use super::connection::LaneConnection;
use super::{Answer, BATCH_MAX, Waiting};
use crate::catalog_cache::CatalogCache;
use crate::error::ApiError;

/// A batch that met a serialisation failure or a deadlock is repeated this often.
const REPEATS_MAX: u32 = 3;
/// Pause before sales that were put back are tried again, when nothing else arrived.
const PUT_BACK_PAUSE: Duration = Duration::from_millis(2);
/// Pause before a COMMIT of unknown outcome is looked up, so that a server that restarts is not hammered.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Lane {
    number: usize,
    connection: LaneConnection,
    catalog: Arc<CatalogCache>,
    committed: Arc<Notify>,
    queue: mpsc::Receiver<Waiting>,
    /// Sales put back, in arrival order: they come before whatever arrives now.
    put_back: Vec<Waiting>,
    pause: Duration,
}

impl Lane {
    pub(super) fn new(
        number: usize,
        options: PgConnectOptions,
        catalog: Arc<CatalogCache>,
        committed: Arc<Notify>,
        queue: mpsc::Receiver<Waiting>,
    ) -> Self {
        let connection = LaneConnection::new(options);
        Lane { number, connection, catalog, committed, queue, put_back: Vec::new(), pause: PUT_BACK_PAUSE }
    }

    /// Runs until every handle is gone and every sale is answered.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.commit(batch).await;
        }
        tracing::debug!(lane = self.number, "lane closed");
    }

    /// What was put back and what waits, at most [`BATCH_MAX`]; None when nothing will ever come.
    async fn gather(&mut self) -> Option<Vec<Waiting>> {
        let mut batch = std::mem::take(&mut self.put_back);
        let room = BATCH_MAX.saturating_sub(batch.len());
        if batch.is_empty() {
            return if self.queue.recv_many(&mut batch, BATCH_MAX).await == 0 { None } else { Some(batch) };
        }
        // Sales of other locations must not wait for a busy one, nor must the lane spin.
        tokio::select! {
            biased;
            received = self.queue.recv_many(&mut batch, room.max(1)), if room > 0 => {
                if received == 0 {
                    tokio::time::sleep(self.pause).await;
                }
            }
            () = tokio::time::sleep(self.pause) => {}
        }
        Some(batch)
    }

    /// Commits a batch, halving it as long as one of its sales spoils it; every sale is answered or put back.
    async fn commit(&mut self, batch: Vec<Waiting>) {
        self.pause = PUT_BACK_PAUSE;
        let mut groups = vec![(batch, 0)];
        while let Some((mut group, attempts)) = groups.pop() {
            let started = Instant::now();
            match batch::run(&mut self.connection, &self.catalog, &mut group).await {
                Ok(verdicts) => {
                    metrics::histogram!(names::LANE_BATCH_SALES).record(group.len() as f64);
                    metrics::histogram!(names::LANE_BATCH_SECONDS).record(started.elapsed().as_secs_f64());
                    self.answer(group, verdicts);
                }
                Err(BatchError::Culprit(error)) if group.len() > 1 => {
                    tracing::warn!(sales = group.len(), %error, "a batch cannot be stored: looking for its culprit");
                    let right = group.split_off(group.len() / 2);
                    // Arrival order: the left half is taken first.
                    groups.push((right, 0));
                    groups.push((group, 0));
                }
                // The other holder of an identity has committed by now: this time it is found.
                Err(BatchError::Culprit(error)) if attempts == 0 && is_taken(&error) => groups.push((group, 1)),
                Err(BatchError::Culprit(error)) => refuse_all(group, error),
                Err(BatchError::Repeat(error)) if attempts < REPEATS_MAX => {
                    tracing::warn!(sales = group.len(), %error, "a batch is repeated");
                    groups.push((group, attempts + 1));
                }
                Err(BatchError::Repeat(error)) => self.give_up(group, &error),
                Err(BatchError::Unknown(error)) => {
                    tracing::warn!(sales = group.len(), %error, "a COMMIT ended unknown: looking up what is stored");
                    group.iter_mut().for_each(|waiting| waiting.may_be_stored = true);
                    self.pause = LOOK_UP_PAUSE;
                    self.put_back(group);
                }
                Err(BatchError::Unavailable(error)) => self.give_up(group, &error),
            }
        }
    }

    fn answer(&mut self, group: Vec<Waiting>, verdicts: Vec<Verdict>) {
        let mut has_written = false;
        let mut busy = Vec::new();
        for (waiting, verdict) in group.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Answer(answer) => {
                    has_written |= matches!(answer, Answer::Created(_));
                    send(waiting, Ok(answer));
                }
                Verdict::Refuse(refusal) => send(waiting, Err(refusal.into())),
                Verdict::Busy => busy.push(waiting),
            }
        }
        if has_written {
            self.committed.notify_one();
        }
        self.put_back(busy);
    }

    /// Back into the queue before everything newer, unless it has waited long enough.
    fn put_back(&mut self, group: Vec<Waiting>) {
        let now = Instant::now();
        for waiting in group {
            if waiting.deadline > now {
                self.put_back.push(waiting);
            } else if waiting.may_be_stored {
                send(waiting, Err(ApiError::unavailable("unavailable", "the outcome is not known: send it again")));
            } else {
                send(waiting, Err(ApiError::unavailable("overloaded", "another act holds this location")));
            }
        }
    }

    /// Nothing was stored: 503 now, except for sales of an earlier COMMIT whose outcome is not known yet.
    fn give_up(&mut self, group: Vec<Waiting>, error: &sqlx::Error) {
        tracing::warn!(sales = group.len(), %error, "a batch was not committed");
        let (unknown, known): (Vec<_>, Vec<_>) = group.into_iter().partition(|waiting| waiting.may_be_stored);
        for waiting in known {
            send(waiting, Err(ApiError::unavailable("unavailable", "the database did not complete the sale")));
        }
        if !unknown.is_empty() {
            self.pause = LOOK_UP_PAUSE;
            self.put_back(unknown);
        }
    }
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| database.is_unique_violation())
}

/// The culprit alone: a value the database cannot hold is the sender's.
fn refuse_all(group: Vec<Waiting>, error: sqlx::Error) {
    let constraint = error.as_database_error().and_then(|database| database.constraint()).map(str::to_owned);
    tracing::error!(constraint, %error, "a sale cannot be stored");
    for waiting in group {
        send(waiting, Err(ApiError::unprocessable("invalid_value", "a value cannot be stored")));
    }
}

/// A caller that went away does not matter: the sale is stored or refused all the same.
fn send(waiting: Waiting, answer: Result<Answer, ApiError>) {
    if waiting.answer.send(answer).is_err() {
        tracing::debug!("nobody waits for this answer any more");
    }
}
