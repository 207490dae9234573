//! The thread that talks to the coordinator of the group. A synchronous commit, and leaving the group, may wait
//! without end while the broker is away; the reader asks here, waits as long as it likes, and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Events;
use crate::offsets::Partition;

/// Next offsets by partition.
pub(super) type Marks = BTreeMap<Partition, i64>;

/// One commit at a time.
pub(super) struct Committer {
    asked: Sender<Marks>,
    answers: Receiver<Result<(), KafkaError>>,
    /// Not answered yet.
    under_way: Option<Marks>,
}

/// What became of the marks of one commit.
pub(super) struct Answer {
    /// Those of partitions that stayed ours all the time.
    pub(super) marks: Marks,
    pub(super) result: Result<(), KafkaError>,
}

impl Committer {
    pub(super) fn start(group: &str, consumer: Arc<BaseConsumer<Events>>) -> std::io::Result<Self> {
        let (asked, requests) = channel::<Marks>();
        let (answer, answers) = channel();
        std::thread::Builder::new().name(format!("committer {group}")).spawn(move || {
            for marks in requests {
                let result = list(&marks).and_then(|list| consumer.commit(&list, CommitMode::Sync));
                if answer.send(result).is_err() {
                    break;
                }
            }
            // The last one to hold the client: this leaves the group. `answer` ends after it.
            drop(consumer);
            drop(answer);
        })?;
        Ok(Committer { asked, answers, under_way: None })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins a commit; false while another one is under way.
    pub(super) fn ask(&mut self, marks: &Marks) -> bool {
        if self.is_busy() {
            return false;
        }
        self.under_way = Some(marks.clone());
        // A thread that is gone shows in the answer.
        self.asked.send(marks.clone()).ok();
        true
    }

    /// The answer to the commit under way, waiting at most `limit`; none when there is none (yet).
    pub(super) fn answer(&mut self, limit: Duration) -> Option<Answer> {
        self.under_way.as_ref()?;
        let result = match self.answers.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => Err(KafkaError::Canceled),
        };
        Some(Answer { marks: self.under_way.take()?, result })
    }

    /// A partition went away while a commit was under way: should it come back, what was committed for its former
    /// assignment says nothing about the new one.
    pub(super) fn forget(&mut self, partition: &Partition) {
        if let Some(marks) = &mut self.under_way {
            marks.remove(partition);
        }
    }

    /// Leaves the group, waiting at most `limit` for the broker to hear of it. The caller has given its client away.
    /// False when the broker did not answer: it will notice by itself.
    pub(super) fn leave(self, limit: Duration) -> bool {
        drop(self.asked);
        loop {
            match self.answers.recv_timeout(limit) {
                // Of a commit that nobody waits for any more.
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

fn list(marks: &Marks) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(marks.len());
    for ((topic, partition), next) in marks {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next))?;
    }
    Ok(list)
}
