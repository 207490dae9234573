-- What is known of a person, sealed field by field under a key that lies elsewhere (migrations/vault): this database, its
-- backups and its write-ahead log hold ciphertext alone.
alter table customers
    -- Another member this one was merged into; always one that was not merged itself.
    add column merged_into  uuid references customers,
    -- Since then nobody can read the personal fields, here or in any backup.
    add column erased_at    timestamptz,
    -- False from the erasure until the key store has forgotten the key.
    add column key_is_gone  boolean not null default false,
    add constraint customers_merged_into_another check (merged_into <> customer_id);
create index customers_by_survivor on customers (merged_into) where merged_into is not null;
create index customers_to_forget on customers (customer_id) where erased_at is not null and not key_is_gone;

create table customer_fields (
    customer_id  uuid not null references customers,
    field        text not null
        check (field in ('given_name', 'family_name', 'email', 'phone', 'birthday', 'notes', 'consents')),
    -- The data key, not the master key that wraps it.
    key_id       uuid not null,
    nonce        bytea not null check (octet_length(nonce) = 12),
    -- AES-256-GCM; the customer and the name of the field are authenticated with it.
    ciphertext   bytea not null,
    primary key (customer_id, field)
);
