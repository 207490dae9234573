//! Kafka: every client setting, records in and out, and the partitioner. The producer, the topic
//! administration and the restore reader have a file each; the consumer loop is [`crate::consumer`].

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdkafka::ClientConfig;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::config;
use crate::trace::TraceContext;

mod admin;
mod producer;
mod restore;

pub use admin::{Keep, TopicSpec, check_topics, committed, contract, ensure_topics, partition_counts};
pub use producer::{Producer, SendError};
pub use restore::{Reading, Restored, read_from, read_to_end};

/// Largest record a topic of the contract takes.
pub const MAX_RECORD_BYTES: usize = schemas::topics::MAX_MESSAGE_BYTES as usize;
/// A dead letter is a record and the `dlt_*` headers that explain it.
pub const MAX_DEAD_LETTER_BYTES: usize = MAX_RECORD_BYTES + (64 << 10);

/// What every client of this process sets.
pub(crate) fn client(kafka: &config::Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", "vorca")
        .set("allow.auto.create.topics", "false")
        .set("socket.keepalive.enable", "true")
        .set("broker.address.family", "v4")
        // A broker that comes back is found within a second.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000");
    client
}

/// A record as it was read: copied out of the client's buffers, two allocations whatever it carries.
#[derive(Debug, Clone)]
pub struct Record {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// When it was produced, milliseconds since 1970.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub payload: Option<Bytes>,
    pub headers: Headers,
}

impl Record {
    /// Copies a message; `topic` is shared by all records of one topic.
    pub(crate) fn copy(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Self {
        let (key, payload) = (message.key(), message.payload());
        let headers = message.headers();
        let header_bytes = |h: rdkafka::message::Header<'_, &[u8]>| h.key.len() + h.value.map_or(0, <[u8]>::len);
        let size = key.map_or(0, <[u8]>::len)
            + payload.map_or(0, <[u8]>::len)
            + headers.map_or(0, |h| h.iter().map(header_bytes).sum());
        let mut buffer = BytesMut::with_capacity(size);
        let mut put = |part: &[u8]| {
            let start = buffer.len();
            buffer.extend_from_slice(part);
            start..buffer.len()
        };
        let key = key.map(&mut put);
        let payload = payload.map(&mut put);
        let spans: Vec<_> = headers
            .into_iter()
            .flat_map(|h| h.iter())
            .map(|h| (put(h.key.as_bytes()), h.value.map(&mut put)))
            .collect();
        let buffer = buffer.freeze();
        Record {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: key.map(|range| buffer.slice(range)),
            payload: payload.map(|range| buffer.slice(range)),
            headers: Headers { buffer, spans },
        }
    }

    /// The key as text; `None` when it is absent or not UTF-8.
    pub fn key_str(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }

    /// The trace this record belongs to, from its `traceparent` header.
    pub fn trace(&self) -> Option<TraceContext> {
        self.headers.get_str("traceparent").and_then(TraceContext::parse)
    }

    /// Bytes of key, payload and headers.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.payload.as_ref().map_or(0, Bytes::len)
            + self.headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum::<usize>()
    }
}

type Span = std::ops::Range<usize>;

/// The headers of a record, in order.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    buffer: Bytes,
    spans: Vec<(Span, Option<Span>)>,
}

impl Headers {
    /// Name and value of each, in order. Names that are not UTF-8 cannot occur: the client refuses them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.spans.iter().map(|(name, value)| {
            (std::str::from_utf8(&self.buffer[name.clone()]).unwrap_or(""), value.clone().map(|v| &self.buffer[v]))
        })
    }

    /// The first value under this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).and_then(|(_, value)| value)
    }

    /// Like [`Headers::get`], when it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Owned copies that share the buffer, to send them on.
    pub fn to_owned_pairs(&self) -> Vec<(Cow<'static, str>, Option<Bytes>)> {
        let pair = |(name, value): &(Span, Option<Span>)| {
            let name = String::from_utf8_lossy(&self.buffer[name.clone()]).into_owned();
            (Cow::Owned(name), value.clone().map(|v| self.buffer.slice(v)))
        };
        self.spans.iter().map(pair).collect()
    }
}

/// A record to send.
#[derive(Debug, Clone)]
pub struct OutRecord {
    pub topic: Cow<'static, str>,
    /// Given for state records (the partition of their input); else the key decides, as in the Java client.
    pub partition: Option<i32>,
    /// Text, never empty, for every topic of the contract.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub payload: Option<Bytes>,
    pub headers: Vec<(Cow<'static, str>, Option<Bytes>)>,
}

impl OutRecord {
    pub fn new(topic: impl Into<Cow<'static, str>>, key: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        OutRecord {
            topic: topic.into(),
            partition: None,
            key: Some(key.into()),
            payload: Some(payload.into()),
            headers: Vec::new(),
        }
    }

    /// A record that removes its key from a compacted topic.
    pub fn tombstone(topic: impl Into<Cow<'static, str>>, key: impl Into<Bytes>) -> Self {
        OutRecord { payload: None, ..OutRecord::new(topic, key, Bytes::new()) }
    }

    pub fn with_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    pub fn with_headers(mut self, headers: impl IntoIterator<Item = (&'static str, Bytes)>) -> Self {
        let headers = headers.into_iter();
        self.headers.reserve_exact(headers.size_hint().1.unwrap_or(0));
        self.headers.extend(headers.map(|(name, value)| (Cow::Borrowed(name), Some(value))));
        self
    }
}

/// The partition a key belongs to: murmur2 as in the Java client and in our producer's `murmur2_random`.
pub fn partition_for(key: &[u8], partitions: i32) -> i32 {
    // The Java client clears the sign bit instead of taking the absolute value.
    let positive = murmur2(key) & 0x7fff_ffff;
    i32::try_from(positive).unwrap_or(0) % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ (word >> 24)).wrapping_mul(M)
    };
    // The length wraps like a Java int.
    let mut hash = SEED ^ (data.len() as u32);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        hash = hash.wrapping_mul(M) ^ mix(word);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that the Java client publishes for these keys.
    #[test]
    fn murmur2_equals_the_java_client() {
        let vectors: &[(&str, i32)] = &[
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()) as i32, *hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_always_in_range() {
        for n in 0..1_000u32 {
            let partition = partition_for(n.to_string().as_bytes(), 12);
            assert!((0..12).contains(&partition));
        }
        assert_eq!(partition_for(b"x", 1), 0);
    }
}
