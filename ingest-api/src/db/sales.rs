//! The writes of a batch of accepted sales: every row of every table in one statement of column arrays.

use chrono::{DateTime, NaiveDate, Utc};
use schemas::money::BadCurrency;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::limits::{self, Done};
use super::locks::SALES_ROUTE;
use super::loyalty::{self, NewEntry};
use super::outbox::Act;
use crate::pricing::{PricedLine, unit_shares};
use crate::sales::acts;
use crate::sales::decide::Accepted;
use crate::sales::events::{CAUSE_DOCUMENT, Stamp, TENDER_CAPTURED, act};
use crate::sales::explain::{Stored, TraceStep};
use crate::sales::hash::HASH_VERSION;
use crate::sales::known::Known;
use crate::sales::price::PricedSale;
use crate::sales::redemption::Entry;
use crate::sales::types::ValidSale;

/// Where a request came from, for audit and tracing.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub request_id: String,
    /// W3C `traceparent`; empty when there is none.
    pub trace_parent: String,
    pub address: String,
}

impl Origin {
    fn trace_id(&self) -> &str {
        self.trace_parent.get(3..35).unwrap_or_default()
    }
}

/// One accepted sale with all that is written of it.
pub struct Sold<'a> {
    pub sale: &'a ValidSale,
    pub key: &'a str,
    pub origin: &'a Origin,
    pub priced: &'a PricedSale,
    pub accepted: Accepted,
}

