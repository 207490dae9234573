//! Personal data under keys: each member has a data key of its own; the key store keeps it wrapped by a master key; the
//! platform's database holds what the data key sealed. Destroying the data key is erasing the person, in every copy.
//!
//! [`seal`] is the cryptography (AES-256-GCM, pure but for its random nonces), [`Vault`] the key store.

pub mod rotate;
pub mod seal;

use anyhow::anyhow;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::config::{ConfigError, Privacy};
use secrecy::{ExposeSecret as _, SecretBox};
use sqlx::PgPool;
use uuid::Uuid;

use crate::db::vault as db;
use crate::error::ApiError;
use seal::{DataKey, Key, Sealed};

/// Bytes of every key.
pub const KEY_BYTES: usize = 32;

/// The master keys: the first wraps, the others still unwrap.
pub struct MasterKeys {
    keys: Vec<(String, Key)>,
}

impl MasterKeys {
    /// From their text: 32 bytes in Base64 each, apart by commas or blanks.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let unusable = || {
            ConfigError::new(
                "VORCA__PRIVACY__MASTER_KEYS (or ..._FILE) is not usable: expected keys of 32 bytes in Base64"
                    .to_owned(),
            )
        };
        let texts = text.split([',', ' ', '\n', '\r', '\t']).filter(|text| !text.is_empty());
        let keys = texts.map(|text| {
            let bytes = decode(text)?;
            Some((fingerprint(&bytes), Key::new(&bytes)))
        });
        let keys: Vec<_> = keys.collect::<Option<_>>().filter(|keys: &Vec<_>| !keys.is_empty()).ok_or_else(unusable)?;
        Ok(MasterKeys { keys })
    }

    /// The fingerprint of the one that wraps.
    pub fn current(&self) -> &str {
        &self.keys[0].0
    }

    fn named(&self, fingerprint: &str) -> Result<&Key, ApiError> {
        let known = self.keys.iter().find(|(name, _)| name == fingerprint);
        known.map(|(_, key)| key).ok_or_else(|| {
            unreadable(anyhow!("no master key with fingerprint {fingerprint} in VORCA__PRIVACY__MASTER_KEYS"))
        })
    }

    fn wrap(&self, customer: Uuid, key: &SecretBox<[u8; KEY_BYTES]>) -> Sealed {
        self.keys[0].1.seal(&key_context(customer), key.expose_secret())
    }

    fn unwrap(&self, stored: &db::StoredKey) -> Result<SecretBox<[u8; KEY_BYTES]>, ApiError> {
        let sealed = Sealed { nonce: stored.nonce.clone(), ciphertext: stored.wrapped.clone() };
        let opened = self.named(&stored.master_key)?.open(&key_context(stored.customer_id), sealed);
        let bytes = opened.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok());
        bytes
            .map(|bytes| SecretBox::new(Box::new(bytes)))
            .ok_or_else(|| unreadable(anyhow!("the data key of member {} does not unwrap", stored.customer_id)))
    }
}

fn decode(text: &str) -> Option<[u8; KEY_BYTES]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

/// Names a key without telling it: eight bytes of an HMAC under the key itself.
fn fingerprint(key: &[u8; KEY_BYTES]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"vorca master key");
    tag.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new key as its text.
pub fn new_key() -> String {
    STANDARD.encode(seal::random::<KEY_BYTES>())
}

/// What the wrapping of a data key is bound to.
fn key_context(customer: Uuid) -> String {
    format!("vorca data key {customer}")
}

/// 503: personal data is there and cannot be read; nothing of it is in the answer.
fn unreadable(source: anyhow::Error) -> ApiError {
    ApiError::unavailable("unavailable", "personal data cannot be read at present").with_source(source)
}

