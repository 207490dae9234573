-- Views of the KPI marts. What the figures mean stands in sinks/kpi. What every view keeps to stands in 0002.

CREATE OR REPLACE VIEW vorca.agg_slot_sales
(
    location_id UUID COMMENT 'Location',
    business_date Date32 COMMENT 'Business day',
    slot UInt16 COMMENT 'Five-minute interval of the business day',
    hour UInt8 COMMENT 'Hour of the business day, 0-25, counted from its start (the local hour where the day starts at midnight)',
    cashier_id UUID COMMENT 'Cashier',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the amounts',
    currency_scale UInt16 COMMENT 'Minor units in one unit of the currency',
    documents UInt64 COMMENT 'Documents of kind sale or exchange',
    gross Decimal(18, 4) COMMENT 'Gross sales: before discounts, without tax',
    discounts Decimal(18, 4) COMMENT 'Discounts without tax, redemption of points included',
    returns Decimal(18, 4) COMMENT 'Returned nets, positive',
    net Decimal(18, 4) COMMENT 'Net sales: gross - discounts - returns',
    tax Decimal(18, 4) COMMENT 'Sum of stored taxes',
    collected Decimal(18, 4) COMMENT 'Collected: net + tax + tips + cash rounding',
    units Decimal(18, 3) COMMENT 'Units sold',
    newest_recorded_at DateTime64(6, 'UTC') COMMENT 'Latest commit among the documents of the slice'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    slot,
    toUInt8(intDiv(slot, 12)) AS hour,
    f.cashier_id AS cashier_id,
    f.currency AS currency,
    f.currency_scale AS currency_scale,
    f.documents AS documents,
    toDecimal64(f.gross_minor, 4) / f.currency_scale AS gross,
    toDecimal64(f.discounts_minor, 4) / f.currency_scale AS discounts,
    toDecimal64(f.returns_minor, 4) / f.currency_scale AS returns,
    toDecimal64(f.net_minor, 4) / f.currency_scale AS net,
    toDecimal64(f.tax_minor, 4) / f.currency_scale AS tax,
    toDecimal64(f.collected_minor, 4) / f.currency_scale AS collected,
    toDecimal64(f.units, 3) / 1000 AS units,
    newest_recorded_at
FROM vorca_raw.mart_sales FINAL
ARRAY JOIN figures AS f
WHERE f.tender = ''
COMMENT 'KPIs by location, business day, five-minute slot, cashier and currency; a few seconds behind the tills';

CREATE OR REPLACE VIEW vorca.agg_slot_tenders
(
    location_id UUID COMMENT 'Location',
    business_date Date32 COMMENT 'Business day',
    slot UInt16 COMMENT 'Five-minute interval of the business day',
    hour UInt8 COMMENT 'Hour of the business day, 0-25, counted from its start (the local hour where the day starts at midnight)',
    cashier_id UUID COMMENT 'Cashier',
    tender LowCardinality(String) COMMENT 'Kind of tender',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the amounts',
    currency_scale UInt16 COMMENT 'Minor units in one unit of the currency',
    documents UInt64 COMMENT 'Documents in which money of this kind came in or went out; one with two kinds counts in both',
    collected Decimal(18, 4) COMMENT 'Collected by this kind of tender: amount + tip - change',
    newest_recorded_at DateTime64(6, 'UTC') COMMENT 'Latest commit among the documents of the slice'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    slot,
    toUInt8(intDiv(slot, 12)) AS hour,
    f.cashier_id AS cashier_id,
    f.tender AS tender,
    f.currency AS currency,
    f.currency_scale AS currency_scale,
    f.documents AS documents,
    toDecimal64(f.collected_minor, 4) / f.currency_scale AS collected,
    newest_recorded_at
FROM vorca_raw.mart_sales FINAL
ARRAY JOIN figures AS f
WHERE f.tender != ''
COMMENT 'What each kind of tender collected by location, business day, slot, cashier and currency';

CREATE OR REPLACE VIEW vorca.agg_day_products
(
    location_id UUID COMMENT 'Location',
    business_date Date32 COMMENT 'Business day',
    product_id UUID COMMENT 'Product',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the amounts',
    currency_scale UInt16 COMMENT 'Minor units in one unit of the currency',
    documents UInt64 COMMENT 'Documents with a sale line of it; do not add them over products',
    gross Decimal(18, 4) COMMENT 'Gross sales: before discounts, without tax',
    discounts Decimal(18, 4) COMMENT 'Discounts without tax, redemption of points included',
    returns Decimal(18, 4) COMMENT 'Returned nets, positive',
    net Decimal(18, 4) COMMENT 'Net sales: gross - discounts - returns',
    tax Decimal(18, 4) COMMENT 'Sum of stored taxes',
    units Decimal(18, 3) COMMENT 'Units sold',
    newest_recorded_at DateTime64(6, 'UTC') COMMENT 'Latest commit among the documents of the slice'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    f.product_id AS product_id,
    f.currency AS currency,
    f.currency_scale AS currency_scale,
    f.documents AS documents,
    toDecimal64(f.gross_minor, 4) / f.currency_scale AS gross,
    toDecimal64(f.discounts_minor, 4) / f.currency_scale AS discounts,
    toDecimal64(f.returns_minor, 4) / f.currency_scale AS returns,
    toDecimal64(f.net_minor, 4) / f.currency_scale AS net,
    toDecimal64(f.tax_minor, 4) / f.currency_scale AS tax,
    toDecimal64(f.units, 3) / 1000 AS units,
    newest_recorded_at
FROM vorca_raw.mart_products FINAL
ARRAY JOIN figures AS f
WHERE f.variant_id = toUUID('00000000-0000-0000-0000-000000000000')
COMMENT 'KPIs by location, business day, product and currency; refreshed by the minute';

CREATE OR REPLACE VIEW vorca.agg_day_variants
(
    location_id UUID COMMENT 'Location',
    business_date Date32 COMMENT 'Business day',
    product_id UUID COMMENT 'Product',
    variant_id UUID COMMENT 'Variant',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the amounts',
    currency_scale UInt16 COMMENT 'Minor units in one unit of the currency',
    documents UInt64 COMMENT 'Documents with a sale line of it; do not add them over products',
    gross Decimal(18, 4) COMMENT 'Gross sales: before discounts, without tax',
    discounts Decimal(18, 4) COMMENT 'Discounts without tax, redemption of points included',
    returns Decimal(18, 4) COMMENT 'Returned nets, positive',
    net Decimal(18, 4) COMMENT 'Net sales: gross - discounts - returns',
    tax Decimal(18, 4) COMMENT 'Sum of stored taxes',
    units Decimal(18, 3) COMMENT 'Units sold',
    newest_recorded_at DateTime64(6, 'UTC') COMMENT 'Latest commit among the documents of the slice'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    f.product_id AS product_id,
    f.variant_id AS variant_id,
    f.currency AS currency,
    f.currency_scale AS currency_scale,
    f.documents AS documents,
    toDecimal64(f.gross_minor, 4) / f.currency_scale AS gross,
    toDecimal64(f.discounts_minor, 4) / f.currency_scale AS discounts,
    toDecimal64(f.returns_minor, 4) / f.currency_scale AS returns,
    toDecimal64(f.net_minor, 4) / f.currency_scale AS net,
    toDecimal64(f.tax_minor, 4) / f.currency_scale AS tax,
    toDecimal64(f.units, 3) / 1000 AS units,
    newest_recorded_at
FROM vorca_raw.mart_products FINAL
ARRAY JOIN figures AS f
WHERE f.variant_id != toUUID('00000000-0000-0000-0000-000000000000')
COMMENT 'KPIs by location, business day, variant and currency; refreshed by the minute';

CREATE OR REPLACE VIEW vorca.kpi_freshness
(
    mart LowCardinality(String) COMMENT 'sales (agg_slot_*) or products (agg_day_*)',
    fresh_as_of DateTime64(6, 'UTC') COMMENT 'Commit time of the newest document in the mart; 1970-01-01: it is empty',
    computed_at DateTime64(6, 'UTC') COMMENT 'When a slice was last computed'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT 'sales' AS mart, max(newest_recorded_at) AS fresh_as_of, max(mart_sales.computed_at) AS computed_at FROM vorca_raw.mart_sales
UNION ALL
SELECT 'products' AS mart, max(newest_recorded_at) AS fresh_as_of, max(mart_products.computed_at) AS computed_at FROM vorca_raw.mart_products
COMMENT 'How fresh the KPI views are; also grows old while nobody sells';
