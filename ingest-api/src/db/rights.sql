-- Rights of the application's role, the same after every migration: it reads everything, adds to ledgers (the tables
-- with the trigger append_only) and never changes, deletes or empties what they hold. It owns nothing, so it cannot
-- take a trigger away either. Epochs begin with a restore, which is the owner's business.
do $$
declare
    item record;
begin
    if not exists (select from pg_roles where rolname = 'vorca_app') then
        return;
    end if;
    grant usage on schema public to vorca_app;
    grant usage on all sequences in schema public to vorca_app;
    grant execute on function make_outbox_partition(date), drop_outbox_partition(date) to vorca_app;
    for item in
        select c.oid::regclass as name,
               case when c.relname in ('_sqlx_migrations', 'epochs', 'epoch_cuts', 'audit_cuts') then 'select'
                    when exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'append_only')
                    then 'select, insert'
                    else 'select, insert, update, delete' end as rights
        from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    loop
        execute format('revoke all on table %s from vorca_app', item.name);
        execute format('grant %s on table %s to vorca_app', item.rights, item.name);
    end loop;
end $$;

-- Those of the relay's role: it reads what it publishes, and writes down how far it came and what no broker takes.
do $$
begin
    if not exists (select from pg_roles where rolname = 'vorca_relay') then
        return;
    end if;
    revoke all on all tables in schema public from vorca_relay;
    grant usage on schema public to vorca_relay;
    grant select on streams, stream_progress, outbox, schema_ids to vorca_relay;
    grant update (published_seq, published_at) on stream_progress to vorca_relay;
    grant insert on outbox_parked to vorca_relay;
end $$;
