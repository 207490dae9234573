//! From the wire form to valid types: every value in range, each wrong place named by a JSON pointer.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use schemas::ids::{LocationId, TerminalId};
use schemas::time::Timestamp;

use super::hash;
use super::types::{
    Card, DiscountKind, NewDiscount, NewLine, NewQuote, NewRedemption, NewSale, NewTender, Tender, TenderKind,
    ValidSale, cart_line, discount,
};
use crate::approvals::{Presented, TOKEN_CHARS_MAX};
use crate::checks::decimal;
use crate::error::FieldProblem;
use crate::pricing::{Cart, LINES_MAX, QTY_MAX};

/// Most tenders of a document.
pub const TENDERS_MAX: usize = 20;
/// Largest single amount in minor units.
pub const AMOUNT_MAX: i64 = 1_000_000_000_000;
/// How far a till's clock may run ahead.
pub const AHEAD_SECONDS_MAX: i64 = 300;
const TEXT_CHARS_MAX: usize = 200;
/// Reasons are codes, so that what people write about people never gets into an event.
const REASON_CHARS_MAX: usize = 40;
/// Reason of an amount that is brought in, and of nothing else.
const IMPORTED: &str = "imported";
pub(crate) const NUMBER_MAX: i64 = 1_000_000_000_000;
const COUPONS_MAX: usize = 10;

/// What is wrong with one body.
#[derive(Default)]
pub(crate) struct Findings(pub Vec<FieldProblem>);

impl Findings {
    pub fn that(&mut self, holds: bool, pointer: impl FnOnce() -> String, message: &str) {
        if !holds && self.0.len() < 100 {
            self.0.push(FieldProblem::new(pointer(), "invalid_value", message));
        }
    }
    fn text(&mut self, text: &str, pointer: impl FnOnce() -> String) {
        let fits = !text.trim().is_empty() && text.chars().count() <= TEXT_CHARS_MAX;
        self.that(fits && !text.chars().any(char::is_control), pointer, "must be 1 to 200 visible characters");
    }
    pub fn reason(&mut self, reason: &str, pointer: impl FnOnce() -> String) {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let is_code = (1..=REASON_CHARS_MAX).contains(&reason.len()) && reason.bytes().all(is_plain);
        self.that(is_code, pointer, "must be a code of 1 to 40 characters: a to z, 0 to 9, _ and -");
    }
}

/// The sale of `terminal`, or every wrong place. `now` is the server's clock.
pub fn valid_sale(new: NewSale, terminal_id: TerminalId, now: DateTime<Utc>) -> Result<ValidSale, Vec<FieldProblem>> {
    let mut findings = Findings::default();
    let at = |pointer: &'static str| move || pointer.to_owned();
    findings.that(new.sale_id.get_version_num() == 7, at("/sale_id"), "must be a UUID of version 7");
    findings.that((1..=NUMBER_MAX).contains(&new.terminal_seq), at("/terminal_seq"), "must be 1 or more");
    findings.that(new.receipt.series_epoch >= 1, at("/receipt/series_epoch"), "must be 1 or more");
    findings.that((1..=NUMBER_MAX).contains(&new.receipt.number), at("/receipt/number"), "must be 1 or more");
    findings.that(new.total_minor >= 0, at("/total_minor"), "must not be negative");
    let is_storable = new.sent_at.is_none_or(|sent_at| Timestamp::from(sent_at).is_storable());
    findings.that(is_storable, at("/sent_at"), "must lie between 1900 and 2299");
    check_instant(&mut findings, new.occurred_at, now);
    check_lines(&mut findings, &new.lines);
    check_discount(&mut findings, new.order_discount.as_ref(), || "/order_discount".to_owned());
    let coupons = coupons(&mut findings, &new.coupons);
    check_tenders(&mut findings, &new.tenders);
    check_redemption(&mut findings, new.redemption, new.customer_id.is_some());
    let is_short = new.approval.as_ref().is_none_or(|text| text.len() <= TOKEN_CHARS_MAX);
    findings.that(is_short, at("/approval"), "is longer than any approval");
    if !findings.0.is_empty() {
        return Err(findings.0);
    }
    let tender = |tender: NewTender| Tender { kind: tender.kind, amount_minor: tender.amount_minor, card: tender.card };
    let mut sale = ValidSale {
        document_id: new.sale_id.into(),
        terminal_id,
        terminal_seq: new.terminal_seq,
        receipt: new.receipt,
        cashier_id: new.cashier_id.into(),
        customer_id: new.customer_id.map(Into::into),
        lease_id: new.lease_id,
        sent_at: new.sent_at,
        cart: Cart {
            location_id: LocationId(new.location_id),
            currency: new.currency,
            occurred_at: micros(new.occurred_at),
            customer_id: new.customer_id.map(Into::into),
            lines: new.lines.iter().map(cart_line).collect(),
            order_discount: new.order_discount.as_ref().and_then(discount),
            coupons,
            redemption: new.redemption.map(Into::into),
        },
        tenders: new.tenders.into_iter().map(tender).collect(),
        total_minor: new.total_minor,
        content_hash: [0; 32],
        presented: Presented::Nothing,
    };
    sale.content_hash = hash::content_hash(&sale);
    Ok(sale)
}

