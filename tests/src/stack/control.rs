//! What is said over the supervisor's socket: one line of JSON each way per connection.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::process::Identified;

/// Everything the supervisor can run, in the order of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    Postgres,
    Redis,
    Clickhouse,
    Kafka,
    Registry,
    Api,
    Relay,
    Worker,
    Stock,
    Loyalty,
    #[serde(rename = "clickhouse-sink")]
    ClickHouseSink,
    ViewSink,
}

impl Service {
    /// Other people's servers.
    pub const SERVERS: [Service; 5] =
        [Service::Postgres, Service::Redis, Service::Clickhouse, Service::Kafka, Service::Registry];
    /// The platform's own processes.
    pub const OURS: [Service; 7] = [
        Service::Api,
        Service::Relay,
        Service::Worker,
        Service::Stock,
        Service::Loyalty,
        Service::ClickHouseSink,
        Service::ViewSink,
    ];

    pub fn all() -> impl Iterator<Item = Service> {
        Self::SERVERS.into_iter().chain(Self::OURS)
    }

    pub fn name(self) -> &'static str {
        match self {
            Service::Postgres => "postgres",
            Service::Redis => "redis",
            Service::Clickhouse => "clickhouse",
            Service::Kafka => "kafka",
            Service::Registry => "registry",
            Service::Api => "api",
            Service::Relay => "relay",
            Service::Worker => "worker",
            Service::Stock => "stock",
            Service::Loyalty => "loyalty",
            Service::ClickHouseSink => "clickhouse-sink",
            Service::ViewSink => "view-sink",
        }
    }

    /// Stopped from the highest to the lowest: what uses another goes first.
    pub fn rank(self) -> u8 {
        match self {
            Service::Postgres => 0,
            Service::Redis => 1,
            Service::Clickhouse => 2,
            Service::Kafka => 3,
            Service::Registry => 4,
            _ => 5,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Service, String> {
        let names = || Service::all().map(Service::name).collect::<Vec<_>>().join(", ");
        Service::all()
            .find(|it| it.name() == text)
            .ok_or_else(|| format!("no service is called {text}; there are: {}", names()))
    }
}

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Stopped,
    /// Its configuration or data folder is being made, or it waits for what it needs.
    Preparing,
    /// Runs, does not serve yet.
    Starting,
    Ready,
    /// Ended unasked; will be started again in a moment.
    Backoff,
    Stopping,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub service: Service,
    pub phase: Phase,
    pub process: Option<Identified>,
    /// When that process was started, milliseconds since 1970.
    pub since: Option<u64>,
    /// Times it was started again by the supervisor.
    pub restarts: u32,
    /// Of these, times it had ended by itself rather than by a signal asked for: above zero fails a test run.
    pub crashes: u32,
    /// Failed starts in a row; 0 once it was ready.
    pub failures: u32,
    pub last_exit: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub supervisor: Identified,
    pub services: Vec<ServiceStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Status,
    Start { services: Vec<Service> },
    Stop { services: Vec<Service> },
    Kill { service: Service, signal: String },
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done(Status),
    Refused(String),
}

/// One request, one answer; fails when no supervisor listens.
pub fn call(socket: &Path, request: &Request) -> Result<Status> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("no supervisor at {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match serde_json::from_str(&line).context("the supervisor's answer")? {
        Answer::Done(status) => Ok(status),
        Answer::Refused(why) => bail!("the supervisor refuses: {why}"),
    }
}
