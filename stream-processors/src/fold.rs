//! What every fold shares: positions, outcomes and the order in which events of one entity apply.

use std::fmt;

use schemas::codec::Record;
use schemas::events::{LoyaltyBalance, LoyaltyPosted, StockFellLow, StockLevel, StockMoved};
use schemas::time::Timestamp;
use schemas::topics::groups::{self, Group};
use uuid::Uuid;

/// Where an entity stands: its gapless `version` within a restore generation. Ordered by epoch first, so
/// everything of a later epoch is newer than anything of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub epoch: i64,
    pub version: i64,
}

impl Position {
    pub const fn new(epoch: i64, version: i64) -> Self {
        Self { epoch, version }
    }
}

/// The identity of what a fold keeps: (location, variant) or (customer, program). Its text, both parts with a
/// colon between, is the key of the state record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity(pub Uuid, pub Uuid);

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// A derived event that has to be out before the state that caused it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    StockFellLow(StockFellLow),
}

/// Outcome of applying one event to one entity.
#[derive(Debug, Clone, PartialEq)]
pub enum Applied<S> {
    /// The event was the next one (or a resync): the new state and what follows from it.
    Next { state: S, effects: Vec<Effect> },
    /// The state holds this event already.
    Replay,
    /// The event cannot follow the state: the entity must be parked and resynchronised.
    Gap { expected: i64, cause: GapCause },
}

/// Why an event does not follow its entity's state; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapCause {
    /// Its version lies beyond the next one.
    Version,
    /// It opens a later epoch without being a resync.
    Epoch,
    /// Its post-state is not the state plus its delta.
    PostState,
}

impl GapCause {
    pub const ALL: [GapCause; 3] = [GapCause::Version, GapCause::Epoch, GapCause::PostState];

    /// Metric label.
    pub const fn label(self) -> &'static str {
        match self {
            GapCause::Version => "version",
            GapCause::Epoch => "epoch",
            GapCause::PostState => "post_state",
        }
    }
}

/// One role of the processor: which records it folds into which state. The two roles are [`Stock`] and [`Loyalty`].
pub trait Fold: Send + Sync + 'static {
    type Event: Record;
    type State: Record;
    /// Metric label, and `entity_kind` of a resync request.
    const KIND: &'static str;
    const GROUP: Group;

    fn entity(event: &Self::Event) -> Entity;
    fn position(event: &Self::Event) -> Position;
    fn is_resync(event: &Self::Event) -> bool;
    /// How a resync request names the entity of the event.
    fn request_name(event: &Self::Event) -> String;
    fn state_entity(state: &Self::State) -> Entity;
    fn state_position(state: &Self::State) -> Position;
    fn updated_at(state: &Self::State) -> Timestamp;
    fn apply(state: Option<&Self::State>, event: &Self::Event) -> Applied<Self::State>;
}

/// Movements into stock levels and low-stock alerts.
#[derive(Debug, Clone, Copy)]
pub struct Stock;

impl Fold for Stock {
    type Event = StockMoved;
    type State = StockLevel;
    const KIND: &'static str = "stock";
    const GROUP: Group = groups::STOCK_PROCESSOR;

    fn entity(event: &StockMoved) -> Entity {
        Entity(event.location_id.0, event.variant_id.0)
    }
    fn position(event: &StockMoved) -> Position {
        Position::new(event.epoch, event.version)
    }
    fn is_resync(event: &StockMoved) -> bool {
        event.resync
    }
    fn request_name(event: &StockMoved) -> String {
        Self::entity(event).to_string()
    }
    fn state_entity(state: &StockLevel) -> Entity {
        Entity(state.location_id.0, state.variant_id.0)
    }
    fn state_position(state: &StockLevel) -> Position {
        Position::new(state.epoch, state.version)
    }
    fn updated_at(state: &StockLevel) -> Timestamp {
        state.updated_at
    }
    fn apply(state: Option<&StockLevel>, event: &StockMoved) -> Applied<StockLevel> {
        crate::stock::apply(state, event)
    }
}

/// Loyalty entries into balances.
#[derive(Debug, Clone, Copy)]
pub struct Loyalty;

impl Fold for Loyalty {
    type Event = LoyaltyPosted;
    type State = LoyaltyBalance;
    const KIND: &'static str = "loyalty";
    const GROUP: Group = groups::LOYALTY_PROCESSOR;

