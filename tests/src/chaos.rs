//! `./dev chaos`: tills sell at a steady rate with an fsynced journal while processes and servers are killed,
//! frozen and taken away at random; then everything is healed and `verify` compares all stores and the journal.
//!
//! The seed repeats the schedule, not the interleaving. What a till was told must be stored afterwards, once,
//! whatever happened in between.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::demo;
use crate::stack::{Job, READY_LIMIT, Service, Signal, Stack};

/// After the last fault everything has to agree within this time.
pub const DRAIN: Duration = Duration::from_secs(180);

/// What to do to the platform.
#[derive(Debug, Clone)]
pub struct Options {
    pub kills: u32,
    pub seed: u64,
    /// Sales a second.
    pub rate: f64,
    /// How long Kafka, and then ClickHouse, is taken away.
    pub outage: Duration,
    /// How long a frozen process stands still; longer than the relay's session limit.
    pub freeze: Duration,
}

/// What was done and what came of it.
#[derive(Debug, Serialize)]
pub struct ChaosReport {
    pub kills: u32,
    pub freezes: u32,
    pub outages: u32,
    pub killed: Vec<(String, u32)>,
    pub sold: u64,
    pub left_unknown: u64,
    pub seconds: f64,
    pub drained_seconds: f64,
    pub agrees: bool,
    pub verify: serde_json::Value,
}

/// Who may be killed, and how often relative to the others.
const VICTIMS: &[(Service, u32)] = &[
    (Service::Api, 4),
    (Service::Relay, 4),
    (Service::Worker, 1),
    (Service::Stock, 4),
    (Service::Loyalty, 3),
    (Service::ClickHouseSink, 4),
    (Service::ViewSink, 2),
    (Service::Kafka, 2),
    (Service::Registry, 1),
    (Service::Redis, 2),
    (Service::Clickhouse, 2),
    (Service::Postgres, 2),
];

/// Who may be frozen: a leader or a group member that comes back must do no harm.
const FROZEN: &[Service] =
    &[Service::Relay, Service::Stock, Service::Loyalty, Service::ClickHouseSink, Service::ViewSink, Service::Kafka];

enum Act {
    Kill(Service),
    Freeze(Service),
    TakeAway(Service),
}

/// The schedule of a seed: kills, a freeze for every tenth of them (the relay first), one outage of Kafka and one
/// of ClickHouse, each with the pause before it.
fn schedule(options: &Options) -> Vec<(Duration, Act)> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut acts: Vec<(Duration, Act)> = (0..options.kills)
        .map(|_| {
            let victim = VICTIMS.choose_weighted(&mut rng, |(_, weight)| *weight).map_or(Service::Api, |(it, _)| *it);
            (Duration::from_millis(rng.random_range(200..1_800)), Act::Kill(victim))
        })
        .collect();
    let mut insert = |act| {
        let at = rng.random_range(0..=acts.len());
        acts.insert(at, (Duration::from_millis(500), act));
    };
    insert(Act::Freeze(Service::Relay));
    for n in 1..options.kills.div_ceil(10) {
        insert(Act::Freeze(FROZEN[n as usize % FROZEN.len()]));
    }
    insert(Act::TakeAway(Service::Kafka));
    insert(Act::TakeAway(Service::Clickhouse));
    acts
}

/// Runs the schedule against a platform that is up and has its business. Blocking; needs a tokio runtime for the tills.
pub async fn run(stack: &Stack, options: &Options) -> Result<ChaosReport> {
    let acts = schedule(options);
    let planned: Duration = acts
        .iter()
        .map(|(pause, act)| {
            *pause
                + match act {
                    Act::Kill(_) => Duration::ZERO,
                    Act::Freeze(_) => options.freeze,
                    Act::TakeAway(_) => options.outage,
                }
        })
        .sum();
    let journal =
        stack.layout().run.join("chaos").join(format!("journal-{}-{}.jsonl", options.seed, std::process::id()));
    let selling = demo::Options {
        sales: (options.rate * (planned.as_secs_f64() + 5.0)) as u64,
        rate: Some(options.rate),
        journal: Some(journal.clone()),
        ..demo::Options::of_run(&stack.layout().run)?
    };
    let endpoints = stack.endpoints()?;
    let begin = Instant::now();
    let disturbing = {
        let (stack, options) = (stack.clone(), options.clone());
        tokio::task::spawn_blocking(move || disturb(&stack, &options, acts))
    };
    let (sold, done) = tokio::join!(demo::run(&endpoints, &selling), disturbing);
    let (sold, done) = (sold.context("the tills")?, done??);
    let healed = Instant::now();
    let report = verify(stack, &journal, DRAIN).await?;
    Ok(ChaosReport {
        kills: options.kills,
        freezes: done.freezes,
        outages: done.outages,
        killed: done.killed,
        sold: sold.counts.sold,
        left_unknown: sold.counts.unexpected as u64,
        seconds: begin.elapsed().as_secs_f64(),
        drained_seconds: healed.elapsed().as_secs_f64(),
        agrees: report.0,
        verify: report.1,
    })
}

