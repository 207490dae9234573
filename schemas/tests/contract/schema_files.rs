//! The `.avsc` files: complete, in the agreed types, usable defaults, and the same fields as the structs.

use apache_avro::types::Value as Avro;
use apache_avro::{Schema, from_value};
use schemas::codec::{Record, SUBJECTS, frame};
use schemas::topics;
use serde_json::Value;

use crate::{decode, for_every_record, newest, offline};

for_every_record!(every_field_has_a_doc_and_a_default, documented);
for_every_record!(struct_and_schema_have_the_same_fields, same_fields);
for_every_record!(an_empty_writer_is_read_as_all_defaults, usable_defaults);

#[test]
fn every_topic_has_its_record_and_every_file_is_used() {
    let by_topic: Vec<_> = topics::ALL.iter().map(|topic| (topic.name, topic.record)).collect();
    let by_record: Vec<_> = SUBJECTS.iter().map(|subject| (subject.topic.name, subject.topic.record)).collect();
    assert_eq!(by_topic, by_record);
    let mut used: Vec<String> = SUBJECTS
        .iter()
        .flat_map(|subject| subject.versions.iter().map(|it| format!("{}.v{}.avsc", subject.topic.record, it.version)))
        .collect();
    used.sort();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/avro");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder of schemas")
        .map(|file| file.expect("a file").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, used);
}

fn documented<E: Record>() {
    for version in E::VERSIONS {
        let schema: Value = serde_json::from_str(version.json).expect("a schema file is JSON");
        assert_eq!(schema["namespace"], "vorca");
        assert_eq!(schema["name"], E::TOPIC.record);
        check_record(&schema);
    }
}

fn check_record(record: &Value) {
    let name = text(&record["name"]);
    assert!(text(&record["doc"]).len() > 10, "{name} has no doc");
    for field in record["fields"].as_array().expect("fields") {
        let path = format!("{name}.{}", text(&field["name"]));
        assert!(text(&field["doc"]).len() > 5, "{path} has no doc");
        let default = field.get("default").unwrap_or_else(|| panic!("{path} has no default"));
        check_type(&path, &field["type"], default);
    }
}

/// The types of the contract: no floats, nullable only as `["null", T]`, amounts and points as longs.
fn check_type(path: &str, kind: &Value, default: &Value) {
    if let Some(branches) = kind.as_array() {
        assert_eq!((branches.len(), text(&branches[0])), (2, "null"), "{path}: only [\"null\", T] is nullable");
        assert!(default.is_null(), "{path}: the default of a nullable field is null");
        return check_leaf(path, &branches[1]);
    }
    match text(&kind["type"]) {
        "array" => {
            assert_eq!(default, &serde_json::json!([]), "{path}: the default of an array is []");
            if kind["items"].is_object() {
                check_record(&kind["items"]);
            }
        }
        "enum" => {
            assert_eq!((text(&kind["default"]), text(default)), ("unknown", "unknown"), "{path}");
            assert_eq!(kind["symbols"][0], "unknown", "{path}");
        }
        _ => check_leaf(path, kind),
    }
}

fn check_leaf(path: &str, kind: &Value) {
    let logical = kind.get("logicalType").map(text);
    let plain = kind.get("type").map_or_else(|| text(kind), text);
    let allowed = [
        ("string", None),
        ("string", Some("uuid")),
        ("long", None),
        ("long", Some("timestamp-micros")),
        ("int", None),
        ("int", Some("date")),
        ("boolean", None),
    ];
    assert!(allowed.contains(&(plain, logical)), "{path} is {kind}");
    let name = path.rsplit('.').next().unwrap_or_default();
    let rules = [
        ("_minor", ("long", None)),
        ("_at", ("long", Some("timestamp-micros"))),
        ("_date", ("int", Some("date"))),
        ("version", if name == "hash_version" { ("int", None) } else { ("long", None) }),
        ("qty", ("long", None)),
    ];
    for (ending, wanted) in rules {
        assert!(!name.ends_with(ending) || (plain, logical) == wanted, "{path} is {kind}");
    }
}

/// Fills every optional and one item of every array, so that every field of the struct shows itself.
fn full(schema: &Schema) -> Avro {
    match schema {
        Schema::Boolean => Avro::Boolean(true),
        Schema::Int => Avro::Int(1),
        Schema::Date => Avro::Date(1),
        Schema::Long => Avro::Long(1),
        Schema::TimestampMicros => Avro::TimestampMicros(1),
        Schema::String => Avro::String("text".to_owned()),
        Schema::Uuid(_) => Avro::Uuid(uuid::Uuid::from_u128(1)),
        Schema::Enum(kind) => Avro::Enum(1, kind.symbols[1].clone()),
        Schema::Array(array) => Avro::Array(vec![full(&array.items)]),
        Schema::Union(union) => Avro::Union(1, Box::new(full(&union.variants()[1]))),
        Schema::Record(record) => {
            Avro::Record(record.fields.iter().map(|field| (field.name.clone(), full(&field.schema))).collect())
        }
        other => panic!("the contract uses no {other:?}"),
    }
}

fn same_fields<E: Record>() {
    let event: E = from_value(&full(E::schema())).expect("a full value is a record");
    let schema: Value = serde_json::from_str(newest::<E>()).expect("a schema file is JSON");
    compare(&schema, &serde_json::to_value(&event).expect("a record is JSON"));
}

/// Same names in the same order, through every nested record.
fn compare(record: &Value, shown: &Value) {
    let fields = record["fields"].as_array().expect("fields");
    let in_schema: Vec<&str> = fields.iter().map(|field| text(&field["name"])).collect();
    let in_struct: Vec<&str> = shown.as_object().expect("a struct").keys().map(String::as_str).collect();
    assert_eq!(in_struct, in_schema, "{}", record["name"]);
    for field in fields {
        if field["type"]["items"].is_object() {
            compare(&field["type"]["items"], &shown[text(&field["name"])][0]);
        }
    }
}

fn usable_defaults<E: Record>() {
    let codec = offline::<E>();
    let empty = format!(r#"{{"type":"record","name":"{}","namespace":"vorca","fields":[]}}"#, E::TOPIC.record);
    codec.know::<E>(8, &empty).expect("a writer without fields");
    let event: E = decode(&codec, &frame(8, &[])).expect("every default fits its type");
    let shown = serde_json::to_value(&event).expect("a record is JSON");
    let schema: Value = serde_json::from_str(newest::<E>()).expect("a schema file is JSON");
    for field in schema["fields"].as_array().expect("fields") {
        assert_eq!(shown[text(&field["name"])], field["default"], "{}", field["name"]);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
