//! Log-in, enrolment and terminal tokens.

use chrono::{TimeDelta, Utc};
use ingest_api::auth::create_owner;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::{Device, PASSWORD, text, until_blocked, until_shut_out, world};

fn nonce() -> String {
    Uuid::new_v4().to_string()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn log_in_says_nothing_about_why_not(pool: PgPool) {
    let world = world(&pool).await;
    let nobody = world.nobody();
    let (login, password) = (&world.owner_login.login, &world.owner_login.password);
    assert_eq!(login, "boss");
    let body = nobody.post("/auth/login", json!({"login": "BOSS", "password": password})).await;
    assert_eq!(body.problem(), (401, "second_factor_required".into(), String::new()));
    let id = world.new_user("anna", "cashier", Some(&world.here)).await;
    let body = nobody.post("/auth/login", json!({"login": "ANNA", "password": PASSWORD})).await.expect(200);
    assert_eq!((body["token_type"].as_str(), body["expires_in"].as_i64()), (Some("Bearer"), Some(600)));
    assert_eq!(text(&body, "user_id"), id);
    let wrong = nobody.post("/auth/login", json!({"login": login, "password": "wrong"})).await;
    let unknown = nobody.post("/auth/login", json!({"login": "nobody", "password": "wrong"})).await;
    assert_eq!(wrong.problem(), (401, "unauthenticated".into(), String::new()));
    assert_eq!(wrong.json()["detail"], unknown.json()["detail"]);
    assert_eq!(unknown.problem(), wrong.problem());
    let long = nobody.post("/auth/login", json!({"login": login, "password": "x".repeat(1025)})).await;
    assert_eq!(long.problem().0, 413);
    let refused =
        world.count("select count(*) from audit_log where action = 'auth.login' and outcome = 'refused'").await;
    assert_eq!(refused, 3);
    // Nothing that could be used to log in is stored in the clear, or shown.
    let stored: String = sqlx::query_scalar("select password_hash from users").fetch_one(&pool).await.unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert!(!world.owner.get("/users").await.text().contains("argon2"));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn there_is_one_first_owner(pool: PgPool) {
    let world = world(&pool).await;
    let refused = create_owner(&world.app.writer, "second").await.unwrap_err();
    assert_eq!((refused.status.as_u16(), refused.code), (409, "illegal_transition"));
    // Nor can the last one go.
    let path = format!("/users/{}", world.owner_login.user_id);
    for edit in [json!({"is_active": false}), json!({"grants": []})] {
        assert_eq!(world.owner.patch(&path, "\"1\"", edit).await.problem().1, "illegal_transition");
    }
    world.owner.get("/users").await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_enrolment_code_counts_once_and_expires(pool: PgPool) {
    let world = world(&pool).await;
    let terminal = world.terminal(&world.here, "1").await;
    let device = Device::new();
    let nobody = world.nobody();
    let enrol = |code: String| {
        let (nobody, body) = (nobody.clone(), json!({"code": code, "device_public_key": device.public()}));
        async move { nobody.post("/enrolments", body).await }
    };
    let first = world.enrolment_code(&terminal).await;
    let code = world.enrolment_code(&terminal).await;
    assert_eq!(enrol(first).await.problem().0, 401, "a new code ends the one before");
    let enrolled = enrol(code.to_lowercase().replace('-', " ")).await.expect(201);
    assert_eq!(text(&enrolled, "terminal_id"), terminal);
    assert_eq!((enrolled["next_terminal_seq"].as_i64(), enrolled["series_epoch"].as_i64()), (Some(1), Some(1)));
    assert_eq!(text(&enrolled, "time_zone"), "Europe/Berlin");
    assert_eq!(enrol(code).await.problem(), (401, "unauthenticated".into(), String::new()));
    let late = world.enrolment_code(&terminal).await;
    sqlx::query("update enrolment_codes set expires_at = now() where used_at is null").execute(&pool).await.unwrap();
    assert_eq!(enrol(late).await.problem().0, 401);
    assert_eq!(enrol("AAAA-AAAA-AAAA-AAAA".into()).await.problem().0, 401);
    assert_eq!(world.count("select count(*) from enrolment_codes where octet_length(code_hash) <> 32").await, 0);
    // A second device goes on in a new receipt series, and ends the first one's sessions.
    let again = enrol(world.enrolment_code(&terminal).await).await.expect(201);
    assert_eq!(again["series_epoch"], 2);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_enrolment_that_fails_leaves_a_row_and_no_code_in_it(pool: PgPool) {
    let world = world(&pool).await;
    let terminal = world.terminal(&world.here, "1").await;
    let key = Device::new().public();
    let enrol = async |code: &str, status: u16| {
        let body = json!({"code": code, "device_public_key": key});
        assert_eq!(world.nobody().post("/enrolments", body).await.status, status, "{code}");
    };
    let (unknown, code) = ("AAAA-AAAA-AAAA-AAAA", world.enrolment_code(&terminal).await);
    enrol(unknown, 401).await;
    enrol(&code, 201).await;
    enrol(&code, 401).await;
    // A code of a terminal that is out of use is worth nothing, and is not used up.
    let later = world.enrolment_code(&terminal).await;
    let active = async |is_active: bool| {
        let set = "update terminals set is_active = $1";
        sqlx::query(set).bind(is_active).execute(&pool).await.unwrap();
    };
    active(false).await;
    enrol(&later, 401).await;
    active(true).await;
    enrol(&later, 201).await;
    let rows: Vec<(String, String, Option<Uuid>, Uuid)> = sqlx::query_as(
        "select outcome, target, location_id, actor from audit_log where action = 'terminal.enrol'
         order by recorded_at, audit_id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let (target, here) = (format!("terminal/{terminal}"), Some(world.here.parse::<Uuid>().unwrap()));
    let device: Uuid = terminal.parse().unwrap();
    let wanted = [
        ("refused", "terminals", None, Uuid::nil()),
        ("done", &*target, here, device),
        ("refused", &target, here, Uuid::nil()),
        ("refused", &target, here, Uuid::nil()),
        ("done", &target, here, device),
    ];
    assert_eq!(rows, wanted.map(|(outcome, target, at, who)| (outcome.to_owned(), target.to_owned(), at, who)));
    let log = crate::card_data::everything(&pool).await;
    assert!([unknown, &code, &later].iter().all(|code| !log.contains(*code)), "a code is stored");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_signed_request_is_good_once(pool: PgPool) {
    let world = world(&pool).await;
    let (terminal, device, till) = world.till(&world.here, "1").await;
    till.get("/catalog/changes").await.expect(200);
    let numbers = till.get(&format!("/terminals/{terminal}")).await.expect(200);
    assert_eq!(numbers["next_receipt_number"], 1);
    let nobody = world.nobody();
    let ask = |body| {
        let nobody = nobody.clone();
        async move { nobody.post("/auth/terminal-token", body).await.status.as_u16() }
    };
    let once = device.request(&terminal, Utc::now(), &nonce());
    assert_eq!(ask(once.clone()).await, 200);
    assert_eq!(ask(once).await, 401, "replayed");
    assert_eq!(ask(device.request(&terminal, Utc::now() - TimeDelta::seconds(420), &nonce())).await, 401);
    assert_eq!(ask(device.request(&terminal, Utc::now() + TimeDelta::seconds(420), &nonce())).await, 401);
    assert_eq!(ask(device.request(&terminal, Utc::now() - TimeDelta::seconds(180), &nonce())).await, 200);
    assert_eq!(ask(Device::new().request(&terminal, Utc::now(), &nonce())).await, 401, "another key");
    let mut altered = device.request(&terminal, Utc::now(), &nonce());
    altered["nonce"] = json!(nonce());
    assert_eq!(ask(altered).await, 401);
    assert_eq!(ask(device.request(&Uuid::now_v7().to_string(), Utc::now(), &nonce())).await, 401);
    // Enrolling another device ends this one's tokens.
    let code = world.enrolment_code(&terminal).await;
    nobody.post("/enrolments", json!({"code": code, "device_public_key": Device::new().public()})).await.expect(201);
    assert_eq!(ask(device.request(&terminal, Utc::now(), &nonce())).await, 401);
    until_shut_out(&till, "/catalog/changes").await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn two_codes_asked_for_at_once_leave_one(pool: PgPool) {
    let world = world(&pool).await;
    let terminal = world.terminal(&world.here, "1").await;
    // Both have ended the codes of before when each is about to store its own.
    sqlx::raw_sql(
        "create function wait() returns trigger language plpgsql as $$
         begin perform pg_advisory_xact_lock_shared(7); return new; end $$;
         create trigger wait before insert on enrolment_codes for each row execute function wait();",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut gate = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(7)").execute(&mut *gate).await.unwrap();
    let released = async {
        until_blocked(&pool, 2).await;
        gate.commit().await.unwrap();
    };
    tokio::join!(world.enrolment_code(&terminal), world.enrolment_code(&terminal), released);
    assert_eq!(world.count("select count(*) from enrolment_codes where used_at is null").await, 1);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_terminal_and_a_user_with_one_id_are_two(pool: PgPool) {
    let world = world(&pool).await;
    let id = world.owner_login.user_id;
    let body = json!({"terminal_id": id, "location_id": world.here, "register_id": "1", "name": "Till"});
    let terminal = text(&world.owner.post("/terminals", body).await.expect(201), "terminal_id");
    let device = Device::new();
    let enrolment = json!({"code": world.enrolment_code(&terminal).await, "device_public_key": device.public()});
    world.nobody().post("/enrolments", enrolment).await.expect(201);
    let request = device.request(&terminal, Utc::now(), &nonce());
    let token = world.nobody().post("/auth/terminal-token", request).await.expect(200);
    let till = world.with_token(&text(&token, "access_token"));
    for _ in 0..3 {
        till.get("/catalog/changes").await.expect(200);
        world.owner.get("/users").await.expect(200);
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_wrong_signature_of_a_terminal_leaves_a_row_and_no_end_of_them(pool: PgPool) {
    let world = world(&pool).await;
    let (terminal, device, _) = world.till(&world.here, "1").await;
    let thief = world.nobody().from("203.0.113.7");
    for _ in 0..12 {
        let request = Device::new().request(&terminal, Utc::now(), &nonce());
        assert_eq!(thief.post("/auth/terminal-token", request).await.problem().0, 401);
    }
    let unknown = Device::new().request(&Uuid::now_v7().to_string(), Utc::now(), &nonce());
    assert_eq!(world.nobody().from("203.0.113.8").post("/auth/terminal-token", unknown).await.problem().0, 401);
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select terminal_id::text, address from audit_log where action = 'auth.terminal_token' and outcome = 'refused'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(rows, vec![(terminal.clone(), "203.0.113.7".to_owned()); 10]);
    thief.post("/auth/terminal-token", device.request(&terminal, Utc::now(), &nonce())).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn anonymous_requests_take_no_connection_that_sales_wait_for(pool: PgPool) {
    let world = world(&pool).await;
    let (terminal, device, _) = world.till(&world.here, "1").await;
    let mut app = world.app.clone();
    let short = std::time::Duration::from_millis(100);
    app.gate = sqlx::postgres::PgPoolOptions::new()
        .acquire_timeout(short)
        .connect_lazy("postgres://nobody@127.0.0.1:1/nothing")
        .unwrap();
    let request = device.request(&terminal, Utc::now(), &nonce());
    crate::world::Caller::of(app, None).post("/auth/terminal-token", request).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_is_shown_once_is_not_shown_to_a_log(pool: PgPool) {
    let world = world(&pool).await;
    let text = format!("{:?}", world.owner_login);
    assert!(text.contains("boss") && !text.contains(&world.owner_login.password), "{text}");
    let way = ingest_api::auth::first_owner::reset_sign_in(&world.app.writer, "boss").await.unwrap();
    assert!(!format!("{way:?}").contains(&way.reset_code));
}
