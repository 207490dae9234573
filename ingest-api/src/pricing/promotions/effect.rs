//! What each kind of promotion takes off, exactly, before its one rounding step.

use rust_decimal::Decimal;
use schemas::money::{Overflow, QTY_SCALE};

use super::Line;
use super::rule::{Effect, Items, Part};
use crate::pricing::ratio::Ratio;

/// An exact amount off, and the figure that it is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Off {
    pub base: i64,
    pub exact: Ratio,
}

/// How an amount comes off.
#[derive(Debug)]
pub enum Gift {
    /// From each line by itself: place of the line, amount.
    Each(Vec<(usize, Off)>),
    /// Once, allocated by weight: for each line that bears it its place and weight.
    Together(Off, Vec<(usize, i64)>),
}

/// What `effect` takes off `chosen`, places in `lines` in line order; None where the goods do not reach what it asks for.
pub fn gift(effect: &Effect, lines: &[Line<'_>], chosen: &[usize]) -> Result<Option<Gift>, Overflow> {
    let of_each = |off: &dyn Fn(&Line<'_>) -> Result<Ratio, Overflow>| -> Result<Option<Gift>, Overflow> {
        let each = chosen.iter().map(|place| {
            let line = &lines[*place];
            Ok((*place, Off { base: line.left_minor, exact: at_most(off(line)?, line.left_minor) }))
        });
        Ok(Some(Gift::Each(each.collect::<Result<_, Overflow>>()?)))
    };
    match effect {
        Effect::Percent { percent } => of_each(&|line| part(*percent, line.left_minor)),
        Effect::AmountPerUnit { amount_minor } => of_each(&|line| times_qty(*amount_minor, line.qty)),
        Effect::UnitPrice { unit_price_minor } => of_each(&|line| {
            let price = times_qty(*unit_price_minor, line.qty)?;
            Ratio::whole(line.left_minor).plus(Ratio { num: -price.num, den: price.den })
        }),
        Effect::BuyGet { buy, get, percent } => Ok(buy_get(lines, chosen, (*buy, *get), *percent)?.map(Gift::Each)),
        Effect::Bundle { parts, price_minor } => bundle(lines, chosen, parts, *price_minor),
        Effect::BasketPercent { threshold_minor, percent } => {
            basket(lines, chosen, *threshold_minor, |sum| part(*percent, sum))
        }
        Effect::BasketAmount { threshold_minor, amount_minor } => {
            basket(lines, chosen, *threshold_minor, |_| Ok(Ratio::whole(*amount_minor)))
        }
    }
}

fn part(percent: Decimal, base: i64) -> Result<Ratio, Overflow> {
    Ratio::of(percent).times(Ratio { num: base.into(), den: 100 })
}

fn times_qty(amount: i64, qty: i64) -> Result<Ratio, Overflow> {
    let num = i128::from(amount).checked_mul(qty.into()).ok_or(Overflow)?;
    Ok(Ratio { num, den: QTY_SCALE.into() })
}

/// Never more than the line is worth, and never an addition to it.
fn at_most(exact: Ratio, left: i64) -> Ratio {
    if exact.num <= 0 {
        Ratio::ZERO
    } else if exact.num >= i128::from(left).saturating_mul(exact.den) {
        Ratio::whole(left)
    } else {
        exact
    }
}

fn basket(
    lines: &[Line<'_>],
    chosen: &[usize],
    threshold: i64,
    off: impl Fn(i64) -> Result<Ratio, Overflow>,
) -> Result<Option<Gift>, Overflow> {
    let weights: Vec<(usize, i64)> = chosen.iter().map(|place| (*place, lines[*place].left_minor)).collect();
    let base = sum(weights.iter().map(|(_, weight)| *weight))?;
    if base < threshold {
        return Ok(None);
    }
    Ok(Some(Gift::Together(Off { base, exact: at_most(off(base)?, base) }, weights)))
}

/// Units of a line that cost the same: the first ones of a line may be a minor unit dearer than the rest.
#[derive(Debug, Clone, Copy)]
struct Units {
    place: usize,
    each: i64,
    count: i64,
}

/// The units of piece lines, dearest first; among equals those of the earlier line.
fn priced_units(lines: &[Line<'_>], chosen: impl Iterator<Item = usize>) -> Vec<Units> {
    let mut all = Vec::new();
    for place in chosen {
        let line = &lines[place];
        if line.variant.is_measured {
            continue;
        }
        let count = line.qty / QTY_SCALE;
        let (each, dearer) = (line.left_minor / count.max(1), line.left_minor % count.max(1));
        all.push(Units { place, each: each + 1, count: dearer });
        all.push(Units { place, each, count: count - dearer });
    }
    all.retain(|units| units.count > 0);
    all.sort_by_key(|units| (std::cmp::Reverse(units.each), units.place));
    all
}

/// The cheapest units that are given, and what they are worth, by line.
fn buy_get(
    lines: &[Line<'_>],
    chosen: &[usize],
    (buy, get): (i64, i64),
    percent: Decimal,
) -> Result<Option<Vec<(usize, Off)>>, Overflow> {
    let all = priced_units(lines, chosen.iter().copied());
    let count = sum(all.iter().map(|units| units.count))?;
    let mut given = count / buy.checked_add(get).ok_or(Overflow)? * get;
    if given == 0 {
        return Ok(None);
    }
    let mut worth = vec![0i64; lines.len()];
    for units in all.iter().rev() {
        let taken = units.count.min(given);
        given -= taken;
        worth[units.place] += units.each.checked_mul(taken).ok_or(Overflow)?;
    }
    let off = |place: &usize| Ok((*place, Off { base: worth[*place], exact: part(percent, worth[*place])? }));
    let offs = chosen.iter().filter(|place| worth[**place] > 0).map(off).collect::<Result<Vec<_>, Overflow>>()?;
    Ok(Some(offs))
}

/// As many whole bundles as there are units for, of the dearest units of each part; parts take theirs in their order.
fn bundle(lines: &[Line<'_>], chosen: &[usize], parts: &[Part], price: i64) -> Result<Option<Gift>, Overflow> {
    // Upwards until a bundle more cannot be filled; what filled the last one is kept.
    let mut best = None;
    let pieces = sum(chosen.iter().map(|place| lines[*place].qty / QTY_SCALE))?;
    let units_each = sum(parts.iter().map(|part| part.units))?.max(1);
    let (mut low, mut high) = (0, pieces / units_each);
    while low < high {
        let middle = low + (high - low + 1) / 2;
        match filled(lines, chosen, parts, middle)? {
            Some(weights) => (low, best) = (middle, Some((middle, weights))),
            None => high = middle - 1,
        }
    }
    let Some((bundles, weights)) = best else { return Ok(None) };
    let base = sum(weights.iter().map(|(_, weight)| *weight))?;
    let cost = price.checked_mul(bundles).ok_or(Overflow)?;
    Ok(Some(Gift::Together(Off { base, exact: Ratio::whole((base - cost).max(0)) }, weights)))
}

/// What the units of so many bundles are worth, by line in line order; None where there are too few.
fn filled(
    lines: &[Line<'_>],
    chosen: &[usize],
    parts: &[Part],
    bundles: i64,
) -> Result<Option<Vec<(usize, i64)>>, Overflow> {
    let mut free = priced_units(lines, chosen.iter().copied());
    let mut worth = vec![0i64; lines.len()];
    for Part { items, units } in parts {
        let mut wanted = units.checked_mul(bundles).ok_or(Overflow)?;
        for some in free.iter_mut().filter(|some| is_of(items, lines, some.place)) {
            let taken = some.count.min(wanted);
            some.count -= taken;
            wanted -= taken;
            worth[some.place] += some.each.checked_mul(taken).ok_or(Overflow)?;
        }
        if wanted > 0 {
            return Ok(None);
        }
    }
    Ok(Some(chosen.iter().map(|place| (*place, worth[*place])).filter(|(_, worth)| *worth > 0).collect()))
}

fn is_of(items: &Items, lines: &[Line<'_>], place: usize) -> bool {
    items.contain(lines[place].variant)
}

/// The checked sum of figures.
pub fn sum(mut figures: impl Iterator<Item = i64>) -> Result<i64, Overflow> {
    figures.try_fold(0i64, |sum, figure| sum.checked_add(figure).ok_or(Overflow))
}

/// The shares that [`priced_units`] counts with are those of rule T4.
#[cfg(test)]
mod tests {
    use schemas::money::units;

    #[test]
    fn units_of_a_line_are_its_stored_shares() {
        for (left, count) in [(100i64, 3i64), (7, 7), (5, 9), (0, 4)] {
            let shares = units(left, count as usize);
            let dearer = shares.iter().filter(|share| **share == left / count + 1).count() as i64;
            assert_eq!((dearer, shares.iter().sum::<i64>()), (left % count, left));
        }
    }
}
