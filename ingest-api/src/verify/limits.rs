//! Limits and approvals: the ledger of acts says what the documents say (I20), and what went beyond a limit had its
//! approval (I21).

use anyhow::Context as _;
use chrono::NaiveDate;
use futures::TryStreamExt as _;
use sqlx::PgPool;
use uuid::Uuid;

use super::Report;
use crate::access::Permission;
use crate::db::roles::rules_of;
use crate::limits::{Extent, Verdict, judge};

/// Documents and stock acts since limits are in force whose acts the ledger has not, has twice or has otherwise.
const UNCOUNTED: &str = "
    with d as (
        select d.* from documents d, limits_since s
        where d.recorded_at >= s.since
    ), lines as (
        select l.*, l.override_reason is not distinct from 'imported' as is_imported
        from d join document_lines l using (document_id) where l.leg = 'sale'
    ), said as (
        -- By hand; promotions are nobody's act.
        select document_id, 'discount_lines' as act, sum((given ->> 'amount_minor')::bigint) as amount
        from lines, jsonb_array_elements(discounts) given
        where given ->> 'kind' like 'order%' or (given ->> 'kind' in ('percent', 'amount') and not is_imported) group by 1
        union all
        select document_id, 'override_price', sum(ceil(abs(list_price_minor - unit_price_minor)::numeric * qty / 1000))
        from lines where override_reason is not null and not is_imported group by 1
        union all
        select document_id, 'refund', greatest(-total_minor, 0) from d
        where kind = 'refund' or (kind = 'exchange' and total_minor < 0)
        union all
        select document_id, 'void', 0 from d where kind = 'void'
    ), counted as (
        select a.* from limited_acts a where a.cause_type = 'document' and a.act <> 'refund_to_other_tender'
    )
    select format('document %s: %s of %s, the ledger of acts says %s', coalesce(s.document_id, c.cause_id),
                  coalesce(s.act, c.act), coalesce(s.amount::text, 'nothing'), coalesce(c.amount_minor::text, 'nothing'))
    from said s join d using (document_id)
    full join counted c on (c.cause_id, c.act) = (s.document_id, s.act)
    where (s.amount, d.cashier_id, d.location_id, d.business_date, d.currency)
          is distinct from (c.amount_minor, c.user_id, c.location_id, c.business_date, c.currency)
    union all
    select format('adjustment %s: not in the ledger of acts', s.act_id) from stock_acts s, limits_since f
    where s.kind = 'adjustment' and s.recorded_at >= f.since and not exists (
        select from limited_acts a where a.cause_id = s.act_id and a.act = 'adjust_stock' and a.user_id = s.actor
           and a.location_id = s.location_id and a.approval_id is not distinct from s.approval_id)
    union all
    select format('user %s at %s on %s: %s acts of %s, the last is number %s', user_id, location_id, business_date,
                  count(*), act, max(ordinal))
    from limited_acts group by user_id, location_id, business_date, act having count(*) <> max(ordinal)";

/// Approvals that were spent in another way than they may be.
const UNAPPROVED: &str = "
    select format('%s: approval %s was not spent on it', a.cause_id, a.approval_id) from limited_acts a
    where a.approval_id is not null and not exists (
        select from approvals p where p.approval_id = a.approval_id and p.cause_id = a.cause_id
           and p.requester = a.user_id and p.location_id = a.location_id)
    union all
    select format('approval %s: spent on nothing', approval_id) from approvals p where not exists (
        select from limited_acts a where a.approval_id = p.approval_id)
    union all
    select format('approval %s: not in its document', approval_id) from approvals p where not exists (
        select from documents d where d.document_id = p.cause_id and d.approval_id = p.approval_id and d.content_hash = p.digest
        union all
        select from stock_acts s where s.act_id = p.cause_id and s.approval_id = p.approval_id)
    union all
    select format('approval %s: spent %s after it was given', approval_id, spent_at - issued_at) from approvals
    where spent_at - issued_at not between interval '-30 seconds' and interval '300 seconds'
    union all
    select format('approval %s: the audit row of its act does not name the approver', approval_id) from approvals p
    where not exists (
        select from audit_log l where l.approver = p.approver and l.outcome = 'done'
           and l.target in ('sale/' || p.cause_id, 'refund/' || p.cause_id, 'exchange/' || p.cause_id,
                            'void/' || p.cause_id, 'stock_act/' || p.cause_id))
    union all
    select format('approval %s: no audit row of its being given', approval_id) from approvals p where not exists (
        select from audit_log l where l.action = 'approval.issue' and l.target = 'approval/' || p.approval_id
           and l.actor = p.approver)
    union all
    select format('document %s: over its limit without a lease and a flag', cause_id) from limited_acts a
    where a.verdict = 'over_limit' and not exists (
        select from documents d where d.document_id = a.cause_id and d.lease_id is not null and 'over_limit' = any (d.flags))";

/// One act as the ledger has it.
#[derive(sqlx::FromRow)]
struct Act {
    cause_id: Uuid,
    act: String,
    user_id: Uuid,
    business_date: NaiveDate,
    ordinal: i64,
    currency: String,
    amount_minor: Option<i64>,
    share_ppm: Option<i64>,
    verdict: String,
    rules: String,
}

impl Act {
    /// What it says of itself that its rules do not, if anything.
    fn flaw(&self) -> anyhow::Result<Option<String>> {
        let rules = rules_of(&self.rules).with_context(|| format!("rules of {}", self.cause_id))?;
        let is_known = Permission::parse(&self.act).is_some_and(Permission::is_act);
        let extent =
            Extent { currency: self.currency.clone(), amount_minor: self.amount_minor, share_ppm: self.share_ppm };
        let is_of_act = rules.iter().all(|rule| rule.permission.name() == self.act);
        let wanted: &[&str] = match judge(&rules, self.ordinal - 1, &extent) {
            Verdict::Allowed => &["allowed"],
            Verdict::NeedsApproval => &["approved", "over_limit"],
            Verdict::Denied => &[],
        };
        if is_known && is_of_act && wanted.contains(&self.verdict.as_str()) {
            return Ok(None);
        }
        let Act { cause_id, act, user_id, business_date, ordinal, verdict, .. } = self;
        Ok(Some(format!(
            "{cause_id}: {act}, number {ordinal} of user {user_id} on {business_date}, was {verdict}; its rules say otherwise"
        )))
    }
}

pub async fn check(pg: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    let mut acts = sqlx::query_as::<_, Act>(
        "select cause_id, act, user_id, business_date, ordinal, currency, amount_minor, share_ppm, verdict, rules::text
         from limited_acts",
    )
    .fetch(pg);
    let (mut count, mut beyond) = (0, Vec::new());
    while let Some(act) = acts.try_next().await.context("reading the ledger of acts")? {
        count += 1;
        beyond.extend(act.flaw()?);
    }
    beyond.extend(sqlx::query_scalar::<_, String>(UNAPPROVED).fetch_all(pg).await.context("reading approvals")?);
    report.add("I21", "what went beyond a limit was approved by somebody else, once", count, beyond);
    let uncounted = sqlx::query_scalar(UNCOUNTED).fetch_all(pg).await.context("comparing documents with their acts")?;
    report.add("I20", "every act that limits are about is counted, as its document says", count, uncounted);
    Ok(())
}
