-- What each restore of this database kept: written when an epoch begins. An event of an older epoch above the number of
-- its stream, or of a stream that is not listed, belongs to a time line that was given up.
create table epoch_cuts (
    epoch      bigint not null references epochs,
    stream_id  uuid not null references streams,
    kept_seq   bigint not null,
    primary key (epoch, stream_id)
);
create trigger append_only before update or delete on epoch_cuts for each row execute function refuse_change();
