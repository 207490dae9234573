//! The low-stock rule: hysteresis, alert ids and days of cover. Both figures of the rule travel in each
//! movement, so the rule needs nothing but the level before and the movement.

use schemas::events::{DaySales, StockFellLow, StockLevel, StockMoved};
use schemas::ids::{LocationId, VariantId, event_id};
use schemas::time::Day;
use schemas::topics;
use uuid::Uuid;

/// Business days with stock that days of cover looks back on.
pub const COVER_DAYS: usize = 28;

/// Reason of the movements that count as demand.
const SALE: &str = "sale";

/// Id of the alert that the movement with this identity may cause, also the event's `ce_id`.
pub fn alert_id(location: LocationId, variant: VariantId, epoch: i64, version: i64) -> Uuid {
    event_id(topics::ALERTS.event_type, &format!("{location}:{variant}"), epoch, version)
}

/// Whether the level stands fired after `event`, and the alert when it fell low just now. `level` is the level
/// after the movement. Fires below the threshold, arms again at threshold plus hysteresis; a neutral leg
/// changes nothing; without a threshold the level is armed.
pub fn evaluate(was_fired: bool, level: &StockLevel, event: &StockMoved) -> (bool, Option<StockFellLow>) {
    // Goods that wait for a look, or are thrown away, are never too few.
    let threshold = event.threshold.filter(|_| event.parent_location_id.is_none());
    let Some(threshold) = threshold else { return (false, None) };
    if event.neutral {
        return (was_fired, None);
    }
    if was_fired {
        return (event.qty_after < threshold.saturating_add(event.hysteresis.max(0)), None);
    }
    if event.qty_after >= threshold {
        return (false, None);
    }
    (true, Some(alert(level, event, threshold)))
}

fn alert(level: &StockLevel, event: &StockMoved, threshold: i64) -> StockFellLow {
    let demand = Demand::of(&level.daily_sales);
    StockFellLow {
        epoch: event.epoch,
        alert_id: alert_id(event.location_id, event.variant_id, event.epoch, event.version),
        location_id: event.location_id,
        location_seq: event.location_seq,
        variant_id: event.variant_id,
        version: event.version,
        qty: event.qty_after,
        threshold,
        hysteresis: event.hysteresis,
        days_of_cover: demand.days_of_cover(event.qty_after),
        daily_sales: demand.per_day(),
        cause_id: event.cause_id,
        effective_at: event.effective_at,
        recorded_at: event.recorded_at,
    }
}

/// Notes the movement in the sales history, which holds the newest [`COVER_DAYS`] business days with stock in
/// order of date. The quantity does not change between two movements, so days without one had stock when the
/// quantity before this movement is positive. A late sale counts on its own day, unless that day is older
/// than a full history.
pub fn record_day(days: &mut Vec<DaySales>, qty_before: i64, event: &StockMoved) {
    let today = event.business_date;
    if let Some(last) = days.last().map(|day| day.business_date)
        && qty_before > 0
    {
        let quiet_from = last.0.saturating_add(1).max(today.0.saturating_sub(COVER_DAYS as i32));
        days.extend((quiet_from..today.0).map(|day| DaySales { business_date: Day(day), qty: 0 }));
    }
    let sold = if event.reason == SALE { event.delta.saturating_neg() } else { 0 };
    if qty_before > 0 || event.qty_after > 0 || sold != 0 {
        match days.binary_search_by_key(&today, |day| day.business_date) {
            Ok(index) => days[index].qty = days[index].qty.saturating_add(sold),
            Err(0) if days.len() >= COVER_DAYS => {}
            Err(index) => days.insert(index, DaySales { business_date: today, qty: sold }),
        }
    }
    if days.len() > COVER_DAYS {
        days.drain(..days.len() - COVER_DAYS);
    }
}

/// Units sold over the days with stock.
struct Demand {
    sold: i128,
    days: i128,
}

impl Demand {
    fn of(daily_sales: &[DaySales]) -> Self {
        Self { sold: daily_sales.iter().map(|day| i128::from(day.qty)).sum(), days: daily_sales.len() as i128 }
    }

    /// Mean sales per day in thousandths of a unit, rounded down.
    fn per_day(&self) -> i64 {
        if self.days == 0 || self.sold <= 0 { 0 } else { i64::try_from(self.sold / self.days).unwrap_or(i64::MAX) }
    }

