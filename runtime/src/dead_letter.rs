//! Dead letters: where a rejected record goes, with its origin and the cause, and how it comes back.

use std::borrow::Cow;

use anyhow::Context as _;
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use schemas::topics;

use crate::failure::Reject;
use crate::kafka::{OutRecord, Producer, Record, SendError, partition_counts, read_to_end};
use crate::{config, names};

/// Longer causes are cut: the letter must fit into its topic.
const ERROR_BYTES_MAX: usize = 2_000;
/// Letters republished at once.
const REDRIVE_BATCH: usize = 500;

/// The letter for one rejected record: original bytes, key and headers, and
/// `dlt_{topic,partition,offset,error_code,error,attempts,time}`.
pub fn letter(record: &Record, group: &str, reject: &Reject, attempts: u32) -> OutRecord {
    let mut headers = record.headers.to_owned_pairs();
    // A letter that is rejected again after a redrive tells its latest story only.
    headers.retain(|(name, _)| !name.starts_with("dlt_"));
    let mut add = |name: &'static str, value: String| headers.push((Cow::Borrowed(name), Some(Bytes::from(value))));
    add("dlt_topic", record.topic.to_string());
    add("dlt_partition", record.partition.to_string());
    add("dlt_offset", record.offset.to_string());
    add("dlt_error_code", reject.code.to_owned());
    add("dlt_error", cut(&reject.error).to_owned());
    add("dlt_attempts", attempts.to_string());
    add("dlt_time", Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
    OutRecord {
        topic: Cow::Owned(topics::dead_letter(&record.topic, group)),
        // Keeps their order, so that a redrive can keep it too.
        partition: Some(record.partition),
        key: record.key.clone(),
        payload: record.payload.clone(),
        headers,
    }
}

fn cut(error: &str) -> &str {
    let mut end = error.len().min(ERROR_BYTES_MAX);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    &error[..end]
}

/// Sends letters and waits until the broker has all of them.
pub async fn send(producer: &Producer, letters: &[OutRecord]) -> Result<(), SendError> {
    producer.send_all(letters).await
}

/// Which letters come back; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those with this `dlt_error_code`.
    pub error_code: Option<String>,
    /// Only those with this key.
    pub key: Option<String>,
    /// Only those from this partition of the original topic.
    pub partition: Option<i32>,
    /// Only those rejected at or after this instant (milliseconds since 1970).
    pub since_ms: Option<i64>,
}

impl Filter {
    fn takes(&self, letter: &Record) -> bool {
        let header = |name| letter.headers.get_str(name);
        self.error_code.as_deref().is_none_or(|code| header("dlt_error_code") == Some(code))
            && self.key.as_deref().is_none_or(|key| letter.key_str() == Some(key))
            && self.partition.is_none_or(|p| header("dlt_partition").and_then(|h| h.parse().ok()) == Some(p))
            && self.since_ms.is_none_or(|since| letter.timestamp_ms >= since)
    }
}

/// Dead letters that are to come back; nothing was published yet.
#[derive(Debug)]
pub struct Redrive {
    /// Letters in the dead-letter topic.
    pub read: u64,
    /// Those the filter takes.
    pub matched: u64,
    topic: String,
    group: String,
    records: Vec<OutRecord>,
}

/// Finds the dead letters of `group` from `topic` that the filter takes: at most `limit` of them, oldest first per
/// partition.
pub async fn find(
    kafka: &config::Kafka,
    topic: &str,
    group: &str,
    filter: &Filter,
    limit: usize,
) -> anyhow::Result<Redrive> {
    let source = topics::dead_letter(topic, group);
    let counts = partition_counts(kafka).await?;
    let partitions = *counts.get(&source).with_context(|| format!("topic {source} does not exist"))?;
    let all: Vec<i32> = (0..partitions).collect();
    let mut found =
        Redrive { read: 0, matched: 0, topic: topic.to_owned(), group: group.to_owned(), records: Vec::new() };
    read_to_end(kafka, &source, &all, |letter| {
        found.read += 1;
        if filter.takes(&letter) {
            found.matched += 1;
            if found.records.len() < limit {
                found.records.push(original(&letter, topic));
            }
        }
    })
    .await?;
    Ok(found)
}

impl Redrive {
    /// How many are to come back.
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// Publishes them again: original partition, key, bytes and headers (so `ce_id` is kept). The letters stay where
    /// they are, and other groups of the topic see the records again: both are harmless, since readers recognise what
    /// they have.
    pub async fn publish(self, kafka: &config::Kafka) -> anyhow::Result<()> {
        let Redrive { topic, group, records, .. } = self;
        let producer = Producer::new(kafka)?;
        let sent = metrics::counter!(names::DEAD_LETTERS_REDRIVEN, "group" => group, "topic" => topic.clone());
        for batch in records.chunks(REDRIVE_BATCH) {
            producer.send_all(batch).await.with_context(|| format!("redriving to {topic}"))?;
            sent.increment(batch.len() as u64);
        }
        Ok(())
    }
}

fn original(letter: &Record, topic: &str) -> OutRecord {
    let mut headers = letter.headers.to_owned_pairs();
    headers.retain(|(name, _)| !name.starts_with("dlt_"));
    OutRecord {
        topic: Cow::Owned(topic.to_owned()),
        partition: letter.headers.get_str("dlt_partition").and_then(|p| p.parse().ok()),
        key: letter.key.clone(),
        payload: letter.payload.clone(),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_cause_is_cut_between_characters() {
        let text = "é".repeat(ERROR_BYTES_MAX);
        assert_eq!(cut(&text).len(), ERROR_BYTES_MAX);
        assert_eq!(cut(&format!("x{text}")).len(), ERROR_BYTES_MAX - 1);
        assert_eq!(cut("short"), "short");
    }
}
