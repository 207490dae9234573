//! `vorca-dev`: what `./dev` hands over to once the machine is set up.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::launcher;
use e2e::stack::{Layout, NotRunning, Service, clickhouse_host, supervisor};
use e2e::tail;
use nix::sys::signal::{SigHandler, Signal, signal};

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
    /// Start Postgres, Redis, Kafka, the schema registry and ClickHouse; print where they listen
    Services,
    /// Print the addresses and passwords of this checkout as shell exports: eval "$(./dev env)"
    Env,
    /// What runs, since when, with how much memory
    Status,
    /// Print the code of the Owner's second factor
    Totp,
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
    /// Enrol a fresh terminal and print what sells with it: eval "$(./dev till)"
    Till {
        /// Name or external id of its location [default: the first]
        #[arg(long)]
        location: Option<String>,
    },
    /// Print the records of a topic as decoded JSON with key and headers
    Tail {
        /// A topic, or a part of its name that only one topic has, for instance `sales`
        topic: String,
        /// Everything the topic holds, not only what comes from now on
        #[arg(long)]
        from_beginning: bool,
        /// End after so many records
        #[arg(long)]
        limit: Option<u64>,
    },
    /// Sell a retailer's flat history (CSV, gzip or not) through the API; run again, it goes on where it stopped
    Replay {
        file: PathBuf,
        /// What the columns mean; maps/completejourney.toml is an example
        #[arg(long)]
        map: PathBuf,
        /// Only read the file and say what would be sold and refused
        #[arg(long)]
        check: bool,
    },
    /// Prove that Postgres, topics, state, Redis and ClickHouse agree; name what differs
    Verify(launcher::verify::Options),
    /// Kill, freeze and take away processes and servers while tills sell; then verify
    Chaos(launcher::faults::ChaosOptions),
    /// Try every row of the attack matrix, or make requests from the OpenAPI document, and show what came back
    Attack(launcher::attack::Options),
    /// Leave the traces of bugs and show that verify names each (spoils this checkout's data)
    Plant,
    /// Measure the release build beside named peers, on a platform of its own
    Bench(e2e::bench::Options),
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
        /// Nobody is refused for asking too often
        #[arg(long)]
        unlimited: bool,
    },
    /// What cargo starts in place of a test program
    #[command(hide = true)]
    NoteProgram {
        file: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
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
        Command::Services => launcher::services()?,
        Command::Env => launcher::env()?,
        Command::Status => return launcher::status(),
        Command::Totp => launcher::totp()?,
        Command::Logs { service, lines, follow } => launcher::logs(service, lines, follow)?,
        Command::Till { location } => launcher::tools::till(location.as_deref())?,
        Command::Tail { topic, from_beginning, limit } => {
            launcher::tools::tail(&tail::Options { topic, from_beginning, limit })?;
        }
        Command::Replay { file, map, check: true } => e2e::replay::check(&file, &map)?,
        Command::Replay { file, map, check: false } => return launcher::tools::replay(&file, &map),
        Command::Verify(options) => return launcher::verify::verify(&options),
        Command::Chaos(options) => return launcher::faults::chaos(&options),
        Command::Attack(options) => return launcher::attack::attack(&options),
        Command::Bench(options) => return e2e::bench::bench(&options),
        Command::Plant => return launcher::faults::plant(),
        Command::Down => launcher::down()?,
        Command::Reset => launcher::reset()?,
        Command::Supervise { run, throwaway_of, unlimited } => {
            let layout = Layout::of_run(run, throwaway_of.is_some())?;
            supervisor::run(if unlimited { layout.unlimited() } else { layout }, throwaway_of)?;
        }
        Command::NoteProgram { file, command } => launcher::test::programs::note(&file, command)?,
        Command::ClickhouseHost { library, arguments } => {
            let code = clickhouse_host::run(&library, &arguments)?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A reader that goes away (`./dev status | head`) ends a command, quietly, as it ends any other tool.
#[allow(unsafe_code)] // The only way to give a signal its default back.
fn end_with_the_reader() {
    // SAFETY: no handler is installed, only the default; nothing else has run in this process yet.
    let restored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    restored.expect("SIGPIPE has a default");
}

/// Whether the signal can only mean that nobody reads any more. What sells, attacks or serves writes to sockets whose other
/// end may go away, and has to live through that.
fn only_prints(command: &Command) -> bool {
    matches!(
        command,
        Command::Env
            | Command::Status
            | Command::Totp
            | Command::Logs { .. }
            | Command::Tail { .. }
            | Command::Verify(_)
    )
}

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help and version are answers, not mistakes.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    if only_prints(&command) {
        end_with_the_reader();
    }
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nStopped: {error:#}");
            ExitCode::from(if error.is::<NotRunning>() { 69 } else { 70 })
        }
    }
}
