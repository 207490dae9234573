//! What the client tells us from inside a poll: rebalances, statistics, errors. Recorded, never acted upon
//! here: a callback that blocks would stall the group.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::names;
use crate::offsets::Partition;

#[derive(Debug)]
pub(crate) enum Change {
    Assigned(Vec<Partition>),
    /// `lost`: another member may own them already.
    Revoked {
        partitions: Vec<Partition>,
        lost: bool,
    },
}

/// State shared between the callbacks and the reader, which run on the same thread; the client's own threads
/// report errors.
pub(crate) struct Events {
    group: String,
    changes: Mutex<Vec<Change>>,
    broker_up: AtomicBool,
    /// Records not yet committed, of all owned partitions; -1 until the first statistics.
    lag: AtomicI64,
}

impl Events {
    pub(crate) fn new(group: &str) -> Self {
        Events {
            group: group.to_owned(),
            changes: Mutex::default(),
            broker_up: AtomicBool::new(true),
            lag: AtomicI64::new(-1),
        }
    }

    /// What happened since the last call, in order.
    pub(crate) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_broker_up(&self) -> bool {
        self.broker_up.load(Ordering::Relaxed)
    }

    pub(crate) fn saw_broker(&self) {
        self.broker_up.store(true, Ordering::Relaxed);
    }

    pub(crate) fn lag(&self) -> Option<i64> {
        Some(self.lag.load(Ordering::Relaxed)).filter(|lag| *lag >= 0)
    }

    fn push(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    list.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect()
}

impl ClientContext for Events {
    fn stats(&self, statistics: Statistics) {
        // Between two statistics a broker may come and go; what counts is now.
        self.broker_up.store(statistics.brokers.values().any(|broker| broker.state == "UP"), Ordering::Relaxed);
        let mut total = 0;
        for (topic, stats) in &statistics.topics {
            for (partition, stats) in &stats.partitions {
                let owned = stats.fetch_state != "none" && *partition >= 0 && stats.consumer_lag >= 0;
                if owned {
                    total += stats.consumer_lag;
                    let labels =
                        [("group", self.group.clone()), ("topic", topic.clone()), ("partition", partition.to_string())];
                    metrics::gauge!(names::CONSUMER_LAG_RECORDS, &labels).set(stats.consumer_lag as f64);
                }
            }
        }
        self.lag.store(total, Ordering::Relaxed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.broker_up.store(false, Ordering::Relaxed);
        }
        tracing::warn!(group = self.group, %error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Events {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.push(Change::Assigned(partitions(list))),
            Rebalance::Revoke(list) => {
                self.push(Change::Revoked { partitions: partitions(list), lost: consumer.assignment_lost() });
            }
            Rebalance::Error(error) => tracing::warn!(group = self.group, %error, "rebalance"),
        }
    }
}
