//! Signed heads and roots of the audit log: evidence, so one of a time line that was given up stays as well.

use schemas::events::{AuditHeadSigned, AuditRootSigned};

use super::checks::{day, instant};
use super::{AuditHead, AuditRoot, Origin, OutOfRange, Rows, Stamp};

impl Rows {
    /// Adds the signed head of a chain.
    pub fn audit_head(&mut self, event: AuditHeadSigned, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.seq, origin)?;
        self.audit_heads.push(stamped!(
            stamp,
            AuditHead {
                chain_id: event.chain_id,
                seq: event.seq,
                hash: event.hash,
                key_id: event.key_id,
                signature: event.signature,
                signed_at: instant("signed_at", event.signed_at)?,
            }
        ));
        Ok(())
    }

    /// Adds the signed root of a business day.
    pub fn audit_root(&mut self, event: AuditRootSigned, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.root_no.into(), origin)?;
        self.audit_roots.push(stamped!(
            stamp,
            AuditRoot {
                location_id: event.location_id.0,
                business_date: day("business_date", event.business_date)?,
                root_no: event.root_no,
                through_seq: event.through_seq,
                leaf_count: event.leaf_count,
                root: event.root,
                key_id: event.key_id,
                signature: event.signature,
                signed_at: instant("signed_at", event.signed_at)?,
            }
        ));
        Ok(())
    }
}
