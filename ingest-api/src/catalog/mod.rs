//! What is sold: products, their variants, dated prices, and the feed from which tills follow them.

pub mod feed;
pub mod prices;
pub mod products;
pub mod promotions;
pub mod upsert;
pub mod variants;

use schemas::events;
use schemas::ids::VariantId;

use crate::catalog::variants::Variant;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::error::ApiError;

/// Notes the new state of a variant in the feed and for its compacted topic.
fn note_variant(write: &mut CatalogWrite, variant: &Variant) -> Result<(), ApiError> {
    let catalog_version = write.change(Kind::Variant, (variant.variant_id, variant.version), None, variant)?;
    write.publish(&events::Variant {
        epoch: write.epoch,
        variant_id: VariantId(variant.variant_id),
        version: variant.version,
        catalog_version,
        external_id: variant.external_id.clone(),
        product_id: variant.product_id.into(),
        product_name: variant.product_name.clone(),
        category: variant.category.clone(),
        sku: variant.sku.clone(),
        name: variant.name.clone(),
        barcodes: variant.barcodes.clone(),
        unit: variant.unit.clone(),
        is_measured: variant.is_measured,
        tracks_stock: variant.tracks_stock,
        tax_profile_id: variant.tax_profile_id.into(),
        is_active: variant.is_active,
        recorded_at: write.at.into(),
    });
    Ok(())
}
