//! Commit lanes: every row in one transaction, culprits, busy locations, full queues, callers that go away.

use std::time::{Duration, Instant};

use ingest_api::lanes::{BATCH_LINES_MAX, BATCH_MAX, LanesConfig};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::rig::{DEADLINE, Rig, Size, body, code, patient_lanes};

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_is_one_transaction_with_every_row(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let till = rig.till(0, 0);
    rig.set_stock(0, 0, 1).await;
    let mut sale = rig.sale(till, &[0, 1, 0]);
    sale.customer_id = Some(rig.customers[0]);
    let answer = rig.sell(till, &sale).await;
    assert_eq!(code(&answer), (201, ""), "{answer:?}");
    let json: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(json["location_seq"], 1);
    assert_eq!(json["total_minor"], 3570);
    assert_eq!(json["points_earned"], 30);
    assert_eq!(json["flags"], serde_json::json!(["oversold"]));
    assert_eq!((rig.stock(0, 0).await, rig.stock(0, 1).await), (Some((-1000, 3)), Some((-1000, 1))));
    assert_eq!(rig.stock(0, 2).await, None);
    let shares: String =
        sqlx::query_scalar("select unit_shares::text from document_lines limit 1").fetch_one(&rig.pool).await.unwrap();
    assert!(shares.contains("\"n\": 1"), "{shares}");
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn nothing_of_a_refused_sale_is_stored(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { oversell: "deny", ..Size::default() }).await;
    let till = rig.till(0, 0);
    let mut wrong_total = rig.sale(till, &[0]);
    wrong_total.total_minor += 1;
    let mut short = rig.sale(till, &[0]);
    short.tenders[0].amount_minor -= 1;
    let mut stranger = rig.sale(till, &[0]);
    stranger.cashier_id = Uuid::now_v7();
    let mut nobody = rig.sale(till, &[0]);
    nobody.customer_id = Some(Uuid::now_v7());
    let mut unknown = rig.sale(till, &[0]);
    unknown.lines[0].variant_id = Uuid::now_v7();
    let mut early = rig.sale(till, &[0]);
    early.occurred_at = "2019-12-31T12:00:00Z".parse().unwrap();
    let sold_out = rig.sale(till, &[0]);
    for (sale, expected) in [
        (&wrong_total, (422, "total_mismatch")),
        (&short, (422, "tenders_do_not_add_up")),
        (&stranger, (422, "unknown_cashier")),
        (&nobody, (422, "unknown_customer")),
        (&unknown, (422, "unknown_variant")),
        (&early, (422, "before_opening")),
        (&sold_out, (409, "insufficient_stock")),
    ] {
        assert_eq!(code(&rig.sell(till, sale).await), expected);
    }
    for table in
        ["documents", "document_lines", "stock_levels", "stock_movements", "outbox", "idempotency_keys", "audit_log"]
    {
        assert_eq!(rig.count(table).await, 0, "{table}");
    }
    // Its numbers are free for the corrected document.
    rig.set_stock(0, 0, 5).await;
    let mut corrected = rig.sale(till, &[0]);
    (corrected.terminal_seq, corrected.receipt) = (wrong_total.terminal_seq, wrong_total.receipt);
    let answer = rig.sell(till, &corrected).await;
    assert_eq!(code(&answer), (201, ""));
    assert!(body(&answer).contains("\"location_seq\":1,"));
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_batch_is_halved_to_the_one_sale_that_cannot_be_stored(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { tills: 40, ..Size::default() }).await;
    // A culprit that only the database knows: class 23 for one receipt number.
    sqlx::raw_sql(
        "create function refuse_one() returns trigger language plpgsql as $$
         begin raise exception 'culprit' using errcode = '23514'; end $$;
         create trigger refuse_one before insert on documents for each row when (new.receipt_number = 666)
         execute function refuse_one();",
    )
    .execute(&rig.pool)
    .await
    .unwrap();
    let sales: Vec<_> = (0..40)
        .map(|till| {
            let mut sale = rig.sale(rig.till(0, till), &[0, 1]);
            if till == 17 {
                sale.receipt.number = 666;
            }
            sale
        })
        .collect();
    let sent = sales.iter().enumerate().map(|(till, sale)| rig.sell(rig.till(0, till), sale));
    let answers = futures::future::join_all(sent).await;
    for (till, answer) in answers.iter().enumerate() {
        let expected = if till == 17 { (422, "invalid_value") } else { (201, "") };
        assert_eq!(code(answer), expected, "till {till}");
    }
    assert_eq!(rig.count("documents").await, 39);
    assert_eq!(rig.stock(0, 0).await, Some((-39_000, 39)));
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_busy_location_does_not_hold_up_the_others(pool: PgPoolOptions, options: PgConnectOptions) {
    let lanes = LanesConfig { lanes: 1, ..patient_lanes() };
    let rig = Rig::start(pool, options, Size { shops: 2, lanes, ..Size::default() }).await;
    let mut import = rig.pool.begin().await.unwrap();
    sqlx::query("update streams set last_seq = last_seq where stream_id = $1")
        .bind(rig.shops[0].location_id)
        .execute(&mut *import)
        .await
        .unwrap();
    let (busy_till, free_till) = (rig.till(0, 0), rig.till(1, 0));
    let (busy_sale, free_sale) = (rig.sale(busy_till, &[0]), rig.sale(free_till, &[0]));
    let busy = rig.sell(busy_till, &busy_sale);
    tokio::pin!(busy);
    tokio::select! {
        answer = &mut busy => panic!("sold under a foreign lock: {answer:?}"),
        answer = rig.sell(free_till, &free_sale) => assert_eq!(code(&answer), (201, "")),
    }
    import.commit().await.unwrap();
    assert_eq!(code(&busy.await), (201, ""));
    rig.assert_consistent().await;
}

/// More sales of one busy location than a batch can hold: those beyond are refused, the others wait, and another
/// location of the same lane sells meanwhile.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_crowd_at_a_busy_location_does_not_hold_up_the_others(pool: PgPoolOptions, options: PgConnectOptions) {
    let lanes = LanesConfig { lanes: 1, wait_max: 4 * DEADLINE, ..patient_lanes() };
    let rig = Rig::start(pool, options, Size { shops: 2, lanes, ..Size::default() }).await;
    let mut import = hold(&rig, 0).await;
    let (busy_till, free_till) = (rig.till(0, 0), rig.till(1, 0));
    let crowd: Vec<_> = (0..BATCH_MAX + 44).map(|_| rig.sale(busy_till, &[0])).collect();
    let free_sale = rig.sale(free_till, &[0]);
    let busy = futures::future::join_all(crowd.iter().map(|sale| rig.sell(busy_till, sale)));
    tokio::pin!(busy);
    assert!(futures::poll!(&mut busy).is_pending());
    tokio::select! {
        answers = &mut busy => panic!("answered under a foreign lock: {}", answers.len()),
        answer = tokio::time::timeout(DEADLINE, rig.sell(free_till, &free_sale)) => {
            assert_eq!(code(&answer.expect("held up by the busy location")), (201, ""));
        }
    }
    sqlx::query("commit").execute(&mut *import).await.unwrap();
    let answers = busy.await;
    let count = |wanted| answers.iter().filter(|answer| code(answer) == wanted).count();
    assert_eq!((count((201, "")), count((503, "overloaded"))), (BATCH_MAX, 44));
    // In the order in which they came.
    let is_in_order: bool = sqlx::query_scalar(
        "select bool_and(ordered) from (select terminal_seq > coalesce(lag(terminal_seq) over (order by location_seq), 0)
         as ordered from documents where location_id = $1) d",
    )
    .bind(rig.shops[0].location_id)
    .fetch_one(&rig.pool)
    .await
    .unwrap();
    assert!(is_in_order);
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_batch_is_bounded_by_its_lines(pool: PgPoolOptions, options: PgConnectOptions) {
    let lanes = LanesConfig { lanes: 1, ..patient_lanes() };
    let rig = Rig::start(pool, options, Size { lanes, ..Size::default() }).await;
    let mut import = hold(&rig, 0).await;
    let (till, variants) = (rig.till(0, 0), (0..500).map(|line| line % 5).collect::<Vec<_>>());
    let sales: Vec<_> = (0..9).map(|_| rig.sale(till, &variants)).collect();
    let sent = futures::future::join_all(sales.iter().map(|sale| rig.sell(till, sale)));
    tokio::pin!(sent);
    assert!(futures::poll!(&mut sent).is_pending());
    sqlx::query("commit").execute(&mut *import).await.unwrap();
    for answer in sent.await {
        assert_eq!(code(&answer), (201, ""));
    }
    // All sales of a transaction are recorded at one instant.
    let lines: i64 = sqlx::query_scalar(
        "select max(lines) from (select count(*) as lines from documents join document_lines using (document_id)
         group by recorded_at) batch",
    )
    .fetch_one(&rig.pool)
    .await
    .unwrap();
    assert!(lines <= BATCH_LINES_MAX as i64, "{lines} lines in one transaction");
    rig.assert_consistent().await;
}

