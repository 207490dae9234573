//! Exact rationals between the figures of a document and their one rounding step.

use rust_decimal::Decimal;
use schemas::money::{self, Overflow, RoundingMode};

/// An exact fraction with a positive denominator, not necessarily reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    pub num: i128,
    pub den: i128,
}

impl Ratio {
    pub const ZERO: Ratio = Ratio { num: 0, den: 1 };
    pub const ONE: Ratio = Ratio { num: 1, den: 1 };

    pub fn of(rate: Decimal) -> Ratio {
        let (num, den) = money::ratio(rate);
        Ratio { num, den }
    }

    pub fn whole(value: i64) -> Ratio {
        Ratio { num: value.into(), den: 1 }
    }

    pub fn times(self, other: Ratio) -> Result<Ratio, Overflow> {
        // Crosswise in lowest terms first: only a product that does not fit itself overflows.
        let (left, right) =
            (Ratio { num: self.num, den: other.den }.reduced(), Ratio { num: other.num, den: self.den }.reduced());
        let num = left.num.checked_mul(right.num).ok_or(Overflow)?;
        let den = left.den.checked_mul(right.den).ok_or(Overflow)?;
        Ok(Ratio { num, den })
    }

    pub fn plus(self, other: Ratio) -> Result<Ratio, Overflow> {
        if self.den == other.den {
            return Ok(Ratio { num: self.num.checked_add(other.num).ok_or(Overflow)?, den: self.den });
        }
        // Over the lowest common denominator: several compound taxes share most of theirs.
        let shared = (gcd(self.den.unsigned_abs(), other.den.unsigned_abs()) as i128).max(1);
        let left = self.num.checked_mul(other.den / shared).ok_or(Overflow)?;
        let right = other.num.checked_mul(self.den / shared).ok_or(Overflow)?;
        let num = left.checked_add(right).ok_or(Overflow)?;
        Ok(Ratio { num, den: self.den.checked_mul(other.den / shared).ok_or(Overflow)? }.reduced())
    }

    pub fn over(self, other: Ratio) -> Result<Ratio, Overflow> {
        if other.num <= 0 {
            return Err(Overflow);
        }
        self.times(Ratio { num: other.den, den: other.num })
    }

    pub fn round(self, mode: RoundingMode) -> Result<i64, Overflow> {
        money::round(self.num, self.den, mode)
    }

    pub fn reduced(self) -> Ratio {
        match gcd(self.num.unsigned_abs(), self.den.unsigned_abs()) as i128 {
            0 | 1 => self,
            divisor => Ratio { num: self.num / divisor, den: self.den / divisor },
        }
    }
}

/// `num/den` in lowest terms, or the whole number.
impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ratio { num, den } = self.reduced();
        if den == 1 { write!(f, "{num}") } else { write!(f, "{num}/{den}") }
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        // Amounts nearly always fit 64 bits, where division is several times cheaper.
        if let (Ok(small_a), Ok(small_b)) = (u64::try_from(a), u64::try_from(b)) {
            return gcd_small(small_a, small_b).into();
        }
        (a, b) = (b, a % b);
    }
    a
}

fn gcd_small(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Whole-number weights in the same proportion as `shares`, for `alloc`.
pub fn weights(shares: &[Ratio]) -> Result<Vec<i64>, Overflow> {
    let mut common: u128 = 1;
    for share in shares {
        let den = share.den.unsigned_abs();
        common = common.checked_mul(den / gcd(common, den)).ok_or(Overflow)?;
    }
    let common = i128::try_from(common).map_err(|_| Overflow)?;
    let scaled: Vec<i128> = shares
        .iter()
        .map(|share| share.num.checked_mul(common / share.den).ok_or(Overflow))
        .collect::<Result<_, _>>()?;
    let divisor = scaled.iter().fold(0, |divisor, weight| gcd(divisor, weight.unsigned_abs())).max(1) as i128;
    scaled.into_iter().map(|weight| i64::try_from(weight / divisor).map_err(|_| Overflow)).collect()
}
