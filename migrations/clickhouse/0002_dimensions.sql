-- Views for people: deduplicated, flat, money as decimals with its currency beside it, quantities as decimals.
-- They run with the rights of their owner, so that who reads them needs no right on the raw tables.
-- Sums over two currencies mean nothing: group by currency, always.

CREATE OR REPLACE VIEW vorca.dim_location
(
    location_id UUID COMMENT 'Location',
    external_id String COMMENT 'Identity in the system of the business',
    name String COMMENT 'Name',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of its prices',
    time_zone LowCardinality(String) COMMENT 'IANA time zone',
    day_cutoff LowCardinality(String) COMMENT 'Local time at which its business day starts',
    opened_on Date32 COMMENT 'First business day',
    is_active Bool COMMENT 'Whether it may sell',
    catalog_version Int64 COMMENT 'Catalog version of this state',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed this state'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    external_id,
    name,
    currency,
    time_zone,
    day_cutoff,
    opened_on,
    is_active,
    catalog_version,
    recorded_at
FROM vorca_raw.dim_locations FINAL
COMMENT 'Locations (shops), latest state; one row each';

CREATE OR REPLACE VIEW vorca.dim_product
(
    variant_id UUID COMMENT 'Variant',
    product_id UUID COMMENT 'Product of the variant',
    external_id String COMMENT 'Identity in the system of the business',
    product_name String COMMENT 'Name of the product',
    category LowCardinality(String) COMMENT 'Category of the product; empty: none',
    sku String COMMENT 'SKU',
    name String COMMENT 'Name of the variant',
    barcodes Array(String) COMMENT 'Barcodes',
    unit LowCardinality(String) COMMENT 'Unit of measure',
    is_measured Bool COMMENT 'Sold by weight, length or volume rather than by the piece',
    tracks_stock Bool COMMENT 'Whether stock is kept',
    tax_profile_id UUID COMMENT 'Tax profile',
    is_active Bool COMMENT 'Whether it may be sold',
    catalog_version Int64 COMMENT 'Catalog version of this state',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed this state'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    variant_id,
    product_id,
    external_id,
    product_name,
    category,
    sku,
    name,
    barcodes,
    unit,
    is_measured,
    tracks_stock,
    tax_profile_id,
    is_active,
    catalog_version,
    recorded_at
FROM vorca_raw.dim_variants FINAL
COMMENT 'What is sold: one row per variant, with its product; join on variant_id';

CREATE OR REPLACE VIEW vorca.dim_cashier
(
    cashier_id UUID COMMENT 'Cashier',
    code LowCardinality(String) COMMENT 'Code of the cashier; names of people never leave the ledger',
    is_active Bool COMMENT 'Whether the cashier may sell',
    catalog_version Int64 COMMENT 'Catalog version of this state',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed this state'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    cashier_id,
    code,
    is_active,
    catalog_version,
    recorded_at
FROM vorca_raw.dim_cashiers FINAL
COMMENT 'Cashiers by code, latest state; one row each';
