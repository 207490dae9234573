//! The admin port: `/livez`, `/readyz`, `/startupz`, `/metrics`. Never public.
//!
//! Liveness looks at this process's own watchdogs only, never at a dependency: restarting a process does not
//! heal a broker. Readiness is the set of named checks that the role declares.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::lifecycle::{Shutdown, exit};
use crate::telemetry;

/// The guard looks this often, and ends the process when a watchdog was late this many times running.
const GUARD_TICK: Duration = Duration::from_secs(1);
const GUARD_STRIKES: u32 = 5;

/// What the process says about itself. Clones share the state.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    origin: Instant,
    started: AtomicBool,
    state: Mutex<Checks>,
}

#[derive(Debug, Default)]
struct Checks {
    checks: BTreeMap<String, Check>,
    details: BTreeMap<String, String>,
    watchdogs: BTreeMap<String, (Duration, Arc<AtomicU64>)>,
}

#[derive(Debug)]
struct Check {
    ok: bool,
    detail: String,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Not started, no checks.
    pub fn new() -> Self {
        let inner = Inner { origin: Instant::now(), started: AtomicBool::new(false), state: Mutex::default() };
        Health { inner: Arc::new(inner) }
    }

    /// Sets a check that readiness depends on. Declare each one (as not ok) before [`Health::started`].
    pub fn set(&self, check: &str, ok: bool, detail: impl Into<String>) {
        let detail = detail.into();
        let mut state = self.state();
        let changed = state.checks.get(check).is_none_or(|before| before.ok != ok);
        if changed {
            tracing::info!(check, ok, detail, "readiness check changed");
        }
        state.checks.insert(check.to_owned(), Check { ok, detail });
    }

    /// Sets a line of `/readyz` that readiness does not depend on: degraded, but serving.
    pub fn detail(&self, name: &str, detail: impl Into<String>) {
        self.state().details.insert(name.to_owned(), detail.into());
    }

    /// Start-up is over: `/startupz` answers 200 and `/readyz` follows the checks.
    pub fn started(&self) {
        self.inner.started.store(true, Ordering::Release);
    }

    /// True when started and every check is ok.
    pub fn is_ready(&self) -> bool {
        self.inner.started.load(Ordering::Acquire) && self.state().checks.values().all(|check| check.ok)
    }

    /// A loop that must come round within `limit`. Dropping the guard ends the watch.
    pub fn watchdog(&self, name: &str, limit: Duration) -> Watchdog {
        let beat = Arc::new(AtomicU64::new(self.now_ms()));
        self.state().watchdogs.insert(name.to_owned(), (limit, Arc::clone(&beat)));
        Watchdog { name: name.to_owned(), health: self.clone(), beat }
    }

    /// Names of the watchdogs that are late, with how late.
    fn stalled(&self) -> BTreeMap<String, Duration> {
        let now = self.now_ms();
        let age = |beat: &AtomicU64| Duration::from_millis(now.saturating_sub(beat.load(Ordering::Relaxed)));
        let state = self.state();
        let late = state.watchdogs.iter().filter(|(_, (limit, beat))| age(beat) > *limit);
        late.map(|(name, (_, beat))| (name.clone(), age(beat))).collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, Checks> {
        // The maps are valid after any panic: each change is a single insert.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readiness(&self, stopping: bool) -> (bool, Value) {
        let ready = self.is_ready() && !stopping;
        let started = self.inner.started.load(Ordering::Acquire);
        let state = self.state();
        let checks: Map<String, Value> = state
            .checks
            .iter()
            .map(|(name, check)| (name.clone(), json!({"ok": check.ok, "detail": check.detail})))
            .collect();
        let status = if ready { "ready" } else { "not ready" };
        let body = json!({
            "status": status, "started": started, "stopping": stopping, "checks": checks, "details": state.details,
        });
        (ready, body)
    }
}

/// Says "still going round" for one loop.
#[derive(Debug)]
pub struct Watchdog {
    name: String,
    health: Health,
    beat: Arc<AtomicU64>,
}

impl Watchdog {
    pub fn beat(&self) {
        self.beat.store(self.health.now_ms(), Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.health.state().watchdogs.remove(&self.name);
    }
}

#[derive(Clone)]
struct Admin {
    health: Health,
    shutdown: Shutdown,
}

/// Binds the admin port and serves it until the process ends, also while it drains (`/readyz` is 503 then).
/// A loop that stays stalled ends the process with code 70. Returns the bound address.
pub async fn serve(listen: SocketAddr, health: Health, shutdown: Shutdown) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("admin port {listen}"))?;
    let address = listener.local_addr()?;
    let app = router(health.clone(), shutdown);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "admin port closed");
        }
    });
    tokio::spawn(end_when_stalled(health));
    Ok(address)
}