/// Writes the sales of one batch under the locks of [`super::locks::lock_and_read`]; `known` is the state
/// after the last of them. Outbox ids are taken here, after every lock.
pub async fn insert(conn: &mut PgConnection, sold: &[Sold<'_>], known: &Known) -> Result<(), sqlx::Error> {
    let stamp = Stamp { epoch: known.epoch, recorded_at: known.recorded_at.into() };
    let (documents, lines, tenders) = (Documents::of(sold), Lines::of(sold), Tenders::of(sold));
    let (movements, entries) = (Movements::of(sold), Entries::of(sold));
    let (levels, balances) = (Levels::of(known), Balances::of(known));
    let streams = Streams::of(sold, known);
    let acts: Vec<Act> =
        sold.iter().map(|s| act(s.sale, s.priced, &s.accepted, stamp, &s.origin.trace_parent)).collect();
    let outbox = Outbox::of(&acts);
    let query = sqlx::query(statement()).bind(known.epoch).bind(known.recorded_at).bind(HASH_VERSION).bind(SALES_ROUTE);
    let query = documents.bind(query);
    let query = lines.bind(query);
    let query = tenders.bind(query);
    let query = movements.bind(query);
    let query = entries.bind(query);
    let query = levels.bind(query);
    let query = balances.bind(query);
    let query = streams.bind(query);
    let query = outbox.bind(query);
    let leases = rarely(sold, |sold| sold.sale.lease_id);
    let approvals = rarely(sold, |sold| sold.accepted.approval_id());
    let approvers = rarely(sold, |sold| sold.accepted.approval.as_ref().map(|approval| approval.approver));
    let reasons =
        rarely(sold, |Sold { accepted, .. }| (!accepted.acts.is_empty()).then(|| acts::described(&accepted.acts)));
    let query = query.bind(leases).bind(approvals).bind(approvers).bind(reasons);
    let redeemed = Redeemed::of(sold);
    redeemed.bind(query).bind(pending(sold)).execute(conn).await?;
    Ok(())
}

/// A column that most batches have nothing in: nothing is sent then, and every place of an empty array is null.
fn rarely<T>(sold: &[Sold<'_>], of: impl Fn(&Sold<'_>) -> Option<T>) -> Vec<Option<T>> {
    let column: Vec<Option<T>> = sold.iter().map(of).collect();
    if column.iter().any(Option::is_some) { column } else { Vec::new() }
}

/// When the points of the plain entries can be spent; nothing is sent where it is at once.
fn pending(sold: &[Sold<'_>]) -> Vec<Option<DateTime<Utc>>> {
    let of = |sold: &Sold<'_>| {
        let lots = plain(sold).filter_map(|entry| entry.lots.first());
        lots.map(|lot| (lot.available_at != lot.earned_at).then_some(lot.available_at)).collect::<Vec<_>>()
    };
    let column: Vec<Option<DateTime<Utc>>> = sold.iter().flat_map(of).collect();
    if column.iter().any(Option::is_some) { column } else { Vec::new() }
}

/// Entries that are one new lot each.
fn plain<'a>(sold: &'a Sold<'_>) -> impl Iterator<Item = &'a Entry> {
    sold.accepted.entries.iter().filter(|entry| entry.is_plain)
}

/// Writes entries that change lots which were there before; a batch without any sends nothing.
pub async fn insert_redemptions(conn: &mut PgConnection, sold: &[Sold<'_>], known: &Known) -> Result<(), sqlx::Error> {
    let of = |sold: &'_ Sold<'_>| {
        let entries = sold.accepted.entries.iter().filter(|entry| !entry.is_plain);
        let new = |entry: &Entry| NewEntry {
            account_id: entry.account_id.0,
            version: entry.version,
            location_id: Some(sold.sale.location_id().0),
            location_seq: sold.accepted.location_seq,
            program_id: entry.program_id.0,
            kind: entry.kind.as_str(),
            delta: entry.delta,
            points_after: entry.points_after,
            lots: entry.lots.clone(),
            cause_type: CAUSE_DOCUMENT,
            cause_id: sold.sale.document_id.0,
            actor: sold.sale.cashier_id.0,
            effective_at: sold.sale.cart.occurred_at,
        };
        entries.map(new).collect::<Vec<_>>()
    };
    let entries: Vec<NewEntry> = sold.iter().flat_map(of).collect();
    loyalty::insert_with_lots(conn, (known.epoch, known.recorded_at), &entries).await
}

/// Writes what limits are about, before the outbox ids are taken; a batch without such acts sends nothing.
pub async fn insert_acts(conn: &mut PgConnection, sold: &[Sold<'_>], known: &Known) -> Result<(), sqlx::Error> {
    let with_acts = sold.iter().filter(|sold| !sold.accepted.acts.is_empty());
    let done: Vec<Done<'_>> = with_acts
        .map(|Sold { sale, priced, accepted, .. }| Done {
            cause_type: CAUSE_DOCUMENT,
            cause_id: sale.document_id.0,
            location: sale.location_id(),
            user_id: sale.cashier_id.0,
            business_date: priced.moment.date,
            digest: &sale.content_hash,
            acts: &accepted.acts,
            approval: accepted.approval.as_deref(),
        })
        .collect();
    limits::insert(conn, (known.epoch, known.recorded_at), &done).await
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Columns of one relation: declares the struct and binds them in order.
macro_rules! columns {
    ($name:ident<$life:lifetime> { $($field:ident: $type:ty),* $(,)? }) => {
        #[derive(Default)]
        struct $name<$life> {
            $($field: Vec<$type>,)*
            _rows: std::marker::PhantomData<&$life ()>,
        }
        impl<$life> $name<$life> {
            fn bind<'q>(self, query: Query<'q>) -> Query<'q> where $life: 'q {
                query$(.bind(self.$field))*
            }
        }
    };
}

const INSERT: &str = include_str!("insert_sales.sql");

#[cfg(not(feature = "switches"))]
fn statement() -> &'static str {
    INSERT
}

/// Without the audit rows where they are switched off.
#[cfg(feature = "switches")]
fn statement() -> &'static str {
    use crate::switches::{Part, is_off};
    static WITHOUT_AUDIT: std::sync::LazyLock<String> = std::sync::LazyLock::new(without_audit);
    if is_off(Part::Audit) { &WITHOUT_AUDIT } else { INSERT }
}

/// The statement with the audit rows of no document.
#[cfg(any(test, feature = "switches"))]
fn without_audit() -> String {
    let (before, audit) = INSERT.split_once("insert into audit_log").unwrap_or((INSERT, ""));
    let (rows, after) = audit.split_once("from d\n").unwrap_or((audit, ""));
    format!("{before}insert into audit_log{rows}from d limit 0\n{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_rows_alone_can_be_left_out() {
        let without = without_audit();
        assert_eq!(without.len(), INSERT.len() + " limit 0".len());
        let (_, audit) = without.split_once("insert into audit_log").unwrap();
        assert!(audit.split_once("), insert_lines").unwrap().0.contains("from d limit 0\n"));
    }
}

columns!(Documents<'a> {
    document_id: Uuid, location_id: Uuid, location_seq: i64, terminal_id: Uuid, terminal_seq: i64,
    register_id: &'a str, series_epoch: i32, receipt_number: i64, cashier_id: Uuid, customer_id: Option<Uuid>,
    sent_at: Option<DateTime<Utc>>, occurred_at: DateTime<Utc>, business_date: NaiveDate, slot: i16,
    currency: &'a str, rounding_mode: &'a str, cash_step: i64, subtotal: i64, discount: i64, tax: i64, total: i64,
    rounding: i64, change: i64, flags: String, content_hash: &'a [u8], document_digest: &'a [u8],
    pricing_version: i64, price_trace: &'a str, response: &'a str, trace_id: &'a str,
    principal: String, key: &'a str, audit_id: Uuid, request_id: &'a str, address: &'a str, actor_role: &'a str,
});

