//! `./dev tail TOPIC`: records as decoded JSON with key and headers, read as any other team would.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use chrono::{DateTime, SecondsFormat};
use futures::StreamExt;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::topics;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::endpoints::Endpoints;

/// Time limit of one question to the broker or the registry.
const LIMIT: Duration = Duration::from_secs(60);

/// What to print.
#[derive(Debug, Clone)]
pub struct Options {
    /// A topic, or a part of its name that only one topic has.
    pub topic: String,
    pub from_beginning: bool,
    /// Records after which to end; None: until Ctrl-C.
    pub limit: Option<u64>,
}

/// Prints records until the limit is reached; returns how many.
pub async fn run(endpoints: &Endpoints, options: &Options, out: &mut impl Write) -> anyhow::Result<u64> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &endpoints.kafka)
        .set("group.id", "vorca-tail")
        .set("enable.auto.commit", "false")
        .create()?;
    let topic = find_topic(&consumer, &options.topic)?;
    consumer.assign(&partitions(&consumer, &topic, options.from_beginning)?)?;
    let mut schemas = Schemas {
        registry: endpoints.registry.clone(),
        http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
        known: HashMap::new(),
    };
    let is_terminal = std::io::stdout().is_terminal();
    let mut stream = consumer.stream();
    let mut count = 0;
    while options.limit.is_none_or(|limit| count < limit) {
        let message = tokio::select! {
            message = stream.next() => message.context("the broker ended the stream")??,
            _ = tokio::signal::ctrl_c() => break,
        };
        let record = describe(&message, &mut schemas).await?;
        let text = if is_terminal { serde_json::to_string_pretty(&record)? } else { record.to_string() };
        match writeln!(out, "{text}") {
            // `| head` closes the pipe when it has seen enough
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            other => other?,
        }
        count += 1;
    }
    Ok(count)
}

fn find_topic(consumer: &StreamConsumer, wanted: &str) -> anyhow::Result<String> {
    let metadata = consumer.fetch_metadata(None, LIMIT).context("Kafka does not answer")?;
    let mut names: Vec<&str> = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name).collect();
    if names.contains(&wanted) {
        return Ok(wanted.to_owned());
    }
    names.retain(|name| topics::by_name(name).is_some());
    let found: Vec<&str> = names.iter().copied().filter(|name| name.contains(wanted)).collect();
    match found[..] {
        [one] => Ok(one.to_owned()),
        [] => bail!("no topic {wanted}; there are {}", names.join(", ")),
        _ => bail!("{wanted} could be {}", found.join(" or ")),
    }
}

fn partitions(consumer: &StreamConsumer, topic: &str, from_beginning: bool) -> anyhow::Result<TopicPartitionList> {
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
    let topic_metadata = metadata.topics().first().context("the topic is gone")?;
    let offset = if from_beginning { Offset::Beginning } else { Offset::End };
    let mut list = TopicPartitionList::new();
    for partition in topic_metadata.partitions() {
        list.add_partition_offset(topic, partition.id(), offset)?;
    }
    Ok(list)
}

async fn describe(message: &BorrowedMessage<'_>, schemas: &mut Schemas) -> anyhow::Result<Value> {
    let mut headers = Map::new();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let value = header.value.map(|bytes| Value::from(String::from_utf8_lossy(bytes)));
        headers.insert(header.key.to_owned(), value.unwrap_or(Value::Null));
    }
    let value = match message.payload() {
        None => Value::Null,
        Some(payload) => schemas
            .decode(payload)
            .await
            .unwrap_or_else(|error| json!({ "undecodable": format!("{error:#}"), "bytes": payload.len() })),
    };
    Ok(json!({
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "published_at": message.timestamp().to_millis().map(|millis| micros(millis.saturating_mul(1_000))),
        "key": message.key().map(String::from_utf8_lossy),
        "headers": headers,
        "value": value,
    }))
}

/// Writer schemas by the id in the frame.
struct Schemas {
    registry: String,
    http: reqwest::Client,
    known: HashMap<i32, Schema>,
}

impl Schemas {
    async fn decode(&mut self, payload: &[u8]) -> anyhow::Result<Value> {
        let (id, mut datum) = schemas::codec::unframe(payload).map_err(|error| anyhow::anyhow!("{error}"))?;
        if !self.known.contains_key(&id) {
            let schema = self.fetch(id).await?;
            self.known.insert(id, schema);
        }
        let schema = self.known.get(&id).context("no schema")?;
        let value = apache_avro::reader::datum::GenericDatumReader::builder(schema).build()?.read_value(&mut datum)?;
        Ok(to_json(value))
    }

    async fn fetch(&self, id: i32) -> anyhow::Result<Schema> {
        #[derive(Deserialize)]
        struct Body {
            schema: String,
        }
        let url = format!("{}/schemas/ids/{id}", self.registry.trim_end_matches('/'));
        let response = self.http.get(&url).timeout(LIMIT).send().await.context("the registry does not answer")?;
        anyhow::ensure!(response.status().is_success(), "the registry knows no schema {id}");
        Ok(Schema::parse_str(&response.json::<Body>().await?.schema)?)
    }
}

fn micros(value: i64) -> Value {
    DateTime::from_timestamp_micros(value)
        .map_or(Value::from(value), |at| Value::from(at.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
}

/// Avro as people read it: instants and dates as text.
fn to_json(value: Avro) -> Value {
    match value {
        Avro::Null => Value::Null,
        Avro::Boolean(it) => it.into(),
        Avro::Int(it) => it.into(),
        Avro::Long(it) => it.into(),
        Avro::String(it) | Avro::Enum(_, it) => it.into(),
        Avro::Uuid(it) => it.to_string().into(),
        Avro::Union(_, inner) => to_json(*inner),
        Avro::Array(items) => items.into_iter().map(to_json).collect(),
        Avro::Map(entries) => entries.into_iter().map(|(key, value)| (key, to_json(value))).collect(),
        Avro::Record(fields) => fields.into_iter().map(|(key, value)| (key, to_json(value))).collect(),
        Avro::TimestampMicros(it) => micros(it),
        Avro::TimestampMillis(it) => micros(it.saturating_mul(1_000)),
        Avro::Date(days) => schemas::time::Day(days).to_date().to_string().into(),
        other => format!("{other:?}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_dates_are_text_and_unions_their_content() {
        let record = Avro::Record(vec![
            ("at".to_owned(), Avro::TimestampMicros(1_500_000)),
            ("day".to_owned(), Avro::Date(1)),
            ("none".to_owned(), Avro::Union(0, Box::new(Avro::Null))),
            ("some".to_owned(), Avro::Union(1, Box::new(Avro::Long(7)))),
        ]);
        let expected = json!({ "at": "1970-01-01T00:00:01.500Z", "day": "1970-01-02", "none": null, "some": 7 });
        assert_eq!(to_json(record), expected);
    }
}
