//! Documents: one row each, beside a row for each line and tender.

use schemas::events::{DocumentCommitted, DocumentKind, DocumentLine, DocumentTender};
use schemas::money::{Currency, RoundingMode};
use uuid::Uuid;

use super::checks::{amounts, day, instant, optional, quantities, within};
use super::discount::net_of_tax;
use super::{AMOUNT_MAX, Document, Line, Origin, OutOfRange, Rows, Stamp, Tender};

impl Rows {
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
    mode: RoundingMode,
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
            mode: event.rounding_mode.parse().unwrap_or(RoundingMode::HalfEven),
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
        let sum = |leg: &str, field: &'static str, of: &dyn Fn(&DocumentLine) -> i64| {
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
                sold_qty: sum("sale", "sold_qty", &|line| line.qty)?,
                sold_net_minor: sum("sale", "sold_net_minor", &|line| line.net_minor)?,
                sold_discount_net_minor: sum("sale", "sold_discount_net_minor", &|line| net_of_tax(line, self.mode))?,
                returned_qty: sum("return", "returned_qty", &|line| line.qty)?,
                returned_net_minor: sum("return", "returned_net_minor", &|line| line.net_minor)?,
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
                discount_net_minor: net_of_tax(line, self.mode),
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

    /// Change is cash that goes out: it stands on the first cash tender, and where nobody gave cash on a tender of
    /// its own with number 0.
    fn tenders(&self, event: &DocumentCommitted) -> Result<Vec<Tender>, OutOfRange> {
        let cash = event.tenders.iter().position(|tender| tender.kind == "cash");
        let paid_out = paid_out();
        let alone = (cash.is_none() && event.change_minor != 0).then_some((&paid_out, event.change_minor));
        let numbered = event.tenders.iter().enumerate();
        let given = numbered.map(|(index, it)| (it, if cash == Some(index) { event.change_minor } else { 0 }));
        alone.into_iter().chain(given).map(|(tender, change_minor)| self.tender(tender, change_minor)).collect()
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

/// Cash that went out of the drawer where none came in.
fn paid_out() -> DocumentTender {
    DocumentTender {
        tender_no: 0,
        kind: "cash".to_owned(),
        amount_minor: 0,
        tip_minor: 0,
        state: "captured".to_owned(),
        intent_id: None,
        psp_reference: None,
        card_brand: None,
        card_last_four: None,
        card_expiry: None,
        liability_account_id: None,
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
pub(super) fn scale(code: &str) -> Result<u16, OutOfRange> {
    let currency: Currency = code.parse().map_err(|_| OutOfRange { field: "currency", value: code.to_owned() })?;
    10u16.checked_pow(currency.exponent()).ok_or(OutOfRange { field: "currency", value: code.to_owned() })
}