    /// Thousandths of a day that `qty` lasts, rounded down; nothing when nothing was sold, 0 when nothing is left.
    fn days_of_cover(&self, qty: i64) -> Option<i64> {
        if self.sold <= 0 {
            return None;
        }
        // At most 2^63 * 28 * 1000, far inside i128; the exact fraction, not the rounded mean.
        Some(i64::try_from(i128::from(qty.max(0)) * self.days * 1_000 / self.sold).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::{Applied, Effect};
    use crate::stock::{self, tests::moved};

    /// Folds the movements and returns the last level with the versions that alerted.
    fn fold(events: &[StockMoved]) -> (StockLevel, Vec<StockFellLow>) {
        let mut state = None;
        let mut alerts = Vec::new();
        for event in events {
            match stock::apply(state.as_ref(), event) {
                Applied::Next { state: next, effects } => {
                    state = Some(next);
                    alerts.extend(effects.into_iter().map(|Effect::StockFellLow(alert)| alert));
                }
                other => panic!("{other:?}"),
            }
        }
        (state.expect("at least one movement"), alerts)
    }

    /// Movements through these quantities, from nothing, all with threshold 5 and hysteresis 2 units.
    fn through(quantities: &[i64]) -> Vec<StockMoved> {
        let mut before = 0;
        quantities
            .iter()
            .enumerate()
            .map(|(index, &qty)| {
                let event = StockMoved {
                    threshold: Some(5_000),
                    hysteresis: 2_000,
                    reason: if qty < before { "sale" } else { "receipt" }.into(),
                    ..moved(index as i64 + 1, qty - before, qty)
                };
                before = qty;
                event
            })
            .collect()
    }

    fn versions(alerts: &[StockFellLow]) -> Vec<i64> {
        alerts.iter().map(|alert| alert.version).collect()
    }

    #[test]
    fn threshold_oscillation_emits_once() {
        let (level, alerts) = fold(&through(&[9_000, 4_999, 5_000, 4_000, 6_999, 4_999]));
        assert_eq!(versions(&alerts), [2]);
        assert!(level.is_fired);
    }

    #[test]
    fn it_arms_again_exactly_at_threshold_plus_hysteresis() {
        let (level, alerts) = fold(&through(&[9_000, 4_000, 7_000, 5_000, 4_999]));
        assert_eq!(versions(&alerts), [2, 5]);
        assert!(level.is_fired);
    }

    #[test]
    fn setting_a_threshold_is_evaluated_and_removing_it_arms() {
        let mut events = vec![moved(1, 3_000, 3_000)];
        let change =
            |version, threshold| StockMoved { reason: "correction".into(), threshold, ..moved(version, 0, 3_000) };
        events.push(change(2, Some(4_000)));
        events.push(change(3, None));
        events.push(change(4, Some(4_000)));
        let (level, alerts) = fold(&events);
        assert_eq!(versions(&alerts), [2, 4]);
        assert!(level.is_fired);
    }

    #[test]
    fn a_system_location_is_never_low() {
        let mut events = through(&[9_000, 1_000]);
        events.iter_mut().for_each(|event| event.parent_location_id = Some(LocationId(Uuid::from_u128(7))));
        let (level, alerts) = fold(&events);
        assert!(alerts.is_empty() && !level.is_fired);
    }

    #[test]
    fn neutral_legs_are_never_evaluated() {
        let mut events = through(&[9_000, 1_000, 9_000]);
        events[1].neutral = true;
        events[2].neutral = true;
        let (level, alerts) = fold(&events);
        assert!(alerts.is_empty() && !level.is_fired);
    }

    #[test]
    fn the_alert_id_names_its_cause() {
        let (_, alerts) = fold(&through(&[9_000, 4_000]));
        let cause = &through(&[9_000, 4_000])[1];
        assert_eq!(alerts[0].alert_id, alert_id(cause.location_id, cause.variant_id, 1, 2));
        assert_ne!(alerts[0].alert_id, alert_id(cause.location_id, cause.variant_id, 1, 3));
        assert_eq!(alerts[0].cause_id, cause.cause_id);
    }

    #[test]
    fn days_of_cover_is_quantity_over_mean_sales_of_days_with_stock() {
        // 10 received on day 0; 2 sold on day 0, 4 on day 3: 6 units over 4 days with stock, 4 left.
        let on = |day: i32, event: StockMoved| StockMoved { business_date: Day(20_000 + day), ..event };
        let receipt = StockMoved { reason: "receipt".into(), ..moved(1, 10_000, 10_000) };
        let last = StockMoved { threshold: Some(5_000), ..moved(3, -4_000, 4_000) };
        let (level, alerts) = fold(&[on(0, receipt), on(0, moved(2, -2_000, 8_000)), on(3, last)]);
        assert_eq!(level.daily_sales.iter().map(|day| day.qty).collect::<Vec<_>>(), [2_000, 0, 0, 4_000]);
        assert_eq!((alerts[0].daily_sales, alerts[0].days_of_cover), (1_500, Some(2_666)));
    }

    #[test]
    fn days_out_of_stock_do_not_count() {
        let on = |day: i32, event: StockMoved| StockMoved { business_date: Day(20_000 + day), ..event };
        let receipt = |version, qty| StockMoved { reason: "receipt".into(), ..moved(version, qty, qty) };
        let (level, _) = fold(&[
            on(0, receipt(1, 1_000)),
            on(0, moved(2, -1_000, 0)),
            on(9, receipt(3, 3_000)),
            on(9, moved(4, -1_000, 2_000)),
        ]);
        assert_eq!(level.daily_sales.len(), 2, "nine days without stock are no days of slow sales");
    }

    #[test]
    fn only_sales_are_demand_and_history_is_bounded() {
        let mut days = Vec::new();
        let damage = StockMoved { reason: "damage".into(), ..moved(1, -1_000, 5_000) };
        record_day(&mut days, 6_000, &damage);
        assert_eq!(days.iter().map(|day| day.qty).sum::<i64>(), 0);
        for day in [5, 400, 401, 20_000] {
            record_day(&mut days, 6_000, &StockMoved { business_date: Day(20_000 + day), ..moved(2, -1_000, 5_000) });
            assert!(days.len() <= COVER_DAYS);
            assert!(days.is_sorted_by(|a, b| a.business_date < b.business_date));
        }
        assert_eq!(days.last().map(|day| day.qty), Some(1_000));
        let before = days.clone();
        record_day(&mut days, 6_000, &moved(3, -1_000, 5_000));
        assert_eq!(days, before, "a sale older than a full history is not demand any more");
    }

    #[test]
    fn nothing_sold_means_no_days_of_cover_and_nothing_left_means_none_left() {
        assert_eq!(Demand::of(&[]).days_of_cover(5_000), None);
        let sold = [DaySales { business_date: Day(1), qty: 2_000 }];
        assert_eq!(Demand::of(&sold).days_of_cover(-3_000), Some(0));
        assert_eq!(Demand::of(&sold).days_of_cover(i64::MAX), Some(i64::MAX / 2));
    }
}
