//! Append-only by rights and by triggers: the role that the application runs as sells, counts and seals, and cannot
//! change, delete or empty what the ledgers hold; the owner meets the triggers.

use chrono::Utc;
use ingest_api::audit::{roots, sealer};
use ingest_api::migrate::{APP_ROLE, give_rights};
use ingest_api::privacy::new_key;
use ingest_api::worker::upkeep;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::audit_chain::signer;
use crate::matrix::Matrix;
use crate::world::{World, privacy_config, text, vault};

const MAKE_ROLE: &str =
    "do $$ begin create role vorca_app login; exception when duplicate_object or unique_violation then null; end $$";

/// The same database as the application's role sees it.
async fn as_application(owner: &PgPool, options: &PgConnectOptions) -> (PgConnectOptions, PgPool) {
    sqlx::raw_sql(MAKE_ROLE).execute(owner).await.unwrap();
    give_rights(owner).await.unwrap();
    // The key store, which stands in a schema here: what its own role may do there.
    vault(owner, &privacy_config(&[&new_key()])).await;
    let key_store = "grant usage on schema vault to vorca_app; grant all on all tables in schema vault to vorca_app";
    sqlx::raw_sql(key_store).execute(owner).await.unwrap();
    let options = options.clone().options([("role", APP_ROLE)]);
    let pool = PgPoolOptions::new().max_connections(6).connect_with(options.clone()).await.unwrap();
    let role: String = sqlx::query_scalar("select current_user::text").fetch_one(&pool).await.unwrap();
    assert_eq!(role, APP_ROLE);
    (options, pool)
}

/// Members with profiles: signed up, edited, merged, erased.
async fn people_come_and_go(world: &World) {
    let mut ids = Vec::new();
    for name in ["Ann", "Anna"] {
        let member = world.owner.post("/members", json!({"profile": {"given_name": name}})).await.expect(201);
        ids.push(text(&member, "customer_id"));
    }
    let path = format!("/members/{}", ids[0]);
    let etag = world.owner.get(&path).await.etag();
    world.owner.patch(&format!("{path}/profile"), &etag, json!({"given_name": "Anne"})).await.expect(200);
    let merge = json!({"absorbed_id": ids[1], "reason": "duplicate"});
    world.owner.post(&format!("{path}/merge"), merge).await.expect(200);
    world.owner.post(&format!("{path}/erasure"), json!({"reason": "request"})).await.expect(200);
}

/// The state with which a statement is refused; nothing when it is not.
async fn state(pool: &PgPool, sql: &str) -> Option<String> {
    let mut tx = pool.begin().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await;
    tx.rollback().await.unwrap();
    done.err().map(|error| error.as_database_error().and_then(|error| error.code()).expect("a refusal").into_owned())
}

