//! The keys that sign access tokens. The configured key signs until `ingest-api keys rotate` makes another: a rotation
//! stores a new key, sealed, and says from when it signs and until when the one before is still accepted. Nodes read the
//! table every second, so all of them know a key before it signs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{DecodingKey, EncodingKey};
use runtime::pg::Writer;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::Auth;
use crate::auth::seal::Purpose;
use crate::auth::tokens::{LEEWAY_SECONDS, LIFETIME_SECONDS};
use crate::context::Context;
use crate::db::signing_keys as db;
use crate::edits::json_response;
use crate::error::ApiError;

/// A new key signs this long after it was stored: every node has read it by then.
const SIGNS_AFTER_SECONDS: i64 = 10;
const READ_AGAIN: Duration = Duration::from_secs(1);

/// An Ed25519 key with its id, which is made of its public half.
pub struct SigningKey {
    kid: String,
    public: [u8; 32],
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl SigningKey {
    /// From an Ed25519 private key in PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let der = STANDARD
            .decode(pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect::<String>())
            .map_err(|_| anyhow::anyhow!("it is not PEM"))?;
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|error| anyhow::anyhow!("it is not an Ed25519 key in PKCS#8: {error}"))?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().context("its public half has another size")?;
        Ok(SigningKey {
            kid: kid_of(&public),
            public,
            encoding: EncodingKey::from_ed_der(der),
            decoding: DecodingKey::from_ed_der(&public),
        })
    }

    /// A new one that nobody else has.
    pub fn generate() -> anyhow::Result<Self> {
        Self::from_der(&generated_der()?)
    }

    pub fn kid(&self) -> &str {
        &self.kid
    }
    pub fn encoding(&self) -> &EncodingKey {
        &self.encoding
    }
    pub fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }
}

fn generated_der() -> anyhow::Result<Vec<u8>> {
    let pair = Ed25519KeyPair::generate().map_err(|_| anyhow::anyhow!("making an Ed25519 key failed"))?;
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
        pair.as_der().map_err(|_| anyhow::anyhow!("writing the key failed"))?;
    Ok(der.as_ref().to_vec())
}

fn kid_of(public: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(public)[..12])
}

struct Held {
    key: Arc<SigningKey>,
    signs_from: DateTime<Utc>,
    accepted_until: Option<DateTime<Utc>>,
}

/// The keys a node knows, and when each signs and is accepted.
pub struct Ring {
    held: HashMap<String, Held>,
}

impl Ring {
    /// One key, for ever.
    pub fn of(key: SigningKey) -> Self {
        Self::of_all([(Arc::new(key), DateTime::UNIX_EPOCH, None)])
    }

    fn of_all(keys: impl IntoIterator<Item = (Arc<SigningKey>, DateTime<Utc>, Option<DateTime<Utc>>)>) -> Self {
        let held = keys
            .into_iter()
            .map(|(key, signs_from, accepted_until)| (key.kid.clone(), Held { key, signs_from, accepted_until }));
        Ring { held: held.collect() }
    }

    /// The key that signs now: of those whose time has come, the latest.
    pub fn signing(&self, now: DateTime<Utc>) -> anyhow::Result<Arc<SigningKey>> {
        let begun = self.held.values().filter(|held| held.signs_from <= now && is_accepted(held, now));
        let latest = begun.max_by_key(|held| held.signs_from).context("no signing key is in force")?;
        Ok(Arc::clone(&latest.key))
    }

    /// The key of this id while its tokens are accepted. One that does not sign yet is accepted already: clocks differ.
    pub fn accepted(&self, kid: &str, now: DateTime<Utc>) -> Option<&SigningKey> {
        self.held.get(kid).filter(|held| is_accepted(held, now)).map(|held| held.key.as_ref())
    }
}

fn is_accepted(held: &Held, now: DateTime<Utc>) -> bool {
    held.accepted_until.is_none_or(|until| until > now)
}

/// Reads the table into `auth`. An error when a key was sealed under another configured key.
pub async fn read(auth: &Auth, pool: &PgPool) -> anyhow::Result<()> {
    let mut keys = Vec::new();
    for row in db::list(pool).await? {
        let key = match &row.sealed {
            None if row.kid == auth.configured.kid => Arc::clone(&auth.configured),
            // It signed before the configured key was another one; its tokens are over.
            None => continue,
            Some(sealed) => {
                let der = auth.seals.open(Purpose::SigningKey, row.kid.as_bytes(), sealed);
                Arc::new(SigningKey::from_der(&der.with_context(|| format!("signing key {}", row.kid))?)?)
            }
        };
        keys.push((key, row.signs_from, row.accepted_until));
    }
    if keys.is_empty() {
        keys.push((Arc::clone(&auth.configured), DateTime::UNIX_EPOCH, None));
    }
    auth.tokens.set_ring(Ring::of_all(keys));
    Ok(())
}

