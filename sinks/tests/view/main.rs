//! The serving view against a real broker, registry and Redis. `./dev test` gives them; alone:
//! `./dev services`, then `eval "$(./dev env)"`. Each test has topics and a Redis database of its own.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

mod proxy;
mod rig;

use std::collections::HashMap;

use rig::{Rig, eventually};
use runtime::kafka::OutRecord;
use sinks::view::entry::{self, GENERATION_KEY, OFFSETS_KEY};
use sinks::view::store::{Slice, Store, Written};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_reach_redis_and_a_stale_one_is_refused() {
    let mut rig = Rig::new(9).await;
    let level = rig.level(3, 7_000);
    let balance = rig.balance(2, 120);
    rig.send_stock(std::slice::from_ref(&level)).await;
    rig.send_balance(&balance).await;
    let role = rig.start();
    rig.holds(&level).await;
    let key = entry::loyalty_key(balance.customer_id, balance.program_id);
    eventually("the balance", || async {
        let held = rig.hash(&key).await;
        (held.get("points").map(String::as_str) == Some("120") && held["version"] == "2").then_some(())
    })
    .await;

    // A zombie's older state, a lower epoch with a higher version, and then a newer one as a marker.
    let stale = rig::at(&level, 1, 2, 9_999);
    let newest = rig::at(&level, 2, 1, 5_000);
    let lost_time_line = rig::at(&level, 1, 900, 8_888);
    let other = rig.level(1, 1_000);
    rig.send_stock(&[stale]).await;
    rig.send_stock(std::slice::from_ref(&newest)).await;
    rig.send_stock(&[lost_time_line, other.clone()]).await;
    rig.holds(&other).await;
    rig.holds(&newest).await;
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_everything_is_filled_again_while_nothing_else_happens() {
    let mut rig = Rig::new(10).await;
    let levels: Vec<_> = (1..=40).map(|version| rig.level(version, version * 1_000)).collect();
    rig.send_stock(&levels).await;
    let role = rig.start();
    for level in &levels {
        rig.holds(level).await;
    }
    let before: String = rig.get(GENERATION_KEY).await.expect("a generation");
    rig.flush().await;
    for level in &levels {
        rig.holds(level).await;
    }
    let after = eventually("another generation", || async { rig.get(GENERATION_KEY).await }).await;
    assert_ne!(before, after, "readers can tell that the view began anew");
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_fell_back_is_brought_forward() {
    let mut rig = Rig::new(11).await;
    let level = rig.level(1, 1_000);
    rig.send_stock(std::slice::from_ref(&level)).await;
    let role = rig.start();
    rig.holds(&level).await;
    role.stop().await;
    // What an append-only file without its last second looks like: entity and offset older together.
    let offsets = rig.hash(OFFSETS_KEY).await;
    let newer = rig::at(&level, 1, 2, 500);
    rig.send_stock(std::slice::from_ref(&newer)).await;
    let role = rig.start();
    rig.holds(&newer).await;
    rig.restore(&level, &offsets).await;
    rig.holds(&newer).await;
    role.stop().await;

    // The same while the sink is away: the group's offset is past what Redis holds.
    rig.restore(&level, &offsets).await;
    let role = rig.start();
    rig.holds(&newer).await;
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_is_waited_for_and_nothing_is_lost() {
    let mut rig = Rig::new(12).await;
    let first = rig.level(1, 1_000);
    rig.send_stock(std::slice::from_ref(&first)).await;
    let role = rig.start();
    rig.holds(&first).await;
    eventually("ready", || async { role.health.is_ready().then_some(()) }).await;
    rig.proxy.cut();
    let second = rig::at(&first, 1, 2, 700);
    rig.send_stock(std::slice::from_ref(&second)).await;
    eventually("not ready", || async { (!role.health.is_ready()).then_some(()) }).await;
    rig.proxy.heal();
    rig.holds(&second).await;
    eventually("ready again", || async { role.health.is_ready().then_some(()) }).await;
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_states_go_to_the_dead_letters() {
    let mut rig = Rig::new(13).await;
    let level = rig.level(1, 1_000);
    let bad = OutRecord::new(rig.topics.stock.clone(), "x:y", b"not avro".to_vec()).with_partition(0);
    rig.producer.send_all(&[bad]).await.expect("sent");
    let role = rig.start();
    rig.send_stock(std::slice::from_ref(&level)).await;
    rig.holds(&level).await;
    eventually("a dead letter", || async { (rig.dead_letters().await == 1).then_some(()) }).await;
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_level_is_announced_to_its_location_and_a_stale_one_is_not() {
    let mut rig = Rig::new(14).await;
    let level = rig.level(5, 5_000);
    let mut store = Store::new(rig.redis.clone());
    let generation = store.generation().await.expect("a generation");
    let mut heard = rig.listen(&entry::stock_channel(level.location_id)).await;
    let entries = [rig::at(&level, 1, 5, 5_000), rig::at(&level, 1, 4, 4_000), rig::at(&level, 1, 6, 6_000)];
    for (index, level) in entries.iter().enumerate() {
        let entry = [entry::stock(level)];
        let slice = Slice {
            generation: &generation,
            field: "topic/0",
            at_least: (index > 0).then_some(index as i64),
            next: Some(index as i64 + 1),
            announce: true,
            entries: &entry,
        };
        let changed = usize::from(index != 1);
        assert_eq!(store.write(&slice).await.expect("written"), Written::Done { changed });
    }
    let mut versions = Vec::new();
    while versions.len() < 2 {
        let message: serde_json::Value = serde_json::from_str(&heard.recv().await.expect("a message")).expect("JSON");
        versions.push(message["version"].as_i64().expect("a version"));
    }
    assert_eq!(versions, [5, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_a_view_that_is_not_the_one_filled_changes_nothing() {
    let mut rig = Rig::new(15).await;
    let level = rig.level(5, 5_000);
    let mut store = Store::new(rig.redis.clone());
    let generation = store.generation().await.expect("a generation");
    let entries = [entry::stock(&level)];
    let slice = Slice {
        generation: &generation,
        field: "topic/0",
        at_least: None,
        next: Some(8),
        announce: false,
        entries: &entries,
    };
    let other = Slice { generation: "another", ..slice };
    assert_eq!(store.write(&other).await.expect("answered"), Written::Lost);
    let behind = Slice { generation: &generation, at_least: Some(3), ..other };
    assert_eq!(store.write(&behind).await.expect("answered"), Written::Lost);
    assert_eq!(rig.hash(&entry::stock_key(level.location_id, level.variant_id)).await, HashMap::new());
    let filling = Slice { at_least: None, ..behind };
    assert_eq!(store.write(&filling).await.expect("answered"), Written::Done { changed: 1 });
    let older = Slice { at_least: Some(8), next: Some(5), ..filling };
    assert_eq!(store.write(&older).await.expect("answered"), Written::Done { changed: 0 });
    assert_eq!(rig.hash(OFFSETS_KEY).await["topic/0"], "8", "an offset never goes back");
}
