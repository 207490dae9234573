//! Pure: event -> rows of the raw tables. No I/O, no clock; the same event always gives the same rows.
//!
//! What an event leaves out gets the sentinel that the table documents: the nil UUID, an empty text,
//! 1970-01-01, -1. A figure that ClickHouse would wrap or cut in silence is refused here instead.

use schemas::events::{
    Cashier, DocumentCommitted, DocumentKind, DocumentLine, DocumentTender, Location, LoyaltyPosted, StockFellLow,
    StockMoved, Variant,
};
use schemas::ids::row_version;
use schemas::money::Currency;
use schemas::time::{Day, Timestamp};
use uuid::Uuid;

mod tables;
#[cfg(test)]
mod tests;
pub use tables::*;

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
pub const AMOUNT_MAX: i64 = 90_000_000_000_000;

/// A row struct with its own fields and those of a [`Stamp`].
macro_rules! stamped {
    ($stamp:expr, $row:ident { $($field:ident $(: $value:expr)?,)* }) => {{
        let stamp = &$stamp;
        $row {
            $($field $(: $value)?,)*
            trace_id: stamp.origin.trace_id.clone(),
            epoch: stamp.epoch,
            version: stamp.version,
            is_deleted: 0,
            _topic: stamp.origin.topic,
            _partition: stamp.origin.partition,
            _offset: stamp.origin.offset,
            _ingested_at: stamp.origin.ingested_at.0,
        }
    }};
}

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
    }

    /// Adds a document with its lines and tenders; all or nothing.
    pub fn document(&mut self, event: DocumentCommitted, origin: &Origin) -> Result<(), OutOfRange> {
        let shared = Shared::of(&event, origin)?;
        let lines = event.lines.iter().map(|line| shared.line(line)).collect::<Result<Vec<_>, _>>()?;
        let tenders = shared.tenders(&event)?;
        let document = shared.document(event)?;
        self.lines.extend(lines);
        self.tenders.extend(tenders);
        self.documents.push(document);
        Ok(())
    }

    /// Adds a stock movement.
    pub fn movement(&mut self, event: StockMoved, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.version, origin)?;
        let unit_cost_minor = optional(event.unit_cost);
        amounts(&[("unit_cost", unit_cost_minor)])?;
        quantities(&[("delta", event.delta), ("qty_after", event.qty_after), ("hysteresis", event.hysteresis)])?;
        self.movements.push(stamped!(
            stamp,
            Movement {
                location_id: event.location_id.0,
                business_date: day("business_date", event.business_date)?,
                variant_id: event.variant_id.0,
                entity_version: event.version,
                parent_location_id: event.parent_location_id.unwrap_or_default().0,
                location_seq: event.location_seq,
                delta: event.delta,
                qty_after: event.qty_after,
                cause_type: event.cause_type,
                cause_id: event.cause_id,
                cause_line: event.cause_line,
                transfer_id: event.transfer_id.unwrap_or_default(),
                reason: event.reason,
                document_uri: event.document_uri.unwrap_or_default(),
                actor: event.actor.0,
                approval_id: event.approval_id.unwrap_or_default(),
                effective_at: instant("effective_at", event.effective_at)?,
                recorded_at: instant("recorded_at", event.recorded_at)?,
                neutral: event.neutral,
                threshold: optional(event.threshold),
                hysteresis: event.hysteresis,
                resync: event.resync,
                unit_cost_minor,
            }
        ));
        Ok(())
    }

    /// Adds a loyalty entry.
    pub fn loyalty_entry(&mut self, event: LoyaltyPosted, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.version, origin)?;
        let effective_at = instant("effective_at", event.effective_at)?;
        self.loyalty_entries.push(stamped!(
            stamp,
            LoyaltyEntry {
                account_id: event.account_id.0,
                entity_version: event.version,
                effective_date: date_of(event.effective_at),
                customer_id: event.customer_id.0,
                program_id: event.program_id.0,
                location_id: event.location_id.unwrap_or_default().0,
                location_seq: event.location_seq,
                kind: event.kind,
                delta: event.delta,
                points_after: event.points_after,
                tier_multiplier: event.tier_multiplier,
                lot_ids: event.lots.iter().map(|lot| lot.lot_id).collect(),
                lot_deltas: event.lots.iter().map(|lot| lot.delta).collect(),
                cause_type: event.cause_type,
                cause_id: event.cause_id,
                cause_line: event.cause_line,
                actor: event.actor.0,
                approval_id: event.approval_id.unwrap_or_default(),
                effective_at,
                recorded_at: instant("recorded_at", event.recorded_at)?,
                resync: event.resync,
            }
        ));
        Ok(())
    }

    /// Adds a low-stock alert.
    pub fn alert(&mut self, event: StockFellLow, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.version, origin)?;
        quantities(&[("qty", event.qty), ("threshold", event.threshold), ("daily_sales", event.daily_sales)])?;
        let effective_at = instant("effective_at", event.effective_at)?;
        self.alerts.push(stamped!(
            stamp,
            Alert {
                location_id: event.location_id.0,
                effective_date: date_of(event.effective_at),
                variant_id: event.variant_id.0,
                alert_id: event.alert_id,
                entity_version: event.version,
                location_seq: event.location_seq,
                qty: event.qty,
                threshold: event.threshold,
                hysteresis: event.hysteresis,
                days_of_cover: optional(event.days_of_cover),
                daily_sales: event.daily_sales,
                cause_id: event.cause_id,
                effective_at,
                recorded_at: instant("recorded_at", event.recorded_at)?,
            }
        ));
        Ok(())
    }

    /// Adds the latest state of a variant.
    pub fn variant(&mut self, event: Variant, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.version, origin)?;
        self.dim_variants.push(stamped!(
            stamp,
            DimVariant {
                variant_id: event.variant_id.0,
                external_id: event.external_id,
                product_id: event.product_id.0,
                product_name: event.product_name,
                category: event.category,
                sku: event.sku,
                name: event.name,
                barcodes: event.barcodes,
                unit: event.unit,
                is_measured: event.is_measured,
                tracks_stock: event.tracks_stock,
                tax_profile_id: event.tax_profile_id.0,
                is_active: event.is_active,
                catalog_version: event.catalog_version,
                recorded_at: instant("recorded_at", event.recorded_at)?,
            }
        ));
        Ok(())
    }

    /// Adds the latest state of a location.
    pub fn location(&mut self, event: Location, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.version, origin)?;
        self.dim_locations.push(stamped!(
            stamp,
            DimLocation {
                location_id: event.location_id.0,
                external_id: event.external_id,
                name: event.name,
                currency: event.currency,
                time_zone: event.time_zone,
                day_cutoff: event.day_cutoff,
                opened_on: day("opened_on", event.opened_on)?,
                is_active: event.is_active,
                catalog_version: event.catalog_version,
                recorded_at: instant("recorded_at", event.recorded_at)?,
            }
        ));
        Ok(())
    }

    /// Adds the latest state of a cashier.
    pub fn cashier(&mut self, event: Cashier, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of(event.epoch, event.version, origin)?;
        self.dim_cashiers.push(stamped!(
            stamp,
            DimCashier {
                cashier_id: event.cashier_id.0,
                code: event.code,
                is_active: event.is_active,
                catalog_version: event.catalog_version,
                recorded_at: instant("recorded_at", event.recorded_at)?,
            }
        ));
        Ok(())
    }
}

