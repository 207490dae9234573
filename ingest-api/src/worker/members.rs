//! What has to be finished about members: erasures whose last step failed or that a restore undid, points that came to a
//! member after it was merged, and points past their date.

use std::sync::Arc;
use std::time::Duration;

use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::pg::Writer;

use crate::customers::{erasure, points};
use crate::error::ApiError;
use crate::loyalty::expiry::expire_points;
use crate::privacy::Vault;

const PAUSE: Duration = Duration::from_secs(60);
const AT_ONCE: i64 = 500;

/// Does all of it now and every minute until `stop`. A failure is reported and tried again.
pub async fn run(writer: Writer, vault: Option<Arc<Vault>>, stop: Shutdown, health: Health) {
    loop {
        match once(&writer, vault.as_ref()).await {
            Ok(()) => health.detail("members", "done"),
            Err(error) => {
                tracing::warn!(%error, "members were not brought up to date, it is tried again");
                health.detail("members", format!("failed: {}", error.detail));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn once(writer: &Writer, vault: Option<&Arc<Vault>>) -> Result<(), ApiError> {
    let moved = points::follow_merges(writer, AT_ONCE).await?;
    if moved > 0 {
        tracing::info!(members = moved, "points followed their members into the ones they were merged into");
    }
    let expired = expire_points(writer, AT_ONCE).await?;
    if expired.accounts > 0 {
        tracing::info!(accounts = expired.accounts, points = expired.points, "points past their date were written off");
    }
    let Some(vault) = vault else { return Ok(()) };
    let finished = erasure::forget_pending(writer, vault, AT_ONCE).await?;
    let repeated = erasure::repeat_after_restore(writer, vault, AT_ONCE).await?;
    if finished + repeated > 0 {
        tracing::info!(finished, repeated, "erasures were finished, or repeated after a restore");
    }
    Ok(())
}
