//! Epochs and resyncs: after a restore the first event of every entity carries its full state.

use std::collections::HashSet;

use ingest_api::worker::epoch::raise_epoch;
use runtime::lifecycle::Shutdown;
use runtime::pg::Writer;
use schemas::topics;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::rig::{Rig, Size, code, eventually};

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_new_epoch_begins_with_a_resync_of_every_entity(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { shops: 2, ..Size::default() }).await;
    for shop in 0..2 {
        let till = rig.till(shop, 0);
        let mut sale = rig.sale(till, &[0, 1]);
        sale.customer_id = Some(rig.customers[shop]);
        assert_eq!(code(&rig.sell(till, &sale).await), (201, ""));
    }
    assert_eq!(raise(&rig, "test").await, 2);
    let till = rig.till(0, 0);
    let answer = rig.sell(till, &rig.sale(till, &[0, 1, 2])).await;
    assert!(crate::rig::body(&answer).contains("\"epoch\":2"));
    // First movement of each entity that existed is its resync; a new entity needs none.
    let first: Vec<(bool, i64, i64, i64)> = sqlx::query_as(
        "select distinct on (location_id, variant_id) resync, version, delta, qty_after from stock_movements
         where epoch = 2 order by location_id, variant_id, version",
    )
    .fetch_all(&rig.pool)
    .await
    .unwrap();
    assert_eq!(first.iter().filter(|row| **row == (true, 2, 0, -1000)).count(), 4);
    assert_eq!(first.iter().filter(|row| **row == (false, 1, -1000, -1000)).count(), 1);
    let accounts: Vec<(bool, i64)> =
        sqlx::query_as("select kind = 'resync', points_after from loyalty_entries where epoch = 2")
            .fetch_all(&rig.pool)
            .await
            .unwrap();
    assert_eq!(accounts, [(true, 20), (true, 20)]);
    // Every catalog state is published into the epoch, and what was kept of each stream is on record.
    let published: Vec<(String, i64)> = sqlx::query_as(
        "select t, count(*) from outbox o, unnest(o.topics) t where o.epoch = 2 and t like 'vorca.catalog.%' group by 1 order by 1",
    )
    .fetch_all(&rig.pool)
    .await
    .unwrap();
    let mut catalog = Vec::new();
    for (topic, table) in [
        (topics::CASHIERS, "select count(*) from users"),
        (topics::LOCATIONS, "select count(*) from locations"),
        (topics::VARIANTS, "select count(*) from variants"),
    ] {
        catalog.push((topic.name.to_owned(), sqlx::query_scalar(table).fetch_one(&rig.pool).await.unwrap()));
    }
    assert_eq!(published, catalog);
    let unrecorded: i64 = sqlx::query_scalar(
        "select count(*) from streams s where not exists (
             select from epoch_cuts c where c.epoch = 2 and c.stream_id = s.stream_id and c.kept_seq < s.last_seq)",
    )
    .fetch_one(&rig.pool)
    .await
    .unwrap();
    assert_eq!(unrecorded, 0, "each stream went on after its cut: with resyncs, and the company with the catalog");
    rig.assert_consistent().await;
}

/// Sells, copies the database, sells on, and goes back to the copy: the sales of the lost time line have
/// taken the numbers that the restored database gives out again.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_restored_database_never_repeats_an_event_id(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool.clone(), options.clone(), Size::default()).await;
    let till = rig.till(0, 0);
    assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0])).await), (201, ""));
    // Postgres cuts names at 63 bytes, which the name of a test database nearly fills.
    let backup = format!("backup_{}", Uuid::now_v7().simple());
    let mut admin = PgConnection::connect_with(&options.clone().database("postgres")).await.unwrap();
    let closed = rig.close().await;
    copy_database(&mut admin, options.get_database().unwrap(), &backup).await;
    let rig = closed.reopen(options.clone()).await;
    let till = rig.till(0, 0);
    for _ in 0..3 {
        assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0])).await), (201, ""));
    }
    let lost = event_ids(&rig).await;

    let restored = rig.close().await.reopen(options.database(&backup)).await;
    assert_eq!(raise(&restored, "restored").await, 2);
    let till = restored.till(0, 0);
    for _ in 0..3 {
        assert_eq!(code(&restored.sell(till, &restored.sale(till, &[0])).await), (201, ""));
    }
    let kept = event_ids(&restored).await;
    let (lost, kept): (HashSet<_>, HashSet<_>) = (lost.into_iter().collect(), kept.into_iter().collect());
    // Only what was sold before the copy is common: one document, one movement.
    assert_eq!(lost.intersection(&kept).count(), 2);
    restored.assert_consistent().await;
    restored.close().await;
    sqlx::query(sqlx::AssertSqlSafe(format!("drop database {backup:?} with (force)")))
        .execute(&mut admin)
        .await
        .unwrap();
}

async fn raise(rig: &Rig, reason: &str) -> i64 {
    raise_epoch(&Writer::new(rig.pool.clone(), &Shutdown::new()), reason).await.unwrap().epoch
}

async fn event_ids(rig: &Rig) -> Vec<Uuid> {
    sqlx::query_scalar("select unnest(event_ids) from outbox").fetch_all(&rig.pool).await.unwrap()
}

/// Copies a database, for which nobody may be connected to it.
async fn copy_database(admin: &mut PgConnection, name: &str, copy: &str) {
    eventually(async || {
        let sql = sqlx::AssertSqlSafe(format!("create database {copy:?} template {name:?}"));
        sqlx::query(sql).execute(&mut *admin).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}
