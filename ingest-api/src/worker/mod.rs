//! The worker role: answers resync requests, seals the audit log, keeps the tables in shape and finishes what was begun
//! about members. Its one-shot tasks stand in `main.rs`.

pub mod epoch;
pub mod members;
pub mod resync;
pub mod retire;
pub mod upkeep;

use anyhow::Context;
use runtime::config::{AuditSigner, ConfigError, Kafka, Postgres, Privacy, Registry};
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
    privacy: Option<&Privacy>,
    stop: Shutdown,
    health: Health,
) -> anyhow::Result<()> {
    let sealer = Sealer {
        options: postgres.url.expose_secret().parse().context("VORCA__POSTGRES__URL")?,
        signer: signer(audit)?,
        health: health.clone(),
    };
    let pool = pool_watched(postgres, "jobs", 4, &Limits::default(), &stop)?;
    let vault = privacy.map(|privacy| crate::serve::open_vault(privacy, &stop)).transpose()?;
    health.started();
    let writer = Writer::new(pool.clone(), &stop);
    let following = stop.spawn(members::run(writer.clone(), vault, stop.clone(), health.clone()));
    let keeping = stop.spawn(upkeep::run(pool.clone(), stop.clone(), health.clone()));
    let sealing = stop.spawn(sealer.run(stop.clone()));
    let resync = resync::Resync::new(writer, Codec::new(&registry.url));
    let done = consumer::run(ConsumerConfig::of(kafka, &RESYNC_WORKER), stop.clone(), health, resync).await;
    stop.cancel();
    keeping.await.ok();
    sealing.await.ok();
    following.await.ok();
    done
}

fn signer(audit: &AuditSigner) -> Result<Signer, ConfigError> {
    Signer::from_pem(audit.signing_key.expose_secret())
        .map_err(|error| ConfigError::new(format!("VORCA__AUDIT__SIGNING_KEY (or ..._FILE) is not usable: {error:#}")))
}
