//! Identifiers: one newtype each, so that a location can never be passed for a variant.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The identifier of nothing, used where a field has to exist before its feature does.
            pub const NIL: $name = $name(Uuid::nil());
        }
        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self { $name(id) }
        }
        impl From<$name> for Uuid {
            fn from(id: $name) -> Uuid { id.0 }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }
        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> { Ok($name(text.parse()?)) }
        }
    };
}

id!(
    /// A document (sale, refund, exchange, void): UUIDv7 made by the till before the first send.
    DocumentId
);
id!(
    /// A shop; also the stream of its acts.
    LocationId
);
id!(
    /// The stream of ordered acts: a location's id, or [`COMPANY_STREAM`].
    StreamId
);
id!(TerminalId);
id!(UserId);
id!(ProductId);
id!(VariantId);
id!(TaxProfileId);
id!(PriceId);
id!(CustomerId);
id!(AccountId);
id!(ProgramId);
id!(LotId);
id!(
    /// A stock receipt, adjustment, threshold change or resync.
    ActId
);

/// The stream of acts that belong to no location (catalog, users, members).
pub const COMPANY_STREAM: StreamId = StreamId(Uuid::nil());

/// Namespace of every derived (UUIDv5) identifier of the platform.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x007f_1c8e_0a52_d45b_619a_3e76_6f72_6361);

/// Event id: UUIDv5 over type, aggregate, epoch and version, so that a rebuild gives the same ids
/// and emitting twice is one event to whoever deduplicates.
pub fn event_id(event_type: &str, aggregate: &str, epoch: i64, version: i64) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{event_type}|{aggregate}|{epoch}|{version}").as_bytes())
}

/// Any other derived identifier: UUIDv5 over a kind and a text key.
pub fn derived_id(kind: &str, key: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{kind}|{key}").as_bytes())
}

/// Row version of a ledger entity across restores: later epochs win over every earlier one.
/// `epoch << 40 | version`.
pub fn row_version(epoch: i64, version: i64) -> u64 {
    ((epoch as u64) << 40) | (version as u64 & ((1 << 40) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_id_depends_on_every_part() {
        let base = event_id("vorca.stock.moved.v1", "a:b", 1, 7);
        assert_eq!(base, event_id("vorca.stock.moved.v1", "a:b", 1, 7));
        for other in [
            event_id("vorca.stock.fell_low.v1", "a:b", 1, 7),
            event_id("vorca.stock.moved.v1", "a:c", 1, 7),
            event_id("vorca.stock.moved.v1", "a:b", 2, 7),
            event_id("vorca.stock.moved.v1", "a:b", 1, 8),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_later_epoch_wins_over_any_version_of_an_earlier_one() {
        assert!(row_version(2, 1) > row_version(1, (1 << 40) - 1));
    }
}
