//! `worker verify`: proves that Postgres, the topics, the compacted state, Redis and ClickHouse agree.
//!
//! The checks carry the numbers of the invariants in `ARCHITECTURE.md`. Each one names the ids that
//! differ. Reads are cut by location, so that no transaction stays open for long on a large shop.
//! The platform is expected to be quiet; [`run`] waits for it to drain first.

mod alerts;
pub mod audited;
pub mod cards;
pub mod chain;
mod clickhouse;
mod consumed;
mod effects;
mod journal;
mod kept;
pub mod ledger;
pub mod limits;
mod looks;
pub mod published;
mod redis_view;
mod report;
pub mod sessions;
mod signatures;
mod topics;

use std::path::PathBuf;
use std::time::Duration;

pub use report::{Check, Report};

/// What to compare. A store that is not configured is reported as not checked, never as agreeing.
pub struct Stores {
    pub pg: sqlx::PgPool,
    pub kafka: runtime::config::Kafka,
    pub registry: runtime::config::Registry,
    pub redis: runtime::config::Redis,
    pub clickhouse: runtime::config::ClickHouse,
    /// Journals of the tills: a file or a folder of them.
    pub journal: Option<PathBuf>,
    /// How long the pipeline may take to drain before the comparison begins.
    pub drain: Duration,
    pub trust: Trust,
}

/// What is believed without proof. It comes from outside of the database: whoever owns that can write anything into it.
pub struct Trust {
    /// Keys whose signatures under heads and roots count.
    pub keys: crate::audit::signing::PublicKeys,
    /// Epochs that began with a restore somebody knows of.
    pub restored: std::collections::BTreeSet<i64>,
}

/// Runs every check and returns what differs. Errors are failures to look, not differences.
pub async fn run(stores: &Stores) -> anyhow::Result<Report> {
    let mut report = Report::default();
    ledger::drained(&stores.pg, stores.drain, &mut report).await?;
    ledger::check(&stores.pg, &mut report).await?;
    sessions::check(&stores.pg, &mut report).await?;
    if let Some(path) = &stores.journal {
        journal::check(&stores.pg, path, &mut report).await?;
    }
    let dump = topics::check(stores, &mut report).await?;
    let ever = alerts::check(&stores.pg, &dump, &mut report).await?;
    redis_view::check(stores, &mut report).await?;
    clickhouse::check(stores, &dump, &ever, &mut report).await?;
    consumed::check(stores, &mut report).await?;
    audited::check(&stores.pg, &mut report).await?;
    limits::check(&stores.pg, &mut report).await?;
    cards::check(&stores.pg, &mut report).await?;
    chain::check_all(stores, &mut report).await?;
    Ok(report)
}

/// The audit log alone, [`chain`].
pub async fn run_chain(stores: &Stores) -> anyhow::Result<Report> {
    let mut report = Report::default();
    audited::check(&stores.pg, &mut report).await?;
    chain::check_all(stores, &mut report).await?;
    Ok(report)
}
