//! Whatever bytes come as a body: no panic, and a value, 400 or 422 with a place that is one.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parse;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    total_minor: i64,
    name: Option<String>,
    kind: Kind,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    qty: i32,
    is_gift: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Cash,
    Card,
}

fn document() -> impl Strategy<Value = Document> {
    let line = (any::<i32>(), any::<bool>()).prop_map(|(qty, is_gift)| Line { qty, is_gift });
    let kind = prop_oneof![Just(Kind::Cash), Just(Kind::Card)];
    // Amounts and names below what could be a card number: what looks like one is refused by other tests.
    (-999_999_999..999_999_999i64, prop::option::of("[a-zäß \\\\\"/-]{0,30}"), kind, prop::collection::vec(line, 0..5))
        .prop_map(|(total_minor, name, kind, lines)| Document { total_minor, name, kind, lines })
}

/// JSON of any shape, with names that the document has among those it has not.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let name = prop_oneof![Just("total_minor"), Just("lines"), Just("kind"), Just("qty"), Just("a/b~"), Just("")];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let members = prop::collection::vec((name.clone(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            members.prop_map(|all| {
                Value::from(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
            }),
        ]
    })
}

/// Refused as a body may be; well-formed JSON with a place in it.
fn is_typed(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Err(problem) = parse::<Document>(bytes) else { return Ok(()) };
    let (status, code) = (problem.status.as_u16(), problem.code);
    let is_known =
        matches!((status, code), (400, "malformed") | (422, "invalid_value" | "unknown_field" | "card_data_refused"));
    prop_assert!(is_known && problem.source.is_none(), "{} {}", status, code);
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Ok(()) };
    for found in problem.errors.iter().filter(|found| found.code == "unknown_field") {
        prop_assert!(value.pointer(&found.pointer).is_some(), "{} is nowhere in {}", found.pointer, value);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_body_comes_back_as_it_was_written(document in document()) {
        let bytes = serde_json::to_vec_pretty(&document).unwrap();
        prop_assert_eq!(parse::<Document>(&bytes).map_err(|problem| problem.code), Ok(document));
    }

    #[test]
    fn any_bytes_are_typed(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\",:0-9eE+. \\\\a-z-]{0,80}") {
        is_typed(&bytes)?;
        is_typed(text.as_bytes())?;
    }

    #[test]
    fn any_json_is_typed(value in value()) {
        is_typed(value.to_string().as_bytes())?;
    }

    #[test]
    fn a_damaged_body_is_typed(document in document(), at in any::<prop::sample::Index>(), byte: u8, is_cut: bool) {
        let mut bytes = serde_json::to_vec(&document).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(if is_cut { at } else { bytes.len() });
        is_typed(&bytes)?;
    }
}
