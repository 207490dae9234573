//! `asyncapi.yaml` is written by this code from the topics, groups, headers and schema files; the test compares.
//! After a change: `UPDATE=1 ./dev test schemas`, and read the difference before committing it.

use schemas::codec::{SUBJECTS, Subject, subject};
use schemas::headers;
use schemas::topics::{self, Retention};
use serde_json::{Map, Value, json};

use crate::yaml::yaml;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/asyncapi.yaml");

/// What stands on each topic, the key as a reader sees it, and how a record finds its partition.
pub fn key_of(topic: &str) -> (&'static str, &'static str) {
    let hashed = "murmur2 of the key, modulo the partition count (the Java client's default partitioner)";
    let of_location = "the partition of its location: murmur2 of the location's id, not of the whole key";
    let of_customer = "the partition of its customer: murmur2 of the customer's id, not of the whole key";
    match topic {
        "vorca.sales.v1" | "vorca.inventory.alerts.v1" | "vorca.catalog.locations.v1" => ("location_id", hashed),
        "vorca.inventory.movements.v1" => ("location_id, or parent_location_id of a system location", hashed),
        "vorca.loyalty.entries.v1" => ("customer_id", hashed),
        "vorca.loyalty.balances.v1" => ("customer_id:program_id", of_customer),
        "vorca.resync.requests.v1" => ("entity", hashed),
        "vorca.inventory.stock.v1" => ("location_id:variant_id", of_location),
        "vorca.catalog.variants.v1" => ("variant_id", hashed),
        "vorca.catalog.cashiers.v1" => ("cashier_id", hashed),
        "vorca.audit.heads.v1" => ("chain_id", hashed),
        "vorca.audit.roots.v1" => ("location_id:business_date:root_no", hashed),
        other => panic!("{other} has no key here"),
    }
}