/// The columns every raw table ends with.
struct Stamp<'a> {
    epoch: i64,
    version: u64,
    origin: &'a Origin,
}

impl<'a> Stamp<'a> {
    fn of(epoch: i64, version: i64, origin: &'a Origin) -> Result<Self, OutOfRange> {
        within("epoch", epoch, 0, (1 << 24) - 1)?;
        within("version", version, 0, (1 << 40) - 1)?;
        Ok(Stamp { epoch, version: row_version(epoch, version), origin })
    }
}

/// What a document's three kinds of rows share.
struct Shared<'a> {
    stamp: Stamp<'a>,
    location_id: Uuid,
    business_date: i32,
    slot: u16,
    document_id: Uuid,
    kind: &'static str,
    currency: String,
    currency_scale: u16,
    terminal_id: Uuid,
    cashier_id: Uuid,
    customer_id: Uuid,
    occurred_at: i64,
    recorded_at: i64,
    location_seq: i64,
}

impl<'a> Shared<'a> {
    fn of(event: &DocumentCommitted, origin: &'a Origin) -> Result<Self, OutOfRange> {
        within("slot", event.slot.into(), 0, 311)?;
        Ok(Shared {
            stamp: Stamp::of(event.epoch, event.location_seq, origin)?,
            location_id: event.location_id.0,
            business_date: day("business_date", event.business_date)?,
            slot: event.slot as u16,
            document_id: event.document_id.0,
            kind: kind(event.kind),
            currency: event.currency.clone(),
            currency_scale: scale(&event.currency)?,
            terminal_id: event.terminal_id.0,
            cashier_id: event.cashier_id.0,
            customer_id: event.customer_id.unwrap_or_default().0,
            occurred_at: instant("occurred_at", event.occurred_at)?,
            recorded_at: instant("recorded_at", event.recorded_at)?,
            location_seq: event.location_seq,
        })
    }

