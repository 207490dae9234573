//! Record headers: CloudEvents 1.0 in binary mode, and the W3C trace the record belongs to.

use bytes::Bytes;
use chrono::SecondsFormat;
use uuid::Uuid;

use crate::time::Timestamp;

pub const CE_ID: &str = "ce_id";
pub const CE_TYPE: &str = "ce_type";
pub const CE_SOURCE: &str = "ce_source";
pub const CE_TIME: &str = "ce_time";
pub const CE_SUBJECT: &str = "ce_subject";
pub const CE_SPECVERSION: &str = "ce_specversion";
pub const CONTENT_TYPE: &str = "content-type";
pub const TRACEPARENT: &str = "traceparent";

/// What the value is: an Avro datum behind the five-byte Confluent frame.
pub const AVRO: &str = "application/avro";

/// `ce_source` of what the relay publishes out of the database.
pub const SOURCE_INGEST_API: &str = "/vorca/ingest-api";
/// `ce_source` of what the stream processors derive.
pub const SOURCE_STREAM_PROCESSORS: &str = "/vorca/stream-processors";

/// What a record says about itself beside its value. Its values are shared, so that what the records of one act have in
/// common is made once.
#[derive(Debug, Clone)]
pub struct CloudEvent {
    /// `Topic::event_type`.
    pub event_type: &'static str,
    /// Deterministic (see `Record::event_id`): the same for every send of the same fact.
    pub event_id: Uuid,
    /// One of the `SOURCE_` constants.
    pub source: &'static str,
    /// [`time`] of when the fact was recorded.
    pub time: Bytes,
    /// The partition key.
    pub subject: Bytes,
    /// W3C `traceparent`, where the cause was traced.
    pub trace_parent: Option<Bytes>,
}

/// RFC 3339 in UTC with microseconds.
pub fn time(at: Timestamp) -> Bytes {
    Bytes::from(at.to_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
}

impl CloudEvent {
    /// Names and values in the order they are sent.
    pub fn headers(self) -> impl Iterator<Item = (&'static str, Bytes)> {
        let id = Bytes::copy_from_slice(self.event_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        let always = [
            (CE_SPECVERSION, Bytes::from_static(b"1.0")),
            (CE_ID, id),
            (CE_TYPE, Bytes::from_static(self.event_type.as_bytes())),
            (CE_SOURCE, Bytes::from_static(self.source.as_bytes())),
            (CE_TIME, self.time),
            (CE_SUBJECT, self.subject),
            (CONTENT_TYPE, Bytes::from_static(AVRO.as_bytes())),
        ];
        always.into_iter().chain(self.trace_parent.map(|trace| (TRACEPARENT, trace)))
    }
}

/// Headers a rejected record carries on its dead-letter topic, beside its own.
pub mod dead_letter {
    pub const TOPIC: &str = "dlt_topic";
    pub const PARTITION: &str = "dlt_partition";
    pub const OFFSET: &str = "dlt_offset";
    /// Stable code of the cause, for instance `malformed_record`.
    pub const ERROR_CODE: &str = "dlt_error_code";
    /// The cause in words.
    pub const ERROR: &str = "dlt_error";
    /// How often the record was tried.
    pub const ATTEMPTS: &str = "dlt_attempts";
    /// When it was set aside, RFC 3339.
    pub const TIME: &str = "dlt_time";

    pub const ALL: [&str; 7] = [TOPIC, PARTITION, OFFSET, ERROR_CODE, ERROR, ATTEMPTS, TIME];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics;

    #[test]
    fn headers_are_cloud_events_and_trace() {
        let event = CloudEvent {
            event_type: topics::MOVEMENTS.event_type,
            event_id: Uuid::from_u128(7),
            source: SOURCE_INGEST_API,
            time: time(Timestamp(1_763_812_800_000_001)),
            subject: "a".into(),
            trace_parent: None,
        };
        let headers: Vec<_> = event.clone().headers().collect();
        let value = |name| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| &**value);
        assert_eq!(value(CE_ID), Some(&b"00000000-0000-0000-0000-000000000007"[..]));
        assert_eq!(value(CE_TYPE), Some(&b"vorca.stock.moved.v1"[..]));
        assert_eq!(value(CE_TIME), Some(&b"2025-11-22T12:00:00.000001Z"[..]));
        assert_eq!(value(CE_SUBJECT), Some(&b"a"[..]));
        assert_eq!(value(TRACEPARENT), None);
        let traced = CloudEvent { trace_parent: Some("00-a-b-01".into()), ..event }.headers();
        assert_eq!(traced.last(), Some((TRACEPARENT, Bytes::from_static(b"00-a-b-01"))));
    }
}
