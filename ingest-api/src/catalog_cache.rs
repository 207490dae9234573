//! The catalog every sale is priced from, kept in memory and refreshed by catalog version.
//!
//! A local write calls [`CatalogCache::refresh`]; writes of other nodes are seen by polling. A sale never
//! relies on it being fresh: its lane compares the version under the lock and prices again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;

use crate::db;
use crate::pricing::snapshot::Snapshot;

/// How often other nodes' catalog writes are looked for.
pub const POLL_MS: u64 = 200;

/// Latest known [`Snapshot`]; cheap to read from any task.
pub struct CatalogCache {
    pool: PgPool,
    current: ArcSwap<Snapshot>,
    refreshing: Mutex<()>,
}

impl CatalogCache {
    /// Reads the whole catalog once.
    pub async fn load(pool: PgPool) -> Result<Arc<Self>, sqlx::Error> {
        let snapshot = db::snapshot::refreshed(&pool, &Snapshot::default()).await?.unwrap_or_default();
        Ok(Arc::new(CatalogCache { pool, current: ArcSwap::from_pointee(snapshot), refreshing: Mutex::new(()) }))
    }

    /// The picture in memory, possibly a moment old.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Brings the picture up to the committed catalog version and returns it.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, sqlx::Error> {
        let _one_at_a_time = self.refreshing.lock().await;
        let known = self.current.load_full();
        if let Some(next) = db::snapshot::refreshed(&self.pool, &known).await? {
            self.current.store(Arc::new(next));
        }
        Ok(self.current.load_full())
    }

    /// The same through a connection that is under way: whoever holds locks must not wait for another connection, which those
    /// who wait for the locks may hold.
    pub async fn refresh_on(&self, conn: &mut PgConnection) -> Result<Arc<Snapshot>, sqlx::Error> {
        let known = self.current.load_full();
        let next = Arc::new(db::snapshot::refreshed_on(conn, &known).await?);
        self.current.rcu(|current| {
            let is_newer = (next.epoch, next.version) > (current.epoch, current.version);
            if is_newer { Arc::clone(&next) } else { Arc::clone(current) }
        });
        Ok(next)
    }

    /// Polls for ever; run it in a task of its own that ends with the process.
    pub async fn poll(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = %error, "the catalog could not be refreshed; sales go on with the known one");
            }
        }
    }
}
