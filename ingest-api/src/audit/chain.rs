//! Pure: the bytes that are hashed for a row of the audit log and for a document. `docs/audit.md` describes them for
//! whoever checks us with code of their own; a change of them is a new version, never an edit.

use chrono::{DateTime, NaiveDate, Utc};
use schemas::time::{Day, Timestamp};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::merkle;

/// SHA-256.
pub type Hash = [u8; 32];

/// What the first seal of a chain goes on from.
pub const GENESIS: Hash = [0; 32];
/// First byte of a sealed row; a change of the encoding is a new number.
const ROW_VERSION: u8 = 1;
/// First byte of a document's leaf data.
const LEAF_VERSION: u8 = 1;

/// A row of the audit log, as it is sealed.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AuditRow {
    pub audit_id: Uuid,
    pub epoch: i64,
    pub recorded_at: DateTime<Utc>,
    pub location_id: Option<Uuid>,
    pub actor: Uuid,
    pub actor_role: String,
    pub approver: Option<Uuid>,
    pub action: String,
    pub target: String,
    pub before_digest: Option<Vec<u8>>,
    pub after_digest: Option<Vec<u8>>,
    pub reason: String,
    pub outcome: String,
    pub request_id: String,
    pub terminal_id: Option<Uuid>,
    pub address: String,
}

/// A stored document, reduced to what its leaf says.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct DocumentRecord {
    pub document_id: Uuid,
    pub location_id: Uuid,
    pub business_date: NaiveDate,
    /// SHA-256 of the receipt: the answer the till got, which `GET /sales/{id}` gives byte for byte.
    pub receipt_hash: Vec<u8>,
    /// SHA-256 over every stored column of the document, its lines and its tenders (`db/document_record.sql`).
    pub record_hash: Vec<u8>,
}

/// What documents of tills are called in the actions and targets of their rows: `refund.create`, `refund/<id>`.
const DOCUMENT_KINDS: [&str; 4] = ["sale", "refund", "exchange", "void"];

impl AuditRow {
    /// The chain it belongs to: its location, all zero without one.
    pub fn chain(&self) -> Uuid {
        self.location_id.unwrap_or_default()
    }

    /// The document it recorded, when it did that.
    pub fn document(&self) -> Option<Uuid> {
        let kind = self.action.strip_suffix(".create").filter(|kind| DOCUMENT_KINDS.contains(kind))?;
        let id = self.target.strip_prefix(kind)?.strip_prefix('/')?;
        if self.outcome == "done" { id.parse().ok() } else { None }
    }

    /// The row and the leaf of its document as bytes: unambiguous, since every part has a fixed length or says its own.
    pub fn encode(&self, leaf: Option<&Hash>) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.push(ROW_VERSION);
        out.extend_from_slice(self.audit_id.as_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&Timestamp::from(self.recorded_at).0.to_be_bytes());
        put_option(&mut out, self.location_id.as_ref().map(|id| id.as_bytes().as_slice()));
        out.extend_from_slice(self.actor.as_bytes());
        put(&mut out, self.actor_role.as_bytes());
        put_option(&mut out, self.approver.as_ref().map(|id| id.as_bytes().as_slice()));
        put(&mut out, self.action.as_bytes());
        put(&mut out, self.target.as_bytes());
        put_option(&mut out, self.before_digest.as_deref());
        put_option(&mut out, self.after_digest.as_deref());
        put(&mut out, self.reason.as_bytes());
        put(&mut out, self.outcome.as_bytes());
        put(&mut out, self.request_id.as_bytes());
        put_option(&mut out, self.terminal_id.as_ref().map(|id| id.as_bytes().as_slice()));
        put(&mut out, self.address.as_bytes());
        put_option(&mut out, leaf.map(|leaf| leaf.as_slice()));
        out
    }
}

/// Length in four bytes, then the bytes.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// One byte 0 for nothing; else 1, then as [`put`].
fn put_option(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put(out, bytes);
    }
}

/// The hash of a seal: over its chain, its number, the hash before it and the encoded row.
pub fn link(chain: Uuid, seq: i64, previous: &Hash, row: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(chain.as_bytes());
    hasher.update(seq.to_be_bytes());
    hasher.update(previous);
    hasher.update(row);
    hasher.finalize().into()
}

