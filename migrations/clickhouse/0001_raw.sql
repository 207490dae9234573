-- Raw tables: one row per business identity, exactly as the topics carried it. Written by the sink alone.
--
-- Identity is the sort key and holds nothing that can change; a replayed, repeated or restated record
-- replaces its row by `version`, so loading anything twice changes nothing. Read them through FINAL, or,
-- better, through the views of the database `vorca`.
--
-- Nothing is Nullable. What is absent has a stated value: all zero for a UUID, an empty text, 1970-01-01 for a
-- time, -1 for a number. Money is Int64 minor units, quantities are Int64 thousandths, times are UTC.

CREATE DATABASE IF NOT EXISTS vorca_raw COMMENT 'Records of the topics by business identity, and the marts computed from them; for the sink';

CREATE DATABASE IF NOT EXISTS vorca COMMENT 'What people query: facts, dimensions and KPI views, deduplicated, in decimal units';

CREATE TABLE IF NOT EXISTS vorca_raw.schema_migrations
(
    migration UInt32 COMMENT 'Number of the migration file',
    name LowCardinality(String) COMMENT 'Name of the migration file',
    sha256 FixedString(64) COMMENT 'SHA-256 of the file as it was applied, lower-case hex',
    applied_at DateTime64(6, 'UTC') COMMENT 'When it was applied'
)
ENGINE = ReplacingMergeTree
ORDER BY migration
COMMENT 'Migrations that have run here; written by sinks migrate';

