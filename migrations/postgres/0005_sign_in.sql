-- Signing in: second factors, sessions and their refresh tokens, locks, policy, signing keys; PINs and leases of tills;
-- API clients. What is compared is hashed; what has to be read again is sealed under a key that is never in this database.

alter table users add column pin_hash text;

create table second_factors (
    user_id       uuid primary key references users,
    secret        bytea,
    -- Offered, and the factor once a code of it was given.
    pending       bytea,
    -- A code counts once: its half minute is remembered.
    last_step     bigint not null default 0,
    confirmed_at  timestamptz,
    check ((secret is null) = (confirmed_at is null))
);

create table recovery_codes (
    user_id    uuid not null references users,
    code_hash  bytea not null,
    used_at    timestamptz,
    primary key (user_id, code_hash)
);

create table password_resets (
    user_id     uuid primary key references users,
    code_hash   bytea not null,
    expires_at  timestamptz not null
);

-- A session is the family of the refresh tokens that came from one log-in.
create table sessions (
    session_id         uuid primary key,
    user_id            uuid not null references users,
    device_public_key  bytea check (octet_length(device_public_key) = 32),
    address            text not null default '',
    created_at         timestamptz not null,
    -- When the user last proved all they have: what step-up asks about.
    proved_at          timestamptz not null,
    refreshed_at       timestamptz not null,
    expires_at         timestamptz not null,
    ended_at           timestamptz,
    end_reason         text,
    check ((ended_at is null) = (end_reason is null))
);
create index sessions_by_user on sessions (user_id) where ended_at is null;
create index sessions_by_expiry on sessions (expires_at);

create table refresh_tokens (
    token_hash    bytea primary key,
    session_id    uuid not null references sessions on delete cascade,
    generation    integer not null,
    state         text not null check (state in ('live', 'spent')),
    spent_at      timestamptz,
    -- The token after this one, sealed under a key made of this one.
    successor     bytea,
    unique (session_id, generation)
);
create unique index refresh_tokens_one_live on refresh_tokens (session_id) where state = 'live';

-- Failed attempts by what they were aimed at: a log-in name (hashed, whether it exists or not), an address, a PIN.
create table sign_in_failures (
    subject       text primary key,
    failures      integer not null default 0,
    counted_from  timestamptz not null default now(),
    locked_until  timestamptz
);
create index sign_in_failures_by_age on sign_in_failures (counted_from);

create table sign_in_policy (
    singleton            boolean primary key default true check (singleton),
    -- Besides owner and it_admin, for whom the second factor is compulsory anyway.
    second_factor_roles  text[] not null default '{}',
    lease_hours          integer not null default 72 check (lease_hours between 1 and 720),
    version              bigint not null default 1
);
insert into sign_in_policy default values;

-- Keys that sign access tokens. Empty: the configured key signs.
create table signing_keys (
    kid             text primary key,
    public_key      bytea not null check (octet_length(public_key) = 32),
    -- None: the configured key, which every node has.
    sealed          bytea,
    made_at         timestamptz not null default now(),
    signs_from      timestamptz not null,
    accepted_until  timestamptz
);

-- What lets a cashier sell at one till without the server. Documents name leases, so they stay.
create table leases (
    lease_id           uuid primary key,
    terminal_id        uuid not null references terminals,
    location_id        uuid not null references locations,
    cashier_id         uuid not null references users,
    device_public_key  bytea not null check (octet_length(device_public_key) = 32),
    verifier           text not null,
    permissions        text[] not null,
    issued_at          timestamptz not null,
    expires_at         timestamptz not null,
    revoked_at         timestamptz,
    revoked_by         uuid,
    revoke_reason      text,
    check ((revoked_at is null) = (revoke_reason is null))
);
create index leases_by_terminal on leases (terminal_id, lease_id);
create index leases_by_cashier on leases (cashier_id) where revoked_at is null;
create trigger kept before delete on leases for each row execute function refuse_change();

create table api_clients (
    client_id        uuid primary key,
    name             text not null constraint api_clients_name_key unique,
    permissions      text[] not null,
    -- None: every location.
    location_ids     uuid[],
    is_active        boolean not null default true,
    session_version  integer not null default 1,
    expires_at       timestamptz,
    version          bigint not null,
    created_at       timestamptz not null default now()
);
create trigger kept before delete on api_clients for each row execute function refuse_change();

create table api_client_secrets (
    secret_id    uuid primary key,
    client_id    uuid not null references api_clients,
    secret_hash  bytea not null unique,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    ended_at     timestamptz
);
create index api_client_secrets_by_client on api_client_secrets (client_id);
