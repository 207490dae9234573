//! The `serve` role: the public API. It needs Postgres and nothing else; what else is away shows as detail.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use runtime::config::{Auth as AuthConfig, ClickHouse, Http, Postgres};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::pg::{Limits, Writer, ping, pool_watched};
use secrecy::ExposeSecret;
use sinks::store::Store;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;

use crate::app::AppState;
use crate::auth::Auth;
use crate::catalog_cache::CatalogCache;
use crate::lanes::{LaneHandle, LanesConfig};
use crate::{migrate, router};

const WAIT_FOR_POSTGRES: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_millis(500);
/// Connections of each purpose, so that none starves another; lanes hold one each besides.
const READS: u32 = 8;
const WRITES: u32 = 6;

/// Serves until `stop`, then finishes what is in flight. `committed` is notified after every commit that appended
/// to the outbox.
pub async fn run(
    postgres: &Postgres,
    http: &Http,
    auth: &AuthConfig,
    clickhouse: Option<&ClickHouse>,
    committed: Arc<Notify>,
    stop: Shutdown,
    health: Health,
) -> anyhow::Result<()> {
    health.set("postgres", false, "starting");
    let reads = pool_watched(postgres, "reads", READS, &Limits::default(), &stop)?;
    let writes = pool_watched(postgres, "writes", WRITES, &Limits::default(), &stop)?;
    ping(&reads, WAIT_FOR_POSTGRES).await?;
    migrate::is_current(&reads).await.map_err(anyhow::Error::msg)?;
    let catalog = CatalogCache::load(reads.clone()).await.context("reading the catalog")?;
    let options: PgConnectOptions = postgres.url.expose_secret().parse().context("VORCA__POSTGRES__URL")?;
    let lanes = LaneHandle::start(options, catalog.clone(), committed.clone(), &LanesConfig::default(), stop.tasks());
    let polling = tokio::spawn(catalog.clone().poll());
    let probing = tokio::spawn(probe(reads.clone(), health.clone()));
    let app = AppState {
        reads,
        writer: Writer::new(writes, &stop),
        catalog,
        lanes,
        committed,
        auth: Auth::new(auth)?,
        reports: clickhouse.map(Store::of),
    };
    let listener = tokio::net::TcpListener::bind(http.listen)
        .await
        .with_context(|| format!("VORCA__HTTP__LISTEN: cannot listen on {}", http.listen))?;
    health.started();
    tracing::info!(address = %http.listen, "serving");
    let service = router::router(app).into_make_service_with_connect_info::<std::net::SocketAddr>();
    let leaving = stop.clone();
    let served = axum::serve(listener, service).with_graceful_shutdown(async move { leaving.cancelled().await }).await;
    polling.abort();
    probing.abort();
    served.context("the HTTP server ended")
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
