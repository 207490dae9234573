-- The spine: who may act, what is sold, what was sold, what moved, what must be published.
-- Ledger tables are append-only; every mutable resource carries `version`, which is its ETag.
-- Money is bigint minor units, quantities are bigint thousandths, times are timestamptz (UTC).

-- Restore generation of this database (D15). The highest row is the present epoch.
create table epochs (
    epoch      bigint primary key check (epoch >= 1),
    raised_at  timestamptz not null default now(),
    reason     text not null
);
insert into epochs (epoch, reason) values (1, 'created');

-- A stream orders the outbox rows of one location; acts without a location use the company stream.
-- Locking this row is "locking the location" in the lock order (D3).
create table streams (
    stream_id  uuid primary key,
    last_seq   bigint not null default 0
) with (fillfactor = 20);
insert into streams (stream_id) values ('00000000-0000-0000-0000-000000000000');

-- Progress of the relay, apart from `streams` so that publishing never waits for a sale.
create table stream_progress (
    stream_id      uuid primary key references streams,
    published_seq  bigint not null default 0,
    published_at   timestamptz not null default now()
) with (fillfactor = 20);
insert into stream_progress (stream_id) values ('00000000-0000-0000-0000-000000000000');

-- Records that no broker takes (too large): set aside by the relay with an alarm, everything after them goes on.
create table outbox_parked (
    event_id   uuid primary key,
    stream_id  uuid not null,
    seq        bigint not null,
    topic      text not null,
    reason     text not null,
    parked_at  timestamptz not null default now()
);

-- Schema ids as the registry gave them, pinned by `migrate`: the relay needs no registry.
create table schema_ids (
    subject         text not null,
    schema_version  smallint not null,
    schema_id       integer not null,
    primary key (subject, schema_version)
);

-- One counter for everything a till needs to price a sale (D14 compares it under the lock).
create table catalog_counter (
    singleton  boolean primary key default true check (singleton),
    version    bigint not null
);
insert into catalog_counter (version) values (0);

-- Append-only feed of catalog states: what GET /catalog/changes pages. Each change has a version of its
-- own; `concerns` names the locations whose readers are told (none: every reader; empty: nobody, as for a user who
-- sells nowhere).
create table catalog_changes (
    catalog_version  bigint primary key,
    kind             text not null check (kind in ('product', 'variant', 'price', 'tax_profile', 'location', 'cashier')),
    object_id        uuid not null,
    object_version   bigint not null,
    concerns         uuid[],
    body             jsonb not null,
    deleted          boolean not null default false,
    recorded_at      timestamptz not null default now()
);

create table locations (
    location_id     uuid primary key references streams,
    external_id     text not null constraint locations_external_id_key unique,
    name            text not null,
    currency        text not null check (currency ~ '^[A-Z]{3}$'),
    time_zone       text not null,
    day_cutoff      time not null default '00:00',
    opened_on       date not null,
    rounding_mode   text not null default 'half_even' check (rounding_mode in ('half_even', 'half_up', 'half_down', 'down', 'up')),
    cash_step       bigint not null default 1 check (cash_step >= 1),
    cash_mode       text not null default 'half_up' check (cash_mode in ('half_even', 'half_up', 'half_down', 'down', 'up')),
    oversell        text not null default 'allow_and_flag' check (oversell in ('deny', 'allow_and_flag')),
    is_active       boolean not null default true,
    version         bigint not null,
    created_at      timestamptz not null default now()
);

create table tax_profiles (
    tax_profile_id  uuid primary key,
    external_id     text not null constraint tax_profiles_external_id_key unique,
    name            text not null,
    version         bigint not null,
    created_at      timestamptz not null default now()
);

-- Effective-dated: the rates of a profile at t are the rows of the latest valid_from <= t.
create table tax_rates (
    tax_profile_id  uuid not null references tax_profiles,
    valid_from      timestamptz not null,
    ordinal         smallint not null,
    tax_id          uuid not null,
    name            text not null,
    rate            numeric(9, 6) not null check (rate >= 0 and rate < 10),
    inclusive       boolean not null,
    compound        boolean not null default false,
    scope           text not null default 'line' check (scope in ('line', 'order')),
    recorded_at     timestamptz not null default now(),
    primary key (tax_profile_id, valid_from, ordinal)
);

create table products (
    product_id   uuid primary key,
    external_id  text not null constraint products_external_id_key unique,
    name         text not null,
    category     text not null default '',
    is_active    boolean not null default true,
    version      bigint not null,
    created_at   timestamptz not null default now()
);

