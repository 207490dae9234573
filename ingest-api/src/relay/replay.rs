//! `relay replay`: an operator has the relay publish again what it published before, because a topic lost records or
//! a reader has to see them once more. Only the relay's progress is set back, so the leader publishes in its order;
//! records keep their event ids, and readers recognise what they have.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use runtime::pg::{PgTx, WriteFailure, Writer};
use schemas::ids::{COMPANY_STREAM, LocationId};
use schemas::topics;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::audit::{self, Entry};
use crate::context::Context;
use crate::db::relay::{self as db, Rewound};
use crate::operator::Operator;

/// From where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A number of one stream: a location's `location_seq`.
    Number(i64),
    /// The time an act was recorded.
    Time(DateTime<Utc>),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse::<i64>() {
            return if number >= 1 { Ok(From::Number(number)) } else { Err("numbers begin at 1".to_owned()) };
        }
        DateTime::parse_from_rfc3339(text)
            .map(|time| From::Time(time.to_utc()))
            .map_err(|_| "neither a number nor a time like 2026-11-22T08:00:00Z".to_owned())
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            From::Number(number) => write!(f, "{number}"),
            From::Time(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        }
    }
}

/// Whose acts: a location, or those of the company as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(Uuid);

impl FromStr for Stream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "company" => Ok(Stream(COMPANY_STREAM.0)),
            _ => text.parse().map(Stream).map_err(|_| "neither the id of a location nor `company`".to_owned()),
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == COMPANY_STREAM.0 { f.write_str("company") } else { write!(f, "{}", self.0) }
    }
}

/// What is to be published again: all that follows `from`, of one stream or of all, beginning where each stream first
/// has a record for `topic`.
#[derive(Debug, Clone)]
pub struct Replay {
    pub from: From,
    pub stream: Option<Stream>,
    pub topic: Option<String>,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("a number counts within one stream: name it with --stream, or give a time")]
    NumberWithoutStream,
    #[error("{0} lies in the future")]
    Future(DateTime<Utc>),
    #[error("no topic of the outbox is called {name}; there are {}", known.join(", "))]
    UnknownTopic { name: String, known: Vec<&'static str> },
    #[error("there is no stream {0}")]
    UnknownStream(Stream),
    #[error("stream {stream} was published up to number {last}; nothing at {from} or above can come again")]
    Beyond { stream: Stream, from: i64, last: i64 },
    #[error("the outbox of stream {stream} begins at number {first}: older acts were dropped after their time")]
    Dropped { stream: Stream, first: i64 },
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl WriteFailure for Refusal {
    fn sqlstate(&self) -> Option<String> {
        if let Refusal::Database(error) = self { error.sqlstate() } else { None }
    }
}

/// What was set back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed(pub Vec<Rewound>);

impl Replay {
    /// Sets the progress of the streams concerned back, all at once or not at all, with a row of the audit log that
    /// names the operator. The leader, whichever process that is, begins within its poll; none has to be stopped.
    pub async fn run(self, writer: &Writer, by: Operator) -> Result<Replayed, Refusal> {
        writer
            .write((self, by), |tx, (replay, by)| {
                Box::pin(async move {
                    let replayed = replay.rewind(tx).await?;
                    if !replayed.0.is_empty() {
                        replay.record(tx, by).await?;
                    }
                    Ok(replayed)
                })
            })
            .await
    }

    async fn rewind(&self, conn: &mut PgConnection) -> Result<Replayed, Refusal> {
        let (number, since) = match self.from {
            From::Number(number) => (Some(number), None),
            From::Time(time) => (None, Some(time)),
        };
        if number.is_some() && self.stream.is_none() {
            return Err(Refusal::NumberWithoutStream);
        }
        if let Some(future) = since.filter(|since| *since > Utc::now()) {
            return Err(Refusal::Future(future));
        }
        if let Some(name) = &self.topic {
            check_topic(name)?;
        }
        if let Some(stream) = self.stream {
            check_stream(conn, stream, number).await?;
        }
        let rewound =
            db::rewind(conn, self.stream.map(|stream| stream.0), number, since, self.topic.as_deref()).await?;
        Ok(Replayed(rewound))
    }

    async fn record(&self, tx: &mut PgTx, by: &Operator) -> Result<(), sqlx::Error> {
        let target = self.stream.map_or("streams".to_owned(), |stream| format!("stream/{stream}"));
        let topic = self.topic.as_ref().map(|topic| format!(", topic {topic}")).unwrap_or_default();
        let reason = format!("from {}{topic}", self.from);
        let mut entry = Entry::of_operator(by, "records.replay", target).because(&reason);
        let of_location = self.stream.filter(|stream| stream.0 != COMPANY_STREAM.0);
        entry.location = of_location.map(|stream| LocationId(stream.0));
        audit::record(tx, &Context::of_task("relay-replay"), entry).await
    }
}

fn check_topic(name: &str) -> Result<(), Refusal> {
    let known: Vec<&'static str> = topics::FROM_OUTBOX.iter().map(|topic| topic.name).collect();
    match known.contains(&name) {
        true => Ok(()),
        false => Err(Refusal::UnknownTopic { name: name.to_owned(), known }),
    }
}

async fn check_stream(conn: &mut PgConnection, stream: Stream, number: Option<i64>) -> Result<(), Refusal> {
    let Some((published, first)) = db::reach(conn, stream.0).await? else {
        return Err(Refusal::UnknownStream(stream));
    };
    let Some(from) = number else { return Ok(()) };
    if from > published {
        return Err(Refusal::Beyond { stream, from, last: published });
    }
    match first {
        Some(first) if first <= from => Ok(()),
        first => Err(Refusal::Dropped { stream, first: first.unwrap_or(published + 1) }),
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Rewound { stream_id, from_seq, to_seq } in &self.0 {
            writeln!(f, "stream {}: acts {from_seq} to {to_seq}", Stream(*stream_id))?;
        }
        let acts: i64 = self.0.iter().map(|it| it.to_seq - it.from_seq + 1).sum();
        match acts {
            0 => write!(f, "nothing to publish again: no act was published since"),
            _ => write!(f, "{acts} acts of {} streams are published again, with the event ids they had", self.0.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_mean_nothing_are_refused() {
        assert_eq!("17".parse(), Ok(From::Number(17)));
        let eight: DateTime<Utc> = "2026-11-22T08:00:00Z".parse().unwrap();
        assert_eq!("2026-11-22T09:00:00+01:00".parse(), Ok(From::Time(eight)));
        for wrong in ["0", "-3", "yesterday", "2026-11-22", "2026-11-22T08:00:00", "", "1.5"] {
            assert!(wrong.parse::<From>().is_err(), "{wrong}");
        }
        assert_eq!("company".parse(), Ok(Stream(COMPANY_STREAM.0)));
        assert!("somewhere".parse::<Stream>().is_err());
        let error = check_topic("vorca.inventory.alerts.v1").unwrap_err().to_string();
        assert!(error.contains("vorca.sales.v1"), "{error}");
        assert!(check_topic("vorca.sales.v1").is_ok());
    }

    #[test]
    fn what_was_done_is_said_in_numbers() {
        let none = Replayed(Vec::new()).to_string();
        assert_eq!(none, "nothing to publish again: no act was published since");
        let one = Replayed(vec![Rewound { stream_id: COMPANY_STREAM.0, from_seq: 3, to_seq: 5 }]).to_string();
        assert!(one.starts_with("stream company: acts 3 to 5\n3 acts of 1 streams"), "{one}");
    }
}
