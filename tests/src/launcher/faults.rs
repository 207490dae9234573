//! `./dev chaos` and `./dev plant`: what must not break the platform, and what must not pass the check unseen.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::chaos;
use crate::demo;
use crate::plant;
use crate::stack::Stack;

#[derive(Debug, clap::Args)]
pub struct ChaosOptions {
    /// Processes and servers killed with SIGKILL
    #[arg(long, default_value_t = 20)]
    pub kills: u32,
    /// The same seed gives the same schedule
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Sales a second meanwhile
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Seconds for which Kafka, and then ClickHouse, is taken away
    #[arg(long, default_value_t = 60)]
    pub outage: u64,
    /// Seconds for which a process is frozen
    #[arg(long, default_value_t = 8)]
    pub freeze: u64,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when all stores and the tills agree afterwards.
pub fn chaos(options: &ChaosOptions) -> Result<ExitCode> {
    let stack = Stack::attach()?;
    let options_of_run = chaos::Options {
        kills: options.kills,
        seed: options.seed,
        rate: options.rate,
        outage: Duration::from_secs(options.outage),
        freeze: Duration::from_secs(options.freeze),
    };
    let report = tokio::runtime::Runtime::new()?.block_on(chaos::run(&stack, &options_of_run))?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(if report.agrees { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print(report: &chaos::ChaosReport) {
    let killed: Vec<String> = report.killed.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!(
        "{} kills ({}), {} freezes, {} outages in {:.0} s; {} sales committed, {} left unknown by their till",
        report.kills,
        killed.join(", "),
        report.freezes,
        report.outages,
        report.seconds,
        report.sold,
        report.left_unknown
    );
    for check in report.verify["checks"].as_array().into_iter().flatten() {
        if check["differing"].as_u64() != Some(0) {
            println!("DIFFERS {} {}: {}", check["id"], check["claim"], check["named"]);
        }
    }
    let verdict = if report.agrees { "everything agrees" } else { "the stores do NOT agree" };
    println!("drained and verified in {:.1} s: {verdict}", report.drained_seconds);
}

/// Exit code 0 when every planted bug was named.
pub fn plant() -> Result<ExitCode> {
    let stack = Stack::attach()?;
    let journal: PathBuf = stack.layout().run.join("plant-journal.jsonl");
    let planted = tokio::runtime::Runtime::new()?.block_on(async {
        let options =
            demo::Options { sales: 200, journal: Some(journal.clone()), ..demo::Options::of_run(&stack.layout().run)? };
        demo::run(&stack.endpoints()?, &options).await.context("selling with a journal first")?;
        plant::run(&stack, &journal).await
    })?;
    let caught = planted.iter().filter(|bug| bug.named.is_some()).count();
    println!("{caught} of {} planted bugs were named by verify; ./dev reset clears the spoilt data", planted.len());
    Ok(if caught == planted.len() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
