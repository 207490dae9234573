//! Where a running platform is reached: written by the supervisor as `endpoints.json` in its run
//! directory, read by everything that sells, looks or checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Environment variable naming the `endpoints.json` of the platform a test run uses.
pub const ENDPOINTS_VARIABLE: &str = "VORCA_DEV_ENDPOINTS";

/// Addresses and credentials of one running platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    /// Root of the public API without `/api/v1`, for instance `http://127.0.0.1:8080`.
    pub api: String,
    pub postgres: String,
    /// Bootstrap address of the broker.
    pub kafka: String,
    /// Base URL of the Confluent-compatible schema registry.
    pub registry: String,
    pub redis: String,
    /// HTTP address of ClickHouse.
    pub clickhouse: String,
    /// Native protocol address of ClickHouse, where the server offers one.
    #[serde(default)]
    pub clickhouse_native: Option<String>,
    #[serde(default)]
    pub analyst: Credentials,
    /// Role of a process (`serve`, `relay`, `stock` ...) to its admin address, `http://127.0.0.1:port`.
    #[serde(default)]
    pub admin: BTreeMap<String, String>,
    /// Where `ingest-api`, `stream-processors` and `sinks` lie.
    pub bin_dir: PathBuf,
    /// State of this clone: keys, journals, reports. Private to its user.
    pub run_dir: PathBuf,
    /// The first Owner, as `create-owner` printed it.
    #[serde(default)]
    pub owner: Credentials,
}

/// A login and its password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    pub login: String,
    pub password: String,
    /// Base32, where the second factor was set up elsewhere; what this clone set up is kept with its session.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub totp_secret: String,
}

impl Endpoints {
    /// Reads an `endpoints.json`.
    pub fn read(path: &Path) -> anyhow::Result<Endpoints> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not an endpoints file", path.display()))
    }

    /// Writes it atomically, readable by the user alone.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_private(path, &serde_json::to_vec_pretty(self)?)
    }

    /// The platform that `./dev test` started for this test run.
    #[expect(clippy::disallowed_methods, reason = "this is the configuration of a test run")]
    pub fn from_env() -> anyhow::Result<Endpoints> {
        let path = std::env::var_os(ENDPOINTS_VARIABLE)
            .with_context(|| format!("{ENDPOINTS_VARIABLE} is not set: run ./dev test"))?;
        Endpoints::read(Path::new(&path))
    }
}

/// Writes a file that only its owner may read: into a temporary name first, then renamed.
pub fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let mut name = path.file_name().context("a file needs a name")?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("cannot write {}", temporary.display()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}
