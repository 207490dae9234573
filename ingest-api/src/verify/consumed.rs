//! I26: whatever a consumer group has read is accounted for. Of each topic a group reads, every record below the
//! group's committed offset was applied (its effect is in the group's store), is a replay of one that was, belongs to a
//! time line that a restore gave up, or lies in the dead-letter topic with its origin. Anything else was swallowed.

use std::collections::{BTreeMap, HashSet};

use anyhow::Context;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use schemas::codec::{Codec, DecodeError};
use schemas::topics::groups::{self, Group};
use schemas::topics::{Topic, dead_letter};
use sinks::withdraw::Cuts;

use super::clickhouse::ClickHouse;
use super::effects::{self, Effect, Effects};
use super::topics::{SIDE_BY_SIDE, read};
use super::{Report, Stores};

/// Partition and offset of a record.
type Place = (i32, i64);

/// What became of the records of one topic in one group.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    consumed: u64,
    applied: u64,
    replayed: u64,
    /// Of a time line that a restore gave up.
    withdrawn: u64,
    dead: u64,
    /// Not read by the group yet.
    waiting: u64,
    swallowed: u64,
    /// What was swallowed, and dead letters of unknown origin.
    wrong: Vec<String>,
}

/// What a group made of a topic, as its stores and its dead letters tell.
struct Ledger {
    /// Next offset of the group per partition.
    committed: BTreeMap<i32, i64>,
    dead: HashSet<Place>,
    effects: Effects,
    cuts: Cuts,
    seen: HashSet<Effect>,
    account: Account,
}

/// What a record says about itself.
enum Said {
    /// It has to leave this behind.
    Effect(Effect),
    /// It asks for nothing, for instance a tombstone in a topic whose reader keeps its last state.
    Nothing,
    /// Nobody can read it.
    Malformed(String),
}

impl Ledger {
    /// Books one record; `name` is for whoever looks for it.
    fn book(&mut self, place: Place, said: Said, name: &str) {
        if place.1 >= self.committed.get(&place.0).copied().unwrap_or(0) {
            self.account.waiting += 1;
            return;
        }
        self.account.consumed += 1;
        if self.dead.contains(&place) {
            self.account.dead += 1;
            return;
        }
        let effect = match said {
            Said::Effect(effect) => effect,
            Said::Nothing => {
                self.account.applied += 1;
                return;
            }
            Said::Malformed(why) => return self.swallowed(place, name, &format!("it cannot be read ({why})")),
        };
        if effect.is_withdrawn(&self.cuts) {
            self.account.withdrawn += 1;
        } else if !self.effects.holds(&effect) {
            let held = self.effects.newest(&effect);
            self.swallowed(place, name, &format!("{effect} has no effect, the store holds {held}"));
        } else if self.seen.insert(effect) {
            self.account.applied += 1;
        } else {
            self.account.replayed += 1;
        }
    }

    fn swallowed(&mut self, (partition, offset): Place, name: &str, why: &str) {
        let text = format!("partition {partition} offset {offset} ({name}): {why}, and there is no dead letter");
        self.account.swallowed += 1;
        self.account.wrong.push(text);
    }
}

/// Accounts for every group and topic; one line of the report per group.
pub async fn check(stores: &Stores, report: &mut Report) -> anyhow::Result<()> {
    let codec = Codec::new(&stores.registry.url);
    let clickhouse = ClickHouse::of(stores)?;
    let cuts = effects::cuts(&clickhouse).await?;
    for group in groups::ALL {
        let (mut compared, mut differing) = (0, Vec::new());
        let accounts = group.topics.iter().map(|topic| account(stores, &clickhouse, &codec, &cuts, (group, topic)));
        let mut accounts = stream::iter(accounts).buffered(SIDE_BY_SIDE);
        while let Some((account, topic)) = accounts.try_next().await? {
            compared += account.consumed;
            differing.extend(account.wrong.iter().map(|text| format!("{} of {}: {text}", group.name, topic.name)));
            report.notes.push(account.note(group, topic));
        }
        report.add("I26", claim(group), compared, differing);
    }
    Ok(())
}

/// What became of the records of one topic in one group.
async fn account<'a>(
    stores: &Stores,
    clickhouse: &ClickHouse,
    codec: &Codec,
    cuts: &Cuts,
    (group, topic): (&Group, &'a Topic),
) -> anyhow::Result<(Account, &'a Topic)> {
    // The offsets first: what they cover had its effect before they were committed.
    let committed = runtime::kafka::committed(&stores.kafka, group.name, topic.name, topic.partitions).await?;
    let (dead, wrong) = letters(stores, group, topic).await?;
    let effects = Effects::of(stores, clickhouse, codec, group, topic)
        .await
        .with_context(|| format!("what {} made of {}", group.name, topic.name))?;
    let cuts = if group.name == groups::CLICKHOUSE_SINK.name { cuts.clone() } else { Cuts::default() };
    let account = Account { wrong, ..Account::default() };
    let mut ledger = Ledger { committed, dead, effects, cuts, seen: HashSet::new(), account };
    let mut reading = read(stores, topic.name, topic.partitions);
    while let Some(record) = reading.next().await? {
        let said = match &record.payload {
            None if effects::wants_payload(group) => Said::Malformed("a tombstone".to_owned()),
            None => Said::Nothing,
            Some(payload) => match effects::wanted(codec, group, topic, payload).await {
                Ok(effect) => Said::Effect(effect),
                Err(DecodeError::Malformed(why)) => Said::Malformed(why),
                Err(error) => return Err(error).context("decoding records for I26"),
            },
        };
        let name = record.headers.get_str("ce_id").unwrap_or("no event id");
        ledger.book((record.partition, record.offset), said, name);
    }
    Ok((ledger.account, topic))
}

