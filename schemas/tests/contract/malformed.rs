//! Bad bytes are malformed: never a panic, never much memory, never a wrong record.

use proptest::prelude::*;
use schemas::codec::{DecodeError, Record, encode, frame};
use schemas::events::{DocumentCommitted, LoyaltyPosted, StockMoved, Variant};

use crate::golden::examples;
use crate::{OURS, decode, for_every_record, newest, offline};

for_every_record!(every_truncation_is_malformed, truncated);

/// A second id under which the same bytes take the resolving path.
const LATER: i32 = 8;

/// The newest schema with two fields more at the end: what it wrote is resolved, not read directly. Both kinds
/// are ones for which the Avro library takes the end of the bytes for a null.
fn later<E: Record>() -> String {
    let mut schema: serde_json::Value = serde_json::from_str(newest::<E>()).expect("a schema file is JSON");
    let fields = schema["fields"].as_array_mut().expect("fields");
    fields.push(serde_json::json!({"name": "n", "type": "boolean", "default": false}));
    fields.push(serde_json::json!({"name": "m", "type": ["null", "string"], "default": null}));
    schema.to_string()
}

/// What a producer of [`later`] appends to our fields: true, and the text `m`.
const LATER_TAIL: [u8; 4] = [1, 2, 2, b'm'];

fn is_malformed<E: Record>(outcome: &Result<E, DecodeError>) -> bool {
    matches!(outcome, Err(error @ DecodeError::Malformed(_)) if error.code() == "malformed_record")
}

fn truncated<E: Record>() {
    let codec = offline::<E>();
    codec.know::<E>(LATER, &later::<E>()).expect("it resolves");
    for (event, _) in examples::<E>(E::SCHEMA_VERSION) {
        let whole = frame(OURS, &encode(&event));
        let whole_later = [frame(LATER, &encode(&event)), LATER_TAIL.to_vec()].concat();
        for whole in [whole, whole_later] {
            assert_eq!(decode(&codec, &whole), Ok(event.clone()));
            for end in 0..whole.len() {
                let outcome = decode::<E>(&codec, &whole[..end]);
                assert!(is_malformed(&outcome), "{end} of {} bytes: {outcome:?}", whole.len());
            }
            let outcome = decode::<E>(&codec, &[whole, vec![0]].concat());
            assert!(is_malformed(&outcome), "a byte too many: {outcome:?}");
        }
    }
}

#[test]
fn a_wrong_magic_byte_is_malformed_whatever_follows() {
    let codec = offline::<StockMoved>();
    let (event, _) = examples::<StockMoved>(1).remove(0);
    let mut framed = frame(OURS, &encode(&event));
    for magic in 1..=255 {
        framed[0] = magic;
        assert!(is_malformed(&decode::<StockMoved>(&codec, &framed)), "{magic}");
    }
    assert!(is_malformed(&decode::<StockMoved>(&codec, b"{\"a\":1}")), "JSON is no frame");
}

#[test]
fn an_id_of_another_record_is_malformed_and_an_unknown_one_without_a_registry_unavailable() {
    let codec = offline::<StockMoved>();
    codec.know::<LoyaltyPosted>(9, newest::<LoyaltyPosted>()).expect("its own schema");
    let refused = codec.know::<StockMoved>(9, newest::<LoyaltyPosted>());
    assert!(matches!(&refused, Err(DecodeError::Malformed(why)) if why.contains("vorca.LoyaltyPosted")), "{refused:?}");
    let (entry, _) = examples::<LoyaltyPosted>(1).remove(0);
    assert!(is_malformed(&decode::<StockMoved>(&codec, &frame(9, &encode(&entry)))));
    let unknown = decode::<StockMoved>(&codec, &frame(10, &[]));
    assert!(matches!(&unknown, Err(error @ DecodeError::Unavailable(_)) if error.code() == "registry_unavailable"));
}

/// Avro's zigzag varint.
fn long(value: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    schemas::codec::Datum::put(&value, &mut bytes);
    bytes
}

/// Lengths that lie: more than was sent, more than there is memory for, below zero, out of range.
const LYING: [i64; 7] = [1 << 20, 1 << 31, 1 << 40, i64::MAX, -1, -(1 << 40), i64::MIN];

#[test]
fn lengths_that_lie_are_malformed_and_take_no_memory() {
    let variants = offline::<Variant>();
    variants.know::<Variant>(LATER, &later::<Variant>()).expect("it resolves");
    let (variant, _) = examples::<Variant>(1).remove(0);
    let documents = offline::<DocumentCommitted>();
    documents.know::<DocumentCommitted>(LATER, &later::<DocumentCommitted>()).expect("it resolves");
    let (document, _) = examples::<DocumentCommitted>(1).remove(0);
    // everything before `external_id`, and everything before the lines
    let before_text = 1 + 37 + long(variant.version).len() + long(variant.catalog_version).len();
    let before_lines = {
        let without = DocumentCommitted { lines: vec![], tenders: vec![], ..document.clone() };
        let tail: usize = 2 + 1 + document.cause_type.len() + 37 + 1 + 37;
        encode(&without).len() - tail
    };
    let peak_before = peak_kib();
    for length in LYING {
        for id in [OURS, LATER] {
            let text = [&encode(&variant)[..before_text], &long(length), &[b'x'; 64]].concat();
            let outcome = decode::<Variant>(&variants, &frame(id, &text));
            assert!(is_malformed(&outcome), "a text of {length} bytes: {outcome:?}");
            let lines = [&encode(&document)[..before_lines], &long(length), &[2; 64]].concat();
            let outcome = decode::<DocumentCommitted>(&documents, &frame(id, &lines));
            assert!(is_malformed(&outcome), "an array of {length} items: {outcome:?}");
        }
    }
    let grown = peak_kib().saturating_sub(peak_before);
    assert!(grown < 64 * 1024, "peak memory grew by {grown} KiB");
}

/// Highest resident memory of this process so far.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_record_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..200), is_later: bool) {
        let codec = offline::<DocumentCommitted>();
        codec.know::<DocumentCommitted>(LATER, &later::<DocumentCommitted>()).expect("it resolves");
        let outcome = decode::<DocumentCommitted>(&codec, &frame(if is_later { LATER } else { OURS }, &bytes));
        prop_assert!(is_malformed(&outcome) || outcome.is_ok(), "{:?}", outcome);
    }

    #[test]
    fn a_damaged_byte_is_another_record_or_malformed(at in 5_usize..200, bits in 1_u8.., is_later: bool) {
        let codec = offline::<StockMoved>();
        codec.know::<StockMoved>(LATER, &later::<StockMoved>()).expect("it resolves");
        let (event, _) = examples::<StockMoved>(1).remove(0);
        let mut framed = frame(if is_later { LATER } else { OURS }, &encode(&event));
        framed.extend(if is_later { &LATER_TAIL[..] } else { &[] });
        let at = at.min(framed.len() - 1);
        framed[at] ^= bits;
        let outcome = decode::<StockMoved>(&codec, &framed);
        prop_assert!(is_malformed(&outcome) || outcome.is_ok(), "{:?}", outcome);
    }
}
