//! Points past their date: written off by entries of the kind `expiry`, a few accounts in a transaction.

use chrono::{DateTime, Utc};
use runtime::pg::{PgTx, Writer};
use schemas::ids::{AccountId, COMPANY_STREAM, UserId};
use uuid::Uuid;

use super::lots;
use super::posting::{Stamp, post};
use crate::audit::{self, Entry};
use crate::context::Context;
use crate::customers::points::lock_company;
use crate::db::loyalty as db;
use crate::db::outbox::{self, Act};
use crate::error::ApiError;

/// Cause type and kind of the entries.
const EXPIRY: &str = "expiry";
/// Accounts of one transaction: sales to their members wait for it.
const AT_ONCE: usize = 50;

/// What a run wrote off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Expired {
    pub accounts: usize,
    pub points: i64,
}

/// Writes off what has expired by now, of at most so many accounts; how much it was. Again without effect.
pub async fn expire_points(writer: &Writer, accounts_max: i64) -> Result<Expired, ApiError> {
    let now = Utc::now();
    let due = db::with_expired_lots(writer.pool(), now, accounts_max).await?;
    let mut all = Expired::default();
    for some in due.chunks(AT_ONCE) {
        let some = some.to_vec();
        let expired = writer.write((some, now), |tx, (some, now)| Box::pin(expire(tx, some, *now))).await?;
        all.accounts += expired.accounts;
        all.points = all.points.saturating_add(expired.points);
    }
    Ok(all)
}

/// One act of the company. Lots are read under the locks: what was spent meanwhile does not expire.
async fn expire(tx: &mut PgTx, accounts: &[Uuid], now: DateTime<Utc>) -> Result<Expired, ApiError> {
    lock_company(tx).await?;
    let locked = db::lock(tx, accounts).await?;
    let mut lots_of = db::lots_of(&mut **tx, accounts).await?;
    let mut due = Vec::new();
    for account in locked {
        let mut held = lots_of.remove(&AccountId(account.account_id)).unwrap_or_default();
        let mut deltas = lots::expire(&held, now);
        if !deltas.is_empty() {
            lots::apply(&mut held, &deltas, Uuid::nil());
            // A debt was not paid by what was lost: it is by what is left.
            deltas.extend(lots::settle(&held, now));
            due.push((account, deltas));
        }
    }
    if due.is_empty() {
        return Ok(Expired::default());
    }
    let seq = outbox::lock_stream(tx, COMPANY_STREAM.0).await?;
    let (epoch, cause_id, mut expired) = (outbox::epoch(tx).await?, Uuid::now_v7(), Expired::default());
    let mut act = Act::new(COMPANY_STREAM.0, seq, EXPIRY, cause_id, "");
    let (actor, context) = (UserId::NIL, Context::of_task("expire-points"));
    let mut stamp = Stamp { epoch, location_id: None, seq, cause_type: EXPIRY, actor, at: now, act: &mut act };
    for (mut account, deltas) in due {
        expired.accounts += 1;
        expired.points = expired.points.saturating_sub(lots::sum(&deltas));
        // One entry of a kind for each cause and program: every account's is its own.
        let cause = Uuid::now_v7();
        let changes = deltas.into_iter().map(|delta| (cause, delta)).collect();
        post(tx, &mut account, (EXPIRY, cause), changes, &mut stamp).await?;
        let reason = cause.to_string();
        let entry = Entry::of_task("loyalty.expire", format!("member/{}", account.customer_id)).because(&reason);
        audit::record(tx, &context, entry).await?;
    }
    outbox::append(tx, &act, epoch, now).await?;
    Ok(expired)
}
