//! Ed25519 over heads of chains and roots of days: what is signed, by whom, and how it is checked. The private key comes
//! from a file or the environment of the worker; no role of the database can read it.

use std::collections::BTreeMap;

use anyhow::Context;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::NaiveDate;
use schemas::events::{AuditHeadSigned, AuditRootSigned};
use schemas::time::{Day, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::chain::Hash;
use crate::sales::hash::hex;

/// First bytes of what is signed, so that a head can never be shown as a root.
const HEAD: &[u8] = b"vorca.audit.head.v1\n";
const ROOT: &[u8] = b"vorca.audit.root.v1\n";

/// The last seal of a chain at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub chain: Uuid,
    pub epoch: i64,
    pub seq: i64,
    pub hash: Hash,
    /// Microseconds since 1970-01-01 UTC.
    pub signed_at: i64,
}

/// The root over documents of a business day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    pub location: Uuid,
    pub date: NaiveDate,
    /// 1 when the day was over; later numbers cover what arrived afterwards.
    pub number: i32,
    pub epoch: i64,
    /// Number of the last seal that was looked at.
    pub through_seq: i64,
    pub leaf_count: i64,
    pub hash: Hash,
    /// Microseconds since 1970-01-01 UTC.
    pub signed_at: i64,
}

/// Something with the signature over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    pub what: T,
    pub key_id: String,
    pub signature: Vec<u8>,
}

/// What can be signed.
pub trait Message {
    /// The signed bytes.
    fn message(&self) -> Vec<u8>;
}

impl Message for Head {
    fn message(&self) -> Vec<u8> {
        let mut out = HEAD.to_vec();
        out.extend_from_slice(self.chain.as_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.signed_at.to_be_bytes());
        out
    }
}

impl Message for Root {
    fn message(&self) -> Vec<u8> {
        let mut out = ROOT.to_vec();
        out.extend_from_slice(self.location.as_bytes());
        out.extend_from_slice(&Day::from(self.date).0.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.through_seq.to_be_bytes());
        out.extend_from_slice(&self.leaf_count.to_be_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.signed_at.to_be_bytes());
        out
    }
}

/// Names a key: the first 16 hexadecimal digits of the SHA-256 of the public key.
pub fn key_id(public: &[u8]) -> String {
    hex(&Sha256::digest(public)[..8])
}

/// The private key.
pub struct Signer {
    pair: Ed25519KeyPair,
    key_id: String,
}

impl Signer {
    /// From an Ed25519 private key in PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> anyhow::Result<Signer> {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(body).map_err(|_| anyhow::anyhow!("it is not PEM"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|error| anyhow::anyhow!("it is not an Ed25519 key in PKCS#8: {error}"))?;
        let key_id = key_id(pair.public_key().as_ref());
        Ok(Signer { pair, key_id })
    }

    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The 32 bytes that check its signatures.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key as [`PublicKeys::parse`] reads it.
    pub fn public_text(&self) -> String {
        STANDARD.encode(self.public_key())
    }

    pub fn sign<T: Message>(&self, what: T) -> Signed<T> {
        let signature = self.pair.sign(&what.message()).as_ref().to_vec();
        Signed { what, key_id: self.key_id.clone(), signature }
    }
}

/// The public keys that somebody trusts.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys(BTreeMap<String, Vec<u8>>);

impl PublicKeys {
    /// From base64 texts of 32 bytes each, between commas.
    pub fn parse(text: &str) -> anyhow::Result<PublicKeys> {
        let mut keys = BTreeMap::new();
        for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let key = STANDARD.decode(text).ok().filter(|key| key.len() == 32);
            let key = key.context("a public key is 32 bytes in base64")?;
            keys.insert(key_id(&key), key);
        }
        anyhow::ensure!(!keys.is_empty(), "no public key was given");
        Ok(PublicKeys(keys))
    }

    /// Whether one of them signed exactly this.
    pub fn vouch_for<T: Message>(&self, signed: &Signed<T>) -> bool {
        self.0.get(&signed.key_id).is_some_and(|key| {
            UnparsedPublicKey::new(&ED25519, key).verify(&signed.what.message(), &signed.signature).is_ok()
        })
    }
}

/// The bytes of lower-case hex; nothing else is read.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// The hash in lower-case hex.
pub fn hash_of_hex(text: &str) -> Option<Hash> {
    unhex(text)?.try_into().ok()
}

