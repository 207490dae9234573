//! Records out: the frame and the CloudEvents headers of everything a processor publishes.

use bytes::Bytes;
use chrono::SecondsFormat;
use runtime::kafka::OutRecord;
use runtime::trace::TraceContext;
use schemas::codec::{self, Record};
use schemas::time::Timestamp;

/// CloudEvents source of everything the processors publish.
pub const SOURCE: &str = "/vorca/stream-processors";

/// One record for `topic`: framed, keyed by the record's own key, with a deterministic `ce_id`, so that sending
/// it twice is one event. The trace of its cause goes on in a new span.
pub fn record<E: Record>(
    topic: &str,
    schema_id: i32,
    body: &E,
    time: Timestamp,
    trace: Option<&TraceContext>,
) -> OutRecord {
    let key = body.key();
    let mut record = OutRecord::new(topic.to_owned(), key.clone(), codec::frame(schema_id, &codec::encode(body)))
        .with_header("ce_id", body.event_id().to_string())
        .with_header("ce_type", E::TOPIC.event_type)
        .with_header("ce_source", SOURCE)
        .with_header("ce_time", time.to_utc().to_rfc3339_opts(SecondsFormat::Micros, true))
        .with_header("ce_subject", key)
        .with_header("ce_specversion", "1.0")
        .with_header("content-type", "application/vnd.confluent.avro");
    if let Some(trace) = trace {
        record = record.with_header("traceparent", Bytes::from(trace.child().traceparent()));
    }
    record
}
