//! When customers come: a location's trading hours as a distribution over a span of real time.

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

/// Customers per local hour, 0-23: closed at night, busy at noon and after work.
const CUSTOMERS: [u64; 24] = [0, 0, 0, 0, 0, 0, 0, 6, 12, 14, 16, 20, 26, 22, 16, 16, 20, 28, 26, 16, 8, 0, 0, 0];

/// Quarter hours of a span with the customers up to each: gives the n-th of many customers an instant.
pub struct TradingHours {
    quarters: Vec<(DateTime<Utc>, u64)>,
    total: u64,
}

impl TradingHours {
    /// The hours of `zone` between `from` and `to`.
    pub fn new(zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> TradingHours {
        let mut quarters = Vec::new();
        let mut total = 0;
        let mut at = from;
        while at < to {
            quarters.push((at, total));
            // one in a span without trading hours, so that it can still sell
            total += CUSTOMERS[at.with_timezone(&zone).hour() as usize].max(u64::from(to - from < TimeDelta::hours(12)));
            at += TimeDelta::minutes(15);
        }
        TradingHours { quarters, total }
    }

    /// The instant of customer `n` of `of`; later customers never come earlier.
    pub fn instant(&self, n: u64, of: u64) -> DateTime<Utc> {
        let Some((first, _)) = self.quarters.first() else { return DateTime::<Utc>::MIN_UTC };
        // thousandths of a customer, so that many share a quarter hour evenly
        let wanted = (u128::from(self.total) * 1_000 * u128::from(n) / u128::from(of.max(1))) as u64;
        let index = self.quarters.partition_point(|(_, before)| before * 1_000 <= wanted).saturating_sub(1);
        let Some((start, before)) = self.quarters.get(index) else { return *first };
        let here = self.quarters.get(index + 1).map_or(self.total, |(_, next)| *next) - before;
        let into = if here == 0 { 0 } else { (wanted - before * 1_000) * 900 / here };
        *start + TimeDelta::milliseconds(into.min(899_999) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_come_in_order_within_the_span_and_only_in_trading_hours() {
        let to: DateTime<Utc> = "2026-03-30T16:20:00Z".parse().unwrap();
        let from = to - TimeDelta::days(7);
        let zone: Tz = "Europe/Berlin".parse().unwrap();
        let hours = TradingHours::new(zone, from, to);
        let instants: Vec<_> = (0..5_000).map(|n| hours.instant(n, 5_000)).collect();
        assert!(instants.is_sorted());
        for at in instants {
            assert!(at >= from && at < to + TimeDelta::minutes(15));
            assert!(CUSTOMERS[at.with_timezone(&zone).hour() as usize] > 0, "{at}");
        }
    }
}
