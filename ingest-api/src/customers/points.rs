//! Points that go from one member to another: a pair of entries for each program, lots with the age they had.

use chrono::{DateTime, Utc};
use runtime::pg::{PgTx, Writer};
use schemas::events::{LotChange, LoyaltyPosted};
use schemas::ids::{AccountId, COMPANY_STREAM, CustomerId, ProgramId, UserId, derived_id};
use schemas::money::storable;
use schemas::time::Timestamp;
use uuid::Uuid;

use crate::audit::{self, Entry};
use crate::context::Context;
use crate::db::loyalty::{self as db, AccountRow, LotRow};
use crate::db::outbox::{self, Act};
use crate::db::profiles;
use crate::error::ApiError;

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

/// Where it stands and when it happens: the same for every entry of one act.
struct Stamp<'a> {
    cause_id: Uuid,
    epoch: i64,
    seq: i64,
    actor: UserId,
    at: DateTime<Utc>,
    act: &'a mut Act,
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
    let mut pairs = Vec::new();
    for out in accounts.iter().filter(|account| account.customer_id == from) {
        let lots = db::open_lots(tx, out.account_id).await?;
        if out.points == 0 && lots.is_empty() {
            continue;
        }
        let same = |account: &&AccountRow| account.customer_id == to && account.program_id == out.program_id;
        let into = accounts.iter().find(same).ok_or_else(|| {
            ApiError::conflict("illegal_transition", "the survivor has no account in a program of the other member")
        })?;
        pairs.push((out, into, lots));
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    let seq = outbox::lock_stream(tx, COMPANY_STREAM.0).await?;
    let (epoch, at, cause_id) = (outbox::epoch(tx).await?, Utc::now(), Uuid::now_v7());
    let mut act = Act::new(COMPANY_STREAM.0, seq, CAUSE, cause_id, trace_parent);
    let mut points = 0i64;
    for (out, into, lots) in pairs {
        let mut stamp = Stamp { cause_id, epoch, seq, actor, at, act: &mut act };
        move_account(tx, out, into, lots, &mut stamp).await?;
        points = points.saturating_add(out.points);
    }
    Ok(Some(Moved { act, epoch, at, points }))
}

async fn move_account(
    tx: &mut PgTx,
    out: &AccountRow,
    into: &AccountRow,
    lots: Vec<LotRow>,
    stamp: &mut Stamp<'_>,
) -> Result<(), ApiError> {
    let overflow = || ApiError::unprocessable("overflow", "the points of both together are out of range");
    let after = into.points.checked_add(out.points).filter(|points| storable(*points).is_ok()).ok_or_else(overflow)?;
    let lots: Vec<(LotRow, LotRow)> = lots
        .into_iter()
        .map(|lot| {
            let lot_id = derived_id("lot", &format!("{}:{}", stamp.cause_id, lot.lot_id));
            let moved = LotRow { lot_id, account_id: into.account_id, ..lot.clone() };
            (lot, moved)
        })
        .collect();
    let taken = lots.iter().map(|(lot, _)| change(lot, -lot.remaining)).collect();
    let given = lots.iter().map(|(_, lot)| change(lot, lot.remaining)).collect();
    post(tx, out, OUT, -out.points, 0, taken, stamp).await?;
    post(tx, into, IN, out.points, after, given, stamp).await?;
    db::use_up_lots(tx, out.account_id).await?;
    for (_, lot) in &lots {
        db::insert_lot(tx, lot).await?;
    }
    Ok(())
}

fn change(lot: &LotRow, delta: i64) -> LotChange {
    LotChange {
        lot_id: lot.lot_id,
        delta,
        earned_at: lot.earned_at.into(),
        available_at: lot.available_at.into(),
        expires_at: lot.expires_at.map(Into::into),
    }
}

async fn post(
    tx: &mut PgTx,
    account: &AccountRow,
    kind: &str,
    delta: i64,
    points_after: i64,
    lots: Vec<LotChange>,
    stamp: &mut Stamp<'_>,
) -> Result<(), ApiError> {
    let at = Timestamp::from(stamp.at);
    let entry = LoyaltyPosted {
        epoch: stamp.epoch,
        account_id: AccountId(account.account_id),
        customer_id: CustomerId(account.customer_id),
        program_id: ProgramId(account.program_id),
        location_id: None,
        location_seq: stamp.seq,
        kind: kind.to_owned(),
        version: account.version + 1,
        delta,
        points_after,
        tier_multiplier: "1".to_owned(),
        lots,
        cause_type: CAUSE.to_owned(),
        cause_id: stamp.cause_id,
        cause_line: 0,
        actor: stamp.actor,
        approval_id: None,
        effective_at: at,
        recorded_at: at,
        resync: false,
    };
    db::post(tx, &entry, stamp.at).await?;
    stamp.act.push(&entry);
    Ok(())
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