impl<'a> Documents<'a> {
    fn of(sold: &'a [Sold<'a>]) -> Self {
        let mut rows = Documents::default();
        for Sold { sale, key, origin, priced, accepted } in sold {
            let figures = &priced.priced;
            rows.document_id.push(sale.document_id.0);
            rows.location_id.push(sale.location_id().0);
            rows.location_seq.push(accepted.location_seq);
            rows.terminal_id.push(sale.terminal_id.0);
            rows.terminal_seq.push(sale.terminal_seq);
            rows.register_id.push(&accepted.register_id);
            rows.series_epoch.push(sale.receipt.series_epoch);
            rows.receipt_number.push(sale.receipt.number);
            rows.cashier_id.push(sale.cashier_id.0);
            rows.customer_id.push(sale.customer_id.map(|customer| customer.0));
            rows.sent_at.push(sale.sent_at);
            rows.occurred_at.push(sale.cart.occurred_at);
            rows.business_date.push(priced.moment.date);
            rows.slot.push(priced.moment.slot);
            rows.currency.push(&figures.location.currency);
            rows.rounding_mode.push(figures.location.rounding_mode.as_str());
            rows.cash_step.push(figures.location.cash_step);
            rows.subtotal.push(figures.subtotal_minor);
            rows.discount.push(figures.discount_minor);
            rows.tax.push(figures.tax_minor);
            rows.total.push(figures.total_minor);
            rows.rounding.push(priced.settled.rounding_minor);
            rows.change.push(priced.settled.change_minor);
            rows.flags.push(accepted.flags.join(","));
            rows.content_hash.push(&sale.content_hash);
            rows.document_digest.push(&accepted.document_digest);
            rows.pricing_version.push(figures.catalog_version);
            rows.price_trace.push(&figures.trace);
            rows.response.push(&accepted.response);
            rows.trace_id.push(origin.trace_id());
            rows.principal.push(sale.terminal_id.to_string());
            rows.key.push(key);
            rows.audit_id.push(Uuid::now_v7());
            rows.request_id.push(&origin.request_id);
            rows.address.push(&origin.address);
            rows.actor_role.push(&accepted.cashier_roles);
        }
        rows
    }
}

columns!(Lines<'a> {
    document_id: Uuid, line_no: i32, location_id: Uuid, variant_id: Uuid, product_id: Uuid, sku: &'a str,
    name: &'a str, qty: i64, unit: &'a str, is_measured: bool, tracks_stock: bool, list_price: i64, unit_price: i64,
    override_reason: Option<&'a str>, extended: i64, discounts: String, discount: i64, taxes: String, tax: i64,
    added_tax: i64, net: i64, payable: i64, unit_cost: Option<i64>, unit_shares: String,
});

