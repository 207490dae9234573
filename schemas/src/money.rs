//! The only arithmetic on amounts: money in minor units, quantities in thousandths, `round` and `alloc`.
//!
//! Everything is integer or exact rational; nothing here is ever a float. What does not fit an `i64`
//! is [`Overflow`], never a wrapped figure.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A figure left the range of an `i64`, or a ratio had no denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the amount or quantity is out of range")]
pub struct Overflow;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            pub const ZERO: $name = $name(0);

            /// The sum.
            pub fn plus(self, other: $name) -> Result<$name, Overflow> {
                self.0.checked_add(other.0).map($name).ok_or(Overflow)
            }
            /// The difference.
            pub fn minus(self, other: $name) -> Result<$name, Overflow> {
                self.0.checked_sub(other.0).map($name).ok_or(Overflow)
            }
            /// The same amount with the other sign.
            pub fn negated(self) -> Result<$name, Overflow> {
                self.0.checked_neg().map($name).ok_or(Overflow)
            }
            /// The sum of all; zero for none.
            pub fn sum(all: impl IntoIterator<Item = $name>) -> Result<$name, Overflow> {
                all.into_iter().try_fold($name(0), $name::plus)
            }
        }
        impl From<i64> for $name {
            fn from(value: i64) -> Self { $name(value) }
        }
        impl From<$name> for i64 {
            fn from(value: $name) -> i64 { value.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

quantity!(
    /// Money in minor units of a currency that stands beside it (cents; yen; fils). Signed.
    Minor
);
quantity!(
    /// A quantity in thousandths of its unit of measure: 1000 is one piece, 250 is a quarter kilogram. Signed.
    Qty
);

/// Thousandths in one unit of measure.
pub const QTY_SCALE: i64 = 1_000;

/// Largest magnitude of an amount in minor units, and of a quantity in thousandths, that every store of the platform
/// holds exactly: beyond it the decimals of the analysts' views end. What is larger is refused at the door.
pub const FIGURE_MAX: i64 = 90_000_000_000_000;

/// The figure itself, or [`Overflow`] beyond [`FIGURE_MAX`].
pub fn storable(figure: i64) -> Result<i64, Overflow> {
    if (-FIGURE_MAX..=FIGURE_MAX).contains(&figure) { Ok(figure) } else { Err(Overflow) }
}

/// How an exact figure becomes whole minor units. The mode acts on the magnitude and the sign is put
/// back, so that a refund mirrors its sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundingMode {
    /// Nearest, a tie to the even neighbour.
    #[default]
    HalfEven,
    /// Nearest, a tie away from zero.
    HalfUp,
    /// Nearest, a tie toward zero.
    HalfDown,
    /// Toward zero.
    Down,
    /// Away from zero.
    Up,
}

impl RoundingMode {
    pub const ALL: [RoundingMode; 5] =
        [RoundingMode::HalfEven, RoundingMode::HalfUp, RoundingMode::HalfDown, RoundingMode::Down, RoundingMode::Up];

    /// The name used in JSON, SQL and Avro.
    pub fn as_str(self) -> &'static str {
        match self {
            RoundingMode::HalfEven => "half_even",
            RoundingMode::HalfUp => "half_up",
            RoundingMode::HalfDown => "half_down",
            RoundingMode::Down => "down",
            RoundingMode::Up => "up",
        }
    }
}

impl fmt::Display for RoundingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no rounding mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rounding mode: use half_even, half_up, half_down, down or up")]
pub struct UnknownRoundingMode(pub String);

impl FromStr for RoundingMode {
    type Err = UnknownRoundingMode;
    fn from_str(text: &str) -> Result<Self, UnknownRoundingMode> {
        RoundingMode::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| UnknownRoundingMode(text.to_owned()))
    }
}

/// The exact rational `num / den` as a whole number: one rounding, from the exact value.
/// Errors: [`Overflow`] when the result leaves the range of an `i64`, and for `den == 0`.
pub fn round(num: i128, den: i128, mode: RoundingMode) -> Result<i64, Overflow> {
    if den == 0 {
        return Err(Overflow);
    }
    let (n, d) = (num.unsigned_abs(), den.unsigned_abs());
    let (whole, rest) = (n / d, n % d);
    // rest against its complement to the next whole: no doubling, so nothing can overflow
    let half = rest.cmp(&(d - rest));
    let goes_up = match mode {
        RoundingMode::HalfEven => half.is_gt() || (half.is_eq() && whole % 2 == 1),
        RoundingMode::HalfUp => half.is_ge(),
        RoundingMode::HalfDown => half.is_gt(),
        RoundingMode::Down => false,
        RoundingMode::Up => rest > 0,
    };
    let magnitude = whole + u128::from(goes_up);
    signed((num < 0) != (den < 0), magnitude)
}

