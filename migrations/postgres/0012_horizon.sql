-- The history of epochs is a ledger like the others.
create trigger append_only before update or delete on epochs for each row execute function refuse_change();
create trigger no_truncate before truncate on epochs for each statement execute function refuse_change();

-- The sealer looks at nothing below its horizon: one that ran ahead of the running transactions would hide rows from it
-- for good.
create function refuse_horizon() returns trigger language plpgsql as $$
begin
    if new.horizon > pg_snapshot_xmin(pg_current_snapshot()) then
        raise exception 'the horizon % is ahead of running transactions', new.horizon using errcode = '42501';
    end if;
    return new;
end $$;
create trigger horizon before update on audit_progress for each row execute function refuse_horizon();
