//! Death between emit, state and commit; zombies; takeover.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::anyhow;
use runtime::consumer::{self, Batch, Failure, Handler, Reject};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::trace::TraceContext;
use schemas::events::{StockLevel, StockMoved};
use schemas::time::Timestamp;
use stream_processors::audit::audit;
use stream_processors::fold::{Applied, Stock};
use stream_processors::processor::{Processor, Shared};
use stream_processors::stock;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::rig::{Rig, TRACE, eventually, location};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    BeforeEmit,
    BetweenEmitAndState,
    BetweenStateAndCommit,
}

/// Handles `batches` batches like the processor does, then dies in the middle of the next one: nothing after
/// the named step happens, and its offsets are never committed.
struct Mortal {
    processor: Processor<Stock>,
    batches: usize,
    death: Death,
}

impl Handler for Mortal {
    async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        if batch.records.is_empty() || self.batches > 0 {
            self.batches -= usize::from(!batch.records.is_empty());
            return self.processor.handle(batch).await;
        }
        self.processor.take_over(batch).await.map_err(Failure::Retry)?;
        let (arrived, _) = self.processor.decode(batch).await.map_err(Failure::Retry)?;
        let draft = self.processor.memory().fold(&arrived, Timestamp(0));
        if self.death != Death::BeforeEmit {
            self.processor.emit(&draft).await?;
        }
        if self.death == Death::BetweenStateAndCommit {
            self.processor.write_states(&draft).await?;
        }
        Err(Failure::Fatal(anyhow!("died {:?}", self.death)))
    }
}

async fn live_and_die(rig: &Rig, batches: usize, death: Death) {
    let processor = Processor::new(&rig.kafka, &rig.registry, rig.topics.clone()).expect("a processor");
    let mortal = Mortal { processor, batches, death };
    let died = consumer::run(rig.consumer(4), Shutdown::new(), Health::new(), mortal).await;
    assert!(format!("{:#}", died.expect_err("it dies")).contains("died"));
}

/// Movements of three variants that cross their thresholds many times.
fn busy_day(rig: &mut Rig) -> Vec<StockMoved> {
    let here = location();
    let deltas = [9_000, -5_000, 4_000, -6_000, 8_000, -7_000, 5_000, -5_000, 9_000, -8_000, 7_000, -7_000];
    deltas.iter().flat_map(|&delta| [1, 2, 3].map(|variant| rig.moved(here, variant, delta + variant as i64))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_emit_state_and_commit_gives_equal_state_and_no_lost_alert() {
    let mut rig = Rig::new().await;
    let events = busy_day(&mut rig);
    rig.send(&events).await;
    live_and_die(&rig, 1, Death::BeforeEmit).await;
    live_and_die(&rig, 2, Death::BetweenEmitAndState).await;
    live_and_die(&rig, 1, Death::BetweenStateAndCommit).await;
    live_and_die(&rig, 0, Death::BetweenEmitAndState).await;
    live_and_die(&rig, 0, Death::BetweenStateAndCommit).await;
    let role = rig.start();
    rig.settled().await;
    role.stop().await;

    let (_, expected) = rig.expected();
    let alerts = rig.alerts().await;
    assert_eq!(alerts.iter().map(|alert| alert.alert_id).collect::<BTreeSet<Uuid>>(), expected);
    assert!(expected.len() > 6, "the day has to be busy");
    for alert in &alerts {
        let twins: Vec<_> = alerts.iter().filter(|other| other.alert_id == alert.alert_id).collect();
        assert!(twins.iter().all(|twin| *twin == alert), "an alert sent twice is the same alert");
    }
    assert!(rig.requests().await.is_empty(), "no gap was there");
    assert!(rig.read(&rig.dead_letters()).await.is_empty());

    let records = rig.read(&rig.topics.alerts).await;
    let cause = TraceContext::parse(TRACE).expect("a trace");
    for record in &records {
        assert_eq!(record.trace().expect("traced").trace_id, cause.trace_id, "the trace goes on");
        let ce_id: Uuid = record.headers.get_str("ce_id").expect("ce_id").parse().expect("a UUID");
        assert!(expected.contains(&ce_id), "ce_id is the alert's id");
    }
}

fn level(event: &StockMoved) -> StockLevel {
    match stock::apply(None, &StockMoved { resync: true, ..event.clone() }) {
        Applied::Next { state, .. } => state,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restore_takes_the_highest_version_although_an_older_record_was_written_last() {
    let mut rig = Rig::new().await;
    let here = location();
    let events = [9_000, 1_000, -500, 2_000, -700].map(|delta| rig.moved(here, 1, delta));
    rig.send_state(&level(&events[0])).await;
    rig.send_state(&level(&events[3])).await;
    rig.send_state(&level(&events[1])).await;
    rig.send(&events[4..]).await;
    let role = rig.start();
    let newest =
        eventually("version 5", || async { rig.newest().await.into_values().find(|level| level.version == 5) }).await;
    role.stop().await;
    assert_eq!(newest.qty, events[4].qty_after);
    assert!(rig.requests().await.is_empty(), "restoring the last record would show a gap");
    let versions: Vec<i64> = rig.states().await.iter().map(|level| level.version).collect();
    assert_eq!(versions, [1, 4, 2, 4, 5], "the newest is written again behind the stale one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_zombie_writes_late_is_overwritten_by_the_owner() {
    let mut rig = Rig::new().await;
    let here = location();
    let events = [9_000, -1_000, -1_000].map(|delta| rig.moved(here, 1, delta));
    rig.send(&events).await;
    let processor = Processor::<Stock>::new(&rig.kafka, &rig.registry, rig.topics.clone()).expect("a processor");
    let processor = Arc::new(Mutex::new(processor));
    let stop = Shutdown::new();
    let member =
        tokio::spawn(consumer::run(rig.consumer(4), stop.clone(), Health::new(), Shared(Arc::clone(&processor))));
    rig.settled().await;
    assert_eq!(audit(&processor).await.expect("an audit"), 0, "all that was written is the owner's: nothing is read");
    let calm = rig.states().await.len();

    rig.send_state(&level(&events[1])).await;
    assert_eq!(audit(&processor).await.expect("an audit"), 1);
    assert_eq!(audit(&processor).await.expect("an audit"), 0, "what the audit wrote is the owner's");
    stop.cancel();
    member.await.expect("no panic").expect("no failure");
    let versions: Vec<i64> = rig.states().await.iter().skip(calm).map(|level| level.version).collect();
    assert_eq!(versions, [2, 3], "stale, and then the newest, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_between_processes_without_a_skip() {
    let mut rig = Rig::new().await;
    let shops: Vec<_> = (0..24).map(|_| location()).collect();
    let send_round = async |rig: &mut Rig| {
        let events: Vec<_> =
            shops.iter().flat_map(|&shop| [3_000, -1_000, -1_500].map(|delta| rig.moved(shop, 1, delta))).collect();
        rig.send(&events).await;
    };
    send_round(&mut rig).await;
    let first = rig.start();
    rig.settled().await;
    let second = rig.start();
    for _ in 0..3 {
        send_round(&mut rig).await;
        rig.settled().await;
    }
    first.stop().await;
    send_round(&mut rig).await;
    rig.settled().await;
    second.stop().await;
    assert!(rig.requests().await.is_empty(), "no gap was there");
    let (_, expected) = rig.expected();
    assert_eq!(rig.alerts().await.iter().map(|alert| alert.alert_id).collect::<BTreeSet<Uuid>>(), expected);
}
