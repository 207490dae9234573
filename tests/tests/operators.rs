//! What operators meet and do, on a platform of its own: records nobody can read while tills sell, a replay, a relay
//! that stands still while another one waits, a record no broker takes. The check of all stores has the last word.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

#[path = "operators/topic.rs"]
mod topic;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use e2e::chaos;
use e2e::demo::{self, business::FEW_VARIANTS};
use e2e::endpoints::Endpoints;
use e2e::launcher::{start_servers, up::start_platform};
use e2e::metrics;
use e2e::stack::{Job, Layout, Service, Signal, Stack};
use e2e::steps::step;
use schemas::topics::groups::{CLICKHOUSE_SINK, STOCK_PROCESSOR};
use schemas::topics::{self, dead_letter};
use sqlx::{Connection, PgConnection};
use topic::{Letter, Spoilt, read, spoil};
use uuid::Uuid;

/// Of every wait. Far beyond what anything here takes: it only ends a test that would never end.
const DEADLINE: Duration = Duration::from_secs(240);

struct Platform {
    stack: Stack,
    endpoints: Endpoints,
    journal: PathBuf,
}

fn layout() -> Layout {
    let bin = Path::new(env!("CARGO_BIN_EXE_vorca-dev")).parent().expect("folder of vorca-dev");
    Layout { bin: bin.to_path_buf(), ..Layout::throwaway("operators").unwrap() }
}

/// One platform for all, in this order: the last one leaves something that the check names.
#[tokio::test(flavor = "multi_thread")]
async fn what_operators_meet_and_do_leaves_all_stores_agreeing() {
    let starting = tokio::task::spawn_blocking(|| {
        let stack = start_servers(layout()).unwrap();
        start_platform(&stack).unwrap();
        stack
    });
    let stack = step("operators: start", starting).await.unwrap();
    let endpoints = stack.endpoints().unwrap();
    let journal = stack.layout().run.join("operators.jsonl");
    let platform = Platform { stack, endpoints, journal };
    let opening = demo::Options { locations: 4, variants: FEW_VARIANTS, ..platform.sales(60) };
    assert!(step("operators: first sales", demo::run(&platform.endpoints, &opening)).await.unwrap().is_clean());

    step("operators: unreadable records", unreadable_records_stop_nobody(&platform)).await;
    step("operators: replay", a_replay_repeats_what_was_published(&platform)).await;
    step("operators: a frozen relay", a_relay_that_stands_still_is_replaced(&platform)).await;
    step("operators: an oversized record", an_oversized_record_is_named(&platform)).await;
    let stopping = tokio::task::spawn_blocking(move || platform.stack.shutdown());
    step("operators: stop", stopping).await.unwrap().unwrap();
}

/// Three spoilt copies of a movement arrive while tills sell: each group that reads the topic puts each of them aside
/// and goes on; published again they are put aside again.
async fn unreadable_records_stop_nobody(platform: &Platform) {
    let selling = demo::Options { rate: Some(50.0), ..platform.sales(200) };
    let (sold, spoilt) = tokio::join!(demo::run(&platform.endpoints, &selling), are_put_aside(platform));
    let sold = sold.unwrap();
    assert!(sold.is_clean() && sold.drained.is_some(), "{:?}", sold.counts.surprises);
    platform.agrees("with dead letters").await;

    let mut redrive = platform.stack.job("ingest-api", Job::Redrive);
    redrive.args(["redrive", "--topic", topics::MOVEMENTS.name, "--group", STOCK_PROCESSOR.name, "--by", "Anna"]);
    let said = succeed(redrive).await;
    assert!(said.contains("3 dead letters read, 3 matched, 3 published again"), "{said}");
    let redriven = format!("topic/{}", topics::MOVEMENTS.name);
    assert_eq!(platform.audited("records.redrive").await, [(redriven, "3 dead letters of vorca.stock".to_owned())]);
    for group in [STOCK_PROCESSOR, CLICKHOUSE_SINK] {
        let letters = platform.letters(group.name, 2 * spoilt.len()).await;
        for one in &spoilt {
            let twice = letters.iter().filter(|letter| letter.payload == one.payload && letter.key == one.key).count();
            assert_eq!(twice, 2, "{}: {one:?}", group.name);
        }
    }
    platform.agrees("after the redrive").await;
}

/// Spoils copies of a movement and waits until each is in the dead letters of each group, with its origin.
async fn are_put_aside(platform: &Platform) -> Vec<Spoilt> {
    let spoilt = spoil(&platform.endpoints.kafka, topics::MOVEMENTS.name).await;
    for group in [STOCK_PROCESSOR, CLICKHOUSE_SINK] {
        let letters = platform.letters(group.name, spoilt.len()).await;
        for one in &spoilt {
            let letter = letters.iter().find(|letter| letter.payload == one.payload);
            assert_explains(letter.unwrap_or_else(|| panic!("{}: no letter for {one:?}", group.name)), one);
        }
        assert_eq!(letters.len(), spoilt.len(), "nothing else is in the dead letters of {}", group.name);
    }
    spoilt
}

