//! Load on the sale route: open-model (arrivals on a schedule, whether or not earlier ones were
//! answered, latency counted from the scheduled instant) and saturating (a fixed number waiting).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, mpsc};

/// One prepared request.
pub struct Shot {
    pub authorization: Arc<str>,
    pub key: String,
    pub body: Bytes,
}

/// What a run did. Latencies in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct LoadResult {
    pub offered_per_s: Option<f64>,
    pub achieved_per_s: f64,
    pub sent: u64,
    pub created: u64,
    pub refused: u64,
    pub failed: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// CPU time of the generator itself, microseconds per request.
    pub generator_cpu_us: f64,
}

#[derive(Default)]
struct Tally {
    created: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// Sends to `<api>/api/v1/sales`.
#[derive(Clone)]
pub struct Load {
    http: reqwest::Client,
    url: Arc<str>,
}

impl Load {
    pub fn new(api: &str) -> anyhow::Result<Load> {
        let http = reqwest::Client::builder().pool_max_idle_per_host(1024).timeout(Duration::from_secs(30)).build()?;
        Ok(Load { http, url: format!("{}/api/v1/sales", api.trim_end_matches('/')).into() })
    }

    async fn fire(&self, shot: Shot, tally: &Tally) {
        let request = self
            .http
            .post(&*self.url)
            .header("Authorization", &*shot.authorization)
            .header("Idempotency-Key", shot.key)
            .header("Content-Type", "application/json")
            .body(shot.body);
        let counter = match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                let body = answer.bytes().await;
                match status {
                    200..300 if body.is_ok() => &tally.created,
                    400..500 => {
                        if tally.refused.load(Ordering::Relaxed) < 3 {
                            let text = body.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
                            eprintln!("refused with {status}: {text}");
                        }
                        &tally.refused
                    }
                    _ => &tally.failed,
                }
            }
            Err(_) => &tally.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// `rate` arrivals a second for `duration`, none of them held back by a slow answer.
    pub async fn open(&self, rate: f64, duration: Duration, shots: mpsc::Receiver<Shot>) -> LoadResult {
        let (cpu, started) = (cpu_time(), Instant::now());
        let tally = Arc::new(Tally::default());
        let latencies = Arc::new(Mutex::new(Vec::with_capacity((rate * duration.as_secs_f64()) as usize)));
        let mut shots = shots;
        let mut running = tokio::task::JoinSet::new();
        let mut sent = 0u64;
        while let Some(shot) = shots.recv().await {
            let due = started + Duration::from_secs_f64(sent as f64 / rate);
            if due > started + duration {
                break;
            }
            // The timer wheel is coarser than the schedule at high rates: whatever is due goes out at once.
            if due > Instant::now() + Duration::from_millis(1) {
                tokio::time::sleep_until(due.into()).await;
            }
            sent += 1;
            let (load, tally, latencies) = (self.clone(), tally.clone(), latencies.clone());
            running.spawn(async move {
                load.fire(shot, &tally).await;
                latencies.lock().await.push(due.elapsed().as_micros() as u64);
            });
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
        let latencies = std::mem::take(&mut *latencies.lock().await);
        result(Some(rate), sent, started.elapsed(), &tally, latencies, cpu)
    }

    /// Keeps `waiting` requests in flight for `duration`: finds the maximum.
    pub async fn saturate(&self, waiting: usize, duration: Duration, shots: mpsc::Receiver<Shot>) -> LoadResult {
        let (cpu, started) = (cpu_time(), Instant::now());
        let tally = Arc::new(Tally::default());
        let shots = Arc::new(Mutex::new(shots));
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..waiting {
            let (load, tally, shots) = (self.clone(), tally.clone(), shots.clone());
            running.spawn(async move {
                let mut latencies = Vec::new();
                while started.elapsed() < duration {
                    let Some(shot) = shots.lock().await.recv().await else { break };
                    let at = Instant::now();
                    load.fire(shot, &tally).await;
                    latencies.push(at.elapsed().as_micros() as u64);
                }
                latencies
            });
        }
        let mut latencies = Vec::new();
        while let Some(Ok(mine)) = running.join_next().await {
            latencies.extend(mine);
        }
        let sent = latencies.len() as u64;
        result(None, sent, started.elapsed(), &tally, latencies, cpu)
    }
}

fn result(
    offered: Option<f64>,
    sent: u64,
    took: Duration,
    tally: &Tally,
    mut us: Vec<u64>,
    cpu: Duration,
) -> LoadResult {
    us.sort_unstable();
    let at = |q: f64| match us.len() {
        0 => 0.0,
        n => us[((n as f64 * q) as usize).min(n - 1)] as f64 / 1000.0,
    };
    let created = tally.created.load(Ordering::Relaxed);
    LoadResult {
        offered_per_s: offered,
        achieved_per_s: created as f64 / took.as_secs_f64(),
        sent,
        created,
        refused: tally.refused.load(Ordering::Relaxed),
        failed: tally.failed.load(Ordering::Relaxed),
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: at(1.0),
        generator_cpu_us: (cpu_time() - cpu).as_micros() as f64 / sent.max(1) as f64,
    }
}

/// User and system time of this process.
pub fn cpu_time() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(Duration::ZERO, |usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        let us = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
        Duration::from_micros(us.max(0) as u64)
    })
}
