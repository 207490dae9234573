//! `./dev up`: servers, migrations, the platform's processes, the demonstration business.

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{external, start, start_servers};
use crate::demo::{self, state::State};
use crate::endpoints::{Credentials, Endpoints};
use crate::stack::{self, Job, Layout, Service, Stack};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Sales to sell now [default: 20000 the first time, none later]
    #[arg(long)]
    pub sales: Option<u64>,
    /// Sales a second, arriving whatever the answers do [default: as fast as the tills are answered]
    #[arg(long)]
    pub rate: Option<f64>,
    /// Locations of the demonstration business [default: 20, later those it has]
    #[arg(long)]
    pub locations: Option<usize>,
    /// The same seed gives the same business and, with the same --from, the same sales (only the ids that the API gives
    /// out differ) [default: 1, later the one it has]
    #[arg(long)]
    pub seed: Option<u64>,
    /// When the first sales begin, for instance 2026-11-15T10:00:00Z; they take a week [default: a week ago]
    #[arg(long, value_name = "INSTANT")]
    pub from: Option<DateTime<Utc>>,
    /// Use a platform that runs elsewhere (compose, Kubernetes): an environment file with its addresses
    #[arg(long, value_name = "FILE")]
    pub external: Option<PathBuf>,
    /// Start the platform and make nothing in it
    #[arg(long)]
    pub no_demo: bool,
}

pub fn up(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let endpoints = match &options.external {
        Some(file) => external::endpoints(file, &Layout::of_checkout()?)?,
        None => {
            let stack = start_servers(Layout::of_checkout()?)?;
            start_platform(&stack)?;
            stack.endpoints()?
        }
    };
    enrol_owner(&endpoints)?;
    eprintln!("The platform is ready ({:.1} s). API: {}", begun.elapsed().as_secs_f64(), endpoints.api);
    if !options.no_demo {
        sell(&endpoints, options)?;
    }
    println!("\n  API          {0}   try it: {0}/docs", endpoints.api);
    println!(
        "  Owner        {} / {}   code of the second factor: ./dev totp",
        endpoints.owner.login, endpoints.owner.password
    );
    if options.external.is_none() {
        if let Some(again) = State::find(&endpoints.run_dir)?.and_then(|state| state.again()) {
            println!("  the same sales again, after ./dev reset: {again}");
        }
        eprintln!(
            "\nIt keeps running when this shell ends. Next: ./dev status, ./dev up --sales 1000, ./dev logs api, ./dev down"
        );
    }
    Ok(())
}

/// Migrates, makes the first Owner and starts every role; what was rebuilt since its start is restarted.
pub fn start_platform(stack: &Stack) -> Result<()> {
    migrate(stack)?;
    let stale = rebuilt_since_start(stack)?;
    if !stale.is_empty() {
        eprintln!("  restarting what was rebuilt: {}", stale.iter().map(|it| it.name()).collect::<Vec<_>>().join(", "));
        stack.stop(&stale)?;
        stack.wait_stopped(&stale)?;
    }
    start(stack, &Service::OURS)
}

/// Tables, topics, schemas and the first Owner.
pub fn migrate(stack: &Stack) -> Result<()> {
    run(stack, "migrate", stack.job("ingest-api", Job::Migrate).arg("migrate"))?;
    run(stack, "migrate-clickhouse", stack.job("sinks", Job::MigrateClickHouse).arg("migrate"))?;
    make_owner(stack)
}

fn rebuilt_since_start(stack: &Stack) -> Result<Vec<Service>> {
    let mut stale = Vec::new();
    for it in stack.processes()? {
        let Some((binary, _)) = stack::role(it.service) else { continue };
        let path = stack.layout().bin.join(binary);
        let built = fs::metadata(&path)
            .and_then(|file| file.modified())
            .with_context(|| format!("{} is missing", path.display()))?;
        let built = built.duration_since(UNIX_EPOCH).unwrap_or_default();
        if it.process.is_some() && it.since.is_some_and(|since| built > Duration::from_millis(since)) {
            stale.push(it.service);
        }
    }
    Ok(stale)
}

