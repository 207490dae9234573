//! The stack: real servers and the platform's own processes, started natively, one set per checkout.
//!
//! A detached supervisor (`supervisor.rs`) owns the children and obeys a Unix socket; [`Stack`] is the handle others
//! use: `./dev`, tests, fault runs. All of it is blocking and quick, except the two `wait_*` calls.

pub mod clickhouse;
pub mod clickhouse_host;
#[cfg(test)]
mod compose_tests;
pub mod control;
mod http;
mod jvm;
mod kafka;
pub mod layout;
mod ports;
mod postgres;
pub mod process;
mod redis;
mod registry;
pub mod supervisor;
mod vorca;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use control::{Phase, Request, Service, ServiceStatus, Status};
pub use layout::{Identity, Layout};
pub use nix::sys::signal::Signal;
pub use postgres::{programs as postgres_programs, superuser_url};
pub use vorca::{Job, role};

use crate::endpoints::Endpoints;

/// Longest a service may take from its start to ready.
pub const READY_LIMIT: Duration = Duration::from_secs(120);

/// No supervisor answers in this run folder.
#[derive(Debug)]
pub struct NotRunning;

impl std::fmt::Display for NotRunning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing runs for this checkout. Next: ./dev up (everything) or ./dev services (the servers only)")
    }
}

impl std::error::Error for NotRunning {}

/// A handle on one running supervisor.
#[derive(Debug, Clone)]
pub struct Stack {
    layout: Layout,
    identity: Identity,
}

impl Stack {
    /// The stack that already runs for this checkout (or in `VORCA_RUN_DIR`); an error says what to do when none does.
    pub fn attach() -> Result<Stack> {
        Self::attach_to(Layout::of_checkout()?)
    }

    pub fn attach_to(layout: Layout) -> Result<Stack> {
        control::call(&layout.socket(), &Request::Status).map_err(|_| NotRunning)?;
        let identity = layout.identity()?;
        Ok(Stack { layout, identity })
    }

