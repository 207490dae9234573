//! Golden bytes: what each schema version looks like on the wire, frozen. They were made with another Avro
//! library than ours, so they also show that others read what we write.

use schemas::codec::{Record, encode, frame};

use crate::{decode, for_every_record, offline};

for_every_record!(golden_bytes, golden);

/// The example events of a schema version, and their bytes.
pub fn examples<E: Record>(version: i16) -> Vec<(E, Vec<u8>)> {
    let path = format!("{}/tests/golden/{}.v{version}", env!("CARGO_MANIFEST_DIR"), E::TOPIC.record);
    let read = |ending: &str| {
        std::fs::read_to_string(format!("{path}.{ending}")).unwrap_or_else(|error| panic!("{path}.{ending}: {error}"))
    };
    let events: Vec<E> = serde_json::from_str(&read("json")).unwrap_or_else(|error| panic!("{path}.json: {error}"));
    let bytes: Vec<Vec<u8>> = read("hex").lines().map(unhex).collect();
    assert!(events.len() >= 2 && events.len() == bytes.len(), "{path}: {} events", events.len());
    events.into_iter().zip(bytes).collect()
}

fn unhex(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(&String::from_utf8_lossy(two), 16).expect("hex")).collect()
}

fn golden<E: Record>() {
    let codec = offline::<E>();
    for (id, version) in (100..).zip(E::VERSIONS) {
        codec.know::<E>(id, version.json).expect("a released schema resolves to ours");
        for (event, bytes) in examples::<E>(version.version) {
            if version.version == E::SCHEMA_VERSION {
                assert_eq!(encode(&event), bytes, "{} v{} is written differently", E::TOPIC.record, version.version);
            }
            assert_eq!(decode::<E>(&codec, &frame(id, &bytes)), Ok(event), "{} v{}", E::TOPIC.record, version.version);
        }
    }
}
