//! A refund, exchange or void in one transaction: the location, the documents that goods come back from, stock rows and
//! accounts; everything is read after the locks; then the rows, and last the outbox row.
//!
//! The checks stand in the order of rule T9, as for a sale; a refusal rolls back and consumes no number.

use std::sync::Arc;

use runtime::pg::PgTx;
use schemas::events::{LoyaltyPosted, StockMoved};
use schemas::ids::{LocationId, VariantId};
use schemas::money::storable;

use super::body::DocumentBody;
use super::judge;
use super::origin::Origins;
use super::payout::{self, Settlement};
use super::plan::{self, Plan};
use super::points::Posted;
use super::read;
use super::records::{self, Accepted, REASON_RETURN, Stock};
use super::types::{Kind, ValidReturn};
use crate::approvals::{Settled, Standing};
use crate::audit::{self, Entry};
use crate::catalog_cache::CatalogCache;
use crate::context::Context;
use crate::db;
use crate::db::inventory;
use crate::db::limits::Done;
use crate::db::outbox::{self, Act};
use crate::error::ApiError;
use crate::pricing::unit_shares;
use crate::sales::acts;
use crate::sales::decide::{Movement, check_cashier, check_stock, identity, lease_of, move_stock, terminal_of};
use crate::sales::events::CAUSE_DOCUMENT;
use crate::sales::known::{Known, Rights};
use crate::sales::refusal::Refusal;
use crate::sales::types::ValidSale;

/// What is committed.
pub struct Input {
    pub document: ValidReturn,
    pub key: String,
    pub context: Context,
    pub catalog: Arc<CatalogCache>,
}

/// The answer's bytes, and whether they were stored now or before.
#[derive(Debug, Clone)]
pub enum Answer {
    Created(String),
    Replayed(String),
}

/// Commits the document, or finds that it was committed before.
pub async fn commit(tx: &mut PgTx, input: &Input) -> Result<Answer, ApiError> {
    let document = &input.document;
    let location = document.sale.location_id();
    if !inventory::lock_location(tx, location.0).await? {
        return Err(Refusal::field("/location_id", "unknown_location", "no such location").into());
    }
    let origins = lock_origins(tx, document).await?;
    // Whose accounts are locked: what is wrong about it is said below, in its turn.
    let customer_id = plan::customer(document, &origins).ok().flatten();
    let sale = ValidSale { customer_id, ..document.sale.clone() };
    let mut known = db::locks::lock_and_read(tx, document.kind.route(), &[(&sale, input.key.as_str())]).await?;
    if let Some(twin) = identity(&known, &sale, &input.key)? {
        return Ok(Answer::Replayed(twin.response.to_string()));
    }
    let terminal = terminal_of(&known, &sale)?;
    check_receipt(&known, &sale, &terminal.register_id)?;
    let snapshot = snapshot(tx, input, &known).await?;
    let plan = plan::plan(&snapshot, document, &origins)?;
    let settlement = settle(document, &plan, &origins)?;
    let acts = judge_acts(tx, &mut known, (document, &sale), &plan, &settlement).await?;
    let flags = flags(&known, &sale, &acts)?;
    if sale.customer_id.is_some_and(|customer| !known.accounts.contains_key(&customer)) {
        return Err(Refusal::field("/customer_id", "unknown_customer", "no such customer").into());
    }
    lock_stock(tx, &mut known, &plan).await?;
    if let Some(sold) = &plan.sold {
        check_stock(&known, location, sold)?;
    }
    check_room(&known, &plan)?;

    // From here on nothing refuses: numbers are taken.
    let last_seq = known.last_seq.get(&location).copied().unwrap_or_default();
    let approval = acts::approval_of(&sale, &acts);
    let (sold, is_oversold) = plan.sold.as_ref().map(|sold| move_stock(&mut known, location, sold)).unwrap_or_default();
    let returned = take_back(&mut known, &plan);
    let tenders = records::tenders(&document.payments, &origins);
    let digest = super::hash::document_digest(&plan.lines, &tenders);
    let accepted = Accepted {
        document,
        plan: &plan,
        settlement: &settlement,
        tenders,
        epoch: known.epoch,
        location_seq: last_seq + 1,
        recorded_at: known.recorded_at.into(),
        register_id: &terminal.register_id,
        approval_id: approval.as_ref().map(|approval| approval.jti),
        flags: is_oversold.then_some("oversold").into_iter().chain(flags).collect(),
        digest,
    };
    let posted = posted(tx, &origins, &plan, &sale).await?;
    let body = serde_json::to_string(&DocumentBody::of(&accepted, &posted)).map_err(ApiError::internal)?;
    let moves = moves(&accepted, &sold, &returned);
    let done = Done {
        cause_type: CAUSE_DOCUMENT,
        cause_id: sale.document_id.0,
        location,
        user_id: sale.cashier_id.0,
        business_date: plan.moment.date,
        digest: &sale.content_hash,
        acts: &acts,
        approval: approval.as_deref(),
    };
    db::limits::insert(tx, (known.epoch, known.recorded_at), &[done]).await?;
    write(tx, input, &known, &accepted, Written { body: &body, moves: &moves, posted: &posted, acts: &acts }).await?;
    Ok(Answer::Created(body))
}

