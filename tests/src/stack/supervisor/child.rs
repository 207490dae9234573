//! A child of the supervisor: started into its own group, tied to the thread that started it, asked whether it is ready,
//! and stopped the way its service wants.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use super::note;
use crate::stack::control::Service;
use crate::stack::layout::{Identity, Layout};
use crate::stack::process::{self, Identified};
use crate::stack::{clickhouse, kafka, postgres, redis, registry, vorca};

const LARGE_LOG: u64 = 64 << 20;

/// A service's process and what is known of it.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) identified: Identified,
    pub(super) since: Instant,
    pub(super) since_unix_ms: u64,
    log_from: u64,
    pub(super) ready: bool,
    /// ClickHouse ends when this closes.
    terminal: Option<OwnedFd>,
    pub(super) stop_sent: Option<Instant>,
    pub(super) kill_asked: bool,
}

/// Makes what a service needs before its start, in a thread of its own: it may take long.
pub(super) fn prepare(layout: &Layout, identity: &Identity, service: Service) -> JoinHandle<Result<()>> {
    let (layout, identity) = (layout.clone(), identity.clone());
    std::thread::spawn(move || match service {
        Service::Postgres => postgres::prepare(&layout, &identity),
        Service::Redis => redis::prepare(&layout, &identity),
        Service::Clickhouse => clickhouse::prepare(&layout, &identity),
        Service::Kafka => kafka::prepare(&layout, &identity),
        Service::Registry => registry::prepare(&layout),
        ours => vorca::prepare(&layout, ours),
    })
}

impl Running {
    /// Starts a service, its output going to its log. The process dies with the calling thread.
    pub(super) fn start(layout: &Layout, identity: &Identity, service: Service) -> Result<Running> {
        let mut terminal = None;
        let mut command = match service {
            Service::Postgres => postgres::command(layout, identity)?,
            Service::Redis => redis::command(layout)?,
            Service::Kafka => kafka::command(layout)?,
            Service::Registry => registry::command(layout, identity)?,
            Service::Clickhouse => clickhouse::command(layout, identity)?,
            ours => vorca::command(layout, identity, ours)?,
        };
        command.stdin(Stdio::null());
        if service == Service::Clickhouse {
            let (master, slave) = clickhouse::terminal()?;
            command.stdin(Stdio::from(slave));
            terminal = Some(master);
        }
        let path = layout.log(service.name());
        if fs::metadata(&path).is_ok_and(|log| log.len() > LARGE_LOG) {
            fs::rename(&path, path.with_extension("1"))?;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        let log_from = log.metadata()?.len();
        command.stdout(log.try_clone()?).stderr(log);
        tie_to_this_thread(&mut command, service);
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        let pid = child.id() as i32;
        let identified = Identified::of(pid).unwrap_or(Identified { pid, started: 0 });
        Ok(Running {
            child,
            identified,
            since: Instant::now(),
            since_unix_ms: u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0),
            log_from,
            ready: false,
            terminal,
            stop_sent: None,
            kill_asked: false,
        })
    }

    /// Whether the service answers by now; once it did, it counts as ready.
    pub(super) fn is_ready(&mut self, layout: &Layout, identity: &Identity, service: Service) -> bool {
        self.ready = self.ready
            || match service {
                Service::Postgres => postgres::is_ready(identity),
                Service::Redis => redis::is_ready(identity),
                Service::Kafka => kafka::is_ready(layout, self.log_from),
                Service::Registry => registry::is_ready(identity),
                Service::Clickhouse => clickhouse::is_ready(identity),
                ours => vorca::is_ready(identity, ours),
            };
        self.ready
    }

    /// Signals every process of the service: Postgres' own children leave its process group, and work in `data`.
    pub(super) fn signal_all(&self, service: Service, data: &Path, signal: Signal) {
        let family = if service == Service::Postgres { process::working_in(data) } else { Vec::new() };
        self.identified.signal(signal);
        family.iter().filter(|it| it.pid != self.identified.pid).for_each(|it| it.signal(signal));
    }

    /// Asks the process to stop as its service wants to be asked, and kills it when it has had its time.
    pub(super) fn stop(&mut self, service: Service) {
        let patience = Duration::from_secs(match service {
            Service::Kafka | Service::Registry => 60,
            _ => 30,
        });
        match self.stop_sent {
            None => {
                self.stop_sent = Some(Instant::now());
                match service {
                    // Fast: ends sessions, writes a checkpoint.
                    Service::Postgres => self.identified.signal(Signal::SIGINT),
                    Service::Clickhouse => self.terminal = None,
                    _ => self.identified.signal(Signal::SIGTERM),
                }
                // One that was frozen hears nothing until it goes on.
                self.identified.signal(Signal::SIGCONT);
            }
            Some(sent) if sent.elapsed() > patience => {
                note(&format!("{service}: does not stop, killed"));
                self.identified.signal(Signal::SIGKILL);
            }
            Some(_) => {}
        }
    }
}

/// A group (ClickHouse: a session) of its own, and death together with this thread.
#[allow(unsafe_code)] // pre_exec is the only way to act between fork and exec.
fn tie_to_this_thread(command: &mut Command, service: Service) {
    let signal = match service {
        Service::Postgres => Signal::SIGINT,
        Service::Kafka | Service::Registry | Service::Redis | Service::Clickhouse => Signal::SIGKILL,
        _ => Signal::SIGTERM,
    };
    let new_session = service == Service::Clickhouse;
    if !new_session {
        command.process_group(0);
    }
    let parent = nix::unistd::getpid();
    let before_exec = move || {
        if new_session {
            nix::unistd::setsid()?;
        }
        // Blocked in the supervisor and inherited otherwise: Redis would never hear its SIGTERM.
        SigSet::empty().thread_set_mask()?;
        nix::sys::prctl::set_pdeathsig(signal)?;
        // The parent may have died before the line above took effect.
        if nix::unistd::getppid() != parent {
            return Err(std::io::Error::from(nix::errno::Errno::ESRCH));
        }
        Ok(())
    };
    // SAFETY: setsid, sigmask, prctl and getppid are async-signal-safe; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(before_exec);
    }
}
