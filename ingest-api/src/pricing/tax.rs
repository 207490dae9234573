//! Rules T1 and T2: taxes added to a price and taxes contained in it, rounded per line or per document.
//!
//! A tax is contained when both it and the price are tax inclusive; otherwise it is added. Added taxes are
//! computed on the line without its contained taxes. A compound tax also bears on the exact amounts of the
//! taxes before it in its profile (of its own kind: contained or added).

use std::sync::Arc;

use schemas::ids::TaxProfileId;
use schemas::money::{self, Overflow, RoundingMode};
use uuid::Uuid;

use super::ratio::{Ratio, weights};
use super::snapshot::Tax;
use super::trace::{Step, Trace};

/// A line as taxation sees it.
pub struct TaxedLine<'a> {
    pub line_no: i32,
    pub profile: TaxProfileId,
    pub taxes: &'a [Tax],
    pub is_price_inclusive: bool,
    /// Amount after all discounts, in minor units.
    pub amount_minor: i64,
}

/// One tax of one line, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineTax {
    pub tax_id: Uuid,
    pub name: Arc<str>,
    pub rate: Arc<str>,
    /// The line amount the tax bears on: with contained taxes for a contained one, without for an added one.
    pub base_minor: i64,
    pub is_inclusive: bool,
    pub is_per_order: bool,
    pub amount_minor: i64,
}

impl<'a> TaxedLine<'a> {
    fn contained(&self) -> impl Iterator<Item = (usize, &'a Tax)> {
        let contains = self.is_price_inclusive;
        self.taxes.iter().enumerate().filter(move |(_, tax)| contains && tax.is_inclusive)
    }
    fn added(&self) -> impl Iterator<Item = (usize, &'a Tax)> {
        let contains = self.is_price_inclusive;
        self.taxes.iter().enumerate().filter(move |(_, tax)| !(contains && tax.is_inclusive))
    }
    /// Contained taxes are one figure, so one of them per order makes the figure per order.
    fn is_contained_per_order(&self) -> bool {
        self.contained().any(|(_, tax)| tax.is_per_order)
    }
}

/// The taxes of each line, in profile order. Per-order figures are rounded once and allocated by line base.
pub fn taxes_of(lines: &[TaxedLine<'_>], mode: RoundingMode, trace: &mut Trace) -> Result<Vec<Vec<LineTax>>, Overflow> {
    let contained = contained_totals(lines, mode, trace)?;
    let mut by_line: Vec<Vec<LineTax>> = Vec::with_capacity(lines.len());
    for (line, total) in lines.iter().zip(&contained) {
        by_line.push(line.taxes.iter().map(|tax| unfilled(line, tax, line.amount_minor - total)).collect());
    }
    split_contained(lines, &contained, &mut by_line)?;
    add_on_top(lines, mode, trace, &mut by_line)?;
    Ok(by_line)
}

fn unfilled(line: &TaxedLine<'_>, tax: &Tax, net_minor: i64) -> LineTax {
    let is_inclusive = line.is_price_inclusive && tax.is_inclusive;
    LineTax {
        tax_id: tax.tax_id,
        name: tax.name.clone(),
        rate: tax.rate_text.clone(),
        base_minor: if is_inclusive { line.amount_minor } else { net_minor },
        is_inclusive,
        is_per_order: tax.is_per_order,
        amount_minor: 0,
    }
}

/// Weights of taxes on a net base of 1: `r`, for a compound one `r * (1 + the weights before it)`.
fn weights_on_net<'a>(taxes: impl Iterator<Item = (usize, &'a Tax)>) -> Result<Vec<(usize, Ratio)>, Overflow> {
    let mut before = Ratio::ZERO;
    let mut weighted = Vec::new();
    for (index, tax) in taxes {
        let rate = Ratio::of(tax.rate);
        let weight = if tax.is_compound { rate.times(Ratio::ONE.plus(before)?)? } else { rate };
        before = before.plus(weight)?;
        weighted.push((index, weight));
    }
    Ok(weighted)
}