impl Signed<Head> {
    pub fn event(&self) -> AuditHeadSigned {
        AuditHeadSigned {
            epoch: self.what.epoch,
            chain_id: self.what.chain,
            seq: self.what.seq,
            hash: hex(&self.what.hash),
            key_id: self.key_id.clone(),
            signature: hex(&self.signature),
            signed_at: Timestamp(self.what.signed_at),
        }
    }

    /// Nothing when it is not one of ours: a hash or signature that is no lower-case hex.
    pub fn of_event(event: &AuditHeadSigned) -> Option<Self> {
        let what = Head {
            chain: event.chain_id,
            epoch: event.epoch,
            seq: event.seq,
            hash: hash_of_hex(&event.hash)?,
            signed_at: event.signed_at.0,
        };
        Some(Signed { what, key_id: event.key_id.clone(), signature: unhex(&event.signature)? })
    }
}

impl Signed<Root> {
    pub fn event(&self) -> AuditRootSigned {
        AuditRootSigned {
            epoch: self.what.epoch,
            location_id: self.what.location.into(),
            business_date: Day::from(self.what.date),
            root_no: self.what.number,
            through_seq: self.what.through_seq,
            leaf_count: self.what.leaf_count,
            root: hex(&self.what.hash),
            key_id: self.key_id.clone(),
            signature: hex(&self.signature),
            signed_at: Timestamp(self.what.signed_at),
        }
    }

    /// Nothing when it is not one of ours: a root or signature that is no lower-case hex.
    pub fn of_event(event: &AuditRootSigned) -> Option<Self> {
        let what = Root {
            location: event.location_id.0,
            date: event.business_date.to_date(),
            number: event.root_no,
            epoch: event.epoch,
            through_seq: event.through_seq,
            leaf_count: event.leaf_count,
            hash: hash_of_hex(&event.root)?,
            signed_at: event.signed_at.0,
        };
        Some(Signed { what, key_id: event.key_id.clone(), signature: unhex(&event.signature)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEILW4C19BAllUEF0Y8gr/9aIDEeVFubLT4/Tw+zyP1ghH\n-----END PRIVATE KEY-----\n";

    fn head() -> Head {
        Head { chain: Uuid::from_u128(1), epoch: 1, seq: 7, hash: [3; 32], signed_at: 5 }
    }

    #[test]
    fn a_signature_vouches_for_one_head_by_a_trusted_key() {
        let signer = Signer::from_pem(PEM).unwrap();
        let keys = PublicKeys::parse(&signer.public_text()).unwrap();
        let signed = signer.sign(head());
        assert!(keys.vouch_for(&signed));
        let changes: [fn(&mut Signed<Head>); 7] = [
            |signed| signed.what.chain = Uuid::from_u128(2),
            |signed| signed.what.epoch += 1,
            |signed| signed.what.seq += 1,
            |signed| signed.what.hash[31] ^= 1,
            |signed| signed.what.signed_at += 1,
            |signed| signed.signature[0] ^= 1,
            |signed| signed.key_id.push('0'),
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed);
            assert!(!keys.vouch_for(&changed), "{changed:?}");
        }
        let other = STANDARD.encode([9; 32]);
        assert!(!PublicKeys::parse(&other).unwrap().vouch_for(&signed), "a key nobody trusts");
        assert_eq!(Signed::<Head>::of_event(&signed.event()), Some(signed));
    }

    #[test]
    fn a_root_survives_its_event_and_is_no_head() {
        let signer = Signer::from_pem(PEM).unwrap();
        let date = NaiveDate::from_ymd_opt(2026, 11, 21).unwrap();
        let root = Root {
            location: Uuid::from_u128(1),
            date,
            number: 2,
            epoch: 1,
            through_seq: 9,
            leaf_count: 4,
            hash: [8; 32],
            signed_at: 6,
        };
        let signed = signer.sign(root);
        assert!(PublicKeys::parse(&signer.public_text()).unwrap().vouch_for(&signed));
        assert_eq!(Signed::<Root>::of_event(&signed.event()), Some(signed));
        assert_ne!(root.message()[..20], head().message()[..20]);
    }

    #[test]
    fn what_is_no_key_or_no_hex_is_refused() {
        for bad in ["", " , ", "x", "AAAA"] {
            assert!(PublicKeys::parse(bad).is_err(), "{bad}");
        }
        for bad in ["0", "0g", "AB", "é0"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
        assert_eq!(unhex("00ff"), Some(vec![0, 255]));
    }
}
