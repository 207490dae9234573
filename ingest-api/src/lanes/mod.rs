//! Commit lanes: sales wait in a bounded queue per lane, and each lane commits whatever gathered while its
//! previous commit ran, as one transaction, on a connection of its own and off every handler's task.
//!
//! A location always goes to the same lane of a process; other processes may serve it too, since everything
//! is locked and read again in each batch.

mod backlog;
mod batch;
mod connection;
mod lane;

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::ids::LocationId;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::connection::LaneConnection;
use crate::catalog_cache::CatalogCache;
use crate::db::sales::Origin;
use crate::error::ApiError;
use crate::sales::price::Offered;
use crate::sales::types::ValidSale;

/// Most sales of one transaction.
pub const BATCH_MAX: usize = 256;
/// Lines of one transaction, unless its one sale has more: what fits well into the lane's statement limit.
pub const BATCH_LINES_MAX: usize = 4_000;
/// Sales that may wait in one lane; more are refused with 503.
pub const QUEUE_MAX: usize = 1_024;
/// How long a sale may wait for a location that somebody else holds, or for its COMMIT to become known.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long Postgres may take for one statement of a batch.
pub const STATEMENT_MAX: Duration = Duration::from_secs(2);

/// How lanes are started.
#[derive(Debug, Clone)]
pub struct LanesConfig {
    pub lanes: usize,
    pub queue_max: usize,
    pub wait_max: Duration,
    pub statement_max: Duration,
}

impl Default for LanesConfig {
    fn default() -> Self {
        LanesConfig { lanes: 2, queue_max: QUEUE_MAX, wait_max: WAIT_MAX, statement_max: STATEMENT_MAX }
    }
}

/// What a committed sale is answered with; both carry the stored body.
#[derive(Debug, Clone)]
pub enum Answer {
    Created(Arc<str>),
    /// The same document was stored before.
    Replayed(Arc<str>),
}

/// A sale on its way into a lane.
#[derive(Debug)]
pub struct Offer {
    pub sale: ValidSale,
    /// Idempotency-Key of the request.
    pub key: String,
    pub origin: Origin,
    /// Catalog version and epoch it was priced from.
    pub priced_at: (i64, i64),
    pub offered: Offered,
}

/// A sale in its lane.
pub(crate) struct Waiting {
    pub offer: Offer,
    pub answer: oneshot::Sender<Result<Answer, ApiError>>,
    pub deadline: Instant,
    /// A COMMIT with it ended unknown: when it is found stored, that was this very request.
    pub may_be_stored: bool,
}

/// Sends sales into their lanes. Cheap to clone; the lanes end when every handle is gone, or one has closed them.
#[derive(Clone)]
pub struct LaneHandle {
    queues: Arc<[mpsc::Sender<Waiting>]>,
    wait_max: Duration,
    closing: CancellationToken,
}

impl LaneHandle {
    /// Starts the lanes as tasks. `committed` is notified after each COMMIT that wrote something: the
    /// relay's wake-up when it lives in the same process.
    pub fn start(
        options: PgConnectOptions,
        catalog: Arc<CatalogCache>,
        committed: Arc<Notify>,
        config: &LanesConfig,
        tasks: &tokio_util::task::TaskTracker,
    ) -> Self {
        let closing = CancellationToken::new();
        let queues = (0..config.lanes.max(1))
            .map(|number| {
                let (sender, receiver) = mpsc::channel(config.queue_max);
                let connection = LaneConnection::new(options.clone(), config.statement_max);
                let lane = lane::Lane::new(number, connection, catalog.clone(), committed.clone(), receiver);
                tasks.spawn(lane.run(closing.clone()));
                sender
            })
            .collect();
        LaneHandle { queues, wait_max: config.wait_max, closing }
    }

    /// Takes no more sales, whoever still holds a handle. What is in the lanes is answered, then they end.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Puts the sale into its lane and waits for its answer. A caller that goes away loses the answer only.
    pub async fn commit(&self, offer: Offer) -> Result<Answer, ApiError> {
        let (answer, answered) = oneshot::channel();
        let queue = &self.queues[lane_of(offer.sale.location_id(), self.queues.len())];
        let deadline = Instant::now() + self.wait_max;
        let waiting = Waiting { offer, answer, deadline, may_be_stored: false };
        queue.try_send(waiting).map_err(|refused| match refused {
            TrySendError::Full(_) => ApiError::unavailable("overloaded", "too many sales are waiting"),
            TrySendError::Closed(_) => ApiError::unavailable("unavailable", "the server is stopping"),
        })?;
        answered.await.unwrap_or_else(|_| Err(ApiError::unavailable("unavailable", "the server is stopping")))
    }
}

fn lane_of(location: LocationId, lanes: usize) -> usize {
    let (high, low) = location.0.as_u64_pair();
    // Both halves: identifiers made in one go differ in a few bits only.
    let mixed = (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % lanes
}
