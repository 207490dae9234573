//! Every schema version with every other, and what a later version may and may not do.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{Schema, from_value, to_value};
use schemas::codec::{Record, encode, frame};
use schemas::events::{DocumentCommitted, DocumentKind};
use serde_json::{Value, json};

use crate::golden::examples;
use crate::{decode, for_every_record, newest, offline};

for_every_record!(released_versions_are_fully_compatible, released);
for_every_record!(old_readers_read_new_writers_and_back, both_ways);
for_every_record!(breaking_changes_are_noticed, breaking);

/// Both directions between every two versions: what FULL_TRANSITIVE asks for.
fn full_transitive(versions: &[&str]) -> Result<(), String> {
    let parsed: Vec<Schema> = versions.iter().map(|text| Schema::parse_str(text).expect("a schema")).collect();
    for (i, writer) in parsed.iter().enumerate() {
        for (j, reader) in parsed.iter().enumerate() {
            let verdict = SchemaCompatibility::can_read(writer, reader)
                .map_err(|error| format!("schema {j} cannot read what schema {i} wrote: {error}"))?;
            if verdict != Compatibility::Full {
                return Err(format!("schema {j} cannot read everything schema {i} can write"));
            }
        }
    }
    Ok(())
}

fn released<E: Record>() {
    let versions: Vec<&str> = E::VERSIONS.iter().map(|version| version.json).collect();
    full_transitive(&versions).unwrap_or_else(|error| panic!("{}: {error}", E::TOPIC.record));
}

