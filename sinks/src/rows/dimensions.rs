//! Dimensions: the latest state of variants, locations and cashiers.

use schemas::events::{Cashier, Location, Variant};

use super::checks::{day, instant};
use super::{DimCashier, DimLocation, DimVariant, Origin, OutOfRange, Rows, Stamp};

impl Rows {
    /// Adds the latest state of a variant.
    pub fn variant(&mut self, event: Variant, origin: &Origin) -> Result<(), OutOfRange> {
        let stamp = Stamp::of_state(event.epoch, event.version, origin)?;
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
        let stamp = Stamp::of_state(event.epoch, event.version, origin)?;
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
        let stamp = Stamp::of_state(event.epoch, event.version, origin)?;
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
