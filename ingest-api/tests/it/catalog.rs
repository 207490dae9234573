//! Upserts, edits, prices and the catalog feed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::oneshot;

use crate::world::{Caller, catalog, text, world};

async fn feed(caller: &Caller, after: &str, limit: i64) -> (Vec<Value>, String) {
    let (mut items, mut after) = (Vec::new(), after.to_owned());
    loop {
        let page = caller.get(&format!("/catalog/changes?after={after}&limit={limit}")).await.expect(200);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        after = text(&page, "next_after");
        if page["has_more"] == false {
            return (items, after);
        }
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn upsert_by_external_id_is_idempotent(pool: PgPool) {
    let world = world(&pool).await;
    let counts = |body: &Value| ["created", "updated", "unchanged"].map(|name| body[name].as_i64().unwrap());
    let before = world.count("select version from catalog_counter").await;
    let outbox = world.count("select count(*) from outbox").await;
    let again = world.owner.post("/catalog/upsert", catalog()).await.expect(200);
    assert_eq!(counts(&again), [0, 0, 7]);
    assert_eq!(again["catalog_version"], before);
    assert_eq!(world.count("select version from catalog_counter").await, before);
    assert_eq!(world.count("select count(*) from outbox").await, outbox);
    assert_eq!(text(&again["variants"][0], "variant_id"), world.variants[0]);

    let mut changed = catalog();
    changed["products"][0]["name"] = json!("Coffees");
    changed["variants"][1]["name"] = json!("Larger");
    changed["prices"][0]["amount_minor"] = json!(260);
    let stored = world.owner.post("/catalog/upsert", changed.clone()).await.expect(200);
    assert_eq!(counts(&stored), [1, 2, 4]);
    // A renamed product gives each of its variants one version more; the one changed itself has two.
    let versions: Vec<_> =
        stored["variants"].as_array().unwrap().iter().map(|row| row["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, [2, 3, 2]);
    assert_eq!(counts(&world.owner.post("/catalog/upsert", changed).await.expect(200)), [0, 0, 7]);
    let variant = world.owner.get(&format!("/variants/{}", world.variants[1])).await.expect(200);
    assert_eq!((text(&variant, "name"), text(&variant, "product_name")), ("Larger".into(), "Coffees".into()));
    // An absent optional value stays.
    let row = json!({"products": [{"external_id": "coffee", "name": "Coffees"}]});
    assert_eq!(counts(&world.owner.post("/catalog/upsert", row).await.expect(200)), [0, 0, 1]);
    let full = json!({"variants": [{"external_id": "beans", "product_external_id": "coffee", "sku": "BEANS",
        "name": "Beans", "tax_profile_external_id": "full", "barcodes": ["4006381333931"], "unit": "kg",
        "is_measured": true, "tracks_stock": false, "unit_cost_minor": 7}]});
    assert_eq!(counts(&world.owner.post("/catalog/upsert", full).await.expect(200)), [0, 1, 0]);
    let bare = json!({"variants": [{"external_id": "beans", "product_external_id": "coffee", "sku": "BEANS",
        "name": "Beans", "tax_profile_external_id": "full"}]});
    assert_eq!(counts(&world.owner.post("/catalog/upsert", bare.clone()).await.expect(200)), [0, 0, 1]);
    let kept = world.owner.get(&format!("/variants/{}", world.variants[2])).await.expect(200);
    assert_eq!((&kept["barcodes"], &kept["is_measured"]), (&json!(["4006381333931"]), &json!(true)));
    let mut none = bare;
    none["variants"][0]["barcodes"] = json!([]);
    assert_eq!(counts(&world.owner.post("/catalog/upsert", none).await.expect(200)), [0, 1, 0]);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_taken_sku_names_its_row_and_two_may_be_swapped(pool: PgPool) {
    let world = world(&pool).await;
    let row = |id: &str, sku: &str| {
        json!({"external_id": id, "product_external_id": "coffee", "sku": sku, "name": id,
               "tax_profile_external_id": "full"})
    };
    let taken = json!({"variants": [row("new", "NEW"), row("small", "BEANS"), row("twin", "large")]});
    let refused = world.owner.post("/catalog/upsert", taken).await;
    assert_eq!(refused.problem(), (409, "already_exists".into(), "/variants/1/sku".into()));
    assert_eq!(refused.json()["errors"][1]["pointer"], "/variants/2/sku");
    // Two swap, and a new one takes what a third gives up.
    let swapped = json!({"variants":
        [row("small", "LARGE"), row("large", "SMALL"), row("beans", "OTHER"), row("new", "BEANS")]});
    world.owner.post("/catalog/upsert", swapped).await.expect(200);
    let skus: Vec<String> =
        sqlx::query_scalar("select sku from variants order by external_id").fetch_all(&pool).await.unwrap();
    assert_eq!(skus, ["other", "small", "beans", "large"]);
}

/// The turn of a bulk write comes before its body, so that large bodies never stand in memory side by side.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_bulk_body_is_read_when_its_turn_has_come(pool: PgPool) {
    let world = world(&pool).await;
    let send = |body: Body| {
        let token = world.owner.token.clone().unwrap_or_default();
        let request = Request::post("/api/v1/catalog/upsert").header("authorization", format!("Bearer {token}"));
        world.owner.raw(request.header("content-type", "application/json").body(body).unwrap())
    };
    let (is_reading, reading) = oneshot::channel();
    let (finish, finished) = oneshot::channel::<()>();
    let first = send(Body::from_stream(futures::stream::once(async move {
        is_reading.send(()).ok();
        finished.await.ok();
        Ok::<_, Infallible>(catalog().to_string())
    })));
    let was_read = Arc::new(AtomicBool::new(false));
    let second = send(Body::from_stream(futures::stream::once({
        let was_read = Arc::clone(&was_read);
        async move {
            was_read.store(true, Ordering::SeqCst);
            Ok::<_, Infallible>(catalog().to_string())
        }
    })));
    tokio::pin!(first, second);
    tokio::select! {
        answer = &mut first => panic!("answered before its body came: {}", answer.text()),
        read = reading => read.unwrap(),
    }
    for _ in 0..200 {
        assert!(futures::poll!(&mut second).is_pending());
        // A round trip to the server gives the other request time to find out who asks.
        world.count("select count(*) from products").await;
    }
    assert!(!was_read.load(Ordering::SeqCst), "a second body was read during the first one's turn");
    finish.send(()).unwrap();
    let (first, second) = tokio::join!(first, second);
    first.expect(200);
    second.expect(200);
    assert!(was_read.load(Ordering::SeqCst));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn ten_thousand_rows_come_in_together_or_not_at_all(pool: PgPool) {
    let world = world(&pool).await;
    let variant = |i: usize| {
        json!({"external_id": format!("v{i}"), "product_external_id": "bulk", "sku": format!("BULK-{i}"),
               "name": format!("Variant {i}"), "tax_profile_external_id": "full"})
    };
    let price = |i: usize| {
        json!({"variant_external_id": format!("v{i}"), "currency": "EUR", "amount_minor": i, "tax_inclusive": true,
               "valid_from": "2020-01-01T00:00:00Z"})
    };
    let mut rows = json!({"products": [{"external_id": "bulk", "name": "Bulk"}],
        "variants": (0..5_000).map(variant).collect::<Vec<_>>(), "prices": (0..4_999).map(price).collect::<Vec<_>>()});
    let variants = world.count("select count(*) from variants").await;
    rows["prices"][4_998]["variant_external_id"] = json!("nobody");
    let refused = world.owner.post("/catalog/upsert", rows.clone()).await;
    assert_eq!(refused.problem(), (422, "invalid_value".into(), "/prices/4998/variant_external_id".into()));
    assert_eq!(world.count("select count(*) from variants").await, variants);
    rows["prices"][4_998]["variant_external_id"] = json!("v4998");
    let started = std::time::Instant::now();
    let stored = world.owner.post("/catalog/upsert", rows.clone()).await.expect(200);
    assert_eq!(stored["created"], 10_000);
    assert_eq!(stored["variants"].as_array().unwrap().len(), 5_000);
    println!("10,000 new rows in {:?}", started.elapsed());
    assert_eq!(world.owner.post("/catalog/upsert", rows.clone()).await.expect(200)["unchanged"], 10_000);
    // One act is one outbox row, with a record for each variant.
    let records: i32 =
        sqlx::query_scalar("select max(cardinality(topics)) from outbox").fetch_one(&pool).await.unwrap();
    assert_eq!(records, 5_000);
    rows["products"] = json!([{"external_id": "bulk", "name": "Bulk"}, {"external_id": "one more", "name": "x"}]);
    assert_eq!(world.owner.post("/catalog/upsert", rows).await.problem().0, 422, "10,001 rows");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn stale_etag_returns_412_with_diff(pool: PgPool) {
    let world = world(&pool).await;
    let path = format!("/products/{}", world.product);
    let read = world.owner.get(&path).await;
    assert_eq!(read.etag(), "\"1\"");
    let edited = world.owner.patch(&path, &read.etag(), json!({"name": "Espresso"})).await;
    assert_eq!((edited.etag().as_str(), text(&edited.expect(200), "name").as_str()), ("\"2\"", "Espresso"));
    let stale = world.owner.patch(&path, &read.etag(), json!({"name": "Filter", "category": "Drinks"})).await;
    assert_eq!(stale.problem().1, "stale_version");
    let body = stale.expect(412);
    assert_eq!(body["current_version"], 2);
    assert_eq!(body["fields"], json!([{"field": "name", "yours": "Filter", "current": "Espresso"}]));
    let none = world.owner.send("PATCH", &path, &[], Some(br#"{"name":"Filter"}"#)).await;
    assert_eq!(none.problem(), (428, "precondition_required".into(), String::new()));
    for tag in ["*", "2", "W/\"2\"", "\"x\""] {
        assert_eq!(world.owner.patch(&path, tag, json!({"name": "Filter"})).await.problem().0, 412, "{tag}");
    }
    for (path, edit) in [
        (format!("/variants/{}", world.variants[0]), json!({"name": "Tiny"})),
        (format!("/locations/{}", world.here), json!({"name": "Corner"})),
    ] {
        assert_eq!(world.owner.patch(&path, "\"99\"", edit.clone()).await.problem().0, 412);
        let version = world.owner.get(&path).await.etag();
        let name = text(&edit, "name");
        assert_eq!(text(&world.owner.patch(&path, &version, edit).await.expect(200), "name"), name);
    }
    let rates =
        json!({"valid_from": "2027-01-01T00:00:00Z", "rates": [{"name": "VAT", "rate": "0.2", "inclusive": true}]});
    let path = format!("/tax-profiles/{}/rates", world.tax_profile);
    let send = |tag: &'static str| {
        let (owner, path, rates) = (world.owner.clone(), path.clone(), rates.to_string());
        async move { owner.send("POST", &path, &[("if-match", tag)], Some(rates.as_bytes())).await }
    };
    assert_eq!(send("").await.problem().0, 428);
    assert_eq!(send("\"7\"").await.problem().0, 412);
    let profile = send("\"1\"").await.expect(201);
    assert_eq!(profile["rates"].as_array().unwrap().len(), 2);
    assert_eq!(profile["rates"][0]["tax_id"], profile["rates"][1]["tax_id"], "a tax keeps its id");
    assert_eq!(send("\"2\"").await.problem().1, "already_exists");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn skus_have_one_spelling_and_barcodes_a_check_digit(pool: PgPool) {
    let world = world(&pool).await;
    let mut rows = json!({"variants": [{"external_id": "cafe", "product_external_id": "coffee", "sku": " CAF\u{c9}-1 ",
        "name": "Caf\u{e9}", "tax_profile_external_id": "full", "barcodes": ["4006381333931"]}]});
    world.owner.post("/catalog/upsert", rows.clone()).await.expect(200);
    let found = world.owner.get("/variants?sku=cafe%CC%81-1").await.expect(200);
    assert_eq!(found["items"][0]["sku"], "caf\u{e9}-1");
    assert_eq!(
        world.owner.get("/variants?barcode=4006381333931").await.expect(200)["items"].as_array().unwrap().len(),
        1
    );
    rows["variants"][0]["external_id"] = json!("twin");
    rows["variants"][0]["sku"] = json!("cafe\u{301}-1");
    let twin = world.owner.post("/catalog/upsert", rows.clone()).await;
    assert_eq!(twin.problem(), (409, "already_exists".into(), "/variants/0/sku".into()));
    rows["variants"][0]["barcodes"] = json!(["4006381333933"]);
    let bad = world.owner.post("/catalog/upsert", rows).await;
    assert_eq!(bad.problem(), (422, "invalid_value".into(), "/variants/0/barcodes/0".into()));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn prices_belong_to_a_variant_a_place_and_its_currency(pool: PgPool) {
    let world = world(&pool).await;
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    let price = |location: Option<&str>, currency: &str| {
        json!({"prices": [{"variant_id": world.variants[0], "location_id": location, "currency": currency,
            "amount_minor": 240, "tax_inclusive": true, "valid_from": "2026-01-01T00:00:00Z"}]})
    };
    let here = Some(world.here.as_str());
    assert_eq!(manager.post("/prices", price(here, "EUR")).await.expect(201)["created"], 1);
    assert_eq!(manager.post("/prices", price(here, "EUR")).await.expect(201)["unchanged"], 1);
    assert_eq!(manager.post("/prices", price(Some(&world.there), "EUR")).await.problem().0, 403);
    assert_eq!(manager.post("/prices", price(None, "EUR")).await.problem().0, 403);
    let wrong = world.owner.post("/prices", price(here, "USD")).await;
    assert_eq!(wrong.problem(), (422, "invalid_value".into(), "/prices/0/currency".into()));
    world.owner.post("/prices", price(Some(&world.there), "EUR")).await.expect(201);
    let path = format!("/variants/{}/prices", world.variants[0]);
    assert_eq!(world.owner.get(&path).await.expect(200)["items"].as_array().unwrap().len(), 3);
    // General ones and those of the own location.
    assert_eq!(manager.get(&path).await.expect(200)["items"].as_array().unwrap().len(), 2);
    let kinds: Vec<_> = feed(&manager, "0", 100).await.0.into_iter().map(|item| (text(&item, "kind"), item)).collect();
    assert_eq!(kinds.iter().filter(|(kind, _)| kind == "location").count(), 1);
    let foreign = kinds.iter().any(|(_, item)| item["body"]["location_id"] == world.there.as_str());
    assert!(!foreign, "a price of another location is in the feed");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_feed_says_everything_a_till_needs(pool: PgPool) {
    let world = world(&pool).await;
    let (_, _, till) = world.till(&world.here, "1").await;
    world.user("anna", "cashier", Some(&world.here)).await;
    let (items, next) = feed(&till, "0", 2).await;
    assert_eq!(next, format!("1-{}", world.count("select version from catalog_counter").await));
    let body = |kind: &str| items.iter().rev().find(|item| item["kind"] == kind).unwrap()["body"].clone();
    assert_eq!(body("location")["currency"], "EUR");
    assert_eq!(body("tax_profile")["rates"][0]["rate"], "0.19");
    assert_eq!(body("product")["name"], "Coffee");
    for field in [
        "variant_id",
        "product_id",
        "product_name",
        "category",
        "sku",
        "name",
        "barcodes",
        "unit",
        "is_measured",
        "tracks_stock",
        "tax_profile_id",
        "unit_cost_minor",
        "is_active",
        "version",
    ] {
        assert!(body("variant").get(field).is_some(), "{field}");
    }
    for field in
        ["price_id", "variant_id", "location_id", "currency", "amount_minor", "tax_inclusive", "valid_from", "valid_to"]
    {
        assert!(body("price").get(field).is_some(), "{field}");
    }
    assert_eq!(body("cashier")["sells_at"], json!([world.here]));
    assert!(!items.iter().any(|item| item.to_string().contains("password")));
    // The outbox holds a record for each compacted topic, in gapless order.
    let rows: Vec<(i64, Vec<String>)> =
        sqlx::query_as("select seq, topics from outbox order by id").fetch_all(&pool).await.unwrap();
    assert_eq!(rows.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=rows.len() as i64).collect::<Vec<_>>());
    let topics: BTreeSet<_> = rows.into_iter().flat_map(|(_, topics)| topics).collect();
    let wanted = ["vorca.catalog.cashiers.v1", "vorca.catalog.locations.v1", "vorca.catalog.variants.v1"];
    assert_eq!(topics, wanted.map(str::to_owned).into());
    for bad in ["-1", "17", "1-", "x"] {
        assert_eq!(till.get(&format!("/catalog/changes?after={bad}")).await.problem().1, "malformed", "{bad}");
    }
    assert_eq!(till.get("/catalog/changes?limit=5001").await.problem().2, "/limit");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_feed_never_skips_under_concurrent_writers(pool: PgPool) {
    let world = world(&pool).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (owner, done) = (world.owner.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let (mut seen, mut after) = (Vec::new(), "0".to_owned());
            loop {
                let was_done = done.load(Ordering::SeqCst);
                let (items, next) = feed(&owner, &after, 3).await;
                seen.extend(items.iter().map(|item| item["catalog_version"].as_i64().unwrap()));
                after = next;
                if was_done {
                    return seen;
                }
            }
        })
    };
    let writers = (0..8).map(|writer| {
        let owner = world.owner.clone();
        tokio::spawn(async move {
            for i in 0..8 {
                let id = format!("w{writer}-{i}");
                let rows = json!({"products": [{"external_id": id, "name": "x"}],
                    "variants": [{"external_id": id, "product_external_id": id, "sku": id, "name": "x",
                                  "tax_profile_external_id": "full"}]});
                owner.post("/catalog/upsert", rows).await.expect(200);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let seen = reader.await.unwrap();
    let last = world.count("select version from catalog_counter").await;
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    assert!(last >= 128);
}
