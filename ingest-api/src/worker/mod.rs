//! The worker role: answers resync requests, seals the audit log and keeps the tables in shape. Its one-shot tasks stand in `main.rs`.

pub mod epoch;
pub mod resync;
pub mod retire;
pub mod upkeep;

use anyhow::Context;
use runtime::config::{AuditSigner, ConfigError, Kafka, Postgres, Registry};
use runtime::consumer::{self, ConsumerConfig};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::pg::{Limits, Writer, pool_watched};
use schemas::codec::Codec;
use schemas::topics::groups::RESYNC_WORKER;
use secrecy::ExposeSecret;

use crate::audit::sealer::Sealer;
use crate::audit::signing::Signer;

/// Runs until `stop`.
pub async fn run(
    postgres: &Postgres,
    kafka: &Kafka,
    registry: &Registry,
    audit: &AuditSigner,
    stop: Shutdown,
    health: Health,
) -> anyhow::Result<()> {
    let sealer = Sealer {
        options: postgres.url.expose_secret().parse().context("VORCA__POSTGRES__URL")?,
        signer: signer(audit)?,
        health: health.clone(),
    };
    let pool = pool_watched(postgres, "jobs", 4, &Limits::default(), &stop)?;
    health.started();
    let keeping = stop.spawn(upkeep::run(pool.clone(), stop.clone(), health.clone()));
    let sealing = stop.spawn(sealer.run(stop.clone()));
    let resync = resync::Resync::new(Writer::new(pool, &stop), Codec::new(&registry.url));
    let done = consumer::run(ConsumerConfig::of(kafka, &RESYNC_WORKER), stop.clone(), health, resync).await;
    stop.cancel();
    keeping.await.ok();
    sealing.await.ok();
    done
}

fn signer(audit: &AuditSigner) -> Result<Signer, ConfigError> {
    Signer::from_pem(audit.signing_key.expose_secret())
        .map_err(|error| ConfigError::new(format!("VORCA__AUDIT__SIGNING_KEY (or ..._FILE) is not usable: {error:#}")))
}