fn assert_explains(letter: &Letter, spoilt: &Spoilt) {
    assert_eq!((&letter.key, &letter.header("ce_id")), (&spoilt.key, &spoilt.ce_id));
    assert_eq!(letter.header("dlt_topic"), topics::MOVEMENTS.name);
    assert_eq!(letter.header("dlt_partition"), spoilt.partition.to_string());
    assert_eq!(letter.header("dlt_offset"), spoilt.offset.to_string());
    assert_eq!(letter.header("dlt_error_code"), "malformed_record", "{}", spoilt.how);
    assert_eq!(letter.header("dlt_attempts"), "1");
    assert!(letter.header("dlt_error").contains(spoilt.how), "{}: {}", spoilt.how, letter.header("dlt_error"));
    assert!(letter.header("dlt_time").ends_with('Z'));
}

/// `relay replay` of one location: its records come again with the ids they had, and the folds know them.
async fn a_replay_repeats_what_was_published(platform: &Platform) {
    let mut pg = PgConnection::connect(&platform.endpoints.postgres).await.unwrap();
    let (stream, acts, published): (Uuid, i64, Vec<Uuid>) = sqlx::query_as(
        "select o.stream_id, count(distinct o.seq), array_agg(r.event)
         from outbox o, unnest(o.topics, o.event_ids) r (topic, event)
         where r.topic = $1 group by o.stream_id order by 2 desc limit 1",
    )
    .bind(topics::MOVEMENTS.name)
    .fetch_one(&mut pg)
    .await
    .unwrap();
    for (arguments, says) in [
        (vec!["--from", "yesterday"], "neither a number nor a time"),
        (vec!["--from", "3"], "--stream"),
        (vec!["--from", "1", "--stream", "019abcde-0000-7000-8000-000000000000"], "there is no stream"),
        (vec!["--from", "2100-01-01T00:00:00Z"], "in the future"),
    ] {
        let refused = output(platform.replay(&arguments)).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(says), "{arguments:?}: {said}");
    }
    let wanted: BTreeSet<String> = published.iter().map(Uuid::to_string).collect();
    let heard = |records: &[Letter]| records.iter().filter(|it| wanted.contains(&it.header("ce_id"))).count();
    let before = heard(&read(&platform.endpoints.kafka, topics::MOVEMENTS.name).await);
    let known = platform.metric("stock", "vorca_processor_events_total", Some(("outcome", "replayed"))).await;

    let id = stream.to_string();
    assert_eq!(platform.audited("records.replay").await, [], "what is refused is no act");
    let topic = topics::MOVEMENTS.name;
    let said = succeed(platform.replay(&["--from", "1", "--stream", &id, "--topic", topic, "--by", "Anna"])).await;
    let row = (format!("stream/{id}"), format!("from 1, topic {topic}"));
    assert_eq!(platform.audited("records.replay").await, [row]);
    assert!(said.contains(&format!("stream {id}: acts")) && said.contains("are published again"), "{said}");
    assert!(acts > 0 && !wanted.is_empty());
    eventually("every record of the location comes again", async || {
        heard(&read(&platform.endpoints.kafka, topics::MOVEMENTS.name).await) >= before + wanted.len()
    })
    .await;
    eventually("the fold knows them", async || {
        platform.metric("stock", "vorca_processor_events_total", Some(("outcome", "replayed"))).await
            >= known + wanted.len() as f64
    })
    .await;
    platform.agrees("after the replay").await;
}

/// The leader stands still, another relay takes over, and what stood still does nothing when it goes on.
async fn a_relay_that_stands_still_is_replaced(platform: &Platform) {
    let other = Relay::start(platform);
    platform.stack.kill(Service::Relay, Signal::SIGSTOP).unwrap();
    let sold = demo::run(&platform.endpoints, &platform.sales(60)).await.unwrap();
    assert!(sold.is_clean() && sold.drained.is_some(), "nobody took over: {:?}", sold.counts.surprises);

    let published = "vorca_relay_records_total";
    platform.stack.kill(Service::Relay, Signal::SIGCONT).unwrap();
    eventually("it answers again", async || platform.is_scraped("relay").await).await;
    let before = platform.metric("relay", published, None).await;
    let sold = demo::run(&platform.endpoints, &platform.sales(60)).await.unwrap();
    assert!(sold.is_clean() && sold.drained.is_some(), "{:?}", sold.counts.surprises);
    let after = platform.metric("relay", published, None).await;
    // Unless a starved machine made the other one lose the lead in its turn.
    let log = std::fs::read_to_string(platform.stack.layout().run.join("second-relay.log")).unwrap();
    assert!(after == before || log.contains("lost its session"), "it leads no more and publishes nothing");
    platform.agrees("with another leader").await;

    other.stop().await;
    let sold = demo::run(&platform.endpoints, &platform.sales(20)).await.unwrap();
    assert!(sold.is_clean() && sold.drained.is_some(), "the first one did not take over again");
    platform.agrees("with the first leader again").await;
}

