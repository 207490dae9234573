//! Stock acts, what they leave behind, and the changes feed.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::world::{World, text, world};

fn receipt(world: &World, qty: i64) -> Value {
    json!({"location_id": world.here, "reason": "receipt", "document_uri": "note/1", "lines": [
        {"variant_id": world.variants[0], "qty": qty, "unit_cost_minor": 100}, {"variant_id": world.variants[1], "qty": 2000}]})
}

async fn is_consistent(world: &World) {
    // I6, I7: a level is the sum of its movements; versions and location_seq have no gap.
    let broken = world.count(
        "select count(*) from stock_levels s where (qty, version) is distinct from
             (select (coalesce(sum(delta), 0)::bigint, count(*)) from stock_movements m
              where m.location_id = s.location_id and m.variant_id = s.variant_id)",
    );
    assert_eq!(broken.await, 0);
    let gaps = "select count(*) from streams s where last_seq <> (select count(*) from outbox o where o.stream_id = s.stream_id)";
    assert_eq!(world.count(gaps).await, 0);
    let one_row_each =
        "select count(*) from stock_acts a where 1 <> (select count(*) from outbox o where o.cause_id = a.act_id
        and o.seq = a.location_seq and cardinality(o.bodies) = a.line_count)";
    assert_eq!(world.count(one_row_each).await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_receipt_sent_twice_answers_with_the_same_bytes(pool: PgPool) {
    let world = world(&pool).await;
    let body = receipt(&world, 5_000);
    let first = world.owner.post_keyed("/stock/receipts", "\"note-1\"", &body).await;
    let act = first.expect(201);
    assert_eq!(act["location_seq"], 1);
    assert_eq!(
        act["movements"][0],
        json!({"variant_id": world.variants[0], "version": 1, "delta": 5000, "qty_after": 5000})
    );
    let again = world.owner.post_keyed("/stock/receipts", "note-1", &body).await;
    assert_eq!((again.status.as_u16(), &again.bytes), (200, &first.bytes));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    // What the body says counts, not how it is written.
    let lines = format!(
        r#" {{"lines": [ {{"unit_cost_minor": 100, "qty": 5000, "variant_id": "{}"}},
                     {{"qty": 2000, "variant_id": "{}", "unit_cost_minor": null}} ],
            "document_uri": " note/1", "location_id": "{}", "reason": "receipt", "effective_at": null}}"#,
        world.variants[0].to_uppercase(),
        world.variants[1],
        world.here
    );
    let headers = [("idempotency-key", "note-1")];
    let respelled = world.owner.send("POST", "/stock/receipts", &headers, Some(lines.as_bytes())).await;
    assert_eq!((respelled.status.as_u16(), &respelled.bytes), (200, &first.bytes), "{}", respelled.text());
    let other = world.owner.post_keyed("/stock/receipts", "note-1", &receipt(&world, 6_000)).await;
    assert_eq!(other.problem().1, "idempotency_key_reuse");
    assert_eq!(other.status, 422);
    // The same key of somebody else, or on another route, is another key.
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    manager.post_keyed("/stock/receipts", "note-1", &body).await.expect(201);
    assert_eq!(world.owner.post("/stock/receipts", body.clone()).await.problem().1, "idempotency_key_required");
    let mut named = body.clone();
    named["act_id"] = act["act_id"].clone();
    assert_eq!(world.owner.post_keyed("/stock/receipts", "other", &named).await.problem().1, "id_conflict");
    let stock = world.owner.get(&format!("/stock?location_id={}", world.here)).await.expect(200);
    assert_eq!(stock["items"].as_array().unwrap().iter().map(|row| row["qty"].as_i64().unwrap()).sum::<i64>(), 14_000);
    let audited =
        world.count("select count(*) from audit_log where action = 'stock.receipt' and outcome = 'done'").await;
    assert_eq!(audited, 2);
    is_consistent(&world).await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn twins_and_strangers_at_once_keep_every_number_gapless(pool: PgPool) {
    let world = world(&pool).await;
    let sends = (0..40).map(|i| {
        let (owner, mut body) = (world.owner.clone(), receipt(&world, 1_000));
        let key = format!("key-{}", i / 4);
        if i / 4 % 2 == 1 {
            body["lines"].as_array_mut().unwrap().reverse();
        }
        tokio::spawn(async move { owner.post_keyed("/stock/receipts", &key, &body).await })
    });
    let mut created = 0;
    for send in sends.collect::<Vec<_>>() {
        let answer = send.await.unwrap();
        match answer.status.as_u16() {
            201 => created += 1,
            200 => assert_eq!(answer.headers["idempotency-replayed"], "true"),
            // Load on a small pool is an honest 503.
            503 => assert_eq!(answer.json()["retryable"], true),
            other => panic!("{other} {}", answer.text()),
        }
    }
    assert!((1..=10).contains(&created), "{created}");
    assert_eq!(world.count("select count(*) from stock_acts").await, created);
    is_consistent(&world).await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn adjustments_and_thresholds_are_movements(pool: PgPool) {
    let world = world(&pool).await;
    world.owner.post_keyed("/stock/receipts", "1", &receipt(&world, 5_000)).await.expect(201);
    let variant = &world.variants[0];
    let damage =
        json!({"location_id": world.here, "reason": "damage", "lines": [{"variant_id": variant, "delta": -3000}]});
    let act = world.owner.post_keyed("/stock/adjustments", "1", &damage).await.expect(201);
    assert_eq!((act["location_seq"].as_i64(), act["movements"][0]["qty_after"].as_i64()), (Some(2), Some(2000)));
    let limits =
        json!({"location_id": world.here, "lines": [{"variant_id": variant, "threshold": 3000, "hysteresis": 500}]});
    let act = world.owner.post_keyed("/stock/thresholds", "1", &limits).await.expect(201);
    assert_eq!((act["movements"][0]["version"].as_i64(), act["movements"][0]["delta"].as_i64()), (Some(3), Some(0)));
    let low = world.owner.get("/stock?low=true").await.expect(200);
    assert_eq!(low["items"].as_array().unwrap().len(), 1);
    assert_eq!((&low["items"][0]["threshold"], &low["items"][0]["hysteresis"]), (&json!(3000), &json!(500)));
    let off = json!({"location_id": world.here, "lines": [{"variant_id": variant, "threshold": null}]});
    world.owner.post_keyed("/stock/thresholds", "2", &off).await.expect(201);
    assert!(world.owner.get("/stock?low=true").await.expect(200)["items"].as_array().unwrap().is_empty());
    let path = format!("/stock/movements?location_id={}&variant_id={variant}&limit=2", world.here);
    let page = world.owner.get(&path).await.expect(200);
    let cursor = text(&page, "next_cursor");
    let rest = world.owner.get(&format!("{path}&cursor={cursor}")).await.expect(200);
    let versions: Vec<_> = [page, rest]
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap().clone())
        .map(|row| row["version"].as_i64().unwrap())
        .collect();
    assert_eq!(versions, [1, 2, 3, 4]);
    let refused = sqlx::query("update stock_movements set delta = 0").execute(&pool).await.unwrap_err();
    assert!(refused.to_string().contains("append-only"));
    is_consistent(&world).await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_changes_feed_follows_location_seq_within_an_epoch(pool: PgPool) {
    let world = world(&pool).await;
    for i in 0..5 {
        world.owner.post_keyed("/stock/receipts", &format!("r{i}"), &receipt(&world, 1_000)).await.expect(201);
    }
    let path = format!("/changes?location={}", world.here);
    let (mut seen, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page = world.owner.get(&format!("{path}&after={after}&limit=2")).await.expect(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["location_seq"].as_i64().unwrap()));
        assert!(page["items"].as_array().unwrap().iter().all(|item| item["movements"].as_array().unwrap().len() == 2));
        after = text(&page, "next_cursor");
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!((seen, after.as_str()), (vec![1, 2, 3, 4, 5], "1-5"));
    let idle = world.owner.get(&format!("{path}&after=1-5")).await.expect(200);
    assert_eq!((idle["items"].as_array().unwrap().len(), text(&idle, "next_cursor").as_str()), (0, "1-5"));
    sqlx::query("insert into epochs (epoch, reason) values (2, 'restored')").execute(&pool).await.unwrap();
    assert_eq!(world.owner.get(&format!("{path}&after=1-5")).await.problem().1, "cursor_expired");
    assert_eq!(world.owner.get(&format!("{path}&after=x")).await.problem(), (400, "malformed".into(), String::new()));
    let again = world.owner.get(&format!("{path}&after=0")).await.expect(200);
    assert_eq!((again["items"].as_array().unwrap().len(), text(&again, "next_cursor").as_str()), (5, "2-5"));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn ten_thousand_lines_are_one_act(pool: PgPool) {
    let world = world(&pool).await;
    let rows: Vec<_> = (0..9_998)
        .map(|i| {
            json!({"external_id": format!("v{i}"), "product_external_id": "coffee", "sku": format!("s{i}"), "name": "x",
               "tax_profile_external_id": "full"})
        })
        .collect();
    let stored = world.owner.post("/catalog/upsert", json!({"variants": rows})).await.expect(200);
    let lines: Vec<_> = stored["variants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| json!({"variant_id": row["variant_id"], "qty": 1000}))
        .collect();
    let body = json!({"location_id": world.here, "reason": "receipt", "lines": lines});
    let started = std::time::Instant::now();
    let act = world.owner.post_keyed("/stock/receipts", "big", &body).await.expect(201);
    println!("9,998 lines in {:?}", started.elapsed());
    assert_eq!(act["movements"].as_array().unwrap().len(), 9_998);
    is_consistent(&world).await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_level_never_goes_beyond_what_every_store_can_hold(pool: PgPool) {
    let world = world(&pool).await;
    let sql = "insert into stock_levels (location_id, variant_id, qty) values ($1::uuid, $2::uuid, $3)";
    let insert = sqlx::query(sql).bind(&world.here).bind(&world.variants[0]).bind(schemas::money::FIGURE_MAX - 6_000);
    insert.execute(&pool).await.unwrap();
    let much = world.owner.post_keyed("/stock/receipts", "much", &receipt(&world, 7_000)).await;
    assert_eq!(much.problem(), (422, "invalid_value".into(), "/lines/0/qty".into()));
    world.owner.post_keyed("/stock/receipts", "enough", &receipt(&world, 6_000)).await.expect(201);
}
