-- Roles of the company's own, the ledger of acts that limits are about, and approvals that were spent.

create table roles (
    role_id              uuid primary key,
    name                 text not null constraint roles_name_key unique,
    -- Array of rules as the API takes them: permission, mode, limits. A permission that is missing is denied.
    rules                jsonb not null,
    -- Holds what no built-in role without a compulsory second factor holds.
    needs_second_factor  boolean not null,
    version              bigint not null,
    created_at           timestamptz not null default now()
);
-- Grants and audit rows name roles, so they stay.
create trigger kept before delete on roles for each row execute function refuse_change();

-- A grant names a built-in role or one of the above by its id.
alter table grants drop constraint grants_role_check;
alter table grants add constraint grants_role_check
    check (role in ('owner', 'manager', 'cashier', 'it_admin')
           or role ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$');
alter table grants add column role_id uuid
    generated always as (case when position('-' in role) > 0 then role::uuid end) stored references roles;
create index grants_by_role on grants (role_id) where role_id is not null;

-- One row per document or stock act and kind of act in it: who did how much of it, by which rules. `ordinal` counts the
-- acts of one kind of one person at one location on one business day over all devices; two tills cannot take the same.
create table limited_acts (
    cause_id       uuid not null,
    act            text not null,
    cause_type     text not null check (cause_type in ('document', 'adjustment')),
    epoch          bigint not null,
    location_id    uuid not null,
    user_id        uuid not null,
    business_date  date not null,
    ordinal        bigint not null check (ordinal >= 1),
    currency       text not null,
    -- Null: what was adjusted has no known cost.
    amount_minor   bigint,
    -- Millionths of what the act was about, rounded up; null where there is nothing to compare with.
    share_ppm      bigint,
    verdict        text not null check (verdict in ('allowed', 'approved', 'over_limit')),
    -- The rules it was judged by, each as in `roles.rules`.
    rules          jsonb not null,
    approval_id    uuid,
    recorded_at    timestamptz not null,
    primary key (cause_id, act),
    constraint limited_acts_ordinal_key unique (user_id, location_id, business_date, act, ordinal),
    check ((verdict = 'approved') = (approval_id is not null))
);
create trigger append_only before update or delete on limited_acts for each row execute function refuse_change();
create trigger no_truncate before truncate on limited_acts for each statement execute function refuse_change();

-- Approvals that were spent: each once, in the transaction of its act.
create table approvals (
    approval_id  uuid primary key,
    epoch        bigint not null,
    location_id  uuid not null,
    requester    uuid not null,
    approver     uuid not null check (approver <> requester),
    digest       bytea not null check (octet_length(digest) = 32),
    cause_type   text not null,
    cause_id     uuid not null constraint approvals_cause_id_key unique,
    issued_at    timestamptz not null,
    spent_at     timestamptz not null
);
create trigger append_only before update or delete on approvals for each row execute function refuse_change();
create trigger no_truncate before truncate on approvals for each statement execute function refuse_change();

-- Documents and acts from here on are in the ledger of acts.
create table limits_since (
    singleton  boolean primary key default true check (singleton),
    since      timestamptz not null default now()
);
insert into limits_since default values;

-- What a lease lets its cashier do, with limits. Those that were issued before had none: overriding was allowed or
-- not, discounts were free.
alter table leases add column limits jsonb;
update leases set limits = jsonb_build_object(
    'version', 1, 'business_date', issued_at::date, 'acts', jsonb_build_array(
        jsonb_build_object('act', 'discount_lines', 'used', 0, 'rules',
            '[{"permission": "discount_lines", "mode": "allow"}]'::jsonb),
        jsonb_build_object('act', 'override_price', 'used', 0, 'rules',
            case when 'override_price' = any (permissions)
                 then '[{"permission": "override_price", "mode": "allow"}]'::jsonb else '[]'::jsonb end)));

-- Adjusting stock is a permission of its own now; who was given the wider one keeps it.
update api_clients set permissions = permissions || '{adjust_stock}'::text[]
where 'manage_stock' = any (permissions) and not 'adjust_stock' = any (permissions);
