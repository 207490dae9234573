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

CREATE OR REPLACE VIEW vorca.fct_documents
(
    location_id UUID COMMENT 'Location the document was committed at',
    business_date Date32 COMMENT 'Business day of the location, fixed at commit',
    slot UInt16 COMMENT 'Five-minute interval of the business day, 0-311, counted from its start',
    hour UInt8 COMMENT 'Hour of the business day, 0-25, counted from its start (the local hour where the day starts at midnight)',
    document_id UUID COMMENT 'Document; made by the till before the first send',
    kind LowCardinality(String) COMMENT 'Kind of the document: sale, refund, exchange or void',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount of the row; never add amounts of two currencies',
    terminal_id UUID COMMENT 'Terminal that sent the document',
    cashier_id UUID COMMENT 'Cashier named on the document',
    customer_id UUID COMMENT 'Customer; all zero: none',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When the sale happened, device clock corrected',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    location_seq Int64 COMMENT 'Number of the act at its location, gapless, in commit order',
    register_id LowCardinality(String) COMMENT 'Register whose receipt series numbered the document',
    series_epoch Int32 COMMENT 'Series of the register the number belongs to',
    receipt_number Int64 COMMENT 'Number on the receipt',
    terminal_seq Int64 COMMENT 'Number of the document at its terminal',
    origin_location_id UUID COMMENT 'Location of the document this one reverses; all zero: none',
    drawer_session_id UUID COMMENT 'Drawer session; all zero: none (filled once drawers exist)',
    lease_id UUID COMMENT 'Offline lease it was sold under; all zero: sold online',
    approval_id UUID COMMENT 'Approval it needed; all zero: none',
    occurred_at_raw DateTime64(6, 'UTC') COMMENT 'When the sale happened by the clock of the device',
    sent_at DateTime64(6, 'UTC') COMMENT 'When the device sent it, by its own clock; 1970-01-01: not told',
    rounding_mode LowCardinality(String) COMMENT 'How figures of the document were rounded',
    subtotal Decimal(18, 4) COMMENT 'Subtotal as on the document',
    discount Decimal(18, 4) COMMENT 'Discounts as on the document',
    tax Decimal(18, 4) COMMENT 'Sum of all stored taxes',
    tip Decimal(18, 4) COMMENT 'Tips',
    total Decimal(18, 4) COMMENT 'Amount due before cash rounding',
    rounding Decimal(18, 4) COMMENT 'Cash rounding: total + rounding was settled',
    change Decimal(18, 4) COMMENT 'Cash given back',
    gross Decimal(18, 4) COMMENT 'Gross sales: nets of sale lines before discounts, without tax',
    discounts Decimal(18, 4) COMMENT 'Discounts and redemption of sale lines',
    returns Decimal(18, 4) COMMENT 'Nets of return lines, positive, without tax',
    net Decimal(18, 4) COMMENT 'Net sales: gross - discounts - returns, without tax',
    collected Decimal(18, 4) COMMENT 'What was collected: total + cash rounding + tips',
    units Decimal(18, 3) COMMENT 'Units sold',
    line_count UInt32 COMMENT 'Number of lines',
    tender_kinds Array(LowCardinality(String)) COMMENT 'Kind of each tender in order: cash, card, gift_card, store_credit, other',
    flags Array(LowCardinality(String)) COMMENT 'Remarks of the platform, for instance oversold or clock_skew',
    pricing_version Int64 COMMENT 'Catalog version the document was priced from',
    content_hash String COMMENT 'SHA-256 of the canonical document, lower-case hex',
    hash_version Int32 COMMENT 'Rule the hash was made by',
    document_digest String COMMENT 'SHA-256 over lines and tenders, lower-case hex: what reconciliation compares',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    slot,
    toUInt8(intDiv(slot, 12)) AS hour,
    document_id,
    kind,
    currency,
    terminal_id,
    cashier_id,
    customer_id,
    occurred_at,
    recorded_at,
    location_seq,
    receipt_register AS register_id,
    receipt_series_epoch AS series_epoch,
    receipt_number,
    terminal_seq,
    origin_location_id,
    drawer_session_id,
    lease_id,
    approval_id,
    occurred_at_raw,
    sent_at,
    rounding_mode,
    toDecimal64(subtotal_minor, 4) / currency_scale AS subtotal,
    toDecimal64(discount_minor, 4) / currency_scale AS discount,
    toDecimal64(tax_minor, 4) / currency_scale AS tax,
    toDecimal64(tip_minor, 4) / currency_scale AS tip,
    toDecimal64(total_minor, 4) / currency_scale AS total,
    toDecimal64(rounding_minor, 4) / currency_scale AS rounding,
    toDecimal64(change_minor, 4) / currency_scale AS change,
    toDecimal64((sold_net_minor + sold_discount_minor + sold_redemption_minor), 4) / currency_scale AS gross,
    toDecimal64((sold_discount_minor + sold_redemption_minor), 4) / currency_scale AS discounts,
    toDecimal64((-returned_net_minor), 4) / currency_scale AS returns,
    toDecimal64((sold_net_minor + returned_net_minor), 4) / currency_scale AS net,
    toDecimal64((total_minor + rounding_minor + tip_minor), 4) / currency_scale AS collected,
    toDecimal64(sold_qty, 3) / 1000 AS units,
    line_count,
    tender_kinds,
    flags,
    pricing_version,
    content_hash,
    hash_version,
    document_digest,
    trace_id,
    epoch,
    _ingested_at AS ingested_at
FROM vorca_raw.documents FINAL
COMMENT 'Documents (sales; later refunds, exchanges, voids), one row each; joins dim_location, dim_cashier; lines in fct_lines, tenders in fct_tenders';

CREATE OR REPLACE VIEW vorca.fct_lines
(
    location_id UUID COMMENT 'Location the document was committed at',
    business_date Date32 COMMENT 'Business day of the location, fixed at commit',
    slot UInt16 COMMENT 'Five-minute interval of the business day, 0-311, counted from its start',
    hour UInt8 COMMENT 'Hour of the business day, 0-25, counted from its start (the local hour where the day starts at midnight)',
    document_id UUID COMMENT 'Document; made by the till before the first send',
    line_no Int32 COMMENT 'Number of the line in its document',
    kind LowCardinality(String) COMMENT 'Kind of the document: sale, refund, exchange or void',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount of the row; never add amounts of two currencies',
    terminal_id UUID COMMENT 'Terminal that sent the document',
    cashier_id UUID COMMENT 'Cashier named on the document',
    customer_id UUID COMMENT 'Customer; all zero: none',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When the sale happened, device clock corrected',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    location_seq Int64 COMMENT 'Number of the act at its location, gapless, in commit order',
    leg LowCardinality(String) COMMENT 'sale or return',
    variant_id UUID COMMENT 'What was sold',
    product_id UUID COMMENT 'Product of the variant',
    sku String COMMENT 'SKU as sold',
    name String COMMENT 'Name as sold',
    qty Decimal(18, 3) COMMENT 'Quantity; negative on return lines',
    unit LowCardinality(String) COMMENT 'Unit of measure',
    is_measured Bool COMMENT 'Sold by weight, length or volume rather than by the piece',
    tracks_stock Bool COMMENT 'Whether the line moved stock',
    disposition LowCardinality(String) COMMENT 'Where a returned unit went; empty: not a return',
    list_price Decimal(18, 4) COMMENT 'Price of one unit in the catalog',
    unit_price Decimal(18, 4) COMMENT 'Price of one unit as sold',
    override_reason LowCardinality(String) COMMENT 'Why the price was overridden; empty: it was not',
    extended Decimal(18, 4) COMMENT 'Price times quantity before discounts; with tax where prices include it',
    discount_kinds Array(LowCardinality(String)) COMMENT 'Kind of each discount',
    discount_names Array(String) COMMENT 'Name or reason of each discount',
    discount_amounts Array(Decimal(18, 4)) COMMENT 'Amount of each discount',
    discount Decimal(18, 4) COMMENT 'All discounts of the line',
    redemption Decimal(18, 4) COMMENT 'What loyalty points paid on the line',
    tax_ids Array(UUID) COMMENT 'Identity of each tax',
    tax_names Array(LowCardinality(String)) COMMENT 'Name of each tax',
    tax_rates Array(Decimal(18, 6)) COMMENT 'Rate of each tax, 0.19 for 19 %',
    tax_amounts Array(Decimal(18, 4)) COMMENT 'Amount of each tax',
    tax_inclusive Array(Bool) COMMENT 'Whether each tax is part of the price',
    tax Decimal(18, 4) COMMENT 'All taxes of the line',
    added_tax Decimal(18, 4) COMMENT 'The part of the tax added to the price',
    net Decimal(18, 4) COMMENT 'Net of the line: after discounts and redemption, without tax',
    payable Decimal(18, 4) COMMENT 'What the customer owes for the line',
    unit_cost Decimal(18, 4) COMMENT 'Cost of one unit at commit; -1: not known',
    origin_document_id UUID COMMENT 'Document a return line reverses; all zero: none',
    origin_line_no Int32 COMMENT 'Line a return line reverses; -1: none',
    origin_location_id UUID COMMENT 'Location of that document; all zero: none',
    first_unit Int64 COMMENT 'First unit of the origin line that is returned; -1: none',
    last_unit Int64 COMMENT 'Last unit of the origin line that is returned; -1: none',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    slot,
    toUInt8(intDiv(slot, 12)) AS hour,
    document_id,
    line_no,
    kind,
    currency,
    terminal_id,
    cashier_id,
    customer_id,
    occurred_at,
    recorded_at,
    location_seq,
    leg,
    variant_id,
    product_id,
    sku,
    name,
    toDecimal64(qty, 3) / 1000 AS qty,
    unit,
    is_measured,
    tracks_stock,
    disposition,
    toDecimal64(list_price_minor, 4) / currency_scale AS list_price,
    toDecimal64(unit_price_minor, 4) / currency_scale AS unit_price,
    override_reason,
    toDecimal64(extended_minor, 4) / currency_scale AS extended,
    discount_kinds,
    discount_names,
    arrayMap(a -> toDecimal64(a, 4) / currency_scale, discount_amounts_minor) AS discount_amounts,
    toDecimal64(discount_minor, 4) / currency_scale AS discount,
    toDecimal64(redemption_minor, 4) / currency_scale AS redemption,
    tax_ids,
    tax_names,
    arrayMap(r -> toDecimal64OrZero(r, 6), tax_rates) AS tax_rates,
    arrayMap(a -> toDecimal64(a, 4) / currency_scale, tax_amounts_minor) AS tax_amounts,
    tax_inclusive,
    toDecimal64(tax_minor, 4) / currency_scale AS tax,
    toDecimal64(added_tax_minor, 4) / currency_scale AS added_tax,
    toDecimal64(net_minor, 4) / currency_scale AS net,
    toDecimal64(payable_minor, 4) / currency_scale AS payable,
    if(unit_cost_minor < 0, toDecimal64(-1, 4), toDecimal64(unit_cost_minor, 4) / currency_scale) AS unit_cost,
    origin_document_id,
    origin_line_no,
    origin_location_id,
    first_unit,
    last_unit,
    trace_id,
    epoch,
    _ingested_at AS ingested_at
FROM vorca_raw.lines FINAL
COMMENT 'Lines of documents, one row each; joins dim_location, dim_product, dim_cashier';

CREATE OR REPLACE VIEW vorca.fct_tenders
(
    location_id UUID COMMENT 'Location the document was committed at',
    business_date Date32 COMMENT 'Business day of the location, fixed at commit',
    slot UInt16 COMMENT 'Five-minute interval of the business day, 0-311, counted from its start',
    hour UInt8 COMMENT 'Hour of the business day, 0-25, counted from its start (the local hour where the day starts at midnight)',
    document_id UUID COMMENT 'Document; made by the till before the first send',
    tender_no Int32 COMMENT 'Number of the tender in its document',
    kind LowCardinality(String) COMMENT 'Kind of the document: sale, refund, exchange or void',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount of the row; never add amounts of two currencies',
    terminal_id UUID COMMENT 'Terminal that sent the document',
    cashier_id UUID COMMENT 'Cashier named on the document',
    customer_id UUID COMMENT 'Customer; all zero: none',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When the sale happened, device clock corrected',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    location_seq Int64 COMMENT 'Number of the act at its location, gapless, in commit order',
    tender_kind LowCardinality(String) COMMENT 'cash, card, gift_card, store_credit or other',
    amount Decimal(18, 4) COMMENT 'Amount, for cash what was given',
    tip Decimal(18, 4) COMMENT 'Tip on this tender',
    change Decimal(18, 4) COMMENT 'Cash given back; stands on the first cash tender of the document, else on its first tender',
    collected Decimal(18, 4) COMMENT 'What this tender settled: amount + tip - change',
    state LowCardinality(String) COMMENT 'State of the payment',
    intent_id UUID COMMENT 'Payment intent; all zero: none',
    psp_reference String COMMENT 'Reference of the payment provider; empty: none',
    card_brand LowCardinality(String) COMMENT 'Card brand; empty: no card',
    card_last_four String COMMENT 'Last four digits of the card; empty: no card',
    card_expiry LowCardinality(String) COMMENT 'Expiry month of the card; empty: no card',
    liability_account_id UUID COMMENT 'Gift card or store credit account; all zero: none',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    slot,
    toUInt8(intDiv(slot, 12)) AS hour,
    document_id,
    tender_no,
    kind,
    currency,
    terminal_id,
    cashier_id,
    customer_id,
    occurred_at,
    recorded_at,
    location_seq,
    tender_kind,
    toDecimal64(amount_minor, 4) / currency_scale AS amount,
    toDecimal64(tip_minor, 4) / currency_scale AS tip,
    toDecimal64(change_minor, 4) / currency_scale AS change,
    toDecimal64((amount_minor + tip_minor - change_minor), 4) / currency_scale AS collected,
    state,
    intent_id,
    psp_reference,
    card_brand,
    card_last_four,
    card_expiry,
    liability_account_id,
    trace_id,
    epoch,
    _ingested_at AS ingested_at
FROM vorca_raw.tenders FINAL
COMMENT 'Tenders (means of payment) of documents, one row each; joins dim_location, dim_cashier';

CREATE OR REPLACE VIEW vorca.fct_movements
(
    location_id UUID COMMENT 'Location whose stock changed',
    business_date Date32 COMMENT 'Business day of the location the change belongs to',
    variant_id UUID COMMENT 'Variant whose stock changed',
    cashier_id UUID COMMENT 'User who acted',
    entity_version Int64 COMMENT 'Number of the change of this stock level, gapless',
    parent_location_id UUID COMMENT 'Shop of a system location (transit, waste); all zero: the location is a shop',
    location_seq Int64 COMMENT 'Number of the act at its location',
    delta Decimal(18, 3) COMMENT 'Change in thousandths; sales are negative, receipts positive',
    qty_after Decimal(18, 3) COMMENT 'Stock after the change',
    cause_type LowCardinality(String) COMMENT 'What caused it: sale, receipt, adjustment, threshold, resync ...',
    cause_id UUID COMMENT 'Identity of the cause, the document_id for a sale',
    cause_line Int32 COMMENT 'Line of the cause',
    transfer_id UUID COMMENT 'Transfer it belongs to; all zero: none',
    reason LowCardinality(String) COMMENT 'Reason as given',
    document_uri String COMMENT 'Supporting document; empty: none',
    approval_id UUID COMMENT 'Approval it needed; all zero: none',
    effective_at DateTime64(6, 'UTC') COMMENT 'When the stock changed',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    neutral Bool COMMENT 'A leg of a restatement: leaves the present stock as it is',
    threshold Decimal(18, 3) COMMENT 'Low-stock threshold in force; -1: none',
    hysteresis Decimal(18, 3) COMMENT 'How far above the threshold an alarm arms again',
    resync Bool COMMENT 'A full statement of the stock level with delta 0',
    unit_cost_minor Int64 COMMENT 'Cost of one unit in minor units of the location; -1: not told',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    variant_id,
    actor AS cashier_id,
    entity_version,
    parent_location_id,
    location_seq,
    toDecimal64(delta, 3) / 1000 AS delta,
    toDecimal64(qty_after, 3) / 1000 AS qty_after,
    cause_type,
    cause_id,
    cause_line,
    transfer_id,
    reason,
    document_uri,
    approval_id,
    effective_at,
    recorded_at,
    neutral,
    if(threshold < 0, toDecimal64(-1, 3), toDecimal64(threshold, 3) / 1000) AS threshold,
    toDecimal64(hysteresis, 3) / 1000 AS hysteresis,
    resync,
    unit_cost_minor,
    trace_id,
    epoch,
    _ingested_at AS ingested_at
FROM vorca_raw.movements FINAL
COMMENT 'Changes of stock levels, one row each; joins dim_location, dim_product, dim_cashier (the user who acted)';

CREATE OR REPLACE VIEW vorca.fct_loyalty_entries
(
    account_id UUID COMMENT 'Loyalty account',
    entity_version Int64 COMMENT 'Number of the entry in its account, gapless',
    effective_date Date32 COMMENT 'UTC date of effective_at',
    customer_id UUID COMMENT 'Customer of the account',
    program_id UUID COMMENT 'Loyalty program',
    location_id UUID COMMENT 'Location of the act; all zero: none',
    cashier_id UUID COMMENT 'User who acted',
    location_seq Int64 COMMENT 'Number of the act at its location',
    kind LowCardinality(String) COMMENT 'accrual, redemption, claw_back, expiry, adjustment or resync',
    delta Int64 COMMENT 'Change in points',
    points_after Int64 COMMENT 'Points after the change',
    tier_multiplier Decimal(18, 6) COMMENT 'Multiplier of the tier',
    lot_ids Array(UUID) COMMENT 'Lots the entry touched',
    lot_deltas Array(Int64) COMMENT 'Change of each lot in points',
    cause_type LowCardinality(String) COMMENT 'What caused the entry',
    cause_id UUID COMMENT 'Identity of the cause, the document_id for a sale',
    cause_line Int32 COMMENT 'Line of the cause',
    approval_id UUID COMMENT 'Approval it needed; all zero: none',
    effective_at DateTime64(6, 'UTC') COMMENT 'When the points changed',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    resync Bool COMMENT 'A full statement of the account with delta 0',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    account_id,
    entity_version,
    effective_date,
    customer_id,
    program_id,
    location_id,
    actor AS cashier_id,
    location_seq,
    kind,
    delta,
    points_after,
    toDecimal64OrZero(tier_multiplier, 6) AS tier_multiplier,
    lot_ids,
    lot_deltas,
    cause_type,
    cause_id,
    cause_line,
    approval_id,
    effective_at,
    recorded_at,
    resync,
    trace_id,
    epoch,
    _ingested_at AS ingested_at
FROM vorca_raw.loyalty_entries FINAL
COMMENT 'Entries of loyalty accounts, one row each; joins dim_location, dim_cashier (the user who acted); a customer is an identity, nothing personal';

CREATE OR REPLACE VIEW vorca.fct_alerts
(
    alert_id UUID COMMENT 'Alert; derived from the movement that caused it',
    location_id UUID COMMENT 'Location whose stock fell low',
    effective_date Date32 COMMENT 'UTC date of effective_at',
    variant_id UUID COMMENT 'Variant that fell low',
    entity_version Int64 COMMENT 'Version of the stock level that caused it',
    location_seq Int64 COMMENT 'Number of the act at its location',
    qty Decimal(18, 3) COMMENT 'Stock at that moment',
    threshold Decimal(18, 3) COMMENT 'Threshold it fell to',
    hysteresis Decimal(18, 3) COMMENT 'How far above the threshold the alarm arms again',
    days_of_cover Decimal(18, 3) COMMENT 'How many days the stock lasts; -1: nothing was sold lately',
    daily_sales Decimal(18, 3) COMMENT 'Mean daily sales of a unit',
    cause_id UUID COMMENT 'Document or act whose movement caused it',
    effective_at DateTime64(6, 'UTC') COMMENT 'When it happened',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed the movement',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    alert_id,
    location_id,
    effective_date,
    variant_id,
    entity_version,
    location_seq,
    toDecimal64(qty, 3) / 1000 AS qty,
    toDecimal64(threshold, 3) / 1000 AS threshold,
    toDecimal64(hysteresis, 3) / 1000 AS hysteresis,
    if(days_of_cover < 0, toDecimal64(-1, 3), toDecimal64(days_of_cover, 3) / 1000) AS days_of_cover,
    toDecimal64(daily_sales, 3) / 1000 AS daily_sales,
    cause_id,
    effective_at,
    recorded_at,
    trace_id,
    epoch,
    _ingested_at AS ingested_at
FROM vorca_raw.alerts FINAL
COMMENT 'Low-stock alerts, one row each; joins dim_location, dim_product';

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
    discounts Decimal(18, 4) COMMENT 'Discounts, redemption of points included',
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
    documents UInt64 COMMENT 'Documents with a tender of this kind; one with two kinds counts in both',
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
    discounts Decimal(18, 4) COMMENT 'Discounts, redemption of points included',
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
    discounts Decimal(18, 4) COMMENT 'Discounts, redemption of points included',
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
