//! The worker role: answers resync requests and keeps the tables in shape. Its one-shot tasks stand in `main.rs`.

pub mod epoch;
pub mod resync;
pub mod retire;
pub mod upkeep;

use runtime::config::{Kafka, Postgres, Registry};
use runtime::consumer::{self, ConsumerConfig};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::pg::{Limits, Writer, pool_watched};
use schemas::codec::Codec;
use schemas::topics::groups::RESYNC_WORKER;

/// Runs until `stop`.
pub async fn run(
    postgres: &Postgres,
    kafka: &Kafka,
    registry: &Registry,
    stop: Shutdown,
    health: Health,
) -> anyhow::Result<()> {
    let pool = pool_watched(postgres, "jobs", 4, &Limits::default(), &stop)?;
    health.started();
    let keeping = stop.spawn(upkeep::run(pool.clone(), stop.clone(), health.clone()));
    let resync = resync::Resync::new(Writer::new(pool, &stop), Codec::new(&registry.url));
    let done = consumer::run(ConsumerConfig::of(kafka, &RESYNC_WORKER), stop.clone(), health, resync).await;
    stop.cancel();
    keeping.await.ok();
    done
}