impl<'a> Lines<'a> {
    fn of(sold: &'a [Sold<'a>]) -> Self {
        let mut rows = Lines::default();
        for Sold { sale, priced, .. } in sold {
            for line in &priced.priced.lines {
                rows.document_id.push(sale.document_id.0);
                rows.line_no.push(line.line_no);
                rows.location_id.push(sale.location_id().0);
                rows.variant_id.push(line.variant.variant_id.0);
                rows.product_id.push(line.variant.product_id.0);
                rows.sku.push(&line.variant.sku);
                rows.name.push(&line.variant.name);
                rows.qty.push(line.qty);
                rows.unit.push(&line.variant.unit);
                rows.is_measured.push(line.variant.is_measured);
                rows.tracks_stock.push(line.variant.tracks_stock);
                rows.list_price.push(line.list_price_minor);
                rows.unit_price.push(line.unit_price_minor);
                rows.override_reason.push(line.override_reason.as_deref());
                rows.extended.push(line.extended_minor);
                rows.discounts.push(discounts_json(sale, line));
                rows.discount.push(line.discount_minor);
                rows.taxes.push(taxes_json(line));
                rows.tax.push(line.tax_minor);
                rows.added_tax.push(line.added_tax_minor);
                rows.net.push(line.net_minor);
                rows.payable.push(line.payable_minor);
                rows.unit_cost.push(line.variant.unit_cost);
                rows.unit_shares.push(unit_shares(line));
            }
        }
        rows
    }
}

fn discounts_json(sale: &ValidSale, line: &PricedLine) -> String {
    if line.discounts.is_empty() {
        return "[]".to_owned();
    }
    let stored = line.discounts.iter().map(|discount| {
        json!({
            "discount_id": discount.id(sale.document_id.0, line.line_no),
            "kind": discount.kind,
            "name": &*discount.name,
            "amount_minor": discount.amount_minor,
        })
    });
    serde_json::Value::from_iter(stored).to_string()
}

#[derive(Serialize)]
struct StoredTax<'a> {
    tax_id: Uuid,
    name: &'a str,
    rate: &'a str,
    base_minor: i64,
    inclusive: bool,
    scope: &'static str,
    amount_minor: i64,
}

fn taxes_json(line: &PricedLine) -> String {
    let taxes: Vec<StoredTax<'_>> = line
        .taxes
        .iter()
        .map(|tax| StoredTax {
            tax_id: tax.tax_id,
            name: &tax.name,
            rate: &tax.rate,
            base_minor: tax.base_minor,
            inclusive: tax.is_inclusive,
            scope: if tax.is_per_order { "order" } else { "line" },
            amount_minor: tax.amount_minor,
        })
        .collect();
    // Numbers and texts always serialise.
    serde_json::to_string(&taxes).unwrap_or_default()
}

columns!(Tenders<'a> {
    document_id: Uuid, tender_no: i32, kind: &'a str, amount: i64, state: &'a str, psp_reference: Option<&'a str>,
    card_brand: Option<&'a str>, card_last_four: Option<&'a str>, card_expiry: Option<&'a str>,
});

impl<'a> Tenders<'a> {
    fn of(sold: &'a [Sold<'a>]) -> Self {
        let mut rows = Tenders::default();
        for Sold { sale, .. } in sold {
            for (index, tender) in sale.tenders.iter().enumerate() {
                let card = tender.card.as_ref();
                rows.document_id.push(sale.document_id.0);
                rows.tender_no.push(index as i32 + 1);
                rows.kind.push(tender.kind.as_str());
                rows.amount.push(tender.amount_minor);
                rows.state.push(TENDER_CAPTURED);
                rows.psp_reference.push(card.map(|card| card.token.as_str()));
                rows.card_brand.push(card.map(|card| card.brand.as_str()));
                rows.card_last_four.push(card.map(|card| card.last_four.as_str()));
                rows.card_expiry.push(card.map(|card| card.expiry.as_str()));
            }
        }
        rows
    }
}

columns!(Movements<'a> {
    location_id: Uuid, variant_id: Uuid, version: i64, location_seq: i64, delta: i64, qty_after: i64, cause_id: Uuid,
    cause_line: i32, actor: Uuid, effective_at: DateTime<Utc>, threshold: Option<i64>, hysteresis: i64,
    unit_cost: Option<i64>,
});

