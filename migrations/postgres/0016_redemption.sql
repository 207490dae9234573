-- How a program's points are spent; null: they are not. So many points are worth so many minor units.
alter table loyalty_programs add column redeem_points bigint check (redeem_points > 0);
alter table loyalty_programs add column redeem_minor bigint check (redeem_minor > 0);
-- Points are pending for so many days, the return window; null: available at once.
alter table loyalty_programs add column pending_days integer check (pending_days >= 0);
-- Points that come back after their date live on for so many days; null: they expire in the next run.
alter table loyalty_programs add column restore_days integer check (restore_days >= 0);
alter table loyalty_programs add column version bigint not null default 1;
alter table loyalty_programs add constraint loyalty_programs_redeem_check
    check ((redeem_points is null) = (redeem_minor is null));

-- How points were earned before a program was edited: a refund takes back by the rule its sale was made under, that of
-- the catalog version it was priced from.
create table loyalty_program_versions (
    program_id       uuid not null references loyalty_programs,
    version          bigint not null,
    catalog_version  bigint not null,
    step_minor       bigint not null,
    points_per_step  bigint not null,
    primary key (program_id, version)
);
insert into loyalty_program_versions (program_id, version, catalog_version, step_minor, points_per_step)
select program_id, version, 0, step_minor, points_per_step from loyalty_programs;
create trigger append_only before update or delete on loyalty_program_versions
    for each row execute function refuse_change();
create trigger no_truncate before truncate on loyalty_program_versions
    for each statement execute function refuse_change();

-- Programs are in the catalog: who prices knows them by its version.
alter table catalog_changes drop constraint catalog_changes_kind_check;
alter table catalog_changes add constraint catalog_changes_kind_check
    check (kind in ('product', 'variant', 'price', 'tax_profile', 'location', 'cashier', 'promotion', 'loyalty_program'));

-- What is written off next.
create index loyalty_lots_by_expiry on loyalty_lots (expires_at) where remaining > 0 and expires_at is not null;
