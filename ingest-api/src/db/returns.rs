//! What returns read and write: documents that goods come back from, with what is left of them; and the rows of a refund,
//! an exchange or a void.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use schemas::events::{DocumentCommitted, DocumentLine, LoyaltyPosted};
use schemas::ids::{LocationId, LotId, VariantId};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::loyalty::accrual::EarnRule;
use crate::loyalty::lots::{Lot, LotDelta};
use crate::returns::legs::{LEG_RETURN, LEG_SALE, SoldLine};
use crate::returns::origin::{Accrued, Held, Origin, Origins, Spent};
use crate::returns::points::{Account, Posted};
use crate::returns::records::system_location;
use crate::returns::types::TenderRef;
use crate::sales::known::StockRow;

/// The documents that goods come back from and those they go back to: the origins of an exchange, and so on. Documents
/// never change, so neither does this. Pairs of (named document, document of its chain).
pub async fn chains(conn: &mut PgConnection, named: &[Uuid]) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "with recursive chain as (
             select document_id as root, document_id from documents where document_id = any ($1)
             union
             select c.root, l.origin_document_id from chain c
             join document_lines l on l.document_id = c.document_id and l.leg = 'return'
         )
         select root, document_id from chain",
    )
    .bind(named)
    .fetch_all(conn)
    .await
}

/// Locks documents against other returns, in the order of their keys, until the transaction ends. Rows of a ledger cannot
/// be locked by a role that may not change them, so the lock is one by name: half of the document's identifier. Two that
/// share it wait for each other, and nothing worse.
pub async fn lock_documents(conn: &mut PgConnection, documents: &[Uuid]) -> Result<(), sqlx::Error> {
    let mut keys: Vec<i64> = documents.iter().map(|id| id.as_u64_pair().1 as i64).collect();
    keys.sort_unstable();
    keys.dedup();
    // One by one: in one statement nothing would say in which order they are taken.
    for key in keys {
        sqlx::query("select pg_advisory_xact_lock($1)").bind(key).execute(&mut *conn).await?;
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct DocumentRow {
    document_id: Uuid,
    kind: String,
    location_id: Uuid,
    currency: String,
    rounding_mode: String,
    customer_id: Option<Uuid>,
}

/// The named documents with what earlier returns left of them. A fresh statement each: what was committed while a lock
/// was waited for is seen.
pub async fn origins(conn: &mut PgConnection, named: &[Uuid], chains: &[(Uuid, Uuid)]) -> Result<Origins, sqlx::Error> {
    if named.is_empty() {
        return Ok(Origins::default());
    }
    let rows: Vec<DocumentRow> = sqlx::query_as(
        "select document_id, kind, location_id, currency, rounding_mode, customer_id
         from documents where document_id = any ($1) order by document_id",
    )
    .bind(named)
    .fetch_all(&mut *conn)
    .await?;
    let mut lines = sold_lines(conn, named).await?;
    let (mut accrued, mut spent) = points(conn, named).await?;
    let mut documents = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.document_id;
        documents.push(Origin {
            document_id: id.into(),
            kind: row.kind,
            location_id: LocationId(row.location_id),
            currency: row.currency,
            rounding_mode: row.rounding_mode.parse().map_err(decode)?,
            customer_id: row.customer_id.map(Into::into),
            lines: lines.remove(&id).unwrap_or_default(),
            chain: chains.iter().filter(|(root, _)| *root == id).map(|(_, of)| *of).collect(),
            accrued: accrued.remove(&id).unwrap_or_default(),
            spent: spent.remove(&id).unwrap_or_default(),
        });
    }
    let all: Vec<Uuid> = chains.iter().map(|(_, of)| *of).collect();
    Ok(Origins { documents, held: held(conn, &all).await? })
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// What each document sold, line by line, with what has come back.
async fn sold_lines(conn: &mut PgConnection, documents: &[Uuid]) -> Result<HashMap<Uuid, Vec<SoldLine>>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, String)> = sqlx::query_as(
        "select l.document_id, coalesce(b.qty, 0)::bigint, to_json(l)::text
         from document_lines l
         left join lateral (
             select -sum(r.qty) as qty from document_lines r
             where r.origin_document_id = l.document_id and r.origin_line_no = l.line_no and r.leg = $3) b on true
         where l.document_id = any ($1) and l.leg = $2
         order by l.document_id, l.line_no",
    )
    .bind(documents)
    .bind(LEG_SALE)
    .bind(LEG_RETURN)
    .fetch_all(conn)
    .await?;
    let mut by_document: HashMap<Uuid, Vec<SoldLine>> = HashMap::new();
    for (document, returned, line) in rows {
        // The columns have the names of the record's fields.
        let line: DocumentLine = serde_json::from_str(&line).map_err(decode)?;
        by_document.entry(document).or_default().push(SoldLine { line, returned });
    }
    Ok(by_document)
}

