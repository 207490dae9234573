-- Proof of what was done: the rows of the audit log numbered and hashed in chains, what was signed about them, and the
-- rights of the role that the application runs as.

-- Transaction that wrote the row. Rows become visible in another order than that of their times; no transaction below
-- the oldest running one can bring another row, so the sealer goes by this. Rows from before have the lowest number.
alter table audit_log add column xid xid8 not null default '3';
alter table audit_log alter column xid set default pg_current_xact_id();
create index audit_log_by_xid on audit_log (xid);

-- One seal per row of the log. `chain` is the location of the act, all zero without one; `seq` counts the chain from 1
-- without a gap; `hash` covers the row, the document behind it and the hash before it (docs/audit.md, byte by byte).
create table audit_seals (
    chain          uuid not null,
    seq            bigint not null check (seq >= 1),
    audit_id       uuid not null constraint audit_seals_audit_id_key unique,
    -- Of an act that made a document: its day and the leaf that stands for it in the day's tree.
    document_id    uuid,
    business_date  date,
    leaf           bytea check (octet_length(leaf) = 32),
    prev_hash      bytea not null check (octet_length(prev_hash) = 32),
    hash           bytea not null check (octet_length(hash) = 32),
    sealed_at      timestamptz not null,
    primary key (chain, seq),
    check ((document_id is null) = (leaf is null) and (document_id is null) = (business_date is null))
);
create unique index audit_seals_by_document on audit_seals (document_id) where document_id is not null;

-- Public keys that signed something, for whoever looks one up; what is trusted is configured where it is checked.
create table audit_keys (
    key_id      text primary key,
    public_key  bytea not null check (octet_length(public_key) = 32),
    first_used  timestamptz not null
);

-- Signed heads of chains, as published.
create table audit_heads (
    chain      uuid not null,
    seq        bigint not null,
    epoch      bigint not null,
    hash       bytea not null,
    key_id     text not null,
    signature  bytea not null,
    signed_at  timestamptz not null,
    primary key (chain, seq, epoch)
);

-- Signed Merkle roots over the documents of a business day, as published: number 1 when the day is over, a further
-- number for documents that arrived later. A root covers the seals of its chain up to `through_seq`.
create table audit_roots (
    location_id    uuid not null,
    business_date  date not null,
    root_no        integer not null check (root_no >= 1),
    epoch          bigint not null,
    after_seq      bigint not null,
    through_seq    bigint not null,
    leaf_count     bigint not null check (leaf_count >= 1),
    root           bytea not null,
    key_id         text not null,
    signature      bytea not null,
    signed_at      timestamptz not null,
    primary key (location_id, business_date, root_no)
);

-- What each restore kept of the chains, beside `epoch_cuts`: a signed head of an older epoch above it was given up.
create table audit_cuts (
    epoch     bigint not null references epochs,
    chain     uuid not null,
    kept_seq  bigint not null,
    primary key (epoch, chain)
);

-- Where the sealer stands: every row of a transaction below `horizon` is sealed. Transaction numbers mean nothing in
-- another database, so it says which one they are of.
create table audit_progress (
    singleton  boolean primary key default true check (singleton),
    horizon    xid8 not null default '0',
    cluster    bigint not null default 0,
    database   oid not null default 0
);
insert into audit_progress default values;

-- Every document of the chain with a seal up to here is under a root.
create table audit_rooted (
    chain  uuid primary key,
    seq    bigint not null
);

create trigger append_only before update or delete on audit_seals for each row execute function refuse_change();
create trigger append_only before update or delete on audit_keys for each row execute function refuse_change();
create trigger append_only before update or delete on audit_heads for each row execute function refuse_change();
create trigger append_only before update or delete on audit_roots for each row execute function refuse_change();
create trigger append_only before update or delete on audit_cuts for each row execute function refuse_change();

-- Emptying a ledger is a change too.
do $$
declare
    ledger regclass;
begin
    for ledger in
        select c.oid::regclass from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where t.tgname = 'append_only' and not c.relispartition
    loop
        execute format('create trigger no_truncate before truncate on %s for each statement execute function refuse_change()', ledger);
    end loop;
end $$;

-- The worker keeps the outbox's partitions without owning the outbox.

-- Makes the partition of a day; false when it exists, or when the default partition holds rows of that day, which are
-- fine where they are. Attached, not created in place: creating one in place would lock the whole outbox against sales.
create function make_outbox_partition(day date) returns boolean language plpgsql security definer
set search_path = public, pg_temp as $$
declare
    partition text := 'outbox_' || to_char(day, 'YYYYMMDD');
    first timestamptz := day::timestamp at time zone 'UTC';
    next timestamptz := (day + 1)::timestamp at time zone 'UTC';
begin
    if to_regclass(partition) is not null
       or exists (select from outbox_default where created_at >= first and created_at < next) then
        return false;
    end if;
    execute format('create table %I (like outbox including defaults including constraints)', partition);
    execute format('alter table outbox attach partition %I for values from (%L) to (%L)', partition, first, next);
    return true;
end $$;

-- Drops the partition of a day that is over for a week; false when something in it is not published.
create function drop_outbox_partition(day date) returns boolean language plpgsql security definer
set search_path = public, pg_temp as $$
declare
    partition text := 'outbox_' || to_char(day, 'YYYYMMDD');
    is_waiting boolean;
begin
    if day >= (now() at time zone 'UTC')::date - 7 then
        raise exception 'the outbox of % is kept', day using errcode = '42501';
    end if;
    execute format('select exists (select from %I o join stream_progress p using (stream_id) where o.seq > p.published_seq)', partition)
        into is_waiting;
    if is_waiting then
        return false;
    end if;
    execute format('alter table outbox detach partition %I', partition);
    execute format('drop table %I', partition);
    return true;
end $$;

revoke all on function make_outbox_partition(date), drop_outbox_partition(date) from public;
