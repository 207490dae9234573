//! The raw tables as Rust structs: one per table, fields named and typed as the columns of
//! `migrations/clickhouse/0001_raw.sql`. The client compares both before each insert.

use clickhouse::Row;
use serde::Serialize;
use uuid::Uuid;

/// Declares row structs; each gets the columns that every raw table ends with.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Row, Serialize)]
        pub struct $name {
            $($(#[$attr])* pub $field: $type,)*
            pub trace_id: String,
            pub epoch: i64,
            pub version: u64,
            pub is_deleted: u8,
            pub _topic: &'static str,
            pub _partition: i32,
            pub _offset: i64,
            pub _ingested_at: i64,
        }
    )*};
}

rows! {
    /// `vorca_raw.documents`
    Document {
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        business_date: i32,
        slot: u16,
        #[serde(with = "clickhouse::serde::uuid")]
        document_id: Uuid,
        kind: &'static str,
        currency: String,
        currency_scale: u16,
        #[serde(with = "clickhouse::serde::uuid")]
        terminal_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        cashier_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        customer_id: Uuid,
        occurred_at: i64,
        recorded_at: i64,
        location_seq: i64,
        receipt_register: String,
        receipt_series_epoch: i32,
        receipt_number: i64,
        terminal_seq: i64,
        #[serde(with = "clickhouse::serde::uuid")]
        origin_location_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        drawer_session_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        lease_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        approval_id: Uuid,
        occurred_at_raw: i64,
        sent_at: i64,
        rounding_mode: String,
        cash_step: i64,
        subtotal_minor: i64,
        discount_minor: i64,
        tax_minor: i64,
        tip_minor: i64,
        total_minor: i64,
        rounding_minor: i64,
        change_minor: i64,
        line_count: u32,
        sold_qty: i64,
        sold_net_minor: i64,
        sold_discount_net_minor: i64,
        returned_qty: i64,
        returned_net_minor: i64,
        tender_kinds: Vec<String>,
        tender_amounts_minor: Vec<i64>,
        tender_tips_minor: Vec<i64>,
        flags: Vec<String>,
        content_hash: String,
        hash_version: i32,
        document_digest: String,
        pricing_version: i64,
        cause_type: String,
        #[serde(with = "clickhouse::serde::uuid")]
        cause_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        actor: Uuid,
    }

    /// `vorca_raw.lines`
    Line {
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        business_date: i32,
        slot: u16,
        #[serde(with = "clickhouse::serde::uuid")]
        document_id: Uuid,
        line_no: i32,
        kind: &'static str,
        currency: String,
        currency_scale: u16,
        #[serde(with = "clickhouse::serde::uuid")]
        terminal_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        cashier_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        customer_id: Uuid,
        occurred_at: i64,
        recorded_at: i64,
        location_seq: i64,
        leg: String,
        #[serde(with = "clickhouse::serde::uuid")]
        variant_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        product_id: Uuid,
        sku: String,
        name: String,
        #[serde(with = "clickhouse::serde::uuid")]
        origin_document_id: Uuid,
        origin_line_no: i32,
        #[serde(with = "clickhouse::serde::uuid")]
        origin_location_id: Uuid,
        first_unit: i64,
        last_unit: i64,
        qty: i64,
        unit: String,
        is_measured: bool,
        tracks_stock: bool,
        disposition: String,
        list_price_minor: i64,
        unit_price_minor: i64,
        override_reason: String,
        extended_minor: i64,
        discount_ids: Vec<String>,
        discount_kinds: Vec<String>,
        discount_names: Vec<String>,
        discount_amounts_minor: Vec<i64>,
        discount_minor: i64,
        redemption_minor: i64,
        discount_net_minor: i64,
        #[serde(with = "clickhouse::serde::uuid_vec")]
        tax_ids: Vec<Uuid>,
        tax_names: Vec<String>,
        tax_rates: Vec<String>,
        tax_bases_minor: Vec<i64>,
        tax_inclusive: Vec<bool>,
        tax_scopes: Vec<String>,
        tax_amounts_minor: Vec<i64>,
        tax_minor: i64,
        added_tax_minor: i64,
        net_minor: i64,
        payable_minor: i64,
        unit_cost_minor: i64,
    }

    /// `vorca_raw.tenders`
    Tender {
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        business_date: i32,
        slot: u16,
        #[serde(with = "clickhouse::serde::uuid")]
        document_id: Uuid,
        tender_no: i32,
        kind: &'static str,
        currency: String,
        currency_scale: u16,
        #[serde(with = "clickhouse::serde::uuid")]
        terminal_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        cashier_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        customer_id: Uuid,
        occurred_at: i64,
        recorded_at: i64,
        location_seq: i64,
        tender_kind: String,
        amount_minor: i64,
        tip_minor: i64,
        change_minor: i64,
        state: String,
        #[serde(with = "clickhouse::serde::uuid")]
        intent_id: Uuid,
        psp_reference: String,
        card_brand: String,
        card_last_four: String,
        card_expiry: String,
        #[serde(with = "clickhouse::serde::uuid")]
        liability_account_id: Uuid,
    }

    /// `vorca_raw.movements`
    Movement {
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        business_date: i32,
        #[serde(with = "clickhouse::serde::uuid")]
        variant_id: Uuid,
        entity_version: i64,
        #[serde(with = "clickhouse::serde::uuid")]
        parent_location_id: Uuid,
        location_seq: i64,
        delta: i64,
        qty_after: i64,
        cause_type: String,
        #[serde(with = "clickhouse::serde::uuid")]
        cause_id: Uuid,
        cause_line: i32,
        #[serde(with = "clickhouse::serde::uuid")]
        transfer_id: Uuid,
        reason: String,
        document_uri: String,
        #[serde(with = "clickhouse::serde::uuid")]
        actor: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        approval_id: Uuid,
        effective_at: i64,
        recorded_at: i64,
        neutral: bool,
        threshold: i64,
        hysteresis: i64,
        resync: bool,
        unit_cost_minor: i64,
    }

    /// `vorca_raw.loyalty_entries`
    LoyaltyEntry {
        #[serde(with = "clickhouse::serde::uuid")]
        account_id: Uuid,
        entity_version: i64,
        effective_date: i32,
        #[serde(with = "clickhouse::serde::uuid")]
        customer_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        program_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        location_seq: i64,
        kind: String,
        delta: i64,
        points_after: i64,
        tier_multiplier: String,
        #[serde(with = "clickhouse::serde::uuid_vec")]
        lot_ids: Vec<Uuid>,
        lot_deltas: Vec<i64>,
        cause_type: String,
        #[serde(with = "clickhouse::serde::uuid")]
        cause_id: Uuid,
        cause_line: i32,
        #[serde(with = "clickhouse::serde::uuid")]
        actor: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        approval_id: Uuid,
        effective_at: i64,
        recorded_at: i64,
        resync: bool,
    }

    /// `vorca_raw.alerts`
    Alert {
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        effective_date: i32,
        #[serde(with = "clickhouse::serde::uuid")]
        variant_id: Uuid,
        #[serde(with = "clickhouse::serde::uuid")]
        alert_id: Uuid,
        entity_version: i64,
        location_seq: i64,
        qty: i64,
        threshold: i64,
        hysteresis: i64,
        days_of_cover: i64,
        daily_sales: i64,
        #[serde(with = "clickhouse::serde::uuid")]
        cause_id: Uuid,
        effective_at: i64,
        recorded_at: i64,
    }

    /// `vorca_raw.dim_variants`
    DimVariant {
        #[serde(with = "clickhouse::serde::uuid")]
        variant_id: Uuid,
        external_id: String,
        #[serde(with = "clickhouse::serde::uuid")]
        product_id: Uuid,
        product_name: String,
        category: String,
        sku: String,
        name: String,
        barcodes: Vec<String>,
        unit: String,
        is_measured: bool,
        tracks_stock: bool,
        #[serde(with = "clickhouse::serde::uuid")]
        tax_profile_id: Uuid,
        is_active: bool,
        catalog_version: i64,
        recorded_at: i64,
    }

    /// `vorca_raw.dim_locations`
    DimLocation {
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        external_id: String,
        name: String,
        currency: String,
        time_zone: String,
        day_cutoff: String,
        opened_on: i32,
        is_active: bool,
        catalog_version: i64,
        recorded_at: i64,
    }

    /// `vorca_raw.dim_cashiers`
    DimCashier {
        #[serde(with = "clickhouse::serde::uuid")]
        cashier_id: Uuid,
        code: String,
        is_active: bool,
        catalog_version: i64,
        recorded_at: i64,
    }

    /// `vorca_raw.audit_heads`
    AuditHead {
        #[serde(with = "clickhouse::serde::uuid")]
        chain_id: Uuid,
        seq: i64,
        hash: String,
        key_id: String,
        signature: String,
        signed_at: i64,
    }

    /// `vorca_raw.audit_roots`
    AuditRoot {
        #[serde(with = "clickhouse::serde::uuid")]
        location_id: Uuid,
        business_date: i32,
        root_no: i32,
        through_seq: i64,
        leaf_count: i64,
        root: String,
        key_id: String,
        signature: String,
        signed_at: i64,
    }
}
