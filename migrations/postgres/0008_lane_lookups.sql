-- Two look-ups of a lane, each bound to the one way that is right whatever the planner believes of young tables. A receipt
-- is the first one in its order, which only the index of receipts has: several others begin with the location and lead
-- to all of its documents. A key is looked for once for each sale: joined, all keys of the route were read instead.
create or replace function lane_lock(
    in p_locations uuid[],
    in p_stock_locations uuid[], in p_stock_variants uuid[],
    in p_customers uuid[],
    in p_documents uuid[], in p_terminals uuid[], in p_terminal_seqs bigint[],
    in p_series_epochs integer[], in p_receipts bigint[],
    in p_route text, in p_principals text[], in p_keys text[],
    in p_cashiers uuid[], in p_cashier_locations uuid[],
    out locked uuid[], out last_seqs bigint[],
    out stock_locations uuid[], out stock_variants uuid[], out stock_qtys bigint[], out stock_versions bigint[],
    out stock_thresholds bigint[], out stock_hystereses bigint[],
    out accounts uuid[], out account_customers uuid[], out account_programs uuid[], out account_points bigint[],
    out account_versions bigint[],
    out programs uuid[], out program_steps bigint[], out program_points bigint[], out program_days integer[],
    out document_ids uuid[], out document_terminals uuid[], out document_seqs bigint[], out document_locations uuid[],
    out document_registers text[], out document_series integer[], out document_receipts bigint[],
    out document_hashes bytea[], out document_responses text[],
    out key_principals text[], out keys text[], out key_fingerprints bytea[],
    out terminals uuid[], out terminal_locations uuid[], out terminal_registers text[], out terminal_series integer[],
    out terminal_actives boolean[],
    out may_sell boolean[], out may_override boolean[], out roles text[],
    out epoch bigint, out catalog_version bigint, out recorded_at timestamptz
) language plpgsql volatile as $$
declare
    found uuid[];
begin
    select coalesce(array_agg(s.stream_id), '{}'), coalesce(array_agg(s.last_seq), '{}')
    into locked, last_seqs
    from (
        select stream_id, last_seq from streams where stream_id = any (p_locations)
        order by stream_id for no key update skip locked
    ) s;

    select coalesce(array_agg(s.location_id), '{}'), coalesce(array_agg(s.variant_id), '{}'),
           coalesce(array_agg(s.qty), '{}'), coalesce(array_agg(s.version), '{}'),
           coalesce(array_agg(s.threshold), '{}'), coalesce(array_agg(s.hysteresis), '{}')
    into stock_locations, stock_variants, stock_qtys, stock_versions, stock_thresholds, stock_hystereses
    from (
        select l.location_id, l.variant_id, l.qty, l.version, l.threshold, l.hysteresis
        from unnest(p_stock_locations, p_stock_variants) as wanted (location_id, variant_id)
        join stock_levels l using (location_id, variant_id)
        where l.location_id = any (locked)
        order by l.location_id, l.variant_id
        for no key update of l
    ) s;

    if cardinality(p_customers) > 0 then
        select array_agg(a.account_id), array_agg(a.customer_id), array_agg(a.program_id), array_agg(a.points),
               array_agg(a.version)
        into accounts, account_customers, account_programs, account_points, account_versions
        from (
            select account_id, customer_id, program_id, points, version
            from loyalty_accounts where customer_id = any (p_customers)
            order by account_id for no key update
        ) a;
        select array_agg(p.program_id), array_agg(p.step_minor), array_agg(p.points_per_step),
               array_agg(p.expires_after_days)
        into programs, program_steps, program_points, program_days
        from loyalty_programs p;
    end if;

    select array_agg(distinct d.document_id) into found
    from (
        select k.document_id from unnest(p_documents) as w (document_id) join documents k using (document_id)
        union all
        select k.document_id
        from unnest(p_terminals, p_terminal_seqs) as w (terminal_id, terminal_seq)
        join documents k using (terminal_id, terminal_seq)
        union all
        select k.document_id
        from unnest(p_terminals, p_series_epochs, p_receipts) as w (terminal_id, series_epoch, receipt_number)
        join terminals t using (terminal_id)
        cross join lateral (
            select r.document_id, r.location_id, r.register_id, r.series_epoch, r.receipt_number from documents r
            where (r.location_id, r.register_id, r.series_epoch, r.receipt_number)
               >= (t.location_id, t.register_id, w.series_epoch, w.receipt_number)
            order by r.location_id, r.register_id, r.series_epoch, r.receipt_number limit 1
        ) k
        where (k.location_id, k.register_id, k.series_epoch, k.receipt_number)
            = (t.location_id, t.register_id, w.series_epoch, w.receipt_number)
    ) d;
    if found is not null then
        select array_agg(d.document_id), array_agg(d.terminal_id), array_agg(d.terminal_seq), array_agg(d.location_id),
               array_agg(d.register_id), array_agg(d.series_epoch), array_agg(d.receipt_number),
               array_agg(d.content_hash), array_agg(d.response)
        into document_ids, document_terminals, document_seqs, document_locations, document_registers, document_series,
             document_receipts, document_hashes, document_responses
        from documents d where d.document_id = any (found);
    end if;

    select array_agg(k.principal), array_agg(k.key), array_agg(k.fingerprint)
    into key_principals, keys, key_fingerprints
    from unnest(p_principals, p_keys) as w (principal, key)
    cross join lateral (
        select i.principal, i.key, i.fingerprint from idempotency_keys i
        where i.principal = w.principal and i.route = p_route and i.key = w.key limit 1
    ) k;

    select array_agg(t.terminal_id), array_agg(t.location_id), array_agg(t.register_id), array_agg(t.series_epoch),
           array_agg(t.is_active)
    into terminals, terminal_locations, terminal_registers, terminal_series, terminal_actives
    from terminals t where t.terminal_id = any (p_terminals);

    -- Null: no such person.
    select array_agg(case when u.is_active is not null then u.is_active and exists (
               select 1 from grants g
               where g.user_id = w.user_id and (g.location_id is null or g.location_id = w.location_id)
                 and g.role in ('owner', 'manager', 'cashier')) end order by w.place),
           array_agg(case when u.is_active is not null then u.is_active and exists (
               select 1 from grants g
               where g.user_id = w.user_id and (g.location_id is null or g.location_id = w.location_id)
                 and g.role in ('owner', 'manager')) end order by w.place),
           array_agg(coalesce((
               select string_agg(r.role, ',' order by array_position('{owner,manager,cashier,it_admin}'::text[], r.role))
               from (select distinct g.role from grants g
                     where g.user_id = w.user_id and (g.location_id is null or g.location_id = w.location_id)) r
               ), '') order by w.place)
    into may_sell, may_override, roles
    from unnest(p_cashiers, p_cashier_locations) with ordinality as w (user_id, location_id, place)
    left join users u using (user_id);

    select c.version into catalog_version from catalog_counter c;
    select max(e.epoch) into epoch from epochs e;
    recorded_at := clock_timestamp();
end $$;
