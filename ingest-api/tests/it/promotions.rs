//! Promotions and coupons through the API: what a quote promises is what is sold, and budgets hold whoever sells.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::limits::Till;
use crate::world::{World, text, world};

/// Ten percent off everything, changed by `change`.
fn ten_percent(external_id: &str, change: Value) -> Value {
    let mut body = json!({"external_id": external_id, "name": "Ten percent", "priority": 1,
        "effect": {"kind": "percent", "percent": "10"}});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn promotion(world: &World, body: Value) -> String {
    text(&world.owner.post("/promotions", body).await.expect(201), "promotion_id")
}

async fn quote(world: &World, sale: &Value) -> Value {
    let fields = ["location_id", "customer_id", "occurred_at", "currency", "lines", "coupons", "order_discount"];
    let known = fields.iter().filter(|field| !sale[**field].is_null());
    let body = known.map(|field| ((*field).to_owned(), sale[*field].clone())).collect::<serde_json::Map<_, _>>();
    world.owner.post("/quotes", Value::Object(body)).await.expect(200)
}

fn priced(mut sale: Value, total: i64) -> Value {
    sale["total_minor"] = json!(total);
    sale["tenders"] = json!([{"kind": "cash", "amount_minor": total}]);
    sale
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn quote_equals_commit_bytewise(pool: PgPool) {
    let world = world(&pool).await;
    let seller = world.new_user("seller", "cashier", None).await;
    let till = Till::new(&world, &world.here, "01").await;
    promotion(&world, ten_percent("ten", json!({}))).await;
    let blocked = ten_percent("members", json!({"conditions": {"members_only": true}, "name": "For members"}));
    let for_members = promotion(&world, blocked).await;
    let mut sale = till.sale(&world, &seller);
    sale["lines"] = json!([{"line_no": 2, "variant_id": world.variants[0], "qty": 3000},
        {"line_no": 1, "variant_id": world.variants[0], "qty": 1000}]);
    let quoted = quote(&world, &sale).await;
    assert_eq!(quoted["discount_minor"], 100);
    let skipped = &quoted["promotions_not_applied"][0];
    assert_eq!((&skipped["promotion_id"], &skipped["reason"]), (&json!(for_members), &json!("members_only")));
    let sold = till.sell(&priced(sale, 900)).await.expect(201);
    for figure in ["lines", "promotions", "subtotal_minor", "discount_minor", "tax_minor", "total_minor", "currency"] {
        assert_eq!(sold[figure].to_string(), quoted[figure].to_string(), "{figure}");
    }
    assert_eq!(
        (&sold["lines"][0]["line_no"], &sold["lines"][0]["discounts"][0]["kind"]),
        (&json!(1), &json!("promotion"))
    );
    let path = format!("/sales/{}/explain", text(&sold, "sale_id"));
    let explained = world.owner.get(&path).await.expect(200);
    assert_eq!(
        (&explained["agrees"], &explained["total"]),
        (&json!(true), &json!("2.25 + 6.75 = 9.00 EUR")),
        "{explained}"
    );
    let elsewhere = world.user("elsewhere", "manager", Some(&world.there)).await;
    assert_eq!(elsewhere.get(&path).await.problem().0, 404);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_budget_is_never_overspent_whoever_sells(pool: PgPool) {
    let world = world(&pool).await;
    let seller = world.new_user("seller", "cashier", None).await;
    // 0.25 off each: three fit.
    let body = ten_percent("few", json!({"budget_minor": 99, "currency": "EUR"}));
    let id = promotion(&world, body).await;
    let mut tills = Vec::new();
    for (location, register) in [(&world.here, "01"), (&world.here, "02"), (&world.there, "01"), (&world.there, "02")] {
        tills.push(Till::new(&world, location, register).await);
    }
    let sales = tills.iter().flat_map(|till| (0..3).map(move |_| till));
    let answers =
        futures::future::join_all(sales.map(async |till| till.sell(&priced(till.sale(&world, &seller), 225)).await))
            .await;
    let sold = answers.iter().filter(|answer| answer.status.as_u16() == 201).count();
    assert_eq!(sold, 3);
    for refused in answers.iter().filter(|answer| answer.status.as_u16() != 201) {
        let body = refused.json();
        assert_eq!((body["status"].as_i64(), &body["code"]), (Some(422), &json!("total_mismatch")), "{body}");
        assert_eq!(body["quote"]["promotions_not_applied"][0]["reason"], "budget_spent", "{body}");
    }
    let after = world.owner.get(&format!("/promotions/{id}")).await.expect(200);
    assert_eq!((&after["given_minor"], &after["uses"]), (&json!(75), &json!(3)));
    assert_eq!(quote(&world, &tills[0].sale(&world, &seller)).await["total_minor"], 250);
    // Without it they sell on.
    tills[0].sell(&tills[0].sale(&world, &seller)).await.expect(201);
    assert_eq!(world.count("select sum(amount_minor)::bigint from promotion_uses").await, 75);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_coupon_is_good_once(pool: PgPool) {
    let world = world(&pool).await;
    let seller = world.new_user("seller", "cashier", None).await;
    let till = Till::new(&world, &world.here, "01").await;
    let other = Till::new(&world, &world.there, "01").await;
    let id = promotion(&world, ten_percent("coupon", json!({"needs_coupon": true}))).await;
    let member = text(&world.owner.post("/members", json!({"member_number": "M-1"})).await.expect(201), "customer_id");
    let coupons = json!({"coupons": [{"code": "save-10 x"}, {"code": "OLD10", "expires_at": "2020-01-01T00:00:00Z"},
        {"code": "HERS10", "customer_id": member}, {"code": "TWICE", "uses_max": 2}]});
    world.owner.post(&format!("/promotions/{id}/coupons"), coupons.clone()).await.expect(201);
    let again = world.owner.post(&format!("/promotions/{id}/coupons"), coupons).await.problem();
    assert_eq!((again.0, again.1.as_str()), (409, "already_exists"));
    let with = |till: &Till, code: &str| {
        let mut sale = priced(till.sale(&world, &seller), 225);
        sale["coupons"] = json!([code]);
        sale
    };
    let refused = async |code: &str| {
        let answer = till.sell(&with(&till, code)).await.problem();
        (answer.0, answer.1, answer.2)
    };
    let problem = |status, code: &str| (status, code.to_owned(), "/coupons/0".to_owned());
    assert_eq!(refused("NOSUCH").await, problem(422, "unknown_coupon"));
    assert_eq!(refused("OLD10").await, problem(422, "coupon_expired"));
    assert_eq!(refused("HERS10").await, problem(422, "coupon_of_other_member"));
    assert_eq!(refused("!").await, problem(422, "invalid_value"));
    // Two tills of two locations at once: one of them.
    let (one, two) = (with(&till, "SAVE10X"), with(&other, "Save 10X"));
    let key = Uuid::new_v4().to_string();
    let (first, second) = futures::join!(till.caller.post_keyed("/sales", &key, &one), other.sell(&two));
    let statuses = [first.status.as_u16(), second.status.as_u16()];
    assert!(statuses == [201, 409] || statuses == [409, 201], "{statuses:?}");
    let lost = if statuses[0] == 409 { &first } else { &second };
    assert_eq!(lost.problem(), problem(409, "coupon_used"));
    if statuses[0] == 201 {
        // Sent again it is the same sale, not a second use.
        let replayed = till.caller.post_keyed("/sales", &key, &one).await;
        assert_eq!((replayed.status.as_u16(), replayed.text()), (200, first.text()));
    }
    till.sell(&with(&till, "twice")).await.expect(201);
    till.sell(&with(&till, "TWICE")).await.expect(201);
    assert_eq!(refused("TWICE").await, problem(409, "coupon_used"));
    assert_eq!(world.count("select sum(uses)::bigint from coupons").await, 3);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_edit_needs_the_version_and_reaches_the_feed(pool: PgPool) {
    let world = world(&pool).await;
    let seller = world.new_user("seller", "cashier", None).await;
    let body = ten_percent("ten", json!({}));
    let made = world.owner.post("/promotions", body.clone()).await;
    let path = format!("/promotions/{}", text(&made.expect(201), "promotion_id"));
    let mut edit = body.clone();
    edit["name"] = json!("Fewer percent");
    edit["effect"]["percent"] = json!("5");
    world.owner.put(&path, &made.etag(), edit.clone()).await.expect(200);
    let stale = world.owner.put(&path, &made.etag(), body).await;
    assert_eq!(stale.problem().0, 412);
    let fields: Vec<_> = stale.json()["fields"].as_array().unwrap().iter().map(|it| it["field"].clone()).collect();
    assert_eq!(fields, ["name", "effect"]);
    let till = Till::new(&world, &world.here, "01").await;
    assert_eq!(quote(&world, &till.sale(&world, &seller)).await["discount_minor"], 12);
    let feed = till.caller.get("/catalog/changes?limit=5000").await.expect(200);
    let last = feed["items"].as_array().unwrap().iter().rfind(|item| item["kind"] == "promotion").unwrap();
    assert_eq!((&last["version"], &last["body"]["name"]), (&json!(2), &json!("Fewer percent")));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn each_wrong_value_is_named(pool: PgPool) {
    let world = world(&pool).await;
    let effect = |effect: Value| json!({"effect": effect});
    for (change, pointer) in [
        (effect(json!({"kind": "percent", "percent": "0"})), "/effect/percent"),
        (effect(json!({"kind": "percent", "percent": "100.00001"})), "/effect/percent"),
        (effect(json!({"kind": "amount_per_unit", "amount_minor": 10})), "/currency"),
        (effect(json!({"kind": "buy_get", "buy": 0, "get": 1, "percent": "100"})), "/effect/buy"),
        (effect(json!({"kind": "bundle", "parts": [], "price_minor": 1})), "/effect/parts"),
        (json!({"budget_minor": 0, "currency": "EUR"}), "/budget_minor"),
        (json!({"budget_minor": 5}), "/currency"),
        (json!({"currency": "XXX"}), "/currency"),
        (
            json!({"conditions": {"windows": [{"days": [], "from": "10:00:00", "to": "11:00:00"}]}}),
            "/conditions/windows/0/days",
        ),
        (
            json!({"conditions": {"starts_at": "2026-02-01T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z"}}),
            "/conditions/ends_at",
        ),
        (json!({"name": " "}), "/name"),
    ] {
        let answer = world.owner.post("/promotions", ten_percent("wrong", change.clone())).await.problem();
        assert_eq!((answer.0, answer.2.as_str()), (422, pointer), "{change}");
    }
}