create table variants (
    variant_id      uuid primary key,
    external_id     text not null constraint variants_external_id_key unique,
    product_id      uuid not null references products,
    -- Deferrable, so that one statement may swap two of them; checked at its end.
    sku             text not null constraint variants_sku_key unique deferrable initially immediate,
    name            text not null,
    barcodes        text[] not null default '{}',
    unit            text not null default 'piece',
    is_measured     boolean not null default false,
    tracks_stock    boolean not null default true,
    tax_profile_id  uuid not null references tax_profiles,
    unit_cost       bigint,
    is_active       boolean not null default true,
    version         bigint not null,
    created_at      timestamptz not null default now()
);
create index variants_by_product on variants (product_id);

-- Append-only price versions. At t: location before general, then the latest valid_from <= t,
-- then the latest recorded; a window ends at valid_to (half-open).
create table prices (
    price_id       uuid primary key,
    variant_id     uuid not null references variants,
    location_id    uuid references locations,
    currency       text not null,
    amount_minor   bigint not null check (amount_minor >= 0),
    tax_inclusive  boolean not null,
    valid_from     timestamptz not null,
    valid_to       timestamptz,
    catalog_version bigint not null,
    recorded_at    timestamptz not null default now(),
    check (valid_to is null or valid_to > valid_from)
);
create index prices_by_variant on prices (variant_id, location_id, valid_from);

create table users (
    user_id          uuid primary key,
    login            text not null constraint users_login_key unique,
    code             text not null constraint users_code_key unique,
    password_hash    text,
    session_version  integer not null default 1,
    is_active        boolean not null default true,
    version          bigint not null,
    created_at       timestamptz not null default now()
);

-- location_id null: every location.
create table grants (
    user_id      uuid not null references users,
    role         text not null check (role in ('owner', 'manager', 'cashier', 'it_admin')),
    location_id  uuid references locations,
    granted_at   timestamptz not null default now(),
    constraint grants_key unique nulls not distinct (user_id, role, location_id)
);

create table terminals (
    terminal_id        uuid primary key,
    location_id        uuid not null references locations,
    register_id        text not null,
    name               text not null,
    device_public_key  bytea check (octet_length(device_public_key) = 32),
    series_epoch       integer not null default 1,
    session_version    integer not null default 1,
    is_active          boolean not null default true,
    enrolled_at        timestamptz,
    version            bigint not null,
    created_at         timestamptz not null default now(),
    constraint terminals_register_key unique (location_id, register_id)
);

create table enrolment_codes (
    code_hash    bytea primary key,
    terminal_id  uuid not null references terminals,
    expires_at   timestamptz not null,
    used_at      timestamptz
);

-- Nonces of signed token requests, single use while their window is open.
create table terminal_nonces (
    terminal_id  uuid not null references terminals,
    nonce        text not null,
    expires_at   timestamptz not null,
    primary key (terminal_id, nonce)
);

-- Customers carry no personal data until sealed columns exist.
create table customers (
    customer_id    uuid primary key,
    external_id    text constraint customers_external_id_key unique,
    member_number  text not null constraint customers_member_number_key unique,
    version        bigint not null,
    created_at     timestamptz not null default now()
);

create table loyalty_programs (
    program_id   uuid primary key,
    name         text not null,
    -- earn(b) = floor(k * floor(b / step_minor)) per currency of the document
    step_minor   bigint not null check (step_minor > 0),
    points_per_step bigint not null check (points_per_step > 0),
    expires_after_days integer,
    created_at   timestamptz not null default now()
);
insert into loyalty_programs (program_id, name, step_minor, points_per_step)
values ('6c6f7961-6c74-5900-8000-000000000001', 'Points', 100, 1);

create table loyalty_accounts (
    account_id   uuid primary key,
    customer_id  uuid not null references customers,
    program_id   uuid not null references loyalty_programs,
    points       bigint not null default 0,
    version      bigint not null default 0,
    constraint loyalty_accounts_key unique (customer_id, program_id)
);

