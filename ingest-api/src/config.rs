//! Every variable that `ingest-api` reads, by role. A role is started with the sections it needs and no others.

use runtime::config::{
    Admin, AuditKeys, AuditSigner, Auth, ClickHouse, Http, Kafka, Log, Postgres, Privacy, Quotas, Redis, Registry,
};
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
    /// For what is known of members; without it these routes answer 503.
    pub privacy: Option<Privacy>,
    #[serde(default)]
    pub budgets: Quotas,
    /// For budgets that several processes share; without it each counts for itself.
    pub redis: Option<Redis>,
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
    /// To finish erasures, and to repeat them after a restore.
    pub privacy: Option<Privacy>,
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
    pub privacy: Option<Privacy>,
    #[serde(default)]
    pub budgets: Quotas,
    pub redis: Option<Redis>,
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
    /// Its key store gets its tables too.
    pub privacy: Option<Privacy>,
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

/// `ingest-api redrive`: Kafka, and Postgres for the row of the audit log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redrive {
    pub postgres: Postgres,
    pub kafka: Kafka,
    #[serde(default)]
    pub log: Log,
}

/// `ingest-api rotate-master-key`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    pub privacy: Privacy,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    /// Whatever prints a configuration, a panic too, prints nothing of these.
    const SECRETS: [(&str, &str); 8] = [
        ("VORCA__POSTGRES__URL", "postgres://vorca:canary-postgres@h/d"),
        ("VORCA__REDIS__URL", "redis://:canary-redis@h:6379/0"),
        ("VORCA__CLICKHOUSE__PASSWORD", "canary-clickhouse"),
        ("VORCA__AUTH__SIGNING_KEY", "canary-signing"),
        ("VORCA__AUDIT__SIGNING_KEY", "canary-audit"),
        ("VORCA__PRIVACY__VAULT_URL", "postgres://vault:canary-vault@h/d"),
        ("VORCA__PRIVACY__MASTER_KEYS", "canary-master"),
        ("VORCA__PRIVACY__LOOKUP_KEY", "canary-lookup"),
    ];
    const OTHERS: [(&str, &str); 6] = [
        ("VORCA__KAFKA__BROKERS", "k:9092"),
        ("VORCA__REGISTRY__URL", "http://r"),
        ("VORCA__HTTP__LISTEN", "127.0.0.1:0"),
        ("VORCA__ADMIN__LISTEN", "127.0.0.1:0"),
        ("VORCA__CLICKHOUSE__URL", "http://c:8123"),
        ("VORCA__CLICKHOUSE__USER", "u"),
    ];

    #[test]
    fn a_configuration_is_printed_without_its_secrets() {
        let vars = SECRETS.iter().chain(&OTHERS).map(|(name, value)| (name.into(), value.into()));
        let all: All = runtime::config::from_vars(vars).unwrap();
        let panicked = catch_unwind(|| panic!("cannot go on with {all:#?}")).unwrap_err();
        for said in [format!("{all:?}"), panicked.downcast_ref::<String>().unwrap().clone()] {
            assert!(said.contains("k:9092") && !said.contains("canary"), "{said}");
        }
    }
}
