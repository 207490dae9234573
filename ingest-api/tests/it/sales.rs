//! The sale routes through the API: quote, sell, send again, read, list, and what is refused where.

use std::time::Duration;

use chrono::Utc;
use ingest_api::app::AppState;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::world::{Caller, World, world};

/// A till with a cashier, and what it sells next.
pub struct Till {
    pub world: World,
    pub caller: Caller,
    cashier: String,
}

pub async fn till(pool: &PgPool) -> Till {
    let world = world(pool).await;
    let (_, _, caller) = world.till(&world.here.clone(), "1").await;
    let body = json!({"login": "anna", "code": "A1", "password": "a long enough password",
                      "grants": [{"role": "cashier", "location_id": world.here}]});
    let cashier = crate::world::text(&world.owner.post("/users", body).await.expect(201), "user_id");
    Till { world, caller, cashier }
}

impl Till {
    pub fn sale(&self, number: i64) -> Value {
        json!({"sale_id": Uuid::now_v7(), "location_id": self.world.here, "terminal_seq": number,
               "receipt": {"series_epoch": 1, "number": number}, "cashier_id": self.cashier,
               "occurred_at": Utc::now(), "currency": "EUR",
               "lines": [{"line_no": 1, "variant_id": self.world.variants[0], "qty": 2000},
                         {"line_no": 2, "variant_id": self.world.variants[2], "qty": 333,
                          "discount": {"kind": "percent", "percent": "10", "reason": "friend"}}],
               "tenders": [{"kind": "card", "amount_minor": 1000,
                            "card": {"token": "tok_1", "brand": "visa", "last_four": "4242", "expiry": "12/30"}},
                           {"kind": "cash", "amount_minor": 200}],
               "total_minor": 1097})
    }
    async fn sell(&self, sale: &Value) -> crate::world::Answer {
        self.caller.post_keyed("/sales", &sale["sale_id"].to_string().replace('"', ""), sale).await
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn quote_equals_commit_bytewise_and_a_replay_repeats_the_bytes(pool: PgPool) {
    let till = till(&pool).await;
    let sale = till.sale(1);
    let quote = till
        .caller
        .post(
            "/quotes",
            json!({"location_id": till.world.here, "occurred_at": sale["occurred_at"], "lines": sale["lines"]}),
        )
        .await;
    let figures = quote.expect(200);
    assert_eq!(figures["total_minor"], 1097);
    assert!(figures["trace"].as_array().unwrap().len() >= 3);
    let sold = till.sell(&sale).await;
    let body = sold.expect(201);
    assert_eq!((&body["change_minor"], &body["rounding_minor"]), (&json!(103), &json!(0)));
    let cut = |text: String| {
        let from = text.find(r#""currency""#).unwrap();
        let to = text.find(r#","tenders""#).or(text.find(r#","trace""#)).unwrap();
        text[from..to].to_owned()
    };
    assert_eq!(cut(quote.text()), cut(sold.text()));

    let again = till.sell(&sale).await;
    assert_eq!((again.status.as_u16(), again.headers["idempotency-replayed"].as_bytes()), (200, &b"true"[..]));
    assert_eq!(again.bytes, sold.bytes);
    let path = format!("/sales/{}", crate::world::text(&sale, "sale_id"));
    assert_eq!(till.caller.get(&path).await.bytes, sold.bytes);
    let stored: (String, String) =
        sqlx::query_as("select trace_id, price_trace->0->>'rule' from documents").fetch_one(&pool).await.unwrap();
    assert_eq!((stored.0.len(), stored.1.as_str()), (32, "price"));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn sales_are_read_within_the_callers_locations_only(pool: PgPool) {
    let till = till(&pool).await;
    for number in 1..=3 {
        till.sell(&till.sale(number)).await.expect(201);
    }
    let list = format!("/sales?location_id={}&limit=2", till.world.here);
    let page = till.caller.get(&list).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = till.caller.get(&format!("{list}&cursor={cursor}")).await.expect(200);
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));

    let sale_id = crate::world::text(&page["items"][0], "sale_id");
    let (_, _, elsewhere) = till.world.till(&till.world.there.clone(), "1").await;
    assert_eq!(elsewhere.get(&format!("/sales/{sale_id}")).await.problem().0, 404);
    assert_eq!(elsewhere.get(&list).await.problem().0, 403);
    assert_eq!(elsewhere.get("/sales").await.expect(200)["items"], json!([]));
    assert_eq!(elsewhere.post_keyed("/sales", "k", &till.sale(9)).await.problem().0, 403);
    assert_eq!(till.world.owner.post_keyed("/sales", "k", &till.sale(9)).await.problem().0, 403);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_wrong_sale_is_refused_where_it_is_wrong(pool: PgPool) {
    let till = till(&pool).await;
    let cases: Vec<(&str, Value, u16, &str, &str)> = vec![
        ("/lines/0/qty", json!(0), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!(-1000), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!("1000"), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!(1.5), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!(i64::MAX), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!(1500), 422, "fractional_piece", "/lines/0/qty"),
        ("/lines/0/variant_id", json!(Uuid::now_v7()), 422, "unknown_variant", "/lines/0/variant_id"),
        ("/lines/0/colour", json!("red"), 422, "unknown_field", "/lines/0/colour"),
        ("/lines/1/line_no", json!(1), 422, "invalid_value", "/lines/1/line_no"),
        ("/lines/1/discount/percent", json!("101"), 422, "invalid_value", "/lines/1/discount/percent"),
        ("/lines/1/discount/percent", json!("1_0"), 422, "invalid_value", "/lines/1/discount/percent"),
        ("/lines/1/discount/reason", json!("x".repeat(41)), 422, "invalid_value", "/lines/1/discount/reason"),
        ("/lines/1/discount/reason", json!(""), 422, "invalid_value", "/lines/1/discount/reason"),
        ("/lines/1/discount/reason", json!("For Anna"), 422, "invalid_value", "/lines/1/discount/reason"),
        (
            "/lines/1/discount/reason",
            json!("4111-1111_1111-1111"),
            422,
            "card_data_refused",
            "/lines/1/discount/reason",
        ),
        (
            "/lines/0/override",
            json!({"unit_price_minor": 1, "reason": "It was Anna's idea"}),
            422,
            "invalid_value",
            "/lines/0/override/reason",
        ),
        (
            "/lines/0/override",
            json!({"unit_price_minor": 1, "reason": "378282246310005"}),
            422,
            "card_data_refused",
            "/lines/0/override/reason",
        ),
        ("/currency", json!("4111111111111111"), 422, "card_data_refused", "/currency"),
        ("/receipt", json!([1, 7]), 422, "invalid_value", "/receipt"),
        ("/lines/0", json!([1, till.world.variants[0], 2000, null, null]), 422, "invalid_value", "/lines/0"),
        ("/tenders/1/kind", json!({"cash": null}), 422, "invalid_value", "/tenders/1/kind"),
        ("/sent_at", json!("1899-12-31T23:59:59Z"), 422, "invalid_value", "/sent_at"),
        ("/sent_at", json!("9999-12-31T00:00:00Z"), 422, "invalid_value", "/sent_at"),
        ("/lines", json!([]), 422, "invalid_value", "/lines"),
        ("/currency", json!("USD"), 422, "wrong_currency", "/currency"),
        ("/occurred_at", json!(Utc::now() + chrono::TimeDelta::days(1)), 422, "invalid_value", "/occurred_at"),
        ("/occurred_at", json!("2019-12-31T12:00:00Z"), 422, "no_price", "/lines/0/variant_id"),
        ("/tenders/1/amount_minor", json!(96), 422, "tenders_do_not_add_up", "/tenders"),
        ("/tenders/0/card/token", json!("4111 1111 1111 1111"), 422, "card_data_refused", "/tenders/0/card/token"),
        ("/tenders/0/card/last_four", json!("42422"), 422, "invalid_value", "/tenders/0/card/last_four"),
        ("/receipt/series_epoch", json!(2), 422, "invalid_value", "/receipt/series_epoch"),
        ("/sale_id", json!(Uuid::new_v4()), 422, "invalid_value", "/sale_id"),
        ("/total_minor", json!(1), 422, "total_mismatch", ""),
        ("/customer_id", json!(Uuid::now_v7()), 422, "unknown_customer", "/customer_id"),
        ("/cashier_id", json!(Uuid::now_v7()), 422, "unknown_cashier", "/cashier_id"),
        ("/location_id", json!(till.world.there), 403, "forbidden", ""),
    ];
    for (place, value, status, code, pointer) in cases {
        let mut sale = till.sale(1);
        set(&mut sale, place, value.clone());
        let answer = till.sell(&sale).await;
        assert_eq!(answer.problem(), (status, code.to_owned(), pointer.to_owned()), "{place} = {value}");
    }
    let mut thousand = till.sale(1);
    thousand["lines"] = (1..=1001)
        .map(|line_no| json!({"line_no": line_no, "variant_id": till.world.variants[0], "qty": 1000}))
        .collect();
    assert_eq!(till.sell(&thousand).await.problem().2, "/lines");
    let no_key = till.caller.post("/sales", till.sale(1)).await;
    assert_eq!(no_key.problem(), (400, "idempotency_key_required".to_owned(), String::new()));
    let mismatch = till
        .sell(&{
            let mut sale = till.sale(1);
            sale["total_minor"] = json!(5);
            sale
        })
        .await;
    assert_eq!(mismatch.json()["quote"]["total_minor"], 1097);
    assert_eq!(till.world.count("select count(*) from documents").await, 0);
    assert_eq!(till.world.count("select count(*) from stock_levels").await, 0);
    till.sell(&till.sale(1)).await.expect(201);
}

/// Somebody lists and lists: every connection for lists is lent out.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn lists_that_never_end_do_not_stop_selling(pool: PgPool) {
    let till = till(&pool).await;
    let (terminal, device, caller) = till.world.till(&till.world.here.clone(), "2").await;
    let reads = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_millis(100))
        .connect_with(pool.connect_options().as_ref().clone())
        .await
        .unwrap();
    let _lent = reads.acquire().await.unwrap();
    // A process that has not heard of this till yet.
    let starved = AppState { reads, ..crate::world::app(&pool).await };
    let caller = Caller::of(starved, caller.token.as_deref());
    let sale = till.sale(1);
    let key = Uuid::now_v7().to_string();
    assert_eq!(caller.get("/sales").await.problem().0, 503);
    caller.post_keyed("/sales", &key, &sale).await.expect(201);
    let request = device.request(&terminal, Utc::now(), &Uuid::new_v4().to_string());
    caller.post("/auth/terminal-token", request).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_audit_row_says_what_the_cashier_is(pool: PgPool) {
    let till = till(&pool).await;
    till.sell(&till.sale(1)).await.expect(201);
    let mut by_owner = till.sale(2);
    by_owner["cashier_id"] = json!(till.world.owner_login.user_id);
    till.sell(&by_owner).await.expect(201);
    let roles: Vec<String> =
        sqlx::query_scalar("select actor_role from audit_log where action = 'sale.create' order by recorded_at")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(roles, ["cashier", "owner"]);
}

fn set(body: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Object(object) => drop(object.insert(name.to_owned(), value)),
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        other => panic!("{other}"),
    }
}
