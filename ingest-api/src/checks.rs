//! Checks that bodies share: each finding names its place, and a body is told all of them at once.

use std::fmt::Display;
use std::ops::RangeInclusive;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::Decimal;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use crate::error::{ApiError, FieldProblem};

/// More findings than this are not listed.
const PROBLEMS_MAX: usize = 100;
/// Names and labels.
pub const NAME_CHARS_MAX: usize = 200;
/// Identifiers that callers choose.
pub const CODE_CHARS_MAX: usize = 100;
/// Rows of one bulk request.
pub const BULK_ROWS_MAX: usize = 10_000;
/// Largest quantity of one line: a million units, in thousandths.
pub const QTY_MAX: i64 = 1_000_000_000;
/// Largest single amount in minor units, far below where a document could overflow.
pub const AMOUNT_MAX: i64 = 1_000_000_000_000;
/// How far a device clock may run ahead.
pub const AHEAD_SECONDS_MAX: i64 = 300;

/// Collects what is wrong with a body.
#[derive(Debug, Default)]
pub struct Checks {
    problems: Vec<FieldProblem>,
}

impl Checks {
    /// Notes a wrong value at a JSON pointer.
    pub fn fail(&mut self, pointer: impl Display, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(FieldProblem::value(pointer.to_string(), message));
        }
    }

    /// Notes `message` unless the claim holds.
    pub fn that(&mut self, holds: bool, pointer: impl Display, message: &str) {
        if !holds {
            self.fail(pointer, message);
        }
    }

    /// 422 with every finding, or nothing.
    pub fn done(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.problems)) }
    }

    /// Brings a text into its one spelling (NFC, trimmed) and refuses an empty or long one and
    /// characters that are not seen: control, zero-width, direction marks.
    pub fn text(&mut self, pointer: impl Display, text: &mut String, chars_max: usize) {
        if text.len() > chars_max.saturating_mul(4).saturating_add(64) {
            return self.fail(pointer, format!("longer than {chars_max} characters"));
        }
        *text = text.trim().nfc().collect();
        if text.is_empty() {
            self.fail(pointer, "must not be empty");
        } else if text.chars().count() > chars_max {
            self.fail(pointer, format!("longer than {chars_max} characters"));
        } else if text.chars().any(is_invisible) {
            self.fail(pointer, "holds a control or invisible character");
        }
    }

    /// As [`Checks::text`], when there is one.
    pub fn text_opt(&mut self, pointer: impl Display, text: &mut Option<String>, chars_max: usize) {
        if let Some(text) = text {
            self.text(pointer, text, chars_max);
        }
    }

    pub fn range(&mut self, pointer: impl Display, value: i64, allowed: RangeInclusive<i64>) {
        if !allowed.contains(&value) {
            self.fail(pointer, format!("must lie in {} to {}", allowed.start(), allowed.end()));
        }
    }

    /// Between one and `max` rows.
    pub fn rows(&mut self, pointer: impl Display, rows: usize, max: usize) {
        if rows == 0 || rows > max {
            self.fail(pointer, format!("must hold 1 to {max} rows, has {rows}"));
        }
    }

    /// An identifier the caller made: a random or time-ordered UUID, never nil.
    pub fn new_id(&mut self, pointer: impl Display, id: Option<Uuid>) {
        if let Some(id) = id {
            let is_usual = id.get_variant() == uuid::Variant::RFC4122 && matches!(id.get_version_num(), 4 | 5 | 7 | 8);
            self.that(is_usual, pointer, "must be a UUID of version 4, 5, 7 or 8");
        }
    }

    /// A currency of ISO 4217 that this platform can count in minor units.
    pub fn currency(&mut self, pointer: impl Display, code: &str) {
        let is_known = code.parse::<schemas::money::Currency>().is_ok_and(|currency| currency.is_listed());
        self.that(is_known, pointer, "must be a currency code of ISO 4217, for instance EUR");
    }

    /// An instant between 1900 and 2200.
    pub fn instant(&mut self, pointer: impl Display, at: DateTime<Utc>) {
        self.date(pointer, at.date_naive());
    }

    /// A date between 1900 and 2200.
    pub fn date(&mut self, pointer: impl Display, date: NaiveDate) {
        use chrono::Datelike as _;
        self.that((1900..2200).contains(&date.year()), pointer, "must lie between 1900 and 2200");
    }

    /// An instant that has happened, give or take the allowed clock error.
    pub fn past(&mut self, pointer: impl Display, at: DateTime<Utc>) {
        if at > Utc::now() + TimeDelta::seconds(AHEAD_SECONDS_MAX) {
            self.fail(pointer, "lies in the future");
        } else {
            self.instant(pointer, at);
        }
    }
}