impl<'a> Movements<'a> {
    fn of(sold: &'a [Sold<'a>]) -> Self {
        let mut rows = Movements::default();
        for Sold { sale, accepted, .. } in sold {
            for movement in &accepted.movements {
                rows.location_id.push(sale.location_id().0);
                rows.variant_id.push(movement.variant_id.0);
                rows.version.push(movement.version);
                rows.location_seq.push(accepted.location_seq);
                rows.delta.push(movement.delta);
                rows.qty_after.push(movement.qty_after);
                rows.cause_id.push(sale.document_id.0);
                rows.cause_line.push(movement.line_no);
                rows.actor.push(sale.cashier_id.0);
                rows.effective_at.push(sale.cart.occurred_at);
                rows.threshold.push(movement.threshold);
                rows.hysteresis.push(movement.hysteresis);
                rows.unit_cost.push(movement.unit_cost);
            }
        }
        rows
    }
}

columns!(Entries<'a> {
    account_id: Uuid, version: i64, location_id: Uuid, location_seq: i64, program_id: Uuid, points: i64,
    points_after: i64, lot_id: Uuid, cause_id: Uuid, actor: Uuid, effective_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
});

impl<'a> Entries<'a> {
    fn of(sold: &'a [Sold<'a>]) -> Self {
        let mut rows = Entries::default();
        for sold in sold {
            let Sold { sale, accepted, .. } = sold;
            for (entry, lot) in plain(sold).filter_map(|entry| Some((entry, entry.lots.first()?))) {
                rows.account_id.push(entry.account_id.0);
                rows.version.push(entry.version);
                rows.location_id.push(sale.location_id().0);
                rows.location_seq.push(accepted.location_seq);
                rows.program_id.push(entry.program_id.0);
                rows.points.push(entry.delta);
                rows.points_after.push(entry.points_after);
                rows.lot_id.push(lot.lot_id.0);
                rows.cause_id.push(sale.document_id.0);
                rows.actor.push(sale.cashier_id.0);
                rows.effective_at.push(sale.cart.occurred_at);
                rows.expires_at.push(lot.expires_at);
            }
        }
        rows
    }
}

columns!(Redeemed<'a> { redemption_minor: i64, redemption_points: i64 });

impl Redeemed<'_> {
    /// What points paid of each line, in the order of [`Lines`]; nothing where none paid for any.
    fn of(sold: &[Sold<'_>]) -> Self {
        let mut rows = Redeemed::default();
        if sold.iter().all(|sold| sold.priced.priced.redemption.is_none()) {
            return rows;
        }
        for line in sold.iter().flat_map(|sold| &sold.priced.priced.lines) {
            rows.redemption_minor.push(line.redemption_minor);
            rows.redemption_points.push(line.redemption_points);
        }
        rows
    }
}

columns!(Levels<'a> {
    old_location: Uuid, old_variant: Uuid, old_qty: i64, old_version: i64,
    new_location: Uuid, new_variant: Uuid, new_qty: i64, new_version: i64,
});

impl Levels<'_> {
    fn of(known: &Known) -> Self {
        let mut rows = Levels::default();
        for ((location, variant), row) in known.stock.iter().filter(|(_, row)| row.is_changed) {
            let (locations, variants, qtys, versions) = if row.exists {
                (&mut rows.old_location, &mut rows.old_variant, &mut rows.old_qty, &mut rows.old_version)
            } else {
                (&mut rows.new_location, &mut rows.new_variant, &mut rows.new_qty, &mut rows.new_version)
            };
            locations.push(location.0);
            variants.push(variant.0);
            qtys.push(row.qty);
            versions.push(row.version);
        }
        rows
    }
}

columns!(Balances<'a> { account_id: Uuid, points: i64, version: i64 });

impl Balances<'_> {
    fn of(known: &Known) -> Self {
        let mut rows = Balances::default();
        for account in known.accounts.values().flatten().filter(|account| account.is_changed) {
            rows.account_id.push(account.account_id.0);
            rows.points.push(account.points);
            rows.version.push(account.version);
        }
        rows
    }
}

