//! Passwords: argon2id, 19 MiB, two passes. Hashing is bounded, so that a storm of log-ins costs a known
//! share of the machine and the rest is told to come back.

use std::sync::Arc;

use anyhow::Context as _;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Longer ones are refused before they are hashed.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Shorter ones are not accepted as new passwords.
pub const PASSWORD_CHARS_MIN: usize = 10;
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const AT_ONCE: usize = 2;
const WAITING_MAX: usize = 50;

/// The bounded hasher.
pub struct Passwords {
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
    argon: Argon2<'static>,
    /// Verified against when there is no such user, so that the answer takes as long.
    nobody: String,
}

impl Passwords {
    pub fn new() -> anyhow::Result<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).context("argon2 parameters")?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = argon.hash_password(b"nobody has this password").context("argon2")?.to_string();
        Ok(Passwords {
            places: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)),
            running: Arc::new(Semaphore::new(AT_ONCE)),
            argon,
            nobody,
        })
    }

    /// The hash to store, with its salt and parameters.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        let argon = self.argon.clone();
        self.run(move || argon.hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| ApiError::internal(anyhow::anyhow!("argon2: {error}")))
    }

    /// Whether the password belongs to the stored hash; always costs one hash, also without one.
    pub async fn is_right(&self, password: String, stored: Option<String>) -> Result<bool, ApiError> {
        let argon = self.argon.clone();
        let (hash, is_somebody) = match stored {
            Some(hash) => (hash, true),
            None => (self.nobody.clone(), false),
        };
        self.run(move || {
            let is_match =
                PasswordHash::new(&hash).is_ok_and(|hash| argon.verify_password(password.as_bytes(), &hash).is_ok());
            is_match && is_somebody
        })
        .await
    }

    /// Runs one hash off the async threads; 503 when too many wait. The permits travel with the work,
    /// since it goes on when its caller has left.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let full = || ApiError::unavailable("overloaded", "too many log-ins are waiting");
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| full())?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| full())?;
        let task = tokio::task::spawn_blocking(move || {
            let _held = (place, running);
            work()
        });
        task.await.map_err(ApiError::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords.hash("correct horse".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.is_right("correct horse".into(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.is_right("correct horsf".into(), Some(stored)).await.unwrap());
        assert!(!passwords.is_right("nobody has this password".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_storm_is_told_to_come_back() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let storm = (0..AT_ONCE + WAITING_MAX + 20).map(|_| {
            let passwords = Arc::clone(&passwords);
            async move { passwords.run(|| std::thread::sleep(std::time::Duration::from_millis(2))).await }
        });
        let results = futures::future::join_all(storm).await;
        let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 20);
        assert!(refused.iter().all(|problem| problem.status == 503 && problem.code == "overloaded"));
    }
}
