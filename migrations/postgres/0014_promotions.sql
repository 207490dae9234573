-- Promotions: the rule as the API takes it. Append-only versions stand in catalog_changes, as of every object.
create table promotions (
    promotion_id     uuid primary key,
    external_id      text not null constraint promotions_external_id_key unique,
    name             text not null,
    -- Lower is earlier; then by id.
    priority         integer not null,
    exclusion_group  text,
    rule             jsonb not null,
    needs_coupon     boolean not null default false,
    -- Null: no limit. What was given and how often is counted in promotion_usage.
    budget_minor     bigint check (budget_minor > 0),
    -- Of every amount in rule and budget; null where there is none.
    currency         text,
    uses_max         bigint check (uses_max > 0),
    is_active        boolean not null default true,
    version          bigint not null,
    created_at       timestamptz not null default now()
);
create trigger kept before delete on promotions for each row execute function refuse_change();

-- Promotions with a budget or a limit of uses: what was given, under the lock of the row.
create table promotion_usage (
    promotion_id  uuid primary key references promotions,
    given_minor   bigint not null default 0,
    uses          bigint not null default 0
) with (fillfactor = 50);

create table coupons (
    -- As people type it: upper case, no spaces or dashes.
    code          text primary key check (code ~ '^[A-Z0-9]{4,40}$'),
    promotion_id  uuid not null references promotions,
    uses_max      bigint not null default 1 check (uses_max >= 1),
    uses          bigint not null default 0 check (uses >= 0),
    -- Only this member's, where given.
    customer_id   uuid references customers,
    expires_at    timestamptz,
    is_active     boolean not null default true,
    created_at    timestamptz not null default now()
) with (fillfactor = 80);

-- Which document used what: one row per coupon, and one per promotion that is counted.
create table promotion_uses (
    document_id   uuid not null,
    promotion_id  uuid not null,
    coupon        text not null default '',
    amount_minor  bigint not null,
    currency      text not null,
    epoch         bigint not null,
    recorded_at   timestamptz not null,
    primary key (document_id, promotion_id, coupon)
);
create trigger append_only before update or delete on promotion_uses for each row execute function refuse_change();
create trigger no_truncate before truncate on promotion_uses for each statement execute function refuse_change();
create index promotion_uses_by_promotion on promotion_uses (promotion_id);

alter table catalog_changes drop constraint catalog_changes_kind_check;
alter table catalog_changes add constraint catalog_changes_kind_check
    check (kind in ('product', 'variant', 'price', 'tax_profile', 'location', 'cashier', 'promotion'));
