//! Cells of foreign files to exact values: amounts, quantities, instants. Pure; every refusal says why.

use std::ops::RangeInclusive;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use rust_decimal::{Decimal, RoundingStrategy};

use super::map::Constants;

/// A stable code and a sentence for people.
pub type Refusal = (&'static str, String);

/// Years of instants. The API takes 1900 to 2199; the days around the turn to 1900 are what spreadsheets make of an
/// empty cell.
const YEARS: RangeInclusive<i32> = 1901..=2199;

/// A figure closer than this to a whole minor unit is that unit: exports written from binary floats.
const NOISE: Decimal = Decimal::from_parts(1, 0, 0, false, 6);

/// A decimal as people and programs write it: signs before, after or as brackets, currency signs,
/// thousands separators, exponents.
pub fn decimal(cell: &str, point: char) -> Result<Decimal, Refusal> {
    let bad = || ("bad_number", format!("{cell:?} is no number"));
    let mut text: String = cell
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '\u{a0}' | '\u{202f}' | '\'' | '€' | '$' | '£' | '¥'))
        .collect();
    let mut is_negative = false;
    if let Some(inner) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        (is_negative, text) = (true, inner.to_owned());
    } else if let Some(before) = text.strip_suffix('-') {
        (is_negative, text) = (true, before.to_owned());
    }
    let thousands = if point == '.' { ',' } else { '.' };
    check_thousands(&text, thousands, point).ok_or_else(bad)?;
    let text: String = text.chars().filter(|c| *c != thousands).map(|c| if c == point { '.' } else { c }).collect();
    let value = if text.contains(['e', 'E']) { Decimal::from_scientific(&text) } else { text.parse() };
    let value = value.map_err(|_| bad())?;
    Ok(if is_negative { -value } else { value })
}

/// Thousands separators stand before groups of three digits only, so that `1,5` is never read as 15.
fn check_thousands(text: &str, thousands: char, point: char) -> Option<()> {
    let whole = text.split(point).next().unwrap_or(text);
    if text[whole.len()..].contains(thousands) {
        return None;
    }
    let mut groups = whole.split(thousands);
    let first = groups.next()?;
    let rest: Vec<&str> = groups.collect();
    if rest.is_empty() {
        return Some(());
    }
    let is_group = |group: &&str| group.len() == 3 && group.bytes().all(|b| b.is_ascii_digit());
    (first.trim_start_matches(['-', '+']).len() <= 3 && rest.iter().all(is_group)).then_some(())
}

/// A figure as a whole number of `10^-scale` units.
fn whole(value: Decimal, scale: u32, rounds: bool, code: &'static str, cell: &str) -> Result<i64, Refusal> {
    let too_large = || (code, format!("{cell:?} is too large"));
    let scaled = value.checked_mul(Decimal::from(10_i64.pow(scale))).ok_or_else(too_large)?;
    let nearest = scaled.round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven);
    if !rounds && (scaled - nearest).abs() > NOISE {
        return Err((code, format!("{cell:?} is finer than can be kept")));
    }
    i64::try_from(nearest).map_err(|_| too_large())
}

/// An amount in minor units; an empty cell is zero.
pub fn amount(cell: &str, constants: &Constants) -> Result<i64, Refusal> {
    if cell.trim().is_empty() {
        return Ok(0);
    }
    let value = decimal(cell, constants.decimal)?;
    whole(value, constants.currency.exponent(), constants.round_amounts, "amount_precision", cell)
}

/// A quantity in thousandths; an empty cell is refused, since it could mean none or one.
pub fn quantity(cell: &str, constants: &Constants) -> Result<i64, Refusal> {
    if cell.trim().is_empty() {
        return Err(("missing_quantity", "the quantity is empty".to_owned()));
    }
    whole(decimal(cell, constants.decimal)?, 3, false, "quantity_precision", cell)
}

/// A unit price times a quantity, rounded once to minor units.
pub fn extended(cell: &str, qty: i64, constants: &Constants) -> Result<i64, Refusal> {
    if cell.trim().is_empty() {
        return Err(("missing_amount", "the price is empty".to_owned()));
    }
    let price = decimal(cell, constants.decimal)?;
    let exact =
        price.checked_mul(Decimal::new(qty, 3)).ok_or(("amount_precision", format!("{cell:?} is too large")))?;
    whole(exact, constants.currency.exponent(), true, "amount_precision", cell)
}

/// An instant from a local time by the first format that fits. A skipped hour gives the first instant
/// after it, a repeated one its first pass.
pub fn instant(cell: &str, constants: &Constants) -> Result<DateTime<Utc>, Refusal> {
    let cell = cell.trim();
    if cell.is_empty() {
        return Err(("missing_time", "the time is empty".to_owned()));
    }
    let at = constants
        .time_formats
        .iter()
        .find_map(|format| by_format(cell, format, constants))
        .ok_or_else(|| ("bad_time", format!("{cell:?} fits none of the formats")))?;
    if !YEARS.contains(&at.year()) {
        let (first, last) = (YEARS.start(), YEARS.end());
        return Err(("time_out_of_range", format!("{cell:?} does not lie in the years {first} to {last}")));
    }
    Ok(at)
}