    /// Attaches, starting a supervisor (with no service yet) where none runs. A throwaway one ends, and removes its
    /// folder, when this process ends in whatever way.
    pub fn launch(layout: Layout) -> Result<Stack> {
        if let Ok(stack) = Self::attach_to(layout.clone()) {
            return Ok(stack);
        }
        let log = supervisor_log(&layout)?;
        let mut command = Command::new(layout.bin.join("vorca-dev"));
        command.arg("supervise").arg("--run").arg(&layout.run);
        if layout.throwaway {
            command.args(["--throwaway-of", &std::process::id().to_string()]);
        }
        if layout.is_unlimited {
            command.arg("--unlimited");
        }
        command
            .env("VORCA_CHECKOUT", &layout.checkout)
            .env("VORCA_BIN_DIR", &layout.bin)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        detach(&mut command);
        let mut child =
            command.spawn().with_context(|| format!("starting {}", layout.bin.join("vorca-dev").display()))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(stack) = Self::attach_to(layout.clone()) {
                return Ok(stack);
            }
            if let Some(status) = child.try_wait()? {
                let said = tail(&layout.log("supervisor"), 5);
                bail!("the supervisor ended at once ({status}); its last lines:\n{said}");
            }
            if Instant::now() > deadline {
                bail!("the supervisor does not answer; see {}", layout.log("supervisor").display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn status(&self) -> Result<Status> {
        control::call(&self.layout.socket(), &Request::Status)
    }

    /// What runs or should run, with pids, restarts and crashes.
    pub fn processes(&self) -> Result<Vec<ServiceStatus>> {
        Ok(self.status()?.services)
    }

    /// Wants these to run; returns at once (see [`Stack::wait_ready`]).
    pub fn start(&self, services: &[Service]) -> Result<()> {
        self.call(Request::Start { services: services.to_vec() })
    }

    /// Wants these to be stopped, in the right order; returns at once (see [`Stack::wait_stopped`]).
    pub fn stop(&self, services: &[Service]) -> Result<()> {
        self.call(Request::Stop { services: services.to_vec() })
    }

    /// Stops in an orderly way, waits, and starts again.
    pub fn restart(&self, services: &[Service]) -> Result<()> {
        self.stop(services)?;
        self.wait_stopped(services)?;
        self.start(services)
    }

    /// Sends a signal to every process of a service. What dies of it is started again after a moment (a killed service
    /// is still wanted) and is not counted as a crash.
    pub fn kill(&self, service: Service, signal: Signal) -> Result<()> {
        self.call(Request::Kill { service, signal: signal.as_str().to_owned() })
    }

    /// Blocks until all are ready. Fails early when one keeps ending, with the last lines it printed.
    pub fn wait_ready(&self, services: &[Service]) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT * 2;
        loop {
            let status = self.status()?;
            let mut waiting =
                status.services.iter().filter(|it| services.contains(&it.service) && it.phase != Phase::Ready);
            if let Some(failed) = waiting.clone().find(|it| it.failures >= 3 || Instant::now() > deadline) {
                let why = failed.last_exit.as_deref().unwrap_or("not ready in time");
                let log = self.layout.log(failed.service.name());
                bail!(
                    "{} does not become ready: {why}\n{}\n(all of it: {})",
                    failed.service,
                    tail(&log, 8),
                    log.display()
                );
            }
            if waiting.next().is_none() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Blocks until all are stopped.
    pub fn wait_stopped(&self, services: &[Service]) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.processes()?.iter().any(|it| services.contains(&it.service) && it.phase != Phase::Stopped) {
            if Instant::now() > deadline {
                bail!("a service does not stop; see {}", self.layout.log("supervisor").display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Stops everything in order and ends the supervisor; returns once it is gone.
    pub fn shutdown(&self) -> Result<()> {
        let supervisor = self.status()?.supervisor;
        self.call(Request::Shutdown)?;
        let deadline = Instant::now() + Duration::from_secs(180);
        while supervisor.is_alive() {
            if Instant::now() > deadline {
                bail!("the supervisor does not end; see {}", self.layout.log("supervisor").display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Addresses and credentials, as written to `endpoints.json` in the run folder.
    pub fn endpoints(&self) -> Result<Endpoints> {
        Endpoints::read(&endpoints_file(&self.layout))
    }

    /// The whole `VORCA__` environment of a role.
    pub fn env_for(&self, service: Service) -> BTreeMap<String, String> {
        vorca::env_for(&self.layout, &self.identity, service)
    }

    /// A one-shot job of a platform binary, with its environment; the caller adds arguments and runs it.
    pub fn job(&self, binary: &str, job: Job) -> Command {
        vorca::binary(&self.layout, binary, vorca::env_for_job(&self.layout, &self.identity, job))
    }

    /// What tests and tools get as environment: every address and password of this stack.
    pub fn exports(&self) -> Vec<(&'static str, String)> {
        let id = &self.identity;
        vec![
            ("DATABASE_URL", postgres::superuser_url(id)),
            ("VORCA__POSTGRES__URL", postgres::vorca_url(id)),
            ("VORCA__KAFKA__BROKERS", kafka::brokers(id)),
            ("VORCA__REGISTRY__URL", registry::url(id)),
            ("VORCA__REDIS__URL", redis::url(id)),
            ("VORCA__CLICKHOUSE__URL", clickhouse::url(id)),
            ("VORCA_CLICKHOUSE_TCP_PORT", id.port("clickhouse-tcp").to_string()),
            ("VORCA_CLICKHOUSE_MIGRATE_PASSWORD", id.password("clickhouse-migrate").to_owned()),
            ("VORCA_CLICKHOUSE_SINK_PASSWORD", id.password("clickhouse-sink").to_owned()),
            ("VORCA_CLICKHOUSE_API_PASSWORD", id.password("clickhouse-api").to_owned()),
            ("VORCA_CLICKHOUSE_ANALYST_PASSWORD", id.password("clickhouse-analyst").to_owned()),
            ("VORCA_AUDIT_PUBLIC_KEYS", vorca::audit_public_key(&self.layout)),
            (crate::endpoints::ENDPOINTS_VARIABLE, endpoints_file(&self.layout).display().to_string()),
            ("VORCA_RUN_DIR", self.layout.run.display().to_string()),
            ("VORCA_TEST_RUN_DIR", self.layout.run.display().to_string()),
            ("VORCA_BIN_DIR", self.layout.bin.display().to_string()),
        ]
    }

    fn call(&self, request: Request) -> Result<()> {
        control::call(&self.layout.socket(), &request).map(drop)
    }
}

/// Written by the supervisor at its start; `up` adds the first Owner.
pub fn endpoints_file(layout: &Layout) -> PathBuf {
    layout.run.join("endpoints.json")
}

fn endpoints_of(layout: &Layout, id: &Identity) -> Endpoints {
    let admin = Service::OURS.iter().filter_map(|service| {
        let (_, role) = vorca::role(*service)?;
        let name =
            if *service == Service::ClickHouseSink || *service == Service::ViewSink { service.name() } else { role };
        Some((name.to_owned(), format!("http://127.0.0.1:{}", vorca::admin_port(id, *service))))
    });
    let known = Endpoints::read(&endpoints_file(layout)).ok();
    Endpoints {
        api: format!("http://127.0.0.1:{}", id.port("http")),
        postgres: postgres::vorca_url(id),
        kafka: kafka::brokers(id),
        registry: registry::url(id),
        redis: redis::url(id),
        clickhouse: clickhouse::url(id),
        clickhouse_native: Some(format!("127.0.0.1:{}", id.port("clickhouse-tcp"))),
        analyst: crate::endpoints::Credentials {
            login: "analyst_ro".to_owned(),
            password: id.password("clickhouse-analyst").to_owned(),
            totp_secret: String::new(),
        },
        admin: admin.collect(),
        bin_dir: layout.bin.clone(),
        run_dir: layout.run.clone(),
        owner: known.map(|it| it.owner).unwrap_or_default(),
    }
}

fn supervisor_log(layout: &Layout) -> Result<fs::File> {
    layout.service("supervisor")?;
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.log("supervisor"))
        .context("opening the supervisor's log")
}

/// A session of its own: the supervisor survives the shell and hears no Ctrl-C.
#[allow(unsafe_code)] // pre_exec is the only way to call setsid between fork and exec.
fn detach(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
}

/// The child is killed when the thread that starts it ends, however that ends.
#[allow(unsafe_code)] // pre_exec is the only way to act between fork and exec.
pub fn die_with_this_thread(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let before_exec = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above took effect.
        if nix::unistd::getppid() != parent {
            return Err(std::io::Error::from(nix::errno::Errno::ESRCH));
        }
        Ok(())
    };
    // SAFETY: prctl and getppid are async-signal-safe; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(before_exec);
    }
}

/// Will a stop also write the start-up caches of the JVMs, as the first one on a machine does?
pub fn records_caches(layout: &Layout) -> bool {
    jvm::is_recorded_at_stop(layout)
}

/// Every process of the stack's Postgres: the server and its backends.
pub fn postgres_processes(layout: &Layout) -> Vec<process::Identified> {
    process::working_in(&postgres::data(layout))
}

/// Resident memory in bytes of a running process.
pub fn resident(process: process::Identified) -> Option<u64> {
    process.is_alive().then(|| process::resident(process.pid)).flatten()
}

/// The last lines of a log, indented; empty when there is none.
pub fn tail(path: &std::path::Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
