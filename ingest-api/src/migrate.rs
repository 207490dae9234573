//! `ingest-api migrate`: everything the roles expect to find, made in order and again without effect: the tables
//! and who may do what to them, the outbox partitions of the coming days, the topics, the schemas and their pinned ids.

use std::time::Duration;

use anyhow::Context;
use runtime::kafka::{contract, ensure_topics};
use runtime::pg::Limits;
use sqlx::PgPool;
use sqlx::migrate::Migrator;

use crate::config;
use crate::worker::upkeep;

/// The forward-only migrations of Postgres.
pub static POSTGRES: Migrator = sqlx::migrate!("../migrations/postgres");

/// Those of the key store.
pub static VAULT: Migrator = sqlx::migrate!("../migrations/vault");

/// A server that is still starting is waited for.
const WAIT_FOR_POSTGRES: Duration = Duration::from_secs(30);

/// Migrates all parts. Safe to run while the platform sells.
pub async fn run(cfg: &config::Migrate) -> anyhow::Result<()> {
    let unlimited = Limits { statement_ms: 0, lock_ms: 0, idle_in_transaction_ms: 0, acquire: WAIT_FOR_POSTGRES };
    let pool = runtime::pg::pool_with(&cfg.postgres, "migrate", 2, &unlimited)?;
    runtime::pg::ping(&pool, WAIT_FOR_POSTGRES).await?;
    POSTGRES.run(&pool).await.context("migrating Postgres")?;
    give_rights(&pool).await.context("rights of the processes' roles")?;
    upkeep::make_partitions(&pool).await.context("outbox partitions")?;
    if let Some(privacy) = &cfg.privacy {
        let database = runtime::config::Postgres { url: privacy.vault_url.clone() };
        let vault = runtime::pg::pool_with(&database, "migrate", 1, &unlimited)?;
        runtime::pg::ping(&vault, WAIT_FOR_POSTGRES).await.context("the key store")?;
        VAULT.run(&vault).await.context("migrating the key store")?;
    }
    ensure_topics(&cfg.kafka, &contract()).await.context("making the topics")?;
    let schemas = schemas::registry::register_all(&cfg.registry.url).await?;
    for schema in &schemas {
        sqlx::query(
            "insert into schema_ids (subject, schema_version, schema_id) values ($1, $2, $3)
             on conflict (subject, schema_version) do update set schema_id = excluded.schema_id",
        )
        .bind(&schema.subject)
        .bind(schema.schema_version)
        .bind(schema.schema_id)
        .execute(&pool)
        .await
        .context("pinning the schema ids")?;
    }
    tracing::info!(schemas = schemas.len(), "postgres, topics and schemas are migrated");
    Ok(())
}

/// The role that serve and worker connect as: it owns nothing and changes no ledger.
pub const APP_ROLE: &str = "vorca_app";
/// The relay's: it reads the outbox and nothing about people, money or staff.
pub const RELAY_ROLE: &str = "vorca_relay";

/// Gives the roles their rights on what there is now. Without them another login runs these processes, which works and
/// is said loudly.
pub async fn give_rights(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(include_str!("db/rights.sql")).execute(pool).await?;
    for role in [APP_ROLE, RELAY_ROLE] {
        let is_there: bool = sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
            .bind(role)
            .fetch_one(pool)
            .await?;
        if !is_there {
            tracing::warn!(role, "this role does not exist: make it, migrate again, and connect with it");
        }
    }
    Ok(())
}

/// Whether every migration of this build has been applied; else what is missing.
pub async fn is_current(pool: &PgPool) -> Result<(), String> {
    let applied: Result<Vec<i64>, _> =
        sqlx::query_scalar("select version from _sqlx_migrations where success").fetch_all(pool).await;
    let applied =
        applied.map_err(|error| format!("the migrations cannot be read ({error}): run `ingest-api migrate`"))?;
    match POSTGRES.iter().find(|migration| !applied.contains(&migration.version)) {
        None => Ok(()),
        Some(missing) => Err(format!("migration {} is missing: run `ingest-api migrate`", missing.version)),
    }
}