fn router(health: Health, shutdown: Shutdown) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(|| async { telemetry::metrics_text() }))
        .with_state(Admin { health, shutdown })
}

fn answer(ok: bool, body: Value) -> Response {
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

async fn livez(State(admin): State<Admin>) -> Response {
    let stalled = admin.health.stalled();
    let late: Map<String, Value> = stalled.iter().map(|(name, age)| (name.clone(), json!(age.as_secs()))).collect();
    answer(stalled.is_empty(), json!({"status": if late.is_empty() { "live" } else { "stalled" }, "stalled_s": late}))
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let (ready, body) = admin.health.readiness(admin.shutdown.is_cancelled());
    answer(ready, body)
}

async fn startupz(State(admin): State<Admin>) -> Response {
    let started = admin.health.inner.started.load(Ordering::Acquire);
    answer(started, json!({"status": if started { "started" } else { "starting" }}))
}

async fn end_when_stalled(health: Health) {
    let mut strikes = 0;
    loop {
        let before = Instant::now();
        tokio::time::sleep(GUARD_TICK).await;
        // A process that was itself frozen (SIGSTOP, a suspended machine) gives its loops time to come round.
        let frozen = before.elapsed() > GUARD_TICK * 3;
        let stalled = health.stalled();
        strikes = if stalled.is_empty() || frozen { 0 } else { strikes + 1 };
        if strikes >= GUARD_STRIKES {
            tracing::error!(?stalled, "a loop no longer comes round: ending this process");
            std::process::exit(i32::from(exit::SOFTWARE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_start_and_every_check_and_no_stop() {
        let health = Health::new();
        health.set("postgres", true, "");
        assert!(!health.readiness(false).0, "not started");
        health.started();
        assert!(health.readiness(false).0);
        assert!(!health.readiness(true).0, "stopping");
        health.set("pool", false, "no connection");
        health.detail("kafka", "down: sales go on");
        let (ready, body) = health.readiness(false);
        assert!(!ready);
        assert_eq!(body["checks"]["pool"]["detail"], "no connection");
        assert_eq!(body["details"]["kafka"], "down: sales go on");
        health.set("pool", true, "");
        assert!(health.is_ready());
    }

    #[test]
    fn a_late_watchdog_is_stalled_until_it_beats_or_goes() {
        let health = Health::new();
        let patient = health.watchdog("patient", Duration::from_secs(60));
        let late = health.watchdog("late", Duration::ZERO);
        late.beat.store(0, Ordering::Relaxed);
        while health.now_ms() == 0 {
            std::thread::yield_now();
        }
        assert_eq!(health.stalled().into_keys().collect::<Vec<_>>(), ["late"]);
        drop(late);
        assert!(health.stalled().is_empty());
        patient.beat();
    }

    #[tokio::test]
    async fn the_port_answers_and_readiness_falls_at_stop() {
        let (health, shutdown) = (Health::new(), Shutdown::new());
        health.started();
        let address = serve("127.0.0.1:0".parse().unwrap(), health, shutdown.clone()).await.unwrap();
        assert!(get_text(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get_text(address, "/livez").await.contains("\"live\""));
        assert!(get_text(address, "/metrics").await.starts_with("HTTP/1.1 200"));
        shutdown.cancel();
        assert!(get_text(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    }

    async fn get_text(address: SocketAddr, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}
