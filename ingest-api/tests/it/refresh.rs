//! Refresh tokens and sessions through the real routes.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::world::{Answer, Caller, Device, PASSWORD, World, sign_in, text, until_shut_out, world};

async fn anna(world: &World) -> String {
    world.new_user("anna", "manager", Some(&world.here)).await
}

/// A log-in bound to a device.
async fn device_session(world: &World, device: &Device) -> Value {
    let body = json!({"login": "anna", "password": PASSWORD, "device_public_key": device.public()});
    world.nobody().post("/auth/login", body).await.expect(200)
}

async fn refresh(world: &World, token: &str, device: Option<&Device>) -> Answer {
    let mut body = json!({"refresh_token": token});
    if let Some(device) = device {
        let issued_at = Utc::now().to_rfc3339();
        body["signature"] = json!(device.sign(&ingest_api::auth::refresh::signed_text(token, &issued_at)));
        body["issued_at"] = json!(issued_at);
    }
    world.nobody().post("/auth/refresh", body).await
}

fn next(answer: &Answer) -> String {
    text(&answer.expect(200), "refresh_token")
}

async fn seconds_pass(pool: &PgPool, seconds: i64) {
    sqlx::query("update refresh_tokens set spent_at = spent_at - make_interval(secs => $1::float8)")
        .bind(seconds as f64)
        .execute(pool)
        .await
        .unwrap();
}

