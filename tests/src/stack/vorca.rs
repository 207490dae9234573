//! The platform's own processes: which binary, which role, and the environment each one gets (and no more).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::layout::{Identity, Layout};
use super::{Service, clickhouse, http, kafka, postgres, redis, registry};
use crate::endpoints::write_private;

/// One-shot jobs that take an environment like a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// `ingest-api migrate`
    Migrate,
    /// `sinks migrate`
    MigrateClickHouse,
    /// `ingest-api create-owner`, `ingest-api raise-epoch`
    CreateOwner,
    /// `ingest-api worker verify`
    Verify,
    /// `ingest-api redrive`
    Redrive,
    /// `ingest-api rotate-master-key`
    RotateMasterKey,
}

/// Binary and arguments of a long-running role.
pub fn role(service: Service) -> Option<(&'static str, &'static str)> {
    match service {
        Service::Api => Some(("ingest-api", "serve")),
        Service::Relay => Some(("ingest-api", "relay")),
        Service::Worker => Some(("ingest-api", "worker")),
        Service::Stock => Some(("stream-processors", "stock")),
        Service::Loyalty => Some(("stream-processors", "loyalty")),
        Service::ClickHouseSink => Some(("sinks", "clickhouse")),
        Service::ViewSink => Some(("sinks", "view")),
        _ => None,
    }
}

/// Sections of configuration a process may read.
#[derive(Clone, Copy)]
enum Section {
    /// As the application: no ledger can be changed.
    Postgres,
    /// As the relay: the outbox, and how far it was published.
    PostgresRelay,
    /// As the owner of the tables.
    PostgresOwner,
    Kafka,
    Registry,
    Redis,
    /// With the login of users.xml.
    ClickHouse(&'static str),
    Http,
    Budgets,
    Auth,
    AuditKey,
    AuditPublicKey,
    Privacy,
}

use Section::{
    AuditKey, AuditPublicKey, Auth, Budgets, ClickHouse, Http, Kafka, Postgres, PostgresOwner, PostgresRelay, Privacy,
    Redis, Registry,
};

fn sections(service: Service) -> &'static [Section] {
    match service {
        Service::Api => &[Postgres, Http, Auth, Privacy, ClickHouse("vorca_api"), Redis, Budgets],
        Service::Relay => &[PostgresRelay, Kafka],
        Service::Worker => &[Postgres, Kafka, Registry, AuditKey, Privacy],
        Service::Stock | Service::Loyalty => &[Kafka, Registry],
        Service::ClickHouseSink => &[Kafka, Registry, ClickHouse("vorca_sink")],
        Service::ViewSink => &[Kafka, Registry, Redis],
        _ => &[],
    }
}

fn job_sections(job: Job) -> &'static [Section] {
    match job {
        Job::Migrate => &[PostgresOwner, Kafka, Registry, Privacy],
        Job::MigrateClickHouse => &[ClickHouse("vorca_migrate")],
        Job::CreateOwner => &[PostgresOwner],
        Job::Verify => &[Postgres, Kafka, Registry, Redis, ClickHouse("vorca_migrate"), AuditPublicKey],
        Job::Redrive => &[Postgres, Kafka],
        Job::RotateMasterKey => &[Privacy],
    }
}

fn fill(env: &mut BTreeMap<String, String>, layout: &Layout, identity: &Identity, sections: &[Section]) {
    let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
    for section in sections {
        match section {
            Postgres => drop(set("VORCA__POSTGRES__URL", postgres::app_url(identity))),
            PostgresRelay => drop(set("VORCA__POSTGRES__URL", postgres::relay_url(identity))),
            PostgresOwner => drop(set("VORCA__POSTGRES__URL", postgres::vorca_url(identity))),
            Kafka => drop(set("VORCA__KAFKA__BROKERS", kafka::brokers(identity))),
            Registry => drop(set("VORCA__REGISTRY__URL", registry::url(identity))),
            Redis => drop(set("VORCA__REDIS__URL", redis::url(identity))),
            ClickHouse(login) => {
                let name = clickhouse::LOGINS.iter().find(|(.., user)| user == login).map_or("", |(_, name, _)| name);
                set("VORCA__CLICKHOUSE__URL", clickhouse::url(identity));
                set("VORCA__CLICKHOUSE__USER", (*login).to_owned());
                set("VORCA__CLICKHOUSE__PASSWORD", identity.password(name).to_owned());
            }
            Http => drop(set("VORCA__HTTP__LISTEN", format!("127.0.0.1:{}", identity.port("http")))),
            Budgets => {
                for (name, usual) in BUDGETS {
                    let quota = if layout.is_unlimited { UNLIMITED } else { usual };
                    set(&format!("VORCA__BUDGETS__{name}"), quota.to_owned());
                }
            }
            Privacy => {
                set("VORCA__PRIVACY__VAULT_URL", postgres::vault_url(identity));
                for (name, path) in layout.privacy_keys() {
                    set(&format!("VORCA__PRIVACY__{name}_FILE"), path.display().to_string());
                }
            }
            Auth => drop(set("VORCA__AUTH__SIGNING_KEY_FILE", layout.signing_key().display().to_string())),
            AuditKey => drop(set("VORCA__AUDIT__SIGNING_KEY_FILE", layout.audit_key().display().to_string())),
            AuditPublicKey => {
                drop(set("VORCA__AUDIT__PUBLIC_KEYS_FILE", layout.audit_public_key().display().to_string()));
            }
        }
    }
}

