//! Rule T9: one effect per identity, whoever sends what how often.

use std::collections::HashMap;

use rand::seq::SliceRandom;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::rig::{Rig, Size, body, code};

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_same_document_is_replayed_and_another_one_is_refused(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let (till, other_till) = (rig.till(0, 0), rig.till(0, 1));
    let sale = rig.sale(till, &[0]);
    let first = rig.send(till, &sale, "k1").await;
    assert_eq!(code(&first), (201, ""));

    // Same key, same body; fresh key, same body; another time of sending.
    let mut later = sale.clone();
    later.sent_at = Some(chrono::Utc::now());
    for (send, key) in [(&sale, "k1"), (&sale, "k2"), (&later, "k3")] {
        let again = rig.send(till, send, key).await;
        assert_eq!(code(&again), (200, ""), "{key}");
        assert_eq!(body(&again), body(&first));
    }
    // Same key, other body.
    let other = rig.sale(till, &[1]);
    assert_eq!(code(&rig.send(till, &other, "k1").await), (422, "idempotency_key_reuse"));
    // Known sequence, other content.
    let mut altered = sale.clone();
    altered.sale_id = Uuid::now_v7();
    assert_eq!(code(&rig.send(till, &altered, "k4").await), (409, "sequence_reuse"));
    // Known id under another number, or another till: nothing of it is shown.
    let mut moved = rig.sale(till, &[0]);
    moved.sale_id = sale.sale_id;
    assert_eq!(code(&rig.send(till, &moved, "k5").await), (409, "id_conflict"));
    let mut foreign = rig.sale(other_till, &[0]);
    foreign.sale_id = sale.sale_id;
    assert_eq!(code(&rig.send(other_till, &foreign, "k6").await), (409, "id_conflict"));
    // Receipt identity taken.
    let mut receipt = rig.sale(till, &[0]);
    receipt.receipt = sale.receipt;
    assert_eq!(code(&rig.send(till, &receipt, "k7").await), (409, "receipt_conflict"));
    assert_eq!(rig.count("documents").await, 1);
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_replay_answers_even_when_the_sale_would_be_refused_today(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let till = rig.till(0, 0);
    let sale = rig.sale(till, &[0]);
    let first = rig.sell(till, &sale).await;
    sqlx::raw_sql(
        "delete from grants; update variants set is_active = false;
         insert into catalog_changes (catalog_version, kind, object_id, object_version, body)
         select 1 + row_number() over (), 'variant', variant_id, 2, '{}' from variants;
         update catalog_counter set version = (select max(catalog_version) from catalog_changes);",
    )
    .execute(&rig.pool)
    .await
    .unwrap();
    rig.catalog.refresh().await.unwrap();
    let again = rig.sell(till, &sale).await;
    assert_eq!((code(&again), body(&again)), ((200, ""), body(&first)));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn twins_in_one_batch_have_one_effect(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let till = rig.till(0, 0);
    let sale = rig.sale(till, &[0]);
    let answers = futures::future::join_all((0..20).map(|_| rig.sell(till, &sale))).await;
    let created = answers.iter().filter(|answer| code(answer).0 == 201).count();
    let replayed = answers.iter().filter(|answer| code(answer).0 == 200).count();
    assert_eq!((created, replayed), (1, 19));
    assert!(answers.iter().all(|answer| body(answer) == body(&answers[0])));
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn twins_on_two_nodes_have_one_effect(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let other_node = rig.another_node().await;
    let till = rig.till(0, 0);
    for _ in 0..40 {
        let sale = rig.sale(till, &[0, 1]);
        let key = sale.sale_id.to_string();
        let (here, there) = tokio::join!(rig.send(till, &sale, &key), rig.send_by(&other_node, till, &sale, &key));
        let mut statuses = [code(&here).0, code(&there).0];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201]);
        assert_eq!(body(&here), body(&there));
    }
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn five_hundred_sales_sent_three_times_by_two_clients(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { shops: 4, tills: 5, ..Size::default() }).await;
    let other_node = rig.another_node().await;
    let mut sends = Vec::new();
    for number in 0..500 {
        let (shop, till) = (number % 4, number / 4 % 5);
        let mut sale = rig.sale(rig.till(shop, till), &[number % 5, (number + 1) % 5]);
        sale.customer_id = Some(rig.customers[number % 2]).filter(|_| number % 3 == 0);
        for copy in 0..3 {
            // Half of the copies come under a fresh key.
            let key = if copy > 0 && number % 2 == 0 { Uuid::now_v7() } else { sale.sale_id };
            sends.push((shop, till, sale.clone(), key.to_string()));
        }
    }
    sends.shuffle(&mut rand::rng());
    let (first, second) = sends.split_at(sends.len() / 2);
    let client = async |lanes: &ingest_api::lanes::LaneHandle, sends: &[(usize, usize, _, String)]| {
        let mut answers = Vec::new();
        for chunk in sends.chunks(50) {
            let sent =
                chunk.iter().map(|(shop, till, sale, key)| rig.send_by(lanes, rig.till(*shop, *till), sale, key));
            answers.extend(futures::future::join_all(sent).await);
        }
        answers
    };
    let (here, there) = tokio::join!(client(&rig.lanes, first), client(&other_node, second));
    let mut statuses: HashMap<u16, usize> = HashMap::new();
    for answer in here.iter().chain(&there) {
        *statuses.entry(code(answer).0).or_default() += 1;
    }
    assert_eq!(statuses, HashMap::from([(201, 500), (200, 1000)]));
    assert_eq!(rig.count("documents").await, 500);
    assert_eq!(rig.count("stock_movements").await, 1000);
    assert_eq!(rig.count("loyalty_entries").await, 167);
    rig.assert_consistent().await;
}
