//! Change of the master key: every data key is unwrapped and wrapped again by the first of the listed ones. Runs beside
//! a working platform, and again without effect.

use std::collections::BTreeMap;
use std::fmt;

use runtime::config::Privacy;
use sqlx::PgPool;

use super::Vault;
use crate::db::vault as db;
use crate::error::ApiError;

const AT_ONCE: i64 = 500;

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Fingerprint of the key that wraps now.
    pub current: String,
    /// Data keys taken over, by the fingerprint of the key that wrapped them.
    pub from: BTreeMap<String, u64>,
}

/// Wraps every data key with the current master key.
pub async fn rotate(config: &Privacy, pool: PgPool) -> anyhow::Result<Rotated> {
    let vault = Vault::new(config, pool)?;
    vault.rotate().await.map_err(|error| anyhow::anyhow!("{error}"))
}

impl Vault {
    /// Wraps every data key with the current master key; stops at one whose master key is not listed.
    pub async fn rotate(&self) -> Result<Rotated, ApiError> {
        let mut done = Rotated { current: self.master.current().to_owned(), from: BTreeMap::new() };
        loop {
            let page = db::keys_of_others(&self.pool, self.master.current(), AT_ONCE).await?;
            if page.is_empty() {
                return Ok(done);
            }
            for old in page {
                let wrapped = self.master.wrap(old.customer_id, &self.master.unwrap(&old)?);
                let new = db::StoredKey {
                    master_key: self.master.current().to_owned(),
                    nonce: wrapped.nonce,
                    wrapped: wrapped.ciphertext,
                    ..old.clone()
                };
                if db::replace_key(&self.pool, &old.master_key, &new).await? {
                    *done.from.entry(old.master_key).or_default() += 1;
                }
            }
        }
    }
}

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (old, keys) in &self.from {
            writeln!(f, "{keys} data keys were wrapped by {old}")?;
        }
        write!(f, "every data key is wrapped by {}; the other master keys may be taken off the list", self.current)
    }
}
