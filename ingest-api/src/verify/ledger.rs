//! Checks inside Postgres: the ledgers against the rows they sum to, and the outbox against both.

use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::Utc;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::Report;
use super::kept::Kept;

/// Waits until the relay has published everything, at most `limit`; reports I11.
pub async fn drained(pg: &PgPool, limit: Duration, report: &mut Report) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let rows = sqlx::query(
            "select s.stream_id, s.last_seq, coalesce(p.published_seq, 0) published
               from streams s left join stream_progress p using (stream_id)
              where s.last_seq <> coalesce(p.published_seq, 0)",
        )
        .fetch_all(pg)
        .await
        .context("reading the relay's progress")?;
        if rows.is_empty() || Instant::now() >= deadline {
            let behind = rows
                .iter()
                .map(|row| {
                    let (stream, last, published): (Uuid, i64, i64) = (row.get(0), row.get(1), row.get(2));
                    format!("stream {stream}: {} acts not published (at {published} of {last})", last - published)
                })
                .collect();
            let streams: i64 = sqlx::query_scalar("select count(*) from streams").fetch_one(pg).await?;
            report.add("I11", "the relay has published every act", streams as u64, behind);
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct LedgerCheck {
    id: &'static str,
    claim: &'static str,
    /// Counts what is compared for location $1.
    count: &'static str,
    /// Text of each differing row for location $1; no rows when all is well. $2 is since when the outbox is whole.
    differing: &'static str,
}

/// Each runs once per location, so that no statement reads a whole company.
const BY_LOCATION: &[LedgerCheck] = &[
    LedgerCheck {
        id: "I3",
        claim: "each stock line moved stock exactly once",
        count: "select count(*) from document_lines where location_id = $1 and tracks_stock",
        differing: "select format('document %s line %s: %s movements', l.document_id, l.line_no, count(m.version))
              from document_lines l
              left join stock_movements m on m.cause_type = 'document' and m.cause_id = l.document_id
                   and m.cause_line = l.line_no and m.variant_id = l.variant_id
                   and coalesce(m.parent_location_id, m.location_id) = l.location_id
                   and m.delta = -l.qty
             where l.location_id = $1 and l.tracks_stock
             group by l.document_id, l.line_no having count(m.version) <> 1
            union all
            select format('movement %s/%s version %s: no such line', m.location_id, m.variant_id, m.version)
              from stock_movements m
              left join document_lines l on l.document_id = m.cause_id and l.line_no = m.cause_line
             where coalesce(m.parent_location_id, m.location_id) = $1 and m.cause_type = 'document'
               and l.document_id is null",
    },
    LedgerCheck {
        id: "I4",
        claim: "money adds up: lines = total, tenders - change = total + rounding",
        count: "select count(*) from documents where location_id = $1",
        differing: "select format('document %s: total %s, lines %s, tenders %s, change %s, rounding %s',
                                  d.document_id, d.total_minor, coalesce(l.v, 0), coalesce(t.v, 0), d.change_minor, d.rounding_minor)
              from documents d
              left join lateral (select sum(payable_minor)::bigint v, sum(discount_minor + redemption_minor)::bigint disc,
                                        sum(tax_minor)::bigint tax, sum(extended_minor)::bigint ext
                                   from document_lines x where x.document_id = d.document_id) l on true
              left join lateral (select sum(amount_minor)::bigint v from document_tenders x where x.document_id = d.document_id) t on true
             where d.location_id = $1
               and (coalesce(l.v, 0) <> d.total_minor or coalesce(l.disc, 0) <> d.discount_minor
                    or coalesce(l.tax, 0) <> d.tax_minor or coalesce(l.ext, 0) <> d.subtotal_minor
                    or coalesce(t.v, 0) - d.change_minor <> d.total_minor + d.rounding_minor)",
    },
    LedgerCheck {
        id: "I6",
        claim: "stock level = sum of its movements, versions without a gap",
        count: "select count(*) from stock_levels where location_id = $1",
        differing: "select format('stock %s/%s: level %s v%s, ledger %s v%s with %s movements',
                                  $1, variant_id, l.qty, l.version, m.d, m.v, m.n)
              from (select * from stock_levels where location_id = $1) l
              full join (select variant_id, sum(delta)::bigint d, count(*) n, max(version) v
                           from stock_movements where location_id = $1 group by 1) m using (variant_id)
             where (coalesce(l.qty, 0), coalesce(l.version, 0), coalesce(l.version, 0))
                   is distinct from (coalesce(m.d, 0), coalesce(m.n, 0), coalesce(m.v, 0))",
    },
    LedgerCheck {
        id: "I7",
        claim: "every movement carries the right quantity after it",
        count: "select count(*) from stock_movements where location_id = $1",
        differing: "select format('stock %s/%s version %s: qty_after %s, sum %s', $1, variant_id, version, qty_after, r)
              from (select *, sum(delta) over (partition by variant_id order by version)::bigint r
                      from stock_movements where location_id = $1) x
             where r <> qty_after",
    },
    LedgerCheck {
        id: "I10",
        claim: "every document and act has its outbox row",
        count: "select count(*) from documents where location_id = $1",
        differing: "with kept as (select greatest(min(created_at), $2) since from outbox)
            select format('%s %s (location_seq %s)', kind, cause, location_seq)
              from (select 'document' kind, document_id cause, location_seq, epoch, recorded_at from documents where location_id = $1
                    union all
                    select 'act', act_id, location_seq, epoch, recorded_at from stock_acts where location_id = $1) a
             where a.recorded_at >= (select since from kept)
               and not exists (select 1 from outbox o
                                where o.stream_id = $1 and o.seq = a.location_seq and o.cause_id = a.cause)",
    },
    LedgerCheck {
        id: "I10",
        claim: "a location's numbers have no gap",
        count: "select last_seq from streams where stream_id = $1",
        differing: "select format('stream %s: last_seq %s, outbox holds %s to %s in %s rows', $1, s.last_seq, o.lo, o.hi, o.n)
              from streams s, lateral (
                       select min(seq) lo, max(seq) hi, count(*) n from outbox
                        where stream_id = s.stream_id
                          and seq >= (select min(seq) from outbox where stream_id = s.stream_id and created_at >= $2)) o
             where s.stream_id = $1
               and ((o.n > 0 and (o.hi <> s.last_seq or o.hi - o.lo + 1 <> o.n))
                 or (o.n = 0 and s.last_seq > 0 and exists (select 1 from outbox)
                     and exists (select 1 from documents d where d.location_id = $1 and d.location_seq = s.last_seq
                                    and d.recorded_at >= (select greatest(min(created_at), $2) from outbox))))",
    },
    LedgerCheck {
        id: "I9",
        claim: "points that paid for lines were taken from their member",
        count: "select count(*) from document_lines where location_id = $1 and leg = 'sale' and redemption_points <> 0",
        differing: "select format('document %s: %s points paid for lines, no entry takes them', document_id, sum(redemption_points))
              from document_lines l
             where l.location_id = $1 and l.leg = 'sale' and l.redemption_points <> 0 and not exists (
                   select from loyalty_entries e where e.cause_id = l.document_id and e.kind = 'redemption')
             group by document_id",
    },
    LedgerCheck {
        id: "I20",
        claim: "one effect per identity",
        count: "select count(*) from documents where location_id = $1",
        differing: "select format('terminal %s seq %s: %s documents', terminal_id, terminal_seq, count(*))
              from documents where location_id = $1 group by terminal_id, terminal_seq having count(*) > 1
            union all
            select format('receipt %s/%s/%s: %s documents', register_id, series_epoch, receipt_number, count(*))
              from documents where location_id = $1 group by register_id, series_epoch, receipt_number having count(*) > 1
            union all
            select format('document %s accrued %s times', cause_id, count(*))
              from loyalty_entries where location_id = $1 and kind = 'accrual'
             group by cause_id, program_id having count(*) > 1",
    },
];

