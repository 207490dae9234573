//! One service under supervision: its state, its history, and what follows when it fails or ends.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::child::Running;
use super::note;
use crate::stack::control::{Phase, Service, ServiceStatus};
use crate::stack::jvm;
use crate::stack::layout::Layout;

/// A service that was ready for this long has no history of failures any more.
const STEADY: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Where a service stands.
pub(super) enum State {
    Stopped,
    /// Waits for what it needs, then prepares.
    Waiting,
    Preparing(JoinHandle<Result<()>>),
    Running(Running),
    Backoff(Instant),
}

/// A service under supervision: what is wanted of it, where it stands, and its history.
pub(super) struct Supervised {
    pub(super) service: Service,
    pub(super) wanted: bool,
    pub(super) state: State,
    restarts: u32,
    crashes: u32,
    pub(super) failures: u32,
    pub(super) last_exit: Option<String>,
}

impl Supervised {
    pub(super) fn new(service: Service) -> Supervised {
        Supervised {
            service,
            wanted: false,
            state: State::Stopped,
            restarts: 0,
            crashes: 0,
            failures: 0,
            last_exit: None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.state {
            State::Stopped => Phase::Stopped,
            State::Waiting | State::Preparing(_) => Phase::Preparing,
            State::Backoff(_) => Phase::Backoff,
            State::Running(_) if !self.wanted => Phase::Stopping,
            State::Running(running) if running.stop_sent.is_some() => Phase::Stopping,
            State::Running(running) if running.ready => Phase::Ready,
            State::Running(_) => Phase::Starting,
        }
    }

    pub(super) fn status(&self) -> ServiceStatus {
        let running = match &self.state {
            State::Running(running) => Some(running),
            _ => None,
        };
        ServiceStatus {
            service: self.service,
            phase: self.phase(),
            process: running.map(|it| it.identified),
            since: running.map(|it| it.since_unix_ms),
            restarts: self.restarts,
            crashes: self.crashes,
            failures: self.failures,
            last_exit: self.last_exit.clone(),
        }
    }

    /// It could not be prepared or started: again later.
    pub(super) fn failed(&mut self, error: &anyhow::Error) -> State {
        self.failures += 1;
        self.last_exit = Some(format!("{error:#}"));
        note(&format!("{}: {error:#}", self.service));
        State::Backoff(Instant::now() + backoff(self.failures))
    }

    /// Its process has ended, asked or unasked.
    pub(super) fn ended(&mut self, layout: &Layout, running: &Running, exit: ExitStatus) -> State {
        let how = match exit.signal() {
            Some(signal) => Signal::try_from(signal).map_or(format!("signal {signal}"), |it| it.as_str().to_owned()),
            None => format!("exit code {}", exit.code().unwrap_or(-1)),
        };
        note(&format!("{}: ended, {how}", self.service));
        if running.stop_sent.is_some() || !self.wanted {
            let home = match self.service {
                Service::Kafka => Some(&layout.kafka_home),
                Service::Registry => Some(&layout.registry_home),
                _ => None,
            };
            if let Some(home) = home.filter(|_| running.ready) {
                jvm::keep_recording(layout, home);
            }
            return if self.wanted { State::Waiting } else { State::Stopped };
        }
        self.last_exit = Some(how);
        self.restarts += 1;
        self.crashes += u32::from(!running.kill_asked);
        self.failures = if running.ready && (running.kill_asked || running.since.elapsed() > STEADY) {
            0
        } else {
            self.failures + 1
        };
        State::Backoff(Instant::now() + backoff(self.failures))
    }
}

fn backoff(failures: u32) -> Duration {
    (Duration::from_millis(200) * 2u32.saturating_pow(failures.min(8))).min(LONGEST_BACKOFF)
}
