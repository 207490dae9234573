//! Points that go from one member to another: a pair of entries for each program, lots with the age they had.

use chrono::{DateTime, Utc};
use runtime::pg::{PgTx, Writer};
use schemas::ids::{AccountId, COMPANY_STREAM, LotId, UserId, derived_id};
use uuid::Uuid;

use crate::audit::{self, Entry};
use crate::context::Context;
use crate::db::loyalty::{self as db, AccountRow};
use crate::db::outbox::{self, Act};
use crate::db::profiles;
use crate::error::ApiError;
use crate::loyalty::lots::{self, Lot, LotDelta};
use crate::loyalty::posting::{Change, Stamp, post};

/// Cause type of the pair; the kinds of its entries.
const CAUSE: &str = "merge";
const OUT: &str = "merge_out";
const IN: &str = "merge_in";

/// What has to be appended to the outbox, last.
pub struct Moved {
    pub act: Act,
    pub epoch: i64,
    pub at: DateTime<Utc>,
    /// Signed: a debt moves too.
    pub points: i64,
}

/// The first lock of an act of the company.
pub async fn lock_company(tx: &mut PgTx) -> Result<(), sqlx::Error> {
    sqlx::query("select 1 from streams where stream_id = $1 for no key update")
        .bind(COMPANY_STREAM.0)
        .execute(&mut **tx)
        .await
        .map(drop)
}

/// Moves all points and open lots of one member to another; none when there is nothing to move. The company and the
/// members are locked, in this order; the accounts are locked here.
pub async fn transfer(
    tx: &mut PgTx,
    from: Uuid,
    to: Uuid,
    actor: UserId,
    trace_parent: &str,
) -> Result<Option<Moved>, ApiError> {
    let accounts = db::lock_accounts(tx, &[from, to]).await?;
    let ids: Vec<Uuid> = accounts.iter().map(|account| account.account_id).collect();
    let mut held = db::lots_of(&mut **tx, &ids).await?;
    let mut lots_of = |account: &AccountRow| held.remove(&AccountId(account.account_id)).unwrap_or_default();
    let mut pairs = Vec::new();
    for out in accounts.iter().filter(|account| account.customer_id == from) {
        let lots = lots_of(out);
        if out.points == 0 && lots.is_empty() {
            continue;
        }
        let same = |account: &&AccountRow| account.customer_id == to && account.program_id == out.program_id;
        let into = accounts.iter().find(same).ok_or_else(|| {
            ApiError::conflict("illegal_transition", "the survivor has no account in a program of the other member")
        })?;
        pairs.push((out.clone(), into.clone(), lots, lots_of(into)));
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    let seq = outbox::lock_stream(tx, COMPANY_STREAM.0).await?;
    let (epoch, at, cause_id) = (outbox::epoch(tx).await?, Utc::now(), Uuid::now_v7());
    let mut act = Act::new(COMPANY_STREAM.0, seq, CAUSE, cause_id, trace_parent);
    let mut stamp = Stamp { epoch, location_id: None, seq, cause_type: CAUSE, actor, at, act: &mut act };
    let mut points = 0i64;
    for (mut out, mut into, lots, beside) in pairs {
        points = points.saturating_add(out.points);
        let (taken, given) = moved(cause_id, lots, beside, at);
        post(tx, &mut out, (OUT, cause_id), taken, &mut stamp).await?;
        post(tx, &mut into, (IN, cause_id), given, &mut stamp).await?;
    }
    Ok(Some(Moved { act, epoch, at, points }))
}

/// What goes out of an account and into another that holds `beside`: lots keep their dates and the document that made
/// them. A debt on either side is paid at once.
fn moved(act: Uuid, lots: Vec<Lot>, mut beside: Vec<Lot>, at: DateTime<Utc>) -> (Vec<Change>, Vec<Change>) {
    let change = |lot: &Lot, delta| LotDelta { delta, ..LotDelta::from(lot) };
    let (mut taken, mut given) = (Vec::new(), Vec::new());
    for lot in lots {
        let lot_id = LotId(derived_id("lot", &format!("{act}:{}", lot.lot_id)));
        taken.push((lot.cause_id, change(&lot, -lot.remaining)));
        let lot = Lot { lot_id, ..lot };
        given.push((lot.cause_id, change(&lot, lot.remaining)));
        beside.push(lot);
    }
    given.extend(lots::settle(&beside, at).into_iter().map(|delta| (act, delta)));
    (taken, given)
}

/// Moves on what tills sold to a member after it was merged: an old card, a till that was offline. Returns how many
/// members had points.
pub async fn follow_merges(writer: &Writer, limit: i64) -> Result<usize, ApiError> {
    let merged = profiles::merged_with_points(writer.pool(), limit).await?;
    for (from, to) in &merged {
        writer.write((*from, *to), |tx, (from, to)| Box::pin(follow(tx, *from, *to))).await?;
    }
    Ok(merged.len())
}

async fn follow(tx: &mut PgTx, from: Uuid, to: Uuid) -> Result<(), ApiError> {
    lock_company(tx).await?;
    if let Some(moved) = transfer(tx, from, to, UserId::NIL, "").await? {
        let cause = moved.act.cause_id.to_string();
        let entry = Entry::of_task("member.points", format!("member/{to} member/{from}")).because(&cause);
        audit::record(tx, &Context::of_task("follow-merges"), entry).await?;
        outbox::append(tx, &moved.act, moved.epoch, moved.at).await?;
    }
    Ok(())
}
