//! Records of the topics. Field order is the Avro field order; docs and defaults stand in
//! `avro/*.avsc`, and `tests/contract.rs` holds both to each other.
//!
//! Amounts are i64 minor units of the document's currency and signed; quantities are i64 thousandths.
//! A field that nothing fills yet is optional and its Avro doc says what will fill it.

use serde::{Deserialize, Serialize};

use crate::ids::{
    AccountId, CustomerId, DocumentId, LocationId, ProductId, ProgramId, TaxProfileId, TerminalId, UserId, VariantId,
};
use crate::time::{Day, Timestamp};
use uuid::Uuid;

/// One document as committed. Topic `vorca.sales.v1`, key `location_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentCommitted {
    pub epoch: i64,
    pub document_id: DocumentId,
    /// `sale`, `refund`, `exchange` or `void`.
    pub kind: DocumentKind,
    pub location_id: LocationId,
    pub location_seq: i64,
    pub origin_location_id: Option<LocationId>,
    pub terminal_id: TerminalId,
    pub terminal_seq: i64,
    pub register_id: String,
    pub series_epoch: i32,
    pub receipt_number: i64,
    pub cashier_id: UserId,
    pub drawer_session_id: Option<Uuid>,
    pub lease_id: Option<Uuid>,
    pub approval_id: Option<Uuid>,
    pub customer_id: Option<CustomerId>,
    pub occurred_at_raw: Timestamp,
    pub sent_at: Option<Timestamp>,
    pub occurred_at: Timestamp,
    pub recorded_at: Timestamp,
    pub business_date: Day,
    /// Five-minute interval of the business day, 0-311 (a day can have 26 hours).
    pub slot: i32,
    pub currency: String,
    pub rounding_mode: String,
    pub cash_step: i64,
    pub subtotal_minor: i64,
    pub discount_minor: i64,
    pub tax_minor: i64,
    pub tip_minor: i64,
    pub total_minor: i64,
    pub rounding_minor: i64,
    pub change_minor: i64,
    pub flags: Vec<String>,
    /// SHA-256 of the canonical document, lower-case hex.
    pub content_hash: String,
    pub hash_version: i32,
    /// SHA-256 over lines and tenders, lower-case hex: what audit and reconciliation compare.
    pub document_digest: String,
    pub pricing_version: i64,
    pub lines: Vec<DocumentLine>,
    pub tenders: Vec<DocumentTender>,
    pub cause_type: String,
    pub cause_id: Uuid,
    pub cause_line: i32,
    pub actor: UserId,
    /// Why a refund, an exchange or a void was made, as a code of the business; since version 2.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    Unknown,
    Sale,
    Refund,
    Exchange,
    Void,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentLine {
    pub line_no: i32,
    /// `sale` or `return`.
    pub leg: String,
    pub variant_id: VariantId,
    pub product_id: ProductId,
    pub sku: String,
    pub name: String,
    pub origin_document_id: Option<DocumentId>,
    pub origin_line_no: Option<i32>,
    pub origin_location_id: Option<LocationId>,
    pub first_unit: Option<i64>,
    pub last_unit: Option<i64>,
    pub qty: i64,
    pub unit: String,
    pub is_measured: bool,
    pub tracks_stock: bool,
    pub disposition: Option<String>,
    pub list_price_minor: i64,
    pub unit_price_minor: i64,
    pub override_reason: Option<String>,
    pub extended_minor: i64,
    pub discounts: Vec<LineDiscount>,
    pub discount_minor: i64,
    pub redemption_minor: i64,
    pub taxes: Vec<LineTax>,
    pub tax_minor: i64,
    /// The part of the tax that is added to the price (exclusive taxes).
    pub added_tax_minor: i64,
    pub net_minor: i64,
    pub payable_minor: i64,
    pub unit_cost: Option<i64>,
    /// Points that paid `redemption_minor`; since version 2.
    #[serde(default)]
    pub redemption_points: i64,
    /// Gift card or credit that the line sold or gave; since version 2.
    pub liability_account_id: Option<Uuid>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineDiscount {
    pub discount_id: String,
    pub kind: String,
    pub name: String,
    pub amount_minor: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineTax {
    pub tax_id: Uuid,
    pub name: String,
    /// Exact decimal as text, for instance `0.08875`.
    pub rate: String,
    pub base_minor: i64,
    pub inclusive: bool,
    /// `line` or `order`.
    pub scope: String,
    pub amount_minor: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentTender {
    pub tender_no: i32,
    /// `cash`, `card`, `gift_card`, `store_credit` or `other`.
    pub kind: String,
    pub amount_minor: i64,
    pub tip_minor: i64,
    pub state: String,
    pub intent_id: Option<Uuid>,
    pub psp_reference: Option<String>,
    pub card_brand: Option<String>,
    pub card_last_four: Option<String>,
    pub card_expiry: Option<String>,
    pub liability_account_id: Option<Uuid>,
}

/// One change of a stock level. Topic `vorca.inventory.movements.v1`, key `location_id`
/// (`parent_location_id` for system locations).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockMoved {
    pub epoch: i64,
    pub location_id: LocationId,
    pub parent_location_id: Option<LocationId>,
    pub location_seq: i64,
    pub variant_id: VariantId,
    pub version: i64,
    pub delta: i64,
    pub qty_after: i64,
    pub cause_type: String,
    pub cause_id: Uuid,
    pub cause_line: i32,
    pub transfer_id: Option<Uuid>,
    pub reason: String,
    pub document_uri: Option<String>,
    pub actor: UserId,
    pub approval_id: Option<Uuid>,
    pub effective_at: Timestamp,
    pub recorded_at: Timestamp,
    pub business_date: Day,
    /// A leg of a restatement: never evaluated for alerts.
    pub neutral: bool,
    pub threshold: Option<i64>,
    pub hysteresis: i64,
    /// Full post-state with delta 0: the only record that may jump a version.
    pub resync: bool,
    pub unit_cost: Option<i64>,
}

/// One change of a loyalty account. Topic `vorca.loyalty.entries.v1`, key `customer_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoyaltyPosted {
    pub epoch: i64,
    pub account_id: AccountId,
    pub customer_id: CustomerId,
    pub program_id: ProgramId,
    pub location_id: Option<LocationId>,
    pub location_seq: i64,
    /// `accrual`, `redemption`, `claw_back`, `expiry`, `adjustment` or `resync`.
    pub kind: String,
    pub version: i64,
    pub delta: i64,
    pub points_after: i64,
    pub tier_multiplier: String,
    pub lots: Vec<LotChange>,
    pub cause_type: String,
    pub cause_id: Uuid,
    pub cause_line: i32,
    pub actor: UserId,
    pub approval_id: Option<Uuid>,
    pub effective_at: Timestamp,
    pub recorded_at: Timestamp,
    pub resync: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LotChange {
    pub lot_id: Uuid,
    pub delta: i64,
    pub earned_at: Timestamp,
    pub available_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A stock level fell below its threshold. Topic `vorca.inventory.alerts.v1`, key `location_id`.
/// Its id derives from the movement that caused it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockFellLow {
    pub epoch: i64,
    pub alert_id: Uuid,
    pub location_id: LocationId,
    pub location_seq: i64,
    pub variant_id: VariantId,
    pub version: i64,
    pub qty: i64,
    pub threshold: i64,
    pub hysteresis: i64,
    /// Thousandths of a day the quantity lasts at the mean daily sales of the last 28 days with stock;
    /// null when nothing was sold in them.
    pub days_of_cover: Option<i64>,
    /// Mean daily sales in thousandths of a unit.
    pub daily_sales: i64,
    pub cause_id: Uuid,
    pub effective_at: Timestamp,
    pub recorded_at: Timestamp,
}

/// A processor found a version beyond the next and asks for the entity's full state.
/// Topic `vorca.resync.requests.v1`, key `entity`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResyncRequested {
    /// `stock` (`location:variant`) or `loyalty` (`account`).
    pub entity_kind: String,
    pub entity: String,
    pub expected_epoch: i64,
    pub expected_version: i64,
    pub seen_epoch: i64,
    pub seen_version: i64,
    pub consumer_group: String,
    pub requested_at: Timestamp,
}

/// State of a stock level as the stock processor folded it. Topic `vorca.inventory.stock.v1`,
/// key `location:variant`, in the partition of its location.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockLevel {
    pub epoch: i64,
    pub location_id: LocationId,
    pub variant_id: VariantId,
    pub version: i64,
    pub location_seq: i64,
    pub qty: i64,
    pub threshold: Option<i64>,
    pub hysteresis: i64,
    /// Whether an alert has fired and not armed again.
    pub is_fired: bool,
    /// Sold quantity per business date on which there was stock, newest last, at most 28 of them.
    pub daily_sales: Vec<DaySales>,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaySales {
    pub business_date: Day,
    pub qty: i64,
}

/// State of a loyalty account. Topic `vorca.loyalty.balances.v1`, key `customer:program` (compaction keeps one
/// record per account, and a customer has one account per program), in the partition of its customer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoyaltyBalance {
    pub epoch: i64,
    pub account_id: AccountId,
    pub customer_id: CustomerId,
    pub program_id: ProgramId,
    pub version: i64,
    pub points: i64,
    pub updated_at: Timestamp,
}

