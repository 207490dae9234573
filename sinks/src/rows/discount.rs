//! What was given off on a line, without the tax in it (rule T2).

use schemas::events::DocumentLine;
use schemas::money::{RoundingMode, round};

/// Rates have six decimals at most.
const MICROS: i128 = 1_000_000;

/// Discounts and redemption of a line without tax, in minor units: what they take off its net.
///
/// Where the price contains no tax they are without tax already. Elsewhere they carry tax: that of the line without
/// them less that stored with the line, never discount times rate. So with `given` off `extended`, and `stored` the
/// contained taxes of the line,
/// `given - (round(extended * R / (1 + R)) - stored)`, R being the rates of the contained taxes together, rounded in the
/// mode of the document; never below zero nor above `given`. `net + this` is then the line's net without any discount.
///
/// An event does not say which taxes are compound. Of the two readings, none of them or each after the first, the one
/// counts whose tax on what was paid is nearer to what is stored. A rate that is no number counts as zero.
pub(super) fn net_of_tax(line: &DocumentLine, mode: RoundingMode) -> i64 {
    let given = line.discount_minor + line.redemption_minor;
    let contained = || line.taxes.iter().filter(|tax| tax.inclusive);
    if given == 0 || contained().next().is_none() {
        return given;
    }
    let stored: i64 = contained().map(|tax| tax.amount_minor).sum();
    let rates: Vec<i128> = contained().map(|tax| micros(&tax.rate).unwrap_or(0)).collect();
    let tax_on = |amount: i64, part: (i128, i128)| round(i128::from(amount).checked_mul(part.0)?, part.1, mode).ok();
    let readings = [alone(&rates), compound(&rates)].into_iter().flatten();
    let taxes = readings.filter_map(|part| {
        let paid = tax_on(line.extended_minor - given, part)?;
        Some(((paid - stored).abs(), tax_on(line.extended_minor, part)?))
    });
    let undiscounted = taxes.min_by_key(|(distance, _)| *distance).map_or(stored, |(_, tax)| tax);
    // A share of a tax that is rounded per order may lie a unit beside the line's own.
    given - (undiscounted - stored).clamp(given.min(0), given.max(0))
}

/// The part of an amount that is contained tax, R / (1 + R), where each tax bears on the net alone.
fn alone(rates: &[i128]) -> Option<(i128, i128)> {
    let all: i128 = rates.iter().sum();
    Some((all, MICROS + all))
}

/// The same where each tax bears on the ones before it, too.
fn compound(rates: &[i128]) -> Option<(i128, i128)> {
    let product = |factor: fn(i128) -> i128| rates.iter().try_fold(1i128, |all, rate| all.checked_mul(factor(*rate)));
    let (whole, net) = (product(|rate| MICROS + rate)?, product(|_| MICROS)?);
    Some((whole - net, whole))
}

/// A rate as millionths.
fn micros(rate: &str) -> Option<i128> {
    let (whole, decimals) = rate.split_once('.').unwrap_or((rate, ""));
    if decimals.len() > 6 || !whole.chars().chain(decimals.chars()).all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    format!("{whole}{decimals:0<6}").parse().ok().filter(|micros| *micros < 1_000 * MICROS)
}

#[cfg(test)]
mod tests {
    use schemas::events::LineTax;

    use super::*;
    use crate::rows::tests::line;

    /// A line with contained taxes as `(rate, amount)`.
    fn taxed(extended: i64, discount: i64, taxes: &[(&str, i64)]) -> DocumentLine {
        let tax = |(rate, amount_minor): &(&str, i64)| LineTax {
            rate: (*rate).to_owned(),
            amount_minor: *amount_minor,
            ..line(1, 0, 0, 0).taxes.remove(0)
        };
        DocumentLine { taxes: taxes.iter().map(tax).collect(), ..line(1, extended, discount, 0) }
    }

    fn given(line: &DocumentLine) -> i64 {
        net_of_tax(line, RoundingMode::HalfEven)
    }

    #[test]
    fn a_discount_off_a_price_with_tax_is_told_without_it() {
        // 119.00 incl. 19 % less 10 %: net 90.00 of 100.00.
        assert_eq!(given(&taxed(11_900, 1_190, &[("0.19", 1_710)])), 1_000);
        assert_eq!(given(&taxed(11_900, 11_900, &[("0.19", 0)])), 10_000, "given away");
        assert_eq!(given(&taxed(11_900, 0, &[("0.19", 1_900)])), 0, "nothing was given");
        // Tax without it 159.66 -> 160, with it 144: the discount carries 16, not 15.97.
        assert_eq!(given(&taxed(1_000, 100, &[("0.19", 144)])), 84);
    }

    #[test]
    fn a_price_without_tax_gives_off_what_it_says() {
        let mut exclusive = taxed(10_000, 1_000, &[("0.19", 1_710)]);
        exclusive.taxes[0].inclusive = false;
        assert_eq!(given(&exclusive), 1_000);
        assert_eq!(given(&taxed(10_000, 1_000, &[])), 1_000, "no tax at all");
        let mut both = taxed(11_900, 1_190, &[("0.19", 1_710), ("0.05", 450)]);
        both.taxes[1].inclusive = false;
        assert_eq!(given(&both), 1_000, "an added tax has no part in it");
    }

    #[test]
    fn several_taxes_are_one_and_a_compound_one_is_recognised() {
        // 130.00 = 100.00 + 20 % + 10 %; less 50 %.
        assert_eq!(given(&taxed(13_000, 6_500, &[("0.2", 1_000), ("0.1", 500)])), 5_000);
        // 132.00 = 100.00 + 20 % + 10 % of 120.00; less 50 %.
        assert_eq!(given(&taxed(13_200, 6_600, &[("0.2", 1_000), ("0.1", 600)])), 5_000);
    }

    #[test]
    fn redemption_counts_and_returns_mirror_sales() {
        let mut redeemed = taxed(11_900, 590, &[("0.19", 1_710)]);
        redeemed.redemption_minor = 600;
        assert_eq!(given(&redeemed), 1_000);
        assert_eq!(given(&taxed(-11_900, -1_190, &[("0.19", -1_710)])), -1_000);
    }

    #[test]
    fn a_share_of_an_order_never_gives_more_or_less_than_there_was() {
        assert_eq!(given(&taxed(333, 1, &[("0.2", 57)])), 1, "the share lies above: no tax is carried");
        assert_eq!(given(&taxed(333, 1, &[("0.2", 54)])), 0, "the share lies below: all of it is tax");
        assert_eq!(given(&taxed(11_900, 1_190, &[("nineteen", 1_710)])), 1_190);
        assert_eq!(
            (micros("0.08875"), micros("1"), micros("0.1234567"), micros("-1")),
            (Some(88_750), Some(1_000_000), None, None)
        );
    }
}
