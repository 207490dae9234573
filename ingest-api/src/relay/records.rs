//! Pure: outbox rows to Kafka records, in order.

use std::collections::HashMap;

use bytes::Bytes;
use runtime::kafka::OutRecord;
use schemas::codec;
use schemas::headers::{self, CloudEvent, SOURCE_INGEST_API};
use schemas::topics::{self, Topic};

use crate::db::relay::OutboxRow;

/// Registry ids of the schemas the outbox was written with, by topic and schema version.
#[derive(Debug, Default)]
pub struct SchemaIds(HashMap<(&'static str, i16), i32>);

impl SchemaIds {
    /// From (subject, schema version, id).
    pub fn new(pinned: Vec<(String, i16, i32)>) -> Self {
        let topic = |subject: &str| topics::ALL.iter().find(|topic| codec::subject(topic) == subject);
        let pinned = pinned.into_iter();
        SchemaIds(pinned.filter_map(|(subject, version, id)| Some(((topic(&subject)?.name, version), id))).collect())
    }

    fn of(&self, topic: &Topic, version: i16) -> Result<i32, (String, i16)> {
        self.0.get(&(topic.name, version)).copied().ok_or_else(|| (codec::subject(topic), version))
    }
}

/// Records on their way, each with the place it came from.
#[derive(Debug, Default)]
pub struct Sending {
    pub records: Vec<OutRecord>,
    /// Beside `records`.
    pub places: Vec<Place>,
}

/// Index of a record's row in its batch, and its place in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub row: usize,
    pub ordinal: usize,
}

impl Sending {
    /// Takes one record out.
    pub fn remove(&mut self, index: usize) -> Place {
        self.records.remove(index);
        self.places.remove(index)
    }
}

/// Bytes of key, value and headers.
pub fn size(record: &OutRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
    length(&record.key) + length(&record.payload) + headers
}

/// Every record of the rows in order: the stored datum behind its frame, CloudEvents headers, the trace.
/// Errors: the (subject, schema version) without a pinned id.
pub fn records_of(rows: &[OutboxRow<'_>], schemas: &SchemaIds) -> Result<Sending, (String, i16)> {
    let count = rows.iter().map(|row| row.topics.len()).sum();
    let mut sending = Sending { records: Vec::with_capacity(count), places: Vec::with_capacity(count) };
    for (index, row) in rows.iter().enumerate() {
        let time = headers::time(row.created_at.into());
        let trace_parent = (!row.trace_parent.is_empty()).then(|| Bytes::copy_from_slice(row.trace_parent.as_bytes()));
        for ordinal in 0..row.topics.len() {
            let version = row.schema_versions[ordinal];
            let Some(topic) = topics::by_name(row.topics[ordinal]) else {
                return Err((row.topics[ordinal].to_owned(), version));
            };
            let framed = codec::frame(schemas.of(topic, version)?, row.bodies[ordinal]);
            let key = Bytes::copy_from_slice(row.keys[ordinal]);
            let event = CloudEvent {
                event_type: topic.event_type,
                event_id: row.event_ids[ordinal],
                source: SOURCE_INGEST_API,
                time: time.clone(),
                subject: key.clone(),
                trace_parent: trace_parent.clone(),
            };
            sending.records.push(OutRecord::new(topic.name, key, framed).with_headers(event.headers()));
            sending.places.push(Place { row: index, ordinal });
        }
    }
    Ok(sending)
}
