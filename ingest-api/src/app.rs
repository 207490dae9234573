//! What every handler shares, and how it is put together.

use std::sync::Arc;

use runtime::config::TrustedProxies;
use runtime::pg::{PgTx, Writer};
use sinks::store::Store;
use sqlx::PgPool;
use tokio::sync::{Notify, Semaphore};

use crate::auth::Auth;
use crate::browsers::Browsers;
use crate::budgets::Budgets;
use crate::catalog_cache::CatalogCache;
use crate::error::ApiError;
use crate::lanes::LaneHandle;
use crate::privacy::Vault;

/// Cheap to clone: handles only.
#[derive(Clone)]
pub struct AppState {
    /// Reads that no sale waits for.
    pub reads: PgPool,
    /// Reads that a sale waits for: who asks. Never lent to a handler that lists something.
    pub gate: PgPool,
    /// Reads for who has no token yet: they wait for no list, and no sale waits for them.
    pub door: PgPool,
    /// Units of work outside the lanes (catalog, users, stock acts), each in a task of its own.
    pub writer: Writer,
    /// The catalog sales are priced from; call `refresh` after a catalog write.
    pub catalog: Arc<CatalogCache>,
    /// One permit: bulk writes all want the catalog counter, and each may hold a connection for seconds.
    pub bulk: Arc<Semaphore>,
    /// The way of a sale into its transaction.
    pub lanes: LaneHandle,
    /// Notify it after a commit that appended to the outbox: the relay's wake-up in the same process.
    pub committed: Arc<Notify>,
    /// Tokens, passwords and cursors.
    pub auth: Arc<Auth>,
    /// Who may say on whose behalf a request comes.
    pub proxies: TrustedProxies,
    /// What browsers are told.
    pub browsers: Arc<Browsers>,
    /// How much each caller may ask for.
    pub budgets: Arc<Budgets>,
    /// ClickHouse for the KPI routes; none where it is not configured.
    pub reports: Option<Store>,
    /// The key store of personal data; none where it is not configured.
    pub vault: Option<Arc<Vault>>,
}

impl AppState {
    /// The key store, or 503.
    pub fn vault(&self) -> Result<Arc<Vault>, ApiError> {
        let absent = || ApiError::unavailable("unavailable", "this platform keeps no personal data");
        self.vault.clone().ok_or_else(absent)
    }

    /// A transaction that reads one state of everything and writes nothing.
    pub async fn snapshot(&self) -> Result<PgTx, sqlx::Error> {
        self.reads.begin_with("begin isolation level repeatable read read only").await
    }
}
