//! Passwords and locks through the real routes.

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::world::{Answer, Caller, PASSWORD, World, text, until_blocked, until_shut_out, world};

const LOCK_MINUTES: i64 = 30;

pub async fn try_login(caller: &Caller, login: &str, password: &str) -> Answer {
    caller.post("/auth/login", json!({"login": login, "password": password})).await
}

fn problem(answer: &Answer) -> (u16, String) {
    let (status, code, _) = answer.problem();
    (status, code)
}

/// As if everything that was counted or locked had been so long ago.
async fn minutes_pass(pool: &PgPool, minutes: i64) {
    sqlx::query(
        "update sign_in_failures set counted_from = counted_from - make_interval(mins => $1::int),
                locked_until = locked_until - make_interval(mins => $1::int)",
    )
    .bind(minutes as i32)
    .execute(pool)
    .await
    .unwrap();
}

/// Stores the password of anna under a hash that takes less work than one takes now.
pub async fn weaken(pool: &PgPool) -> String {
    let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8_192, 1, 1, None).unwrap());
    let weak = weak.hash_password(PASSWORD.as_bytes()).unwrap().to_string();
    let set = "update users set password_hash = $1 where login = 'anna'";
    sqlx::query(set).bind(&weak).execute(pool).await.unwrap();
    weak
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn weak_hash_is_upgraded(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    let weak = weaken(&pool).await;
    let stored = async || -> String {
        sqlx::query_scalar("select password_hash from users where login = 'anna'").fetch_one(&pool).await.unwrap()
    };
    assert_eq!(try_login(&world.nobody(), "anna", "wrong").await.status, 401);
    assert_eq!(stored().await, weak, "a wrong password proves nothing");
    try_login(&world.nobody(), "anna", PASSWORD).await.expect(200);
    let upgraded = stored().await;
    assert!(upgraded.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{upgraded}");
    try_login(&world.nobody(), "anna", PASSWORD).await.expect(200);
    assert_eq!(stored().await, upgraded, "a hash that is strong enough stays");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn ten_failures_lock_a_name_on_every_node_whether_a_user_has_it_or_not(pool: PgPool) {
    let world = world(&pool).await;
    let id = world.new_user("anna", "cashier", Some(&world.here)).await;
    let nodes = [world.nobody(), Caller::of(crate::world::app(&pool).await, None)];
    for n in 0..10 {
        for login in ["anna", "nobody"] {
            let answer = try_login(&nodes[n % 2], login, "wrong").await;
            assert_eq!(problem(&answer), (401, "unauthenticated".into()), "{login} {n}");
        }
    }
    let [known, unknown] =
        [try_login(&nodes[0], "anna", PASSWORD).await, try_login(&nodes[1], "nobody", PASSWORD).await];
    assert_eq!(problem(&known), (429, "locked".into()), "the right password too");
    assert_eq!(problem(&unknown), (429, "locked".into()));
    let mut bodies = [known.json(), unknown.json()];
    bodies.iter_mut().for_each(|body| body["request_id"] = Value::Null);
    assert_eq!(bodies[0], bodies[1]);
    for answer in [&known, &unknown] {
        let after: i64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((LOCK_MINUTES * 60 - 60..=LOCK_MINUTES * 60).contains(&after), "{after}");
    }
    minutes_pass(&pool, LOCK_MINUTES - 1).await;
    assert_eq!(try_login(&nodes[0], "anna", PASSWORD).await.status, 429);
    minutes_pass(&pool, 1).await;
    try_login(&nodes[0], "anna", PASSWORD).await.expect(200);
    // Locked again, and unlocked by whoever looks after the user.
    for _ in 0..10 {
        try_login(&nodes[0], "anna", "wrong").await;
    }
    assert_eq!(try_login(&nodes[0], "anna", PASSWORD).await.status, 429);
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    let stranger = world.user("stranger", "manager", Some(&world.there)).await;
    let unlock = format!("/users/{id}/unlock");
    assert_eq!(stranger.send("POST", &unlock, &[], None).await.status, 404);
    assert_eq!(manager.send("POST", &unlock, &[], None).await.expect(200)["was_locked"], true);
    try_login(&nodes[1], "anna", PASSWORD).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn failures_count_together_within_half_an_hour_and_a_success_forgets_them(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    let fail = async |times: usize| {
        for _ in 0..times {
            assert_eq!(try_login(&world.nobody(), "anna", "wrong").await.status, 401);
        }
    };
    fail(9).await;
    minutes_pass(&pool, LOCK_MINUTES).await;
    fail(9).await;
    try_login(&world.nobody(), "anna", PASSWORD).await.expect(200);
    fail(9).await;
    try_login(&world.nobody(), "anna", PASSWORD).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn guesses_at_the_same_time_are_judged_one_after_another(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    let nobody = world.nobody();
    let guesses = (0..24).map(|_| async { try_login(&nobody, "anna", "wrong").await.status.as_u16() });
    let statuses = futures::future::join_all(guesses).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 14, "{statuses:?}");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_address_that_sprays_names_is_locked_and_no_name_is(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    let sprayer = world.nobody().from("203.0.113.9");
    for n in 0..9 {
        assert_eq!(try_login(&sprayer, &format!("user-{n}"), "wrong").await.status, 401);
    }
    // Who knows one password does not wipe the count out between guesses.
    try_login(&sprayer, "anna", PASSWORD).await.expect(200);
    assert_eq!(try_login(&sprayer, "user-9", "wrong").await.status, 401);
    assert_eq!(problem(&try_login(&sprayer, "anna", PASSWORD).await), (429, "locked".into()));
    // A header that anybody can write changes nothing.
    let body = json!({"login": "anna", "password": PASSWORD}).to_string();
    let headers = [("x-forwarded-for", "198.51.100.1"), ("x-real-ip", "198.51.100.1")];
    assert_eq!(sprayer.send("POST", "/auth/login", &headers, Some(body.as_bytes())).await.status, 429);
    try_login(&world.nobody().from("203.0.113.10"), "anna", PASSWORD).await.expect(200);
    let unlock = world.owner.post("/auth/unlock-address", json!({"address": "203.0.113.9"})).await;
    assert_eq!(unlock.expect(200)["was_locked"], true);
    try_login(&sprayer, "anna", PASSWORD).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn behind_a_trusted_proxy_each_client_has_its_own_address(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    let mut app = world.app.clone();
    app.proxies = "10.0.0.0/8".parse().unwrap();
    let proxy = Caller::of(app, None).from("10.0.0.1");
    let log_in = async |client: &str, login: &str, password: &str| {
        let body = json!({"login": login, "password": password}).to_string();
        let headers = [("x-forwarded-for", client)];
        proxy.send("POST", "/auth/login", &headers, Some(body.as_bytes())).await.status.as_u16()
    };
    for n in 0..10 {
        assert_eq!(log_in("198.51.100.66", &format!("user-{n}"), "wrong").await, 401);
    }
    assert_eq!(log_in("198.51.100.66", "anna", PASSWORD).await, 429);
    assert_eq!(log_in("1.2.3.4, 198.51.100.66", "anna", PASSWORD).await, 429, "the client wrote the first");
    assert_eq!(log_in("198.51.100.7", "anna", PASSWORD).await, 200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_password_is_changed_by_who_knows_it_and_ends_every_session(pool: PgPool) {
    let world = world(&pool).await;
    let anna = world.user("anna", "manager", Some(&world.here)).await;
    let elsewhere = crate::world::log_in(&world.nobody(), "anna", PASSWORD).await;
    let change = async |old: &str, new: &str| {
        anna.post("/auth/password", json!({"old_password": old, "new_password": new})).await
    };
    let new = "a quite different password";
    assert_eq!(change("wrong", new).await.problem().0, 401);
    for (bad, why) in [("short", "short"), ("password1234", "common"), (PASSWORD, "the old one")] {
        assert_eq!(
            change(PASSWORD, bad).await.problem(),
            (422, "invalid_value".into(), "/new_password".into()),
            "{why}"
        );
    }
    assert_eq!(change(PASSWORD, new).await.expect(200)["sessions_ended"], 2);
    until_shut_out(&anna, "/users").await;
    until_shut_out(&elsewhere, "/users").await;
    assert_eq!(try_login(&world.nobody(), "anna", PASSWORD).await.status, 401);
    try_login(&world.nobody(), "anna", new).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_reset_code_counts_once_in_time_and_says_nothing(pool: PgPool) {
    let world = world(&pool).await;
    let id = world.new_user("anna", "cashier", Some(&world.here)).await;
    let reset = async || {
        let path = format!("/users/{id}/password-reset");
        text(&world.owner.send("POST", &path, &[], None).await.expect(201), "code")
    };
    let set = async |login: &str, code: &str, password: &str| {
        let body = json!({"login": login, "code": code, "new_password": password});
        world.nobody().post("/auth/password-reset", body).await
    };
    let (first, code) = (reset().await, reset().await);
    assert_eq!(set("anna", &first, "a new enough password").await.status, 401, "a new code ends the one before");
    assert_eq!(set("anna", &code, "password1234").await.problem().2, "/new_password");
    let [wrong, unknown] = [
        set("anna", "AAAA-AAAA-AAAA-AAAA", "a new enough password").await,
        set("nobody", "AAAA-AAAA-AAAA-AAAA", "a new enough password").await,
    ];
    assert_eq!(wrong.problem(), unknown.problem());
    assert_eq!(wrong.json()["detail"], unknown.json()["detail"]);
    set("ANNA", &code.to_lowercase(), "a new enough password").await.expect(200);
    assert_eq!(set("anna", &code, "another new password").await.status, 401, "used");
    try_login(&world.nobody(), "anna", "a new enough password").await.expect(200);
    let late = reset().await;
    sqlx::query("update password_resets set expires_at = now()").execute(&pool).await.unwrap();
    assert_eq!(set("anna", &late, "yet another password").await.status, 401);
    assert_eq!(world.count("select count(*) from password_resets where octet_length(code_hash) <> 32").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_open_reset_code_ends_with_the_rights_it_was_made_for(pool: PgPool) {
    let world = world(&pool).await;
    let id = world.new_user("anna", "cashier", Some(&world.here)).await;
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    let user = format!("/users/{id}");
    let code = text(&manager.send("POST", &format!("{user}/password-reset"), &[], None).await.expect(201), "code");
    let more = json!({"grants": [{"role": "manager", "location_id": world.there}]});
    world.owner.patch(&user, &world.owner.get(&user).await.etag(), more).await.expect(200);
    let body = json!({"login": "anna", "code": code, "new_password": "a new enough password"});
    assert_eq!(world.nobody().post("/auth/password-reset", body).await.status, 401);
    assert_eq!(world.count("select count(*) from password_resets").await, 0);
}

/// A right one takes the counter away while a wrong one waits for it.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_wrong_log_in_that_crosses_a_right_one_is_counted(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    assert_eq!(try_login(&world.nobody(), "anna", "wrong").await.status, 401);
    sqlx::raw_sql(
        "create function wait() returns trigger language plpgsql as $$
         begin perform pg_advisory_xact_lock_shared(7); return null; end $$;
         create trigger wait after delete on sign_in_failures for each row execute function wait();",
    )
    .execute(&pool)
    .await
    .unwrap();
    let mut gate = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(7)").execute(&mut *gate).await.unwrap();
    let nobody = world.nobody();
    let wrong = async {
        until_blocked(&pool, 1).await;
        try_login(&nobody, "anna", "wrong").await
    };
    let released = async {
        until_blocked(&pool, 2).await;
        gate.commit().await.unwrap();
    };
    let (right, wrong, ()) = tokio::join!(try_login(&nobody, "anna", PASSWORD), wrong, released);
    right.expect(200);
    assert_eq!(problem(&wrong), (401, "unauthenticated".into()));
    assert_eq!(world.count("select failures::bigint from sign_in_failures").await, 1);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn right_log_ins_at_once_all_count_while_a_hash_is_made_stronger(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    weaken(&pool).await;
    let nobody = world.nobody();
    let log_ins = (0..8).map(|_| async { try_login(&nobody, "anna", PASSWORD).await.status.as_u16() });
    assert_eq!(futures::future::join_all(log_ins).await, [200; 8]);
    assert_eq!(world.count("select count(*) from sign_in_failures where failures > 0").await, 0);
    assert_eq!(world.count("select count(*) from users where password_hash like '%m=8192%'").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_change_of_password_does_not_tell_the_old_one_from_behind_a_lock(pool: PgPool) {
    let world = world(&pool).await;
    let anna = world.user("anna", "cashier", Some(&world.here)).await;
    for _ in 0..10 {
        try_login(&world.nobody(), "anna", "wrong").await;
    }
    let change = async |old: &str, new: &str| {
        problem(&anna.post("/auth/password", json!({"old_password": old, "new_password": new})).await)
    };
    for old in [PASSWORD, "wrong"] {
        assert_eq!(change(old, "password1234").await, (422, "invalid_value".into()), "{old}");
        assert_eq!(change(old, "a quite different password").await, (429, "locked".into()), "{old}");
    }
    let reset = json!({"login": "anna", "code": "AAAA-AAAA", "new_password": "a quite different password"});
    assert_eq!(problem(&world.nobody().post("/auth/password-reset", reset).await), (429, "locked".into()));
    let rows = "select count(*) from audit_log where reason = 'locked' and action like 'auth.password%'";
    assert_eq!(world.count(rows).await, 3);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn whoever_has_a_network_of_ipv6_has_one_address(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    for n in 0..10 {
        let sprayer = world.nobody().from(&format!("2001:db8:1:2::{n:x}"));
        assert_eq!(try_login(&sprayer, &format!("user-{n}"), "wrong").await.status, 401);
    }
    assert_eq!(try_login(&world.nobody().from("2001:db8:1:2:ffff::1"), "anna", PASSWORD).await.status, 429);
    try_login(&world.nobody().from("2001:db8:1:3::1"), "anna", PASSWORD).await.expect(200);
    let unlock = world.owner.post("/auth/unlock-address", json!({"address": "2001:db8:1:2::5"})).await;
    assert_eq!(unlock.expect(200)["was_locked"], true);
    try_login(&world.nobody().from("2001:db8:1:2:ffff::1"), "anna", PASSWORD).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn odd_passwords_are_told_apart(pool: PgPool) {
    let world = world(&pool).await;
    let make = async |login: &str, password: &str| {
        let grants = json!([{"role": "cashier", "location_id": world.here}]);
        world.owner.post("/users", json!({"login": login, "code": login, "password": password, "grants": grants})).await
    };
    let phrase = "nine tills and a quiet drawer count the coins of the long day!!!!";
    assert_eq!(phrase.len(), 65);
    make("long", phrase).await.expect(201);
    try_login(&world.nobody(), "long", phrase).await.expect(200);
    assert_eq!(try_login(&world.nobody(), "long", &phrase[..64]).await.status, 401, "all of it counts");
    assert_eq!(make("easy", "qwertyuiop").await.problem().2, "/password");
    assert_eq!(make("nul", &phrase.replace(' ', "\0")).await.problem().2, "/password");
    assert_eq!(try_login(&world.nobody(), "long", "a\0b").await.problem().2, "/password");
    assert_eq!(make("anna-smith", "anna-smith1").await.problem().2, "/password", "made of the name");
    let huge = try_login(&world.nobody(), "long", &"x".repeat(1 << 20)).await;
    assert_eq!(huge.problem().0, 413);
    let surrogate = br#"{"login": "long", "password": "\ud800"}"#;
    let answer = world.nobody().send("POST", "/auth/login", &[], Some(surrogate)).await;
    assert_eq!(answer.problem().0, 400);
}

/// Every log-in is one hash and one transaction, whoever is meant.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn unknown_wrong_and_locked_do_the_same_work(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    world.new_user("lock", "cashier", Some(&world.here)).await;
    for _ in 0..10 {
        try_login(&world.nobody(), "lock", "wrong").await;
    }
    let hashes = async |login: &str, password: &str| {
        let before = world.app.auth.passwords.hashes();
        try_login(&world.nobody(), login, password).await;
        world.app.auth.passwords.hashes() - before
    };
    for (login, password) in [("anna", "wrong"), ("nobody", "wrong"), ("lock", "wrong"), ("lock", PASSWORD)] {
        assert_eq!(hashes(login, password).await, 1, "{login}: {password}");
    }
    assert_eq!(hashes("anna", PASSWORD).await, 1);
}

/// What `World` needs of the lists of audit rows.
async fn audited(world: &World, action: &str, outcome: &str) -> i64 {
    sqlx::query_scalar("select count(*) from audit_log where action = $1 and outcome = $2")
        .bind(action)
        .bind(outcome)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn each_log_in_failure_refresh_and_end_leaves_an_audit_row(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    let done = audited(&world, "auth.login", "done").await;
    let signed_in = crate::world::sign_in(&world.nobody(), "anna", PASSWORD).await;
    try_login(&world.nobody(), "anna", "wrong").await;
    let refresh = json!({"refresh_token": signed_in.refresh_token});
    let body = world.nobody().post("/auth/refresh", refresh.clone()).await.expect(200);
    let caller = world.with_token(&text(&body, "access_token"));
    caller.send("POST", "/auth/logout", &[], None).await.expect(200);
    world.nobody().post("/auth/refresh", refresh).await;
    assert_eq!(audited(&world, "auth.login", "done").await, done + 1);
    assert_eq!(audited(&world, "auth.login", "refused").await, 1);
    assert_eq!(audited(&world, "auth.refresh", "done").await, 1);
    assert_eq!(audited(&world, "auth.refresh", "refused").await, 1);
    assert_eq!(audited(&world, "auth.logout", "done").await, 1);
}
