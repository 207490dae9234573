//! Pure: event -> rows of the raw tables. No I/O, no clock; the same event always gives the same rows.
//!
//! What an event leaves out gets the sentinel that the table documents: the nil UUID, an empty text,
//! 1970-01-01, -1. A figure that ClickHouse would wrap or cut in silence is refused here instead.

use schemas::ids::row_version;
use schemas::time::Timestamp;

use checks::within;

/// Where a record came from and when the sink took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub topic: &'static str,
    pub partition: i32,
    pub offset: i64,
    /// 32 hex digits, empty when the record carries none.
    pub trace_id: String,
    pub ingested_at: Timestamp,
}

/// A value that no raw table can hold exactly; the record is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is out of range: {value}")]
pub struct OutOfRange {
    pub field: &'static str,
    pub value: String,
}

/// Amounts beyond this many minor units do not fit the decimals of the views.
pub const AMOUNT_MAX: i64 = schemas::money::FIGURE_MAX;

/// A row struct with its own fields and those of a [`Stamp`].
macro_rules! stamped {
    ($stamp:expr, $row:ident { $($field:ident $(: $value:expr)?,)* }) => {{
        let stamp = &$stamp;
        $row {
            $($field $(: $value)?,)*
            trace_id: stamp.origin.trace_id.clone(),
            epoch: stamp.epoch,
            version: stamp.version,
            is_deleted: stamp.is_deleted,
            _topic: stamp.origin.topic,
            _partition: stamp.origin.partition,
            _offset: stamp.origin.offset,
            _ingested_at: stamp.origin.ingested_at.0,
        }
    }};
}

mod audit;
mod checks;
mod dimensions;
mod discount;
mod documents;
mod ledger;
mod tables;
#[cfg(test)]
mod tests;
pub use tables::*;

/// Rows by table, in the order they are inserted: what a document consists of before the document.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Rows {
    pub lines: Vec<Line>,
    pub tenders: Vec<Tender>,
    pub documents: Vec<Document>,
    pub movements: Vec<Movement>,
    pub loyalty_entries: Vec<LoyaltyEntry>,
    pub alerts: Vec<Alert>,
    pub dim_variants: Vec<DimVariant>,
    pub dim_locations: Vec<DimLocation>,
    pub dim_cashiers: Vec<DimCashier>,
    pub audit_heads: Vec<AuditHead>,
    pub audit_roots: Vec<AuditRoot>,
}

impl Rows {
    /// Rows of all tables together.
    pub fn count(&self) -> usize {
        self.lines.len()
            + self.tenders.len()
            + self.documents.len()
            + self.movements.len()
            + self.loyalty_entries.len()
            + self.alerts.len()
            + self.dim_variants.len()
            + self.dim_locations.len()
            + self.dim_cashiers.len()
            + self.audit_heads.len()
            + self.audit_roots.len()
    }
}

/// The columns every raw table ends with.
struct Stamp<'a> {
    epoch: i64,
    version: u64,
    is_deleted: u8,
    origin: &'a Origin,
}

impl<'a> Stamp<'a> {
    fn of(epoch: i64, version: i64, origin: &'a Origin) -> Result<Self, OutOfRange> {
        within("epoch", epoch, 0, (1 << 24) - 1)?;
        within("version", version, 0, (1 << 40) - 1)?;
        Ok(Stamp { epoch, version: row_version(epoch, version), is_deleted: 0, origin })
    }

    /// Of a catalog state. Version 0 retires its object: a restored ledger does not have it.
    fn of_state(epoch: i64, version: i64, origin: &'a Origin) -> Result<Self, OutOfRange> {
        Ok(Stamp { is_deleted: u8::from(version == 0), ..Self::of(epoch, version, origin)? })
    }
}
