//! From the wire forms to the valid type: every value in range, each wrong place named by a JSON pointer.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use schemas::ids::{LocationId, TerminalId};
use schemas::time::Timestamp;

use super::hash;
use super::types::{
    Head, Kind, NewExchange, NewExchangePreview, NewPayment, NewRefund, NewRefundPreview, NewReturnLine, NewVoid,
    Payment, Returned, ValidReturn,
};
use crate::approvals::{Presented, TOKEN_CHARS_MAX};
use crate::error::FieldProblem;
use crate::pricing::{Cart, CartLine, LINES_MAX, QTY_MAX};
use crate::sales::check::{
    AMOUNT_MAX, Findings, NUMBER_MAX, TENDERS_MAX, check_card, check_instant, check_lines, micros,
};
use crate::sales::types::{NewLine, Receipt, TenderKind, ValidSale, cart_line};

type Checked<T> = Result<T, Vec<FieldProblem>>;

/// The refund of `terminal`, or every wrong place. `now` is the server's clock.
pub fn valid_refund(mut new: NewRefund, terminal: TerminalId, now: DateTime<Utc>) -> Checked<ValidReturn> {
    let mut findings = Findings::default();
    let head = checked_head(&mut findings, new.head(), now);
    check_returns(&mut findings, &new.lines, Kind::Refund);
    check_payments(&mut findings, &new.tenders);
    check_total(&mut findings, new.total_minor);
    findings.that(new.total_minor <= 0, || "/total_minor".to_owned(), "a refund pays out: 0 or below");
    finish(findings, || {
        valid(
            Kind::Refund,
            head,
            terminal,
            Parts { total_minor: new.total_minor, ..Parts::of(&new.lines, new.tenders) },
        )
    })
}

/// As [`valid_refund`].
pub fn valid_exchange(mut new: NewExchange, terminal: TerminalId, now: DateTime<Utc>) -> Checked<ValidReturn> {
    let mut findings = Findings::default();
    let head = checked_head(&mut findings, new.head(), now);
    check_returns(&mut findings, &new.returns, Kind::Exchange);
    check_sold(&mut findings, &new.lines, &new.returns);
    check_payments(&mut findings, &new.tenders);
    check_total(&mut findings, new.total_minor);
    finish(findings, || {
        let lines = new.lines.iter().map(cart_line).collect();
        let customer_id = new.customer_id;
        let parts = Parts { lines, customer_id, total_minor: new.total_minor, ..Parts::of(&new.returns, new.tenders) };
        valid(Kind::Exchange, head, terminal, parts)
    })
}

/// As [`valid_refund`].
pub fn valid_void(mut new: NewVoid, terminal: TerminalId, now: DateTime<Utc>) -> Checked<ValidReturn> {
    let mut findings = Findings::default();
    let head = checked_head(&mut findings, new.head(), now);
    finish(findings, || valid(Kind::Void, head, terminal, Parts::of(&[], Vec::new())))
}

/// A refund as far as its figures go.
pub fn valid_refund_preview(new: NewRefundPreview, currency: &str, now: DateTime<Utc>) -> Checked<ValidReturn> {
    let mut findings = Findings::default();
    check_instant(&mut findings, new.occurred_at.unwrap_or(now), now);
    check_returns(&mut findings, &new.lines, Kind::Refund);
    finish(findings, || {
        let head = previewed(new.location_id, currency, new.occurred_at.unwrap_or(now));
        valid(Kind::Refund, head, TerminalId::NIL, Parts::of(&new.lines, Vec::new()))
    })
}

/// An exchange as far as its figures go.
pub fn valid_exchange_preview(new: NewExchangePreview, currency: &str, now: DateTime<Utc>) -> Checked<ValidReturn> {
    let mut findings = Findings::default();
    check_instant(&mut findings, new.occurred_at.unwrap_or(now), now);
    check_returns(&mut findings, &new.returns, Kind::Exchange);
    check_sold(&mut findings, &new.lines, &new.returns);
    finish(findings, || {
        let head = previewed(new.location_id, currency, new.occurred_at.unwrap_or(now));
        let lines = new.lines.iter().map(cart_line).collect();
        let parts = Parts { lines, customer_id: new.customer_id, ..Parts::of(&new.returns, Vec::new()) };
        valid(Kind::Exchange, head, TerminalId::NIL, parts)
    })
}

fn finish<T>(findings: Findings, make: impl FnOnce() -> T) -> Checked<T> {
    if findings.0.is_empty() { Ok(make()) } else { Err(findings.0) }
}

fn checked_head(findings: &mut Findings, head: Head, now: DateTime<Utc>) -> Head {
    let at = |pointer: &'static str| move || pointer.to_owned();
    findings.that(head.document_id.get_version_num() == 7, at("/document_id"), "must be a UUID of version 7");
    findings.that((1..=NUMBER_MAX).contains(&head.terminal_seq), at("/terminal_seq"), "must be 1 or more");
    findings.that(head.receipt.series_epoch >= 1, at("/receipt/series_epoch"), "must be 1 or more");
    findings.that((1..=NUMBER_MAX).contains(&head.receipt.number), at("/receipt/number"), "must be 1 or more");
    let is_storable = head.sent_at.is_none_or(|sent_at| Timestamp::from(sent_at).is_storable());
    findings.that(is_storable, at("/sent_at"), "must lie between 1900 and 2299");
    check_instant(findings, head.occurred_at, now);
    findings.reason(&head.reason, at("/reason"));
    let is_short = head.approval.as_ref().is_none_or(|text| text.len() <= TOKEN_CHARS_MAX);
    findings.that(is_short, at("/approval"), "is longer than any approval");
    head
}