    fn document(&self, event: DocumentCommitted) -> Result<Document, OutOfRange> {
        amounts(&[
            ("subtotal_minor", event.subtotal_minor),
            ("discount_minor", event.discount_minor),
            ("tax_minor", event.tax_minor),
            ("tip_minor", event.tip_minor),
            ("total_minor", event.total_minor),
            ("rounding_minor", event.rounding_minor),
            ("change_minor", event.change_minor),
        ])?;
        let sum = |leg: &str, field: &'static str, of: fn(&DocumentLine) -> i64| {
            let lines = event.lines.iter().filter(|line| line.leg == leg);
            let total = lines.map(|line| i128::from(of(line))).sum::<i128>();
            i64::try_from(total)
                .ok()
                .filter(|total| total.unsigned_abs() <= AMOUNT_MAX as u64)
                .ok_or(OutOfRange { field, value: total.to_string() })
        };
        Ok(stamped!(
            self.stamp,
            Document {
                location_id: self.location_id,
                business_date: self.business_date,
                slot: self.slot,
                document_id: self.document_id,
                kind: self.kind,
                currency: self.currency.clone(),
                currency_scale: self.currency_scale,
                terminal_id: self.terminal_id,
                cashier_id: self.cashier_id,
                customer_id: self.customer_id,
                occurred_at: self.occurred_at,
                recorded_at: self.recorded_at,
                location_seq: self.location_seq,
                receipt_register: event.register_id,
                receipt_series_epoch: event.series_epoch,
                receipt_number: event.receipt_number,
                terminal_seq: event.terminal_seq,
                origin_location_id: event.origin_location_id.unwrap_or_default().0,
                drawer_session_id: event.drawer_session_id.unwrap_or_default(),
                lease_id: event.lease_id.unwrap_or_default(),
                approval_id: event.approval_id.unwrap_or_default(),
                occurred_at_raw: instant("occurred_at_raw", event.occurred_at_raw)?,
                sent_at: instant("sent_at", event.sent_at.unwrap_or_default())?,
                rounding_mode: event.rounding_mode,
                cash_step: event.cash_step,
                subtotal_minor: event.subtotal_minor,
                discount_minor: event.discount_minor,
                tax_minor: event.tax_minor,
                tip_minor: event.tip_minor,
                total_minor: event.total_minor,
                rounding_minor: event.rounding_minor,
                change_minor: event.change_minor,
                line_count: event.lines.len() as u32,
                sold_qty: sum("sale", "sold_qty", |line| line.qty)?,
                sold_net_minor: sum("sale", "sold_net_minor", |line| line.net_minor)?,
                sold_discount_minor: sum("sale", "sold_discount_minor", |line| line.discount_minor)?,
                sold_redemption_minor: sum("sale", "sold_redemption_minor", |line| line.redemption_minor)?,
                returned_qty: sum("return", "returned_qty", |line| line.qty)?,
                returned_net_minor: sum("return", "returned_net_minor", |line| line.net_minor)?,
                tender_kinds: event.tenders.iter().map(|tender| tender.kind.clone()).collect(),
                tender_amounts_minor: event.tenders.iter().map(|tender| tender.amount_minor).collect(),
                tender_tips_minor: event.tenders.iter().map(|tender| tender.tip_minor).collect(),
                flags: event.flags,
                content_hash: event.content_hash,
                hash_version: event.hash_version,
                document_digest: event.document_digest,
                pricing_version: event.pricing_version,
                cause_type: event.cause_type,
                cause_id: event.cause_id,
                actor: event.actor.0,
            }
        ))
    }

    fn line(&self, line: &DocumentLine) -> Result<Line, OutOfRange> {
        let unit_cost_minor = optional(line.unit_cost);
        amounts(&[
            ("list_price_minor", line.list_price_minor),
            ("unit_price_minor", line.unit_price_minor),
            ("extended_minor", line.extended_minor),
            ("discount_minor", line.discount_minor),
            ("redemption_minor", line.redemption_minor),
            ("tax_minor", line.tax_minor),
            ("added_tax_minor", line.added_tax_minor),
            ("net_minor", line.net_minor),
            ("payable_minor", line.payable_minor),
            ("unit_cost", unit_cost_minor),
        ])?;
        for discount in &line.discounts {
            amounts(&[("discounts.amount_minor", discount.amount_minor)])?;
        }
        for tax in &line.taxes {
            amounts(&[("taxes.amount_minor", tax.amount_minor), ("taxes.base_minor", tax.base_minor)])?;
        }
        quantities(&[("qty", line.qty)])?;
        Ok(stamped!(
            self.stamp,
            Line {
                location_id: self.location_id,
                business_date: self.business_date,
                slot: self.slot,
                document_id: self.document_id,
                line_no: line.line_no,
                kind: self.kind,
                currency: self.currency.clone(),
                currency_scale: self.currency_scale,
                terminal_id: self.terminal_id,
                cashier_id: self.cashier_id,
                customer_id: self.customer_id,
                occurred_at: self.occurred_at,
                recorded_at: self.recorded_at,
                location_seq: self.location_seq,
                leg: line.leg.clone(),
                variant_id: line.variant_id.0,
                product_id: line.product_id.0,
                sku: line.sku.clone(),
                name: line.name.clone(),
                origin_document_id: line.origin_document_id.unwrap_or_default().0,
                origin_line_no: line.origin_line_no.unwrap_or(-1),
                origin_location_id: line.origin_location_id.unwrap_or_default().0,
                first_unit: optional(line.first_unit),
                last_unit: optional(line.last_unit),
                qty: line.qty,
                unit: line.unit.clone(),
                is_measured: line.is_measured,
                tracks_stock: line.tracks_stock,
                disposition: line.disposition.clone().unwrap_or_default(),
                list_price_minor: line.list_price_minor,
                unit_price_minor: line.unit_price_minor,
                override_reason: line.override_reason.clone().unwrap_or_default(),
                extended_minor: line.extended_minor,
                discount_ids: line.discounts.iter().map(|discount| discount.discount_id.clone()).collect(),
                discount_kinds: line.discounts.iter().map(|discount| discount.kind.clone()).collect(),
                discount_names: line.discounts.iter().map(|discount| discount.name.clone()).collect(),
                discount_amounts_minor: line.discounts.iter().map(|discount| discount.amount_minor).collect(),
                discount_minor: line.discount_minor,
                redemption_minor: line.redemption_minor,
                tax_ids: line.taxes.iter().map(|tax| tax.tax_id).collect(),
                tax_names: line.taxes.iter().map(|tax| tax.name.clone()).collect(),
                tax_rates: line.taxes.iter().map(|tax| tax.rate.clone()).collect(),
                tax_bases_minor: line.taxes.iter().map(|tax| tax.base_minor).collect(),
                tax_inclusive: line.taxes.iter().map(|tax| tax.inclusive).collect(),
                tax_scopes: line.taxes.iter().map(|tax| tax.scope.clone()).collect(),
                tax_amounts_minor: line.taxes.iter().map(|tax| tax.amount_minor).collect(),
                tax_minor: line.tax_minor,
                added_tax_minor: line.added_tax_minor,
                net_minor: line.net_minor,
                payable_minor: line.payable_minor,
                unit_cost_minor,
            }
        ))
    }

    /// The change of the document stands on its first cash tender, else on its first.
    fn tenders(&self, event: &DocumentCommitted) -> Result<Vec<Tender>, OutOfRange> {
        let changed = event.tenders.iter().position(|tender| tender.kind == "cash").unwrap_or(0);
        let numbered = event.tenders.iter().enumerate();
        numbered
            .map(|(index, tender)| self.tender(tender, if index == changed { event.change_minor } else { 0 }))
            .collect()
    }

    fn tender(&self, tender: &DocumentTender, change_minor: i64) -> Result<Tender, OutOfRange> {
        amounts(&[("tenders.amount_minor", tender.amount_minor), ("tenders.tip_minor", tender.tip_minor)])?;
        Ok(stamped!(
            self.stamp,
            Tender {
                location_id: self.location_id,
                business_date: self.business_date,
                slot: self.slot,
                document_id: self.document_id,
                tender_no: tender.tender_no,
                kind: self.kind,
                currency: self.currency.clone(),
                currency_scale: self.currency_scale,
                terminal_id: self.terminal_id,
                cashier_id: self.cashier_id,
                customer_id: self.customer_id,
                occurred_at: self.occurred_at,
                recorded_at: self.recorded_at,
                location_seq: self.location_seq,
                tender_kind: tender.kind.clone(),
                amount_minor: tender.amount_minor,
                tip_minor: tender.tip_minor,
                change_minor,
                state: tender.state.clone(),
                intent_id: tender.intent_id.unwrap_or_default(),
                psp_reference: tender.psp_reference.clone().unwrap_or_default(),
                card_brand: tender.card_brand.clone().unwrap_or_default(),
                card_last_four: tender.card_last_four.clone().unwrap_or_default(),
                card_expiry: tender.card_expiry.clone().unwrap_or_default(),
                liability_account_id: tender.liability_account_id.unwrap_or_default(),
            }
        ))
    }
}

