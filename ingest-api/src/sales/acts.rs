//! Pure: what of a sale limits are about, how far it goes, and whether it may be done.

use std::collections::HashMap;

use chrono::{NaiveDate, TimeDelta};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use schemas::money::QTY_SCALE;

use super::known::{Known, Lease};
use super::price::PricedSale;
use super::refusal::Refusal;
use super::types::ValidSale;
use crate::access::Permission;
use crate::approvals::{self, Approval, Asked, Case, Settled, Standing};
use crate::db::limits::{Counted, Wanted};
use crate::limits::{Extent, Rule, Verdict, share_ppm};
use crate::pricing::{CartLine, Discount, Override, PricedLine};

/// A sale under a lease that reaches us later than this was made where nobody could be asked.
const ASKABLE_SECONDS: i64 = approvals::LIFETIME_SECONDS;

/// The acts of a sale, each kind once. A line brought in with its amount from the books of before has none.
pub fn of(sale: &ValidSale, priced: &PricedSale) -> Vec<(Permission, Extent)> {
    let is_plain = |line: &CartLine| line.discount.is_none() && line.override_.is_none();
    if sale.cart.order_discount.is_none() && sale.cart.lines.iter().all(is_plain) {
        return Vec::new();
    }
    let figures: HashMap<i32, &PricedLine> = priced.priced.lines.iter().map(|line| (line.line_no, line)).collect();
    let lines: Vec<(&CartLine, &PricedLine)> = sale
        .cart
        .lines
        .iter()
        .filter(|line| !line.is_imported())
        .filter_map(|line| Some((line, *figures.get(&line.line_no)?)))
        .collect();
    let currency = &sale.cart.currency;
    let by_hand = lines.iter().filter_map(|(line, figures)| discounted(line, figures));
    let kinds = [
        (Permission::OverridePrice, lines.iter().filter_map(|(line, figures)| overridden(line, figures)).collect()),
        (Permission::DiscountLines, by_hand.chain(order_discount(sale, priced)).collect()),
    ];
    kinds.into_iter().filter_map(|(act, parts)| Some((act, whole(currency, parts)?))).collect()
}

/// Amount and share of one line.
type Part = (i128, i64);

/// Amounts add up; the share is that of the line with the largest one.
fn whole(currency: &str, parts: Vec<Part>) -> Option<Extent> {
    let share = parts.iter().map(|(_, share)| *share).max()?;
    let amount: i128 = parts.iter().map(|(amount, _)| amount).sum();
    let amount_minor = Some(i64::try_from(amount).unwrap_or(i64::MAX));
    Some(Extent { currency: currency.to_owned(), amount_minor, share_ppm: Some(share) })
}

/// The difference to the list price, whichever way it goes.
fn overridden(line: &CartLine, figures: &PricedLine) -> Option<Part> {
    let Some(Override::UnitPrice { unit_price_minor, .. }) = &line.override_ else { return None };
    let list = i128::from(figures.list_price_minor);
    let difference = (list - i128::from(*unit_price_minor)).abs();
    let scale = i128::from(QTY_SCALE);
    Some(((difference * i128::from(line.qty) + scale - 1) / scale, share_ppm(difference, list)))
}

/// What comes off by hand; promotions are nobody's act.
fn discounted(line: &CartLine, figures: &PricedLine) -> Option<Part> {
    let discount = line.discount.as_ref()?;
    let given = figures.discounts.iter().filter(|it| it.kind == discount.kind()).map(|it| it.amount_minor);
    Some(taken(discount, given.map(i128::from).sum(), figures.extended_minor.into()))
}

/// The discount on the order: a part of what all lines cost before it.
fn order_discount(sale: &ValidSale, priced: &PricedSale) -> Option<Part> {
    let discount = sale.cart.order_discount.as_ref()?;
    let figures = &priced.priced;
    let all = figures.lines.iter().flat_map(|line| &line.discounts).filter(|it| it.kind.starts_with("order_"));
    let amount: i128 = all.map(|it| i128::from(it.amount_minor)).sum();
    let before = i128::from(figures.subtotal_minor) - i128::from(figures.discount_minor) + amount;
    (amount != 0).then(|| taken(discount, amount, before))
}

/// The share of a percentage is the percentage, whatever its rounding made of a small amount.
fn taken(discount: &Discount, amount: i128, of: i128) -> Part {
    let share = match discount {
        Discount::Percent { percent, .. } => (*percent * Decimal::from(10_000)).ceil().to_i64().unwrap_or(i64::MAX),
        Discount::Amount { .. } => share_ppm(amount, of),
    };
    (amount, share)
}

/// What the acts of these sales are counted with.
fn counted(sale: &ValidSale, date: NaiveDate, act: Permission) -> Counted {
    (sale.cashier_id.0, sale.location_id(), date, act)
}

