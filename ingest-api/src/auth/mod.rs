//! Proof of who asks: access tokens, device keys, passwords.

pub mod enrolment;
pub mod login;
pub mod passwords;
pub mod principals;
pub mod terminal_token;
pub mod tokens;

pub use login::{FirstOwner, create_owner};

use std::sync::Arc;

use runtime::config::ConfigError;
use secrecy::ExposeSecret as _;

use crate::auth::passwords::Passwords;
use crate::auth::principals::Principals;
use crate::auth::tokens::{Claims, Tokens};
use crate::error::ApiError;
use crate::page::Cursors;

/// Everything that signs, verifies or hashes; one per process.
pub struct Auth {
    pub tokens: Tokens,
    pub passwords: Passwords,
    pub cursors: Cursors,
    principals: Principals,
}

impl Auth {
    /// Reads the signing key: a [`ConfigError`] when it is no Ed25519 key in PKCS#8 PEM.
    pub fn new(config: &runtime::config::Auth) -> anyhow::Result<Arc<Self>> {
        let pem = config.signing_key.expose_secret();
        let unusable =
            |error| ConfigError::new(format!("VORCA__AUTH__SIGNING_KEY (or ..._FILE) is not usable: {error:#}"));
        Ok(Arc::new(Auth {
            tokens: Tokens::from_pem(pem, &config.issuer).map_err(unusable)?,
            passwords: Passwords::new()?,
            cursors: Cursors::new(pem.as_bytes()),
            principals: Principals::default(),
        }))
    }

    /// The claims of a token that is genuine, in force and meant for this API; 401 otherwise.
    pub fn verify(&self, token: &str) -> Result<Claims, ApiError> {
        self.tokens.verify(token).ok_or_else(ApiError::unauthenticated)
    }

    /// The principal of these claims as Postgres knows it now (at most a second ago).
    pub async fn principal(&self, pool: &sqlx::PgPool, claims: &Claims) -> Result<crate::access::Principal, ApiError> {
        self.principals.find(pool, claims).await
    }
}
