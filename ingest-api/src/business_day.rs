//! Pure: from an instant to the business day of a location and its slot (rule T12).

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// Seconds of a slot: a business day is cut into five-minute intervals from its own start.
pub const SLOT_SECONDS: i64 = 300;
/// The last slot: a day never has more than 26 hours.
pub const LAST_SLOT: i16 = 311;

/// Where an instant falls in a location's trading calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusinessMoment {
    pub date: NaiveDate,
    /// Five-minute interval counted from the start of the business day, 0-311.
    pub slot: i16,
}

/// The business day and slot of `at` for a location in `zone` whose day starts at `cutoff`.
pub fn business_moment(at: DateTime<Utc>, zone: Tz, cutoff: NaiveTime) -> BusinessMoment {
    let mut date = at.with_timezone(&zone).date_naive();
    let mut start = day_start(date, zone, cutoff);
    while start > at {
        let Some(previous) = date.pred_opt() else { break };
        date = previous;
        start = day_start(date, zone, cutoff);
    }
    // A clock that falls back over the cutoff reads the day before once more, when the new day has begun already.
    while let Some(next) = date.succ_opt() {
        let next_start = day_start(next, zone, cutoff);
        if next_start > at {
            break;
        }
        (date, start) = (next, next_start);
    }
    let slot = ((at - start).num_seconds() / SLOT_SECONDS).clamp(0, LAST_SLOT.into()) as i16;
    BusinessMoment { date, slot }
}

/// First instant at which the location's clock, on local date `date`, reads `cutoff` or later:
/// a skipped hour gives the first instant after it, a repeated hour its first pass.
pub fn day_start(date: NaiveDate, zone: Tz, cutoff: NaiveTime) -> DateTime<Utc> {
    let wanted = date.and_time(cutoff);
    match zone.from_local_datetime(&wanted).earliest() {
        Some(start) => start.with_timezone(&Utc),
        None => first_instant_after_gap(wanted, zone),
    }
}

/// The clock never reads `wanted`: search the second at which it jumps over it.
fn first_instant_after_gap(wanted: NaiveDateTime, zone: Tz) -> DateTime<Utc> {
    let margin = TimeDelta::hours(27);
    let (mut before, mut after) = (wanted.and_utc() - margin, wanted.and_utc() + margin);
    while after - before > TimeDelta::seconds(1) {
        let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
        if middle.with_timezone(&zone).naive_local() >= wanted {
            after = middle;
        } else {
            before = middle;
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }
    fn time(text: &str) -> NaiveTime {
        text.parse().unwrap()
    }
    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn the_repeated_hour_in_new_york_belongs_to_the_day_before_the_cutoff() {
        let zone = chrono_tz::America::New_York;
        let cutoff = time("04:00:00");
        for at in ["2025-11-02T05:30:00Z", "2025-11-02T06:30:00Z"] {
            assert_eq!(business_moment(utc(at), zone, cutoff).date, date("2025-11-01"));
        }
        assert_eq!(day_start(date("2025-11-01"), zone, cutoff), utc("2025-11-01T08:00:00Z"));
        assert_eq!(day_start(date("2025-11-02"), zone, cutoff), utc("2025-11-02T09:00:00Z"));
    }

    #[test]
    fn the_long_day_has_300_slots_and_the_short_one_276() {
        let zone = chrono_tz::Europe::Berlin;
        let last = business_moment(utc("2025-10-26T22:59:59Z"), zone, time("00:00:00"));
        assert_eq!((last.date, last.slot), (date("2025-10-26"), 299));
        let last = business_moment(utc("2025-03-30T21:59:59Z"), zone, time("00:00:00"));
        assert_eq!((last.date, last.slot), (date("2025-03-30"), 275));
    }

    #[test]
    fn a_cutoff_in_the_skipped_hour_starts_the_day_right_after_it() {
        let zone = chrono_tz::Europe::Berlin;
        let start = day_start(date("2025-03-30"), zone, time("02:30:00"));
        assert_eq!(start, utc("2025-03-30T01:00:00Z"));
        let before = business_moment(utc("2025-03-30T00:59:59Z"), zone, time("02:30:00"));
        assert_eq!(before.date, date("2025-03-29"));
        assert_eq!(business_moment(start, zone, time("02:30:00")).slot, 0);
    }

    #[test]
    fn a_cutoff_in_the_repeated_hour_uses_its_first_pass() {
        let zone = chrono_tz::Europe::Berlin;
        assert_eq!(day_start(date("2025-10-26"), zone, time("02:30:00")), utc("2025-10-26T00:30:00Z"));
    }

    #[test]
    fn midnight_that_is_skipped_or_repeated() {
        let sao_paulo = chrono_tz::America::Sao_Paulo;
        assert_eq!(day_start(date("2018-11-04"), sao_paulo, time("00:00:00")), utc("2018-11-04T03:00:00Z"));
        // 2018-02-17 had 23:00-24:00 twice: both belong to the 17th.
        let second_pass = business_moment(utc("2018-02-18T02:30:00Z"), sao_paulo, time("00:00:00"));
        assert_eq!(second_pass.date, date("2018-02-17"));
    }

    #[test]
    fn a_clock_that_falls_back_over_midnight_does_not_go_back_to_the_day_before() {
        // Until 2011 the clocks of Newfoundland fell back at 00:01: 23:01 to 00:00 came again.
        let zone = chrono_tz::America::St_Johns;
        let start = utc("2010-11-07T02:30:00Z");
        assert_eq!(day_start(date("2010-11-07"), zone, time("00:00:00")), start);
        for (at, slot) in [("2010-11-07T02:30:30Z", 0), ("2010-11-07T02:45:00Z", 3), ("2010-11-07T03:31:00Z", 12)] {
            let moment = business_moment(utc(at), zone, time("00:00:00"));
            assert_eq!(moment, BusinessMoment { date: date("2010-11-07"), slot }, "{at}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_exactly_its_own_day(seconds in 0i64..2_500_000_000, minute in 0u32..1440, zone in 0usize..7) {
            let zone = [chrono_tz::Europe::Berlin, chrono_tz::America::New_York, chrono_tz::Australia::Lord_Howe,
                chrono_tz::Asia::Tokyo, chrono_tz::America::Sao_Paulo, chrono_tz::Pacific::Apia, chrono_tz::America::St_Johns][zone];
            let cutoff = NaiveTime::from_num_seconds_from_midnight_opt(minute * 60, 0).unwrap();
            let at = DateTime::from_timestamp(seconds, 0).unwrap();
            let moment = business_moment(at, zone, cutoff);
            prop_assert!(day_start(moment.date, zone, cutoff) <= at);
            prop_assert!(at < day_start(moment.date.succ_opt().unwrap(), zone, cutoff));
        }
    }
}
