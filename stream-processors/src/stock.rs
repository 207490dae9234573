//! The stock fold: movements of one (location, variant) into its level, sales history and low-stock alerts.

use schemas::events::{StockLevel, StockMoved};

use crate::fold::{Applied, Effect, GapCause, Order, Position, order};
use crate::low_stock;

/// Applies one movement to the level of its (location, variant). Pure: the same events in version order give
/// the same level and the same alert ids, however they are repeated or cut into batches.
pub fn apply(state: Option<&StockLevel>, event: &StockMoved) -> Applied<StockLevel> {
    let held = state.map(|level| Position::new(level.epoch, level.version));
    let at = Position::new(event.epoch, event.version);
    match order(held, at, event.resync) {
        Order::Replay => return Applied::Replay,
        Order::Begins => return apply(None, event),
        Order::Gap { expected, cause } => return Applied::Gap { expected, cause },
        Order::Follows => {
            let before = state.map_or(0, |level| level.qty);
            if before.checked_add(event.delta) != Some(event.qty_after) {
                return Applied::Gap { expected: event.version, cause: GapCause::PostState };
            }
        }
        Order::Jumps => {}
    }
    let level = next_level(state, event);
    // What fired on a time line that a restore took back is unknown here: every epoch starts armed.
    let was_fired = state.is_some_and(|before| before.is_fired && before.epoch == event.epoch);
    let (is_fired, alert) = low_stock::evaluate(was_fired, &level, event);
    Applied::Next {
        state: StockLevel { is_fired, ..level },
        effects: alert.map(Effect::StockFellLow).into_iter().collect(),
    }
}

/// The level after the movement, alarm state still to be decided.
fn next_level(state: Option<&StockLevel>, event: &StockMoved) -> StockLevel {
    let mut daily_sales = state.map(|level| level.daily_sales.clone()).unwrap_or_default();
    low_stock::record_day(&mut daily_sales, state.map_or(0, |level| level.qty), event);
    StockLevel {
        epoch: event.epoch,
        location_id: event.location_id,
        variant_id: event.variant_id,
        version: event.version,
        location_seq: event.location_seq,
        qty: event.qty_after,
        threshold: event.threshold,
        hysteresis: event.hysteresis,
        is_fired: false,
        daily_sales,
        updated_at: event.recorded_at,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use schemas::ids::{LocationId, UserId, VariantId};
    use schemas::time::{Day, Timestamp};
    use uuid::Uuid;

    /// A sale of `-delta` on day 20,000 that leaves `qty_after`, without a threshold.
    pub(crate) fn moved(version: i64, delta: i64, qty_after: i64) -> StockMoved {
        StockMoved {
            epoch: 1,
            location_id: LocationId(Uuid::from_u128(1)),
            parent_location_id: None,
            location_seq: version,
            variant_id: VariantId(Uuid::from_u128(2)),
            version,
            delta,
            qty_after,
            cause_type: "sale".into(),
            cause_id: Uuid::from_u128(version as u128),
            cause_line: 1,
            transfer_id: None,
            reason: "sale".into(),
            document_uri: None,
            actor: UserId(Uuid::from_u128(3)),
            approval_id: None,
            effective_at: Timestamp(1_000),
            recorded_at: Timestamp(1_000 + version),
            business_date: Day(20_000),
            neutral: false,
            threshold: None,
            hysteresis: 1_000,
            resync: false,
            unit_cost: None,
        }
    }

    fn next(state: Option<&StockLevel>, event: &StockMoved) -> StockLevel {
        match apply(state, event) {
            Applied::Next { state, .. } => state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_restored_ledger_never_had_begins_anew() {
        let lost = next(Some(&next(None, &moved(1, -2_000, -2_000))), &moved(2, -1_000, -3_000));
        let again = next(Some(&lost), &StockMoved { epoch: 2, ..moved(1, -500, -500) });
        assert_eq!((again.epoch, again.version, again.qty), (2, 1, -500));
        let wrong = StockMoved { epoch: 2, ..moved(1, -500, -3_500) };
        assert_eq!(apply(Some(&lost), &wrong), Applied::Gap { expected: 1, cause: GapCause::PostState });
    }

    #[test]
    fn the_next_movement_applies_and_an_older_one_is_a_replay() {
        let first = next(None, &moved(1, 10_000, 10_000));
        let second = next(Some(&first), &moved(2, -3_000, 7_000));
        assert_eq!((second.qty, second.version, second.location_seq), (7_000, 2, 2));
        assert_eq!(apply(Some(&second), &moved(1, 10_000, 10_000)), Applied::Replay);
        assert_eq!(apply(Some(&second), &moved(2, -3_000, 7_000)), Applied::Replay);
    }

    #[test]
    fn a_hole_is_a_gap_and_a_resync_fills_it() {
        let first = next(None, &moved(1, 10_000, 10_000));
        let beyond = moved(4, -1_000, 5_000);
        assert_eq!(apply(Some(&first), &beyond), Applied::Gap { expected: 2, cause: GapCause::Version });
        let resync = StockMoved { resync: true, threshold: Some(2_000), ..moved(5, 0, 5_000) };
        let level = next(Some(&first), &resync);
        assert_eq!((level.qty, level.version, level.threshold), (5_000, 5, Some(2_000)));
        assert_eq!(next(Some(&level), &moved(6, -1_000, 4_000)).qty, 4_000);
    }

    #[test]
    fn a_post_state_that_does_not_follow_is_an_alarm() {
        let first = next(None, &moved(1, 10_000, 10_000));
        let wrong = moved(2, -3_000, 6_999);
        assert_eq!(apply(Some(&first), &wrong), Applied::Gap { expected: 2, cause: GapCause::PostState });
        let overflow = moved(2, i64::MAX, i64::MIN);
        assert_eq!(apply(Some(&first), &overflow), Applied::Gap { expected: 2, cause: GapCause::PostState });
    }

    #[test]
    fn a_restored_epoch_wins_over_the_lost_time_line_and_starts_armed() {
        let low = StockMoved { threshold: Some(5_000), ..moved(1, 1_000, 1_000) };
        let lost = next(None, &low);
        assert!(lost.is_fired);
        let resync = StockMoved { epoch: 2, resync: true, ..StockMoved { delta: 0, ..low.clone() } };
        match apply(Some(&lost), &resync) {
            Applied::Next { state, effects } => {
                assert_eq!(
                    (state.epoch, state.version, effects.len()),
                    (2, 1, 1),
                    "low in the new epoch: alerted anew"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
