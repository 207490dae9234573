//! `vorca-dev`: what `./dev` hands over to once the machine is set up.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::launcher;
use e2e::stack::{Layout, NotRunning, Service, clickhouse_host, supervisor};

/// Vorca POS on this machine: real servers, the platform, a demonstration business.
#[derive(Parser)]
#[command(name = "./dev", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything, make a demonstration business through the API and sell in it
    Up(launcher::up::Options),
    /// Run every test against a stack of its own that leaves nothing behind
    Test(launcher::test::Options),
    /// Prove that Postgres, topics, state, Redis and ClickHouse agree
    Verify(launcher::verify::Options),
    /// Start Postgres, Redis, Kafka, the schema registry and ClickHouse; print where they listen
    Services,
    /// Print the addresses and passwords of this checkout as shell exports: eval "$(./dev env)"
    Env,
    /// What runs, since when, with how much memory
    Status,
    /// The last lines of a service's log, or of every one
    Logs {
        service: Option<Service>,
        /// Lines of each log
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: usize,
        /// Keep printing what is added (one service)
        #[arg(short, long, requires = "service")]
        follow: bool,
    },
    /// Stop everything of this checkout; the data stays
    Down,
    /// Stop everything and delete this checkout's data; downloads stay
    Reset,
    /// The detached process that owns a stack
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        run: PathBuf,
        /// End, and delete the folder, together with this process
        #[arg(long)]
        throwaway_of: Option<i32>,
    },
    /// The process around ClickHouse's engine
    #[command(hide = true)]
    ClickhouseHost {
        library: PathBuf,
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => launcher::up::up(&options)?,
        Command::Test(options) => return launcher::test::test(&options),
        Command::Verify(options) => return launcher::verify::verify(&options),
        Command::Services => launcher::services()?,
        Command::Env => launcher::env()?,
        Command::Status => return launcher::status(),
        Command::Logs { service, lines, follow } => launcher::logs(service, lines, follow)?,
        Command::Down => launcher::down()?,
        Command::Reset => launcher::reset()?,
        Command::Supervise { run, throwaway_of } => {
            supervisor::run(Layout::of_run(run, throwaway_of.is_some())?, throwaway_of)?;
        }
        Command::ClickhouseHost { library, arguments } => {
            let code = clickhouse_host::run(&library, &arguments)?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit codes of `sysexits.h`: 64 wrong usage, 69 something needed is not there, 70 anything else.
fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help and version are answers, not mistakes.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nStopped: {error:#}");
            ExitCode::from(if error.is::<NotRunning>() { 69 } else { 70 })
        }
    }
}
