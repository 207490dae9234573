//! A platform that runs elsewhere, described by an environment file (the variables of `.env.example`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::endpoints::{Credentials, Endpoints};
use crate::stack::Layout;

/// `NAME=value` lines; blank lines and `#` comments are skipped, one pair of quotes around a value is dropped.
pub fn read(file: &Path) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut values = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .strip_prefix("export ")
            .unwrap_or(line)
            .split_once('=')
            .with_context(|| format!("{}:{}: not NAME=value", file.display(), number + 1))?;
        let value = value.trim();
        let bare = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        values.insert(name.trim().to_owned(), bare.unwrap_or(value).to_owned());
    }
    Ok(values)
}

/// The addresses in such a file. State of the demonstration goes to a folder of its own beside the checkout's.
pub fn endpoints(file: &Path, layout: &Layout) -> Result<Endpoints> {
    let values = read(file)?;
    let get = |name: &str| {
        let value = values.get(name).filter(|value| !value.is_empty());
        value.cloned().with_context(|| format!("{}: {name} is missing", file.display()))
    };
    let run_dir = layout.service("external")?;
    let admin = values.iter().filter_map(|(name, value)| {
        let role = name.strip_prefix("VORCA_ADMIN_URL_")?;
        Some((role.to_lowercase().replace('_', "-"), value.clone()))
    });
    Ok(Endpoints {
        api: get("VORCA_API_URL")?,
        postgres: get("VORCA__POSTGRES__URL")?,
        kafka: get("VORCA__KAFKA__BROKERS")?,
        registry: get("VORCA__REGISTRY__URL")?,
        redis: get("VORCA__REDIS__URL")?,
        clickhouse: get("VORCA__CLICKHOUSE__URL")?,
        clickhouse_native: values.get("VORCA_CLICKHOUSE_NATIVE").cloned(),
        analyst: Credentials {
            login: "analyst_ro".to_owned(),
            password: get("VORCA_CLICKHOUSE_ANALYST_PASSWORD")?,
            totp_secret: String::new(),
        },
        admin: admin.collect(),
        bin_dir: layout.bin.clone(),
        run_dir,
        owner: Credentials {
            login: get("VORCA_OWNER_LOGIN")?,
            password: get("VORCA_OWNER_PASSWORD")?,
            totp_secret: values.get("VORCA_OWNER_TOTP_SECRET").cloned().unwrap_or_default(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_line_by_line_and_a_bad_line_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# note\n\nA=1\nexport B = \"x=y\"\nC=''\n").unwrap();
        let values = read(file.path()).unwrap();
        assert_eq!(values["A"], "1");
        assert_eq!(values["B"], "x=y");
        assert_eq!(values["C"], "");
        fs::write(file.path(), "A=1\nnonsense\n").unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains(":2: not NAME=value"));
    }
}
