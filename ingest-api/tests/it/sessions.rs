//! What ends a token although nobody took it back: time, and a location that closes.

use ingest_api::auth::tokens::LIFETIME_SECONDS;
use serde_json::json;
use sqlx::PgPool;

use crate::world::{until_shut_out, world};

/// Clock error allowed between nodes, seconds.
const LEEWAY: i64 = 30;

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_token_is_worth_nothing_after_its_time(pool: PgPool) {
    let world = world(&pool).await;
    let tokens = &world.app.auth.tokens;
    let claims = tokens.verify(world.owner.token.as_ref().unwrap()).unwrap();
    for (age, status) in [(0, 200), (LIFETIME_SECONDS, 200), (LIFETIME_SECONDS + LEEWAY + 1, 401), (86_400, 401)] {
        let mut older = claims.clone();
        (older.iat, older.nbf, older.exp) = (claims.iat - age, claims.nbf - age, claims.exp - age);
        let caller = world.with_token(&tokens.sign(&older).unwrap());
        assert_eq!(caller.get("/users").await.status, status, "{age} s old");
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_tills_of_a_closed_location_are_shut_out(pool: PgPool) {
    let world = world(&pool).await;
    let (_, _, till) = world.till(&world.here, "1").await;
    let (_, _, elsewhere) = world.till(&world.there, "1").await;
    till.get("/catalog/changes").await.expect(200);
    let path = format!("/locations/{}", world.here);
    let version = world.owner.get(&path).await.etag();
    world.owner.patch(&path, &version, json!({"is_active": false})).await.expect(200);
    until_shut_out(&till, "/catalog/changes").await;
    elsewhere.get("/catalog/changes").await.expect(200);
}
