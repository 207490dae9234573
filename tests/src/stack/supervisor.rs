//! The detached process that owns a stack: starts, watches, restarts and stops its children.
//!
//! One thread, the first, does all of it in a loop of ticks: the kernel ties the children's death signal to the *thread*
//! that started them. Helpers only bring requests and signals, and prepare folders.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};

use self::child::Running;
use self::supervised::{State, Supervised};
use super::control::{Answer, Phase, Request, Service, Status};
use super::layout::{Identity, Layout};
use super::process::Identified;
use super::{READY_LIMIT, postgres, vorca};
use crate::endpoints::write_private;

mod child;
mod supervised;

const TICK: Duration = Duration::from_millis(50);

enum Event {
    Asked(Request, Sender<Answer>),
    Signalled,
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

/// Runs until it is told to end (socket or SIGTERM), or until `owner` is gone. Ends its children in order; those of a
/// throwaway stack at once.
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
        postgres::end_leftovers(&postgres::data(&supervisor.layout));
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
        vorca::make_keys(&layout)?;
        vorca::make_privacy_keys(&layout)?;
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
        running.signal_all(service, &data, signal);
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
            State::Waiting | State::Backoff(_) => {
                State::Preparing(child::prepare(&self.layout, &self.identity, service))
            }
            State::Preparing(thread) if !thread.is_finished() => State::Preparing(thread),
            State::Preparing(thread) => {
                let prepared = thread.join().unwrap_or_else(|_| Err(anyhow!("preparing panicked")));
                match prepared {
                    Ok(()) if !wanted => State::Stopped,
                    Ok(()) => self.spawn(index),
                    Err(error) => self.services[index].failed(&error),
                }
            }
            State::Running(running) => self.watch(index, running),
        };
    }

    fn spawn(&mut self, index: usize) -> State {
        match Running::start(&self.layout, &self.identity, self.services[index].service) {
            Ok(running) => {
                note(&format!("{}: started, pid {}", self.services[index].service, running.identified.pid));
                State::Running(running)
            }
            Err(error) => self.services[index].failed(&error),
        }
    }

    fn watch(&mut self, index: usize, mut running: Running) -> State {
        let (service, wanted) = (self.services[index].service, self.services[index].wanted);
        if let Ok(Some(exit)) = running.child.try_wait() {
            return self.services[index].ended(&self.layout, &running, exit);
        }
        if self.ending && self.layout.throwaway {
            // Nobody will ever read what an orderly end would write, such as the checkpoint of all test databases.
            running.stop_sent.get_or_insert_with(Instant::now);
            running.signal_all(service, &postgres::data(&self.layout), Signal::SIGKILL);
        } else if !wanted && self.may_stop(service) {
            running.stop(service);
        } else if !running.ready {
            if running.is_ready(&self.layout, &self.identity, service) {
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