fn by_format(cell: &str, format: &str, constants: &Constants) -> Option<DateTime<Utc>> {
    match format {
        "rfc3339" => return DateTime::parse_from_rfc3339(cell).ok().map(|at| at.to_utc()),
        "epoch_s" => return DateTime::from_timestamp(cell.parse().ok()?, 0),
        "epoch_ms" => return DateTime::from_timestamp_millis(cell.parse().ok()?),
        _ => {}
    }
    let local = NaiveDateTime::parse_from_str(cell, format)
        .or_else(|_| NaiveDate::parse_from_str(cell, format).map(|date| date.and_time(constants.time_of_day)))
        .ok()?;
    to_utc(local, constants.zone)
}

fn to_utc(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    // no zone skips more than a day
    (0..=96).find_map(|quarter| {
        let at = local.checked_add_signed(TimeDelta::minutes(15 * quarter))?;
        let at = if quarter == 0 {
            at
        } else {
            at.date().and_hms_opt(chrono::Timelike::hour(&at), 15 * (chrono::Timelike::minute(&at) / 15), 0)?
        };
        zone.from_local_datetime(&at).earliest().map(|at| at.to_utc())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::map::Map;

    fn constants() -> Constants {
        let text = include_str!("../../../maps/completejourney.toml");
        let formats = r#"time_formats = ["%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%y", "rfc3339", "epoch_s"]"#;
        Map::parse(&text.replace(r#"time_formats = ["%Y-%m-%d %H:%M:%S"]"#, formats)).unwrap().constants
    }

    #[test]
    fn amounts_as_people_write_them() {
        let c = constants();
        for (cell, minor) in [
            ("3.86", 386),
            ("", 0),
            (" 1,234.50 ", 123_450),
            ("$ 2", 200),
            ("(1.10)", -110),
            ("1.10-", -110),
            ("4.440892e-16", 0),
            ("-0.01", -1),
            ("0.30000000000000004", 30),
            ("2.5E2", 25_000),
        ] {
            assert_eq!(amount(cell, &c), Ok(minor), "{cell}");
        }
        let comma = Constants { decimal: ',', ..c.clone() };
        assert_eq!(amount("1.234,50 €", &comma), Ok(123_450));
        assert_eq!(amount("0,99", &comma), Ok(99));
    }

    #[test]
    fn what_is_no_amount_is_refused_with_its_code() {
        let c = constants();
        for (cell, code) in [
            ("abc", "bad_number"),
            ("1,5", "bad_number"),
            ("1.005", "amount_precision"),
            ("9e30", "bad_number"),
            ("9e26", "amount_precision"),
            ("1.2.3", "bad_number"),
            ("--1", "bad_number"),
            ("1.234,5", "bad_number"),
        ] {
            assert_eq!(amount(cell, &c).unwrap_err().0, code, "{cell}");
        }
        assert_eq!(amount("1.005", &Constants { round_amounts: true, ..c }), Ok(100));
    }

    #[test]
    fn several_forms_of_dates_and_the_hours_that_do_not_exist() {
        let c = constants();
        for (cell, utc) in [
            ("2017-01-28 19:06:53", "2017-01-29T00:06:53Z"),
            ("28.01.2017 19:06", "2017-01-29T00:06:00Z"),
            ("01/28/17", "2017-01-28T17:00:00Z"),
            ("2017-01-28T19:06:53+01:00", "2017-01-28T18:06:53Z"),
            ("1485630413", "2017-01-28T19:06:53Z"),
            // 02:00-03:00 is skipped that night
            ("2017-03-12 02:31:57", "2017-03-12T07:00:00Z"),
            // 01:00-02:00 comes twice
            ("2017-11-05 01:30:00", "2017-11-05T05:30:00Z"),
        ] {
            assert_eq!(instant(cell, &c).map(|at| at.to_rfc3339()), Ok(utc.replace('Z', "+00:00")), "{cell}");
        }
        assert_eq!(instant("tomorrow", &c).unwrap_err().0, "bad_time");
        assert_eq!(instant(" ", &c).unwrap_err().0, "missing_time");
    }

    #[test]
    fn quantities_are_thousandths() {
        let c = constants();
        assert_eq!(quantity("1.0", &c), Ok(1_000));
        assert_eq!(quantity("0.345", &c), Ok(345));
        assert_eq!(quantity("-2", &c), Ok(-2_000));
        assert_eq!(quantity("0.3455", &c).unwrap_err().0, "quantity_precision");
        assert_eq!(quantity("", &c).unwrap_err().0, "missing_quantity");
        assert_eq!(extended("0.0333", 30_000, &c), Ok(100));
    }
}
