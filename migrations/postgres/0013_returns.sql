-- Returns: refunds, exchanges and voids use the columns of documents. Lines of a return carry the stored amounts negated;
-- so do their quantities.

-- Why a refund, an exchange or a void was made: a code of the company's own.
alter table documents add column reason text;

-- A sold gift card or a credit that a line gives: its account. Such a line is a liability and no revenue.
alter table document_lines add column liability_account_id uuid;
-- Points that paid for a part of the line, as its money does in redemption_minor (rule T6).
alter table document_lines add column redemption_points bigint not null default 0;
-- What has come back of a line.
create index document_lines_by_origin on document_lines (origin_document_id, origin_line_no)
    where origin_document_id is not null;

-- Stock that is at a location and cannot be sold: what came back and is looked at, and what is thrown away. Made with its
-- first movement, under the lock of its parent. Ordinary stock rows, never granted; their records use the parent's key.
create table system_locations (
    location_id         uuid primary key,
    parent_location_id  uuid not null references locations,
    kind                text not null check (kind in ('transit', 'waste', 'shrink', 'inspect')),
    created_at          timestamptz not null default now(),
    constraint system_locations_key unique (parent_location_id, kind)
);
create trigger kept before delete on system_locations for each row execute function refuse_change();
alter table stock_levels drop constraint stock_levels_location_id_fkey;

-- A later move of what came back: out of inspection, into stock or waste.
alter table stock_acts drop constraint stock_acts_kind_check;
alter table stock_acts add constraint stock_acts_kind_check
    check (kind in ('receipt', 'adjustment', 'threshold', 'resync', 'disposition'));