CREATE TABLE IF NOT EXISTS vorca_raw.documents
(
    location_id UUID COMMENT 'Location the document was committed at',
    business_date Date32 COMMENT 'Business day of the location, fixed at commit',
    slot UInt16 COMMENT 'Five-minute interval of the business day, 0-311, counted from its start',
    document_id UUID COMMENT 'Document; made by the till before the first send',
    kind LowCardinality(String) COMMENT 'Kind of the document: sale, refund, exchange or void',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount of the row; never add amounts of two currencies',
    currency_scale UInt16 COMMENT 'Minor units in one unit of the currency: 100 for EUR, 1 for JPY, 1000 for KWD',
    terminal_id UUID COMMENT 'Terminal that sent the document',
    cashier_id UUID COMMENT 'Cashier named on the document',
    customer_id UUID COMMENT 'Customer; all zero: none',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When the sale happened, device clock corrected',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    location_seq Int64 COMMENT 'Number of the act at its location, gapless, in commit order',
    receipt_register LowCardinality(String) COMMENT 'Register whose receipt series numbered the document',
    receipt_series_epoch Int32 COMMENT 'Series of the register the number belongs to',
    receipt_number Int64 COMMENT 'Number on the receipt',
    terminal_seq Int64 COMMENT 'Number of the document at its terminal',
    origin_location_id UUID COMMENT 'Location of the document this one reverses; all zero: none',
    drawer_session_id UUID COMMENT 'Drawer session; all zero: none (filled once drawers exist)',
    lease_id UUID COMMENT 'Offline lease it was sold under; all zero: sold online',
    approval_id UUID COMMENT 'Approval it needed; all zero: none',
    occurred_at_raw DateTime64(6, 'UTC') COMMENT 'When the sale happened by the clock of the device',
    sent_at DateTime64(6, 'UTC') COMMENT 'When the device sent it, by its own clock; 1970-01-01: not told',
    rounding_mode LowCardinality(String) COMMENT 'How figures of the document were rounded',
    cash_step Int64 COMMENT 'Smallest cash amount in minor units',
    subtotal_minor Int64 COMMENT 'Subtotal as on the document, minor units',
    discount_minor Int64 COMMENT 'Discounts as on the document, minor units',
    tax_minor Int64 COMMENT 'Sum of all stored taxes, minor units',
    tip_minor Int64 COMMENT 'Tips, minor units',
    total_minor Int64 COMMENT 'Amount due before cash rounding, minor units',
    rounding_minor Int64 COMMENT 'Cash rounding, minor units: total + rounding was settled',
    change_minor Int64 COMMENT 'Cash given back, minor units',
    line_count UInt32 COMMENT 'Number of lines',
    sold_qty Int64 COMMENT 'Sum of the quantities of sale lines, thousandths',
    sold_net_minor Int64 COMMENT 'Sum of the nets of sale lines, without tax, minor units',
    sold_discount_net_minor Int64 COMMENT 'Sum of the discounts and redemption of sale lines, without the tax in them, minor units',
    returned_qty Int64 COMMENT 'Sum of the quantities of return lines, thousandths, as stored',
    returned_net_minor Int64 COMMENT 'Sum of the nets of return lines, without tax, as stored (negative), minor units',
    tender_kinds Array(LowCardinality(String)) COMMENT 'Kind of each tender in order: cash, card, gift_card, store_credit, other',
    tender_amounts_minor Array(Int64) COMMENT 'Amount of each tender, for cash what was given, minor units',
    tender_tips_minor Array(Int64) COMMENT 'Tip on each tender, minor units',
    flags Array(LowCardinality(String)) COMMENT 'Remarks of the platform, for instance oversold or clock_skew',
    content_hash String COMMENT 'SHA-256 of the canonical document, lower-case hex',
    hash_version Int32 COMMENT 'Rule the hash was made by',
    document_digest String COMMENT 'SHA-256 over lines and tenders, lower-case hex: what reconciliation compares',
    pricing_version Int64 COMMENT 'Catalog version the document was priced from',
    cause_type LowCardinality(String) COMMENT 'What caused the document',
    cause_id UUID COMMENT 'Identity of the cause',
    actor UUID COMMENT 'User who acted',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | location_seq: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(business_date)
ORDER BY (location_id, business_date, slot, document_id)
COMMENT 'Documents (sales; later refunds, exchanges, voids), one row each; topic vorca.sales.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.lines
(
    location_id UUID COMMENT 'Location the document was committed at',
    business_date Date32 COMMENT 'Business day of the location, fixed at commit',
    slot UInt16 COMMENT 'Five-minute interval of the business day, 0-311, counted from its start',
    document_id UUID COMMENT 'Document; made by the till before the first send',
    line_no Int32 COMMENT 'Number of the line in its document',
    kind LowCardinality(String) COMMENT 'Kind of the document: sale, refund, exchange or void',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount of the row; never add amounts of two currencies',
    currency_scale UInt16 COMMENT 'Minor units in one unit of the currency: 100 for EUR, 1 for JPY, 1000 for KWD',
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
    origin_document_id UUID COMMENT 'Document a return line reverses; all zero: none',
    origin_line_no Int32 COMMENT 'Line a return line reverses; -1: none',
    origin_location_id UUID COMMENT 'Location of that document; all zero: none',
    first_unit Int64 COMMENT 'First unit of the origin line that is returned; -1: none',
    last_unit Int64 COMMENT 'Last unit of the origin line that is returned; -1: none',
    qty Int64 COMMENT 'Quantity, thousandths; negative on return lines',
    unit LowCardinality(String) COMMENT 'Unit of measure',
    is_measured Bool COMMENT 'Sold by weight, length or volume rather than by the piece',
    tracks_stock Bool COMMENT 'Whether the line moved stock',
    disposition LowCardinality(String) COMMENT 'Where a returned unit went; empty: not a return',
    list_price_minor Int64 COMMENT 'Price of one unit in the catalog, minor units',
    unit_price_minor Int64 COMMENT 'Price of one unit as sold, minor units',
    override_reason LowCardinality(String) COMMENT 'Why the price was overridden; empty: it was not',
    extended_minor Int64 COMMENT 'Price times quantity before discounts, minor units; with tax where prices include it',
    discount_ids Array(String) COMMENT 'Identity of each discount',
    discount_kinds Array(LowCardinality(String)) COMMENT 'Kind of each discount',
    discount_names Array(String) COMMENT 'Name or reason of each discount',
    discount_amounts_minor Array(Int64) COMMENT 'Amount of each discount, minor units',
    discount_minor Int64 COMMENT 'All discounts of the line, minor units',
    redemption_minor Int64 COMMENT 'What loyalty points paid on the line, minor units',
    discount_net_minor Int64 COMMENT 'Discounts and redemption of the line without the tax in them: what they take off its net, minor units',
    tax_ids Array(UUID) COMMENT 'Identity of each tax',
    tax_names Array(LowCardinality(String)) COMMENT 'Name of each tax',
    tax_rates Array(LowCardinality(String)) COMMENT 'Rate of each tax as an exact decimal in text, 0.19 for 19 %',
    tax_bases_minor Array(Int64) COMMENT 'Base of each tax, minor units',
    tax_inclusive Array(Bool) COMMENT 'Whether each tax is part of the price',
    tax_scopes Array(LowCardinality(String)) COMMENT 'Where each tax was rounded: line or order',
    tax_amounts_minor Array(Int64) COMMENT 'Amount of each tax, minor units',
    tax_minor Int64 COMMENT 'All taxes of the line, minor units',
    added_tax_minor Int64 COMMENT 'The part of the tax added to the price, minor units',
    net_minor Int64 COMMENT 'Net of the line: after discounts and redemption, without tax, minor units',
    payable_minor Int64 COMMENT 'What the customer owes for the line, minor units',
    unit_cost_minor Int64 COMMENT 'Cost of one unit at commit, minor units; -1: not known',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | location_seq of the document: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(business_date)
ORDER BY (location_id, business_date, slot, document_id, line_no)
COMMENT 'Lines of documents, one row each; topic vorca.sales.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.tenders
(
    location_id UUID COMMENT 'Location the document was committed at',
    business_date Date32 COMMENT 'Business day of the location, fixed at commit',
    slot UInt16 COMMENT 'Five-minute interval of the business day, 0-311, counted from its start',
    document_id UUID COMMENT 'Document; made by the till before the first send',
    tender_no Int32 COMMENT 'Number of the tender in its document; 0: cash that went out as change where none came in',
    kind LowCardinality(String) COMMENT 'Kind of the document: sale, refund, exchange or void',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of every amount of the row; never add amounts of two currencies',
    currency_scale UInt16 COMMENT 'Minor units in one unit of the currency: 100 for EUR, 1 for JPY, 1000 for KWD',
    terminal_id UUID COMMENT 'Terminal that sent the document',
    cashier_id UUID COMMENT 'Cashier named on the document',
    customer_id UUID COMMENT 'Customer; all zero: none',
    occurred_at DateTime64(6, 'UTC') COMMENT 'When the sale happened, device clock corrected',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    location_seq Int64 COMMENT 'Number of the act at its location, gapless, in commit order',
    tender_kind LowCardinality(String) COMMENT 'cash, card, gift_card, store_credit or other',
    amount_minor Int64 COMMENT 'Amount, for cash what was given, minor units',
    tip_minor Int64 COMMENT 'Tip on this tender, minor units',
    change_minor Int64 COMMENT 'Cash given back, minor units; stands on the first cash tender of the document, without one on tender 0',
    state LowCardinality(String) COMMENT 'State of the payment',
    intent_id UUID COMMENT 'Payment intent; all zero: none',
    psp_reference String COMMENT 'Reference of the payment provider; empty: none',
    card_brand LowCardinality(String) COMMENT 'Card brand; empty: no card',
    card_last_four String COMMENT 'Last four digits of the card; empty: no card',
    card_expiry LowCardinality(String) COMMENT 'Expiry month of the card; empty: no card',
    liability_account_id UUID COMMENT 'Gift card or store credit account; all zero: none',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | location_seq of the document: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(business_date)
ORDER BY (location_id, business_date, slot, document_id, tender_no)
COMMENT 'Tenders (means of payment) of documents, one row each; topic vorca.sales.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.movements
(
    location_id UUID COMMENT 'Location whose stock changed',
    business_date Date32 COMMENT 'Business day of the location the change belongs to',
    variant_id UUID COMMENT 'Variant whose stock changed',
    entity_version Int64 COMMENT 'Number of the change of this stock level, gapless',
    parent_location_id UUID COMMENT 'Shop of a system location (transit, waste); all zero: the location is a shop',
    location_seq Int64 COMMENT 'Number of the act at its location',
    delta Int64 COMMENT 'Change in thousandths; sales are negative, receipts positive',
    qty_after Int64 COMMENT 'Stock after the change, thousandths',
    cause_type LowCardinality(String) COMMENT 'What caused it: sale, receipt, adjustment, threshold, resync ...',
    cause_id UUID COMMENT 'Identity of the cause, the document_id for a sale',
    cause_line Int32 COMMENT 'Line of the cause',
    transfer_id UUID COMMENT 'Transfer it belongs to; all zero: none',
    reason LowCardinality(String) COMMENT 'Reason as given',
    document_uri String COMMENT 'Supporting document; empty: none',
    actor UUID COMMENT 'User who acted',
    approval_id UUID COMMENT 'Approval it needed; all zero: none',
    effective_at DateTime64(6, 'UTC') COMMENT 'When the stock changed',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    neutral Bool COMMENT 'A leg of a restatement: leaves the present stock as it is',
    threshold Int64 COMMENT 'Low-stock threshold in force, thousandths; -1: none',
    hysteresis Int64 COMMENT 'How far above the threshold an alarm arms again, thousandths',
    resync Bool COMMENT 'A full statement of the stock level with delta 0',
    unit_cost_minor Int64 COMMENT 'Cost of one unit in minor units of the location; -1: not told',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | entity_version: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(business_date)
ORDER BY (location_id, business_date, variant_id, entity_version)
COMMENT 'Changes of stock levels, one row each; topic vorca.inventory.movements.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.loyalty_entries
(
    account_id UUID COMMENT 'Loyalty account',
    entity_version Int64 COMMENT 'Number of the entry in its account, gapless',
    effective_date Date32 COMMENT 'UTC date of effective_at',
    customer_id UUID COMMENT 'Customer of the account',
    program_id UUID COMMENT 'Loyalty program',
    location_id UUID COMMENT 'Location of the act; all zero: none',
    location_seq Int64 COMMENT 'Number of the act at its location',
    kind LowCardinality(String) COMMENT 'accrual, redemption, claw_back, expiry, adjustment or resync',
    delta Int64 COMMENT 'Change in points',
    points_after Int64 COMMENT 'Points after the change',
    tier_multiplier LowCardinality(String) COMMENT 'Multiplier of the tier, exact decimal in text',
    lot_ids Array(UUID) COMMENT 'Lots the entry touched',
    lot_deltas Array(Int64) COMMENT 'Change of each lot in points',
    cause_type LowCardinality(String) COMMENT 'What caused the entry',
    cause_id UUID COMMENT 'Identity of the cause, the document_id for a sale',
    cause_line Int32 COMMENT 'Line of the cause',
    actor UUID COMMENT 'User who acted',
    approval_id UUID COMMENT 'Approval it needed; all zero: none',
    effective_at DateTime64(6, 'UTC') COMMENT 'When the points changed',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed it',
    resync Bool COMMENT 'A full statement of the account with delta 0',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | entity_version: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(effective_date)
ORDER BY (account_id, entity_version)
COMMENT 'Entries of loyalty accounts, one row each; topic vorca.loyalty.entries.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.alerts
(
    location_id UUID COMMENT 'Location whose stock fell low',
    effective_date Date32 COMMENT 'UTC date of effective_at',
    variant_id UUID COMMENT 'Variant that fell low',
    alert_id UUID COMMENT 'Alert; derived from the movement that caused it',
    entity_version Int64 COMMENT 'Version of the stock level that caused it',
    location_seq Int64 COMMENT 'Number of the act at its location',
    qty Int64 COMMENT 'Stock at that moment, thousandths',
    threshold Int64 COMMENT 'Threshold it fell to, thousandths',
    hysteresis Int64 COMMENT 'How far above the threshold the alarm arms again, thousandths',
    days_of_cover Int64 COMMENT 'How long the stock lasts, thousandths of a day; -1: nothing was sold lately',
    daily_sales Int64 COMMENT 'Mean daily sales, thousandths of a unit',
    cause_id UUID COMMENT 'Document or act whose movement caused it',
    effective_at DateTime64(6, 'UTC') COMMENT 'When it happened',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed the movement',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | entity_version: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
PARTITION BY toYYYYMM(effective_date)
ORDER BY (location_id, effective_date, variant_id, alert_id)
COMMENT 'Low-stock alerts, one row each; topic vorca.inventory.alerts.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.dim_variants
(
    variant_id UUID COMMENT 'Variant',
    external_id String COMMENT 'Identity in the system of the business',
    product_id UUID COMMENT 'Product of the variant',
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
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed this state',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | version of the variant: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (variant_id)
COMMENT 'Latest state of each variant with its product; topic vorca.catalog.variants.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.dim_locations
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
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed this state',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | version of the location: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (location_id)
COMMENT 'Latest state of each location; topic vorca.catalog.locations.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.dim_cashiers
(
    cashier_id UUID COMMENT 'Cashier',
    code LowCardinality(String) COMMENT 'Code of the cashier; names of people never leave the ledger',
    is_active Bool COMMENT 'Whether the cashier may sell',
    catalog_version Int64 COMMENT 'Catalog version of this state',
    recorded_at DateTime64(6, 'UTC') COMMENT 'When the ledger committed this state',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | version of the user: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT '1: withdrawn, the row belongs to a time line that a restore of the ledger gave up',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (cashier_id)
COMMENT 'Latest state of each cashier; topic vorca.catalog.cashiers.v1';

-- What a restore of the ledger gave up: for each location the last number that survived.
CREATE TABLE IF NOT EXISTS vorca_raw.epoch_cuts
(
    epoch Int64 COMMENT 'Epoch that the restore began',
    location_id UUID COMMENT 'Location; all zero: acts of the company',
    kept_seq Int64 COMMENT 'Last location_seq that survived: rows of earlier epochs above it are withdrawn'
)
ENGINE = ReplacingMergeTree
ORDER BY (epoch, location_id, kept_seq)
COMMENT 'Time lines given up by restores; written by sinks withdraw';

-- Documents withdrawn so far. A tombstone takes its row out of the sums a mart is versioned by; what stands
-- here keeps that version rising.
CREATE TABLE IF NOT EXISTS vorca_raw.withdrawals
(
    location_id UUID COMMENT 'Location of the document',
    business_date Date32 COMMENT 'Business day of the document',
    slot UInt16 COMMENT 'Slot of the document',
    document_id UUID COMMENT 'Withdrawn document',
    epoch Int64 COMMENT 'Epoch whose restore gave it up',
    version UInt64 COMMENT 'Row version of the tombstone',
    line_count UInt32 COMMENT 'Number of its lines'
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(business_date)
ORDER BY (location_id, business_date, slot, document_id, epoch)
COMMENT 'Documents of time lines that restores gave up';

-- Marts: one row is one whole slice. A slice is computed anew from raw and replaces its row when its
-- slice_version is higher, so nothing is ever added to it and no half of it can be seen.
CREATE TABLE IF NOT EXISTS vorca_raw.mart_sales
(
    location_id UUID COMMENT 'Location of the slice',
    business_date Date32 COMMENT 'Business day of the slice',
    slot UInt16 COMMENT 'Five-minute interval of the business day',
    slice_version UInt128 COMMENT 'Definition version << 112 | data version: the highest is the valid one',
    newest_recorded_at DateTime64(6, 'UTC') COMMENT 'Latest commit among the documents of the slice; 1970-01-01: it is empty',
    computed_at DateTime64(6, 'UTC') COMMENT 'When the slice was computed',
    figures Array(Tuple(
        currency LowCardinality(String), currency_scale UInt16, cashier_id UUID, tender LowCardinality(String), documents UInt64,
        gross_minor Int64, discounts_minor Int64, returns_minor Int64, net_minor Int64, tax_minor Int64, collected_minor Int64, units Int64))
        COMMENT 'Figures by currency, cashier and tender; tender empty: all tenders, the row that carries every figure'
)
ENGINE = ReplacingMergeTree(slice_version)
PARTITION BY toYYYYMM(business_date)
ORDER BY (location_id, business_date, slot)
COMMENT 'KPIs of sales by slot; definition in sinks/kpi/sales.sql';

CREATE TABLE IF NOT EXISTS vorca_raw.mart_products
(
    location_id UUID COMMENT 'Location of the slice',
    business_date Date32 COMMENT 'Business day of the slice',
    slot UInt16 COMMENT 'Always 0: the slice is the whole day',
    slice_version UInt128 COMMENT 'Definition version << 112 | data version: the highest is the valid one',
    newest_recorded_at DateTime64(6, 'UTC') COMMENT 'Latest commit among the lines of the slice; 1970-01-01: it is empty',
    computed_at DateTime64(6, 'UTC') COMMENT 'When the slice was computed',
    figures Array(Tuple(
        currency LowCardinality(String), currency_scale UInt16, product_id UUID, variant_id UUID, documents UInt64,
        gross_minor Int64, discounts_minor Int64, returns_minor Int64, net_minor Int64, tax_minor Int64, units Int64))
        COMMENT 'Figures by currency, product and variant; variant all zero: the whole product'
)
ENGINE = ReplacingMergeTree(slice_version)
PARTITION BY toYYYYMM(business_date)
ORDER BY (location_id, business_date, slot)
COMMENT 'KPIs of products by day; definition in sinks/kpi/products.sql';
