//! The relay's role does what the relay does, and nothing else.

use ingest_api::db::relay::{self as db, OutboxRow, Progress};
use ingest_api::migrate::{RELAY_ROLE, give_rights};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::world::world;

const MAKE_ROLE: &str =
    "do $$ begin create role vorca_relay login; exception when duplicate_object or unique_violation then null; end $$";

/// Every table and view but those that the relay works on.
const OTHERS: &str = "select c.oid::regclass::text from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
      and c.relname not in ('streams', 'stream_progress', 'outbox', 'schema_ids')";

async fn is_refused(relay: &mut PgConnection, sql: String) -> bool {
    let mut tx = relay.begin().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await;
    tx.rollback().await.unwrap();
    done.is_err_and(|error| error.as_database_error().and_then(|error| error.code()).as_deref() == Some("42501"))
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_relays_role_publishes_and_reads_nothing_of_people_and_money(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let owner = pool.connect_with(options.clone()).await.unwrap();
    sqlx::raw_sql(MAKE_ROLE).execute(&owner).await.unwrap();
    give_rights(&owner).await.unwrap();
    world(&owner).await;
    let mut relay = PgConnection::connect_with(&options.options([("role", RELAY_ROLE)])).await.unwrap();

    let rows = db::unpublished(&mut relay, 10, &[]).await.unwrap();
    let row = OutboxRow::of(&rows[0]).unwrap();
    assert!(db::backlog(&mut relay).await.unwrap().0 > 0);
    db::park(&mut relay, &row, 0, "too large").await.unwrap();
    let progress = Progress { stream_id: row.stream_id, from_seq: row.seq - 1, to_seq: row.seq };
    db::mark_published(&mut relay, &[progress]).await.unwrap();
    db::schema_ids(&mut relay).await.unwrap();
    let next = db::unpublished(&mut relay, 10, &[]).await.unwrap();
    assert!(next.iter().all(|next| OutboxRow::of(next).unwrap().event_ids != row.event_ids), "it was marked");

    let others: Vec<String> = sqlx::query_scalar(OTHERS).fetch_all(&owner).await.unwrap();
    assert!(others.len() > 30, "{others:?}");
    for table in &others {
        assert!(is_refused(&mut relay, format!("select from {table}")).await, "it reads {table}");
    }
    for table in others.iter().map(String::as_str).chain(["streams", "outbox", "schema_ids", "stream_progress"]) {
        assert!(is_refused(&mut relay, format!("delete from {table}")).await, "it deletes from {table}");
    }
    for act in [
        "update streams set last_seq = last_seq",
        "update outbox set seq = seq",
        "update stream_progress set stream_id = stream_id",
        "insert into outbox default values",
        "insert into users default values",
        "truncate outbox_parked",
        "create table of_its_own ()",
    ] {
        assert!(is_refused(&mut relay, act.to_owned()).await, "{act}");
    }
}