#[derive(sqlx::FromRow)]
struct HeldRow {
    document_id: Uuid,
    tender_no: i32,
    occurred_at: DateTime<Utc>,
    kind: String,
    amount_minor: i64,
    returned: i64,
    psp_reference: Option<String>,
    card_brand: Option<String>,
    card_last_four: Option<String>,
    card_expiry: Option<String>,
    liability_account_id: Option<Uuid>,
}

/// Tenders other than cash that brought money, the latest first, with what has gone back to them.
async fn held(conn: &mut PgConnection, documents: &[Uuid]) -> Result<Vec<Held>, sqlx::Error> {
    let rows: Vec<HeldRow> = sqlx::query_as(
        "select t.document_id, t.tender_no, d.occurred_at, t.kind, t.amount_minor, coalesce(b.amount, 0)::bigint as returned,
                t.psp_reference, t.card_brand, t.card_last_four, t.card_expiry, t.liability_account_id
         from document_tenders t
         join documents d using (document_id)
         left join lateral (
             select -sum(r.amount_minor) as amount from document_tenders r
             where r.origin_document_id = t.document_id and r.origin_tender_no = t.tender_no) b on true
         where t.document_id = any ($1) and t.kind <> 'cash' and t.amount_minor > 0
         order by d.occurred_at desc, t.document_id desc, t.tender_no desc",
    )
    .bind(documents)
    .fetch_all(conn)
    .await?;
    let held = rows.into_iter().map(|row| Held {
        at: TenderRef { document_id: row.document_id, tender_no: row.tender_no },
        occurred_at: row.occurred_at,
        kind: row.kind,
        amount_minor: row.amount_minor,
        held_minor: row.amount_minor.saturating_sub(row.returned),
        psp_reference: row.psp_reference,
        card_brand: row.card_brand,
        card_last_four: row.card_last_four,
        card_expiry: row.card_expiry,
        liability_account_id: row.liability_account_id,
    });
    Ok(held.collect())
}

/// A lot as entries store it.
#[derive(Deserialize)]
struct StoredLot {
    lot_id: Uuid,
    delta: i64,
    earned_at: DateTime<Utc>,
    available_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
}

type Points = (HashMap<Uuid, Vec<Accrued>>, HashMap<Uuid, Vec<Spent>>);

