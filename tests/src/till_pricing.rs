//! What a till computes itself before it sends: unit price times quantity, a line discount, taxes per
//! line. The API computes the same and refuses a total that differs, so every accepted sale is a proof
//! that both agree.

use anyhow::Context;
use schemas::money::{Overflow, RoundingMode, extended, ratio, round};

/// One named tax of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaxRate {
    /// Exact ratio.
    pub num: i128,
    pub den: i128,
    pub is_inclusive: bool,
}

/// The taxes of a profile: all added to the price, or one contained in it.
pub type Taxes = Vec<TaxRate>;

impl TaxRate {
    /// A rate from its decimal text.
    pub fn parse(text: &str, is_inclusive: bool) -> anyhow::Result<TaxRate> {
        let decimal = text.parse().with_context(|| format!("{text} is no rate"))?;
        let (num, den) = ratio(decimal);
        Ok(TaxRate { num, den, is_inclusive })
    }
}

/// A discount on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    None,
    /// Tenths of a percent.
    PerMille(i64),
    Amount(i64),
}

/// What the customer pays for a line: price times quantity, less the discount, plus exclusive taxes, each
/// rounded alone. Taxes contained in the price change nothing here.
pub fn payable(
    price_minor: i64,
    qty: i64,
    reduction: Reduction,
    taxes: &[TaxRate],
    mode: RoundingMode,
) -> Result<i64, Overflow> {
    let full = extended(price_minor, qty, mode)?;
    let off = match reduction {
        Reduction::None => 0,
        Reduction::PerMille(per_mille) => round(i128::from(full) * i128::from(per_mille), 1_000, mode)?,
        Reduction::Amount(amount) => amount.min(full),
    };
    let base = full - off;
    taxes.iter().filter(|tax| !tax.is_inclusive).try_fold(base, |sum, tax| {
        let added = round(i128::from(base) * tax.num, tax.den, mode)?;
        sum.checked_add(added).ok_or(Overflow)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: RoundingMode = RoundingMode::HalfEven;

    #[test]
    fn each_exclusive_tax_is_rounded_alone() {
        let taxes = [TaxRate::parse("0.08875", false).unwrap()];
        assert_eq!(payable(115, 1_000, Reduction::None, &taxes, MODE), Ok(125));
        let two = [TaxRate::parse("0.04", false).unwrap(), TaxRate::parse("0.04875", false).unwrap()];
        // 0.046 -> 0.05 and 0.0560625 -> 0.06
        assert_eq!(payable(115, 1_000, Reduction::None, &two, MODE), Ok(126));
    }

    #[test]
    fn an_inclusive_tax_leaves_the_price_alone() {
        let taxes = [TaxRate::parse("0.19", true).unwrap()];
        assert_eq!(payable(333, 3_000, Reduction::PerMille(100), &taxes, MODE), Ok(899));
        assert_eq!(payable(333, 3_000, Reduction::Amount(5_000), &taxes, MODE), Ok(0));
    }

    #[test]
    fn a_weight_is_priced_once_from_the_exact_value() {
        assert_eq!(payable(1_990, 345, Reduction::None, &[], MODE), Ok(687));
    }
}
