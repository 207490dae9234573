-- What a document's leaf is made of: the hash of its receipt, and one over every other stored column of the document,
-- its lines and its tenders. $1: document ids.
-- The text that is hashed: one JSON array per row and line, the document first, then its lines and its tenders by
-- number, columns in the order below. A change of it is a new number in the first place and a new leaf version.
-- Times are microseconds since 1970, so that no setting of the session has a say.
select d.document_id, d.location_id, d.business_date,
       sha256(convert_to(d.response, 'UTF8')) as receipt_hash,
       sha256(convert_to(json_build_array(1, 'document', d.document_id, d.epoch, d.kind, d.location_id, d.location_seq,
           d.origin_location_id, d.terminal_id, d.terminal_seq, d.register_id, d.series_epoch, d.receipt_number,
           d.cashier_id, d.drawer_session_id, d.lease_id, d.approval_id, d.customer_id,
           (extract(epoch from d.occurred_at_raw) * 1000000)::bigint, (extract(epoch from d.sent_at) * 1000000)::bigint,
           (extract(epoch from d.occurred_at) * 1000000)::bigint, (extract(epoch from d.recorded_at) * 1000000)::bigint,
           d.business_date, d.slot, d.currency, d.rounding_mode, d.cash_step, d.subtotal_minor, d.discount_minor,
           d.tax_minor, d.tip_minor, d.total_minor, d.rounding_minor, d.change_minor, d.flags,
           encode(d.content_hash, 'hex'), d.hash_version, encode(d.document_digest, 'hex'), d.pricing_version,
           d.price_trace, d.trace_id)::text
         || coalesce((
           select string_agg(E'\n' || json_build_array('line', l.line_no, l.location_id, l.leg, l.variant_id,
                  l.product_id, l.sku, l.name, l.origin_document_id, l.origin_line_no, l.origin_location_id,
                  l.first_unit, l.last_unit, l.qty, l.unit, l.is_measured, l.tracks_stock, l.disposition,
                  l.list_price_minor, l.unit_price_minor, l.override_reason, l.extended_minor, l.discounts,
                  l.discount_minor, l.redemption_minor, l.taxes, l.tax_minor, l.added_tax_minor, l.net_minor,
                  l.payable_minor, l.unit_cost, l.unit_shares)::text, '' order by l.line_no)
           from document_lines l where l.document_id = d.document_id), '')
         || coalesce((
           select string_agg(E'\n' || json_build_array('tender', t.tender_no, t.kind, t.amount_minor, t.tip_minor,
                  t.state, t.intent_id, t.psp_reference, t.card_brand, t.card_last_four, t.card_expiry,
                  t.liability_account_id)::text, '' order by t.tender_no)
           from document_tenders t where t.document_id = d.document_id), ''), 'UTF8')) as record_hash
from documents d
where d.document_id = any ($1)
