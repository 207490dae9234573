//! `./dev bench`: how fast, beside what, on a platform of its own that leaves nothing behind. Ratios are of pairs
//! measured one after the other in the same run; every run says what it cost in CPU.

mod ingest;
pub mod load;
mod machine;
mod peer;
mod pipeline;
mod relay;
mod security;
mod shop;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use sqlx::Connection;

use crate::client::Client;
use crate::demo;
use crate::launcher::{start_servers, up};
use crate::stack::{Job, Layout, Service, Stack, superuser_url};
use ingest::{HotReport, Ingest, IngestReport};
use machine::{Machine, median};
use pipeline::PipelineReport;
use relay::RelayReport;
use security::SecurityReport;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// Sales through REST beside pgbench writing the same rows
    Ingest,
    /// One location and five products beside uniform
    Hot,
    /// A backlog of the outbox beside a bare producer
    Relay,
    /// Everything at once, minutes long
    Pipeline,
    /// What proof of who asks, card filter and audit cost a sale, and what a flood of log-ins does to tills
    Security,
    /// One after the other
    All,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[arg(value_enum, default_value = "all")]
    pub bench: Bench,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Pairs of each comparison
    #[arg(long, default_value_t = 5)]
    pub pairs: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// More sales a second than this machine can take: as many requests are made before a run
    #[arg(long, default_value_t = 16_000)]
    pub rate_max: usize,
    /// Records that wait for the relay
    #[arg(long, default_value_t = 1_000_000)]
    pub backlog: i64,
    /// Sales a second of the pipeline
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,
    /// Minutes of the pipeline
    #[arg(long, default_value_t = 3)]
    pub minutes: u64,
    /// Sales of today that are there before the pipeline is measured
    #[arg(long, default_value_t = 500_000)]
    pub fill: usize,
}

/// A ratio of pairs: their median, lowest and highest.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Ratio {
    pub fn of(ratios: impl IntoIterator<Item = f64>) -> Ratio {
        let all: Vec<f64> = ratios.into_iter().collect();
        Ratio {
            low: all.iter().copied().fold(f64::INFINITY, f64::min),
            high: all.iter().copied().fold(0.0, f64::max),
            median: median(all),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    at: chrono::DateTime<chrono::Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingest: Option<IngestReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hot: Option<HotReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<RelayReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<PipelineReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    security: Option<SecurityReport>,
}

/// The platform that is measured.
#[derive(Clone)]
pub struct Stage {
    stack: Stack,
    owner: Client,
}

impl Stage {
    /// Servers, migrations and the first Owner; no role runs yet.
    fn open(purpose: &str) -> Result<Stage> {
        let stack = start_servers(Layout::throwaway(purpose)?.unlimited())?;
        up::migrate(&stack)?;
        let owner = demo::owner(&stack.endpoints()?)?;
        Ok(Stage { stack, owner })
    }

    async fn start(&self, services: &[Service]) -> Result<()> {
        let (stack, services) = (self.stack.clone(), services.to_vec());
        tokio::task::spawn_blocking(move || {
            stack.start(&services)?;
            stack.wait_ready(&services)
        })
        .await?
    }

    async fn stop(&self, services: &[Service]) -> Result<()> {
        let (stack, services) = (self.stack.clone(), services.to_vec());
        tokio::task::spawn_blocking(move || {
            stack.stop(&services)?;
            stack.wait_stopped(&services)
        })
        .await?
    }

    fn superuser(&self) -> Result<String> {
        peer::with_database(&superuser_url(self.stack.identity()), "vorca")
    }

    async fn connect(&self) -> Result<sqlx::PgConnection> {
        Ok(sqlx::PgConnection::connect(&self.superuser()?).await?)
    }

    /// Both sides of a pair begin behind a checkpoint.
    async fn checkpoint(&self) -> Result<()> {
        sqlx::query("checkpoint").execute(&mut self.connect().await?).await?;
        Ok(())
    }

    /// Acts committed and not published.
    async fn waiting_acts(&self) -> Result<i64> {
        let sql = "select coalesce(sum(last_seq - published_seq), 0)::bigint from streams join stream_progress using (stream_id)";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connect().await?).await?)
    }

    /// Records of those acts.
    async fn waiting_records(&self) -> Result<i64> {
        let sql = "select coalesce(sum(cardinality(o.topics)), 0)::bigint from outbox o join stream_progress p using (stream_id) where o.seq > p.published_seq";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connect().await?).await?)
    }

    /// Makes everything in the outbox wait again.
    async fn rewind(&self) -> Result<()> {
        sqlx::query("update stream_progress set published_seq = 0").execute(&mut self.connect().await?).await?;
        Ok(())
    }

    /// Whether `worker verify` finds that all stores agree.
    async fn verify(&self) -> Result<bool> {
        let mut command = self.stack.job("ingest-api", Job::Verify);
        command.args(["worker", "verify", "--drain", "120"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("running verify")?;
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        Ok(output.status.success())
    }
}

/// Measures and prints. A goal that is missed is no failure of the command: figures of a noisy machine fail nothing.
pub fn bench(options: &Options) -> Result<ExitCode> {
    let bin = Layout::of_checkout()?.bin;
    if cfg!(debug_assertions) {
        eprintln!(
            "This is the development build: the figures mean nothing. ./dev bench builds and measures the release build"
        );
    }
    ensure!(options.pairs > 0 && options.seconds > 0, "--pairs and --seconds are at least 1");
    let checkout: PathBuf = Layout::of_checkout()?.checkout;
    eprintln!("Measuring the programs in {}", bin.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build()?;
    let mut report = Report {
        machine: Machine::read(&checkout),
        at: chrono::Utc::now(),
        ingest: None,
        hot: None,
        relay: None,
        pipeline: None,
        security: None,
    };
    let wants = |bench| options.bench == bench || options.bench == Bench::All;
    if wants(Bench::Ingest) || wants(Bench::Hot) || wants(Bench::Relay) {
        let stage = Stage::open("bench")?;
        runtime.block_on(left_of_kafka(&stage, options, &mut report, wants))?;
        stage.stack.shutdown()?;
    }
    if wants(Bench::Pipeline) {
        let stage = Stage::open("bench-pipeline")?;
        report.pipeline = Some(runtime.block_on(pipeline::measure(&stage, options))?);
        stage.stack.shutdown()?;
    }
    if wants(Bench::Security) {
        let stage = Stage::open("bench-security")?;
        report.security = Some(runtime.block_on(security::measure(&stage, options))?);
        stage.stack.shutdown()?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text::page(&report));
    }
    Ok(ExitCode::SUCCESS)
}

async fn left_of_kafka(
    stage: &Stage,
    options: &Options,
    report: &mut Report,
    wants: impl Fn(Bench) -> bool,
) -> Result<()> {
    let mut ingest = Ingest::open(stage, options).await?;
    if wants(Bench::Ingest) {
        report.ingest = Some(ingest.measure().await?);
    }
    if wants(Bench::Hot) {
        report.hot = Some(ingest.hot().await?);
    }
    if wants(Bench::Relay) {
        ingest.backlog(options.backlog).await?;
        stage.stop(&[Service::Api]).await?;
        report.relay = Some(relay::measure(stage, options).await?);
    }
    Ok(())
}
