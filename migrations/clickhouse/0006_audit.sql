-- Signed heads and roots of the audit log: a copy of the evidence outside the ledger database. Nothing is ever withdrawn
-- from it: what was signed on a time line that a restore gave up is evidence too.

CREATE TABLE IF NOT EXISTS vorca_raw.audit_heads
(
    chain_id UUID COMMENT 'Location whose acts the chain holds; all zero: acts of the company',
    seq Int64 COMMENT 'Number of the last seal of the chain',
    hash String COMMENT 'Hash of that seal, SHA-256 in lower-case hex; it covers every seal before it',
    key_id LowCardinality(String) COMMENT 'First 16 hex digits of the SHA-256 of the public key',
    signature String COMMENT 'Ed25519 signature in lower-case hex',
    signed_at DateTime64(6, 'UTC') COMMENT 'When it was signed',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | number of the seal: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT 'Always 0: evidence of a time line that was given up stays',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (chain_id, epoch, seq)
COMMENT 'Signed heads of the audit chains; topic vorca.audit.heads.v1';

CREATE TABLE IF NOT EXISTS vorca_raw.audit_roots
(
    location_id UUID COMMENT 'Location of the documents',
    business_date Date32 COMMENT 'Business day of the documents',
    root_no Int32 COMMENT '1 when the day was over; higher for documents that arrived later',
    through_seq Int64 COMMENT 'Last seal of the location that was looked at',
    leaf_count Int64 COMMENT 'Documents under the root',
    root String COMMENT 'Merkle root (RFC 6962), SHA-256 in lower-case hex',
    key_id LowCardinality(String) COMMENT 'First 16 hex digits of the SHA-256 of the public key',
    signature String COMMENT 'Ed25519 signature in lower-case hex',
    signed_at DateTime64(6, 'UTC') COMMENT 'When it was signed',
    trace_id String COMMENT 'W3C trace id (32 hex digits) of the request that caused the row; empty: none was given',
    epoch Int64 COMMENT 'Restore generation of the ledger database the row was written in',
    version UInt64 COMMENT 'Row version, epoch << 40 | number of the root: of two rows with one identity the higher replaces the lower',
    is_deleted UInt8 COMMENT 'Always 0: evidence of a time line that was given up stays',
    _topic LowCardinality(String) COMMENT 'Kafka topic the row came from',
    _partition Int32 COMMENT 'Kafka partition the row came from',
    _offset Int64 COMMENT 'Kafka offset the row came from',
    _ingested_at DateTime64(6, 'UTC') COMMENT 'When the sink wrote the row'
)
ENGINE = ReplacingMergeTree(version, is_deleted)
ORDER BY (location_id, business_date, root_no, epoch)
COMMENT 'Signed Merkle roots of business days; topic vorca.audit.roots.v1';

CREATE OR REPLACE VIEW vorca.fct_audit_heads
(
    chain_id UUID COMMENT 'Location whose acts the chain holds; all zero: acts of the company',
    seq Int64 COMMENT 'Number of the last seal of the chain',
    hash String COMMENT 'Hash of that seal, SHA-256 in lower-case hex; it covers every seal before it',
    epoch Int64 COMMENT 'Restore generation of the ledger database it was signed in',
    key_id LowCardinality(String) COMMENT 'First 16 hex digits of the SHA-256 of the public key',
    signature String COMMENT 'Ed25519 signature in lower-case hex',
    signed_at DateTime64(6, 'UTC') COMMENT 'When it was signed'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    chain_id,
    seq,
    hash,
    epoch,
    key_id,
    signature,
    signed_at
FROM vorca_raw.audit_heads FINAL
COMMENT 'Signed heads of the audit chains; what worker verify compares with the ledger';

CREATE OR REPLACE VIEW vorca.fct_audit_roots
(
    location_id UUID COMMENT 'Location of the documents',
    business_date Date32 COMMENT 'Business day of the documents',
    root_no Int32 COMMENT '1 when the day was over; higher for documents that arrived later',
    through_seq Int64 COMMENT 'Last seal of the location that was looked at',
    leaf_count Int64 COMMENT 'Documents under the root',
    root String COMMENT 'Merkle root (RFC 6962), SHA-256 in lower-case hex',
    epoch Int64 COMMENT 'Restore generation of the ledger database it was signed in',
    key_id LowCardinality(String) COMMENT 'First 16 hex digits of the SHA-256 of the public key',
    signature String COMMENT 'Ed25519 signature in lower-case hex',
    signed_at DateTime64(6, 'UTC') COMMENT 'When it was signed'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT
    location_id,
    business_date,
    root_no,
    through_seq,
    leaf_count,
    root,
    epoch,
    key_id,
    signature,
    signed_at
FROM vorca_raw.audit_roots FINAL
COMMENT 'Signed roots over the documents of finished business days';