/// The leaf of a document in the tree of its day. The receipt is bound by its hash, so whoever holds the receipt can
/// check it without seeing what else is stored.
pub fn leaf(document_id: Uuid, location_id: Uuid, date: NaiveDate, receipt_hash: &[u8], record_hash: &[u8]) -> Hash {
    let mut data = Vec::with_capacity(101);
    data.push(LEAF_VERSION);
    data.extend_from_slice(document_id.as_bytes());
    data.extend_from_slice(location_id.as_bytes());
    data.extend_from_slice(&Day::from(date).0.to_be_bytes());
    data.extend_from_slice(receipt_hash);
    data.extend_from_slice(record_hash);
    merkle::leaf_hash(&data)
}

impl DocumentRecord {
    /// Its leaf, [`leaf`].
    pub fn leaf(&self) -> Hash {
        leaf(self.document_id, self.location_id, self.business_date, &self.receipt_hash, &self.record_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sales::hash::hex;

    fn row() -> AuditRow {
        AuditRow {
            audit_id: Uuid::from_u128(1),
            epoch: 2,
            recorded_at: DateTime::from_timestamp_micros(3).unwrap(),
            location_id: Some(Uuid::from_u128(4)),
            actor: Uuid::from_u128(5),
            actor_role: "manager".into(),
            approver: None,
            action: "sale.create".into(),
            target: format!("sale/{}", Uuid::from_u128(6)),
            before_digest: None,
            after_digest: Some(vec![7; 32]),
            reason: String::new(),
            outcome: "done".into(),
            request_id: "r".into(),
            terminal_id: Some(Uuid::from_u128(8)),
            address: "::1".into(),
        }
    }

    /// Frozen: a seal that was written once must come out the same for ever.
    #[test]
    fn a_row_is_encoded_byte_by_byte_as_the_document_says() {
        let expected = [
            "01",
            "00000000000000000000000000000001",
            "0000000000000002",
            "0000000000000003",
            "010000001000000000000000000000000000000004",
            "00000000000000000000000000000005",
            "000000076d616e61676572",
            "00",
            "0000000b73616c652e637265617465",
            "0000002973616c652f30303030303030302d303030302d303030302d303030302d303030303030303030303036",
            "00",
            &format!("0100000020{}", "07".repeat(32)),
            "00000000",
            "00000004646f6e65",
            "0000000172",
            "010000001000000000000000000000000000000008",
            "000000033a3a31",
            &format!("0100000020{}", "09".repeat(32)),
        ];
        assert_eq!(hex(&row().encode(Some(&[9; 32]))), expected.concat());
        let sealed = link(Uuid::from_u128(4), 1, &GENESIS, &row().encode(Some(&[9; 32])));
        let mut message = Uuid::from_u128(4).as_bytes().to_vec();
        message.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        message.extend_from_slice(&GENESIS);
        message.extend_from_slice(&row().encode(Some(&[9; 32])));
        assert_eq!(sealed, <Hash>::from(Sha256::digest(&message)));
    }

    /// Where one field ends and the next begins is part of what is hashed.
    #[test]
    fn rows_that_differ_anywhere_are_encoded_differently() {
        let changes: [fn(&mut AuditRow); 18] = [
            |row| row.audit_id = Uuid::from_u128(9),
            |row| row.epoch += 1,
            |row| row.recorded_at += chrono::TimeDelta::microseconds(1),
            |row| row.location_id = None,
            |row| row.actor = Uuid::from_u128(9),
            |row| row.actor_role = "owner".into(),
            |row| row.approver = Some(Uuid::nil()),
            |row| row.action.push('x'),
            |row| row.target.push('x'),
            |row| row.before_digest = Some(Vec::new()),
            |row| row.after_digest = None,
            |row| row.reason = "x".into(),
            |row| row.outcome = "refused".into(),
            |row| row.request_id = String::new(),
            |row| row.terminal_id = None,
            |row| row.address = "::2".into(),
            |row| (row.action, row.target) = ("sale.creates".into(), row.target[1..].to_owned()),
            |row| (row.request_id, row.address) = (String::new(), "r::1".into()),
        ];
        let mut seen = vec![row().encode(None), row().encode(Some(&[9; 32]))];
        for change in changes {
            let mut changed = row();
            change(&mut changed);
            seen.push(changed.encode(None));
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn only_a_sale_that_was_made_has_a_document() {
        assert_eq!(row().document(), Some(Uuid::from_u128(6)));
        assert_eq!(AuditRow { outcome: "refused".into(), ..row() }.document(), None);
        assert_eq!(AuditRow { action: "sale.read".into(), ..row() }.document(), None);
        assert_eq!(AuditRow { target: "sale/x".into(), ..row() }.document(), None);
    }
}