/// Runs a one-shot job, its output in a log of its own; returns its standard output.
pub fn run(stack: &Stack, name: &str, command: &mut Command) -> Result<String> {
    let begun = Instant::now();
    let log = stack.layout().service(name)?.join("log");
    let errors = fs::File::create(&log)?;
    let done = command.stdin(Stdio::null()).stderr(errors).output().with_context(|| format!("starting {name}"))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        let last = last.into_iter().rev().map(|line| format!("  | {line}\n")).collect::<String>();
        bail!("{name} failed ({}):\n{}{last}\n(all of it: {})", done.status, stack::tail(&log, 5), log.display());
    }
    eprintln!("  {name:<15} done   ({:.1} s)", begun.elapsed().as_secs_f64());
    Ok(said)
}

#[derive(Deserialize)]
struct MadeOwner {
    login: String,
    password: String,
}

/// The first Owner, made once; its password is printed by the platform once and kept in the run folder.
fn make_owner(stack: &Stack) -> Result<()> {
    let mut endpoints = stack.endpoints()?;
    if !endpoints.owner.login.is_empty() {
        return Ok(());
    }
    let mut command = stack.job("ingest-api", Job::CreateOwner);
    let said = run(stack, "create-owner", command.args(["create-owner", "--login", "owner", "--json"]))
        .context("the database has an Owner whose password this checkout does not know; ./dev reset starts afresh")?;
    endpoints.owner = owner_of(&said)?;
    endpoints.write(&stack::endpoints_file(stack.layout()))
}

/// Owners have a second factor: the first log-in sets it up, and this checkout keeps its secret.
fn enrol_owner(endpoints: &Endpoints) -> Result<()> {
    let owner = demo::owner(endpoints)?;
    tokio::runtime::Runtime::new()?.block_on(owner.token()).map(drop).context("logging the Owner in")
}

/// What `create-owner --json` prints.
pub fn owner_of(said: &str) -> Result<Credentials> {
    let made: MadeOwner = serde_json::from_str(said.trim()).context("create-owner printed no login and password")?;
    Ok(Credentials { login: made.login, password: made.password, totp_secret: String::new() })
}

/// What `ingest-api worker verify` printed; None when it could not look.
fn verified() -> Option<String> {
    let stack = Stack::attach().ok()?;
    eprintln!("  comparing Postgres, topics, state, Redis and ClickHouse");
    let done = stack.job("ingest-api", Job::Verify).args(["worker", "verify"]).output().ok()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    (!said.trim().is_empty()).then_some(said)
}

fn sell(endpoints: &Endpoints, options: &Options) -> Result<()> {
    let known = State::find(&endpoints.run_dir)?;
    let standard = demo::Options::default();
    let wanted = demo::Options {
        sales: options.sales.unwrap_or(if known.as_ref().is_some_and(|it| !it.spans.is_empty()) {
            0
        } else {
            standard.sales
        }),
        journal: None,
        patience: standard.patience,
        rate: options.rate,
        locations: options.locations.or(known.as_ref().map(|it| it.locations)).unwrap_or(standard.locations),
        variants: known.as_ref().map_or(standard.variants, |it| it.variants),
        seed: options.seed.or(known.as_ref().map(|it| it.seed)).unwrap_or(standard.seed),
        from: options.from,
    };
    ensure!(
        wanted.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()),
        "--rate is a number of sales a second above 0"
    );
    if known.is_some_and(|it| it.is_complete) && wanted.sales == 0 {
        State::find_or_start(&endpoints.run_dir, &wanted)?;
        eprintln!("The data of last time is there; nothing is sold. To sell more: ./dev up --sales 1000");
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(demo::run(endpoints, &wanted))?;
    let verified = if options.external.is_none() { verified() } else { None };
    let page =
        runtime.block_on(demo::page::page(endpoints, &report, verified.as_deref(), options.external.as_deref()))?;
    print!("{}", if takes_colours() { page } else { demo::page::plain(&page) });
    let unexpected = report.counts.unexpected;
    ensure!(unexpected == 0, "{unexpected} sales were not answered as they had to be; see ./dev logs api");
    Ok(())
}

/// Whether standard output is a terminal whose reader has not declined colours (no-color.org).
#[expect(clippy::disallowed_methods, reason = "a wish of the reader, no configuration")]
fn takes_colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