/// The same idea for what belongs to the company; run in slices of the account id's first byte.
const BY_ACCOUNT: &[LedgerCheck] = &[
    LedgerCheck {
        id: "I9",
        claim: "points = sum of entries, versions without a gap",
        count: "select count(*) from loyalty_accounts where account_id between $1 and $2",
        differing: "select format('account %s: %s points v%s, ledger %s v%s with %s entries',
                                  a.account_id, a.points, a.version, coalesce(m.d, 0), coalesce(m.v, 0), coalesce(m.n, 0))
              from loyalty_accounts a
              left join (select account_id, sum(delta)::bigint d, count(*) n, max(version) v
                           from loyalty_entries where account_id between $1 and $2 group by 1) m using (account_id)
             where a.account_id between $1 and $2
               and (a.points, a.version, a.version) is distinct from (coalesce(m.d, 0), coalesce(m.n, 0), coalesce(m.v, 0))",
    },
    LedgerCheck {
        id: "I9",
        claim: "points = sum of the account's lots",
        count: "select count(*) from loyalty_lots where account_id between $1 and $2",
        differing: "select format('account %s: %s points, lots hold %s', a.account_id, a.points, coalesce(l.v, 0))
              from loyalty_accounts a
              left join (select account_id, sum(remaining)::bigint v from loyalty_lots
                          where account_id between $1 and $2 group by 1) l using (account_id)
             where a.account_id between $1 and $2 and a.points <> coalesce(l.v, 0)",
    },
    LedgerCheck {
        id: "I9",
        claim: "what remains of a lot is what entries did to it, never more than it was made with",
        count: "select count(*) from loyalty_lots where account_id between $1 and $2",
        differing: "select format('lot %s of account %s: made with %s, remaining %s, entries say %s',
                                  coalesce(l.lot_id, e.lot_id), coalesce(l.account_id, e.account_id), l.points, l.remaining, e.v)
              from (select * from loyalty_lots where account_id between $1 and $2) l
              full join (select account_id, (lot ->> 'lot_id')::uuid lot_id, sum((lot ->> 'delta')::bigint)::bigint v
                           from loyalty_entries cross join jsonb_array_elements(lots) lot
                          where account_id between $1 and $2 group by 1, 2) e on e.account_id = l.account_id and e.lot_id = l.lot_id
             where l.remaining is distinct from e.v
                or (l.points >= 0 and l.remaining not between 0 and l.points)
                or (l.points < 0 and l.remaining not between l.points and 0)",
    },
    LedgerCheck {
        id: "I9",
        claim: "an entry is what it does to lots",
        count: "select count(*) from loyalty_entries where account_id between $1 and $2",
        differing: "select format('account %s version %s: delta %s, its lots %s', account_id, version, delta, coalesce(v, 0))
              from loyalty_entries e
              left join lateral (select sum((lot ->> 'delta')::bigint)::bigint v from jsonb_array_elements(e.lots) lot) l on true
             where account_id between $1 and $2 and delta <> coalesce(v, 0)",
    },
    LedgerCheck {
        id: "I9",
        claim: "points paid for what lines say: the redemption of a document is that of its lines",
        count: "select count(*) from loyalty_entries where account_id between $1 and $2 and kind = 'redemption'",
        differing: "select format('document %s: %s points redeemed, its lines say %s', e.cause_id, -e.delta, coalesce(l.v, 0))
              from loyalty_entries e
              left join lateral (select sum(redemption_points)::bigint v from document_lines l
                                  where l.document_id = e.cause_id and l.leg = 'sale') l on true
             where e.account_id between $1 and $2 and e.kind = 'redemption' and -e.delta <> coalesce(l.v, 0)",
    },
    LedgerCheck {
        id: "I9",
        claim: "every entry carries the right points after it",
        count: "select count(*) from loyalty_entries where account_id between $1 and $2",
        differing: "select format('account %s version %s: points_after %s, sum %s', account_id, version, points_after, r)
              from (select *, sum(delta) over (partition by account_id order by version)::bigint r
                      from loyalty_entries where account_id between $1 and $2) x
             where r <> points_after",
    },
];