/// Locks what goods come back from, and what that had taken goods back from; reads it in fresh statements.
async fn lock_origins(tx: &mut PgTx, document: &ValidReturn) -> Result<Origins, ApiError> {
    let named = read::named(document);
    let chains = db::returns::chains(tx, &named).await?;
    let all: Vec<_> = chains.iter().map(|(_, of)| *of).collect();
    db::returns::lock_documents(tx, &all).await?;
    Ok(db::returns::origins(tx, &named, &chains).await?)
}

fn check_receipt(known: &Known, sale: &ValidSale, register_id: &Arc<str>) -> Result<(), Refusal> {
    let receipt = (sale.location_id(), register_id.clone(), sale.receipt.series_epoch, sale.receipt.number);
    match known.documents.by_receipt(&receipt) {
        None => Ok(()),
        Some(_) => {
            let detail = format!("receipt {} of this series belongs to another document", sale.receipt.number);
            Err(Refusal::conflict("receipt_conflict", detail))
        }
    }
}

/// The catalog as it is under the lock.
async fn snapshot(
    tx: &mut PgTx,
    input: &Input,
    known: &Known,
) -> Result<Arc<crate::pricing::snapshot::Snapshot>, ApiError> {
    let snapshot = input.catalog.current();
    if (snapshot.version, snapshot.epoch) == (known.catalog_version, known.epoch) {
        return Ok(snapshot);
    }
    Ok(input.catalog.refresh_on(tx).await?)
}

/// The total as the till has it, and the money that settles it.
fn settle(document: &ValidReturn, plan: &Plan, origins: &Origins) -> Result<Settlement, Refusal> {
    if plan.total_minor != document.sale.total_minor {
        let detail = format!("the total is {}, not {}", plan.total_minor, document.sale.total_minor);
        let figures = serde_json::to_value(super::body::ReturnFigures::of(plan)).unwrap_or_default();
        let refusal = Refusal::unprocessable("total_mismatch", detail);
        let refusal = if document.kind == Kind::Refund { refusal.at("/total_minor") } else { refusal };
        return Err(refusal.with("quote", figures));
    }
    payout::settled(plan.total_minor, &document.payments, &plan.order, origins, &plan.location)
}

/// Whether the cashier may: their rights, their limits, and what the approval is good for.
async fn judge_acts(
    tx: &mut PgTx,
    known: &mut Known,
    (document, sale): (&ValidReturn, &ValidSale),
    plan: &Plan,
    settlement: &Settlement,
) -> Result<Vec<Settled>, ApiError> {
    let asked = judge::acts_of(document, sale, plan, settlement);
    let mut wanted = acts::wanted(known, std::iter::empty());
    acts::want(&mut wanted, sale, plan.moment.date, &asked);
    if !wanted.is_empty() {
        known.learn(db::limits::read(tx, &wanted).await?);
    }
    let lease = lease_of(known, sale)?;
    if !known.rights.contains_key(&(sale.cashier_id, sale.location_id())) {
        return Err(Refusal::field("/cashier_id", "unknown_cashier", "no such cashier").into());
    }
    if document.kind == Kind::Exchange {
        check_cashier(known, sale, lease)?;
        judge::check_exchange(known, sale, lease)?;
    }
    Ok(acts::settle(known, sale, plan.moment.date, asked, lease)?)
}

