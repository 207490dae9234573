//! Every variable that `ingest-api` reads, by role. A role is started with the sections it needs and no others.

use runtime::config::{Admin, AuditKeys, AuditSigner, Auth, ClickHouse, Http, Kafka, Log, Postgres, Redis, Registry};
use serde::Deserialize;

/// `ingest-api serve`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    pub postgres: Postgres,
    pub http: Http,
    pub admin: Admin,
    pub auth: Auth,
    /// For the KPI routes; without it they answer 503.
    pub clickhouse: Option<ClickHouse>,
    #[serde(default)]
    pub log: Log,
}

/// `ingest-api relay`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub admin: Admin,
    #[serde(default)]
    pub log: Log,
}

/// `ingest-api worker`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub registry: Registry,
    pub audit: AuditSigner,
    pub admin: Admin,
    #[serde(default)]
    pub log: Log,
}

/// `ingest-api all`: serve, relay and worker in one process.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct All {
    pub postgres: Postgres,
    pub http: Http,
    pub kafka: Kafka,
    pub registry: Registry,
    pub audit: AuditSigner,
    pub admin: Admin,
    pub auth: Auth,
    pub clickhouse: Option<ClickHouse>,
    #[serde(default)]
    pub log: Log,
}

/// `ingest-api migrate` and `ingest-api worker retire`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub registry: Registry,
    #[serde(default)]
    pub log: Log,
}

/// `ingest-api worker verify`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub registry: Registry,
    pub redis: Redis,
    pub clickhouse: ClickHouse,
    pub audit: AuditKeys,
    #[serde(default)]
    pub log: Log,
}

/// Tasks that need Postgres alone: `create-owner`, `reset-sign-in`, `raise-epoch`, `relay replay`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    pub postgres: Postgres,
    #[serde(default)]
    pub log: Log,
}

/// Tasks that need Kafka alone: `redrive`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    pub kafka: Kafka,
    #[serde(default)]
    pub log: Log,
}

/// Tasks on the keys of access tokens: `keys rotate`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    pub postgres: Postgres,
    pub auth: Auth,
    #[serde(default)]
    pub log: Log,
}
