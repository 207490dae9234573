-- A session ends after so many wrong proofs in a row.
alter table sessions add column failed_proofs integer not null default 0;

-- Who set a PIN knows it. None: nobody knows who it was.
alter table users add column pin_set_by uuid;
