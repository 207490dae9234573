//! Keys that sign access tokens, over two nodes and one database.

use std::sync::Arc;

use chrono::Utc;
use ingest_api::auth::{Auth, keys};
use serde_json::Value;
use sqlx::PgPool;

use crate::world::{Caller, PASSWORD, app, auth_config, sign_in, text, world};

async fn kids(caller: &Caller) -> Vec<String> {
    let listed = caller.get("/auth/jwks").await.expect(200);
    let keys = listed["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["kty"] == "OKP" && key["crv"] == "Ed25519" && key["alg"] == "EdDSA"));
    keys.iter().map(|key| text(key, "kid")).collect()
}

fn kid_of(token: &str) -> String {
    use base64::Engine as _;
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    text(&serde_json::from_slice::<Value>(&head).unwrap(), "kid")
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_new_key_signs_and_the_one_before_is_accepted_to_the_end_of_its_tokens(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "manager", Some(&world.here)).await;
    let other = app(&pool).await;
    let (here, there) = (world.nobody(), Caller::of(other.clone(), None));
    let before = sign_in(&here, "anna", PASSWORD).await.caller;
    let old = kids(&here).await;
    assert_eq!(old, [kid_of(before.token.as_ref().unwrap())]);
    let rotated = keys::rotate(Arc::clone(&world.app.auth), &world.app.writer, false).await.unwrap();
    assert!(rotated.signs_from > Utc::now(), "it signs when every node knows it");
    for node in [&world.app.auth, &other.auth] {
        keys::read(node, &pool).await.unwrap();
    }
    assert_eq!(kids(&here).await.len(), 2);
    let still = sign_in(&here, "anna", PASSWORD).await.caller;
    assert_eq!(kid_of(still.token.as_ref().unwrap()), old[0]);
    // Its time has come on one node; the other, whose clock is behind, accepts it.
    sqlx::query("update signing_keys set signs_from = now() where kid = $1")
        .bind(&rotated.kid)
        .execute(&pool)
        .await
        .unwrap();
    keys::read(&world.app.auth, &pool).await.unwrap();
    let after = sign_in(&here, "anna", PASSWORD).await.caller;
    assert_eq!(kid_of(after.token.as_ref().unwrap()), rotated.kid);
    for token in [&before.token, &after.token] {
        Caller::of(other.clone(), token.as_deref()).get("/users").await.expect(200);
    }
    assert_eq!(kids(&there).await.len(), 2);
    // Two keys at most.
    let again = keys::rotate(Arc::clone(&world.app.auth), &world.app.writer, false).await.unwrap_err();
    assert_eq!(again.code, "illegal_transition");
    // Ten minutes later the old one is nobody's, on every node, for tokens that were checked before too.
    sqlx::query("update signing_keys set accepted_until = now() where accepted_until is not null")
        .execute(&pool)
        .await
        .unwrap();
    keys::read(&other.auth, &pool).await.unwrap();
    assert_eq!(Caller::of(other.clone(), before.token.as_deref()).get("/users").await.status, 401);
    Caller::of(other, after.token.as_deref()).get("/users").await.expect(200);
    assert_eq!(kids(&there).await, [rotated.kid]);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_stolen_key_is_over_at_once(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "manager", Some(&world.here)).await;
    let rotated = keys::rotate(Arc::clone(&world.app.auth), &world.app.writer, true).await.unwrap();
    keys::read(&world.app.auth, &pool).await.unwrap();
    assert_eq!(world.owner.get("/users").await.status, 401);
    assert_eq!(kids(&world.nobody()).await, std::slice::from_ref(&rotated.kid));
    let anna = sign_in(&world.nobody(), "anna", PASSWORD).await.caller;
    assert_eq!(kid_of(anna.token.as_ref().unwrap()), rotated.kid);
    let rows = world.count("select count(*) from audit_log where action = 'key.rotate'").await;
    assert_eq!(rows, 1);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_key_is_worth_nothing_without_the_configured_one(pool: PgPool) {
    let world = world(&pool).await;
    keys::rotate(Arc::clone(&world.app.auth), &world.app.writer, false).await.unwrap();
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select sealed from signing_keys where sealed is not null").fetch_all(&pool).await.unwrap();
    assert_eq!(stored.len(), 1);
    // The head of every Ed25519 key in PKCS#8.
    let head = [0x06, 0x03, 0x2b, 0x65, 0x70];
    assert!(!stored[0].windows(head.len()).any(|window| window == head), "in the clear");
    let mut config = auth_config();
    config.signing_key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n".to_owned().into();
    let stranger = Auth::new(&config).unwrap();
    assert!(keys::read(&stranger, &pool).await.is_err());
    assert!(keys::require_root(&stranger, &pool).await.is_err(), "the owner's second factor is sealed too");
    keys::require_root(&world.app.auth, &pool).await.unwrap();
}
