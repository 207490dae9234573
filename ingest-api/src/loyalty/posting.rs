//! Entries outside the lanes: one of an account under its lock, with the lots it changes and the record of it.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::events::LoyaltyPosted;
use schemas::ids::{AccountId, CustomerId, LocationId, ProgramId, UserId};
use schemas::money::storable;
use schemas::time::Timestamp;
use uuid::Uuid;

use super::lots::{LotDelta, sum};
use crate::db::loyalty::{self as db, AccountRow, NewEntry};
use crate::db::outbox::Act;
use crate::error::ApiError;

/// The same for every entry of one act.
pub struct Stamp<'a> {
    pub epoch: i64,
    /// None: an act of the company.
    pub location_id: Option<Uuid>,
    pub seq: i64,
    pub cause_type: &'static str,
    pub actor: UserId,
    pub at: DateTime<Utc>,
    /// Records are added to it.
    pub act: &'a mut Act,
}

/// A change of a lot, with the document or act that made the lot.
pub type Change = (Uuid, LotDelta);

/// Posts the next entry of a locked account: its delta is the sum of what it does to lots. 422 `overflow` where the
/// balance would leave the range that every store holds.
pub async fn post(
    tx: &mut PgTx,
    account: &mut AccountRow,
    (kind, cause_id): (&'static str, Uuid),
    changes: Vec<Change>,
    stamp: &mut Stamp<'_>,
) -> Result<(), ApiError> {
    let overflow = || ApiError::unprocessable("overflow", "the points of the account are out of range");
    let lots: Vec<LotDelta> = changes.iter().map(|(_, delta)| delta.clone()).collect();
    let delta = sum(&lots);
    account.points = account.points.checked_add(delta).filter(|it| storable(*it).is_ok()).ok_or_else(overflow)?;
    account.version += 1;
    let posted = record(account, (kind, cause_id), delta, &lots, stamp);
    stamp.act.push(&posted);
    let entry = NewEntry {
        account_id: account.account_id,
        version: account.version,
        location_id: stamp.location_id,
        location_seq: stamp.seq,
        program_id: account.program_id,
        kind,
        delta,
        points_after: account.points,
        lots,
        cause_type: stamp.cause_type,
        cause_id,
        actor: stamp.actor.0,
        effective_at: stamp.at,
    };
    db::insert_entries(tx, (stamp.epoch, stamp.at), &[entry]).await?;
    let changes: Vec<_> =
        changes.iter().map(|(origin, delta)| (AccountId(account.account_id), *origin, delta)).collect();
    db::change_lots(tx, &changes).await?;
    db::update_account(tx, account).await?;
    Ok(())
}

fn record(
    account: &AccountRow,
    (kind, cause_id): (&str, Uuid),
    delta: i64,
    lots: &[LotDelta],
    stamp: &Stamp<'_>,
) -> LoyaltyPosted {
    LoyaltyPosted {
        epoch: stamp.epoch,
        account_id: AccountId(account.account_id),
        customer_id: CustomerId(account.customer_id),
        program_id: ProgramId(account.program_id),
        location_id: stamp.location_id.map(LocationId),
        location_seq: stamp.seq,
        kind: kind.to_owned(),
        version: account.version,
        delta,
        points_after: account.points,
        tier_multiplier: "1".to_owned(),
        lots: lots.iter().map(Into::into).collect(),
        cause_type: stamp.cause_type.to_owned(),
        cause_id,
        cause_line: 0,
        actor: stamp.actor,
        approval_id: None,
        effective_at: Timestamp::from(stamp.at),
        recorded_at: Timestamp::from(stamp.at),
        resync: false,
    }
}
