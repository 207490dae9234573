//! When customers come: a location's trading hours as a distribution over a span of real time.

use chrono::{DateTime, DurationRound, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

/// Customers per local hour, 0-23: closed at night, busy at noon and after work.
const CUSTOMERS: [u64; 24] = [0, 0, 0, 0, 0, 0, 0, 6, 12, 14, 16, 20, 26, 22, 16, 16, 20, 28, 26, 16, 8, 0, 0, 0];

/// Minutes of a span with the customers before each: gives the n-th of many customers an instant.
pub struct TradingHours {
    minutes: Vec<(DateTime<Utc>, u64)>,
    total: u64,
    to: DateTime<Utc>,
}

impl TradingHours {
    /// The hours of `zone` between `from` and `to`.
    pub fn new(zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> TradingHours {
        // a short span may lie at night and can still sell
        let at_least = u64::from(to - from < TimeDelta::hours(12));
        let mut minutes = Vec::new();
        let mut total = 0;
        // hours begin with a whole minute in every zone
        let mut at = from.duration_round_up(TimeDelta::minutes(1)).unwrap_or(from);
        while at + TimeDelta::minutes(1) <= to {
            minutes.push((at, total));
            total += CUSTOMERS[at.with_timezone(&zone).hour() as usize].max(at_least);
            at += TimeDelta::minutes(1);
        }
        TradingHours { minutes, total, to }
    }

    /// The instant of customer `n` of `of`; later customers never come earlier, none after the span.
    pub fn instant(&self, n: u64, of: u64) -> DateTime<Utc> {
        // thousandths of a customer, so that many share a minute evenly
        let wanted = (u128::from(self.total) * 1_000 * u128::from(n) / u128::from(of.max(1))) as u64;
        let index = self.minutes.partition_point(|(_, before)| before * 1_000 <= wanted).saturating_sub(1);
        let Some((start, before)) = self.minutes.get(index) else { return self.to };
        let here = self.minutes.get(index + 1).map_or(self.total, |(_, next)| *next) - before;
        let into = ((wanted - before * 1_000) * 60).checked_div(here).unwrap_or(0);
        *start + TimeDelta::milliseconds(into.min(59_999) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_come_in_order_within_the_span_and_only_in_trading_hours() {
        let to: DateTime<Utc> = "2026-03-30T16:20:31Z".parse().unwrap();
        let from = to - TimeDelta::days(7);
        let zone: Tz = "Europe/Berlin".parse().unwrap();
        let hours = TradingHours::new(zone, from, to);
        let instants: Vec<_> = (0..5_000).map(|n| hours.instant(n, 5_000)).collect();
        assert!(instants.is_sorted());
        for at in instants {
            assert!(at >= from && at <= to);
            assert!(CUSTOMERS[at.with_timezone(&zone).hour() as usize] > 0, "{at}");
        }
    }
}
