//! `sinks clickhouse | view | migrate | withdraw`: one role per process; one-shot tasks end by themselves.

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use runtime::config;
use runtime::consumer::{self, ConsumerConfig};
use runtime::lifecycle::{DRAIN_BUDGET, Shutdown, Unavailable, exit_code};
use runtime::ops::{self, Health};
use schemas::codec::Codec;
use schemas::ids::COMPANY_STREAM;
use schemas::topics::groups::CLICKHOUSE_SINK;
use serde::Deserialize;
use sinks::marts::Keeper;
use sinks::sink::ClickHouseSink;
use sinks::store::{Class, Store, StoreError};
use sinks::view::{self, Topics, View};
use sinks::withdraw::Cut;

/// Records are decoded on one thread and dropped on another, many small allocations at a time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Carries what the topics say into ClickHouse and Redis.
#[derive(Parser)]
#[command(name = "sinks", version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Topics -> ClickHouse raw tables -> KPI marts.
    Clickhouse,
    /// State topics -> the serving view in Redis.
    View,
    /// Runs the ClickHouse migrations that have not run yet, then ends.
    Migrate,
    /// Withdraws what a restore of the ledger gave up, then ends. Reads what raise-epoch printed: a line
    /// "LOCATION_ID KEPT_SEQ" for each location and for the company (all zero). Locations without a line lose everything.
    Withdraw {
        /// Epoch that the restore began.
        #[arg(long)]
        epoch: i64,
    },
}

/// Environment of `sinks clickhouse`.
#[derive(Deserialize)]
struct SinkConfig {
    kafka: config::Kafka,
    registry: config::Registry,
    clickhouse: config::ClickHouse,
    admin: config::Admin,
    #[serde(default)]
    log: config::Log,
}

/// Environment of `sinks view`.
#[derive(Deserialize)]
struct ViewConfig {
    kafka: config::Kafka,
    registry: config::Registry,
    redis: config::Redis,
    admin: config::Admin,
    #[serde(default)]
    log: config::Log,
}

/// Environment of the one-shot tasks.
#[derive(Deserialize)]
struct TaskConfig {
    clickhouse: config::ClickHouse,
    #[serde(default)]
    log: config::Log,
}

#[tokio::main]
async fn main() -> ExitCode {
    schemas::codec::init();
    exit_code(match Arguments::parse().role {
        Role::Clickhouse => clickhouse().await,
        Role::View => view().await,
        Role::Migrate => migrate().await,
        Role::Withdraw { epoch } => withdraw(epoch).await,
    })
}

async fn clickhouse() -> anyhow::Result<()> {
    let cfg: SinkConfig = config::load()?;
    runtime::telemetry::init("sinks-clickhouse", &cfg.log);
    let stop = Shutdown::on_signals();
    let health = Health::new();
    ops::serve(cfg.admin.listen, health.clone(), stop.clone()).await?;

    health.started();
    let store = Store::of(&cfg.clickhouse);
    let keeper = Arc::new(Keeper::new(store.clone()));
    let marts = tokio::spawn({
        let (keeper, stop) = (keeper.clone(), stop.clone());
        async move { keeper.run(stop).await }
    });
    let consumer = ConsumerConfig {
        batch_records_max: 20_000,
        batch_bytes_max: 16 << 20,
        batch_age_max: Duration::from_secs(1),
        ..ConsumerConfig::of(&cfg.kafka, &CLICKHOUSE_SINK)
    };
    let sink = ClickHouseSink::new(store, Codec::new(&cfg.registry.url), keeper);
    let done = consumer::run(consumer, stop.clone(), health, sink).await;
    stop.cancel();
    tokio::time::timeout(DRAIN_BUDGET / 2, marts).await.ok();
    done
}

async fn view() -> anyhow::Result<()> {
    let cfg: ViewConfig = config::load()?;
    runtime::telemetry::init("sinks-view", &cfg.log);
    let (stop, health) = (Shutdown::on_signals(), Health::new());
    ops::serve(cfg.admin.listen, health.clone(), stop.clone()).await?;
    health.started();
    let view = View::new(&cfg.kafka, &cfg.registry, runtime::redis::connect(&cfg.redis)?, Topics::contract());
    view::run(view, stop, health).await
}

async fn migrate() -> anyhow::Result<()> {
    let cfg: TaskConfig = config::load()?;
    runtime::telemetry::init("sinks-migrate", &cfg.log);
    let ran = sinks::migrate::migrate(&Store::of(&cfg.clickhouse)).await.map_err(|error| {
        let is_absent = error.downcast_ref::<StoreError>().is_some_and(|cause| cause.class == Class::Unavailable);
        if is_absent { anyhow::Error::new(Unavailable(format!("{error:#}"))) } else { error }
    })?;
    tracing::info!(ran = ran.len(), names = ran.join(" "), "clickhouse is migrated");
    Ok(())
}

async fn withdraw(epoch: i64) -> anyhow::Result<()> {
    let cfg: TaskConfig = config::load()?;
    runtime::telemetry::init("sinks-withdraw", &cfg.log);
    let mut cuts = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (location, kept) =
            line.trim().split_once(' ').with_context(|| format!("not LOCATION_ID KEPT_SEQ: {line}"))?;
        let location_id = location.parse().with_context(|| format!("no location id: {location}"))?;
        let kept_seq = kept.trim().parse().with_context(|| format!("no number: {kept}"))?;
        cuts.push(Cut { epoch, location_id, kept_seq });
    }
    let is_whole = cuts.iter().any(|cut| cut.location_id == COMPANY_STREAM.0);
    anyhow::ensure!(
        is_whole,
        "the list lacks the line of the company (all zero): give what raise-epoch printed, whole"
    );
    let store = Store::of(&cfg.clickhouse);
    let away = |error: StoreError| Unavailable(error.to_string());
    cuts.extend(sinks::withdraw::unlisted(&store, epoch, &cuts).await.map_err(away)?);
    let touched = sinks::withdraw::withdraw(&store, &cuts).await.map_err(away)?;
    tracing::info!(locations = cuts.len(), slices = touched.len(), "withdrawn; the sink computes the slices again");
    Ok(())
}