fn previewed(location_id: uuid::Uuid, currency: &str, occurred_at: DateTime<Utc>) -> Head {
    Head {
        document_id: uuid::Uuid::nil(),
        location_id,
        terminal_seq: 0,
        receipt: Receipt { series_epoch: 1, number: 0 },
        cashier_id: uuid::Uuid::nil(),
        lease_id: None,
        occurred_at,
        sent_at: None,
        currency: currency.to_owned(),
        reason: String::new(),
        approval: None,
    }
}

fn check_returns(findings: &mut Findings, lines: &[NewReturnLine], kind: Kind) {
    let root = kind.returns_at();
    if lines.is_empty() || lines.len() > LINES_MAX {
        return findings.that(false, || root.to_owned(), "must hold 1 to 1000 lines");
    }
    let mut seen = HashSet::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let at = |field: &'static str| move || format!("{root}/{index}/{field}");
        findings.that((1..=LINES_MAX as i32).contains(&line.line_no), at("line_no"), "must be 1 to 1000");
        findings.that(seen.insert(line.line_no), at("line_no"), "stands twice in the document");
        findings.that((1..=QTY_MAX).contains(&line.qty), at("qty"), "must be 1 to 1000000000 thousandths");
    }
}

/// The goods that go: lines of a sale with numbers of their own, and none out of the books of before.
fn check_sold(findings: &mut Findings, lines: &[NewLine], returns: &[NewReturnLine]) {
    check_lines(findings, lines);
    let taken: HashSet<i32> = returns.iter().map(|line| line.line_no).collect();
    for (index, line) in lines.iter().take(LINES_MAX).enumerate() {
        let at = |field: &'static str| move || format!("/lines/{index}/{field}");
        findings.that(!taken.contains(&line.line_no), at("line_no"), "stands twice in the document");
        let is_imported = line.override_.as_ref().is_some_and(|given| given.amount_minor.is_some());
        findings.that(!is_imported, at("override/amount_minor"), "an exchange brings in no amounts of before");
    }
    findings.that(lines.len() + returns.len() <= LINES_MAX, || "/lines".to_owned(), "too many lines in all");
}

fn check_payments(findings: &mut Findings, tenders: &[NewPayment]) {
    findings.that(tenders.len() <= TENDERS_MAX, || "/tenders".to_owned(), "must hold at most 20 tenders");
    for (index, tender) in tenders.iter().take(TENDERS_MAX).enumerate() {
        let at = |field: &'static str| move || format!("/tenders/{index}/{field}");
        let is_in_range = (-AMOUNT_MAX..=AMOUNT_MAX).contains(&tender.amount_minor);
        findings.that(is_in_range, at("amount_minor"), "must be -1000000000000 to 1000000000000");
        match (&tender.card, tender.kind) {
            (Some(_), _) if tender.origin.is_some() => {
                findings.that(false, at("card"), "the card is that of the tender it goes back to");
            }
            (Some(card), TenderKind::Card) => check_card(findings, card, index),
            (Some(_), _) => findings.that(false, at("card"), "belongs to a card tender only"),
            (None, _) => {}
        }
        let is_cash_back = tender.kind == TenderKind::Cash && tender.origin.is_some();
        findings.that(!is_cash_back, at("origin"), "cash goes back to nobody's tender");
    }
}

fn check_total(findings: &mut Findings, total_minor: i64) {
    let is_in_range = (-AMOUNT_MAX..=AMOUNT_MAX).contains(&total_minor);
    findings.that(is_in_range, || "/total_minor".to_owned(), "must be -1000000000000 to 1000000000000");
}

/// What the three kinds differ in.
struct Parts {
    returned: Vec<Returned>,
    lines: Vec<CartLine>,
    payments: Vec<Payment>,
    customer_id: Option<uuid::Uuid>,
    total_minor: i64,
}

impl Parts {
    fn of(returns: &[NewReturnLine], tenders: Vec<NewPayment>) -> Parts {
        let returned = |line: &NewReturnLine| Returned {
            line_no: line.line_no,
            origin_document_id: line.origin_document_id,
            origin_line_no: line.origin_line_no,
            qty: line.qty,
            disposition: line.disposition,
        };
        let payment = |tender: NewPayment| Payment {
            kind: tender.kind,
            amount_minor: tender.amount_minor,
            card: tender.card,
            origin: tender.origin,
        };
        Parts {
            returned: returns.iter().map(returned).collect(),
            lines: Vec::new(),
            payments: tenders.into_iter().map(payment).collect(),
            customer_id: None,
            total_minor: 0,
        }
    }
}

fn valid(kind: Kind, head: Head, terminal_id: TerminalId, parts: Parts) -> ValidReturn {
    let sale = ValidSale {
        document_id: head.document_id.into(),
        terminal_id,
        terminal_seq: head.terminal_seq,
        receipt: head.receipt,
        cashier_id: head.cashier_id.into(),
        customer_id: parts.customer_id.map(Into::into),
        lease_id: head.lease_id,
        sent_at: head.sent_at,
        cart: Cart {
            location_id: LocationId(head.location_id),
            currency: head.currency,
            occurred_at: micros(head.occurred_at),
            lines: parts.lines,
            // Whose it is follows from what comes back.
            customer_id: None,
            order_discount: None,
            coupons: Vec::new(),
            redemption: None,
        },
        tenders: Vec::new(),
        total_minor: parts.total_minor,
        content_hash: [0; 32],
        presented: Presented::Nothing,
    };
    let mut valid = ValidReturn { kind, sale, reason: head.reason, returned: parts.returned, payments: parts.payments };
    valid.sale.content_hash = hash::content_hash(&valid);
    valid
}