/// The cart of a quote; currency and time default to the location's and now.
pub fn valid_quote(new: NewQuote, currency: &str, now: DateTime<Utc>) -> Result<Cart, Vec<FieldProblem>> {
    let mut findings = Findings::default();
    let occurred_at = new.occurred_at.unwrap_or(now);
    check_instant(&mut findings, occurred_at, now);
    check_lines(&mut findings, &new.lines);
    check_discount(&mut findings, new.order_discount.as_ref(), || "/order_discount".to_owned());
    let coupons = coupons(&mut findings, &new.coupons);
    check_redemption(&mut findings, new.redemption, new.customer_id.is_some());
    if !findings.0.is_empty() {
        return Err(findings.0);
    }
    Ok(Cart {
        location_id: LocationId(new.location_id),
        currency: new.currency.unwrap_or_else(|| currency.to_owned()),
        occurred_at: micros(occurred_at),
        customer_id: new.customer_id.map(Into::into),
        lines: new.lines.iter().map(cart_line).collect(),
        order_discount: new.order_discount.as_ref().and_then(discount),
        coupons,
        redemption: new.redemption.map(Into::into),
    })
}

/// Everything is stored in microseconds, so nothing finer may take part in pricing or hashing.
pub(crate) fn micros(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}

pub(crate) fn check_instant(findings: &mut Findings, occurred_at: DateTime<Utc>, now: DateTime<Utc>) {
    let pointer = || "/occurred_at".to_owned();
    findings.that(occurred_at <= now + TimeDelta::seconds(AHEAD_SECONDS_MAX), pointer, "lies in the future");
    findings.that(occurred_at.timestamp() > -2_208_988_800, pointer, "lies before 1900");
}

pub(crate) fn check_lines(findings: &mut Findings, lines: &[NewLine]) {
    findings.that(!lines.is_empty(), || "/lines".to_owned(), "must hold at least one line");
    if lines.len() > LINES_MAX {
        return findings.that(false, || "/lines".to_owned(), "must hold at most 1000 lines");
    }
    let mut seen = HashSet::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let at = |field: &'static str| move || format!("/lines/{index}/{field}");
        findings.that((1..=LINES_MAX as i32).contains(&line.line_no), at("line_no"), "must be 1 to 1000");
        findings.that(seen.insert(line.line_no), at("line_no"), "stands twice in the document");
        findings.that((1..=QTY_MAX).contains(&line.qty), at("qty"), "must be 1 to 1000000000 thousandths");
        check_discount(findings, line.discount.as_ref(), || format!("/lines/{index}/discount"));
        check_override(findings, line, index);
    }
}

/// Coupons in their one spelling: upper case, without spaces and dashes.
fn coupons(findings: &mut Findings, given: &[String]) -> Vec<String> {
    findings.that(given.len() <= COUPONS_MAX, || "/coupons".to_owned(), "must hold at most 10 codes");
    let mut all = Vec::new();
    for (index, text) in given.iter().enumerate().take(COUPONS_MAX) {
        let code = coupon_code(text);
        let at = || format!("/coupons/{index}");
        findings.that(code.is_some(), at, "must be a code of 4 to 40 letters and digits");
        findings.that(code.as_ref().is_none_or(|code| !all.contains(code)), at, "stands twice in the document");
        all.extend(code);
    }
    all
}

/// The one spelling of a coupon's code; None for what is none.
pub fn coupon_code(text: &str) -> Option<String> {
    let plain = text.chars().filter(|char| !matches!(char, ' ' | '-')).map(|char| char.to_ascii_uppercase());
    let code: String = plain.take(41).collect();
    let is_code = (4..=40).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_code.then_some(code)
}

