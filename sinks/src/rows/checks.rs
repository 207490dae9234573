//! What a raw table holds exactly; anything else is refused.

use schemas::time::{Day, FIRST_DAY, LAST_DAY, Timestamp};

use super::{AMOUNT_MAX, OutOfRange};

pub(super) fn optional(value: Option<i64>) -> i64 {
    value.unwrap_or(-1)
}

pub(super) fn within(field: &'static str, value: i64, min: i64, max: i64) -> Result<(), OutOfRange> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(OutOfRange { field, value: value.to_string() }) }
}

pub(super) fn amounts(figures: &[(&'static str, i64)]) -> Result<(), OutOfRange> {
    figures.iter().try_for_each(|(field, value)| within(field, *value, -AMOUNT_MAX, AMOUNT_MAX))
}

/// Quantities have room for 15 digits before the point in the views.
pub(super) fn quantities(figures: &[(&'static str, i64)]) -> Result<(), OutOfRange> {
    figures.iter().try_for_each(|(field, value)| within(field, *value, -AMOUNT_MAX, AMOUNT_MAX))
}

/// The ends of ClickHouse's dates.
pub(super) const DAYS: (i64, i64) = (FIRST_DAY.0 as i64, LAST_DAY.0 as i64);
pub(super) use schemas::time::MICROS_OF_DAY;

pub(super) fn day(field: &'static str, day: Day) -> Result<i32, OutOfRange> {
    within(field, day.0.into(), DAYS.0, DAYS.1)?;
    Ok(day.0)
}

pub(super) fn instant(field: &'static str, at: Timestamp) -> Result<i64, OutOfRange> {
    within(field, at.0.div_euclid(MICROS_OF_DAY), DAYS.0, DAYS.1)?;
    Ok(at.0)
}

/// UTC date of an instant that [`instant`] has accepted.
pub(super) fn date_of(at: Timestamp) -> i32 {
    at.0.div_euclid(MICROS_OF_DAY) as i32
}
