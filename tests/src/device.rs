//! The Ed25519 key of a device: signs token requests, never leaves the device.

use std::path::Path;

use anyhow::Context;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::endpoints::write_private;

/// DER of an Ed25519 PKCS#8 private key up to its 32 secret bytes.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A device's signing key.
pub struct DeviceKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl DeviceKey {
    /// A fresh random key.
    pub fn generate() -> anyhow::Result<DeviceKey> {
        DeviceKey::from_seed(rand::random())
    }

    /// The key of one of many simulated devices: derived from a secret and the terminal's id.
    pub fn derive(secret: &[u8], terminal_id: Uuid) -> anyhow::Result<DeviceKey> {
        let mut hash = Sha256::new();
        hash.update(secret);
        hash.update(terminal_id.as_bytes());
        DeviceKey::from_seed(hash.finalize().into())
    }

    fn from_seed(seed: [u8; 32]) -> anyhow::Result<DeviceKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok().context("the device key was not accepted")?;
        Ok(DeviceKey { seed, pair })
    }

    /// The public half as enrolment takes it: base64url without padding, 32 bytes.
    pub fn public_base64(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref())
    }

    /// Signature over the token request of a terminal, base64url.
    pub fn sign_token_request(&self, terminal_id: Uuid, issued_at: &str, nonce: &str) -> String {
        self.sign(&format!("vorca-terminal-token\n{terminal_id}\n{issued_at}\n{nonce}"))
    }

    /// Signature over the refresh of a session that is bound to this device, base64url.
    pub fn sign_refresh(&self, refresh_token: &str, issued_at: &str) -> String {
        self.sign(&format!("vorca-refresh\n{refresh_token}\n{issued_at}"))
    }

    fn sign(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()).as_ref())
    }

    /// Signature over a person's PIN at this terminal, base64url.
    pub fn sign_pin(&self, terminal_id: Uuid, code: &str, pin: &str) -> String {
        let text = format!("vorca-pin\n{terminal_id}\n{code}\n{pin}");
        URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()).as_ref())
    }

    /// Writes the private key as PKCS#8 PEM, the form `openssl pkeyutl` signs with.
    pub fn write_pem(&self, path: &Path) -> anyhow::Result<()> {
        let der = [&PKCS8_PREFIX[..], &self.seed[..]].concat();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        write_private(path, pem.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_key_is_the_same_again_and_another_for_another_terminal() {
        let [a, b] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let public = |id| DeviceKey::derive(b"secret", id).unwrap().public_base64();
        assert_eq!(public(a), public(a));
        assert_ne!(public(a), public(b));
    }

    #[test]
    fn the_pem_is_read_back_as_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device.pem");
        let key = DeviceKey::generate().unwrap();
        key.write_pem(&path).unwrap();
        let pem = std::fs::read_to_string(&path).unwrap();
        let der = STANDARD.decode(pem.lines().nth(1).unwrap()).unwrap();
        let again = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
        assert_eq!(again.public_key().as_ref(), key.pair.public_key().as_ref());
    }
}