/// Returns over their origins: nothing comes back that was not sold (I5), and no tender gives back more than it brought.
const RETURNED: &str = "
    select format('document %s line %s: %s sold, %s came back', o.document_id, o.line_no, o.qty, -sum(r.qty))
      from document_lines r
      join document_lines o on (o.document_id, o.line_no) = (r.origin_document_id, r.origin_line_no)
     where r.leg = 'return'
     group by o.document_id, o.line_no, o.qty, o.extended_minor, o.payable_minor, o.tax_minor, o.net_minor,
              o.discount_minor, o.redemption_minor, o.redemption_points
    having -sum(r.qty) > o.qty
        or (-sum(r.qty) = o.qty
            and (o.extended_minor, o.payable_minor, o.tax_minor, o.net_minor, o.discount_minor, o.redemption_minor,
                 o.redemption_points)
                is distinct from (-sum(r.extended_minor), -sum(r.payable_minor), -sum(r.tax_minor), -sum(r.net_minor),
                 -sum(r.discount_minor), -sum(r.redemption_minor), -sum(r.redemption_points)))
    union all
    select format('document %s line %s: what it returns was never sold', r.document_id, r.line_no)
      from document_lines r
      left join document_lines o on (o.document_id, o.line_no) = (r.origin_document_id, r.origin_line_no) and o.leg = 'sale'
     where r.leg = 'return'
       and (o.variant_id, o.location_id) is distinct from (r.variant_id, r.origin_location_id)
    union all
    select format('document %s line %s: units %s to %s came back twice', a.origin_document_id, a.origin_line_no,
                  a.first_unit, a.last_unit)
      from document_lines a join document_lines b
        on (a.origin_document_id, a.origin_line_no) = (b.origin_document_id, b.origin_line_no)
       and (a.document_id, a.line_no) < (b.document_id, b.line_no)
     where a.first_unit <= b.last_unit and b.first_unit <= a.last_unit
    union all
    select format('document %s tender %s: %s paid, %s went back', o.document_id, o.tender_no, o.amount_minor,
                  -sum(r.amount_minor))
      from document_tenders r
      join document_tenders o on (o.document_id, o.tender_no) = (r.origin_document_id, r.origin_tender_no)
     group by o.document_id, o.tender_no, o.amount_minor having -sum(r.amount_minor) > o.amount_minor";

