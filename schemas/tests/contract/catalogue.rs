//! `docs/events.md` says what the code does: every topic, its facts, and an example that is an event.

use schemas::codec::{Record, SUBJECTS};
use schemas::topics::{self, Retention};
use schemas::{headers, topics::groups};

use crate::for_every_record;
use crate::golden::examples;

for_every_record!(the_example_is_an_event, example);

fn catalogue() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The section of a topic: from its heading to the next one.
fn section<'a>(catalogue: &'a str, topic: &str) -> &'a str {
    let heading = format!("### `{topic}`\n");
    let (_, rest) = catalogue.split_once(&heading).unwrap_or_else(|| panic!("docs/events.md lacks {topic}"));
    rest.split("\n### ").next().unwrap_or(rest)
}

/// The cell beside this word in the section's table.
fn cell<'a>(section: &'a str, word: &str) -> &'a str {
    let row = section.lines().find_map(|line| line.strip_prefix(&format!("| {word} | ")));
    row.unwrap_or_else(|| panic!("no row {word} in:\n{section}")).trim_end_matches(" |")
}

fn example<E: Record>() {
    let catalogue = catalogue();
    let section = section(&catalogue, E::TOPIC.name);
    let (_, rest) = section.split_once("```json\n").expect("an example");
    let (json, _) = rest.split_once("```").expect("the end of the example");
    let event: E = serde_json::from_str(json).unwrap_or_else(|error| panic!("{}: {error}", E::TOPIC.name));
    let (golden, _) = examples::<E>(E::SCHEMA_VERSION).remove(0);
    assert_eq!(event, golden, "the example of {} is its golden event", E::TOPIC.name);
    let told = format!("Key `{}`, `ce_id` `{}`:", event.key(), event.event_id());
    assert!(section.contains(&told), "{}: expected {told}", E::TOPIC.name);
    // the example shows every field by its name, nothing but the fields, in the order of the schema
    let shown: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(shown.to_string(), serde_json::to_string(&event).expect("a record is JSON"), "{}", E::TOPIC.name);
}

#[test]
fn every_topic_says_what_the_code_does() {
    let catalogue = catalogue();
    assert_eq!(catalogue.matches("\n### `").count(), topics::ALL.len());
    for one in SUBJECTS {
        let (topic, section) = (one.topic, section(&catalogue, one.topic.name));
        let newest = one.versions.last().expect("a schema").version;
        assert!(cell(section, "record").contains(&format!("`{}`", topic.record)), "{}", topic.name);
        assert!(cell(section, "record").contains(&format!("{}.v{newest}.avsc", topic.record)), "{}", topic.name);
        assert_eq!(cell(section, "`ce_type`"), format!("`{}`", topic.event_type));
        assert!(cell(section, "partition").contains(&format!("modulo {}", topic.partitions)), "{}", topic.name);
        let kept = match topic.retention {
            Retention::Events => format!("events, deleted after {} days", topics::EVENTS_KEPT_MS / 86_400_000),
            Retention::State => {
                let hours = topics::COMPACTION_LAG_MS / 3_600_000;
                format!("state, compacted; every version stays readable for at least {hours} hours")
            }
        };
        assert_eq!(cell(section, "kept"), kept, "{}", topic.name);
        let readers: Vec<String> = groups::ALL
            .iter()
            .filter(|group| group.topics.iter().any(|read| read.name == topic.name))
            .map(|group| format!("`{}`", group.name))
            .collect();
        assert_eq!(cell(section, "read by"), readers.join(", "), "{}", topic.name);
        for (word, least) in [("key", 5), ("order", 5), ("duplicates", 10), ("signs", 5), ("tombstones", 5)] {
            assert!(cell(section, word).len() >= least, "{}: {word}", topic.name);
        }
    }
}

#[test]
fn every_header_is_told() {
    let catalogue = catalogue();
    let names = [
        headers::CE_ID,
        headers::CE_TYPE,
        headers::CE_SOURCE,
        headers::CE_TIME,
        headers::CE_SUBJECT,
        headers::CE_SPECVERSION,
        headers::CONTENT_TYPE,
        headers::TRACEPARENT,
        headers::SOURCE_INGEST_API,
        headers::SOURCE_STREAM_PROCESSORS,
        headers::AVRO,
    ];
    for name in names.into_iter().chain(headers::dead_letter::ALL) {
        assert!(catalogue.contains(&format!("`{name}`")), "docs/events.md lacks {name}");
    }
}