/// Tables that only ever grow.
async fn ledgers(pool: &PgPool) -> Vec<String> {
    let query = "select t.tgrelid::regclass::text from pg_trigger t join pg_class c on c.oid = t.tgrelid
                 where t.tgname = 'append_only' and not c.relispartition order by 1";
    sqlx::query_scalar(query).fetch_all(pool).await.unwrap()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_application_works_and_cannot_touch_what_the_ledgers_hold(owner: PgPoolOptions, options: PgConnectOptions) {
    let owner = owner.connect_with(options.clone()).await.unwrap();
    let (as_app, pool) = as_application(&owner, &options).await;
    // Everything it is for: a business with sales, stock, seals, roots and partitions.
    let matrix = Matrix::new(&pool).await;
    let body = json!({"location_id": matrix.own.location, "reason": "found",
                      "lines": [{"variant_id": matrix.world.variants[0], "delta": 1000}]});
    matrix.world.owner.post_keyed("/stock/adjustments", "k", &body).await.expect(201);
    people_come_and_go(&matrix.world).await;
    let mut conn = sealer::connect(&as_app).await.unwrap();
    assert!(sealer::seal(&mut conn, 1_000).await.unwrap() > 0);
    assert!(!sealer::sign_heads(&mut conn, &signer()).await.unwrap().is_empty());
    let made = roots::close_days(&mut conn, &signer(), Utc::now() + chrono::TimeDelta::days(3)).await.unwrap();
    assert_eq!(made, 2);
    upkeep::make_partitions(&pool).await.unwrap();
    let today = upkeep_partitions(&pool).await;
    assert!(today >= 4, "{today} partitions");

    let ledgers = ledgers(&pool).await;
    for expected in ["audit_log", "audit_seals", "audit_heads", "audit_roots", "documents", "outbox", "stock_movements"]
    {
        assert!(ledgers.contains(&expected.to_owned()), "{expected} only grows: {ledgers:?}");
    }
    for table in &ledgers {
        let column: String =
            sqlx::query_scalar("select attname::text from pg_attribute where attrelid = $1::regclass and attnum = 1")
                .bind(table)
                .fetch_one(&pool)
                .await
                .unwrap();
        for sql in [
            format!("update {table} set {column} = {column}"),
            format!("delete from {table}"),
            format!("truncate {table} cascade"),
            format!("alter table {table} disable trigger all"),
            format!("drop table {table} cascade"),
        ] {
            assert_eq!(state(&pool, &sql).await.as_deref(), Some("42501"), "{sql}");
        }
        // The owner has the rights and meets the triggers.
        let is_empty = format!("select not exists (select from {table})");
        let is_empty: bool = sqlx::query_scalar(AssertSqlSafe(is_empty)).fetch_one(&owner).await.unwrap();
        let mut changes = vec![format!("truncate {table} cascade")];
        if !is_empty {
            changes.extend([format!("update {table} set {column} = {column}"), format!("delete from {table}")]);
        }
        for sql in changes {
            assert_eq!(state(&owner, &sql).await.as_deref(), Some("42501"), "as the owner: {sql}");
        }
    }
    for sql in [
        "set session_replication_role = replica",
        "create or replace function refuse_change() returns trigger language plpgsql as 'begin return new; end'",
        "select drop_outbox_partition(current_date)",
        "select drop_outbox_partition(current_date - 6)",
        "delete from _sqlx_migrations",
    ] {
        assert_eq!(state(&pool, sql).await.as_deref(), Some("42501"), "{sql}");
    }
}

async fn upkeep_partitions(pool: &PgPool) -> i64 {
    let query = "select count(*) from pg_inherits where inhparent = 'outbox'::regclass";
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

/// A day of the outbox goes when a week is over and everything in it is published, not before.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_old_partition_is_dropped_once_it_is_published(owner: PgPoolOptions, options: PgConnectOptions) {
    let owner = owner.connect_with(options.clone()).await.unwrap();
    let (_, pool) = as_application(&owner, &options).await;
    let day = "(now() at time zone 'UTC')::date - 9";
    let make = format!("select make_outbox_partition({day})");
    let made: bool = sqlx::query_scalar(AssertSqlSafe(make.clone())).fetch_one(&pool).await.unwrap();
    let again: bool = sqlx::query_scalar(AssertSqlSafe(make)).fetch_one(&pool).await.unwrap();
    assert!(made && !again);
    let act = format!(
        "insert into outbox (stream_id, seq, epoch, cause_type, cause_id, created_at, topics, keys, event_ids, schema_versions, bodies)
         values ('00000000-0000-0000-0000-000000000000', 1, 1, 't', gen_random_uuid(), {day}, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
    );
    sqlx::raw_sql(AssertSqlSafe(act)).execute(&pool).await.unwrap();
    let drop = format!("select drop_outbox_partition({day})");
    let is_dropped: bool = sqlx::query_scalar(AssertSqlSafe(drop.clone())).fetch_one(&pool).await.unwrap();
    assert!(!is_dropped, "its act is not published");
    sqlx::query("update stream_progress set published_seq = 1").execute(&pool).await.unwrap();
    let before = upkeep_partitions(&pool).await;
    let is_dropped: bool = sqlx::query_scalar(AssertSqlSafe(drop)).fetch_one(&pool).await.unwrap();
    assert!(is_dropped);
    assert_eq!(upkeep_partitions(&pool).await, before - 1);
}