/// Budgets of the API's callers, with what they are by default.
pub const BUDGETS: [(&str, &str); 6] = [
    ("TILL", "3000/300"),
    ("REPLAY", "3000/60"),
    ("INTEGRATOR", "1200/60"),
    ("OFFICE", "1200/60"),
    ("SIGN_IN", "30/60"),
    ("PUBLIC", "1200/60"),
];
/// More than anybody can send.
const UNLIMITED: &str = "1000000/1";

/// Admin port of a long-running role.
pub fn admin_port(identity: &Identity, service: Service) -> u16 {
    identity.port(&format!("{}-admin", service.name()))
}

/// The whole `VORCA__` environment of a role.
pub fn env_for(layout: &Layout, identity: &Identity, service: Service) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    if role(service).is_some() {
        fill(&mut env, layout, identity, sections(service));
        env.insert("VORCA__ADMIN__LISTEN".to_owned(), format!("127.0.0.1:{}", admin_port(identity, service)));
    }
    env
}

/// The whole `VORCA__` environment of a one-shot job.
pub fn env_for_job(layout: &Layout, identity: &Identity, job: Job) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    fill(&mut env, layout, identity, job_sections(job));
    env
}

/// A binary of this checkout with exactly this configuration: inherited `VORCA__` variables would be refused or, worse, used.
#[expect(clippy::disallowed_methods, reason = "looks for what a child must not inherit")]
pub fn binary(layout: &Layout, name: &str, env: BTreeMap<String, String>) -> Command {
    let mut command = Command::new(layout.bin.join(name));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("VORCA__") && key != "VORCA__LOG__LEVEL" {
            command.env_remove(key);
        }
    }
    command.envs(env).current_dir(&layout.run);
    command
}

pub fn prepare(layout: &Layout, service: Service) -> Result<()> {
    layout.service(service.name()).map(drop)
}

pub fn command(layout: &Layout, identity: &Identity, service: Service) -> Result<Command> {
    let (name, argument) = role(service).with_context(|| format!("{service} is not a process of ours"))?;
    let mut command = binary(layout, name, env_for(layout, identity, service));
    command.arg(argument);
    Ok(command)
}

pub fn is_ready(identity: &Identity, service: Service) -> bool {
    http::get(admin_port(identity, service), "/readyz").is_some_and(|answer| answer.status == 200)
}

/// The keys of personal data, made once per run folder.
pub fn make_privacy_keys(layout: &Layout) -> Result<()> {
    fs::create_dir_all(&layout.run)?;
    for (_, path) in layout.privacy_keys().into_iter().filter(|(_, path)| !path.exists()) {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).ok().context("random bytes")?;
        write_private(&path, STANDARD.encode(bytes).as_bytes())?;
    }
    Ok(())
}

/// The keys that sign access tokens and the audit log, and the public one of the latter; made once per run folder.
pub fn make_keys(layout: &Layout) -> Result<()> {
    fs::create_dir_all(&layout.run)?;
    if !layout.signing_key().exists() {
        make_key(&layout.signing_key())?;
    }
    if !layout.audit_public_key().exists() {
        let public = make_key(&layout.audit_key())?;
        fs::write(layout.audit_public_key(), STANDARD.encode(public) + "\n")?;
    }
    Ok(())
}

/// The public key of the audit log; empty before the first start.
pub fn audit_public_key(layout: &Layout) -> String {
    fs::read_to_string(layout.audit_public_key()).unwrap_or_default().trim().to_owned()
}

/// An Ed25519 key in PKCS#8 PEM; its public part.
fn make_key(path: &Path) -> Result<Vec<u8>> {
    let pair = Ed25519KeyPair::generate().ok().context("making an Ed25519 key")?;
    let document = pair.to_pkcs8v1().ok().context("writing an Ed25519 key")?;
    let encoded = STANDARD.encode(document.as_ref());
    let mut lines = vec!["-----BEGIN PRIVATE KEY-----"];
    lines.extend(encoded.as_bytes().chunks(64).filter_map(|chunk| std::str::from_utf8(chunk).ok()));
    lines.push("-----END PRIVATE KEY-----\n");
    write_private(path, lines.join("\n").as_bytes())?;
    Ok(pair.public_key().as_ref().to_vec())
}
