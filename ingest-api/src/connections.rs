//! The door of the public API: how many clients may be connected at a time, and how long one may take to say what it
//! wants.
//!
//! A client that is slow to send holds its connection and nothing that another one needs to sell: no place in a lane and
//! no connection to Postgres is kept while its body arrives, which `extract.rs` gives a time. (Only the turn of a bulk
//! write comes before its body, so that large bodies never stand in memory side by side.)

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use runtime::config::{ConfigError, TrustedProxies};
use runtime::lifecycle::Shutdown;
use runtime::names;
use tokio::io::{AsyncRead, ReadBuf, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::context;
use crate::error::ApiError;

/// From the first byte of a request's head to its last; for the first request of a connection, from its beginning.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Between two requests. Load balancers keep a connection for a minute: it is theirs to close, never ours under a
/// request that is on its way.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// Of one head, and what is read ahead of a body. A longer head, and one of more than hyper's hundred headers, is 431
/// without a body; `context.rs` refuses far shorter ones with a problem.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Clients beyond the limit that are being told so; whoever comes beyond these is hung up on.
const TURNED_AWAY_MAX: usize = 64;
/// Files that the process opens besides its clients' connections.
const OTHER_FILES: u64 = 256;

/// Sees to it that the process may hold that many connections open. An error names the variable to change.
pub fn make_room(connections_max: NonZeroU32) -> anyhow::Result<()> {
    let needed = u64::from(connections_max.get()) + OTHER_FILES;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        let text = format!("VORCA__HTTP__CONNECTIONS_MAX is not usable: this process may open {hard} files at most");
        return Err(ConfigError::new(text).into());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard).context("raising the limit of open files")
}

/// Answers requests until `stop`, from at most `connections_max` connections at a time; one more is answered 503 and
/// closed. Then returns when every client has its answer and is gone.
pub async fn serve(mut listener: TcpListener, router: Router, connections_max: NonZeroU32, stop: &Shutdown) {
    let full = || async { ApiError::unavailable("overloaded", "too many connections are open") };
    let full = Router::new().fallback(full).layer(from_fn_with_state(TrustedProxies::default(), context::stamp));
    let open = Door::new(router, connections_max.get() as usize, true);
    let turning_away = Door::new(full, TURNED_AWAY_MAX, false);
    let guests = TaskTracker::new();
    loop {
        // axum's `accept` goes on after an error, and slowly when there are no files left.
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = Listener::accept(&mut listener) => accepted,
        };
        let guest = match open.admit() {
            Some(guest) => Some(guest),
            None => {
                metrics::counter!(names::HTTP_CONNECTIONS_REFUSED).increment(1);
                turning_away.admit()
            }
        };
        if let Some(guest) = guest {
            guests.spawn(guest.answer(stream, peer, stop.clone()));
        }
    }
    drop(listener);
    guests.close();
    guests.wait().await;
}

/// What stands behind the connections, and how many may come in.
struct Door {
    router: Router,
    places: Arc<Semaphore>,
    keeps_alive: bool,
}

/// A connection's right to be answered; its place is free again when this is gone.
struct Guest {
    router: Router,
    keeps_alive: bool,
    _place: OwnedSemaphorePermit,
}

impl Door {
    fn new(router: Router, places: usize, keeps_alive: bool) -> Self {
        Door { router, places: Arc::new(Semaphore::new(places)), keeps_alive }
    }

    fn admit(&self) -> Option<Guest> {
        let _place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Guest { router: self.router.clone(), keeps_alive: self.keeps_alive, _place })
    }
}

impl Guest {
    /// Answers what comes over the connection, until either side has enough of it.
    async fn answer(self, stream: TcpStream, peer: SocketAddr, stop: Shutdown) {
        metrics::gauge!(names::HTTP_CONNECTIONS).increment(1.0);
        let turns = Turns::default();
        let (read, write) = stream.into_split();
        let heads = Heads::new(read, turns.clone());
        let router = self.router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (turn, router) = (turns.begin(), router.clone());
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                let answer: Result<Response, Infallible> = router.oneshot(request).await;
                drop(turn);
                answer
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .keep_alive(self.keeps_alive)
            .serve_connection(TokioIo::new(join(heads, write)), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke off");
        }
        metrics::gauge!(names::HTTP_CONNECTIONS).decrement(1.0);
    }
}

/// Beginnings and ends of answers on one connection: odd while one is being made.
#[derive(Clone, Default)]
struct Turns(Arc<AtomicU64>);

struct Turn(Turns);

impl Turns {
    fn begin(&self) -> Turn {
        self.0.fetch_add(1, Ordering::AcqRel);
        Turn(self.clone())
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// What a client sends; fails when a head that has begun is not whole after [`HEAD_MAX`]. hyper's own limit counts
/// from the end of the answer before, so it cannot be shorter than a client may be idle.
struct Heads<R> {
    io: R,
    turns: Turns,
    begun: Option<Head>,
}

/// A head that is on its way: before which turn, and until when.
struct Head {
    turn: u64,
    limit: Pin<Box<Sleep>>,
}

impl Head {
    fn begun(turn: u64) -> Self {
        Head { turn, limit: Box::pin(sleep(HEAD_MAX)) }
    }
}

impl<R> Heads<R> {
    fn new(io: R, turns: Turns) -> Self {
        let begun = Some(Head::begun(turns.now()));
        Heads { io, turns, begun }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Heads<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (turn, before) = (self.turns.now(), buf.filled().len());
        // Its answer has begun since: it was whole in time.
        self.begun.take_if(|head| head.turn != turn);
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before && turn.is_multiple_of(2) {
            self.begun.get_or_insert_with(|| Head::begun(turn));
        }
        let is_late = |head: &mut Head| head.limit.as_mut().poll(cx).is_ready();
        if read.is_pending() && self.begun.as_mut().is_some_and(is_late) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}