fn flags(known: &Known, sale: &ValidSale, acts: &[Settled]) -> Result<Vec<&'static str>, Refusal> {
    let is_stale = lease_of(known, sale)?.is_some_and(|lease| lease.is_stale_at(sale.cart.occurred_at));
    let is_over = acts.iter().any(|act| act.standing == Standing::OverLimit);
    Ok([(is_stale, "stale_lease"), (is_over, "over_limit")]
        .into_iter()
        .filter_map(|(is, flag)| is.then_some(flag))
        .collect())
}

/// Places of the goods that come back: stock row, line, quantity, cost.
fn places(plan: &Plan) -> Vec<(Stock, VariantId, i32, i64, Option<i64>)> {
    let legs = plan.returned().iter().filter(|leg| leg.tracks_stock);
    let place = |disposition: Option<&str>| {
        use super::types::Disposition::{Inspect, Resellable, Waste};
        let known = [Resellable, Inspect, Waste].into_iter().find(|it| Some(it.as_str()) == disposition);
        Stock::of(plan.location.location_id, known.unwrap_or(Resellable))
    };
    legs.map(|leg| (place(leg.disposition.as_deref()), leg.variant_id, leg.line_no, -leg.qty, leg.unit_cost)).collect()
}

/// Stock rows that goods come back to; system locations are made when they are first needed.
async fn lock_stock(tx: &mut PgTx, known: &mut Known, plan: &Plan) -> Result<(), ApiError> {
    let places = places(plan);
    let aside: Vec<&str> = plan
        .returned()
        .iter()
        .filter(|leg| leg.tracks_stock)
        .filter_map(|leg| leg.disposition.as_deref())
        .filter(|kind| *kind != super::types::Disposition::Resellable.as_str())
        .collect();
    if !aside.is_empty() {
        db::returns::make_system_locations(tx, plan.location.location_id, &aside).await?;
    }
    let rows: Vec<(LocationId, VariantId)> =
        places.iter().map(|(at, variant, ..)| (at.location_id, *variant)).collect();
    if !rows.is_empty() {
        known.stock.extend(db::returns::lock_stock(tx, &rows).await?);
    }
    Ok(())
}

/// Every level has to be one that every store can hold.
fn check_room(known: &Known, plan: &Plan) -> Result<(), Refusal> {
    let mut after = std::collections::HashMap::new();
    for (at, variant, _, qty, _) in places(plan) {
        let key = (at.location_id, variant);
        let level = after.entry(key).or_insert_with(|| known.stock.get(&key).map_or(0, |row| row.qty));
        *level = level.saturating_add(qty);
        if storable(*level).is_err() {
            return Err(Refusal::field("/lines", "overflow", "the quantities are out of range"));
        }
    }
    Ok(())
}

/// One movement for each line that came back.
fn take_back(known: &mut Known, plan: &Plan) -> Vec<(Stock, Movement)> {
    let back = places(plan).into_iter().map(|(at, variant, line_no, qty, unit_cost)| {
        let row = known.stock.entry((at.location_id, variant)).or_default();
        (at, records::back_into(row, variant, line_no, qty, unit_cost))
    });
    back.collect()
}

async fn posted(tx: &mut PgTx, origins: &Origins, plan: &Plan, sale: &ValidSale) -> Result<Vec<Posted>, ApiError> {
    let Some(customer) = sale.customer_id else { return Ok(Vec::new()) };
    let accounts = db::returns::accounts(tx, customer.0).await?;
    Ok(accounts.iter().flat_map(|account| read::posted(account, origins, plan, sale)).collect())
}

