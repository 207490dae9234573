-- One batch of accepted sales, every row of every table, as column arrays.
-- $1 epoch, $2 recorded_at, $3 hash version, $4 route of the idempotency keys; then the columns of each
-- relation in the order of `db/sales.rs`.
with d as materialized (
    select * from unnest(
        $5::uuid[], $6::uuid[], $7::bigint[], $8::uuid[], $9::bigint[], $10::text[], $11::integer[], $12::bigint[],
        $13::uuid[], $14::uuid[], $15::timestamptz[], $16::timestamptz[], $17::date[], $18::smallint[],
        $19::text[], $20::text[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[],
        $26::bigint[], $27::bigint[], $28::text[], $29::bytea[], $30::bytea[], $31::bigint[], $32::text[],
        $33::text[], $34::text[], $35::text[], $36::text[], $37::uuid[], $38::text[], $39::text[], $40::text[]
    ) with ordinality as d (
        document_id, location_id, location_seq, terminal_id, terminal_seq, register_id, series_epoch,
        receipt_number, cashier_id, customer_id, sent_at, occurred_at, business_date, slot, currency,
        rounding_mode, cash_step, subtotal, discount, tax, total, rounding, change, flags, content_hash,
        document_digest, pricing_version, price_trace, response, trace_id, principal, key, audit_id,
        request_id, address, actor_role, place
    )
), insert_documents as (
    insert into documents (
        document_id, epoch, kind, location_id, location_seq, terminal_id, terminal_seq, register_id, series_epoch,
        receipt_number, cashier_id, lease_id, approval_id, customer_id, occurred_at_raw, sent_at, occurred_at, recorded_at, business_date, slot,
        currency, rounding_mode, cash_step, subtotal_minor, discount_minor, tax_minor, total_minor, rounding_minor,
        change_minor, flags, content_hash, hash_version, document_digest, pricing_version, price_trace, response,
        trace_id)
    select document_id, $1, 'sale', location_id, location_seq, terminal_id, terminal_seq, register_id, series_epoch,
        receipt_number, cashier_id, ($124::uuid[])[place], ($125::uuid[])[place], customer_id, occurred_at, sent_at, occurred_at, $2, business_date, slot,
        currency, rounding_mode, cash_step, subtotal, discount, tax, total, rounding,
        change, string_to_array(flags, ','), content_hash, $3, document_digest, pricing_version, price_trace::jsonb,
        response, trace_id
    from d
), insert_keys as (
    -- The answer stands with the document: the fingerprint is its content hash.
    insert into idempotency_keys (principal, route, key, fingerprint, status, response, created_at)
    select principal, $4, key, content_hash, 201, '', $2 from d
), insert_audit as (
    insert into audit_log (audit_id, epoch, recorded_at, location_id, actor, actor_role, action, target, after_digest,
                           request_id, terminal_id, address, approver, reason)
    select audit_id, $1, $2, location_id, cashier_id, actor_role, 'sale.create', 'sale/' || document_id, document_digest,
           request_id, terminal_id, address, ($126::uuid[])[place], coalesce(($127::text[])[place], '')
    from d
), insert_lines as (
    insert into document_lines (
        document_id, line_no, location_id, leg, variant_id, product_id, sku, name, qty, unit, is_measured, tracks_stock,
        list_price_minor, unit_price_minor, override_reason, extended_minor, discounts, discount_minor, taxes, tax_minor,
        added_tax_minor, net_minor, payable_minor, unit_cost, unit_shares, redemption_minor, redemption_points)
    select document_id, line_no, location_id, 'sale', variant_id, product_id, sku, name, qty, unit, is_measured,
        tracks_stock, list_price, unit_price, override_reason, extended, discounts::jsonb, discount, taxes::jsonb, tax,
        added_tax, net, payable, unit_cost, unit_shares::jsonb, coalesce(($128::bigint[])[place], 0),
        coalesce(($129::bigint[])[place], 0)
    from unnest(
        $41::uuid[], $42::integer[], $43::uuid[], $44::uuid[], $45::uuid[], $46::text[], $47::text[], $48::bigint[],
        $49::text[], $50::boolean[], $51::boolean[], $52::bigint[], $53::bigint[], $54::text[],
        $55::bigint[], $56::text[], $57::bigint[], $58::text[], $59::bigint[], $60::bigint[], $61::bigint[],
        $62::bigint[], $63::bigint[], $64::text[]
    ) with ordinality as l (
        document_id, line_no, location_id, variant_id, product_id, sku, name, qty, unit, is_measured, tracks_stock,
        list_price, unit_price, override_reason, extended, discounts, discount, taxes, tax, added_tax, net,
        payable, unit_cost, unit_shares, place
    )
), insert_tenders as (
    insert into document_tenders (document_id, tender_no, kind, amount_minor, state, psp_reference, card_brand,
                                  card_last_four, card_expiry)
    select document_id, tender_no, kind, amount, state, psp_reference, card_brand, card_last_four, card_expiry
    from unnest(
        $65::uuid[], $66::integer[], $67::text[], $68::bigint[], $69::text[], $70::text[], $71::text[], $72::text[],
        $73::text[]
    ) as t (
        document_id, tender_no, kind, amount, state, psp_reference, card_brand, card_last_four, card_expiry
    )
), insert_movements as (
    insert into stock_movements (
        location_id, variant_id, version, epoch, location_seq, delta, qty_after, cause_type, cause_id, cause_line, reason,
        actor, effective_at, recorded_at, threshold, hysteresis, unit_cost)
    select location_id, variant_id, version, $1, location_seq, delta, qty_after, 'document', cause_id, cause_line, 'sale',
        actor, effective_at, $2, threshold, hysteresis, unit_cost
    from unnest(
        $74::uuid[], $75::uuid[], $76::bigint[], $77::bigint[], $78::bigint[], $79::bigint[], $80::uuid[],
        $81::integer[], $82::uuid[], $83::timestamptz[], $84::bigint[], $85::bigint[], $86::bigint[]
    ) as m (
        location_id, variant_id, version, location_seq, delta, qty_after, cause_id, cause_line, actor, effective_at,
        threshold, hysteresis, unit_cost
    )
), given as materialized (
    select *, coalesce(($130::timestamptz[])[place], effective_at) as available_at from unnest(
        $87::uuid[], $88::bigint[], $89::uuid[], $90::bigint[], $91::uuid[], $92::bigint[], $93::bigint[],
        $94::uuid[], $95::uuid[], $96::uuid[], $97::timestamptz[], $98::timestamptz[]
    ) with ordinality as e (
        account_id, version, location_id, location_seq, program_id, points, points_after, lot_id, cause_id, actor,
        effective_at, expires_at, place
    )
), insert_entries as (
    insert into loyalty_entries (
        account_id, version, epoch, location_id, location_seq, program_id, kind, delta, points_after, lots, cause_type,
        cause_id, actor, effective_at, recorded_at)
    select account_id, version, $1, location_id, location_seq, program_id, 'accrual', points, points_after,
        jsonb_build_array(jsonb_build_object('lot_id', lot_id, 'delta', points, 'earned_at', effective_at,
            'available_at', available_at, 'expires_at', expires_at)),
        'document', cause_id, actor, effective_at, $2
    from given
), insert_lots as (
    insert into loyalty_lots (lot_id, account_id, cause_id, earned_at, available_at, expires_at, points, remaining)
    select lot_id, account_id, cause_id, effective_at, available_at, expires_at, points, points from given
), update_levels as (
    update stock_levels s set qty = u.qty, version = u.version
    from unnest(
        $99::uuid[], $100::uuid[], $101::bigint[], $102::bigint[]
    ) as u (
        location_id, variant_id, qty, version
    )
    where s.location_id = u.location_id and s.variant_id = u.variant_id
), insert_levels as (
    insert into stock_levels (location_id, variant_id, qty, version)
    select location_id, variant_id, qty, version
    from unnest(
        $103::uuid[], $104::uuid[], $105::bigint[], $106::bigint[]
    ) as n (
        location_id, variant_id, qty, version
    )
), update_accounts as (
    update loyalty_accounts a set points = u.points, version = u.version
    from unnest(
        $107::uuid[], $108::bigint[], $109::bigint[]
    ) as u (
        account_id, points, version
    )
    where a.account_id = u.account_id
), update_streams as (
    update streams s set last_seq = u.last_seq
    from unnest(
        $110::uuid[], $111::bigint[]
    ) as u (
        stream_id, last_seq
    )
    where s.stream_id = u.stream_id
)
insert into outbox (stream_id, seq, epoch, cause_type, cause_id, trace_parent, created_at, topics, keys, event_ids,
                    schema_versions, bodies)
select stream_id, seq, $1, cause_type, cause_id, trace_parent, $2,
       ($119::text[])[first:last], ($120::text[])[first:last], ($121::uuid[])[first:last],
       ($122::smallint[])[first:last], ($123::bytea[])[first:last]
from unnest(
        $112::uuid[], $113::bigint[], $114::text[], $115::uuid[], $116::text[], $117::integer[], $118::integer[]
    ) as o (
        stream_id, seq, cause_type, cause_id, trace_parent, first, last
    )