/// One field of each kind that a later version may add.
fn additions() -> Vec<Value> {
    vec![
        json!({"name": "n_string", "type": "string", "default": "x"}),
        json!({"name": "n_long", "type": "long", "default": 5}),
        json!({"name": "n_int", "type": "int", "default": 5}),
        json!({"name": "n_bool", "type": "boolean", "default": true}),
        json!({"name": "n_uuid", "type": {"type": "string", "logicalType": "uuid"},
               "default": "00000000-0000-0000-0000-000000000001"}),
        json!({"name": "n_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "default": 5}),
        json!({"name": "n_date", "type": {"type": "int", "logicalType": "date"}, "default": 5}),
        json!({"name": "n_option", "type": ["null", "long"], "default": null}),
        json!({"name": "n_strings", "type": {"type": "array", "items": "string"}, "default": []}),
        json!({"name": "n_enum", "default": "unknown",
               "type": {"type": "enum", "name": "Added", "symbols": ["unknown", "a", "b"], "default": "unknown"}}),
        json!({"name": "n_record", "default": {"a": 1},
               "type": {"type": "record", "name": "AddedRecord", "fields": [{"name": "a", "type": "long", "default": 1}]}}),
        json!({"name": "n_records", "default": [],
               "type": {"type": "array", "items": {"type": "record", "name": "AddedItem",
                        "fields": [{"name": "a", "type": "long", "default": 1}]}}}),
    ]
}

fn changed<E: Record>(change: impl FnOnce(&mut Vec<Value>)) -> String {
    let mut schema: Value = serde_json::from_str(newest::<E>()).expect("a schema file is JSON");
    change(schema["fields"].as_array_mut().expect("fields"));
    schema.to_string()
}

/// Every later schema that is allowed: one added field, first or last, and all of them at once.
fn allowed<E: Record>() -> Vec<String> {
    let mut later = vec![changed::<E>(|fields| fields.extend(additions()))];
    for addition in additions() {
        later.push(changed::<E>(|fields| fields.insert(0, addition.clone())));
        later.push(changed::<E>(|fields| fields.push(addition)));
    }
    later
}

fn both_ways<E: Record>() {
    let codec = offline::<E>();
    let later = allowed::<E>();
    let every: Vec<&str> = std::iter::once(newest::<E>()).chain(later.iter().map(String::as_str)).collect();
    full_transitive(&every).unwrap_or_else(|error| panic!("{}: {error}", E::TOPIC.record));
    for (id, text) in (1000..).zip(&later) {
        let schema = Schema::parse_str(text).expect("a later schema");
        codec.know::<E>(id, text).expect("a later schema resolves to ours");
        for (event, bytes) in examples::<E>(E::SCHEMA_VERSION) {
            let written = write_later(&schema, &event);
            assert_eq!(decode::<E>(&codec, &frame(id, &written)), Ok(event.clone()), "our reader, {text}");
            let reader = GenericDatumReader::builder(E::schema()).reader_schema(&schema).build().expect("a reader");
            let read = reader.read_value(&mut bytes.as_slice()).expect("a later reader reads our bytes");
            assert_eq!(from_value::<E>(&read).expect("the fields we know"), event, "later reader, {text}");
        }
    }
}

/// The event as a later producer would write it: our fields, and something in the new ones.
fn write_later<E: Record>(schema: &Schema, event: &E) -> Vec<u8> {
    let Schema::Record(record) = schema else { panic!("a record") };
    let Ok(Avro::Record(known)) = to_value(event).and_then(|value| value.resolve(E::schema())) else {
        panic!("an event is a record")
    };
    let fields = record.fields.iter().map(|field| {
        let known = known.iter().find(|(name, _)| *name == field.name);
        (field.name.clone(), known.map_or_else(|| added_value(&field.schema), |(_, value)| value.clone()))
    });
    let value = Avro::Record(fields.collect());
    GenericDatumWriter::builder(schema).build().and_then(|writer| writer.write_value_to_vec(value)).expect("written")
}

fn added_value(schema: &Schema) -> Avro {
    match schema {
        Schema::Record(record) => {
            Avro::Record(record.fields.iter().map(|field| (field.name.clone(), added_value(&field.schema))).collect())
        }
        Schema::Array(array) => Avro::Array(vec![added_value(&array.items); 3]),
        Schema::Union(union) => Avro::Union(1, Box::new(added_value(&union.variants()[1]))),
        Schema::Enum(kind) => Avro::Enum(2, kind.symbols[2].clone()),
        Schema::String => Avro::String("new".to_owned()),
        Schema::Boolean => Avro::Boolean(false),
        Schema::Int => Avro::Int(-70_000),
        Schema::Date => Avro::Date(-1),
        Schema::Long => Avro::Long(1 << 60),
        Schema::TimestampMicros => Avro::TimestampMicros(-1),
        Schema::Uuid(_) => Avro::Uuid(uuid::Uuid::from_u128(9)),
        other => panic!("no {other:?} is added here"),
    }
}

fn breaking<E: Record>() {
    let renamed = changed::<E>(|fields| {
        fields[0]["name"] = json!("renamed");
        fields[0].as_object_mut().expect("a field").remove("default");
    });
    let retyped = changed::<E>(|fields| {
        fields[0]["type"] = json!("boolean");
        fields[0]["default"] = json!(false);
    });
    let without_default = changed::<E>(|fields| fields.push(json!({"name": "added", "type": "long"})));
    let became_nullable = changed::<E>(|fields| {
        fields[0]["type"] = json!(["null", fields[0]["type"].clone()]);
        fields[0]["default"] = json!(null);
    });
    for (what, later) in [
        ("renamed field", renamed),
        ("retyped field", retyped),
        ("added field without a default", without_default),
        ("field that became nullable", became_nullable),
    ] {
        let verdict = full_transitive(&[newest::<E>(), &later]);
        assert!(verdict.is_err(), "{}: a {what} went unnoticed", E::TOPIC.record);
    }
}

#[test]
fn a_later_document_kind_reads_as_unknown() {
    let codec = offline::<DocumentCommitted>();
    let later = changed::<DocumentCommitted>(|fields| {
        let kind = fields.iter_mut().find(|field| field["name"] == "kind").expect("the kind of a document");
        kind["type"]["symbols"].as_array_mut().expect("symbols").push(json!("layaway"));
    });
    full_transitive(&[newest::<DocumentCommitted>(), &later]).expect("a symbol may be added");
    codec.know::<DocumentCommitted>(1000, &later).expect("it resolves to ours");
    for (event, bytes) in examples::<DocumentCommitted>(DocumentCommitted::SCHEMA_VERSION) {
        assert_eq!(decode(&codec, &frame(1000, &bytes)), Ok(event.clone()));
        // epoch is one byte and the id 37: the kind's index is the byte after them
        let sale = DocumentCommitted { kind: DocumentKind::Sale, ..event };
        let mut bytes = encode(&sale);
        assert_eq!(bytes[38], 2, "the index of `sale`");
        bytes[38] = 10;
        let read: DocumentCommitted = decode(&codec, &frame(1000, &bytes)).expect("a document of a later kind");
        assert_eq!(read, DocumentCommitted { kind: DocumentKind::Unknown, ..sale });
    }
}
