//! The detached process that owns a stack: starts, watches, restarts and stops its children.
//!
//! One thread, the first, does all of it in a loop of ticks: the kernel ties the children's death signal to the *thread*
//! that started them. Helpers only bring requests and signals, and prepare folders.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};

use super::control::{Answer, Phase, Request, Service, ServiceStatus, Status};
use super::layout::{Identity, Layout};
use super::process::{self, Identified};
use super::{READY_LIMIT, clickhouse, kafka, postgres, redis, registry, vorca};
use crate::endpoints::write_private;

const TICK: Duration = Duration::from_millis(50);
/// A service that was ready for this long has no history of failures any more.
const STEADY: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
const LARGE_LOG: u64 = 64 << 20;

enum Event {
    Asked(Request, Sender<Answer>),
    Signalled,
}

enum State {
    Stopped,
    /// Waits for what it needs, then prepares.
    Waiting,
    Preparing(JoinHandle<Result<()>>),
    Running(Running),
    Backoff(Instant),
}

struct Running {
    child: Child,
    identified: Identified,
    since: Instant,
    since_unix_ms: u64,
    log_from: u64,
    ready: bool,
    /// ClickHouse ends when this closes.
    terminal: Option<OwnedFd>,
    stop_sent: Option<Instant>,
    kill_asked: bool,
}

struct Supervised {
    service: Service,
    wanted: bool,
    state: State,
    restarts: u32,
    crashes: u32,
    failures: u32,
    last_exit: Option<String>,
}

pub struct Supervisor {
    layout: Layout,
    identity: Identity,
    services: Vec<Supervised>,
    own: Identified,
    written: String,
    ending: bool,
    _lock: Flock<fs::File>,
}

fn note(text: &str) {
    eprintln!("{} {text}", chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ"));
}

/// Runs until it is told to end (socket or SIGTERM), or until `owner` is gone.
pub fn run(layout: Layout, owner: Option<i32>) -> Result<()> {
    let owner = match owner {
        Some(pid) => Some(Identified::of(pid).context("the process this stack belongs to has ended")?),
        None => None,
    };
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    // Blocked here, before any thread exists, so that only the waiting thread below receives them.
    signals.thread_block()?;
    let mut supervisor = Supervisor::new(layout)?;
    let socket = supervisor.layout.socket();
    fs::remove_file(&socket).ok();
    let listener = UnixListener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
    let (events, inbox) = channel();
    let asked = events.clone();
    std::thread::spawn(move || listen(&listener, &asked));
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            if events.send(Event::Signalled).is_err() {
                return;
            }
        }
    });
    note("supervisor started");
    supervisor.obey(&inbox, owner);
    fs::remove_file(&socket).ok();
    if supervisor.layout.throwaway {
        fs::remove_dir_all(&supervisor.layout.run).context("removing the run folder")?;
    } else {
        fs::remove_file(supervisor.layout.state_file()).ok();
    }
    note("supervisor ended");
    Ok(())
}

fn listen(listener: &UnixListener, events: &Sender<Event>) {
    for stream in listener.incoming().flatten() {
        let events = events.clone();
        std::thread::spawn(move || {
            // A client that went away, or sent nonsense, concerns nobody else.
            if let Err(error) = converse(stream, &events) {
                note(&format!("control connection: {error:#}"));
            }
        });
    }
}

fn converse(mut stream: UnixStream, events: &Sender<Event>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Err(error) => Answer::Refused(format!("not a request: {error}")),
        Ok(request) => {
            let (reply, answered) = channel();
            events.send(Event::Asked(request, reply)).ok().context("the supervisor is ending")?;
            answered.recv_timeout(Duration::from_secs(20))?
        }
    };
    Ok(stream.write_all(format!("{}\n", serde_json::to_string(&answer)?).as_bytes())?)
}

