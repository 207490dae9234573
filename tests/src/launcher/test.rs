//! `./dev test`: everything, against a stack of its own that leaves nothing behind.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use super::up::start_platform;
use super::{external, start_servers};
use crate::stack::{self, Layout, Service, Stack};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Test against servers that run elsewhere: an environment file with their addresses
    #[arg(long, value_name = "FILE")]
    pub external: Option<PathBuf>,
    /// Given to `cargo test`, for instance: -- -p e2e
    #[arg(last = true)]
    pub cargo: Vec<String>,
}

fn cargo(layout: &Layout, options: &Options) -> Command {
    let mut command = Command::new("cargo");
    command.arg("test").current_dir(&layout.checkout);
    if !options.cargo.iter().any(|it| matches!(it.as_str(), "-p" | "--package" | "--workspace")) {
        command.arg("--workspace");
    }
    command
}

/// Builds all tests first, so that the servers stand only as long as they are needed.
pub fn test(options: &Options) -> Result<ExitCode> {
    let layout = Layout::throwaway("test")?;
    let (ours, theirs) = split(&options.cargo);
    let built = cargo(&layout, options).arg("--no-run").args(&ours).status().context("starting cargo")?;
    if !built.success() {
        eprintln!("\nStopped: the tests do not build (see above).");
        return Ok(ExitCode::from(70));
    }
    let begun = Instant::now();
    let mut tests = cargo(&layout, options);
    tests.args(["--no-fail-fast"]).args(&ours).arg("--").args(&theirs);
    let succeeded = match &options.external {
        Some(file) => {
            let endpoints = external::endpoints(file, &Layout::of_checkout()?)?;
            let path = stack::endpoints_file(&layout);
            endpoints.write(&path)?;
            tests.envs(external::read(file)?).env(crate::endpoints::ENDPOINTS_VARIABLE, &path);
            let status = tests.status().context("starting cargo");
            fs::remove_dir_all(&layout.run).ok();
            status?.success()
        }
        None => native(&layout, &mut tests)?,
    };
    eprintln!(
        "\nTests ran for {:.0} s: {}",
        begun.elapsed().as_secs_f64(),
        if succeeded { "all passed" } else { "FAILED" }
    );
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Whatever happens after the launch, also Ctrl-C or a kill: the supervisor ends with this process and takes all with it.
fn native(layout: &Layout, tests: &mut Command) -> Result<bool> {
    let stack = Stack::launch(layout.clone())?;
    let outcome = run(&stack, tests);
    if !matches!(outcome, Ok(true)) {
        keep_logs(layout);
    }
    stack.shutdown()?;
    outcome
}

fn run(stack: &Stack, tests: &mut Command) -> Result<bool> {
    start_servers(stack.layout().clone())?;
    start_platform(stack)?;
    let passed = tests.envs(stack.exports()).status().context("starting cargo")?.success();
    let crashed: Vec<String> = stack
        .processes()?
        .into_iter()
        .filter(|it| it.crashes > 0)
        .map(|it| format!("{} ({} times, last: {})", it.service, it.crashes, it.last_exit.unwrap_or_default()))
        .collect();
    if !crashed.is_empty() {
        eprintln!("\nEnded unasked during the tests: {}", crashed.join(", "));
    }
    Ok(passed && crashed.is_empty())
}

/// Arguments before and after an inner `--` (for the test programs).
fn split(arguments: &[String]) -> (Vec<String>, Vec<String>) {
    let inner = arguments.iter().position(|it| it == "--");
    match inner {
        Some(at) => (arguments[..at].to_vec(), arguments[at + 1..].to_vec()),
        None => (arguments.to_vec(), Vec::new()),
    }
}

/// A failed run's logs outlive its folder: `target/test-logs/<service>.log`.
fn keep_logs(layout: &Layout) {
    let Some(target) = layout.bin.parent() else { return };
    let kept = target.join("test-logs");
    fs::create_dir_all(&kept).ok();
    for name in std::iter::once("supervisor").chain(Service::all().map(Service::name)) {
        if layout.log(name).exists() {
            fs::copy(layout.log(name), kept.join(format!("{name}.log"))).ok();
        }
    }
    eprintln!("\nThe servers' logs of this run: {}", kept.display());
}
