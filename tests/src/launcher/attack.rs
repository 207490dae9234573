//! `./dev attack`: what attackers try, and what comes of it.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::start_servers;
use super::up::start_platform;
use crate::attack::ground::{Form, Ground};
use crate::attack::{self, Outcome, fuzz, rows};
use crate::stack::{Layout, Stack};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Rows of the matrix, for instance A12 or 12 [default: all]
    #[arg(value_parser = row)]
    pub rows: Vec<u8>,
    /// As `./dev test` does it: fewer of what is many, and nothing that measures
    #[arg(long)]
    pub short: bool,
    /// Instead of the rows, make so many requests from the OpenAPI document
    #[arg(long, value_name = "REQUESTS", conflicts_with = "rows")]
    pub fuzz: Option<u64>,
    /// Of the requests: the same seed makes the same ones
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The report as JSON, each attempt included
    #[arg(long)]
    pub json: bool,
}

fn row(text: &str) -> Result<u8> {
    let number = text.trim_start_matches(['A', 'a']).parse().ok().filter(|number| (1..=rows::LAST).contains(number));
    number.with_context(|| format!("the matrix has rows A1 to A{}", rows::LAST))
}

/// Attacks the platform of this checkout where one runs, and leaves people, locks and dead letters in it; else one that is
/// thrown away. Exit code 0 when every row that was tried held.
pub fn attack(options: &Options) -> Result<ExitCode> {
    let running = Stack::attach().ok();
    let stack = match &running {
        Some(stack) => stack.clone(),
        None => {
            eprintln!("Nothing runs for this checkout: starting a platform that is thrown away");
            let stack = start_servers(Layout::throwaway("attack")?.unlimited())?;
            start_platform(&stack)?;
            stack
        }
    };
    if stack.endpoints()?.owner.login.is_empty() {
        bail!("only the servers run. Next: ./dev up (everything), or ./dev down and this again");
    }
    let held = tokio::runtime::Runtime::new()?.block_on(against(&stack, options));
    if running.is_none() {
        stack.shutdown()?;
    }
    Ok(if held? { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn against(stack: &Stack, options: &Options) -> Result<bool> {
    let form = if options.short { Form::Short } else { Form::Full };
    let ground = Ground::prepare(stack, form).await.context("preparing what is attacked")?;
    if let Some(requests) = options.fuzz {
        let fuzzed = fuzz::run(&ground, requests, options.seed).await?;
        if options.json {
            println!("{}", serde_json::to_string(&fuzzed)?)
        } else {
            fuzzed.print()
        }
        return Ok(fuzzed.has_held());
    }
    let reports = attack::run(&ground, &options.rows).await;
    let has_held = reports.iter().all(|report| report.outcome != Outcome::Failed);
    if options.json {
        println!("{}", json!({"rows": reports, "held": has_held}));
    } else {
        attack::print(&reports);
    }
    Ok(has_held)
}
