//! Where everything of one checkout lies, and what it keeps for life: ports and passwords.

#![expect(clippy::disallowed_methods, reason = "this is the configuration of the launcher")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::distr::{Alphanumeric, SampleString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ports;
use crate::endpoints::write_private;

/// Every port a run folder owns. Generated configuration is written from these; nothing assumes a well-known port.
const PORTS: &[&str] = &[
    "postgres",
    "redis",
    "kafka",
    "kafka-controller",
    "registry",
    "registry-management",
    "clickhouse-http",
    "clickhouse-tcp",
    "http",
    "api-admin",
    "relay-admin",
    "worker-admin",
    "stock-admin",
    "loyalty-admin",
    "clickhouse-sink-admin",
    "view-sink-admin",
];

const PASSWORDS: &[&str] = &[
    "postgres",
    "vorca",
    "vorca-app",
    "vorca-relay",
    "vorca-vault",
    "registry",
    "redis",
    "clickhouse-migrate",
    "clickhouse-sink",
    "clickhouse-api",
    "clickhouse-analyst",
];

/// The folders of one run: data and logs in `run`, servers in `cache`, our binaries in `bin`.
#[derive(Debug, Clone)]
pub struct Layout {
    pub checkout: PathBuf,
    pub run: PathBuf,
    pub cache: PathBuf,
    pub bin: PathBuf,
    pub java_home: PathBuf,
    pub kafka_home: PathBuf,
    pub registry_home: PathBuf,
    pub clickhouse_home: PathBuf,
    /// What makes requests from the OpenAPI document, as Python modules.
    pub fuzzer_home: PathBuf,
    /// Removed when its supervisor ends.
    pub throwaway: bool,
    /// Its API refuses nobody for asking too often.
    pub is_unlimited: bool,
}

/// What a run folder keeps for life, readable by its owner only.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Identity {
    ports: BTreeMap<String, u16>,
    passwords: BTreeMap<String, String>,
    kafka_cluster: String,
}

impl Identity {
    pub fn port(&self, name: &str) -> u16 {
        *self.ports.get(name).unwrap_or_else(|| panic!("PORTS lacks {name}"))
    }

    pub fn password(&self, name: &str) -> &str {
        self.passwords.get(name).unwrap_or_else(|| panic!("PASSWORDS lacks {name}"))
    }

    /// Kafka's cluster id: 16 random bytes in URL-safe base64.
    pub fn kafka_cluster(&self) -> &str {
        &self.kafka_cluster
    }
}

#[cfg(test)]
impl Identity {
    /// Some identity, for tests of what is generated from one.
    pub(super) fn example() -> Identity {
        Identity {
            ports: PORTS.iter().map(|name| ((*name).to_owned(), 1)).collect(),
            passwords: PASSWORDS.iter().map(|name| ((*name).to_owned(), "secret".to_owned())).collect(),
            kafka_cluster: String::new(),
        }
    }
}

#[cfg(test)]
impl Layout {
    pub(super) fn example() -> Layout {
        let nowhere = PathBuf::from("/nonexistent");
        Layout {
            checkout: nowhere.clone(),
            run: nowhere.clone(),
            cache: nowhere.clone(),
            bin: nowhere.clone(),
            java_home: nowhere.clone(),
            kafka_home: nowhere.clone(),
            registry_home: nowhere.clone(),
            clickhouse_home: nowhere.clone(),
            fuzzer_home: nowhere,
            throwaway: true,
            is_unlimited: false,
        }
    }
}

fn folder(variable: &str, root: &str, home: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    if nix::unistd::geteuid().is_root() {
        return root.into();
    }
    PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(home)
}

/// The checkout: named by `./dev`, else the folder above that holds the launcher.
fn checkout() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VORCA_CHECKOUT") {
        return Ok(path.into());
    }
    let here = std::env::current_dir().context("current folder")?;
    let found = here.ancestors().find(|folder| folder.join("dev").is_file() && folder.join("Cargo.toml").is_file());
    found.map(Path::to_path_buf).context("not inside a Vorca checkout: no ./dev above the current folder")
}

fn binaries() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VORCA_BIN_DIR") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe().context("own path")?;
    let folder = exe.parent().context("own folder")?;
    Ok(if folder.ends_with("deps") {
        folder.parent().context("target folder")?.to_path_buf()
    } else {
        folder.to_path_buf()
    })
}

impl Layout {
    /// The run folder of this checkout, or the one named by `VORCA_RUN_DIR` (a throwaway stack of a test).
    pub fn of_checkout() -> Result<Layout> {
        let checkout = checkout()?;
        let run = match std::env::var_os("VORCA_RUN_DIR") {
            Some(run) => run.into(),
            None => Self::state_home().join(fingerprint(&checkout)),
        };
        Self::at(checkout, run, false)
    }

    /// A fresh run folder beside the checkout's own, for a stack that is thrown away.
    pub fn throwaway(purpose: &str) -> Result<Layout> {
        let checkout = checkout()?;
        let name = format!("{}-{purpose}-{}", fingerprint(&checkout), std::process::id());
        let run = Self::state_home().join(name);
        Self::at(checkout, run, true)
    }