fn signed(negative: bool, magnitude: u128) -> Result<i64, Overflow> {
    let magnitude = i128::try_from(magnitude).map_err(|_| Overflow)?;
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| Overflow)
}

/// Splits `total` in proportion to `weights` (their magnitudes) so that the parts add up to it exactly:
/// floors of the exact shares, then the missing units one each by largest fraction, a tie to the earlier
/// part; the sign of `total` is put back.
///
/// A total of zero gives zeros. Where every weight is zero nothing says who should bear it, so the parts
/// are as equal as they can be, earlier ones first: what is given out is never lost. No weights, no parts:
/// a caller with a total to give must have somebody to give it to.
pub fn alloc(total: i64, weights: &[i64]) -> Vec<i64> {
    let magnitude = u128::from(total.unsigned_abs());
    let mut weights: Vec<u128> = weights.iter().map(|weight| u128::from(weight.unsigned_abs())).collect();
    if weights.iter().all(|weight| *weight == 0) {
        weights.fill(1);
    }
    let whole: u128 = weights.iter().sum();
    let mut parts: Vec<u128> = weights.iter().map(|weight| magnitude * weight / whole).collect();
    let missing = magnitude.saturating_sub(parts.iter().sum());
    if missing > 0 {
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by_key(|i| (Reverse(magnitude * weights[*i] % whole), *i));
        for i in order.into_iter().take(missing as usize) {
            parts[i] += 1;
        }
    }
    // no part is larger than |total|, so putting the sign back always fits
    parts.into_iter().map(|part| if total < 0 { (part as i64).wrapping_neg() } else { part as i64 }).collect()
}

/// `share` over `n` units, as equal as it can be: unit `i` (from 1) gets `floor(share / n)`, and one more
/// while `i <= share mod n`. The same as [`alloc`] with `n` equal weights.
pub fn units(share: i64, n: usize) -> Vec<i64> {
    alloc(share, &vec![1; n])
}

/// Price times quantity in minor units: `round(price_minor * qty / 1000)`.
pub fn extended(price_minor: i64, qty_thousandths: i64, mode: RoundingMode) -> Result<i64, Overflow> {
    round(i128::from(price_minor) * i128::from(qty_thousandths), i128::from(QTY_SCALE), mode)
}

/// The multiple of `step` that `amount_minor` rounds to (cash rounding). A step below 1 counts as 1.
pub fn to_step(amount_minor: i64, step: i64, mode: RoundingMode) -> Result<i64, Overflow> {
    let step = step.max(1);
    round(amount_minor.into(), step.into(), mode)?.checked_mul(step).ok_or(Overflow)
}

/// A decimal rate as the exact ratio `(numerator, denominator)`, the denominator a power of ten.
pub fn ratio(rate: Decimal) -> (i128, i128) {
    let rate = rate.normalize();
    (rate.mantissa(), 10_i128.pow(rate.scale()))
}

/// An ISO 4217 code: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// Codes of ISO 4217 that money is counted in: no metals, no funds of banks, no test codes.
const LISTED: &str = "
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLF
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HRK HTG
    HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD
    MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYI UYU
    UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

/// A text that is no currency code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no currency: use the three capital letters of ISO 4217, for instance EUR")]
pub struct BadCurrency(pub String);

impl Currency {
    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether ISO 4217 lists the code as money that people pay with.
    pub fn is_listed(&self) -> bool {
        LISTED.split_ascii_whitespace().any(|code| code == self.as_str())
    }

    /// Decimal places between the unit people speak of and the minor unit (ISO 4217: EUR 2, JPY 0, KWD 3).
    /// A code that the table does not name has 2.
    pub fn exponent(&self) -> u32 {
        match self.as_str() {
            "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
            | "VUV" | "XAF" | "XOF" | "XPF" => 0,
            "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
            "CLF" | "UYW" => 4,
            _ => 2,
        }
    }

    /// The amount in the unit people speak of, without the code: 1291 in EUR is `12.91`, in JPY `1291`.
    pub fn text(&self, amount_minor: i64) -> String {
        let exponent = self.exponent();
        let scale = 10_u64.pow(exponent);
        let (sign, magnitude) = (if amount_minor < 0 { "-" } else { "" }, amount_minor.unsigned_abs());
        if exponent == 0 {
            return format!("{sign}{magnitude}");
        }
        format!("{sign}{}.{:0width$}", magnitude / scale, magnitude % scale, width = exponent as usize)
    }
}

impl FromStr for Currency {
    type Err = BadCurrency;
    fn from_str(text: &str) -> Result<Self, BadCurrency> {
        match text.as_bytes() {
            [a, b, c] if text.bytes().all(|letter| letter.is_ascii_uppercase()) => Ok(Currency([*a, *b, *c])),
            _ => Err(BadCurrency(text.to_owned())),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
