//! Secrets that have to be read again lie in Postgres sealed: AES-256-GCM under keys derived from the configured key,
//! which is in no table and no backup.

use anyhow::anyhow;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};

const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;

/// What a seal is for; a sealed text opens for its own purpose only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    SecondFactor,
    SigningKey,
    /// The refresh token after another one, which is the `owner`: without it nobody opens this.
    Successor,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Purpose::SecondFactor => b"second factor",
            Purpose::SigningKey => b"signing key",
            Purpose::Successor => b"successor",
        }
    }
}

/// Seals and opens. Nodes with the same configured key open what the others sealed.
pub struct Seals {
    root: Prk,
}

impl Seals {
    pub fn new(secret: &[u8]) -> Self {
        Seals { root: Salt::new(HKDF_SHA256, b"vorca sealed secrets").extract(secret) }
    }

    /// `plain` so that only [`Seals::open`] with the same purpose and owner gives it back.
    pub fn seal(&self, purpose: Purpose, owner: &[u8], plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self
            .key(purpose, owner)?
            .seal_in_place_append_tag(Aad::empty(), &mut sealed)
            .map_err(|_| anyhow!("sealing failed"))?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// What was sealed; an error when it was altered, or sealed for something else or under another key.
    pub fn open(&self, purpose: Purpose, owner: &[u8], sealed: &[u8]) -> anyhow::Result<Vec<u8>> {
        let unreadable = || anyhow!("it was sealed under another key, or altered");
        let (nonce, text) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(unreadable)?;
        let mut text = text.to_vec();
        let plain = self
            .key(purpose, owner)?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut text)
            .map_err(|_| unreadable())?;
        Ok(plain.to_vec())
    }

    fn key(&self, purpose: Purpose, owner: &[u8]) -> anyhow::Result<RandomizedNonceKey> {
        let mut key = [0; KEY_BYTES];
        self.root
            .expand(&[purpose.label(), b"\0", owner], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .map_err(|_| anyhow!("deriving a key failed"))?;
        RandomizedNonceKey::new(&AES_256_GCM, &key).map_err(|_| anyhow!("the derived key was not accepted"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_owner_and_key_only() {
        let seals = Seals::new(b"root");
        let sealed = seals.seal(Purpose::SecondFactor, b"anna", b"secret").unwrap();
        assert_eq!(Seals::new(b"root").open(Purpose::SecondFactor, b"anna", &sealed).unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, seals.seal(Purpose::SecondFactor, b"anna", b"secret").unwrap(), "a nonce came twice");
        assert!(seals.open(Purpose::SecondFactor, b"bea", &sealed).is_err());
        assert!(seals.open(Purpose::SigningKey, b"anna", &sealed).is_err());
        assert!(Seals::new(b"other").open(Purpose::SecondFactor, b"anna", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(seals.open(Purpose::SecondFactor, b"anna", &altered).is_err(), "byte {at}");
        }
        assert!(seals.open(Purpose::SecondFactor, b"anna", &sealed[..10]).is_err());
    }
}
