//! Every route: path, handler, permission.

use axum::Router;

use crate::app::AppState;

/// The public API below `/api/v1`.
pub fn router(app: AppState) -> Router {
    Router::new().with_state(app)
}
