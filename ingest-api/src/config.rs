//! Every variable that `ingest-api` reads, by role. A role is started with the sections it needs and no others.

use runtime::config::{
    Admin, AuditKeys, AuditSigner, Auth, ClickHouse, Http, Kafka, Log, Postgres, Privacy, Redis, Registry,
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

    const SECRET: &str = "never-to-be-shown";

    /// Every section that holds a secret, as it may end up in a log line.
    #[test]
    fn a_configuration_shows_none_of_its_secrets() {
        let url = |scheme: &str| format!("{scheme}://u:{SECRET}@h:1/0");
        let vars = |more: &[(&str, &str)]| {
            let all = [
                ("POSTGRES__URL", url("postgres")),
                ("KAFKA__BROKERS", "h:1".to_owned()),
                ("REGISTRY__URL", "http://h:1".to_owned()),
                ("CLICKHOUSE__URL", "http://h:1".to_owned()),
                ("CLICKHOUSE__USER", "u".to_owned()),
                ("CLICKHOUSE__PASSWORD", SECRET.to_owned()),
            ];
            let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
            let all = all.into_iter().chain(more);
            all.map(|(name, value)| (format!("VORCA__{name}").into(), value.into())).collect::<Vec<_>>()
        };
        let process: All = runtime::config::from_vars(vars(&[
            ("HTTP__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("AUDIT__SIGNING_KEY", SECRET),
            ("AUTH__SIGNING_KEY", SECRET),
            ("PRIVACY__VAULT_URL", &url("postgres")),
            ("PRIVACY__MASTER_KEYS", SECRET),
            ("PRIVACY__LOOKUP_KEY", SECRET),
        ]))
        .unwrap();
        let check: Verify =
            runtime::config::from_vars(vars(&[("REDIS__URL", &url("redis")), ("AUDIT__PUBLIC_KEYS", "k")])).unwrap();
        for shown in [format!("{process:?} {process:#?}"), format!("{check:?} {check:#?}")] {
            assert!(shown.contains("brokers") && !shown.contains(SECRET), "{shown}");
        }
    }
}