fn moves(accepted: &Accepted<'_>, sold: &[Movement], returned: &[(Stock, Movement)]) -> Vec<StockMoved> {
    let here = Stock::at(accepted.plan.location.location_id);
    let sold = sold.iter().map(|movement| accepted.moved(movement, here, "sale"));
    let returned = returned.iter().map(|(at, movement)| accepted.moved(movement, *at, REASON_RETURN));
    sold.chain(returned).collect()
}

/// What is written beside the document.
struct Written<'a> {
    body: &'a str,
    moves: &'a [StockMoved],
    posted: &'a [Posted],
    acts: &'a [Settled],
}

async fn write(
    tx: &mut PgTx,
    input: &Input,
    known: &Known,
    accepted: &Accepted<'_>,
    written: Written<'_>,
) -> Result<(), ApiError> {
    let (document, sale, plan) = (accepted.document, &accepted.document.sale, accepted.plan);
    let event = accepted.document();
    let shares =
        plan.sold.iter().flat_map(|sold| sold.priced.lines.iter().map(|line| (line.line_no, unit_shares(line))));
    let stored = db::returns::Stored {
        document: &event,
        paid_back: &document.payments.iter().map(|payment| payment.origin).collect::<Vec<_>>(),
        unit_shares: &shares.collect::<Vec<_>>(),
        content_hash: &sale.content_hash,
        digest: &accepted.digest,
        trace: &plan::trace(plan, plan.sold.as_ref().map(|sold| &sold.priced)),
        response: written.body,
        trace_id: input.context.trace_id(),
    };
    db::returns::insert_document(tx, &stored).await?;
    inventory::insert_moved(tx, written.moves).await?;
    db::returns::put_levels(tx, &known.stock).await?;
    let customer = plan.customer_id.unwrap_or_default();
    let entries: Vec<LoyaltyPosted> = written.posted.iter().map(|entry| accepted.posted(customer, entry)).collect();
    for (entry, posted) in entries.iter().zip(written.posted) {
        db::returns::insert_entry(tx, entry, posted).await?;
    }
    let key = (&*sale.terminal_id.to_string(), document.kind.route(), &*input.key);
    inventory::insert_key(tx, key, &sale.content_hash, "").await?;
    audit_row(tx, input, known, accepted, written.acts).await?;
    let location = sale.location_id().0;
    let mut act =
        Act::new(location, accepted.location_seq, CAUSE_DOCUMENT, sale.document_id.0, &input.context.trace_parent);
    act.push(&event);
    written.moves.iter().for_each(|moved| act.push(moved));
    entries.iter().for_each(|entry| act.push(entry));
    outbox::append(tx, &act, known.epoch, known.recorded_at).await?;
    Ok(())
}

/// The row of the act: the cashier's, at this terminal, with the reason and what limits were about.
async fn audit_row(
    tx: &mut PgTx,
    input: &Input,
    known: &Known,
    accepted: &Accepted<'_>,
    acts: &[Settled],
) -> Result<(), ApiError> {
    let (document, sale) = (accepted.document, &accepted.document.sale);
    let rights = known.rights.get(&(sale.cashier_id, sale.location_id()));
    let approver = acts::approval_of(sale, acts).map(|approval| approval.approver);
    let described = acts::described(acts);
    let reason =
        if described.is_empty() { document.reason.clone() } else { format!("{}; {described}", document.reason) };
    let entry = Entry {
        location: Some(sale.location_id()),
        actor: sale.cashier_id.0,
        role: rights.map(|rights: &Rights| rights.roles.to_string()).unwrap_or_default(),
        approver,
        action: document.kind.action(),
        target: format!("{}/{}", document.kind.as_str(), sale.document_id),
        before: None,
        after: Some(accepted.digest),
        reason: &reason,
        terminal: Some(sale.terminal_id.0),
        is_refused: false,
    };
    Ok(audit::record(tx, &input.context, entry).await?)
}
