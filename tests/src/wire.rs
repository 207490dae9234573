//! Bodies of the public API that tills and offices send and read. Amounts are minor units,
//! quantities thousandths.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A sale as a till sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sale {
    pub sale_id: Uuid,
    pub location_id: Uuid,
    pub terminal_seq: i64,
    pub receipt: Receipt,
    pub cashier_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub customer_id: Option<Uuid>,
    /// RFC 3339 UTC.
    pub occurred_at: String,
    pub currency: String,
    pub lines: Vec<Line>,
    pub tenders: Vec<Tender>,
    pub total_minor: i64,
    /// Somebody else's approval of what goes beyond the cashier's limits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    pub series_epoch: i32,
    pub number: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub line_no: i32,
    pub variant_id: Uuid,
    pub qty: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub discount: Option<Discount>,
    #[serde(rename = "override", skip_serializing_if = "Option::is_none", default)]
    pub override_: Option<Override>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Discount {
    Percent { percent: String, reason: String },
    Amount { amount_minor: i64, reason: String },
}

/// The line's own amount, as an imported history carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Override {
    pub amount_minor: i64,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tender {
    pub kind: TenderKind,
    /// For cash: what the customer gave.
    pub amount_minor: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub card: Option<Card>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenderKind {
    Cash,
    Card,
    Other,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub token: String,
    pub brand: String,
    pub last_four: String,
    pub expiry: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewLocation {
    pub location_id: Uuid,
    pub external_id: String,
    pub name: String,
    pub currency: String,
    pub time_zone: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub day_cutoff: Option<String>,
    pub opened_on: chrono::NaiveDate,
}

/// A location as read back.
#[derive(Debug, Clone, Deserialize)]
pub struct Location {
    pub location_id: Uuid,
    pub external_id: String,
    pub name: String,
    pub currency: String,
    pub time_zone: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTaxProfile {
    pub external_id: String,
    pub name: String,
    pub valid_from: String,
    pub rates: Vec<NewTaxRate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTaxRate {
    pub name: String,
    /// Exact decimal, for instance `0.19`.
    pub rate: String,
    pub inclusive: bool,
}

/// One atomic call of products, variants and prices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CatalogUpsert {
    pub products: Vec<NewProduct>,
    pub variants: Vec<NewVariant>,
    pub prices: Vec<NewPrice>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewProduct {
    pub external_id: String,
    pub name: String,
    pub category: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewVariant {
    pub external_id: String,
    pub product_external_id: String,
    pub sku: String,
    pub name: String,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub barcodes: Vec<String>,
    pub unit: String,
    pub is_measured: bool,
    pub tracks_stock: bool,
    pub tax_profile_external_id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit_cost_minor: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewPrice {
    pub variant_external_id: String,
    pub currency: String,
    pub amount_minor: i64,
    pub tax_inclusive: bool,
    pub valid_from: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct CatalogUpserted {
    pub catalog_version: i64,
    pub created: i64,
    pub updated: i64,
    pub unchanged: i64,
    pub variants: Vec<UpsertedVariant>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct UpsertedVariant {
    pub external_id: String,
    pub variant_id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewUser {
    pub user_id: Uuid,
    pub login: String,
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub password: Option<String>,
    pub grants: Vec<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub role: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub location_id: Option<Uuid>,
}

/// A user as read back.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    pub user_id: Uuid,
    pub login: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTerminal {
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub register_id: String,
    pub name: String,
}

/// What a till needs to go on numbering: from enrolment, or read back by its id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Enrolment {
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub register_id: String,
    pub series_epoch: i32,
    pub next_terminal_seq: i64,
    pub next_receipt_number: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct EnrolmentCode {
    pub code: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MembersUpsert {
    pub members: Vec<NewMember>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewMember {
    pub external_id: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct MembersUpserted {
    pub members: Vec<Member>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    pub external_id: String,
    pub customer_id: Uuid,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockReceipt {
    pub act_id: Uuid,
    pub location_id: Uuid,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective_at: Option<String>,
    pub lines: Vec<ReceiptLine>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptLine {
    pub variant_id: Uuid,
    pub qty: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit_cost_minor: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    pub act_id: Uuid,
    pub location_id: Uuid,
    pub lines: Vec<ThresholdLine>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThresholdLine {
    pub variant_id: Uuid,
    pub threshold: Option<i64>,
}
