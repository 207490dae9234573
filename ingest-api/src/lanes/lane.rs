//! The loop of one lane: take whatever waits, commit it, answer; put back what could not be locked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::names;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Batch};
use super::batch::{self, BatchError, Verdict};
use super::connection::LaneConnection;
use super::{Answer, Waiting};
use crate::catalog_cache::CatalogCache;
use crate::error::ApiError;

/// A batch that met a serialisation failure or a deadlock is repeated this often.
const REPEATS_MAX: u32 = 3;
/// Pause before sales that were put back are tried again, when nothing else arrived.
const PUT_BACK_PAUSE: Duration = Duration::from_millis(2);
/// Pause before a COMMIT of unknown outcome is looked up, so that a server that restarts is not hammered.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(50);

/// Under load a batch begins this long after the one before for each sale that one held beside its first, at most
/// [`PACE_MAX`]. A batch costs about as much as five sales whatever it holds: without a pace two lanes would spend both
/// cores on batches of two. A sale waits for nothing unless a batch of several has just begun.
const PACE_PER_SALE: Duration = Duration::from_millis(5);
const PACE_MAX: Duration = Duration::from_millis(10);

pub(super) struct Lane {
    number: usize,
    connection: LaneConnection,
    catalog: Arc<CatalogCache>,
    committed: Arc<Notify>,
    queue: mpsc::Receiver<Waiting>,
    backlog: Backlog,
    /// Sales put back by the batch before, in arrival order: they come before whatever arrives now.
    put_back: Vec<Waiting>,
    pause: Duration,
    /// The next batch begins no sooner.
    next_begin: Instant,
}

impl Lane {
    pub(super) fn new(
        number: usize,
        connection: LaneConnection,
        catalog: Arc<CatalogCache>,
        committed: Arc<Notify>,
        queue: mpsc::Receiver<Waiting>,
    ) -> Self {
        Lane {
            number,
            connection,
            catalog,
            committed,
            queue,
            backlog: Backlog::default(),
            put_back: Vec::new(),
            pause: PUT_BACK_PAUSE,
            next_begin: Instant::now(),
        }
    }

    /// Runs until every handle is gone, or the lane is closing, and every sale is answered.
    pub(super) async fn run(mut self, closing: CancellationToken) {
        while let Some(batch) = self.gather(&closing).await {
            self.commit(batch).await;
        }
        tracing::debug!(lane = self.number, "lane closed");
    }

    /// The next batch of what was put back and what waits; None when nothing will ever come.
    async fn gather(&mut self, closing: &CancellationToken) -> Option<Vec<Waiting>> {
        let is_retry = !self.put_back.is_empty();
        self.backlog.put_back(std::mem::take(&mut self.put_back));
        let (mut batch, late) = self.backlog.take();
        late.into_iter().for_each(refuse_late);
        let has_received = self.drain(&mut batch);
        if batch.sales.is_empty() {
            let sale = next(&mut self.queue, closing).await?;
            self.offer(&mut batch, sale);
            self.drain(&mut batch);
        } else if is_retry && !has_received && !batch.has_fresh {
            // The lane must not spin; whoever comes meanwhile is taken along at once.
            let came = tokio::time::timeout(self.pause, next(&mut self.queue, closing)).await;
            match came {
                Ok(Some(sale)) => {
                    self.offer(&mut batch, sale);
                    self.drain(&mut batch);
                }
                Ok(None) => tokio::time::sleep(self.pause).await,
                Err(_) => {}
            }
        }
        self.keep_pace(&mut batch, closing).await;
        Some(batch.sales)
    }

    /// Takes along what comes until the batch may begin, or has no more room.
    async fn keep_pace(&mut self, batch: &mut Batch, closing: &CancellationToken) {
        while batch.has_room() {
            let rest = self.next_begin.saturating_duration_since(Instant::now());
            let Ok(Some(sale)) = tokio::time::timeout(rest, next(&mut self.queue, closing)).await else { break };
            self.offer(batch, sale);
            self.drain(batch);
        }
    }

    /// Reads the queue as long as the batch has room; whether there was anything.
    fn drain(&mut self, batch: &mut Batch) -> bool {
        let mut has_received = false;
        while batch.has_room() {
            let Ok(sale) = self.queue.try_recv() else { break };
            has_received = true;
            self.offer(batch, sale);
        }
        has_received
    }

    fn offer(&mut self, batch: &mut Batch, sale: Waiting) {
        if let Some(refused) = self.backlog.offer(batch, sale) {
            refuse_late(refused);
        }
    }

    /// Commits a batch, halving it as long as one of its sales spoils it; every sale is answered or put back.
    async fn commit(&mut self, batch: Vec<Waiting>) {
        self.pause = PUT_BACK_PAUSE;
        self.next_begin = Instant::now() + pace(batch.len());
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
            self.backlog.note(waiting.offer.sale.location_id(), matches!(verdict, Verdict::Busy));
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
            } else {
                refuse_late(waiting);
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

fn pace(sales: usize) -> Duration {
    PACE_MAX.min(PACE_PER_SALE * sales.saturating_sub(1) as u32)
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|database| database.is_unique_violation())
}

/// The next sale of the queue, which ends when nobody can send any more or the lane is closing.
async fn next(queue: &mut mpsc::Receiver<Waiting>, closing: &CancellationToken) -> Option<Waiting> {
    tokio::select! {
        biased;
        sale = queue.recv() => sale,
        () = closing.cancelled() => {
            queue.close();
            queue.recv().await
        }
    }
}

/// A sale that waited as long as it may, or whose location has too many waiting.
fn refuse_late(waiting: Waiting) {
    let (code, detail) = if waiting.may_be_stored {
        ("unavailable", "the outcome is not known: send it again")
    } else {
        ("overloaded", "another act holds this location")
    };
    send(waiting, Err(ApiError::unavailable(code, detail)));
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