/// What a member can be looked up by, in its one spelling.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contact<'a> {
    Email(&'a str),
    Phone(&'a str),
}

/// HMAC of a contact: equal for equal contacts, and worth nothing without the key.
pub type Digest = Vec<u8>;

/// The key store. Every method is 503 when it cannot be reached.
pub struct Vault {
    pool: PgPool,
    master: MasterKeys,
    lookups: hmac::Key,
}

impl Vault {
    /// A [`ConfigError`] when a key is none. Connects on first use.
    pub fn new(config: &Privacy, pool: PgPool) -> Result<Self, ConfigError> {
        let unusable = || {
            ConfigError::new(
                "VORCA__PRIVACY__LOOKUP_KEY (or ..._FILE) is not usable: expected 32 bytes in Base64".to_owned(),
            )
        };
        let lookups = decode(config.lookup_key.expose_secret()).ok_or_else(unusable)?;
        Ok(Vault {
            pool,
            master: MasterKeys::parse(config.master_keys.expose_secret())?,
            lookups: hmac::Key::new(hmac::HMAC_SHA256, &lookups),
        })
    }

    /// The data key of a member; none when there is none, or when it was destroyed.
    pub async fn key(&self, customer: Uuid) -> Result<Option<DataKey>, ApiError> {
        let Some(stored) = db::find_key(&self.pool, customer).await? else { return Ok(None) };
        let bytes = self.master.unwrap(&stored)?;
        Ok(Some(DataKey::new(stored.key_id, customer, bytes.expose_secret())))
    }

    /// The data key of a member, made when there is none; none when the member was erased.
    pub async fn key_or_new(&self, customer: Uuid) -> Result<Option<DataKey>, ApiError> {
        let wrapped = self.master.wrap(customer, &SecretBox::new(Box::new(seal::random())));
        let stored = db::StoredKey {
            customer_id: customer,
            key_id: Uuid::new_v4(),
            master_key: self.master.current().to_owned(),
            nonce: wrapped.nonce,
            wrapped: wrapped.ciphertext,
        };
        db::insert_key(&self.pool, &stored).await?;
        self.key(customer).await
    }

    /// Forgets the keys of these members and every way to look them up, for ever. Again without effect.
    pub async fn forget(&self, customers: &[Uuid]) -> Result<(), ApiError> {
        Ok(db::forget(&self.pool, customers).await?)
    }

    /// Forgets the keys of these members; they may have new ones.
    pub async fn destroy(&self, customers: &[Uuid]) -> Result<(), ApiError> {
        Ok(db::delete_keys(&self.pool, customers).await?)
    }

    /// In pages by id: whom the key store was told to forget.
    pub async fn erased_after(&self, after: Uuid, limit: i64) -> Result<Vec<Uuid>, ApiError> {
        Ok(db::erased_after(&self.pool, after, limit).await?)
    }

    pub fn digest(&self, contact: Contact) -> Digest {
        let (kind, text) = match contact {
            Contact::Email(text) => ("email", text),
            Contact::Phone(text) => ("phone", text),
        };
        hmac::sign(&self.lookups, format!("{kind}\0{text}").as_bytes()).as_ref().to_vec()
    }

    /// Lets a member be found by these digests too. A digest too many is harmless: who is found is compared.
    pub async fn add_lookups(&self, customer: Uuid, digests: &[Digest]) -> Result<(), ApiError> {
        Ok(db::insert_lookups(&self.pool, customer, digests).await?)
    }

    /// Lets a member be found by no other digests.
    pub async fn keep_lookups(&self, customer: Uuid, digests: &[Digest]) -> Result<(), ApiError> {
        Ok(db::keep_lookups(&self.pool, customer, digests).await?)
    }

    /// Members with this digest, at most `limit`.
    pub async fn find(&self, digest: &Digest, limit: i64) -> Result<Vec<Uuid>, ApiError> {
        Ok(db::find_by_digest(&self.pool, digest, limit).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> MasterKeys {
        MasterKeys::parse(&texts.join("\n")).unwrap()
    }

    fn stored(master: &MasterKeys, customer: Uuid, bytes: [u8; KEY_BYTES]) -> db::StoredKey {
        let wrapped = master.wrap(customer, &SecretBox::new(Box::new(bytes)));
        db::StoredKey {
            customer_id: customer,
            key_id: Uuid::nil(),
            master_key: master.current().to_owned(),
            nonce: wrapped.nonce,
            wrapped: wrapped.ciphertext,
        }
    }

    #[test]
    fn what_an_old_master_key_wrapped_still_unwraps_as_long_as_it_is_listed() {
        let (old, new) = (new_key(), new_key());
        let customer = Uuid::now_v7();
        let wrapped = stored(&keys(&[&old]), customer, [7; KEY_BYTES]);
        let both = keys(&[&new, &old]);
        assert_eq!(both.current(), keys(&[&new]).current());
        assert_eq!(both.unwrap(&wrapped).unwrap().expose_secret(), &[7; KEY_BYTES]);
        let refused = keys(&[&new]).unwrap(&wrapped).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (503, "unavailable"));
        // The key of one member is worth nothing as that of another.
        let stolen = db::StoredKey { customer_id: Uuid::now_v7(), ..wrapped };
        assert_eq!(keys(&[&old]).unwrap(&stolen).unwrap_err().status.as_u16(), 503);
    }

    #[test]
    fn only_keys_of_the_right_size_are_keys_and_no_message_repeats_one() {
        let secret = STANDARD.encode([9u8; 31]);
        for bad in ["", " ,\n", "hello", &secret, &format!("{},{secret}", new_key())] {
            let error = MasterKeys::parse(bad).err().unwrap().to_string();
            assert!(
                error.starts_with("VORCA__PRIVACY__MASTER_KEYS") && (bad.len() < 9 || !error.contains(bad)),
                "{error}"
            );
        }
    }
}
