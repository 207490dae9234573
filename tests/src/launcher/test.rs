//! `./dev test`: everything, against a stack of its own that leaves nothing behind.

pub mod programs;
mod side_by_side;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use self::programs::{Program, Wanted};
use self::side_by_side::{Ended, Room};
use super::up::start_platform;
use super::{external, start_servers, template};
use crate::stack::{self, Layout, Service, Stack};
use crate::steps::{self, STEPS_VARIABLE, Step};

/// Steps shown at the end.
const SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Test against servers that run elsewhere: an environment file with their addresses
    #[arg(long, value_name = "FILE")]
    pub external: Option<PathBuf>,
    /// Given to `cargo test`, for instance: -- -p e2e
    #[arg(last = true)]
    pub cargo: Vec<String>,
}

/// `cargo test` over the whole workspace: with a part of it, dependencies have other features and are built once more.
fn cargo(layout: &Layout) -> Command {
    let mut command = Command::new("cargo");
    command.args(["test", "--workspace"]).current_dir(&layout.checkout);
    command
}

/// Builds all tests first, so that the servers stand only as long as they are needed.
pub fn test(options: &Options) -> Result<ExitCode> {
    let layout = Layout::throwaway("test")?;
    let begun = Instant::now();
    let wanted = Wanted::of(&options.cargo);
    let built = cargo(&layout).arg("--no-run").args(&wanted.targets).status().context("starting cargo")?;
    if !built.success() {
        eprintln!("\nStopped: the tests do not build (see above).");
        return Ok(ExitCode::from(70));
    }
    let mut run = Run { layout, steps: vec![Step::new("build the tests", begun.elapsed())], ended: Vec::new() };
    let programs = programs::all(&run.layout, &wanted)?;
    let begun = Instant::now();
    let stood = match &options.external {
        Some(file) => run.elsewhere(programs, file)?,
        None => run.here(programs)?,
    };
    let has_passed = stood && run.ended.iter().all(|it| it.has_succeeded);
    run.print_slowest();
    run.print_failed();
    let verdict = if has_passed { "all passed" } else { "FAILED" };
    eprintln!("\nTests ran for {:.0} s: {verdict}", begun.elapsed().as_secs_f64());
    Ok(if has_passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// One run of the tests, and what is known of it so far.
struct Run {
    layout: Layout,
    steps: Vec<Step>,
    ended: Vec<Ended>,
}

impl Run {
    /// Against servers and a platform that run elsewhere.
    fn elsewhere(&mut self, programs: Vec<Program>, file: &Path) -> Result<bool> {
        let endpoints = external::endpoints(file, &Layout::of_checkout()?)?;
        let path = stack::endpoints_file(&self.layout);
        endpoints.write(&path)?;
        let own = (crate::endpoints::ENDPOINTS_VARIABLE.to_owned(), path.display().to_string());
        let environment = external::read(file)?.into_iter().chain([own]).collect();
        let done = self.programs(programs, environment);
        fs::remove_dir_all(&self.layout.run).ok();
        done.map(|()| true)
    }

    /// Against servers and a platform of this run. Whatever happens after the launch, also Ctrl-C or a kill: the supervisor
    /// ends with this process and takes all with it. Whether nothing of the platform ended unasked.
    fn here(&mut self, programs: Vec<Program>) -> Result<bool> {
        let stack = Stack::launch(self.layout.clone())?;
        let stood = self.with(&stack, programs);
        if !matches!(stood, Ok(true)) || self.ended.iter().any(|it| !it.has_succeeded) {
            keep_logs(&self.layout, &self.ended);
        }
        self.timed("stop the platform", |_| stack.shutdown())?;
        stood
    }

    fn with(&mut self, stack: &Stack, programs: Vec<Program>) -> Result<bool> {
        self.timed("start the servers", |run| start_servers(run.layout.clone()))?;
        self.timed("prepare the schema", |_| template::prepare(stack))?;
        self.timed("start the platform", |_| start_platform(stack))?;
        let exports = stack.exports().into_iter().map(|(name, value)| (name.to_owned(), value));
        self.programs(programs, exports.collect())?;
        let unasked: Vec<String> = stack
            .processes()?
            .into_iter()
            .filter(|it| it.crashes > 0)
            .map(|it| format!("{} ({} times, last: {})", it.service, it.crashes, it.last_exit.unwrap_or_default()))
            .collect();
        if !unasked.is_empty() {
            eprintln!("\nEnded unasked during the tests: {}", unasked.join(", "));
        }
        Ok(unasked.is_empty())
    }

    fn timed<T>(&mut self, name: &str, part: impl FnOnce(&mut Run) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let done = part(self)?;
        self.steps.push(Step::new(name, begun.elapsed()));
        Ok(done)
    }

    fn programs(&mut self, programs: Vec<Program>, mut environment: Vec<(String, String)>) -> Result<()> {
        let logs = self.layout.service("tests")?;
        let steps = logs.join("steps");
        environment.push((STEPS_VARIABLE.to_owned(), steps.display().to_string()));
        self.ended = side_by_side::run(programs, &environment, &logs, Room::of_machine())?;
        self.steps.extend(steps::noted(&steps));
        Ok(())
    }

    /// Where the time went. Programs run side by side, so this adds up to more than the whole took; a long one is shown
    /// by its parts.
    fn print_slowest(&self) {
        let parts = |program: &Ended| {
            let prefix = program.step.name.rsplit(' ').next().unwrap_or_default();
            self.steps.iter().any(|step| step.name.starts_with(&format!("{prefix}: ")))
        };
        let whole = self.ended.iter().filter(|it| !parts(it)).map(|it| &it.step);
        let mut all: Vec<&Step> = self.steps.iter().chain(whole).collect();
        all.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        eprintln!("\nThe slowest steps{:>33}", "seconds");
        for step in all.into_iter().take(SHOWN) {
            eprintln!("  {:<40}{:>8.1}", step.name, step.seconds);
        }
    }

    fn print_failed(&self) {
        for it in self.ended.iter().filter(|it| !it.has_succeeded) {
            let tests =
                if it.failed.is_empty() { "it ended before its tests did".to_owned() } else { it.failed.join(", ") };
            eprintln!("\nFAILED {}: {tests}", it.step.name);
        }
    }
}

/// A failed run's logs outlive its folder: `target/test-logs/<service or failed program>.log`.
fn keep_logs(layout: &Layout, ended: &[Ended]) {
    let Some(target) = layout.bin.parent() else { return };
    let kept = target.join("test-logs");
    fs::create_dir_all(&kept).ok();
    for name in std::iter::once("supervisor").chain(Service::all().map(Service::name)) {
        if layout.log(name).exists() {
            fs::copy(layout.log(name), kept.join(format!("{name}.log"))).ok();
        }
    }
    for log in ended.iter().filter(|it| !it.has_succeeded).map(|it| &it.log) {
        fs::copy(log, kept.join(log.file_name().unwrap_or_default())).ok();
    }
    eprintln!("\nLogs of the servers and of what failed: {}", kept.display());
}
