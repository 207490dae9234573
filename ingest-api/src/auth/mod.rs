//! Proof of who asks: passwords, second factors, sessions and their tokens, device keys, PINs, API clients.

pub mod account;
pub mod attempts;
pub mod clients;
pub mod codes;
pub mod enrolment;
pub mod first_owner;
pub mod hashers;
pub mod keys;
pub mod leases;
pub mod login;
pub mod passwords;
pub mod pin;
pub mod policy;
pub mod principals;
pub mod refresh;
pub mod refusals;
pub mod seal;
pub mod second_factor;
pub mod sessions;
pub mod step_up;
pub mod terminal_token;
pub mod tokens;
pub mod totp;

pub use first_owner::{FirstOwner, create_owner};

use std::sync::Arc;

use runtime::config::ConfigError;
use runtime::pg::PgTx;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::access::{Access, Principal};
use crate::auth::keys::SigningKey;
use crate::auth::passwords::Passwords;
use crate::auth::principals::Principals;
use crate::auth::seal::Seals;
use crate::auth::tokens::{Claims, Tokens};
use crate::error::ApiError;
use crate::page::Cursors;
use crate::users::{User, is_in_charge};

/// Everything that signs, verifies, seals or hashes; one per process.
pub struct Auth {
    pub tokens: Tokens,
    pub passwords: Passwords,
    pub pins: Passwords,
    pub cursors: Cursors,
    pub seals: Seals,
    /// Signs until the first rotation; what is sealed hangs on it for ever.
    configured: Arc<SigningKey>,
    principals: Principals,
}

impl Auth {
    /// Reads the signing key: a [`ConfigError`] when it is no Ed25519 key in PKCS#8 PEM.
    pub fn new(config: &runtime::config::Auth) -> anyhow::Result<Arc<Self>> {
        let pem = config.signing_key.expose_secret();
        let unusable =
            |error| ConfigError::new(format!("VORCA__AUTH__SIGNING_KEY (or ..._FILE) is not usable: {error:#}"));
        Ok(Arc::new(Auth {
            tokens: Tokens::new(SigningKey::from_pem(pem).map_err(unusable)?, &config.issuer),
            passwords: Passwords::new()?,
            pins: Passwords::of_pins()?,
            cursors: Cursors::new(pem.as_bytes()),
            seals: Seals::new(pem.trim().as_bytes()),
            configured: Arc::new(SigningKey::from_pem(pem).map_err(unusable)?),
            principals: Principals::default(),
        }))
    }

    /// The claims of a token that is genuine, in force and meant for this API; 401 otherwise.
    pub fn verify(&self, token: &str) -> Result<Claims, ApiError> {
        self.tokens.verify(token).ok_or_else(ApiError::unauthenticated)
    }

    /// The principal of these claims as Postgres knows it now (at most a second ago).
    pub async fn principal(&self, pool: &sqlx::PgPool, claims: &Claims) -> Result<Principal, ApiError> {
        self.principals.find(pool, claims).await
    }
}

/// A user whom the caller looks after, locked until the transaction ends; 404 for any other.
pub async fn in_charge(tx: &mut PgTx, access: &Access, user_id: Uuid) -> Result<User, ApiError> {
    crate::db::credentials::lock(tx, user_id).await?;
    let user = crate::db::users::find(tx, user_id).await?.filter(|user| is_in_charge(access, &user.grants));
    user.ok_or_else(|| ApiError::not_found("user"))
}
