-- What happened: sales, stock, points, audit, and the outbox that carries it on. Ledgers are append-only; levels, lots and
-- keys beside them are what follows from them.
-- Money is bigint minor units, quantities are bigint thousandths, times are timestamptz (UTC).

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
