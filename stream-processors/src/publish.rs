//! Records out: the frame and the CloudEvents headers of everything a processor publishes.

use bytes::Bytes;
use runtime::kafka::OutRecord;
use runtime::trace::TraceContext;
use schemas::codec::{self, Record};
use schemas::headers::{self, CloudEvent, SOURCE_STREAM_PROCESSORS};
use schemas::time::Timestamp;

/// One record for `topic`: framed, keyed by the record's own key, with a deterministic `ce_id`, so that sending
/// it twice is one event. The trace of its cause goes on in a new span.
pub fn record<E: Record>(
    topic: &str,
    schema_id: i32,
    body: &E,
    time: Timestamp,
    trace: Option<&TraceContext>,
) -> OutRecord {
    let key = Bytes::from(body.key());
    let event = CloudEvent {
        event_type: E::TOPIC.event_type,
        event_id: body.event_id(),
        source: SOURCE_STREAM_PROCESSORS,
        time: headers::time(time),
        subject: key.clone(),
        trace_parent: trace.map(|trace| Bytes::from(trace.child().traceparent())),
    };
    OutRecord::new(topic.to_owned(), key, codec::frame(schema_id, &codec::encode(body))).with_headers(event.headers())
}