async fn live(world: &World) -> i64 {
    world
        .count(
            "select count(*) from refresh_tokens t join sessions s using (session_id) join users u using (user_id)
             where t.state = 'live' and u.login = 'anna'",
        )
        .await
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn refresh_reuse_revokes_family_but_grace_does_not(pool: PgPool) {
    let world = world(&pool).await;
    anna(&world).await;
    let device = Device::new();
    // Within ten seconds the device is given the same successor again, and the session goes on.
    let first = text(&device_session(&world, &device).await, "refresh_token");
    let second = next(&refresh(&world, &first, Some(&device)).await);
    let again = refresh(&world, &first, Some(&device)).await;
    assert_eq!(next(&again), second, "the answer that was lost, once more");
    world.with_token(&text(&again.json(), "access_token")).get("/users").await.expect(200);
    assert_eq!(live(&world).await, 1);
    // After ten seconds the same is a second holder: the session ends, with its access tokens.
    seconds_pass(&pool, 11).await;
    let token = text(&again.json(), "access_token");
    assert_eq!(refresh(&world, &first, Some(&device)).await.problem().1, "unauthenticated");
    assert_eq!(refresh(&world, &second, Some(&device)).await.problem().0, 401);
    assert_eq!(live(&world).await, 0);
    until_shut_out(&world.with_token(&token), "/users").await;
    let reused = "select count(*) from audit_log where action = 'auth.refresh' and outcome = 'refused'
                  and reason like 'used twice%'";
    assert_eq!(world.count(reused).await, 1);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_grace_is_for_the_device_and_the_immediate_predecessor_alone(pool: PgPool) {
    let world = world(&pool).await;
    anna(&world).await;
    let device = Device::new();
    let begin = async || text(&device_session(&world, &device).await, "refresh_token");
    // Somebody else, or nobody, signed: what is live stays, what was spent ends the session.
    for stranger in [None, Some(Device::new())] {
        let first = begin().await;
        assert_eq!(refresh(&world, &first, stranger.as_ref()).await.status, 401);
        let second = next(&refresh(&world, &first, Some(&device)).await);
        assert_eq!(refresh(&world, &first, stranger.as_ref()).await.status, 401);
        assert_eq!(refresh(&world, &second, Some(&device)).await.status, 401, "the session has ended");
    }
    // The grandparent, within the grace.
    let first = begin().await;
    let second = next(&refresh(&world, &first, Some(&device)).await);
    let third = next(&refresh(&world, &second, Some(&device)).await);
    assert_eq!(refresh(&world, &first, Some(&device)).await.status, 401);
    assert_eq!(refresh(&world, &third, Some(&device)).await.status, 401);
    // Without a device there is no grace.
    let first = sign_in(&world.nobody(), "anna", PASSWORD).await.refresh_token;
    let second = next(&refresh(&world, &first, None).await);
    assert_eq!(refresh(&world, &first, None).await.status, 401);
    assert_eq!(refresh(&world, &second, None).await.status, 401);
    assert_eq!(live(&world).await, 0);
    assert_eq!(world.count("select count(*) from refresh_tokens where successor is not null").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_hundred_refreshes_at_once_have_one_successor(pool: PgPool) {
    let world = world(&pool).await;
    anna(&world).await;
    let device = Device::new();
    let first = text(&device_session(&world, &device).await, "refresh_token");
    let storm = (0..100).map(|_| async { refresh(&world, &first, Some(&device)).await });
    let mut successors = Vec::new();
    for answer in futures::future::join_all(storm).await {
        match answer.status.as_u16() {
            200 => successors.push(next(&answer)),
            status => assert!([401, 503].contains(&status), "{}", answer.text()),
        }
    }
    successors.sort();
    successors.dedup();
    assert_eq!(successors.len(), 1);
    let twice = "select count(*) from (select from refresh_tokens where state = 'live' group by session_id
                 having count(*) > 1) twice";
    assert_eq!(world.count(twice).await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_session_ends_when_it_is_idle_or_old(pool: PgPool) {
    let world = world(&pool).await;
    anna(&world).await;
    let token = async || sign_in(&world.nobody(), "anna", PASSWORD).await.refresh_token;
    let age = async |what: &str| {
        sqlx::query(sqlx::AssertSqlSafe(format!("update sessions set {what}"))).execute(&pool).await.unwrap();
    };
    let first = token().await;
    age("refreshed_at = refreshed_at - interval '11 hours 59 minutes'").await;
    let first = next(&refresh(&world, &first, None).await);
    age("refreshed_at = refreshed_at - interval '12 hours'").await;
    assert_eq!(refresh(&world, &first, None).await.status, 401);
    let second = token().await;
    let expires: chrono::DateTime<Utc> =
        sqlx::query_scalar("select max(expires_at) from sessions").fetch_one(&pool).await.unwrap();
    assert!((expires - Utc::now() - TimeDelta::days(30)).abs() < TimeDelta::minutes(1));
    age("expires_at = now()").await;
    assert_eq!(refresh(&world, &second, None).await.status, 401);
    // Neither opens the API, nor an access token the refresh.
    assert_eq!(world.with_token(&second).get("/users").await.status, 401);
    let access = text(
        &world.nobody().post("/auth/login", json!({"login": "anna", "password": PASSWORD})).await.expect(200),
        "access_token",
    );
    let answer = world.nobody().post("/auth/refresh", json!({"refresh_token": access})).await;
    assert_eq!(answer.problem().0, 422, "longer than any refresh token");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_log_out_ends_its_session_and_no_other(pool: PgPool) {
    let world = world(&pool).await;
    anna(&world).await;
    let [here, there] =
        [sign_in(&world.nobody(), "anna", PASSWORD).await, sign_in(&world.nobody(), "anna", PASSWORD).await];
    here.caller.get("/users").await.expect(200);
    let listed = here.caller.get("/auth/sessions").await.expect(200);
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 2);
    let own: Vec<_> = listed["sessions"].as_array().unwrap().iter().filter(|it| it["is_this_one"] == true).collect();
    assert_eq!(own[0]["session_id"], here.session_id);
    here.caller.send("POST", "/auth/logout", &[], None).await.expect(200);
    until_shut_out(&here.caller, "/users").await;
    assert_eq!(refresh(&world, &here.refresh_token, None).await.status, 401);
    there.caller.get("/users").await.expect(200);
    let token = next(&refresh(&world, &there.refresh_token, None).await);
    // One of one's own, by its id; nobody else's.
    let bea = world.user("bea", "manager", Some(&world.here)).await;
    let end = format!("/auth/sessions/{}/end", there.session_id);
    assert_eq!(bea.send("POST", &end, &[], None).await.problem().0, 404);
    there.caller.send("POST", &end, &[], None).await.expect(200);
    assert_eq!(refresh(&world, &token, None).await.status, 401);
}

/// Cached tokens included, on a node that did not do it.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_node_shuts_out_a_user_whose_rights_changed(pool: PgPool) {
    let world = world(&pool).await;
    let id = anna(&world).await;
    let path = format!("/users/{id}");
    let other_node = crate::world::app(&pool).await;
    let grants = json!({"grants": [{"role": "cashier", "location_id": world.here}]});
    let back = json!({"grants": [{"role": "manager", "location_id": world.here}]});
    for cut in 0..4 {
        let signed_in = sign_in(&world.nobody(), "anna", PASSWORD).await;
        let there = Caller::of(other_node.clone(), signed_in.caller.token.as_deref());
        for caller in [&signed_in.caller, &there] {
            caller.get("/locations").await.expect(200);
        }
        let etag = world.owner.get(&path).await.etag();
        match cut {
            0 => world.owner.patch(&path, &etag, grants.clone()).await.expect(200),
            1 => world.owner.patch(&path, &etag, back.clone()).await.expect(200),
            2 => signed_in.caller.send("POST", "/auth/logout-everywhere", &[], None).await.expect(200),
            _ => world.owner.send("POST", &format!("{path}/sessions/end"), &[], None).await.expect(200),
        };
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        for caller in [&signed_in.caller, &there] {
            assert_eq!(caller.get("/locations").await.status, 401, "cut {cut}");
        }
        assert_eq!(refresh(&world, &signed_in.refresh_token, None).await.status, 401, "cut {cut}");
    }
    // The same grants again are no change.
    let signed_in = sign_in(&world.nobody(), "anna", PASSWORD).await;
    world.owner.patch(&path, &world.owner.get(&path).await.etag(), back).await.expect(200);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    signed_in.caller.get("/locations").await.expect(200);
    let listed = world.owner.get(&format!("{path}/sessions")).await.expect(200);
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn verify_names_a_session_with_other_than_its_one_live_token(pool: PgPool) {
    use ingest_api::verify::{Report, sessions};
    let world = world(&pool).await;
    anna(&world).await;
    let signed_in = sign_in(&world.nobody(), "anna", PASSWORD).await;
    let ended = sign_in(&world.nobody(), "anna", PASSWORD).await;
    ended.caller.send("POST", "/auth/logout", &[], None).await.expect(200);
    let look = async || {
        let mut report = Report::default();
        sessions::check(&pool, &mut report).await.unwrap();
        report
    };
    assert!(look().await.agrees());
    for (session, planted) in [
        (&ended.session_id, "update refresh_tokens set state = 'live' where session_id = $1"),
        (&signed_in.session_id, "update refresh_tokens set state = 'spent' where session_id = $1"),
    ] {
        let id: uuid::Uuid = session.parse().unwrap();
        sqlx::query(planted).bind(id).execute(&pool).await.unwrap();
        let report = look().await;
        assert!(!report.agrees() && report.to_string().contains(session.as_str()), "{report}");
    }
    sqlx::query("drop index refresh_tokens_one_live").execute(&pool).await.unwrap();
    let twice = "insert into refresh_tokens (token_hash, session_id, generation, state)
                 select sha256(token_hash || int4send(n)), session_id, generation + n, 'live' from refresh_tokens, generate_series(1, 2) n
                  where session_id = $1";
    let id: uuid::Uuid = signed_in.session_id.parse().unwrap();
    sqlx::query(twice).bind(id).execute(&pool).await.unwrap();
    assert!(look().await.to_string().contains("2 live"));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_is_left_of_sessions_is_forgotten_in_time(pool: PgPool) {
    let world = world(&pool).await;
    anna(&world).await;
    let device = Device::new();
    let first = text(&device_session(&world, &device).await, "refresh_token");
    next(&refresh(&world, &first, Some(&device)).await);
    let old = sign_in(&world.nobody(), "anna", PASSWORD).await;
    old.caller.send("POST", "/auth/logout", &[], None).await.expect(200);
    let counts = async || {
        ingest_api::worker::upkeep::forget_sessions(&pool).await.unwrap();
        (
            world
                .count(
                    "select count(*) from sessions where user_id in (select user_id from users where login = 'anna')",
                )
                .await,
            world.count("select count(*) from refresh_tokens where successor is not null").await,
        )
    };
    assert_eq!(counts().await, (2, 1));
    seconds_pass(&pool, 11).await;
    assert_eq!(counts().await, (2, 0));
    sqlx::query("update sessions set ended_at = ended_at - interval '8 days'").execute(&pool).await.unwrap();
    assert_eq!(counts().await, (1, 0));
    assert_eq!(
        refresh(&world, &first, Some(&device)).await.status,
        401,
        "a spent token of a session that lasts is known"
    );
    assert_eq!(live(&world).await, 0);
}
