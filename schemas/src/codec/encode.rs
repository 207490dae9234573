//! Avro's binary encoding of our own records, straight from the structs.
//!
//! apache-avro walks the schema for every value and is the reference; these encoders know the field
//! order already. `tests/contract.rs` proves by property that both give the same bytes.

use uuid::Uuid;

use crate::events::{
    AuditHeadSigned, AuditRootSigned, Cashier, DaySales, DocumentCommitted, DocumentKind, DocumentLine, DocumentTender,
    LineDiscount, LineTax, Location, LotChange, LoyaltyBalance, LoyaltyPosted, ResyncRequested, StockFellLow,
    StockLevel, StockMoved, Variant,
};
use crate::ids::{
    AccountId, CustomerId, DocumentId, LocationId, ProductId, ProgramId, TaxProfileId, TerminalId, UserId, VariantId,
};
use crate::time::{Day, Timestamp};

/// A value that can append itself as an Avro datum.
pub trait Datum {
    /// Appends the value's bytes.
    fn put(&self, out: &mut Vec<u8>);
}

/// Zigzag, then seven bits a byte, lowest first: how Avro writes int and long.
fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

impl Datum for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(*self, out);
    }
}

impl Datum for i32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(i64::from(*self), out);
    }
}

impl Datum for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Datum for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(self.len() as i64, out);
        out.extend_from_slice(self.as_bytes());
    }
}

impl Datum for Uuid {
    fn put(&self, out: &mut Vec<u8>) {
        let mut text = Uuid::encode_buffer();
        let text = self.hyphenated().encode_lower(&mut text);
        put_long(text.len() as i64, out);
        out.extend_from_slice(text.as_bytes());
    }
}

/// `["null", T]`: the branch, then the value.
impl<T: Datum> Datum for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => put_long(0, out),
            Some(value) => {
                put_long(1, out);
                value.put(out);
            }
        }
    }
}

/// One block with all items, then the empty block that ends an array.
impl<T: Datum> Datum for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_long(self.len() as i64, out);
            for item in self {
                item.put(out);
            }
        }
        put_long(0, out);
    }
}

/// The index of the symbol in the schema.
impl Datum for DocumentKind {
    fn put(&self, out: &mut Vec<u8>) {
        let symbol = match self {
            DocumentKind::Unknown => 0,
            DocumentKind::Sale => 1,
            DocumentKind::Refund => 2,
            DocumentKind::Exchange => 3,
            DocumentKind::Void => 4,
        };
        put_long(symbol, out);
    }
}

macro_rules! newtypes {
    ($($name:ident),*) => {
        $(impl Datum for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
        })*
    };
}
newtypes!(
    AccountId,
    CustomerId,
    DocumentId,
    LocationId,
    ProductId,
    ProgramId,
    TaxProfileId,
    TerminalId,
    UserId,
    VariantId,
    Timestamp,
    Day
);

/// Fields in schema order. The pattern has no `..`: a field that is missing here does not compile.
macro_rules! records {
    ($($name:ident { $($field:ident),* $(,)? })*) => {
        $(impl Datum for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let $name { $($field),* } = self;
                $($field.put(out);)*
            }
        })*
    };
}

records! {
    LineDiscount {
        discount_id, kind, name, amount_minor,
    }
    LineTax {
        tax_id, name, rate, base_minor, inclusive, scope, amount_minor,
    }
    DocumentLine {
        line_no, leg, variant_id, product_id, sku, name, origin_document_id, origin_line_no, origin_location_id,
        first_unit, last_unit, qty, unit, is_measured, tracks_stock, disposition, list_price_minor,
        unit_price_minor, override_reason, extended_minor, discounts, discount_minor, redemption_minor, taxes,
        tax_minor, added_tax_minor, net_minor, payable_minor, unit_cost, redemption_points, liability_account_id,
    }
    DocumentTender {
        tender_no, kind, amount_minor, tip_minor, state, intent_id, psp_reference, card_brand, card_last_four,
        card_expiry, liability_account_id,
    }
    DocumentCommitted {
        epoch, document_id, kind, location_id, location_seq, origin_location_id, terminal_id, terminal_seq,
        register_id, series_epoch, receipt_number, cashier_id, drawer_session_id, lease_id, approval_id,
        customer_id, occurred_at_raw, sent_at, occurred_at, recorded_at, business_date, slot, currency,
        rounding_mode, cash_step, subtotal_minor, discount_minor, tax_minor, tip_minor, total_minor, rounding_minor,
        change_minor, flags, content_hash, hash_version, document_digest, pricing_version, lines, tenders,
        cause_type, cause_id, cause_line, actor, reason,
    }
    StockMoved {
        epoch, location_id, parent_location_id, location_seq, variant_id, version, delta, qty_after, cause_type,
        cause_id, cause_line, transfer_id, reason, document_uri, actor, approval_id, effective_at, recorded_at,
        business_date, neutral, threshold, hysteresis, resync, unit_cost,
    }
    LotChange {
        lot_id, delta, earned_at, available_at, expires_at,
    }
    LoyaltyPosted {
        epoch, account_id, customer_id, program_id, location_id, location_seq, kind, version, delta, points_after,
        tier_multiplier, lots, cause_type, cause_id, cause_line, actor, approval_id, effective_at, recorded_at,
        resync,
    }
    StockFellLow {
        epoch, alert_id, location_id, location_seq, variant_id, version, qty, threshold, hysteresis, days_of_cover,
        daily_sales, cause_id, effective_at, recorded_at,
    }
    ResyncRequested {
        entity_kind, entity, expected_epoch, expected_version, seen_epoch, seen_version, consumer_group,
        requested_at,
    }
    DaySales {
        business_date, qty,
    }
    StockLevel {
        epoch, location_id, variant_id, version, location_seq, qty, threshold, hysteresis, is_fired, daily_sales,
        updated_at,
    }
    LoyaltyBalance {
        epoch, account_id, customer_id, program_id, version, points, updated_at,
    }
    Variant {
        epoch, variant_id, version, catalog_version, external_id, product_id, product_name, category, sku, name,
        barcodes, unit, is_measured, tracks_stock, tax_profile_id, is_active, recorded_at,
    }
    Location {
        epoch, location_id, version, catalog_version, external_id, name, currency, time_zone, day_cutoff, opened_on,
        is_active, recorded_at,
    }
    Cashier {
        epoch, cashier_id, version, catalog_version, code, is_active, recorded_at,
    }
    AuditHeadSigned {
        epoch, chain_id, seq, hash, key_id, signature, signed_at,
    }
    AuditRootSigned {
        epoch, location_id, business_date, root_no, through_seq, leaf_count, root, key_id, signature, signed_at,
    }
}
