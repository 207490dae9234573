//! Pure: outbox rows to Kafka records, in order.

use std::collections::HashMap;

use bytes::Bytes;
use runtime::kafka::OutRecord;
use schemas::codec;
use schemas::headers::{CloudEvent, SOURCE_INGEST_API};
use schemas::topics::{self, Topic};

use crate::db::relay::OutboxRow;

/// Registry ids of the schemas the outbox was written with.
#[derive(Debug, Default)]
pub struct SchemaIds(HashMap<(String, i16), i32>);

impl SchemaIds {
    /// From (subject, schema version, id).
    pub fn new(pinned: Vec<(String, i16, i32)>) -> Self {
        SchemaIds(pinned.into_iter().map(|(subject, version, id)| ((subject, version), id)).collect())
    }

    fn of(&self, topic: &Topic, version: i16) -> Result<i32, (String, i16)> {
        let subject = codec::subject(topic);
        self.0.get(&(subject.clone(), version)).copied().ok_or((subject, version))
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
pub fn records_of(rows: &[OutboxRow], schemas: &SchemaIds) -> Result<Sending, (String, i16)> {
    let mut sending = Sending::default();
    for (index, row) in rows.iter().enumerate() {
        for ordinal in 0..row.topics.len() {
            let version = row.schema_versions[ordinal];
            let Some(topic) = topics::by_name(&row.topics[ordinal]) else {
                return Err((row.topics[ordinal].clone(), version));
            };
            let framed = codec::frame(schemas.of(topic, version)?, &row.bodies[ordinal]);
            let event = CloudEvent {
                topic,
                event_id: row.event_ids[ordinal],
                source: SOURCE_INGEST_API,
                at: row.created_at.into(),
                subject: &row.keys[ordinal],
                trace_parent: Some(row.trace_parent.as_str()).filter(|trace| !trace.is_empty()),
            };
            let mut record = OutRecord::new(topic.name, Bytes::from(row.keys[ordinal].clone()), framed);
            for (name, value) in event.headers() {
                record = record.with_header(name, value);
            }
            sending.records.push(record);
            sending.places.push(Place { row: index, ordinal });
        }
    }
    Ok(sending)
}