    fn entity(event: &LoyaltyPosted) -> Entity {
        Entity(event.customer_id.0, event.program_id.0)
    }
    fn position(event: &LoyaltyPosted) -> Position {
        Position::new(event.epoch, event.version)
    }
    fn is_resync(event: &LoyaltyPosted) -> bool {
        event.resync
    }
    fn request_name(event: &LoyaltyPosted) -> String {
        event.account_id.to_string()
    }
    fn state_entity(state: &LoyaltyBalance) -> Entity {
        Entity(state.customer_id.0, state.program_id.0)
    }
    fn state_position(state: &LoyaltyBalance) -> Position {
        Position::new(state.epoch, state.version)
    }
    fn updated_at(state: &LoyaltyBalance) -> Timestamp {
        state.updated_at
    }
    fn apply(state: Option<&LoyaltyBalance>, event: &LoyaltyPosted) -> Applied<LoyaltyBalance> {
        crate::loyalty::apply(state, event)
    }
}

/// How an event stands to its entity's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The next version, or the first of an entity never seen.
    Follows,
    /// The first version in a later epoch: the restored ledger did not have the entity, for every entity it has opens
    /// the epoch with a resync. What is held of it is of a time line that was given up.
    Begins,
    /// A resync beyond the state: its post-state replaces what is held.
    Jumps,
    Replay,
    Gap {
        expected: i64,
        cause: GapCause,
    },
}

/// Orders an event against the position held (`None` for an entity never seen). Only a resync may jump.
pub fn order(held: Option<Position>, event: Position, is_resync: bool) -> Order {
    if held.is_some_and(|held| event <= held) {
        return Order::Replay;
    }
    let expected = match held {
        Some(held) if held.epoch == event.epoch => held.version.saturating_add(1),
        Some(_) if !is_resync && event.version == 1 => return Order::Begins,
        Some(held) if !is_resync => {
            return Order::Gap { expected: held.version.saturating_add(1), cause: GapCause::Epoch };
        }
        Some(_) | None => 1,
    };
    match (is_resync, event.version == expected) {
        (true, _) => Order::Jumps,
        (false, true) => Order::Follows,
        (false, false) => Order::Gap { expected, cause: GapCause::Version },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(epoch: i64, version: i64) -> Position {
        Position::new(epoch, version)
    }

    #[test]
    fn only_the_next_version_follows() {
        assert_eq!(order(None, at(1, 1), false), Order::Follows);
        assert_eq!(order(None, at(1, 2), false), Order::Gap { expected: 1, cause: GapCause::Version });
        assert_eq!(order(Some(at(1, 4)), at(1, 5), false), Order::Follows);
        assert_eq!(order(Some(at(1, 4)), at(1, 4), false), Order::Replay);
        assert_eq!(order(Some(at(1, 4)), at(1, 3), false), Order::Replay);
        assert_eq!(order(Some(at(1, 4)), at(1, 6), false), Order::Gap { expected: 5, cause: GapCause::Version });
    }

    #[test]
    fn only_a_resync_jumps_and_never_backwards() {
        assert_eq!(order(None, at(1, 9), true), Order::Jumps);
        assert_eq!(order(Some(at(1, 4)), at(1, 9), true), Order::Jumps);
        assert_eq!(order(Some(at(1, 4)), at(1, 5), true), Order::Jumps);
        assert_eq!(order(Some(at(1, 4)), at(1, 4), true), Order::Replay);
        assert_eq!(order(Some(at(2, 4)), at(1, 9), true), Order::Replay);
    }

    #[test]
    fn a_new_epoch_opens_with_a_resync_or_a_first_version() {
        assert_eq!(order(Some(at(1, 9)), at(2, 3), true), Order::Jumps);
        assert_eq!(order(Some(at(1, 9)), at(2, 1), false), Order::Begins);
        assert_eq!(order(Some(at(2, 0)), at(2, 1), false), Order::Follows, "retired, then met again");
        assert_eq!(order(Some(at(1, 9)), at(2, 10), false), Order::Gap { expected: 10, cause: GapCause::Epoch });
        assert_eq!(order(Some(at(2, 3)), at(1, 400), false), Order::Replay);
    }
}
