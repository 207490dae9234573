//! Pure, rule T6: what a return does to the points of the member who bought the goods. What the sale gave is taken back,
//! path-independent; what it was paid with comes back to the lots it came from.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::events::DocumentLine;
use schemas::ids::{AccountId, DocumentId, LotId, ProgramId, derived_id};
use uuid::Uuid;

use super::origin::{Origin, Origins};
use crate::loyalty::accrual::{EarnRule, earn};
use crate::loyalty::lots::{self, DebtLot, Lot, LotDelta};

pub const CLAW_BACK: &str = "claw_back";
pub const REDEMPTION_RETURN: &str = "redemption_return";
pub const ACCRUAL: &str = "accrual";

/// A locked account with the lots that are not used up.
#[derive(Debug, Clone)]
pub struct Account {
    pub account_id: AccountId,
    pub program_id: ProgramId,
    pub points: i64,
    pub version: i64,
    pub rule: EarnRule,
    pub expires_after_days: Option<i32>,
    pub pending_days: Option<i32>,
    pub lots: Vec<Lot>,
}

/// One entry of an account; versions follow each other in the order of the entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    pub account_id: AccountId,
    pub program_id: ProgramId,
    pub kind: &'static str,
    pub version: i64,
    pub delta: i64,
    pub points_after: i64,
    pub lots: Vec<LotDelta>,
    /// Document that new lots of the entry are made by.
    pub cause_id: Uuid,
}

/// Who earns how much for what goes, and when.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub document_id: DocumentId,
    pub occurred_at: DateTime<Utc>,
    /// Net of the goods that go.
    pub base_minor: i64,
}

/// Points that one return of `now` takes back of what a document gave, after returns of `before`, all net. By the
/// program's rule; where that is not the rule by which the points were given, in proportion, which no order or splitting
/// changes either.
pub fn taken_back(given: i64, base: i64, (before, now): (i64, i64), rule: EarnRule) -> i64 {
    if earn(base, rule) == given {
        return lots::revoked(base, before, now, rule);
    }
    let kept = |refunded: i64| {
        let left = i128::from(base.saturating_sub(refunded).max(0));
        i64::try_from(i128::from(given) * left / i128::from(base.max(1))).unwrap_or(0)
    };
    kept(before).saturating_sub(kept(before.saturating_add(now)))
}

/// What a return does to an account of the member: taken back, given back, and earned for what goes.
pub fn entries(account: &Account, origins: &Origins, legs: &[DocumentLine], moment: Moment) -> Vec<Posted> {
    let mut book = Book { account: account.clone(), posted: Vec::new(), cause: moment.document_id.0 };
    let at = moment.occurred_at;
    // What comes back pays first: a debt beside points would be one that nobody sees.
    for (origin, points) in returned_points(origins, legs) {
        let Some(spent) = origin.spent.iter().find(|it| it.program_id == account.program_id) else { continue };
        let deltas = lots::restore(&spent.consumed, spent.restored, points);
        book.post(REDEMPTION_RETURN, lots::sum(&deltas), deltas);
    }
    for (origin, back) in returned_net(origins, legs) {
        let given = origin.accrued.iter().find(|it| it.program_id == account.program_id).map_or(0, |it| it.points);
        let (base, before) = origin.bases();
        let points = taken_back(given, base, (before, back), account.rule);
        if points > 0 {
            // One debt of a document, however many sales it goes back to.
            let debt = DebtLot { lot_id: lot(moment.document_id, account.program_id, "debt"), at };
            let deltas = lots::claw_back(&book.account.lots, origin.document_id.0, points, debt);
            book.post(CLAW_BACK, -points, deltas);
        }
    }
    let earned = earn(moment.base_minor, account.rule);
    if earned > 0 && book.account.points.checked_add(earned).is_some() {
        let after = |days: i32| at.checked_add_signed(TimeDelta::days(days.into()));
        let new = Lot {
            lot_id: lot(moment.document_id, account.program_id, ""),
            cause_id: moment.document_id.0,
            earned_at: at,
            available_at: account.pending_days.and_then(after).unwrap_or(at),
            expires_at: account.expires_after_days.and_then(after),
            points: earned,
            remaining: 0,
        };
        let deltas = lots::accrue(&book.account.lots, new);
        book.post(ACCRUAL, earned, deltas);
    }
    book.posted
}

