-- The tender that paid-out money goes back to: how much a tender still holds is what it brought less what went back.
alter table document_tenders add column origin_document_id uuid;
alter table document_tenders add column origin_tender_no integer;
create index document_tenders_by_origin on document_tenders (origin_document_id, origin_tender_no)
    where origin_document_id is not null;