#[derive(Default)]
struct Done {
    freezes: u32,
    outages: u32,
    killed: Vec<(String, u32)>,
}

fn disturb(stack: &Stack, options: &Options, acts: Vec<(Duration, Act)>) -> Result<Done> {
    let mut done = Done::default();
    std::thread::sleep(Duration::from_secs(2));
    for (pause, act) in acts {
        std::thread::sleep(pause);
        match act {
            Act::Kill(victim) => {
                strike(stack, victim, Signal::SIGKILL)?;
                match done.killed.iter_mut().find(|(name, _)| name == victim.name()) {
                    Some((_, count)) => *count += 1,
                    None => done.killed.push((victim.name().to_owned(), 1)),
                }
            }
            Act::Freeze(victim) => {
                eprintln!("  {victim} stands still for {} s", options.freeze.as_secs());
                strike(stack, victim, Signal::SIGSTOP)?;
                std::thread::sleep(options.freeze);
                stack.kill(victim, Signal::SIGCONT)?;
                done.freezes += 1;
            }
            Act::TakeAway(victim) => {
                eprintln!("  {victim} is taken away for {} s", options.outage.as_secs());
                stack.stop(&[victim])?;
                std::thread::sleep(options.outage);
                stack.start(&[victim])?;
                done.outages += 1;
            }
        }
    }
    let everything: Vec<Service> = Service::all().collect();
    stack.start(&everything)?;
    stack.wait_ready(&everything).context("healing after the last fault")?;
    Ok(done)
}

/// Signals a victim; one that an earlier fault took down is waited for: a fault that hits nobody proves nothing.
fn strike(stack: &Stack, victim: Service, signal: Signal) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    let runs = || -> Result<bool> {
        let services = stack.processes()?;
        Ok(services.iter().any(|it| it.service == victim && it.process.is_some_and(|process| process.is_alive())))
    };
    while !runs()? {
        ensure!(Instant::now() < deadline, "{victim} did not come back within {} s", READY_LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
    stack.kill(victim, signal)
}

/// Runs `ingest-api worker verify` with the tills' journal, giving the pipeline `drain` to settle; whether all agree, and
/// its report.
pub async fn verify(stack: &Stack, journal: &Path, drain: Duration) -> Result<(bool, serde_json::Value)> {
    let mut command = stack.job("ingest-api", Job::Verify);
    command.args(["worker", "verify", "--json", "--drain", &drain.as_secs().to_string(), "--journal"]).arg(journal);
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("running verify")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(!text.trim().is_empty(), "verify printed nothing: {}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_str(&text).with_context(|| format!("verify printed no JSON: {text}"))?;
    Ok((output.status.success(), report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_schedule_and_freezes_the_relay() {
        let options =
            Options { kills: 40, seed: 7, rate: 200.0, outage: Duration::from_secs(1), freeze: Duration::from_secs(1) };
        let names = |acts: Vec<(Duration, Act)>| -> Vec<String> {
            acts.iter()
                .map(|(pause, act)| match act {
                    Act::Kill(it) => format!("{pause:?} kill {it}"),
                    Act::Freeze(it) => format!("{pause:?} freeze {it}"),
                    Act::TakeAway(it) => format!("{pause:?} take {it}"),
                })
                .collect()
        };
        let one = names(schedule(&options));
        assert_eq!(one, names(schedule(&options)));
        assert!(one.iter().any(|act| act.ends_with("freeze relay")));
        assert_eq!(one.iter().filter(|act| act.contains(" kill ")).count(), 40);
    }
}