/// A decimal written as digits with at most one point between them: no sign, no exponent, no separators, and not more
/// places than can be held exactly.
pub fn decimal(text: &str) -> Option<Decimal> {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    if is_number(whole) && is_number(places) { Decimal::from_str_exact(text).ok() } else { None }
}

/// Reads a text as [`decimal`] does.
pub fn plain_decimal<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Decimal, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(reader)?;
    decimal(&text).ok_or_else(|| serde::de::Error::custom("must be a decimal in plain digits, as text"))
}

/// Characters that make two texts look alike although they differ, or that a store cannot keep.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The one spelling of a SKU: NFC, trimmed, case folded.
pub fn canonical_sku(sku: &str) -> String {
    // Upper first, so that letters with several lower forms (final sigma, sharp s) become one.
    sku.trim().nfc().collect::<String>().to_uppercase().to_lowercase().nfc().collect()
}

/// Whether a barcode is a GTIN (8, 12, 13 or 14 digits) with the right check digit.
pub fn is_gtin(code: &str) -> bool {
    let digits: Vec<u32> = code.chars().filter_map(|char| char.to_digit(10)).collect();
    if digits.len() != code.len() || !matches!(digits.len(), 8 | 12 | 13 | 14) {
        return false;
    }
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(place, digit)| digit * if place % 2 == 0 { 1 } else { 3 }).sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gtins_need_their_check_digit() {
        for good in ["4006381333931", "96385074", "036000291452", "10614141000415"] {
            assert!(is_gtin(good), "{good}");
        }
        for bad in ["4006381333932", "96385075", "", "123", "400638133393x", "４００６３８１３３３９３１"]
        {
            assert!(!is_gtin(bad), "{bad}");
        }
    }

    #[test]
    fn decimals_are_plain_digits() {
        for good in ["0", "19", "0.19", "007.500"] {
            assert_eq!(decimal(good), good.parse().ok(), "{good}");
        }
        for bad in ["", ".", "1.", ".5", "1_0", "0_1.9", "+1", "-1", "1e2", " 1", "1.2.3", "１", &"9".repeat(40)] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn twin_skus_become_one() {
        assert_eq!(canonical_sku(" Caf\u{e9}-1 "), canonical_sku("CAFE\u{301}-1"));
        assert_eq!(canonical_sku("Straße"), canonical_sku("STRASSE"));
        assert_ne!(canonical_sku("a-1"), canonical_sku("a-2"));
    }

    #[test]
    fn a_body_is_told_every_finding() {
        let mut checks = Checks::default();
        let (mut blank, mut long, mut hidden) = ("  ".to_owned(), "x".repeat(300), "a\u{202e}b".to_owned());
        checks.text("/a", &mut blank, 200);
        checks.text("/b", &mut long, 200);
        checks.text("/c", &mut hidden, 200);
        checks.range("/d", 0, 1..=5);
        checks.new_id("/e", Some(Uuid::nil()));
        checks.past("/f", Utc::now() + TimeDelta::days(1));
        let pointers: Vec<_> = checks.done().unwrap_err().errors.into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/a", "/b", "/c", "/d", "/e", "/f"]);
    }
}
