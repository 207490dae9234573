//! Topics: made by `migrate`, checked by everybody else before they start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use schemas::topics::{self, Retention, Topic};

use super::{MAX_DEAD_LETTER_BYTES, client};
use crate::config;
use crate::lifecycle::Unavailable;

const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// A new topic is known to every broker after this long at most.
const PROPAGATION_LIMIT: Duration = Duration::from_secs(20);

/// How the broker keeps a topic's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Deleted after 30 days.
    Events,
    /// Latest per key, compacted with a lag of 24 h.
    State,
    /// Deleted after 30 days; takes records a little larger than those it explains.
    DeadLetters,
}

/// A topic as it must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    pub keep: Keep,
}

impl From<&Topic> for TopicSpec {
    fn from(topic: &Topic) -> Self {
        let keep = match topic.retention {
            Retention::Events => Keep::Events,
            Retention::State => Keep::State,
        };
        TopicSpec { name: topic.name.to_owned(), partitions: topic.partitions, keep }
    }
}

impl TopicSpec {
    /// Where `group` puts what it refuses from `topic`.
    pub fn dead_letters(topic: &Topic, group: &str) -> Self {
        let name = topics::dead_letter(topic.name, group);
        TopicSpec { name, partitions: topic.partitions, keep: Keep::DeadLetters }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        match self.keep {
            Keep::Events => Retention::Events.settings(),
            Keep::State => Retention::State.settings(),
            Keep::DeadLetters => {
                let mut settings = Retention::Events.settings();
                settings.retain(|(key, _)| *key != "max.message.bytes");
                settings.push(("max.message.bytes", MAX_DEAD_LETTER_BYTES.to_string()));
                settings
            }
        }
    }
}

/// Every topic of the contract and the dead-letter topic of each consumer group.
pub fn contract() -> Vec<TopicSpec> {
    let dead = topics::groups::ALL
        .iter()
        .flat_map(|group| group.topics.iter().map(|topic| TopicSpec::dead_letters(topic, group.name)));
    topics::ALL.iter().map(TopicSpec::from).chain(dead).collect()
}

/// Makes the topics that do not exist yet, waits until the broker shows them, and checks all as
/// [`check_topics`] does. Settings of a topic that exists are left alone.
pub async fn ensure_topics(kafka: &config::Kafka, specs: &[TopicSpec]) -> anyhow::Result<()> {
    let existing = partition_counts(kafka).await?;
    let missing: Vec<&TopicSpec> = specs.iter().filter(|spec| !existing.contains_key(&spec.name)).collect();
    if !missing.is_empty() {
        create(kafka, &missing).await?;
        let deadline = Instant::now() + PROPAGATION_LIMIT;
        loop {
            let shown = partition_counts(kafka).await?;
            if missing.iter().all(|spec| shown.contains_key(&spec.name)) {
                break;
            }
            if Instant::now() > deadline {
                bail!("the broker does not show the new topics within {} s", PROPAGATION_LIMIT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    check_topics(kafka, specs).await
}

async fn create(kafka: &config::Kafka, missing: &[&TopicSpec]) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().context("Kafka admin client")?;
    let settings: Vec<_> = missing.iter().map(|spec| spec.settings()).collect();
    let new = missing.iter().zip(&settings).map(|(spec, settings)| {
        let copies = TopicReplication::Fixed(kafka.replication_factor);
        let topic = NewTopic::new(&spec.name, spec.partitions, copies);
        settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
    });
    let new: Vec<NewTopic<'_>> = new.collect();
    let options = AdminOptions::new().request_timeout(Some(REQUEST_LIMIT)).operation_timeout(Some(REQUEST_LIMIT));
    for result in admin.create_topics(&new, &options).await.context("making topics")? {
        match result {
            // Another `migrate` was quicker; what it made is checked afterwards.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("cannot make topic {topic}: {error}"),
        }
    }
    Ok(())
}

/// Refuses when a topic is missing or has another number of partitions, naming each with what was expected
/// and what was found: a key's partition, and so its order, depends on the number.
pub async fn check_topics(kafka: &config::Kafka, specs: &[TopicSpec]) -> anyhow::Result<()> {
    let found = partition_counts(kafka).await?;
    let wrong: Vec<String> = specs
        .iter()
        .filter_map(|spec| match found.get(&spec.name) {
            None => Some(format!("topic {} does not exist: run `ingest-api migrate`", spec.name)),
            Some(count) if *count != spec.partitions => {
                Some(format!("topic {} has {count} partitions, expected {}", spec.name, spec.partitions))
            }
            Some(_) => None,
        })
        .collect();
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

/// Partitions of every topic the broker has; an unreachable broker is [`Unavailable`].
pub async fn partition_counts(kafka: &config::Kafka) -> anyhow::Result<BTreeMap<String, i32>> {
    let settings = client(kafka);
    let brokers = kafka.brokers.clone();
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = settings.create().context("Kafka client")?;
        let metadata = consumer
            .fetch_metadata(None, REQUEST_LIMIT)
            .map_err(|error| Unavailable(format!("Kafka at {brokers}: {error}")))?;
        let count = |topic: &rdkafka::metadata::MetadataTopic| i32::try_from(topic.partitions().len());
        metadata.topics().iter().map(|topic| Ok((topic.name().to_owned(), count(topic)?))).collect()
    })
    .await
    .context("reading Kafka metadata")?
}

/// The next offset a consumer group has committed per partition of a topic; a partition it never committed is absent.
pub async fn committed(
    kafka: &config::Kafka,
    group: &str,
    topic: &str,
    partitions: i32,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let mut settings = client(kafka);
    settings.set("group.id", group);
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, partitions - 1);
    let what = format!("offsets of consumer group {group}");
    let answer = tokio::task::spawn_blocking(move || {
        // Only asks: without a subscription it never becomes a member.
        let consumer: BaseConsumer = settings.create()?;
        consumer.committed_offsets(asked, REQUEST_LIMIT)
    });
    let offsets = answer.await.context("asking for offsets")?.with_context(|| what.clone())?;
    let committed = offsets.elements().into_iter().map(|element| {
        element.error().with_context(|| what.clone())?;
        Ok(element.offset().to_raw().filter(|offset| *offset >= 0).map(|offset| (element.partition(), offset)))
    });
    Ok(committed.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_has_a_dead_letter_topic_for_each_topic_a_group_reads() {
        let all = contract();
        for group in topics::groups::ALL {
            for topic in group.topics {
                let dead = all.iter().find(|spec| spec.name == topics::dead_letter(topic.name, group.name));
                assert_eq!(dead.map(|spec| spec.keep), Some(Keep::DeadLetters));
            }
        }
        let names: std::collections::HashSet<_> = all.iter().map(|spec| &spec.name).collect();
        assert_eq!(names.len(), all.len());
    }
}
