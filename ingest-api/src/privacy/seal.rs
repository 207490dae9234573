//! AES-256-GCM with a random nonce. What is sealed is bound to a context (who and what it is): it does not open as
//! anything else.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use uuid::Uuid;

use super::KEY_BYTES;

/// A nonce and what it sealed, the tag at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub nonce: Vec<u8>,
    pub ciphertext: Vec<u8>,
}

/// A key that never shows itself.
pub struct Key(RandomizedNonceKey);

impl Key {
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Key(RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("a key of 32 bytes"))
    }

    /// Fails only for a text of 64 GB.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Sealed {
        let mut text = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(context.as_bytes()), &mut text).expect("sealing");
        Sealed { nonce: nonce.as_ref().to_vec(), ciphertext: text }
    }

    /// None when another key sealed it, in another context, or when a bit of it changed.
    pub fn open(&self, context: &str, sealed: Sealed) -> Option<Vec<u8>> {
        let nonce = <[u8; NONCE_LEN]>::try_from(sealed.nonce.as_slice()).ok()?;
        let mut text = sealed.ciphertext;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = self.0.open_in_place(nonce, Aad::from(context.as_bytes()), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }
}

/// Random bytes fit for keys.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("random bytes");
    bytes
}

/// The key of one member.
pub struct DataKey {
    pub key_id: Uuid,
    customer: Uuid,
    key: Key,
}

impl DataKey {
    pub fn new(key_id: Uuid, customer: Uuid, bytes: &[u8; KEY_BYTES]) -> Self {
        DataKey { key_id, customer, key: Key::new(bytes) }
    }

    pub fn seal(&self, field: &str, plain: &[u8]) -> Sealed {
        self.key.seal(&self.context(field), plain)
    }

    /// None when it is not this field of this member.
    pub fn open(&self, field: &str, sealed: Sealed) -> Option<Vec<u8>> {
        self.key.open(&self.context(field), sealed)
    }

    fn context(&self, field: &str) -> String {
        format!("vorca member {} {field}", self.customer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_opens_as_itself_alone() {
        let (customer, bytes) = (Uuid::now_v7(), random());
        let key = DataKey::new(Uuid::now_v7(), customer, &bytes);
        let sealed = key.seal("email", b"anna@example.com");
        assert_eq!(key.open("email", sealed.clone()).unwrap(), b"anna@example.com");
        assert_ne!(key.seal("email", b"anna@example.com"), sealed, "no two nonces are the same");
        assert!(!sealed.ciphertext.windows(4).any(|part| part == b"anna"));
        assert_eq!(key.open("phone", sealed.clone()), None, "another field");
        let other = DataKey::new(key.key_id, Uuid::now_v7(), &bytes);
        assert_eq!(other.open("email", sealed.clone()), None, "another member");
        assert_eq!(DataKey::new(key.key_id, customer, &random()).open("email", sealed.clone()), None, "another key");
        for bit in 0..sealed.ciphertext.len() * 8 {
            let mut changed = sealed.clone();
            changed.ciphertext[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open("email", changed), None, "bit {bit}");
        }
        for nonce in [vec![], vec![0; 11], vec![0; 12]] {
            assert_eq!(key.open("email", Sealed { nonce, ..sealed.clone() }), None);
        }
    }
}
