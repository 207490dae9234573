//! Wrong secrets of API clients and wrong signatures of terminals. Nobody can guess a right one, so nobody is kept out for
//! a wrong one; they are counted by where they come from, so that nobody fills the audit log.

use chrono::{DateTime, Utc};

use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::attempts::{self, Attempt, Locked, Target};
use crate::context::Context;
use crate::error::ApiError;

/// Counts a refusal and writes it down, when it was of somebody known. `Some(Locked)` when so many came from there within
/// half an hour that nothing is written any more. Whether somebody is known makes a row of difference, and no other.
pub async fn count(
    app: &AppState,
    context: Context,
    known: Option<Entry<'static>>,
    now: DateTime<Utc>,
) -> Result<Option<Locked>, ApiError> {
    let targets: Vec<Target> = Target::keys(&context.address).into_iter().collect();
    if let Some(locked) = attempts::find_lock(&app.door, &targets, now).await? {
        return Ok(Some(locked));
    }
    app.writer
        .write((targets, context, known), move |tx, (targets, context, known)| {
            Box::pin(async move {
                let attempt = match Attempt::begin(tx, targets.clone(), now).await? {
                    Ok(attempt) => attempt,
                    Err(locked) => return Ok(Some(locked)),
                };
                attempt.failed(tx).await?;
                if let Some(entry) = known {
                    audit::record(tx, context, entry.clone().refused()).await?;
                }
                Ok::<_, ApiError>(None)
            })
        })
        .await
}