-- Documents: sale now; refund, exchange and void use the same columns. Immutable once stored. A usual one stays in
-- its page, lz4 where it has to shrink: a toast row of its own would be one more table and index to write.
-- Location, terminal, cashier, customer and account are read in the same transaction before they are written here, and
-- are never deleted (`kept` below): a foreign key would lock each of them again for every row.
create table documents (
    document_id         uuid primary key,
    epoch               bigint not null,
    kind                text not null check (kind in ('sale', 'refund', 'exchange', 'void')),
    location_id         uuid not null,
    location_seq        bigint not null,
    origin_location_id  uuid,
    terminal_id         uuid not null,
    terminal_seq        bigint not null check (terminal_seq >= 1),
    register_id         text not null,
    series_epoch        integer not null,
    receipt_number      bigint not null check (receipt_number >= 1),
    cashier_id          uuid not null,
    drawer_session_id   uuid,
    lease_id            uuid,
    approval_id         uuid,
    customer_id         uuid,
    occurred_at_raw     timestamptz not null,
    sent_at             timestamptz,
    occurred_at         timestamptz not null,
    recorded_at         timestamptz not null,
    business_date       date not null,
    slot                smallint not null check (slot between 0 and 311),
    currency            text not null,
    rounding_mode       text not null,
    cash_step           bigint not null,
    subtotal_minor      bigint not null,
    discount_minor      bigint not null,
    tax_minor           bigint not null,
    tip_minor           bigint not null default 0,
    total_minor         bigint not null,
    rounding_minor      bigint not null,
    change_minor        bigint not null,
    flags               text[] not null default '{}',
    content_hash        bytea not null,
    hash_version        smallint not null,
    document_digest     bytea not null,
    pricing_version     bigint not null,
    price_trace         jsonb compression lz4 not null,
    response            text compression lz4 not null,
    trace_id            text not null default '',
    constraint documents_terminal_seq_key unique (terminal_id, terminal_seq),
    constraint documents_receipt_key unique (location_id, register_id, series_epoch, receipt_number),
    constraint documents_location_seq_key unique (location_id, location_seq, epoch)
) with (toast_tuple_target = 4080);
create index documents_by_day on documents (location_id, business_date, document_id);

create table document_lines (
    document_id          uuid not null,
    line_no              integer not null,
    location_id          uuid not null,
    leg                  text not null check (leg in ('sale', 'return')),
    variant_id           uuid not null,
    product_id           uuid not null,
    sku                  text not null,
    name                 text not null,
    origin_document_id   uuid,
    origin_line_no       integer,
    origin_location_id   uuid,
    first_unit           bigint,
    last_unit            bigint,
    qty                  bigint not null,
    unit                 text not null,
    is_measured          boolean not null,
    tracks_stock         boolean not null,
    disposition          text,
    list_price_minor     bigint not null,
    unit_price_minor     bigint not null,
    override_reason      text,
    extended_minor       bigint not null,
    discounts            jsonb not null default '[]',
    discount_minor       bigint not null,
    redemption_minor     bigint not null default 0,
    taxes                jsonb not null default '[]',
    tax_minor            bigint not null,
    added_tax_minor      bigint not null,
    net_minor            bigint not null,
    payable_minor        bigint not null,
    unit_cost            bigint,
    unit_shares          jsonb not null default '{}',
    primary key (document_id, line_no)
);

create table document_tenders (
    document_id           uuid not null,
    tender_no             integer not null,
    kind                  text not null check (kind in ('cash', 'card', 'gift_card', 'store_credit', 'other')),
    amount_minor          bigint not null,
    tip_minor             bigint not null default 0,
    state                 text not null,
    intent_id             uuid,
    psp_reference         text,
    card_brand            text,
    card_last_four        text check (card_last_four ~ '^[0-9]{4}$'),
    card_expiry           text,
    liability_account_id  uuid,
    primary key (document_id, tender_no)
);

create table stock_levels (
    location_id        uuid not null references locations,
    variant_id         uuid not null references variants,
    qty                bigint not null default 0,
    version            bigint not null default 0,
    threshold          bigint,
    hysteresis         bigint not null default 1000,
    primary key (location_id, variant_id)
) with (fillfactor = 70);

create table stock_movements (
    location_id         uuid not null,
    variant_id          uuid not null,
    version             bigint not null,
    epoch               bigint not null,
    location_seq        bigint not null,
    parent_location_id  uuid,
    delta               bigint not null,
    qty_after           bigint not null,
    cause_type          text not null,
    cause_id            uuid not null,
    cause_line          integer not null,
    transfer_id         uuid,
    reason              text not null,
    document_uri        text,
    actor               uuid not null,
    approval_id         uuid,
    effective_at        timestamptz not null,
    recorded_at         timestamptz not null,
    neutral             boolean not null default false,
    resync              boolean not null default false,
    threshold           bigint,
    hysteresis          bigint not null,
    unit_cost           bigint,
    primary key (location_id, variant_id, version)
);
create index stock_movements_by_cause on stock_movements (cause_id, cause_line);

