//! `stream-processors stock | loyalty`: one role per process.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime::lifecycle::{DRAIN_BUDGET, Shutdown, exit_code};
use runtime::ops::Health;
use runtime::{config, ops, telemetry};
use serde::Deserialize;
use stream_processors::fold::{Loyalty, Stock};
use stream_processors::processor::{self, Topics};

/// Records are decoded on one thread and dropped on another, many small allocations at a time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Folds events into state and alerts.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Role {
    /// Movements into stock levels and low-stock alerts.
    Stock,
    /// Loyalty entries into balances.
    Loyalty,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    kafka: config::Kafka,
    registry: config::Registry,
    admin: config::Admin,
    #[serde(default)]
    log: config::Log,
}

fn main() -> ExitCode {
    schemas::codec::init();
    let role = Arguments::parse().role;
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(role)));
    exit_code(result)
}

async fn run(role: Role) -> anyhow::Result<()> {
    let config: Config = config::load()?;
    telemetry::init("stream-processors", &config.log);
    let (stop, health) = (Shutdown::on_signals(), Health::new());
    ops::serve(config.admin.listen, health.clone(), stop.clone()).await?;
    health.started();
    let (kafka, registry) = (&config.kafka, &config.registry);
    let result = match role {
        Role::Stock => {
            processor::run::<Stock>(kafka, registry, Topics::contract::<Stock>(), stop.clone(), health).await
        }
        Role::Loyalty => {
            processor::run::<Loyalty>(kafka, registry, Topics::contract::<Loyalty>(), stop.clone(), health).await
        }
    };
    stop.drain(DRAIN_BUDGET).await;
    result
}