/// What documents gave and took in points, and how much of the latter has come back.
async fn points(conn: &mut PgConnection, documents: &[Uuid]) -> Result<Points, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, String, i64, String, i64)> = sqlx::query_as(
        "select e.cause_id, e.program_id, e.kind, e.delta, e.lots::text, coalesce((
             select -sum(r.redemption_points) from document_lines r
             where r.origin_document_id = e.cause_id and r.leg = 'return'), 0)::bigint
         from loyalty_entries e
         where e.cause_id = any ($1) and e.cause_type = 'document' and e.kind in ('accrual', 'redemption')
         order by e.cause_id, e.program_id",
    )
    .bind(documents)
    .fetch_all(conn)
    .await?;
    let (mut accrued, mut spent): Points = Default::default();
    for (document, program, kind, delta, lots, restored) in rows {
        if kind == "accrual" {
            accrued.entry(document).or_default().push(Accrued { program_id: program.into(), points: delta });
            continue;
        }
        let lots: Vec<StoredLot> = serde_json::from_str(&lots).map_err(decode)?;
        let consumed = lots.into_iter().map(|lot| LotDelta {
            lot_id: LotId(lot.lot_id),
            delta: lot.delta,
            earned_at: lot.earned_at,
            available_at: lot.available_at,
            expires_at: lot.expires_at,
        });
        let spent = spent.entry(document).or_default();
        spent.push(Spent { program_id: program.into(), consumed: consumed.collect(), restored });
    }
    Ok((accrued, spent))
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    account_id: Uuid,
    program_id: Uuid,
    points: i64,
    version: i64,
    step_minor: i64,
    points_per_step: i64,
    expires_after_days: Option<i32>,
    pending_days: Option<i32>,
}

#[derive(sqlx::FromRow)]
struct LotRow {
    lot_id: Uuid,
    account_id: Uuid,
    cause_id: Uuid,
    earned_at: DateTime<Utc>,
    available_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    points: i64,
    remaining: i64,
}

/// A member's accounts with their open lots. For a commit they are locked before.
pub async fn accounts(conn: &mut PgConnection, customer: Uuid) -> Result<Vec<Account>, sqlx::Error> {
    let accounts: Vec<AccountRow> = sqlx::query_as(
        "select a.account_id, a.program_id, a.points, a.version, p.step_minor, p.points_per_step, p.expires_after_days, p.pending_days
         from loyalty_accounts a join loyalty_programs p using (program_id)
         where a.customer_id = $1 order by a.account_id",
    )
    .bind(customer)
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = accounts.iter().map(|account| account.account_id).collect();
    let lots: Vec<LotRow> = sqlx::query_as(
        "select lot_id, account_id, cause_id, earned_at, available_at, expires_at, points, remaining
         from loyalty_lots where account_id = any ($1) and remaining <> 0 order by earned_at, lot_id",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let account = |row: AccountRow| Account {
        account_id: row.account_id.into(),
        program_id: row.program_id.into(),
        points: row.points,
        version: row.version,
        rule: EarnRule { step_minor: row.step_minor, points_per_step: row.points_per_step },
        expires_after_days: row.expires_after_days,
        pending_days: row.pending_days,
        lots: lots.iter().filter(|lot| lot.account_id == row.account_id).map(lot).collect(),
    };
    Ok(accounts.into_iter().map(account).collect())
}

fn lot(row: &LotRow) -> Lot {
    Lot {
        lot_id: LotId(row.lot_id),
        cause_id: row.cause_id,
        earned_at: row.earned_at,
        available_at: row.available_at,
        expires_at: row.expires_at,
        points: row.points,
        remaining: row.remaining,
    }
}

