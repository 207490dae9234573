//! Prices and taxes as the API gives them: which price holds when and where, and how a contained tax is rounded.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::world::{World, world};

/// Stores a price of the small coffee; general ones cost 250 since 2020.
async fn price(world: &World, location: Option<&str>, amount: i64, window: (DateTime<Utc>, Option<DateTime<Utc>>)) {
    let body = json!({"prices": [{"variant_id": world.variants[0], "location_id": location, "currency": "EUR",
        "amount_minor": amount, "tax_inclusive": true, "valid_from": window.0, "valid_to": window.1}]});
    world.owner.post("/prices", body).await.expect(201);
}

/// One small coffee at a location at an instant.
async fn quote(world: &World, location: &str, at: DateTime<Utc>) -> Value {
    let lines = json!([{"line_no": 1, "variant_id": world.variants[0], "qty": 1000}]);
    let body = json!({"location_id": location, "occurred_at": at, "lines": lines});
    world.owner.post("/quotes", body).await.expect(200)
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_price_of_the_location_holds_within_its_window_and_nowhere_else(pool: PgPool) {
    let world = world(&pool).await;
    let from: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let to: DateTime<Utc> = "2026-02-01T00:00:00Z".parse().unwrap();
    price(&world, Some(&world.here), 199, (from, Some(to))).await;
    let moment = TimeDelta::microseconds(1);
    for (location, at, wanted) in [
        (&world.here, from - moment, 250),
        (&world.here, from, 199),
        (&world.here, to - moment, 199),
        (&world.here, to, 250),
        (&world.there, from, 250),
    ] {
        assert_eq!(quote(&world, location, at).await["total_minor"], wanted, "{location} at {at}");
    }
    // A later general price changes nothing where the location has its own.
    price(&world, None, 260, (from + TimeDelta::days(1), None)).await;
    let at = from + TimeDelta::days(2);
    assert_eq!(quote(&world, &world.here, at).await["total_minor"], 199);
    assert_eq!(quote(&world, &world.there, at).await["total_minor"], 260);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_contained_tax_is_rounded_to_the_nearest_cent(pool: PgPool) {
    let world = world(&pool).await;
    // 250 * 19 / 119 = 39.92: 40 and not 39.
    let quoted = quote(&world, &world.here, Utc::now()).await;
    assert_eq!((&quoted["total_minor"], &quoted["tax_minor"]), (&json!(250), &json!(40)), "{quoted}");
}
