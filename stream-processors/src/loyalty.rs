//! The loyalty fold: entries of one account into its balance.

use schemas::events::{LoyaltyBalance, LoyaltyPosted};

use crate::fold::{Applied, GapCause, Order, Position, order};

/// Applies one entry to the balance of its account. Pure, with the same guarantees as [`crate::stock::apply`].
pub fn apply(state: Option<&LoyaltyBalance>, event: &LoyaltyPosted) -> Applied<LoyaltyBalance> {
    let held = state.map(|balance| Position::new(balance.epoch, balance.version));
    match order(held, Position::new(event.epoch, event.version), event.resync) {
        Order::Replay => return Applied::Replay,
        Order::Begins => return apply(None, event),
        Order::Gap { expected, cause } => return Applied::Gap { expected, cause },
        Order::Follows => {
            let before = state.map_or(0, |balance| balance.points);
            if before.checked_add(event.delta) != Some(event.points_after) {
                return Applied::Gap { expected: event.version, cause: GapCause::PostState };
            }
        }
        Order::Jumps => {}
    }
    let state = LoyaltyBalance {
        epoch: event.epoch,
        account_id: event.account_id,
        customer_id: event.customer_id,
        program_id: event.program_id,
        version: event.version,
        points: event.points_after,
        updated_at: event.recorded_at,
    };
    Applied::Next { state, effects: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::ids::{AccountId, CustomerId, ProgramId, UserId};
    use schemas::time::Timestamp;
    use uuid::Uuid;

    fn posted(version: i64, delta: i64, points_after: i64) -> LoyaltyPosted {
        LoyaltyPosted {
            epoch: 1,
            account_id: AccountId(Uuid::from_u128(1)),
            customer_id: CustomerId(Uuid::from_u128(2)),
            program_id: ProgramId(Uuid::from_u128(3)),
            location_id: None,
            location_seq: version,
            kind: "accrual".into(),
            version,
            delta,
            points_after,
            tier_multiplier: "1".into(),
            lots: Vec::new(),
            cause_type: "sale".into(),
            cause_id: Uuid::from_u128(version as u128),
            cause_line: 0,
            actor: UserId::NIL,
            approval_id: None,
            effective_at: Timestamp(1),
            recorded_at: Timestamp(version),
            resync: false,
        }
    }

    fn next(state: Option<&LoyaltyBalance>, event: &LoyaltyPosted) -> LoyaltyBalance {
        match apply(state, event) {
            Applied::Next { state, .. } => state,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn entries_add_up_and_replays_change_nothing() {
        let first = next(None, &posted(1, 10, 10));
        let second = next(Some(&first), &posted(2, -15, -5));
        assert_eq!((second.points, second.version), (-5, 2), "a debt is a balance below zero");
        assert_eq!(apply(Some(&second), &posted(2, -15, -5)), Applied::Replay);
    }

    /// What points are for is no matter of the balance: every kind adds up, below zero too.
    #[test]
    fn every_kind_of_entry_folds_alike() {
        let kinds = [
            ("accrual", 10, 10),
            ("redemption", -8, 2),
            ("claw_back", -10, -8),
            ("redemption_return", 3, -5),
            ("accrual", 7, 2),
            ("expiry", -2, 0),
            ("merge_out", 0, 0),
            ("merge_in", -4, -4),
        ];
        let mut state = None;
        for (version, (kind, delta, points_after)) in kinds.into_iter().enumerate() {
            let event = LoyaltyPosted { kind: kind.into(), ..posted(version as i64 + 1, delta, points_after) };
            state = Some(next(state.as_ref(), &event));
            assert_eq!(state.as_ref().map(|balance| balance.points), Some(points_after), "{kind}");
        }
    }

    #[test]
    fn a_hole_and_a_wrong_sum_are_gaps() {
        let first = next(None, &posted(1, 10, 10));
        assert_eq!(apply(Some(&first), &posted(3, 1, 12)), Applied::Gap { expected: 2, cause: GapCause::Version });
        assert_eq!(apply(Some(&first), &posted(2, 1, 12)), Applied::Gap { expected: 2, cause: GapCause::PostState });
        let resync = LoyaltyPosted { resync: true, kind: "resync".into(), ..posted(4, 0, 12) };
        assert_eq!(next(Some(&first), &resync).points, 12);
    }
}