impl Account {
    fn note(&self, group: &Group, topic: &Topic) -> String {
        let Account { consumed, applied, replayed, withdrawn, dead, waiting, swallowed, wrong: _ } = self;
        let mut text = format!(
            "I26 {} of {}: {consumed} consumed = {applied} applied + {replayed} replayed + {dead} dead-lettered",
            group.name, topic.name
        );
        for (count, what) in [(*withdrawn, "withdrawn"), (*swallowed, "UNACCOUNTED")] {
            if count > 0 {
                text.push_str(&format!(" + {count} {what}"));
            }
        }
        if *waiting > 0 {
            text.push_str(&format!("; {waiting} not read yet"));
        }
        text
    }
}

fn claim(group: &Group) -> &'static str {
    match group.name {
        name if name == groups::STOCK_PROCESSOR.name => "the stock processor accounts for every record it read",
        name if name == groups::LOYALTY_PROCESSOR.name => "the loyalty processor accounts for every record it read",
        name if name == groups::CLICKHOUSE_SINK.name => "the ClickHouse sink accounts for every record it read",
        name if name == groups::VIEW_SINK.name => "the Redis view accounts for every record it read",
        _ => "the resync worker accounts for every request it read",
    }
}

/// Origins of the dead letters of a group; and, named, the letters that do not say where they came from.
async fn letters(stores: &Stores, group: &Group, topic: &Topic) -> anyhow::Result<(HashSet<Place>, Vec<String>)> {
    let name = dead_letter(topic.name, group.name);
    let (mut origins, mut nameless) = (HashSet::new(), Vec::new());
    let mut reading = read(stores, &name, topic.partitions);
    while let Some(letter) = reading.next().await? {
        let number = |header| letter.headers.get_str(header).and_then(|text| text.parse::<i64>().ok());
        let is_ours = letter.headers.get_str("dlt_topic") == Some(topic.name);
        let partition = number("dlt_partition").and_then(|partition| i32::try_from(partition).ok());
        match (is_ours, partition, number("dlt_offset")) {
            (true, Some(partition), Some(offset)) => {
                origins.insert((partition, offset));
            }
            _ => {
                let place = format!("partition {} offset {}", letter.partition, letter.offset);
                nameless.push(format!("the dead letter at {place} of {name} does not say where it came from"));
            }
        }
    }
    Ok((origins, nameless))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn effect(entity: u128, version: i64) -> Effect {
        Effect { key: (Uuid::from_u128(entity), Uuid::nil(), 0), at: (1, version), act: None }
    }

    fn ledger(held: &[(u128, i64)]) -> Ledger {
        let held = held.iter().map(|(entity, version)| (effect(*entity, 0).key, (1, *version))).collect();
        Ledger {
            committed: BTreeMap::from([(0, 10)]),
            dead: HashSet::from([(0, 3)]),
            effects: Effects::new(held),
            cuts: Cuts::default(),
            seen: HashSet::new(),
            account: Account::default(),
        }
    }

    #[test]
    fn what_is_held_dead_or_repeated_is_accounted_for() {
        let mut ledger = ledger(&[(1, 2)]);
        ledger.book((0, 0), Said::Effect(effect(1, 1)), "a");
        ledger.book((0, 1), Said::Effect(effect(1, 2)), "b");
        ledger.book((0, 2), Said::Effect(effect(1, 1)), "a");
        ledger.book((0, 3), Said::Malformed("cut".into()), "c");
        ledger.book((0, 4), Said::Nothing, "d");
        ledger.book((0, 10), Said::Effect(effect(1, 3)), "e");
        ledger.book((1, 0), Said::Effect(effect(1, 3)), "f");
        let wanted = Account { consumed: 5, applied: 3, replayed: 1, dead: 1, waiting: 2, ..Account::default() };
        assert_eq!(ledger.account, wanted);
    }

    #[test]
    fn what_was_passed_over_is_named() {
        let mut ledger = ledger(&[(1, 2)]);
        ledger.book((0, 4), Said::Effect(effect(1, 3)), "beyond");
        ledger.book((0, 5), Said::Effect(effect(2, 1)), "unknown");
        ledger.book((0, 6), Said::Malformed("cut".into()), "poison");
        let named = ledger.account.wrong.join("\n");
        for text in ["offset 4 (beyond)", "the store holds version 2", "offset 5 (unknown)", "offset 6 (poison)"] {
            assert!(named.contains(text), "{text} is missing in {named}");
        }
        assert_eq!((ledger.account.consumed, ledger.account.applied), (3, 0));
    }

    #[test]
    fn a_lost_time_line_leaves_nothing_behind() {
        let location = Uuid::from_u128(9);
        let mut ledger = ledger(&[]);
        ledger.cuts.insert(sinks::withdraw::Cut { epoch: 2, location_id: location, kept_seq: 7 });
        let act = |seq| Effect { act: Some((location, seq)), ..effect(1, 1) };
        ledger.book((0, 0), Said::Effect(act(8)), "lost");
        assert_eq!((ledger.account.withdrawn, ledger.account.swallowed), (1, 0));
        ledger.book((0, 1), Said::Effect(act(7)), "kept");
        assert_eq!((ledger.account.withdrawn, ledger.account.swallowed), (1, 1));
    }
}
