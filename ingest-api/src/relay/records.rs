//! Pure: outbox rows to Kafka records, in order.

use std::collections::HashMap;

use bytes::Bytes;
use runtime::kafka::OutRecord;
use schemas::headers::{CloudEvent, SOURCE_INGEST_API};
use schemas::topics::{self, Topic};
use schemas::{codec, ids::StreamId};

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

/// A record on its way, with the place it came from.
#[derive(Debug, Clone)]
pub struct Sending {
    pub record: OutRecord,
    pub stream: StreamId,
    pub seq: i64,
    /// Index of its row in the batch, and its place in the row.
    pub row: usize,
    pub ordinal: usize,
}

impl Sending {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.record.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.record.key) + length(&self.record.payload) + headers
    }
}

/// Every record of the rows in order: the stored datum behind its frame, CloudEvents headers, the trace.
/// Errors: the (subject, schema version) without a pinned id.
pub fn records_of(rows: &[OutboxRow], schemas: &SchemaIds) -> Result<Vec<Sending>, (String, i16)> {
    let mut sending = Vec::with_capacity(rows.iter().map(|row| row.topics.len()).sum());
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
            sending.push(Sending { record, stream: StreamId(row.stream_id), seq: row.seq, row: index, ordinal });
        }
    }
    Ok(sending)
}