/// Makes the system locations that are missing; their parent is locked.
pub async fn make_system_locations(
    conn: &mut PgConnection,
    parent: LocationId,
    kinds: &[&str],
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = kinds.iter().map(|kind| system_location(parent, kind).0).collect();
    sqlx::query(
        "insert into system_locations (location_id, parent_location_id, kind)
         select id, $1, kind from unnest($2::uuid[], $3::text[]) as row (id, kind) order by id on conflict do nothing",
    )
    .bind(parent.0)
    .bind(ids)
    .bind(kinds)
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks stock rows in their order; what is not there never moved. All of them are of one location, which is locked, or of
/// its system locations, which are locked with it.
pub async fn lock_stock(
    conn: &mut PgConnection,
    rows: &[(LocationId, VariantId)],
) -> Result<HashMap<(LocationId, VariantId), StockRow>, sqlx::Error> {
    let (locations, variants): (Vec<Uuid>, Vec<Uuid>) = rows.iter().map(|(at, of)| (at.0, of.0)).unzip();
    let found: Vec<(Uuid, Uuid, i64, i64, Option<i64>, i64)> = sqlx::query_as(
        "select l.location_id, l.variant_id, l.qty, l.version, l.threshold, l.hysteresis
         from unnest($1::uuid[], $2::uuid[]) as wanted (location_id, variant_id)
         join stock_levels l using (location_id, variant_id)
         order by l.location_id, l.variant_id for no key update of l",
    )
    .bind(locations)
    .bind(variants)
    .fetch_all(conn)
    .await?;
    let row = |(location, variant, qty, version, threshold, hysteresis)| {
        let level = StockRow { qty, version, threshold, hysteresis, exists: true, is_changed: false };
        ((LocationId(location), VariantId(variant)), level)
    };
    Ok(found.into_iter().map(row).collect())
}

/// Writes the levels that changed.
pub async fn put_levels(
    conn: &mut PgConnection,
    stock: &HashMap<(LocationId, VariantId), StockRow>,
) -> Result<(), sqlx::Error> {
    let mut changed: Vec<_> = stock.iter().filter(|(_, row)| row.is_changed).collect();
    changed.sort_unstable_by_key(|(key, _)| **key);
    sqlx::query(
        "insert into stock_levels (location_id, variant_id, qty, version)
         select * from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
         on conflict (location_id, variant_id) do update set qty = excluded.qty, version = excluded.version",
    )
    .bind(changed.iter().map(|((location, _), _)| location.0).collect::<Vec<_>>())
    .bind(changed.iter().map(|((_, variant), _)| variant.0).collect::<Vec<_>>())
    .bind(changed.iter().map(|(_, row)| row.qty).collect::<Vec<_>>())
    .bind(changed.iter().map(|(_, row)| row.version).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// What of a document is in Postgres alone.
pub struct Stored<'a> {
    pub document: &'a DocumentCommitted,
    /// Tenders that money went back to, in the order of the tenders.
    pub paid_back: &'a [Option<TenderRef>],
    /// Shares of the units of what was sold, by line.
    pub unit_shares: &'a [(i32, String)],
    pub content_hash: &'a [u8; 32],
    pub digest: &'a [u8; 32],
    pub trace: &'a str,
    pub response: &'a str,
    pub trace_id: &'a str,
}

const INSERT_DOCUMENT: &str = "
    insert into documents (
        document_id, epoch, kind, location_id, location_seq, origin_location_id, terminal_id, terminal_seq, register_id,
        series_epoch, receipt_number, cashier_id, lease_id, approval_id, customer_id, occurred_at_raw, sent_at, occurred_at,
        recorded_at, business_date, slot, currency, rounding_mode, cash_step, subtotal_minor, discount_minor, tax_minor,
        total_minor, rounding_minor, change_minor, flags, reason, content_hash, hash_version, document_digest,
        pricing_version, price_trace, response, trace_id)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $16, $18, $19, $20, $21, $22, $23,
            $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36::jsonb, $37, $38)";

// The fields of a record's lines have the names of the columns.
const INSERT_LINES: &str = "
    insert into document_lines (
        document_id, line_no, location_id, leg, variant_id, product_id, sku, name, origin_document_id, origin_line_no,
        origin_location_id, first_unit, last_unit, qty, unit, is_measured, tracks_stock, disposition, list_price_minor,
        unit_price_minor, override_reason, extended_minor, discounts, discount_minor, redemption_minor, redemption_points,
        taxes, tax_minor, added_tax_minor, net_minor, payable_minor, unit_cost, liability_account_id, unit_shares)
    select $1, l.line_no, $2, l.leg, l.variant_id, l.product_id, l.sku, l.name, l.origin_document_id, l.origin_line_no,
        l.origin_location_id, l.first_unit, l.last_unit, l.qty, l.unit, l.is_measured, l.tracks_stock, l.disposition,
        l.list_price_minor, l.unit_price_minor, l.override_reason, l.extended_minor, l.discounts, l.discount_minor,
        l.redemption_minor, l.redemption_points, l.taxes, l.tax_minor, l.added_tax_minor, l.net_minor, l.payable_minor,
        l.unit_cost, l.liability_account_id, coalesce(u.shares::jsonb, '{}')
    from jsonb_populate_recordset(null::document_lines, $3::jsonb) l
    left join unnest($4::integer[], $5::text[]) as u (line_no, shares) on u.line_no = l.line_no";

const INSERT_TENDERS: &str = "
    insert into document_tenders (
        document_id, tender_no, kind, amount_minor, tip_minor, state, psp_reference, card_brand, card_last_four, card_expiry,
        liability_account_id, origin_document_id, origin_tender_no)
    select $1, t.tender_no, t.kind, t.amount_minor, t.tip_minor, t.state, t.psp_reference, t.card_brand, t.card_last_four,
        t.card_expiry, t.liability_account_id, b.document_id, b.to_no
    from jsonb_populate_recordset(null::document_tenders, $2::jsonb) t
    left join unnest($3::integer[], $4::uuid[], $5::integer[]) as b (tender_no, document_id, to_no) using (tender_no)";

/// Writes document, lines and tenders, and takes the location's number.
pub async fn insert_document(conn: &mut PgConnection, stored: &Stored<'_>) -> Result<(), sqlx::Error> {
    let d = stored.document;
    sqlx::query("update streams set last_seq = $2 where stream_id = $1")
        .bind(d.location_id.0)
        .bind(d.location_seq)
        .execute(&mut *conn)
        .await?;
    sqlx::query(INSERT_DOCUMENT)
        .bind(d.document_id.0)
        .bind(d.epoch)
        .bind(kind_text(d))
        .bind(d.location_id.0)
        .bind(d.location_seq)
        .bind(d.origin_location_id.map(|it| it.0))
        .bind(d.terminal_id.0)
        .bind(d.terminal_seq)
        .bind(&d.register_id)
        .bind(d.series_epoch)
        .bind(d.receipt_number)
        .bind(d.cashier_id.0)
        .bind(d.lease_id)
        .bind(d.approval_id)
        .bind(d.customer_id.map(|it| it.0))
        .bind(d.occurred_at.to_utc())
        .bind(d.sent_at.map(|at| at.to_utc()))
        .bind(d.recorded_at.to_utc())
        .bind(d.business_date.to_date())
        .bind(d.slot as i16)
        .bind(&d.currency)
        .bind(&d.rounding_mode)
        .bind(d.cash_step)
        .bind(d.subtotal_minor)
        .bind(d.discount_minor)
        .bind(d.tax_minor)
        .bind(d.total_minor)
        .bind(d.rounding_minor)
        .bind(d.change_minor)
        .bind(&d.flags)
        .bind(&d.reason)
        .bind(&stored.content_hash[..])
        .bind(d.hash_version as i16)
        .bind(&stored.digest[..])
        .bind(d.pricing_version)
        .bind(stored.trace)
        .bind(stored.response)
        .bind(stored.trace_id)
        .execute(&mut *conn)
        .await?;
    sqlx::query(INSERT_LINES)
        .bind(d.document_id.0)
        .bind(d.location_id.0)
        .bind(to_json(&d.lines)?)
        .bind(stored.unit_shares.iter().map(|(line_no, _)| *line_no).collect::<Vec<_>>())
        .bind(stored.unit_shares.iter().map(|(_, shares)| shares.as_str()).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    let back: Vec<(i32, TenderRef)> =
        d.tenders.iter().zip(stored.paid_back).filter_map(|(tender, to)| Some((tender.tender_no, (*to)?))).collect();
    sqlx::query(INSERT_TENDERS)
        .bind(d.document_id.0)
        .bind(to_json(&d.tenders)?)
        .bind(back.iter().map(|(no, _)| *no).collect::<Vec<_>>())
        .bind(back.iter().map(|(_, to)| to.document_id).collect::<Vec<_>>())
        .bind(back.iter().map(|(_, to)| to.tender_no).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

fn kind_text(document: &DocumentCommitted) -> &'static str {
    use schemas::events::DocumentKind::*;
    match document.kind {
        Sale => "sale",
        Refund => "refund",
        Exchange => "exchange",
        Void => "void",
        Unknown => "unknown",
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<Value, sqlx::Error> {
    serde_json::to_value(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Writes one entry of an account: the balance, the entry, and its lots. The account is locked.
pub async fn insert_entry(conn: &mut PgConnection, entry: &LoyaltyPosted, posted: &Posted) -> Result<(), sqlx::Error> {
    let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Micros, false);
    let lots: Vec<Value> = posted
        .lots
        .iter()
        .map(|lot| {
            json!({"lot_id": lot.lot_id, "delta": lot.delta, "earned_at": instant(lot.earned_at),
                   "available_at": instant(lot.available_at), "expires_at": lot.expires_at.map(instant)})
        })
        .collect();
    sqlx::query(
        "with a as (update loyalty_accounts set points = $9, version = $2 where account_id = $1)
         insert into loyalty_entries (account_id, version, epoch, location_id, location_seq, program_id, kind, delta,
                                      points_after, lots, cause_type, cause_id, actor, approval_id, effective_at, recorded_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(entry.account_id.0)
    .bind(entry.version)
    .bind(entry.epoch)
    .bind(entry.location_id.map(|it| it.0))
    .bind(entry.location_seq)
    .bind(entry.program_id.0)
    .bind(&entry.kind)
    .bind(entry.delta)
    .bind(entry.points_after)
    .bind(Value::Array(lots))
    .bind(&entry.cause_type)
    .bind(entry.cause_id)
    .bind(entry.actor.0)
    .bind(entry.approval_id)
    .bind(entry.effective_at.to_utc())
    .bind(entry.recorded_at.to_utc())
    .execute(&mut *conn)
    .await?;
    // A lot that is there changes; one that is not is made by this entry.
    for lot in &posted.lots {
        sqlx::query(
            "insert into loyalty_lots (lot_id, account_id, cause_id, earned_at, available_at, expires_at, points, remaining)
             values ($1, $2, $3, $4, $5, $6, $7, $7)
             on conflict (lot_id) do update set remaining = loyalty_lots.remaining + excluded.remaining",
        )
        .bind(lot.lot_id.0)
        .bind(entry.account_id.0)
        .bind(posted.cause_id)
        .bind(lot.earned_at)
        .bind(lot.available_at)
        .bind(lot.expires_at)
        .bind(lot.delta)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// The location, kind and stored answer of one document.
pub async fn find(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<(Uuid, String, String)>, sqlx::Error> {
    sqlx::query_as("select location_id, kind, response from documents where document_id = $1")
        .bind(id)
        .fetch_optional(executor)
        .await
}

/// What a list of documents is about.
pub struct Wanted<'a> {
    pub locations: Option<Vec<Uuid>>,
    pub business_date: Option<chrono::NaiveDate>,
    pub kind: Option<&'a str>,
    /// Documents that took something back of this one.
    pub origin: Option<Uuid>,
}

/// Stored answers of documents by id, at most `limit`.
pub async fn list(
    executor: impl PgExecutor<'_>,
    wanted: &Wanted<'_>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as(
        "select d.document_id, d.response from documents d
         where ($1::uuid[] is null or d.location_id = any ($1)) and ($2::date is null or d.business_date = $2)
           and ($3::text is null or d.kind = $3)
           and ($4::uuid is null or exists (
               select from document_lines l where l.document_id = d.document_id and l.origin_document_id = $4))
           and ($5::uuid is null or d.document_id > $5)
         order by d.document_id limit $6",
    )
    .bind(&wanted.locations)
    .bind(wanted.business_date)
    .bind(wanted.kind)
    .bind(wanted.origin)
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await
}
