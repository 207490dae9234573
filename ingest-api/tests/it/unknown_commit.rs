//! The connection breaks between COMMIT and its answer: whatever the till is told, the sale is there once, and sending
//! it again gives the bytes that were stored.

use std::time::Duration;

use ingest_api::lanes::LanesConfig;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::rig::{Rig, Size, body, code, patient_lanes};
use crate::wire::{Cut, Wire};

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_unknown_commit_is_looked_up_before_anything_is_tried_again(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let wire = Wire::to(&rig.options).await;
    let node = rig.node(&wire.options, &patient_lanes());
    let till = rig.till(0, 0);
    for (number, cut) in [(1, Cut::AfterCommit), (2, Cut::BeforeCommit), (3, Cut::AfterCommit)] {
        let mut sale = rig.sale(till, &[0, 1]);
        sale.customer_id = Some(rig.customers[0]);
        let key = sale.sale_id.to_string();
        wire.arm(cut);
        let first = rig.send_by(&node, till, &sale, &key).await;
        assert_eq!(wire.cuts(), number, "the COMMIT was cut");
        assert_eq!(code(&first), (201, ""), "{cut:?}: {first:?}");
        for again in [rig.send_by(&node, till, &sale, &key).await, rig.send(till, &sale, "another key").await] {
            assert_eq!((code(&again), body(&again)), ((200, ""), body(&first)), "{cut:?}");
        }
        assert_eq!(rig.count("documents").await, i64::from(number));
    }
    assert_eq!(rig.stock(0, 0).await, Some((-3_000, 3)));
    assert_eq!(rig.count("loyalty_entries").await, 3);
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_nobody_was_told_about_is_found_by_sending_it_again(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let wire = Wire::to(&rig.options).await;
    let hasty = LanesConfig { wait_max: Duration::from_millis(300), ..LanesConfig::default() };
    let node = rig.node(&wire.options, &hasty);
    let till = rig.till(0, 0);
    let sale = rig.sale(till, &[0, 1]);
    let key = sale.sale_id.to_string();

    // Committed, and the database is away before anybody can look.
    wire.arm_for_good(Cut::AfterCommit);
    let first = rig.send_by(&node, till, &sale, &key).await;
    assert_eq!((code(&first), wire.cuts()), ((503, "unavailable"), 1));
    assert!(first.unwrap_err().detail.contains("not known"), "it does not say that nothing was stored");
    assert_eq!(rig.count("documents").await, 1);

    let again = rig.send(till, &sale, &key).await;
    assert_eq!(code(&again), (200, ""), "{again:?}");
    let stored: String = sqlx::query_scalar("select response from documents").fetch_one(&rig.pool).await.unwrap();
    assert_eq!(body(&again), stored);
    assert_eq!(body(&rig.send(till, &sale, "another key").await), stored);
    assert_eq!(rig.count("documents").await, 1);
    assert_eq!(rig.stock(0, 0).await, Some((-1_000, 1)));
    rig.assert_consistent().await;
}