/// A variant with its product. Topic `vorca.catalog.variants.v1`, key `variant_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    pub epoch: i64,
    pub variant_id: VariantId,
    pub version: i64,
    pub catalog_version: i64,
    pub external_id: String,
    pub product_id: ProductId,
    pub product_name: String,
    pub category: String,
    pub sku: String,
    pub name: String,
    pub barcodes: Vec<String>,
    pub unit: String,
    pub is_measured: bool,
    pub tracks_stock: bool,
    pub tax_profile_id: TaxProfileId,
    pub is_active: bool,
    pub recorded_at: Timestamp,
}

/// A location. Topic `vorca.catalog.locations.v1`, key `location_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Location {
    pub epoch: i64,
    pub location_id: LocationId,
    pub version: i64,
    pub catalog_version: i64,
    pub external_id: String,
    pub name: String,
    pub currency: String,
    pub time_zone: String,
    pub day_cutoff: String,
    pub opened_on: Day,
    pub is_active: bool,
    pub recorded_at: Timestamp,
}

/// A cashier, by code only: names of people never leave Postgres. Topic `vorca.catalog.cashiers.v1`,
/// key `cashier_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cashier {
    pub epoch: i64,
    pub cashier_id: UserId,
    pub version: i64,
    pub catalog_version: i64,
    pub code: String,
    pub is_active: bool,
    pub recorded_at: Timestamp,
}

/// The signed head of an audit chain. Topic `vorca.audit.heads.v1`, key `chain_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditHeadSigned {
    pub epoch: i64,
    /// A location, or all zero for acts of the company.
    pub chain_id: Uuid,
    pub seq: i64,
    /// SHA-256, lower-case hex.
    pub hash: String,
    pub key_id: String,
    /// Ed25519, lower-case hex.
    pub signature: String,
    pub signed_at: Timestamp,
}

/// The signed Merkle root over documents of a finished business day. Topic `vorca.audit.roots.v1`, key
/// `location_id:business_date:root_no`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRootSigned {
    pub epoch: i64,
    pub location_id: LocationId,
    pub business_date: Day,
    pub root_no: i32,
    pub through_seq: i64,
    pub leaf_count: i64,
    /// SHA-256, lower-case hex.
    pub root: String,
    pub key_id: String,
    /// Ed25519, lower-case hex.
    pub signature: String,
    pub signed_at: Timestamp,
}
