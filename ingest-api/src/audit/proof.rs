//! The proof of one receipt, and its check by whoever holds the proof and our public key: no database, no network.

use schemas::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::signing::{PublicKeys, Root, Signed, hash_of_hex, unhex};
use super::{chain, merkle};
use crate::db::audit as db;
use crate::error::ApiError;
use crate::sales::hash::hex;

const VERSION: u8 = 1;

/// That a receipt is among the documents of a business day, whose root was signed. Hashes are lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiptProof {
    /// 1.
    pub version: u8,
    /// The sale, or whatever other document it is.
    pub sale_id: Uuid,
    /// The receipt: exactly the bytes that `GET /documents/{document_id}` answers with.
    pub receipt: String,
    /// Stands for everything else that is stored with the receipt.
    pub record_hash: String,
    /// Place among the leaves, from 0.
    pub leaf_index: u64,
    /// Hashes beside the way from the leaf to the root, from the leaf on.
    pub path: Vec<String>,
    pub root: SignedRoot,
}

/// The signed root of a business day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedRoot {
    pub location_id: Uuid,
    #[schema(value_type = String, format = Date)]
    pub business_date: chrono::NaiveDate,
    /// 1; higher for documents that arrived after the day was closed.
    pub root_no: i32,
    pub epoch: i64,
    pub through_seq: i64,
    pub leaf_count: i64,
    pub root: String,
    /// Microseconds since 1970-01-01 UTC.
    pub signed_at: i64,
    /// First 16 hexadecimal digits of the SHA-256 of the public key.
    pub key_id: String,
    /// Ed25519.
    pub signature: String,
}

impl From<&Signed<Root>> for SignedRoot {
    fn from(signed: &Signed<Root>) -> Self {
        SignedRoot {
            location_id: signed.what.location,
            business_date: signed.what.date,
            root_no: signed.what.number,
            epoch: signed.what.epoch,
            through_seq: signed.what.through_seq,
            leaf_count: signed.what.leaf_count,
            root: hex(&signed.what.hash),
            signed_at: signed.what.signed_at,
            key_id: signed.key_id.clone(),
            signature: hex(&signed.signature),
        }
    }
}

impl SignedRoot {
    fn signed(&self) -> Option<Signed<Root>> {
        let what = Root {
            location: self.location_id,
            date: self.business_date,
            number: self.root_no,
            epoch: self.epoch,
            through_seq: self.through_seq,
            leaf_count: self.leaf_count,
            hash: hash_of_hex(&self.root)?,
            signed_at: self.signed_at,
        };
        Some(Signed { what, key_id: self.key_id.clone(), signature: unhex(&self.signature)? })
    }
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refuted {
    #[error("it is no proof of version 1")]
    Malformed,
    #[error("the receipt is of another sale")]
    OtherSale,
    #[error("the receipt does not lead to the root: it, or something else in the proof, was altered")]
    OtherReceipt,
    #[error("the root was not signed by this key")]
    Unsigned,
}

/// Checks a proof as it was received. Nothing else is consulted.
pub fn check(proof: &str, keys: &PublicKeys) -> Result<ReceiptProof, Refuted> {
    let proof: ReceiptProof = serde_json::from_str(proof).map_err(|_| Refuted::Malformed)?;
    let root = proof.root.signed().filter(|_| proof.version == VERSION).ok_or(Refuted::Malformed)?;
    let record_hash = hash_of_hex(&proof.record_hash).ok_or(Refuted::Malformed)?;
    let path: Option<Vec<_>> = proof.path.iter().map(|hash| hash_of_hex(hash)).collect();
    let receipt: serde_json::Value = serde_json::from_str(&proof.receipt).map_err(|_| Refuted::OtherReceipt)?;
    // A sale names itself by `sale_id`, every other document by `document_id`.
    let id = receipt.get("sale_id").or_else(|| receipt.get("document_id"));
    if id.and_then(serde_json::Value::as_str) != Some(proof.sale_id.to_string().as_str()) {
        return Err(Refuted::OtherSale);
    }
    let receipt_hash = Sha256::digest(&proof.receipt);
    let leaf = chain::leaf(proof.sale_id, root.what.location, root.what.date, &receipt_hash, &record_hash);
    let count = u64::try_from(root.what.leaf_count).map_err(|_| Refuted::Malformed)?;
    let reached = merkle::root_of_path(leaf, proof.leaf_index, count, &path.ok_or(Refuted::Malformed)?);
    if reached != Some(root.what.hash) {
        return Err(Refuted::OtherReceipt);
    }
    if !keys.vouch_for(&root) {
        return Err(Refuted::Unsigned);
    }
    Ok(proof)
}

/// The proof of a stored sale; 409 `not_rooted` until its day is closed.
pub async fn of_sale(conn: &mut PgConnection, sale_id: Uuid, receipt: String) -> Result<ReceiptProof, ApiError> {
    let not_yet = || {
        let detail = "the root over this business day is signed after the day is over; ask again then";
        ApiError::conflict("not_rooted", detail)
    };
    let seal: Option<(Uuid, i64, chrono::NaiveDate)> =
        sqlx::query_as("select chain, seq, business_date from audit_seals where document_id = $1")
            .bind(sale_id)
            .fetch_optional(&mut *conn)
            .await?;
    let (chain, seq, date) = seal.ok_or_else(not_yet)?;
    let (root, after) = db::root_of_seal(conn, (chain, date), seq).await?.ok_or_else(not_yet)?;
    let leaves = db::leaves(conn, (chain, date), (after, root.what.through_seq)).await?;
    let index = leaves.iter().position(|(document, _)| *document == sale_id);
    let leaves: Vec<_> = leaves.into_iter().map(|(_, leaf)| leaf).collect();
    let path = index.and_then(|index| merkle::path(&leaves, index));
    let record = db::documents(conn, &[sale_id]).await?.remove(&sale_id);
    let (Some(index), Some(path), Some(record)) = (index, path, record) else {
        return Err(ApiError::internal(anyhow::anyhow!("sale {sale_id} is sealed and not under its root")));
    };
    Ok(ReceiptProof {
        version: VERSION,
        sale_id,
        receipt,
        record_hash: hex(&record.record_hash),
        leaf_index: index as u64,
        path: path.iter().map(|hash| hex(hash)).collect(),
        root: SignedRoot::from(&root),
    })
}

impl std::fmt::Display for ReceiptProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SignedRoot { location_id, business_date, root_no, leaf_count, signed_at, .. } = &self.root;
        write!(
            f,
            "sale {} is document {} of {leaf_count} under root {root_no} of {business_date} at location {location_id}, \
             signed {}",
            self.sale_id,
            self.leaf_index + 1,
            Timestamp(*signed_at).to_utc().format("%Y-%m-%dT%H:%M:%SZ")
        )
    }
}
