//! `ingest-api redrive`: an operator has dead letters of a consumer group published again. The row of the audit log
//! commits before anything is sent: no record comes back without it.

use std::fmt;

use runtime::config::Kafka;
use runtime::dead_letter::{self, Filter};
use runtime::pg::Writer;

use crate::audit::{self, Entry};
use crate::context::Context;
use crate::operator::Operator;

/// Which letters: of this group, from this topic, that the filter takes, at most so many.
#[derive(Debug, Clone)]
pub struct Redrive {
    pub topic: String,
    pub group: String,
    pub filter: Filter,
    pub limit: usize,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// Letters in the dead-letter topic.
    pub read: u64,
    /// Those the filter takes.
    pub matched: u64,
    /// Those published again.
    pub sent: usize,
}

impl Redrive {
    pub async fn run(self, writer: &Writer, kafka: &Kafka, by: Operator) -> anyhow::Result<Redriven> {
        let Redrive { topic, group, filter, limit } = self;
        let found = dead_letter::find(kafka, &topic, &group, &filter, limit).await?;
        let done = Redriven { read: found.read, matched: found.matched, sent: found.count() };
        if done.sent == 0 {
            return Ok(done);
        }
        let row = (by, format!("topic/{topic}"), format!("{} dead letters of {group}", done.sent));
        let written = writer.write(row, |tx, (by, target, reason)| {
            Box::pin(async move {
                let entry = Entry::of_operator(by, "records.redrive", target.clone()).because(reason);
                audit::record(tx, &Context::of_task("redrive"), entry).await
            })
        });
        written.await?;
        found.publish(kafka).await?;
        Ok(done)
    }
}

impl fmt::Display for Redriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Redriven { read, matched, sent } = self;
        write!(f, "{read} dead letters read, {matched} matched, {sent} published again")
    }
}
