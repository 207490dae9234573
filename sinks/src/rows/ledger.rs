//! Stock movements, loyalty entries and low-stock alerts: one row per event.

use schemas::events::{LoyaltyPosted, StockFellLow, StockMoved};

use super::checks::{amounts, date_of, day, instant, optional, quantities};
use super::{Alert, LoyaltyEntry, Movement, Origin, OutOfRange, Rows, Stamp};

impl Rows {
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
}
