//! I21: every act that has to leave a row in the audit log left one.

use sqlx::PgPool;

use super::Report;

/// What was done, what names it, and the acts that have no row. Objects that came with the first migration have none.
const ACTS: &[(&str, &str, &str)] = &[
    (
        "each document has the row of its act",
        "select count(*) from documents",
        "select format('document %s', document_id) from documents d where not exists (
            select from audit_log a where a.target = d.kind || '/' || d.document_id and a.location_id = d.location_id
               and a.action = d.kind || '.create' and a.outcome = 'done' and a.after_digest = d.document_digest
               and a.actor = d.cashier_id)",
    ),
    (
        "each stock act has its row, with its reason",
        "select count(*) from stock_acts where kind <> 'resync'",
        "select format('%s %s', kind, act_id) from stock_acts s where kind <> 'resync' and not exists (
            select from audit_log a where a.target = 'stock_act/' || s.act_id and a.location_id = s.location_id
               and a.outcome = 'done' and a.actor = s.actor and a.reason = s.reason)",
    ),
    (
        "each user, terminal, location and tax profile was made by an act",
        "select (select count(*) from users) + (select count(*) from terminals) + (select count(*) from locations)",
        "select format('user %s', user_id) from users u where not exists (
            select from audit_log a where a.target = 'user/' || u.user_id and a.action like 'user.%' and a.outcome = 'done')
         union all
         select format('terminal %s', terminal_id) from terminals t where not exists (
            select from audit_log a where a.target = 'terminal/' || t.terminal_id and a.action = 'terminal.create')
         union all
         select format('terminal %s: enrolled', terminal_id) from terminals t where enrolled_at is not null and not exists (
            select from audit_log a where a.target = 'terminal/' || t.terminal_id and a.action = 'terminal.enrol'
               and a.outcome = 'done')
         union all
         select format('location %s', location_id) from locations l where not exists (
            select from audit_log a where a.target = 'location/' || l.location_id and a.action = 'location.create')
         union all
         select format('tax profile %s', tax_profile_id) from tax_profiles p where not exists (
            select from audit_log a where a.target = 'tax_profile/' || p.tax_profile_id)",
    ),
    (
        "each merge of members and each erasure has its row",
        "select count(*) from customers where merged_into is not null or erased_at is not null",
        "select format('member %s: merged', customer_id) from customers c where merged_into is not null and not exists (
            select from audit_log a where a.action = 'member.merge' and a.outcome = 'done'
               and a.target like '% member/' || c.customer_id)
         union all
         select format('member %s: erased', customer_id) from customers c where erased_at is not null and not exists (
            select from audit_log a where a.action = 'member.erase' and a.outcome = 'done'
               and a.target = 'member/' || coalesce(c.merged_into, c.customer_id))",
    ),
    (
        "each move of points after a merge has its row",
        "select count(*) from loyalty_entries where kind = 'merge_out' and actor = '00000000-0000-0000-0000-000000000000'",
        "select format('points of account %s version %s', account_id, version) from loyalty_entries e
          where kind = 'merge_out' and actor = '00000000-0000-0000-0000-000000000000' and not exists (
            select from audit_log a where a.action = 'member.points' and a.outcome = 'done'
               and a.reason = e.cause_id::text)",
    ),
    (
        "each expiry of points has its row",
        "select count(*) from loyalty_entries where kind = 'expiry'",
        "select format('points of account %s version %s', account_id, version) from loyalty_entries e
          where kind = 'expiry' and not exists (
            select from audit_log a where a.action = 'loyalty.expire' and a.outcome = 'done'
               and a.reason = e.cause_id::text)",
    ),
    (
        "each edit of a loyalty program has its row",
        "select count(*) from loyalty_program_versions where version > 1",
        "select format('loyalty program %s: version %s, %s edits', program_id, max(version), count(distinct a.audit_id))
           from loyalty_program_versions v
           left join audit_log a on a.target = 'loyalty_program/' || v.program_id and a.action = 'loyalty_program.edit'
                                and a.outcome = 'done'
          group by program_id having max(version) - 1 > count(distinct a.audit_id)",
    ),
    (
        "each epoch was raised by an act",
        "select count(*) from epochs where epoch > 1",
        "select format('epoch %s', epoch) from epochs e where epoch > 1 and not exists (
            select from audit_log a where a.target = 'epoch/' || e.epoch and a.action = 'epoch.raise')",
    ),
];

/// Runs each over the whole ledger.
pub async fn check(pg: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    for (claim, count, missing) in ACTS {
        let compared: i64 = sqlx::query_scalar(*count).fetch_one(pg).await?;
        let differing = sqlx::query_scalar::<_, String>(*missing).fetch_all(pg).await?;
        let differing = differing.into_iter().map(|what| format!("{what}: no row in the audit log")).collect();
        report.add("I21", claim, compared as u64, differing);
    }
    Ok(())
}