fn kind(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Unknown => "unknown",
        DocumentKind::Sale => "sale",
        DocumentKind::Refund => "refund",
        DocumentKind::Exchange => "exchange",
        DocumentKind::Void => "void",
    }
}

/// Minor units in one unit of the currency.
fn scale(code: &str) -> Result<u16, OutOfRange> {
    let currency: Currency = code.parse().map_err(|_| OutOfRange { field: "currency", value: code.to_owned() })?;
    10u16.checked_pow(currency.exponent()).ok_or(OutOfRange { field: "currency", value: code.to_owned() })
}

fn optional(value: Option<i64>) -> i64 {
    value.unwrap_or(-1)
}

fn within(field: &'static str, value: i64, min: i64, max: i64) -> Result<(), OutOfRange> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(OutOfRange { field, value: value.to_string() }) }
}

fn amounts(figures: &[(&'static str, i64)]) -> Result<(), OutOfRange> {
    figures.iter().try_for_each(|(field, value)| within(field, *value, -AMOUNT_MAX, AMOUNT_MAX))
}

/// Quantities have room for 15 digits before the point in the views.
fn quantities(figures: &[(&'static str, i64)]) -> Result<(), OutOfRange> {
    figures.iter().try_for_each(|(field, value)| within(field, *value, -AMOUNT_MAX, AMOUNT_MAX))
}

/// 1900-01-01 and 2299-12-31, the ends of ClickHouse's dates.
const DAYS: (i64, i64) = (-25_567, 120_529);
const MICROS_OF_DAY: i64 = 86_400_000_000;

fn day(field: &'static str, day: Day) -> Result<i32, OutOfRange> {
    within(field, day.0.into(), DAYS.0, DAYS.1)?;
    Ok(day.0)
}

fn instant(field: &'static str, at: Timestamp) -> Result<i64, OutOfRange> {
    within(field, at.0.div_euclid(MICROS_OF_DAY), DAYS.0, DAYS.1)?;
    Ok(at.0)
}

/// UTC date of an instant that [`instant`] has accepted.
fn date_of(at: Timestamp) -> i32 {
    at.0.div_euclid(MICROS_OF_DAY) as i32
}