columns!(Streams<'a> { stream_id: Uuid, last_seq: i64 });

impl Streams<'_> {
    fn of(sold: &[Sold<'_>], known: &Known) -> Self {
        let mut rows = Streams::default();
        for Sold { sale, .. } in sold {
            let location = sale.location_id();
            if let Some(last_seq) = known.last_seq.get(&location)
                && !rows.stream_id.contains(&location.0)
            {
                rows.stream_id.push(location.0);
                rows.last_seq.push(*last_seq);
            }
        }
        rows
    }
}

columns!(Outbox<'a> {
    stream_id: Uuid, seq: i64, cause_type: &'a str, cause_id: Uuid, trace_parent: &'a str, first: i32, last: i32,
    topics: &'a str, keys: &'a str, event_ids: Uuid, schema_versions: i16, bodies: &'a [u8],
});

impl<'a> Outbox<'a> {
    /// Records of all acts lie in flat columns; each act names its range, counted from 1.
    fn of(acts: &'a [Act]) -> Self {
        let mut rows = Outbox::default();
        for act in acts {
            rows.stream_id.push(act.stream_id);
            rows.seq.push(act.seq);
            rows.cause_type.push(act.cause_type);
            rows.cause_id.push(act.cause_id);
            rows.trace_parent.push(&act.trace_parent);
            rows.first.push(rows.topics.len() as i32 + 1);
            rows.topics.extend(&act.topics);
            rows.keys.extend(act.keys.iter().map(String::as_str));
            rows.event_ids.extend(&act.event_ids);
            rows.schema_versions.extend(&act.schema_versions);
            rows.bodies.extend(act.bodies.iter().map(Vec::as_slice));
            rows.last.push(rows.topics.len() as i32);
        }
        rows
    }
}

/// The location and stored answer of one sale.
pub async fn find(pool: &sqlx::PgPool, document_id: Uuid) -> Result<Option<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as("select location_id, response from documents where document_id = $1 and kind = 'sale'")
        .bind(document_id)
        .fetch_optional(pool)
        .await
}

/// Location, currency, total, tax, discount and price trace of a document.
type StoredHead = (Uuid, String, i64, i64, i64, sqlx::types::Json<Vec<TraceStep>>);

/// A document with what explains it, and its location.
pub async fn stored(conn: &mut PgConnection, document_id: Uuid) -> Result<Option<(Uuid, Stored)>, sqlx::Error> {
    let head: Option<StoredHead> = sqlx::query_as(
        "select location_id, currency, total_minor, tax_minor, discount_minor, price_trace from documents
         where document_id = $1",
    )
    .bind(document_id)
    .fetch_optional(&mut *conn)
    .await?;
    let Some((location_id, currency, total_minor, tax_minor, discount_minor, trace)) = head else { return Ok(None) };
    let lines = sqlx::query_as(
        "select line_no, name, qty, unit, is_measured, list_price_minor, unit_price_minor, override_reason, extended_minor,
                discounts, discount_minor, redemption_minor, taxes, tax_minor, added_tax_minor, payable_minor
         from document_lines where document_id = $1 order by line_no",
    )
    .bind(document_id)
    .fetch_all(conn)
    .await?;
    let currency = currency.parse().map_err(|error| sqlx::Error::Decode(Box::<BadCurrency>::new(error)))?;
    let sale_id = document_id;
    let stored = Stored { sale_id, currency, total_minor, tax_minor, discount_minor, lines, trace: trace.0 };
    Ok(Some((location_id, stored)))
}

/// Stored answers of sales by id, at most `limit`; `locations` None means every one.
pub async fn list(
    pool: &sqlx::PgPool,
    locations: Option<Vec<Uuid>>,
    business_date: Option<NaiveDate>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as(
        "select document_id, response from documents
         where ($1::uuid[] is null or location_id = any ($1)) and ($2::date is null or business_date = $2)
           and ($3::uuid is null or document_id > $3) and kind = 'sale'
         order by document_id limit $4",
    )
    .bind(locations)
    .bind(business_date)
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}