/// An error when the configured key is another than the one under which this database holds sealed secrets.
pub async fn require_root(auth: &Auth, pool: &PgPool) -> anyhow::Result<()> {
    match crate::db::second_factors::any(pool).await? {
        Some((user_id, sealed)) => auth.seals.open(Purpose::SecondFactor, user_id.as_bytes(), &sealed).map(drop),
        None => Ok(()),
    }
}

/// Keeps `auth` up to date for as long as it is awaited.
pub async fn follow(auth: Arc<Auth>, pool: PgPool) {
    loop {
        tokio::time::sleep(READ_AGAIN).await;
        if let Err(error) = read(&auth, &pool).await {
            tracing::warn!(error = format!("{error:#}"), "the signing keys could not be read; those of before go on");
        }
    }
}

/// What a rotation did.
#[derive(Debug, Serialize)]
pub struct Rotated {
    pub kid: String,
    pub signs_from: DateTime<Utc>,
    /// Tokens of every earlier key are refused from then on.
    pub others_accepted_until: DateTime<Utc>,
}

/// Makes a new signing key. `at_once`: it signs now and every token of an earlier key is refused from now on. Otherwise
/// it signs when every node knows it, and earlier tokens live to their end; refused (409) while the rotation before
/// goes on, so that two keys are accepted at most.
pub async fn rotate(auth: Arc<Auth>, writer: &Writer, at_once: bool) -> Result<Rotated, ApiError> {
    let der = generated_der().map_err(ApiError::internal)?;
    let key = SigningKey::from_der(&der).map_err(ApiError::internal)?;
    let sealed = auth.seals.seal(Purpose::SigningKey, key.kid.as_bytes(), &der).map_err(ApiError::internal)?;
    let context = Context::of_task("keys-rotate");
    writer
        .write((auth, key, sealed, at_once, context), |tx, (auth, key, sealed, at_once, context)| {
            Box::pin(async move {
                let now = Utc::now();
                db::lock(tx).await?;
                if !at_once && db::is_rotating(tx, now).await? {
                    return Err(ApiError::conflict("illegal_transition", "the rotation before goes on"));
                }
                let wait = if *at_once { 0 } else { SIGNS_AFTER_SECONDS };
                let signs_from = now + TimeDelta::seconds(wait);
                let left = if *at_once { 0 } else { LIFETIME_SECONDS + LEEWAY_SECONDS };
                let others_accepted_until = signs_from + TimeDelta::seconds(left);
                db::note_configured(tx, auth.configured.kid(), &auth.configured.public).await?;
                db::end_others(tx, others_accepted_until).await?;
                db::insert(tx, key.kid(), &key.public, sealed, signs_from).await?;
                let entry = Entry::of_task("key.rotate", format!("signing_key/{}", key.kid));
                audit::record(tx, context, entry).await?;
                Ok(Rotated { kid: key.kid.clone(), signs_from, others_accepted_until })
            })
        })
        .await
}

/// A public key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicKey {
    pub kty: &'static str,
    pub crv: &'static str,
    pub alg: &'static str,
    #[serde(rename = "use")]
    pub use_: &'static str,
    pub kid: String,
    /// 32 bytes, base64url without padding.
    pub x: String,
}

/// The keys whose tokens are accepted.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublicKeys {
    pub keys: Vec<PublicKey>,
}

/// `GET /auth/jwks`
pub async fn list_keys(State(app): State<AppState>) -> Result<Response, ApiError> {
    let (ring, now) = (app.auth.tokens.ring(), Utc::now());
    let mut keys: Vec<PublicKey> = ring
        .held
        .values()
        .filter(|held| is_accepted(held, now))
        .map(|held| PublicKey {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            use_: "sig",
            kid: held.key.kid.clone(),
            x: URL_SAFE_NO_PAD.encode(held.key.public),
        })
        .collect();
    keys.sort_unstable_by(|a, b| a.kid.cmp(&b.kid));
    json_response(StatusCode::OK, &PublicKeys { keys })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_key_whose_time_has_come_signs_and_an_ended_one_is_not_accepted() {
        let now = Utc::now();
        let [old, new] = [(); 2].map(|()| Arc::new(SigningKey::generate().unwrap()));
        let (soon, later) = (now + TimeDelta::seconds(10), now + TimeDelta::seconds(640));
        let ring =
            Ring::of_all([(Arc::clone(&old), DateTime::UNIX_EPOCH, Some(later)), (Arc::clone(&new), soon, None)]);
        assert_eq!(ring.signing(now).unwrap().kid, old.kid);
        assert_eq!(ring.signing(soon).unwrap().kid, new.kid);
        assert!(ring.accepted(&new.kid, now).is_some(), "a node whose clock is ahead signs with it already");
        assert!(ring.accepted(&old.kid, later - TimeDelta::seconds(1)).is_some());
        assert!(ring.accepted(&old.kid, later).is_none());
        assert!(ring.accepted("other", now).is_none());
    }
}
