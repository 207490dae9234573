//! The serving view in Redis: one script for every write, and what tells that Redis lost its data.

use std::collections::HashMap;

use redis::aio::ConnectionManager;
use redis::{RedisResult, Script};
use uuid::Uuid;

use super::entry::{Entry, GENERATION_KEY, OFFSETS_KEY};

/// Entities per script call: a call blocks Redis for about a millisecond.
const ENTITIES_PER_CALL: usize = 200;

/// One connection and the script.
#[derive(Clone)]
pub struct Store {
    connection: ConnectionManager,
    script: Script,
}

/// Entities of one topic partition and how far they bring it.
#[derive(Debug)]
pub struct Slice<'a> {
    pub generation: &'a str,
    /// `<topic>/<partition>`.
    pub field: &'a str,
    /// What Redis must have seen at least; nothing while the partition is being filled.
    pub at_least: Option<i64>,
    /// The next offset once all entries are written; nothing while more of the same read follows.
    pub next: Option<i64>,
    pub announce: bool,
    pub entries: &'a [Entry],
}

/// Outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All entries were offered; `changed` of them were newer than what Redis held.
    Done { changed: usize },
    /// Redis is not the one that was filled: fill it again.
    Lost,
}

impl Store {
    pub fn new(connection: ConnectionManager) -> Self {
        Self { connection, script: Script::new(include_str!("../view.lua")) }
    }

    /// The generation of the view and the next offset of each partition; no generation when Redis is empty.
    pub async fn seen(&mut self) -> RedisResult<(Option<String>, HashMap<String, i64>)> {
        redis::pipe().get(GENERATION_KEY).hgetall(OFFSETS_KEY).query_async(&mut self.connection).await
    }

    /// The generation of the view, begun when there is none. Whoever comes first names it.
    pub async fn generation(&mut self) -> RedisResult<String> {
        let new = Uuid::now_v7().to_string();
        let (_, generation): (bool, String) = redis::pipe()
            .atomic()
            .set_nx(GENERATION_KEY, new)
            .get(GENERATION_KEY)
            .query_async(&mut self.connection)
            .await?;
        Ok(generation)
    }

    /// Writes the slice, newer entries only, in calls of bounded size; the offset goes with the last one.
    pub async fn write(&mut self, slice: &Slice<'_>) -> RedisResult<Written> {
        let mut changed = 0;
        let calls = slice.entries.len().div_ceil(ENTITIES_PER_CALL).max(1);
        for call in 0..calls {
            let from = call * ENTITIES_PER_CALL;
            let entries = &slice.entries[from..(from + ENTITIES_PER_CALL).min(slice.entries.len())];
            let next = if call + 1 == calls { slice.next } else { None };
            match self.call(slice, entries, next).await? {
                Written::Done { changed: some } => changed += some,
                Written::Lost => return Ok(Written::Lost),
            }
        }
        Ok(Written::Done { changed })
    }

    async fn call(&mut self, slice: &Slice<'_>, entries: &[Entry], next: Option<i64>) -> RedisResult<Written> {
        let mut call = self.script.prepare_invoke();
        call.key(GENERATION_KEY).key(OFFSETS_KEY);
        let text = |offset: Option<i64>| offset.map(|offset| offset.to_string()).unwrap_or_default();
        call.arg(slice.generation).arg(slice.field).arg(text(slice.at_least)).arg(text(next));
        call.arg(if slice.announce { "1" } else { "" });
        for entry in entries {
            call.key(&entry.key).arg(entry.epoch).arg(entry.version);
            let (channel, message) = entry.announcement.as_ref().map_or(("", ""), |(c, m)| (c.as_str(), m.as_str()));
            call.arg(channel).arg(message).arg(entry.fields.len() * 2);
            for (field, value) in &entry.fields {
                call.arg(*field).arg(value);
            }
        }
        let (kept, changed): (u8, usize) = call.invoke_async(&mut self.connection).await?;
        Ok(if kept == 1 { Written::Done { changed } } else { Written::Lost })
    }
}
