//! The line one watches while tills sell: speed, latency, and how far the rest of the platform is behind.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sqlx::PgPool;

use super::tally::Tally;
use crate::endpoints::Endpoints;
use crate::metrics::{self, Sample};

/// How far the platform is behind its commits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behind {
    /// Acts committed and not yet published.
    pub outbox: i64,
    /// Records the folds have not handled.
    pub processors: Option<f64>,
    /// Age in seconds of the oldest record ClickHouse lacks.
    pub clickhouse_s: Option<f64>,
}

/// Looks at a running platform.
pub struct Watch {
    http: reqwest::Client,
    pool: PgPool,
    admin: Vec<String>,
}

impl Watch {
    /// Connects lazily: a platform that is partly down still shows what can be seen.
    pub fn new(endpoints: &Endpoints) -> anyhow::Result<Watch> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(2))
            .connect_lazy(&endpoints.postgres)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        Ok(Watch { http, pool, admin: endpoints.admin.values().cloned().collect() })
    }

    /// The present distance.
    pub async fn behind(&self) -> Behind {
        let outbox: Result<i64, sqlx::Error> = sqlx::query_scalar(
            "select coalesce(sum(s.last_seq - p.published_seq), 0)::bigint from streams s join stream_progress p using (stream_id)",
        )
        .fetch_one(&self.pool)
        .await;
        let mut samples: Vec<Sample> = Vec::new();
        for admin in &self.admin {
            samples.extend(metrics::scrape(&self.http, admin).await);
        }
        let of = |groups: &[&str]| -> Vec<Sample> {
            let in_groups = |sample: &&Sample| sample.labels.get("group").is_some_and(|g| groups.contains(&g.as_str()));
            samples.iter().filter(in_groups).cloned().collect()
        };
        Behind {
            outbox: outbox.unwrap_or(-1),
            processors: metrics::sum(&of(&["vorca.stock", "vorca.loyalty"]), "vorca_consumer_lag_records"),
            clickhouse_s: metrics::max(&of(&["vorca.clickhouse"]), "vorca_consumer_lag_seconds"),
        }
    }
}

/// Shows the progress of `what` until the returned handle is stopped.
pub struct Progress {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Progress {
    /// A bar on a terminal, else one plain line every five seconds.
    pub fn start(watch: Watch, tally: Arc<Tally>, total: u64) -> Progress {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(show(watch, tally, total, stopped));
        Progress { stop, task }
    }

    /// Ends the line.
    pub async fn finish(self) {
        // the task may have ended by itself; either way it is over after this
        self.stop.send(()).ok();
        self.task.await.ok();
    }
}

async fn show(watch: Watch, tally: Arc<Tally>, total: u64, mut stopped: tokio::sync::oneshot::Receiver<()>) {
    let is_terminal = std::io::stderr().is_terminal();
    let bar = is_terminal.then(|| {
        let style = ProgressStyle::with_template("  {bar:32.cyan/blue} {pos:>6}/{len} sales  {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(total).with_style(style)
    });
    let begin = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let (mut last, mut last_at, mut said) = (0, begin, begin);
    loop {
        let is_last = tokio::select! {
            _ = ticks.tick() => false,
            _ = &mut stopped => true,
        };
        let behind = watch.behind().await;
        let answered = tally.answered();
        let seconds = last_at.elapsed().as_secs_f64().max(0.001);
        let speed = (answered - last) as f64 / seconds;
        (last, last_at) = (answered, Instant::now());
        let message =
            line(&tally, if is_last { answered as f64 / begin.elapsed().as_secs_f64() } else { speed }, behind);
        match &bar {
            Some(bar) => {
                bar.set_position(answered);
                bar.set_message(message);
            }
            None if is_last || said.elapsed() >= Duration::from_secs(5) => {
                said = Instant::now();
                eprintln!("  {answered}/{total} sales  {message}");
            }
            None => {}
        }
        if is_last {
            if let Some(bar) = bar {
                bar.finish();
            }
            return;
        }
    }
}

fn line(tally: &Tally, speed: f64, behind: Behind) -> String {
    let recent = tally.recent();
    let shown = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |value| format!("{value:.0}{unit}"));
    format!(
        "{speed:.0}/s  commit p50 {:.1} p99 {:.1} ms  outbox {}  processors {}  ClickHouse {}",
        recent.p50_ms,
        recent.p99_ms,
        behind.outbox,
        shown(behind.processors, ""),
        shown(behind.clickhouse_s, " s"),
    )
}
