//! What limits say of an adjustment: its amount is what the goods cost, whichever way they went.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use runtime::pg::PgTx;
use schemas::money::QTY_SCALE;
use uuid::Uuid;

use super::store::{Act, Head, Kind};
use crate::access::{Permission, Principal};
use crate::approvals::{self, Approval, Case, Settled, Standing};
use crate::db::inventory::VariantKind;
use crate::db::limits::{self, Done, Wanted};
use crate::error::ApiError;
use crate::limits::Extent;

const ACT: Permission = Permission::AdjustStock;

/// An act whose location is locked; nothing is asked of one that is no adjustment.
pub struct Asked<'a> {
    pub act: &'a Act,
    pub who: &'a Principal,
    pub fingerprint: &'a [u8; 32],
    pub currency: &'a str,
    /// Business day on which it is counted: that of its recording, whatever day it is about.
    pub shift: NaiveDate,
    pub recorded_at: DateTime<Utc>,
}

/// An adjustment that may be done; of another act, nothing.
pub struct Judged<'a> {
    asked: Asked<'a>,
    settled: Vec<Settled>,
    /// The approval that it needed.
    pub approval: Option<&'a Approval>,
}

impl<'a> Asked<'a> {
    pub async fn judge(self, tx: &mut PgTx, variants: &HashMap<Uuid, VariantKind>) -> Result<Judged<'a>, ApiError> {
        let (act, who) = (self.act, self.who);
        if act.kind != Kind::Adjustment {
            return Ok(Judged { asked: self, settled: Vec::new(), approval: None });
        }
        let (user_id, presented) = (who.actor().0, act.presented.signed());
        let counted = (user_id, act.location_id, self.shift, ACT);
        let wanted = Wanted {
            counted: vec![counted],
            people: presented.iter().map(|approval| approval.approver).collect(),
            approvals: presented.iter().map(|approval| approval.jti).collect(),
            ..Wanted::default()
        };
        let found = limits::read(tx, &wanted).await?;
        let asked = approvals::Asked {
            act: ACT,
            extent: Extent { currency: self.currency.to_owned(), amount_minor: worth(act, variants), share_ppm: None },
            rules: who.rules(ACT, act.location_id),
            used: found.used.get(&counted).copied().unwrap_or_default(),
            is_fact: false,
        };
        let approver = presented.map(|it| found.granted(it.approver, act.location_id)).unwrap_or_default();
        let case = Case {
            requester: user_id,
            location: act.location_id,
            currency: self.currency,
            digest: self.fingerprint,
            now: self.recorded_at,
            presented: &act.presented,
            approver: &approver,
            is_spent: presented.is_some_and(|it| found.spent.contains(&it.jti)),
        };
        let settled = approvals::settle(&case, vec![asked])?;
        let approval = presented.filter(|_| settled.iter().any(|it| it.standing == Standing::Approved));
        Ok(Judged { asked: self, settled, approval })
    }
}

impl Judged<'_> {
    /// Counts it and spends its approval, in the transaction of the act.
    pub async fn insert(&self, tx: &mut PgTx, head: &Head) -> Result<(), sqlx::Error> {
        let done = Done {
            cause_type: Kind::Adjustment.as_str(),
            cause_id: head.act_id,
            location: self.asked.act.location_id,
            user_id: head.actor,
            business_date: self.asked.shift,
            digest: self.asked.fingerprint,
            acts: &self.settled,
            approval: self.approval,
        };
        limits::insert(tx, (head.epoch, head.recorded_at), &[done]).await
    }
}

/// What the goods of all lines cost, rounded up; none when the cost of one is not known. A cost in the request does not
/// count: whoever is limited would write it.
fn worth(act: &Act, variants: &HashMap<Uuid, VariantKind>) -> Option<i64> {
    let scale = i128::from(QTY_SCALE);
    let line = |change: &super::store::Change| -> Option<i128> {
        let cost = variants.get(&change.variant_id)?.unit_cost?;
        Some((i128::from(change.delta).abs() * i128::from(cost) + scale - 1) / scale)
    };
    let total: i128 = act.changes.iter().map(line).sum::<Option<i128>>()?;
    Some(i64::try_from(total).unwrap_or(i64::MAX))
}
