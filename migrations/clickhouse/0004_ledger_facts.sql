-- Views of stock movements, loyalty entries and low-stock alerts. What every view keeps to stands in 0002.

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
