-- The key store: a database of its own, so that no dump of the platform holds a key or a way from a person to a member.
-- Its backups are kept no longer than erasure may take (docs/privacy.md).
create schema vault;

-- One data key per member, wrapped by a master key that no database knows.
create table vault.data_keys (
    customer_id  uuid primary key,
    key_id       uuid not null unique,
    -- Fingerprint of the master key.
    master_key   text not null,
    nonce        bytea not null check (octet_length(nonce) = 12),
    wrapped      bytea not null,
    created_at   timestamptz not null default now()
);
create index data_keys_by_master_key on vault.data_keys (master_key, customer_id);

-- HMAC of what a member can be looked up by. Not unique: families share a telephone.
create table vault.lookups (
    digest       bytea not null check (octet_length(digest) = 32),
    customer_id  uuid not null references vault.data_keys on delete cascade,
    primary key (digest, customer_id)
);
create index lookups_by_customer on vault.lookups (customer_id);

-- Whom the platform must not know again, also after a restore of its database to a time before.
create table vault.erasures (
    customer_id  uuid primary key,
    erased_at    timestamptz not null default now()
);
