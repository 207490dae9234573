//! What every handler shares, and how it is put together.

use std::sync::Arc;

use sqlx::PgPool;

use crate::catalog_cache::CatalogCache;

/// Cheap to clone: handles only.
#[derive(Clone)]
pub struct AppState {
    /// Reads that no sale waits for.
    pub reads: PgPool,
    /// Units of work outside the lanes (catalog, users, stock acts).
    pub writes: PgPool,
    pub catalog: Arc<CatalogCache>,
}
