//! The contract, held to itself: schema files against structs, our encoder against apache-avro, golden
//! bytes, every schema version against every other, bad bytes, the registry, and the documents.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

mod asyncapi;
mod catalogue;
mod compatibility;
mod encoding;
mod golden;
mod malformed;
mod registry;
mod registry_client;
mod schema_files;
mod values;
mod yaml;

use schemas::codec::{self, Codec, DecodeError, Record};

/// Runs `$check::<E>()` for every record of the contract, each as a test of its own.
#[macro_export]
macro_rules! for_every_record {
    ($module:ident, $check:ident) => {
        mod $module {
            use schemas::events::*;
            $crate::for_every_record!(@ $check,
                document_committed DocumentCommitted, stock_moved StockMoved, loyalty_posted LoyaltyPosted,
                stock_fell_low StockFellLow, resync_requested ResyncRequested, stock_level StockLevel,
                loyalty_balance LoyaltyBalance, variant Variant, location Location, cashier Cashier,
                audit_head_signed AuditHeadSigned, audit_root_signed AuditRootSigned);
        }
    };
    (@ $check:ident, $($name:ident $record:ident),*) => {
        $(#[test]
        fn $name() {
            schemas::codec::init();
            super::$check::<$record>();
        })*
    };
}

/// Schema id the tests give to the compiled schema of any record.
const OURS: i32 = 7;

/// A codec that knows [`OURS`] as the compiled schema of the record and has no registry.
fn offline<E: Record>() -> Codec {
    codec::init();
    Codec::with_known([(E::TOPIC.name, OURS)])
}

/// Decodes without a registry, so without anything to wait for.
fn decode<E: Record>(codec: &Codec, framed: &[u8]) -> Result<E, DecodeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    runtime.block_on(codec.decode(framed))
}

/// The text of the newest schema of a record.
fn newest<E: Record>() -> &'static str {
    E::VERSIONS.last().expect("every record has a schema").json
}
