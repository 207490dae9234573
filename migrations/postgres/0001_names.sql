-- What is named: streams and their relay, catalog, prices, people, tills, loyalty accounts.
-- Every mutable resource carries `version`, which is its ETag.
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