/// What has to be read before these sales can be judged: nothing where none has an act in it and nobody a role of the
/// company's own.
pub fn wanted<'a>(known: &Known, sales: impl Iterator<Item = (&'a ValidSale, Option<&'a PricedSale>)>) -> Wanted {
    let mut wanted = Wanted::default();
    for ((cashier, _), rights) in known.rights.iter().filter(|(_, rights)| !rights.own_roles.is_empty()) {
        wanted.own_roles.extend(&rights.own_roles);
        wanted.people.push(cashier.0);
    }
    for (sale, priced) in sales {
        let Some(priced) = priced else { continue };
        want(&mut wanted, sale, priced.moment.date, &of(sale, priced));
    }
    wanted
}

/// Adds what these acts of one document are judged with.
pub fn want(wanted: &mut Wanted, sale: &ValidSale, date: NaiveDate, acts: &[(Permission, Extent)]) {
    if acts.is_empty() {
        return;
    }
    wanted.counted.extend(acts.iter().map(|(act, _)| counted(sale, date, *act)));
    if let Some(approval) = sale.presented.signed() {
        wanted.approvals.push(approval.jti);
        wanted.people.push(approval.approver);
    }
}

/// What lets the cashier of a document do such an act: their roles, and the lease they were signed in by.
pub fn rules(known: &Known, sale: &ValidSale, act: Permission, lease: Option<&Lease>) -> Vec<Rule> {
    let rights = known.rights.get(&(sale.cashier_id, sale.location_id()));
    let leased = lease.map_or(&[][..], |lease| lease.limits.rules(act));
    rights.map(|rights| rights.rules(act)).unwrap_or_default().into_iter().chain(leased.iter().cloned()).collect()
}

/// Judges the acts of a sale by what its cashier, or the lease, may do.
pub fn judge(
    known: &Known,
    sale: &ValidSale,
    priced: &PricedSale,
    lease: Option<&Lease>,
) -> Result<Vec<Settled>, Refusal> {
    if sale.is_import() && !rules(known, sale, Permission::OverridePrice, lease).iter().any(Rule::is_unlimited) {
        return Err(Refusal::forbidden("/cashier_id", "only who overrides prices without limit brings in amounts"));
    }
    settle(known, sale, priced.moment.date, of(sale, priced), lease)
}

/// Judges these acts of a document together: one approval covers all of them.
pub fn settle(
    known: &Known,
    sale: &ValidSale,
    date: NaiveDate,
    acts: Vec<(Permission, Extent)>,
    lease: Option<&Lease>,
) -> Result<Vec<Settled>, Refusal> {
    if acts.is_empty() {
        return Ok(Vec::new());
    }
    let is_late = sale.cart.occurred_at + TimeDelta::seconds(ASKABLE_SECONDS) < known.recorded_at;
    let asked = acts.into_iter().map(|(act, extent)| {
        let as_leased = |lease: &Lease| lease.limits.clone().on(date).judge(act, &extent);
        Asked {
            act,
            rules: rules(known, sale, act, lease),
            used: known.limits.used.get(&counted(sale, date, act)).copied().unwrap_or_default(),
            is_fact: is_late && lease.is_some_and(|lease| as_leased(lease) == Verdict::Allowed),
            extent,
        }
    });
    let approval = sale.presented.signed();
    let approver = approval.map(|it| known.limits.granted(it.approver, sale.location_id())).unwrap_or_default();
    let case = Case {
        requester: sale.cashier_id.0,
        location: sale.location_id(),
        currency: &sale.cart.currency,
        digest: &sale.content_hash,
        now: known.recorded_at,
        presented: &sale.presented,
        approver: &approver,
        is_spent: approval.is_some_and(|it| known.limits.spent.contains(&it.jti)),
    };
    approvals::settle(&case, asked.collect())
}

/// The approval that these acts spend, if one of them needed it.
pub fn approval_of(sale: &ValidSale, acts: &[Settled]) -> Option<Box<Approval>> {
    let is_spent = acts.iter().any(|act| act.standing == Standing::Approved);
    sale.presented.signed().filter(|_| is_spent).cloned().map(Box::new)
}

/// Brings what is known up to date for the sales after this one.
pub fn count(known: &mut Known, sale: &ValidSale, priced: &PricedSale, acts: &[Settled]) {
    for act in acts {
        *known.limits.used.entry(counted(sale, priced.moment.date, act.asked.act)).or_default() += 1;
    }
    known.limits.spent.extend(approval_of(sale, acts).map(|approval| approval.jti));
}

/// For the audit row of the sale, for instance `override_price 550 approved`; empty for nearly every one.
pub fn described(acts: &[Settled]) -> String {
    let one = |act: &Settled| {
        let amount = act.asked.extent.amount_minor.unwrap_or_default();
        format!("{} {amount} {}", act.asked.act.name(), act.standing.as_str())
    };
    acts.iter().map(one).collect::<Vec<_>>().join("; ")
}