create table loyalty_entries (
    account_id       uuid not null,
    version          bigint not null,
    epoch            bigint not null,
    location_id      uuid,
    location_seq     bigint not null,
    program_id       uuid not null,
    kind             text not null,
    delta            bigint not null,
    points_after     bigint not null,
    tier_multiplier  numeric(9, 6) not null default 1,
    lots             jsonb not null,
    cause_type       text not null,
    cause_id         uuid not null,
    cause_line       integer not null default 0,
    actor            uuid not null,
    approval_id      uuid,
    effective_at     timestamptz not null,
    recorded_at      timestamptz not null,
    primary key (account_id, version),
    constraint loyalty_entries_cause_key unique (cause_id, program_id, kind)
);

create table loyalty_lots (
    lot_id        uuid primary key,
    account_id    uuid not null,
    cause_id      uuid not null,
    earned_at     timestamptz not null,
    available_at  timestamptz not null,
    expires_at    timestamptz,
    points        bigint not null,
    remaining     bigint not null
);
create index loyalty_lots_by_account on loyalty_lots (account_id, earned_at);

-- Inventory documents other than sales: one row per receipt, adjustment or threshold change.
create table stock_acts (
    act_id        uuid primary key,
    epoch         bigint not null,
    location_id   uuid not null references locations,
    location_seq  bigint not null,
    kind          text not null check (kind in ('receipt', 'adjustment', 'threshold', 'resync')),
    reason        text not null,
    document_uri  text,
    actor         uuid not null,
    approval_id   uuid,
    effective_at  timestamptz not null,
    recorded_at   timestamptz not null,
    line_count    integer not null
);
create unique index stock_acts_by_location on stock_acts (location_id, location_seq, epoch);

-- Fast path of idempotency (kept 7 days); a document's own identity is unique for ever.
create table idempotency_keys (
    principal    text not null,
    route        text not null,
    key          text not null,
    fingerprint  bytea not null,
    status       smallint not null,
    response     text not null,
    created_at   timestamptz not null default now(),
    primary key (principal, route, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

create table audit_log (
    audit_id       uuid primary key,
    epoch          bigint not null,
    recorded_at    timestamptz not null,
    location_id    uuid,
    actor          uuid not null,
    actor_role     text not null default '',
    approver       uuid,
    action         text not null,
    target         text not null,
    before_digest  bytea,
    after_digest   bytea,
    reason         text not null default '',
    outcome        text not null default 'done' check (outcome in ('done', 'refused')),
    request_id     text not null,
    terminal_id    uuid,
    address        text not null default ''
);
create index audit_log_by_time on audit_log (recorded_at);

-- One row per act, written last in its transaction. `id` is taken after all locks (D2).
-- Partitioned by day so that published days are dropped, never deleted row by row.
create sequence outbox_id as bigint;
create table outbox (
    stream_id        uuid not null,
    seq              bigint not null,
    epoch            bigint not null,
    id               bigint not null default nextval('outbox_id'),
    cause_type       text not null,
    cause_id         uuid not null,
    trace_parent     text not null default '',
    created_at       timestamptz not null,
    topics           text[] not null,
    keys             text[] not null,
    event_ids        uuid[] not null,
    schema_versions  smallint[] not null,
    bodies           bytea[] compression lz4 not null,
    check (cardinality(topics) = cardinality(keys) and cardinality(topics) = cardinality(event_ids)
       and cardinality(topics) = cardinality(schema_versions) and cardinality(topics) = cardinality(bodies))
) partition by range (created_at);
create table outbox_default partition of outbox default;
create index outbox_by_stream on outbox (stream_id, seq);
create index outbox_by_id on outbox (id);
create index outbox_by_cause on outbox (cause_id);

-- Ledgers refuse change, whoever asks.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'append-only: % on % is refused', tg_op, tg_table_name using errcode = '42501';
end $$;
create trigger append_only before update or delete on documents for each row execute function refuse_change();
create trigger append_only before update or delete on document_lines for each row execute function refuse_change();
create trigger append_only before update or delete on document_tenders for each row execute function refuse_change();
create trigger append_only before update or delete on stock_movements for each row execute function refuse_change();
create trigger append_only before update or delete on loyalty_entries for each row execute function refuse_change();
create trigger append_only before update or delete on stock_acts for each row execute function refuse_change();
create trigger append_only before update or delete on audit_log for each row execute function refuse_change();
create trigger append_only before update or delete on outbox for each row execute function refuse_change();

-- What ledgers name stays.
create trigger kept before delete on locations for each row execute function refuse_change();
create trigger kept before delete on terminals for each row execute function refuse_change();
create trigger kept before delete on users for each row execute function refuse_change();
create trigger kept before delete on customers for each row execute function refuse_change();
create trigger kept before delete on loyalty_accounts for each row execute function refuse_change();
