//! API clients: scopes, secrets, tokens.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::world::{Answer, World, text, until_shut_out, world};

async fn token(world: &World, id: &Value, secret: &Value) -> Answer {
    world.nobody().post("/auth/client-token", json!({"client_id": id, "client_secret": secret})).await
}

async fn reader(world: &World) -> Value {
    let body = json!({"name": "shop", "permissions": ["read_stock", "read_catalog"], "location_ids": [world.here]});
    world.owner.post("/api-clients", body).await.expect(201)
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_client_does_what_it_was_given_where_it_was_given(pool: PgPool) {
    let world = world(&pool).await;
    let made = reader(&world).await;
    let issued = token(&world, &made["client_id"], &made["client_secret"]).await.expect(200);
    assert_eq!((issued["client_id"].clone(), issued["expires_in"].as_i64()), (made["client_id"].clone(), Some(600)));
    let client = world.with_token(&text(&issued, "access_token"));
    client.get("/products").await.expect(200);
    client.get(&format!("/stock?location_id={}", world.here)).await.expect(200);
    assert_eq!(client.get(&format!("/stock?location_id={}", world.there)).await.problem().0, 403);
    assert_eq!(client.get("/sales").await.problem().0, 403);
    assert_eq!(client.get("/users").await.problem().0, 403);
    for (path, method) in [("/auth/account", "GET"), ("/auth/logout", "POST"), ("/auth/second-factor", "POST")] {
        assert_eq!(client.send(method, path, &[], None).await.problem().0, 403, "{path}");
    }
    // The secret was shown once, and is not stored.
    let path = format!("/api-clients/{}", text(&made, "client_id"));
    for path in [path.as_str(), "/api-clients"] {
        assert!(!world.owner.get(path).await.text().contains(&text(&made, "client_secret")));
    }
    assert_eq!(world.count("select count(*) from api_client_secrets where octet_length(secret_hash) <> 32").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn two_secrets_are_good_while_it_changes_from_one_to_the_next(pool: PgPool) {
    let world = world(&pool).await;
    let made = reader(&world).await;
    let (id, path) = (&made["client_id"], format!("/api-clients/{}", text(&made, "client_id")));
    let secrets = format!("{path}/secrets");
    let second = world.owner.post(&secrets, json!({})).await.expect(201);
    assert_eq!(world.owner.post(&secrets, json!({})).await.problem().1, "illegal_transition");
    let mut tokens = Vec::new();
    for secret in [&made["client_secret"], &second["client_secret"]] {
        tokens.push(text(&token(&world, id, secret).await.expect(200), "access_token"));
    }
    let end = format!("/api-client-secrets/{}/end", text(&made, "secret_id"));
    let left = world.owner.send("POST", &end, &[], None).await.expect(200);
    assert_eq!(left["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(
        token(&world, id, &made["client_secret"]).await.problem(),
        (401, "unauthenticated".into(), String::new())
    );
    until_shut_out(&world.with_token(&tokens[0]), "/products").await;
    token(&world, id, &second["client_secret"]).await.expect(200);
    assert_eq!(world.owner.send("POST", &end, &[], None).await.problem().0, 404);
    // One with an end.
    let until = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let third = world.owner.post(&secrets, json!({"expires_at": until})).await.expect(201);
    token(&world, id, &third["client_secret"]).await.expect(200);
    sqlx::query("update api_client_secrets set expires_at = now() where expires_at is not null")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(token(&world, id, &third["client_secret"]).await.status, 401);
    world.owner.post(&secrets, json!({})).await.expect(201);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_client_that_has_ended_is_shut_out(pool: PgPool) {
    let world = world(&pool).await;
    let made = reader(&world).await;
    let (id, secret) = (&made["client_id"], &made["client_secret"]);
    let path = format!("/api-clients/{}", text(&made, "client_id"));
    let issued = token(&world, id, secret).await.expect(200);
    let client = world.with_token(&text(&issued, "access_token"));
    client.get("/products").await.expect(200);
    let edit = async |body: Value| {
        let etag = world.owner.get(&path).await.etag();
        world.owner.patch(&path, &etag, body).await
    };
    // Less is held at once, tokens of before included.
    edit(json!({"permissions": ["read_stock"]})).await.expect(200);
    until_shut_out(&client, "/products").await;
    let issued = token(&world, id, secret).await.expect(200);
    assert_eq!(world.with_token(&text(&issued, "access_token")).get("/products").await.problem().0, 403);
    edit(json!({"is_active": false})).await.expect(200);
    assert_eq!(token(&world, id, secret).await.status, 401);
    edit(json!({"is_active": true})).await.expect(200);
    let issued = token(&world, id, secret).await.expect(200);
    sqlx::query("update api_clients set expires_at = now()").execute(&pool).await.unwrap();
    until_shut_out(&world.with_token(&text(&issued, "access_token")), "/stock").await;
    assert_eq!(token(&world, id, secret).await.status, 401);
    // Nothing tells an unknown client from a wrong secret.
    let unknown = token(&world, &json!(uuid::Uuid::now_v7()), secret).await;
    let wrong = token(&world, id, &json!("wrong")).await;
    assert_eq!((unknown.problem(), &unknown.json()["detail"]), (wrong.problem(), &wrong.json()["detail"]));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn nobody_gives_a_client_more_than_they_hold(pool: PgPool) {
    let world = world(&pool).await;
    let tech = world.user("tech", "it_admin", None).await;
    let make = async |name: &str, permissions: Value| {
        tech.post("/api-clients", json!({"name": name, "permissions": permissions})).await
    };
    assert_eq!(make("a", json!(["read_stock"])).await.problem().0, 403);
    make("b", json!(["read_catalog", "read_locations"])).await.expect(201);
    // Nor through one that exists: a further secret is as good as the rights.
    let strong = reader(&world).await;
    let path = format!("/api-clients/{}", text(&strong, "client_id"));
    assert_eq!(tech.post(&format!("{path}/secrets"), json!({})).await.problem().0, 403);
    let etag = tech.get(&path).await.etag();
    assert_eq!(tech.patch(&path, &etag, json!({"name": "c"})).await.problem().0, 403);
    for bad in [json!(["sell"]), json!(["manage_users"]), json!(["public"]), json!([])] {
        let answer = world.owner.post("/api-clients", json!({"name": "d", "permissions": bad})).await;
        assert_eq!(answer.problem().0, 422, "{bad}");
    }
    let unknown = json!({"name": "e", "permissions": ["read_stock"], "location_ids": [uuid::Uuid::now_v7()]});
    assert_eq!(world.owner.post("/api-clients", unknown).await.problem().2, "/location_ids/0");
    let taken = world.owner.post("/api-clients", json!({"name": "b", "permissions": ["read_stock"]})).await;
    assert_eq!(taken.problem(), (409, "already_exists".into(), "/name".into()));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn wrong_secrets_write_little_and_keep_nobody_out(pool: PgPool) {
    let world = world(&pool).await;
    let (made, other) = (reader(&world).await, json!(uuid::Uuid::now_v7()));
    let ask = async |id: &Value, secret: &Value, address: &str| {
        let body = json!({"client_id": id, "client_secret": secret});
        world.nobody().from(address).post("/auth/client-token", body).await
    };
    let (id, secret, wrong) = (&made["client_id"], &made["client_secret"], json!("wrong"));
    // Neither answer nor count tells a client from an id that nobody has.
    for (client, address) in [(id, "203.0.113.1"), (&other, "203.0.113.2")] {
        for n in 0..10 {
            assert_eq!(ask(client, &wrong, address).await.problem().0, 401, "{n}");
        }
        for _ in 0..3 {
            assert_eq!(ask(client, &wrong, address).await.problem().1, "locked");
        }
    }
    let rows = "select count(*) from audit_log where action = 'auth.client_token' and outcome = 'refused'";
    assert_eq!(world.count(rows).await, 10, "ten of the client that there is, none of the other");
    ask(id, secret, "203.0.113.1").await.expect(200);
    let unlock = json!({"address": "203.0.113.1"});
    assert_eq!(world.owner.post("/auth/unlock-address", unlock).await.expect(200)["was_locked"], true);
    assert_eq!(ask(id, &wrong, "203.0.113.1").await.problem().0, 401);
}
