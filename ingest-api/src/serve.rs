//! The `serve` role: the public API. It needs Postgres and nothing else; what else is away shows as detail.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use runtime::config::{Auth as AuthConfig, ClickHouse, Http, Postgres, Privacy, Quotas, Redis};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::pg::{Limits, Writer, ping, pool_watched};
use secrecy::ExposeSecret;
use sinks::store::Store;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use crate::app::AppState;
use crate::auth::{Auth, keys};
use crate::browsers::Browsers;
use crate::budgets::Budgets;
use crate::catalog_cache::CatalogCache;
use crate::lanes::{LaneHandle, LanesConfig};
use crate::privacy::Vault;
use crate::{connections, migrate, router};

const WAIT_FOR_POSTGRES: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_millis(500);
/// Connections of each purpose, so that none starves another; lanes hold one each besides. Selling needs the gate and
/// the lanes only.
const GATE: u32 = 4;
const DOOR: u32 = 2;
const READS: u32 = 8;
const WRITES: u32 = 6;
const VAULT: u32 = 4;

/// After `stop`, requests that are being handled have this long.
const ANSWERS_MAX: Duration = Duration::from_secs(15);
/// Then the last answers have this long to leave.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// Longest time from `stop` to the end of [`run`].
pub const STOP_MAX: Duration = Duration::from_secs(16);

/// What some routes need and selling does not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras<'a> {
    /// Where it is not configured the routes that need it answer 503.
    pub clickhouse: Option<&'a ClickHouse>,
    /// The same.
    pub privacy: Option<&'a Privacy>,
    pub budgets: Quotas,
    /// Where several processes share their budgets.
    pub redis: Option<&'a Redis>,
}

/// Serves until `stop`, then finishes what is in flight; a connection that has not sent a whole request by then is not
/// waited for. Wrong configuration is an error before anything is connected. `committed` is notified after every commit
/// that appended to the outbox.
pub async fn run(
    postgres: &Postgres,
    http: &Http,
    auth: &AuthConfig,
    extras: Extras<'_>,
    committed: Arc<Notify>,
    stop: Shutdown,
    health: Health,
) -> anyhow::Result<()> {
    let auth = Auth::new(auth)?;
    let vault = extras.privacy.map(|privacy| open_vault(privacy, &stop)).transpose()?;
    connections::make_room(http.connections_max)?;
    let budgets = Budgets::new(&extras.budgets, extras.redis.map(runtime::redis::connect).transpose()?);
    health.set("postgres", false, "starting");
    let gate = pool_watched(postgres, "gate", GATE, &Limits::default(), &stop)?;
    let door = pool_watched(postgres, "door", DOOR, &Limits::default(), &stop)?;
    let reads = pool_watched(postgres, "reads", READS, &Limits::default(), &stop)?;
    let writes = pool_watched(postgres, "writes", WRITES, &Limits::default(), &stop)?;
    ping(&gate, WAIT_FOR_POSTGRES).await?;
    migrate::is_current(&gate).await.map_err(anyhow::Error::msg)?;
    let is_same = async {
        keys::read(&auth, &gate).await?;
        keys::require_root(&auth, &gate).await
    };
    is_same.await.context("VORCA__AUTH__SIGNING_KEY is not the key that this database was begun with")?;
    let catalog = CatalogCache::load(gate.clone()).await.context("reading the catalog")?;
    let options: PgConnectOptions = postgres.url.expose_secret().parse().context("VORCA__POSTGRES__URL")?;
    let lanes = LaneHandle::start(options, catalog.clone(), committed.clone(), &LanesConfig::default(), stop.tasks());
    let polling = tokio::spawn(catalog.clone().poll());
    let probing = tokio::spawn(probe(gate.clone(), health.clone()));
    let following = tokio::spawn(keys::follow(Arc::clone(&auth), gate.clone()));
    let sharing = tokio::spawn(Arc::clone(&budgets).follow());
    let app = AppState {
        reads,
        gate,
        door,
        writer: Writer::new(writes, &stop),
        catalog,
        lanes: lanes.clone(),
        committed,
        auth,
        bulk: Arc::new(Semaphore::new(1)),
        proxies: http.trusted_proxies.clone(),
        browsers: Browsers::of(http),
        budgets,
        reports: extras.clickhouse.map(Store::of),
        vault,
    };
    let listener = TcpListener::bind(http.listen)
        .await
        .with_context(|| format!("VORCA__HTTP__LISTEN: cannot listen on {}", http.listen))?;
    health.started();
    tracing::info!(address = %http.listen, "serving");
    serve(listener, router::router(app), http, &stop).await;
    polling.abort();
    following.abort();
    sharing.abort();
    probing.abort();
    lanes.close();
    Ok(())
}

/// The key store of personal data, with connections of its own.
pub fn open_vault(privacy: &Privacy, stop: &Shutdown) -> anyhow::Result<Arc<Vault>> {
    let database = Postgres { url: privacy.vault_url.clone() };
    Ok(Arc::new(Vault::new(privacy, pool_watched(&database, "vault", VAULT, &Limits::default(), stop)?)?))
}

/// Answers requests until `stop` and for as long after it as they need, within [`STOP_MAX`].
async fn serve(listener: TcpListener, router: Router, http: &Http, stop: &Shutdown) {
    let requests = TaskTracker::new();
    let router = router.layer(from_fn_with_state(requests.clone(), hold));
    let serving = connections::serve(listener, router, http.connections_max, stop);
    let answered = async {
        stop.cancelled().await;
        requests.close();
        let is_done = tokio::time::timeout(ANSWERS_MAX, requests.wait()).await.is_ok();
        tokio::time::sleep(LEAVE_MAX).await;
        is_done
    };
    tokio::select! {
        () = serving => {}
        is_done = answered => {
            tracing::warn!(is_done, "stopped with connections open that no whole request came over");
        }
    }
}

/// Counts the request until it is answered.
async fn hold(State(requests): State<TaskTracker>, request: Request, next: Next) -> Response {
    let _counted = requests.token();
    next.run(request).await
}

/// Keeps readiness true to Postgres and its migrations, and to nothing else.
async fn probe(pool: PgPool, health: Health) {
    loop {
        match migrate::is_current(&pool).await {
            Ok(()) => health.set("postgres", true, "migrated"),
            Err(why) => health.set("postgres", false, why),
        }
        tokio::time::sleep(PROBE).await;
    }
}
