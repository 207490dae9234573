//! Times as the contract carries them: microseconds and days since 1970-01-01 UTC.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// An instant: microseconds since 1970-01-01T00:00:00Z (Avro `timestamp-micros`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Timestamp(at.timestamp_micros())
    }
}

impl Timestamp {
    /// Whether its date, in UTC, is one that every store can hold: [`FIRST_DAY`] to [`LAST_DAY`].
    pub fn is_storable(self) -> bool {
        (i64::from(FIRST_DAY.0)..=i64::from(LAST_DAY.0)).contains(&self.0.div_euclid(MICROS_OF_DAY))
    }

    /// The instant as a date and time; clamps what chrono cannot represent to its own range.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }
}

/// A calendar date: days since 1970-01-01 (Avro `date`). Business dates are stored, never recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i32);

/// 1900-01-01 and 2299-12-31, the ends of ClickHouse's dates: no store of the platform is asked to hold others.
pub const FIRST_DAY: Day = Day(-25_567);
pub const LAST_DAY: Day = Day(120_529);
/// Microseconds of a day of UTC.
pub const MICROS_OF_DAY: i64 = 86_400_000_000;

const UNIX_DAY: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();

impl From<NaiveDate> for Day {
    fn from(date: NaiveDate) -> Self {
        Day((date - UNIX_DAY).num_days() as i32)
    }
}

impl Day {
    /// The date; clamps what chrono cannot represent.
    pub fn to_date(self) -> NaiveDate {
        UNIX_DAY.checked_add_signed(TimeDelta::days(self.0.into())).unwrap_or(if self.0 < 0 {
            NaiveDate::MIN
        } else {
            NaiveDate::MAX
        })
    }
}