/// All contained tax of each line: `round(g * R / (1 + R))`, or the order's share of it.
fn contained_totals(lines: &[TaxedLine<'_>], mode: RoundingMode, trace: &mut Trace) -> Result<Vec<i64>, Overflow> {
    let mut totals = vec![0; lines.len()];
    let mut grouped: Vec<(TaxProfileId, Vec<usize>)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line.contained().next().is_none() {
            continue;
        }
        if line.is_contained_per_order() {
            match grouped.iter_mut().find(|(profile, _)| *profile == line.profile) {
                Some((_, members)) => members.push(index),
                None => grouped.push((line.profile, vec![index])),
            }
            continue;
        }
        let exact = contained_part(line)?.times(Ratio::whole(line.amount_minor))?;
        totals[index] = exact.round(mode)?;
        trace.push(Step {
            line: line.line_no,
            rule: "tax_contained",
            id: Some(line.profile.0),
            base: line.amount_minor,
            exact,
            mode,
            result: totals[index],
            shares: &[],
        });
    }
    for (profile, members) in grouped {
        let gross: Vec<i64> = members.iter().map(|index| lines[*index].amount_minor).collect();
        let base = sum(&gross)?;
        let exact = contained_part(&lines[members[0]])?.times(Ratio::whole(base))?;
        let result = exact.round(mode)?;
        let shares = handed(lines, members.iter().copied().zip(money::alloc(result, &gross)));
        trace.push(Step {
            line: 0,
            rule: "tax_contained",
            id: Some(profile.0),
            base,
            exact,
            mode,
            result,
            shares: &shares,
        });
        for (index, (_, share)) in members.into_iter().zip(shares) {
            totals[index] = share;
        }
    }
    Ok(totals)
}

/// Shares with the numbers of their lines.
fn handed(lines: &[TaxedLine<'_>], shares: impl Iterator<Item = (usize, i64)>) -> Vec<(i32, i64)> {
    shares.map(|(index, share)| (lines[index].line_no, share)).collect()
}

/// The part of a gross amount that is contained tax: `R / (1 + R)`.
fn contained_part(line: &TaxedLine<'_>) -> Result<Ratio, Overflow> {
    let mut all = Ratio::ZERO;
    for (_, weight) in weights_on_net(line.contained())? {
        all = all.plus(weight)?;
    }
    all.over(Ratio::ONE.plus(all)?)
}

/// Splits the contained tax of each line to its taxes by exact shares, in profile order.
fn split_contained(lines: &[TaxedLine<'_>], totals: &[i64], by_line: &mut [Vec<LineTax>]) -> Result<(), Overflow> {
    for ((line, total), taxes) in lines.iter().zip(totals).zip(by_line) {
        let weighted = weights_on_net(line.contained())?;
        let shares: Vec<Ratio> = weighted.iter().map(|(_, weight)| *weight).collect();
        for ((index, _), amount) in weighted.iter().zip(money::alloc(*total, &weights(&shares)?)) {
            taxes[*index].amount_minor = amount;
        }
    }
    Ok(())
}

/// One tax of the document that is rounded once for all lines that bear it.
struct OrderTax {
    tax_id: Uuid,
    exact: Ratio,
    /// (line, tax within the line, base)
    members: Vec<(usize, usize, i64)>,
}

/// Added taxes: each rounded alone, per line or per document.
fn add_on_top(
    lines: &[TaxedLine<'_>],
    mode: RoundingMode,
    trace: &mut Trace,
    by_line: &mut [Vec<LineTax>],
) -> Result<(), Overflow> {
    let mut per_order: Vec<OrderTax> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        for (at, weight) in weights_on_net(line.added())? {
            let tax = &mut by_line[index][at];
            let base = tax.base_minor;
            let exact = weight.times(Ratio::whole(base))?;
            if tax.is_per_order {
                let found = per_order.iter().position(|order| order.tax_id == tax.tax_id);
                let place = found.unwrap_or_else(|| {
                    per_order.push(OrderTax { tax_id: tax.tax_id, exact: Ratio::ZERO, members: Vec::new() });
                    per_order.len() - 1
                });
                per_order[place].exact = per_order[place].exact.plus(exact)?;
                per_order[place].members.push((index, at, base));
                continue;
            }
            tax.amount_minor = exact.round(mode)?;
            let (id, result) = (Some(tax.tax_id), tax.amount_minor);
            trace.push(Step { line: line.line_no, rule: "tax_added", id, base, exact, mode, result, shares: &[] });
        }
    }
    for OrderTax { tax_id, exact, members } in per_order {
        let bases: Vec<i64> = members.iter().map(|(_, _, base)| *base).collect();
        let (base, result) = (sum(&bases)?, exact.round(mode)?);
        let places = members.iter().map(|(index, _, _)| *index);
        let shares = handed(lines, places.zip(money::alloc(result, &bases)));
        trace.push(Step { line: 0, rule: "tax_added", id: Some(tax_id), base, exact, mode, result, shares: &shares });
        for ((index, at, _), (_, share)) in members.into_iter().zip(shares) {
            by_line[index][at].amount_minor = share;
        }
    }
    Ok(())
}

/// The checked sum of amounts.
pub fn sum(amounts: &[i64]) -> Result<i64, Overflow> {
    amounts.iter().try_fold(0i64, |sum, amount| sum.checked_add(*amount).ok_or(Overflow))
}