fn document() -> Value {
    let (mut channels, mut messages, mut operations) = (Map::new(), Map::new(), Map::new());
    for one in SUBJECTS {
        let name = one.topic.record;
        channels.insert(name.to_owned(), channel(one));
        messages.insert(name.to_owned(), message(one));
        operations.insert(format!("publish{name}"), operation("send", name, None));
    }
    for group in topics::groups::ALL {
        for topic in group.topics {
            let id = format!("{}.{}", group.name, topic.record);
            operations.insert(format!("{id}.read"), operation("receive", topic.record, Some(group.name)));
            channels.insert(format!("{id}.dlt"), dead_letter(topic, group.name));
            operations.insert(format!("{id}.set_aside"), operation("send", &format!("{id}.dlt"), None));
        }
    }
    messages.insert("DeadLetter".to_owned(), dead_letter_message());
    json!({
        "asyncapi": "3.1.0",
        "info": {
            "title": "Vorca POS events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Kafka topics of Vorca POS. Generated from the code; docs/events.md explains them.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": headers::AVRO,
        "servers": {
            "local": {
                "host": "{host}",
                "protocol": "kafka",
                "description": "The broker `./dev up` starts; `./dev status` prints its address.",
                "variables": { "host": { "default": "127.0.0.1:9092" } },
                "bindings": { "kafka": { "schemaRegistryVendor": "confluent", "bindingVersion": "0.5.0" } },
            },
        },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": { "CloudEvent": cloud_event() } },
    })
}

fn channel(one: &Subject) -> Value {
    let (key, partition) = key_of(one.topic.name);
    let kind = match one.topic.retention {
        Retention::Events => "Events, in order within a partition; a record may come more than once.",
        Retention::State => "State: the record with the highest (epoch, version) of a key is the latest.",
    };
    json!({
        "address": one.topic.name,
        "description": format!("{kind} Key: {key}. Partition: {partition}."),
        "messages": { one.topic.record: reference("components/messages", one.topic.record) },
        "bindings": { "kafka": topic_binding(one.topic.name, one.topic.partitions, one.topic.retention) },
    })
}

fn topic_binding(name: &str, partitions: i32, retention: Retention) -> Value {
    let mut settings = Map::new();
    for (key, value) in retention.settings() {
        let value = match (key, value.parse::<i64>()) {
            ("cleanup.policy", _) => json!([value]),
            (_, Ok(number)) => json!(number),
            _ => json!(value),
        };
        // the binding knows only these; the compaction lag is said in the catalogue
        if ["cleanup.policy", "retention.ms", "max.message.bytes"].contains(&key) {
            settings.insert(key.to_owned(), value);
        }
    }
    json!({ "topic": name, "partitions": partitions, "topicConfiguration": settings, "bindingVersion": "0.5.0" })
}

fn message(one: &Subject) -> Value {
    let newest = one.versions.last().expect("every record has a schema");
    let schema: Value = serde_json::from_str(newest.json).expect("a schema file is JSON");
    json!({
        "name": one.topic.event_type,
        "title": one.topic.record,
        "summary": schema["doc"],
        "contentType": headers::AVRO,
        "headers": reference("components/schemas", "CloudEvent"),
        "payload": {
            "schemaFormat": "application/vnd.apache.avro+json;version=1.9.0",
            "schema": { "$ref": format!("./avro/{}.v{}.avsc", one.topic.record, newest.version) },
        },
        "bindings": { "kafka": {
            "key": { "type": "string", "minLength": 1, "description": key_of(one.topic.name).0 },
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": "TopicNameStrategy",
            "bindingVersion": "0.5.0",
        } },
        "x-registry-subject": subject(&one.topic),
        "x-registry-compatibility": schemas::registry::COMPATIBILITY,
        "x-fields": field_names(&schema),
    })
}

fn field_names(record: &Value) -> Value {
    record["fields"].as_array().expect("fields").iter().map(|field| field["name"].clone()).collect()
}

fn dead_letter(topic: &topics::Topic, group: &str) -> Value {
    let name = topics::dead_letter(topic.name, group);
    let binding = topic_binding(&name, topics::PARTITIONS, Retention::Events);
    json!({
        "address": name,
        "description": format!("Records of {} that {group} refused, as they were received.", topic.name),
        "messages": { "DeadLetter": reference("components/messages", "DeadLetter") },
        "bindings": { "kafka": binding },
    })
}

fn dead_letter_message() -> Value {
    let properties: Map<String, Value> =
        headers::dead_letter::ALL.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    json!({
        "name": "dead_letter",
        "title": "DeadLetter",
        "summary": "The original key, bytes and headers, with the cause in further headers.",
        "contentType": "application/octet-stream",
        "headers": { "type": "object", "properties": properties, "required": headers::dead_letter::ALL },
    })
}

fn cloud_event() -> Value {
    let event = headers::CloudEvent {
        event_type: topics::SALES.event_type,
        event_id: uuid::Uuid::nil(),
        source: headers::SOURCE_INGEST_API,
        time: headers::time(schemas::time::Timestamp(0)),
        subject: "key".into(),
        trace_parent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
    };
    let names: Vec<&str> = event.headers().map(|(name, _)| name).collect();
    let properties: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    let required: Vec<&&str> = names.iter().filter(|name| **name != headers::TRACEPARENT).collect();
    json!({
        "type": "object",
        "description": "CloudEvents 1.0, binary mode, and the W3C trace of the cause where there is one.",
        "properties": properties,
        "required": required,
    })
}

fn operation(action: &str, channel: &str, group: Option<&str>) -> Value {
    let mut operation = json!({ "action": action, "channel": reference("channels", channel) });
    if let Some(group) = group {
        operation["bindings"] =
            json!({ "kafka": { "groupId": { "type": "string", "enum": [group] }, "bindingVersion": "0.5.0" } });
    }
    operation
}

fn reference(section: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{section}/{name}") })
}

#[test]
fn the_committed_document_is_what_the_code_says() {
    let expected = format!(
        "# Written by tests/contract/asyncapi.rs out of the code: do not edit. UPDATE=1 writes it anew.\n{}",
        yaml(&document())
    );
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PATH, &expected).expect("asyncapi.yaml can be written");
    }
    let committed = std::fs::read_to_string(PATH).expect("asyncapi.yaml is committed");
    let difference = committed.lines().zip(expected.lines()).find(|(committed, expected)| committed != expected);
    assert!(committed == expected, "asyncapi.yaml is not what the code says, first at {difference:?}");
}

#[test]
fn every_topic_group_and_record_is_in_the_document() {
    let document = document();
    let channels = document["channels"].as_object().expect("channels");
    let mut addresses: Vec<&str> = channels.values().filter_map(|channel| channel["address"].as_str()).collect();
    let dead_letters = topics::dead_letters();
    let mut expected: Vec<&str> =
        topics::ALL.iter().map(|topic| topic.name).chain(dead_letters.iter().map(String::as_str)).collect();
    addresses.sort_unstable();
    expected.sort_unstable();
    assert_eq!(addresses, expected);
    check_references(&document, &document);
}

/// Every `$ref` points to something: inside the document, or to a committed schema file.
fn check_references(root: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                let found = match target.strip_prefix('#') {
                    Some(pointer) => root.pointer(pointer).is_some(),
                    None => std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(target).is_file(),
                };
                assert!(found, "{target} does not exist");
            }
            fields.values().for_each(|value| check_references(root, value));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(root, item)),
        _ => {}
    }
}