impl Supervisor {
    fn new(layout: Layout) -> Result<Supervisor> {
        layout.service("supervisor")?;
        let lock =
            fs::OpenOptions::new().create(true).write(true).truncate(false).open(layout.run.join("supervisor.lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, error)| anyhow!("another supervisor already runs here ({error})"))?;
        end_leftovers(&layout);
        let identity = layout.settle_identity()?;
        vorca::make_signing_key(&layout)?;
        super::endpoints_of(&layout, &identity).write(&super::endpoints_file(&layout))?;
        let services = Service::all().map(Supervised::new).collect();
        let own = Identified::of(std::process::id() as i32).context("own start time")?;
        Ok(Supervisor { layout, identity, services, own, written: String::new(), ending: false, _lock: lock })
    }

    fn obey(&mut self, inbox: &Receiver<Event>, owner: Option<Identified>) {
        loop {
            match inbox.recv_timeout(TICK) {
                Ok(Event::Asked(request, reply)) => {
                    let answer = match self.act(request) {
                        Ok(()) => Answer::Done(self.status()),
                        Err(error) => Answer::Refused(format!("{error:#}")),
                    };
                    reply.send(answer).ok();
                }
                Ok(Event::Signalled) => self.end(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.end(),
            }
            if owner.is_some_and(|owner| !owner.is_alive()) && !self.ending {
                note("the process this stack belongs to has ended");
                self.end();
            }
            for index in 0..self.services.len() {
                self.tick(index);
            }
            self.write_state();
            if self.ending && self.services.iter().all(|it| matches!(it.state, State::Stopped)) {
                return;
            }
        }
    }

    fn end(&mut self) {
        if !self.ending {
            note("ending");
        }
        self.ending = true;
        self.services.iter_mut().for_each(|it| it.wanted = false);
    }

    fn act(&mut self, request: Request) -> Result<()> {
        match request {
            Request::Status => {}
            Request::Shutdown => self.end(),
            Request::Start { services } => {
                anyhow::ensure!(!self.ending, "it is ending");
                for it in self.services.iter_mut().filter(|it| services.contains(&it.service)) {
                    it.wanted = true;
                    it.failures = 0;
                    if matches!(it.state, State::Stopped) {
                        it.state = State::Waiting;
                    }
                }
            }
            Request::Stop { services } => {
                for it in self.services.iter_mut().filter(|it| services.contains(&it.service)) {
                    it.wanted = false;
                }
            }
            Request::Kill { service, signal } => self.kill(service, &signal)?,
        }
        Ok(())
    }

    fn kill(&mut self, service: Service, signal: &str) -> Result<()> {
        let signal = Signal::from_str(signal).map_err(|_| anyhow!("no signal is called {signal}"))?;
        let data = postgres::data(&self.layout);
        let it = self.services.iter_mut().find(|it| it.service == service).context("unknown service")?;
        let State::Running(running) = &mut it.state else { anyhow::bail!("{service} does not run") };
        running.kill_asked |= !matches!(signal, Signal::SIGSTOP | Signal::SIGCONT);
        // Postgres' own children leave its process group.
        let family = if service == Service::Postgres { process::working_in(&data) } else { Vec::new() };
        running.identified.signal(signal);
        family.iter().filter(|it| it.pid != running.identified.pid).for_each(|it| it.signal(signal));
        note(&format!("{service}: {signal} as asked"));
        Ok(())
    }

    fn status(&self) -> Status {
        Status { supervisor: self.own, services: self.services.iter().map(Supervised::status).collect() }
    }

    /// Read by the next supervisor should this one be killed.
    fn write_state(&mut self) {
        let Ok(text) = serde_json::to_string_pretty(&self.status()) else { return };
        if text != self.written {
            match write_private(&self.layout.state_file(), text.as_bytes()) {
                Ok(()) => self.written = text,
                Err(error) => note(&format!("writing the state file: {error:#}")),
            }
        }
    }

    fn is_ready(&self, service: Service) -> bool {
        self.services.iter().any(|it| it.service == service && it.phase() == Phase::Ready)
    }

    /// The registry ends at once without its database; everything else copes with what it needs being away.
    fn may_start(&self, service: Service) -> bool {
        service != Service::Registry || self.is_ready(Service::Postgres)
    }

    /// What uses another goes first: not before everything of a higher rank that is to stop has stopped.
    fn may_stop(&self, service: Service) -> bool {
        let above = |it: &&Supervised| it.service.rank() > service.rank() && !it.wanted;
        self.services.iter().filter(above).all(|it| matches!(it.state, State::Stopped))
    }

    fn tick(&mut self, index: usize) {
        let service = self.services[index].service;
        let state = std::mem::replace(&mut self.services[index].state, State::Stopped);
        let wanted = self.services[index].wanted;
        self.services[index].state = match state {
            State::Stopped if wanted => State::Waiting,
            State::Stopped => State::Stopped,
            State::Waiting | State::Backoff(_) if !wanted => State::Stopped,
            State::Backoff(until) if Instant::now() < until => State::Backoff(until),
            State::Waiting | State::Backoff(_) if !self.may_start(service) => State::Waiting,
            State::Waiting | State::Backoff(_) => self.prepare(service),
            State::Preparing(thread) if !thread.is_finished() => State::Preparing(thread),
            State::Preparing(thread) => {
                let prepared = thread.join().unwrap_or_else(|_| Err(anyhow!("preparing panicked")));
                match prepared {
                    Ok(()) if !wanted => State::Stopped,
                    Ok(()) => self.spawn(index),
                    Err(error) => self.failed(index, &error),
                }
            }
            State::Running(running) => self.watch(index, running),
        };
    }

    fn prepare(&self, service: Service) -> State {
        let (layout, identity) = (self.layout.clone(), self.identity.clone());
        State::Preparing(std::thread::spawn(move || match service {
            Service::Postgres => postgres::prepare(&layout, &identity),
            Service::Redis => redis::prepare(&layout, &identity),
            Service::Clickhouse => clickhouse::prepare(&layout, &identity),
            Service::Kafka => kafka::prepare(&layout, &identity),
            Service::Registry => registry::prepare(&layout),
            ours => vorca::prepare(&layout, ours),
        }))
    }

    fn failed(&mut self, index: usize, error: &anyhow::Error) -> State {
        let it = &mut self.services[index];
        it.failures += 1;
        it.last_exit = Some(format!("{error:#}"));
        note(&format!("{}: {error:#}", it.service));
        State::Backoff(Instant::now() + backoff(it.failures))
    }

    fn spawn(&mut self, index: usize) -> State {
        match self.spawn_child(self.services[index].service) {
            Ok(running) => {
                note(&format!("{}: started, pid {}", self.services[index].service, running.identified.pid));
                State::Running(running)
            }
            Err(error) => self.failed(index, &error),
        }
    }

    fn spawn_child(&self, service: Service) -> Result<Running> {
        let (layout, identity) = (&self.layout, &self.identity);
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

    fn watch(&mut self, index: usize, mut running: Running) -> State {
        let (service, wanted) = (self.services[index].service, self.services[index].wanted);
        if let Ok(Some(exit)) = running.child.try_wait() {
            return self.ended(index, &running, exit);
        }
        if !wanted && self.may_stop(service) {
            self.stop_child(service, &mut running);
        } else if !running.ready {
            running.ready = match service {
                Service::Postgres => postgres::is_ready(&self.identity),
                Service::Redis => redis::is_ready(&self.identity),
                Service::Kafka => kafka::is_ready(&self.layout, running.log_from),
                Service::Registry => registry::is_ready(&self.identity),
                Service::Clickhouse => clickhouse::is_ready(&self.identity),
                ours => vorca::is_ready(&self.identity, ours),
            };
            if running.ready {
                note(&format!("{service}: ready after {:.1} s", running.since.elapsed().as_secs_f64()));
                self.services[index].failures = 0;
            } else if running.since.elapsed() > READY_LIMIT && self.services[index].failures == 0 {
                // It may still come; whoever waits for it is told.
                self.services[index].failures = 3;
                self.services[index].last_exit = Some(format!("not ready after {} s", READY_LIMIT.as_secs()));
            }
        }
        State::Running(running)
    }

    fn ended(&mut self, index: usize, running: &Running, exit: std::process::ExitStatus) -> State {
        let how = match exit.signal() {
            Some(signal) => Signal::try_from(signal).map_or(format!("signal {signal}"), |it| it.as_str().to_owned()),
            None => format!("exit code {}", exit.code().unwrap_or(-1)),
        };
        let it = &mut self.services[index];
        note(&format!("{}: ended, {how}", it.service));
        if running.stop_sent.is_some() || !it.wanted {
            let home = match it.service {
                Service::Kafka => Some(&self.layout.kafka_home),
                Service::Registry => Some(&self.layout.registry_home),
                _ => None,
            };
            if let Some(home) = home.filter(|_| running.ready) {
                super::jvm::keep_recording(&self.layout, home);
            }
            return if it.wanted { State::Waiting } else { State::Stopped };
        }
        it.last_exit = Some(how);
        it.restarts += 1;
        it.crashes += u32::from(!running.kill_asked);
        it.failures =
            if running.ready && (running.kill_asked || running.since.elapsed() > STEADY) { 0 } else { it.failures + 1 };
        State::Backoff(Instant::now() + backoff(it.failures))
    }

    fn stop_child(&self, service: Service, running: &mut Running) {
        let patience = Duration::from_secs(match service {
            Service::Kafka | Service::Registry => 60,
            _ => 30,
        });
        match running.stop_sent {
            None => {
                running.stop_sent = Some(Instant::now());
                match service {
                    // Fast: ends sessions, writes a checkpoint.
                    Service::Postgres => running.identified.signal(Signal::SIGINT),
                    Service::Clickhouse => running.terminal = None,
                    _ => running.identified.signal(Signal::SIGTERM),
                }
                // One that was frozen hears nothing until it goes on.
                running.identified.signal(Signal::SIGCONT);
            }
            Some(sent) if sent.elapsed() > patience => {
                note(&format!("{service}: does not stop, killed"));
                running.identified.signal(Signal::SIGKILL);
            }
            Some(_) => {}
        }
    }
}

impl Supervised {
    fn new(service: Service) -> Supervised {
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

    fn phase(&self) -> Phase {
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

    fn status(&self) -> ServiceStatus {
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
}

fn backoff(failures: u32) -> Duration {
    (Duration::from_millis(200) * 2u32.saturating_pow(failures.min(8))).min(LONGEST_BACKOFF)
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

/// Children of a supervisor that was killed: found by pid and start time, ended before anything new starts.
pub fn end_leftovers(layout: &Layout) {
    let Ok(text) = fs::read(layout.state_file()) else { return };
    let Ok(state) = serde_json::from_slice::<Status>(&text) else { return };
    let mut left: Vec<_> =
        state.services.iter().filter_map(|it| it.process.map(|process| (it.service, process))).collect();
    left.sort_by_key(|(service, _)| std::cmp::Reverse(service.rank()));
    for (service, process) in left.into_iter().filter(|(_, process)| process.is_alive()) {
        note(&format!("{service}: pid {} of a killed supervisor still runs, ending it", process.pid));
        process.end(Duration::from_secs(10));
    }
}
