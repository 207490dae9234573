//! What a return goes back to: stored documents with what earlier returns left of them.

use chrono::{DateTime, Utc};
use schemas::ids::{CustomerId, DocumentId, LocationId, ProgramId};
use schemas::money::RoundingMode;
use uuid::Uuid;

use super::legs::{Place, SoldLine};
use super::types::TenderRef;

/// A sale or exchange that goods come back from.
#[derive(Debug, Clone)]
pub struct Origin {
    pub document_id: DocumentId,
    pub kind: String,
    pub location_id: LocationId,
    pub currency: String,
    pub rounding_mode: RoundingMode,
    pub customer_id: Option<CustomerId>,
    /// What it sold; returned lines of an exchange are not among them.
    pub lines: Vec<SoldLine>,
    /// Documents whose tenders money goes back to: this one, and those that an exchange took goods back from.
    pub chain: Vec<Uuid>,
    /// What the sale gave in points, by program.
    pub accrued: Vec<Accrued>,
    /// Points that it was paid with.
    pub spent: Vec<Spent>,
}

impl Origin {
    pub fn place(&self) -> Place {
        Place { document_id: self.document_id, location_id: self.location_id }
    }

    /// Net of everything it sold and of what has come back of that: what points are given and taken for.
    pub fn bases(&self) -> (i64, i64) {
        let net: i64 = self.lines.iter().map(|sold| sold.line.net_minor).fold(0, i64::saturating_add);
        let back = self.lines.iter().filter(|sold| sold.returned > 0).filter_map(|sold| {
            let whole = SoldLine { line: sold.line.clone(), returned: 0 };
            whole.leg(0, sold.returned, self.place(), self.rounding_mode).ok().map(|leg| leg.net_minor)
        });
        (net, back.fold(0i64, i64::saturating_add).saturating_neg())
    }
}

/// Points that a document gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accrued {
    pub program_id: ProgramId,
    pub points: i64,
}

/// Points that paid for a document: what its redemption took from which lots, in its order, and what has come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    pub program_id: ProgramId,
    pub consumed: Vec<crate::loyalty::lots::LotDelta>,
    pub restored: i64,
}

/// A tender other than cash, with what it still holds of the money that it brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub at: TenderRef,
    pub occurred_at: DateTime<Utc>,
    pub kind: String,
    pub amount_minor: i64,
    pub held_minor: i64,
    pub psp_reference: Option<String>,
    pub card_brand: Option<String>,
    pub card_last_four: Option<String>,
    pub card_expiry: Option<String>,
    pub liability_account_id: Option<Uuid>,
}

/// Everything that is read before a return is computed.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// Those that exist, in no order.
    pub documents: Vec<Origin>,
    /// Tenders of all their chains, the latest document first and its last tender first.
    pub held: Vec<Held>,
}

impl Origins {
    pub fn find(&self, document_id: Uuid) -> Option<&Origin> {
        self.documents.iter().find(|origin| origin.document_id.0 == document_id)
    }
}