    /// For what asks more of the API in a minute than its callers would in a day.
    pub fn unlimited(self) -> Layout {
        Layout { is_unlimited: true, ..self }
    }

    /// The folder a supervisor was told to run.
    pub fn of_run(run: PathBuf, throwaway: bool) -> Result<Layout> {
        Self::at(checkout()?, run, throwaway)
    }

    fn state_home() -> PathBuf {
        folder("VORCA_STATE_DIR", "/var/lib/vorca", ".local/state/vorca")
    }

    fn at(checkout: PathBuf, run: PathBuf, throwaway: bool) -> Result<Layout> {
        let cache = folder("VORCA_CACHE_DIR", "/var/cache/vorca", ".cache/vorca");
        let server = |variable: &str, prefix: &str| -> Result<PathBuf> {
            match std::env::var_os(variable) {
                Some(path) => Ok(path.into()),
                None => newest(&cache, prefix),
            }
        };
        Ok(Layout {
            java_home: server("VORCA_JAVA_HOME", "java-")?,
            kafka_home: server("VORCA_KAFKA_HOME", "kafka-")?,
            registry_home: server("VORCA_REGISTRY_HOME", "registry-")?,
            clickhouse_home: server("VORCA_CLICKHOUSE_HOME", "clickhouse-")?,
            fuzzer_home: server("VORCA_FUZZER_HOME", "fuzzer-")?,
            bin: binaries()?,
            checkout,
            run,
            cache,
            throwaway,
            is_unlimited: false,
        })
    }

    /// `<run>/<service>`, made when missing and open to others for passing through (Postgres runs as its own user).
    pub fn service(&self, name: &str) -> Result<PathBuf> {
        let path = self.run.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.run.join(name).join("log")
    }

    pub fn socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    pub fn state_file(&self) -> PathBuf {
        self.run.join("state.json")
    }

    pub fn signing_key(&self) -> PathBuf {
        self.run.join("signing-key.pem")
    }

    /// What personal data is kept under: the master key, and the key of look-ups.
    pub fn privacy_keys(&self) -> [(&'static str, PathBuf); 2] {
        ["MASTER_KEYS", "LOOKUP_KEY"].map(|name| (name, self.run.join(format!("privacy-{}", name.to_lowercase()))))
    }

    /// Private key of the audit log.
    pub fn audit_key(&self) -> PathBuf {
        self.run.join("audit-key.pem")
    }

    /// Its public key, as `verify` reads it.
    pub fn audit_public_key(&self) -> PathBuf {
        self.run.join("audit-key.pub")
    }

    pub fn java(&self) -> PathBuf {
        self.java_home.join("bin/java")
    }

    /// What an earlier start wrote; an error says that nothing was ever started here.
    pub fn identity(&self) -> Result<Identity> {
        let path = self.run.join("identity.json");
        let text = fs::read(&path)
            .with_context(|| format!("nothing was started from this checkout yet ({})", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Reads or makes the identity. Called with nothing running: a port that somebody else took meanwhile is replaced.
    pub fn settle_identity(&self) -> Result<Identity> {
        fs::create_dir_all(&self.run).with_context(|| format!("making {}", self.run.display()))?;
        fs::set_permissions(&self.run, fs::Permissions::from_mode(0o755))?;
        let kept = self.identity().unwrap_or_default();
        let mut next = Identity { ports: ports::assign(PORTS, &kept.ports, &self.ports_of_others())?, ..kept };
        for name in PASSWORDS {
            let random = || Alphanumeric.sample_string(&mut rand::rng(), 24);
            next.passwords.entry((*name).to_owned()).or_insert_with(random);
        }
        if next.kafka_cluster.is_empty() {
            use base64::Engine as _;
            // A leading dash would be read as an option by Kafka's format tool.
            let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
            next.kafka_cluster = encoded.replacen('-', "A", 1);
        }
        write_private(&self.run.join("identity.json"), &serde_json::to_vec_pretty(&next)?)?;
        Ok(next)
    }

    fn ports_of_others(&self) -> BTreeSet<u16> {
        let mut taken = BTreeSet::new();
        let Some(siblings) = self.run.parent().and_then(|home| fs::read_dir(home).ok()) else { return taken };
        for sibling in siblings.flatten().filter(|entry| entry.path() != self.run) {
            let identity = fs::read(sibling.path().join("identity.json")).ok();
            if let Some(identity) = identity.and_then(|text| serde_json::from_slice::<Identity>(&text).ok()) {
                taken.extend(identity.ports.values());
            }
        }
        taken
    }
}

/// Twelve hex digits of the checkout's path.
fn fingerprint(checkout: &Path) -> String {
    let digest = Sha256::digest(checkout.as_os_str().as_encoded_bytes());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn newest(cache: &Path, prefix: &str) -> Result<PathBuf> {
    let entries =
        fs::read_dir(cache).with_context(|| format!("no downloads in {}: run ./dev once", cache.display()))?;
    let complete = entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            && path.join(".complete").exists()
    });
    complete.max().with_context(|| format!("no {prefix}* in {}: run ./dev once", cache.display()))
}