/// An act with a record larger than any topic takes: it is counted and named, and its stream goes on.
async fn an_oversized_record_is_named(platform: &Platform) {
    let parked = "vorca_relay_parked_total";
    let before = platform.metric("relay", parked, None).await;
    let event = append_oversized(&platform.endpoints.postgres).await;
    let sold = demo::run(&platform.endpoints, &platform.sales(20)).await.unwrap();
    assert!(sold.is_clean() && sold.drained.is_some(), "its stream does not go on");
    assert_eq!(platform.metric("relay", parked, None).await, before + 1.0, "the metric of the alarm");
    let (_, report) = chaos::verify(&platform.stack, &platform.journal, Duration::from_secs(1)).await.unwrap();
    let text = report.to_string();
    assert!(text.contains(&format!("event {event}")) && text.contains("was never published"), "{text}");
}

/// An act beside the product: the newest sale's records and one of two megabytes between them.
async fn append_oversized(postgres: &str) -> Uuid {
    let event = Uuid::now_v7();
    let mut pg = PgConnection::connect(postgres).await.unwrap();
    let mut tx = pg.begin().await.unwrap();
    sqlx::query(
        "with o as (select * from outbox where cause_type = 'document' order by id desc limit 1),
              s as (update streams t set last_seq = t.last_seq + 1 from o where t.stream_id = o.stream_id
                    returning t.stream_id, t.last_seq)
         insert into outbox (stream_id, seq, epoch, cause_type, cause_id, created_at, topics, keys, event_ids,
                             schema_versions, bodies)
         select s.stream_id, s.last_seq, o.epoch, 'test', gen_random_uuid(), now(), o.topics[1:1], o.keys[1:1],
                array[$1], o.schema_versions[1:1], array[decode(repeat('00', 2 << 20), 'hex')] from o, s",
    )
    .bind(event)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    event
}

/// A second relay process beside the supervised one.
struct Relay(Child);

impl Relay {
    fn start(platform: &Platform) -> Relay {
        let mut command = Command::new(platform.endpoints.bin_dir.join("ingest-api"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VORCA__")) {
            command.env_remove(name);
        }
        let log = File::create(platform.stack.layout().run.join("second-relay.log")).unwrap();
        command.arg("relay").envs(platform.stack.env_for(Service::Relay)).env("VORCA__ADMIN__LISTEN", "127.0.0.1:0");
        Relay(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    async fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the second relay does not stop");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Only after a failed test; a process that has ended is no error.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Platform {
    fn sales(&self, sales: u64) -> demo::Options {
        let options = demo::Options::of_run(&self.stack.layout().run).unwrap();
        demo::Options { sales, journal: Some(self.journal.clone()), patience: DEADLINE, ..options }
    }

    async fn agrees(&self, when: &str) {
        let (agrees, report) = chaos::verify(&self.stack, &self.journal, DEADLINE).await.unwrap();
        assert!(agrees, "{when}: {report:#}");
    }

    fn replay(&self, arguments: &[&str]) -> Command {
        // Postgres is all it needs, as for the first owner.
        let mut command = self.stack.job("ingest-api", Job::CreateOwner);
        command.args(["relay", "replay"]).args(arguments);
        command
    }

    /// Target and reason of the rows that this act of Anna's left in the audit log.
    async fn audited(&self, action: &str) -> Vec<(String, String)> {
        let mut pg = PgConnection::connect(&self.endpoints.postgres).await.unwrap();
        let query = "select target, reason from audit_log
                      where action = $1 and starts_with(actor_role, 'operator Anna as ') order by recorded_at";
        sqlx::query_as(query).bind(action).fetch_all(&mut pg).await.unwrap()
    }

    /// The dead letters of a group, once there are as many.
    async fn letters(&self, group: &str, count: usize) -> Vec<Letter> {
        let name = dead_letter(topics::MOVEMENTS.name, group);
        let mut letters = Vec::new();
        eventually(&format!("{count} letters in {name}"), async || {
            letters = read(&self.endpoints.kafka, &name).await;
            letters.len() >= count
        })
        .await;
        letters
    }

    /// Sum of a process's metric, over the series with this label.
    async fn metric(&self, role: &str, name: &str, label: Option<(&str, &str)>) -> f64 {
        let mut samples = Vec::new();
        eventually(&format!("metrics of {role}"), async || {
            samples = metrics::scrape(&reqwest::Client::new(), &self.endpoints.admin[role]).await;
            !samples.is_empty()
        })
        .await;
        samples.retain(|sample| label.is_none_or(|(key, value)| sample.labels.get(key).is_some_and(|it| it == value)));
        metrics::sum(&samples, name).unwrap_or(0.0)
    }

    async fn is_scraped(&self, role: &str) -> bool {
        !metrics::scrape(&reqwest::Client::new(), &self.endpoints.admin[role]).await.is_empty()
    }
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs a command that has to succeed; what it printed.
async fn succeed(command: Command) -> String {
    let done = output(command).await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

async fn eventually(what: &str, mut seen: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !seen().await {
        assert!(Instant::now() < deadline, "never seen: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