fn check_discount(findings: &mut Findings, given: Option<&NewDiscount>, place: impl Fn() -> String) {
    let Some(discount) = given else { return };
    let at = |field: &'static str| {
        let place = place();
        move || format!("{place}/{field}")
    };
    findings.reason(&discount.reason, at("reason"));
    match discount.kind {
        DiscountKind::Percent => {
            let holds = discount.percent.as_deref().is_some_and(is_percent);
            findings.that(holds, at("percent"), "must be a decimal text from 0 to 100 with at most 4 places");
            findings.that(discount.amount_minor.is_none(), at("amount_minor"), "does not belong to a percentage");
        }
        DiscountKind::Amount => {
            let holds = discount.amount_minor.is_some_and(|amount| (0..=AMOUNT_MAX).contains(&amount));
            findings.that(holds, at("amount_minor"), "must be 0 to 1000000000000");
            findings.that(discount.percent.is_none(), at("percent"), "does not belong to an amount");
        }
    }
}

fn is_percent(text: &str) -> bool {
    text.len() <= 12
        && decimal(text).is_some_and(|percent| percent <= Decimal::ONE_HUNDRED && percent.normalize().scale() <= 4)
}

fn check_override(findings: &mut Findings, line: &NewLine, index: usize) {
    let Some(given) = &line.override_ else { return };
    let at = |field: &'static str| move || format!("/lines/{index}/override/{field}");
    findings.reason(&given.reason, at("reason"));
    let allowed = |amount: Option<i64>| amount.is_none_or(|amount| (0..=AMOUNT_MAX).contains(&amount));
    findings.that(allowed(given.unit_price_minor), at("unit_price_minor"), "must be 0 to 1000000000000");
    findings.that(allowed(given.amount_minor), at("amount_minor"), "must be 0 to 1000000000000");
    match (given.unit_price_minor, given.amount_minor) {
        (Some(_), None) => {
            findings.that(given.reason != IMPORTED, at("reason"), "imported is for amounts out of the books of before");
        }
        (Some(_), Some(_)) => findings.that(false, at("amount_minor"), "give a unit price or an amount, not both"),
        (None, None) => findings.that(false, at("unit_price_minor"), "this field is required"),
        (None, Some(_)) => {
            findings.that(given.reason == IMPORTED, at("reason"), "a line amount needs the reason imported");
        }
    }
}

fn check_tenders(findings: &mut Findings, tenders: &[NewTender]) {
    findings.that(tenders.len() <= TENDERS_MAX, || "/tenders".to_owned(), "must hold at most 20 tenders");
    for (index, tender) in tenders.iter().take(TENDERS_MAX).enumerate() {
        let at = |field: &'static str| move || format!("/tenders/{index}/{field}");
        let amounts = 1..=AMOUNT_MAX;
        findings.that(amounts.contains(&tender.amount_minor), at("amount_minor"), "must be 1 to 1000000000000");
        match (&tender.card, tender.kind) {
            (Some(card), TenderKind::Card) => check_card(findings, card, index),
            (Some(_), _) => findings.that(false, at("card"), "belongs to a card tender only"),
            (None, _) => {}
        }
    }
}

fn check_redemption(findings: &mut Findings, redemption: Option<NewRedemption>, is_member_named: bool) {
    let Some(redemption) = redemption else { return };
    let is_in_range = (1..=AMOUNT_MAX).contains(&redemption.points);
    findings.that(is_in_range, || "/redemption/points".to_owned(), "must be 1 to 1000000000000");
    if !is_member_named {
        findings.0.push(FieldProblem::new("/customer_id", "customer_required", "whose points they are must be named"));
    }
}

pub(crate) fn check_card(findings: &mut Findings, card: &Card, index: usize) {
    let at = |field: &'static str| move || format!("/tenders/{index}/card/{field}");
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    findings.that(digits(&card.last_four, 4), at("last_four"), "must be four digits");
    let is_expiry = card
        .expiry
        .split_once('/')
        .is_some_and(|(month, year)| digits(month, 2) && digits(year, 2) && ("01"..="12").contains(&month));
    findings.that(is_expiry, at("expiry"), "must read MM/YY");
    for (field, text) in [("token", &card.token), ("brand", &card.brand)] {
        findings.text(text, at(field));
    }
}