/// As a sale names its lot; a debt of a document is another one.
fn lot(document: DocumentId, program: ProgramId, what: &str) -> LotId {
    let key = if what.is_empty() { format!("{document}:{program}") } else { format!("{document}:{program}:{what}") };
    LotId(derived_id("lot", &key))
}

/// An account while its entries are made, each on what the ones before it left.
struct Book {
    account: Account,
    posted: Vec<Posted>,
    cause: Uuid,
}

impl Book {
    /// Entries of one kind are one entry: a document has one of each kind in each program.
    fn post(&mut self, kind: &'static str, delta: i64, deltas: Vec<LotDelta>) {
        if delta == 0 {
            return;
        }
        let account = &mut self.account;
        for change in &deltas {
            match account.lots.iter_mut().find(|lot| lot.lot_id == change.lot_id) {
                Some(lot) => lot.remaining = lot.remaining.saturating_add(change.delta),
                None => account.lots.push(Lot {
                    lot_id: change.lot_id,
                    cause_id: self.cause,
                    earned_at: change.earned_at,
                    available_at: change.available_at,
                    expires_at: change.expires_at,
                    points: change.delta,
                    remaining: change.delta,
                }),
            }
        }
        account.points = account.points.saturating_add(delta);
        if let Some(last) = self.posted.last_mut().filter(|last| last.kind == kind) {
            last.delta = last.delta.saturating_add(delta);
            last.points_after = account.points;
            last.lots = merged(std::mem::take(&mut last.lots), deltas);
            return;
        }
        account.version += 1;
        self.posted.push(Posted {
            account_id: account.account_id,
            program_id: account.program_id,
            kind,
            version: account.version,
            delta,
            points_after: account.points,
            lots: deltas,
            cause_id: self.cause,
        });
    }
}

/// One delta for each lot, in the order in which they first appear.
fn merged(before: Vec<LotDelta>, more: Vec<LotDelta>) -> Vec<LotDelta> {
    let mut all = before;
    for change in more {
        match all.iter_mut().find(|known| known.lot_id == change.lot_id) {
            Some(known) => known.delta = known.delta.saturating_add(change.delta),
            None => all.push(change),
        }
    }
    all
}

/// Net that comes back to each origin, positive, in the order of their ids.
fn returned_net<'a>(origins: &'a Origins, legs: &[DocumentLine]) -> Vec<(&'a Origin, i64)> {
    by_origin(origins, legs, |leg| leg.net_minor.saturating_neg())
}

/// Points that paid for what comes back, by origin.
fn returned_points<'a>(origins: &'a Origins, legs: &[DocumentLine]) -> Vec<(&'a Origin, i64)> {
    let all = by_origin(origins, legs, |leg| leg.redemption_points.saturating_neg());
    all.into_iter().filter(|(_, points)| *points > 0).collect()
}

fn by_origin<'a>(
    origins: &'a Origins,
    legs: &[DocumentLine],
    of: impl Fn(&DocumentLine) -> i64,
) -> Vec<(&'a Origin, i64)> {
    let mut sums: BTreeMap<Uuid, i64> = BTreeMap::new();
    for leg in legs {
        let Some(origin) = leg.origin_document_id else { continue };
        let sum = sums.entry(origin.0).or_default();
        *sum = sum.saturating_add(of(leg));
    }
    sums.into_iter().filter_map(|(id, sum)| Some((origins.find(id)?, sum))).collect()
}