/// I5.
async fn returned(pg: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    let count: i64 = sqlx::query_scalar("select count(*) from document_lines where origin_document_id is not null")
        .fetch_one(pg)
        .await?;
    let differing = sqlx::query_scalar::<_, String>(RETURNED).fetch_all(pg).await.context("comparing returns")?;
    report.add("I5", "what came back was sold before, once, for the same amounts", count as u64, differing);
    Ok(())
}

/// Runs every ledger check over every location and account.
pub async fn check(pg: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    let locations: Vec<Uuid> = sqlx::query_scalar("select location_id from locations order by 1").fetch_all(pg).await?;
    // Stock also lies where nobody sells: goods that are looked at, waste.
    let stocks: Vec<Uuid> = sqlx::query_scalar(
        "select location_id from locations union all select location_id from system_locations order by 1",
    )
    .fetch_all(pg)
    .await?;
    let kept = Kept::at(Utc::now());
    for check in BY_LOCATION {
        let (mut compared, mut differing) = (0, Vec::new());
        let places = if matches!(check.id, "I6" | "I7") { &stocks } else { &locations };
        for location in places {
            compared += sqlx::query_scalar::<_, i64>(check.count).bind(location).fetch_one(pg).await? as u64;
            let mut query = sqlx::query_scalar::<_, String>(check.differing).bind(location);
            if check.differing.contains("$2") {
                query = query.bind(kept.outbox);
            }
            let rows = query.fetch_all(pg).await;
            differing.extend(rows.with_context(|| format!("{} at location {location}", check.id))?);
        }
        report.add(check.id, check.claim, compared, differing);
    }
    for check in BY_ACCOUNT {
        let (mut compared, mut differing) = (0, Vec::new());
        for byte in (0..=240u8).step_by(16) {
            let (low, high) = account_range(byte);
            compared += sqlx::query_scalar::<_, i64>(check.count).bind(low).bind(high).fetch_one(pg).await? as u64;
            let rows = sqlx::query_scalar::<_, String>(check.differing).bind(low).bind(high).fetch_all(pg);
            differing.extend(rows.await.with_context(|| format!("{} accounts {low}..{high}", check.id))?);
        }
        report.add(check.id, check.claim, compared, differing);
    }
    returned(pg, report).await?;
    terminal_gaps(pg, report).await
}

/// A sixteenth of all accounts: ids whose first byte is `byte..=byte + 15`.
fn account_range(byte: u8) -> (Uuid, Uuid) {
    let (mut low, mut high) = ([0; 16], [0xff; 16]);
    low[0] = byte;
    high[0] = byte + 15;
    (Uuid::from_bytes(low), Uuid::from_bytes(high))
}

/// I28: a gap in a terminal's numbers is a sale that was refused for good or has not arrived: named, no violation.
async fn terminal_gaps(pg: &PgPool, report: &mut Report) -> anyhow::Result<()> {
    let gaps = sqlx::query_scalar::<_, String>(
        "select format('terminal %s: %s of %s numbers present', terminal_id, count(*), max(terminal_seq))
           from documents group by terminal_id having count(*) <> max(terminal_seq)",
    )
    .fetch_all(pg)
    .await?;
    report.notes.extend(gaps.into_iter().map(|gap| format!("I28 {gap}")));
    Ok(())
}