/// A connection inside a transaction that holds the location of a shop, as an import would.
async fn hold(rig: &Rig, shop: usize) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
    let mut import = rig.pool.acquire().await.unwrap();
    sqlx::query("begin").execute(&mut *import).await.unwrap();
    sqlx::query("update streams set last_seq = last_seq where stream_id = $1")
        .bind(rig.shops[shop].location_id)
        .execute(&mut *import)
        .await
        .unwrap();
    import
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_location_that_stays_busy_and_a_full_queue_are_503(pool: PgPoolOptions, options: PgConnectOptions) {
    let lanes = LanesConfig { lanes: 1, queue_max: 2, wait_max: Duration::from_millis(300), ..LanesConfig::default() };
    let rig = Rig::start(pool, options, Size { tills: 8, lanes, ..Size::default() }).await;
    let mut import = rig.pool.begin().await.unwrap();
    sqlx::query("update streams set last_seq = last_seq").execute(&mut *import).await.unwrap();
    let started = Instant::now();
    let sales: Vec<_> = (0..8).map(|till| rig.sale(rig.till(0, till), &[0])).collect();
    let sent = sales.iter().enumerate().map(|(till, sale)| rig.sell(rig.till(0, till), sale));
    for answer in futures::future::join_all(sent).await {
        assert_eq!(code(&answer), (503, "overloaded"));
    }
    assert!(started.elapsed() < DEADLINE);
    drop(import);
    assert_eq!(rig.count("documents").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_caller_that_goes_away_neither_stops_nor_doubles_its_sale(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { tills: 1, ..Size::default() }).await;
    let till = rig.till(0, 0);
    let mut sales = Vec::new();
    for round in 0..50u64 {
        let sale = rig.sale(till, &[0, 1]);
        // Dropped at another point of its way each time.
        let limit = Duration::from_micros(round * 60);
        let cancelled = tokio::time::timeout(limit, rig.sell(till, &sale)).await.is_err();
        sales.push((sale, cancelled));
    }
    assert!(sales.iter().any(|(_, cancelled)| *cancelled));
    for (sale, cancelled) in &sales {
        let (status, _) = code(&rig.sell(till, sale).await);
        assert!(status == 200 || (*cancelled && status == 201), "{status}");
    }
    assert_eq!(rig.count("documents").await, 50);
    rig.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_priced_from_an_old_catalog_is_priced_again(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let till = rig.till(0, 0);
    let (known, unknown) = (rig.sale(till, &[0]), rig.sale(till, &[1]));
    // Another node changes a price and the lane's process has not polled yet.
    sqlx::raw_sql(
        "insert into prices (price_id, variant_id, currency, amount_minor, tax_inclusive, valid_from, catalog_version)
         select gen_random_uuid(), variant_id, 'EUR', 1000, true, '2001-01-01', 2 from variants;
         insert into catalog_changes (catalog_version, kind, object_id, object_version, body)
         select 1 + row_number() over (), 'price', price_id, 1, '{}' from prices where catalog_version = 2;
         update catalog_counter set version = (select max(catalog_version) from catalog_changes);",
    )
    .execute(&rig.pool)
    .await
    .unwrap();
    assert_eq!(code(&rig.sell(till, &known).await), (422, "total_mismatch"));
    let mut cheaper = unknown;
    (cheaper.total_minor, cheaper.tenders[0].amount_minor) = (1000, 1000);
    assert_eq!(code(&rig.sell(till, &cheaper).await), (201, ""));
    let version: i64 = sqlx::query_scalar("select pricing_version from documents").fetch_one(&rig.pool).await.unwrap();
    assert_eq!(version, 6);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_revoked_cashier_sells_nothing_more(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size::default()).await;
    let till = rig.till(0, 0);
    let mut cheap = rig.sale(till, &[0]);
    cheap.lines[0].override_ =
        Some(serde_json::from_value(serde_json::json!({"unit_price_minor": 100, "reason": "mine"})).unwrap());
    (cheap.total_minor, cheap.tenders[0].amount_minor) = (100, 100);
    assert_eq!(code(&rig.sell(till, &cheap).await), (403, "approval_required"));
    assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0])).await), (201, ""));
    sqlx::query("delete from grants").execute(&rig.pool).await.unwrap();
    assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0])).await), (403, "forbidden"));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn refused_sales_of_a_batch_take_no_number(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { tills: 20, ..Size::default() }).await;
    let mut import = rig.pool.begin().await.unwrap();
    sqlx::query("update streams set last_seq = last_seq").execute(&mut *import).await.unwrap();
    let sales: Vec<_> = (0..20)
        .map(|till| {
            let mut sale = rig.sale(rig.till(0, till), &[0]);
            sale.total_minor += (till % 2) as i64;
            sale
        })
        .collect();
    let sent = sales.iter().enumerate().map(|(till, sale)| rig.sell(rig.till(0, till), sale));
    // All of them wait for the location, hence for one batch, before it is free.
    let (answers, ()) = tokio::join!(biased; futures::future::join_all(sent), async { import.commit().await.unwrap() });
    for (till, answer) in answers.iter().enumerate() {
        let expected = if till % 2 == 0 { (201, "") } else { (422, "total_mismatch") };
        assert_eq!(code(answer), expected, "till {till}");
    }
    rig.assert_consistent().await;
}
