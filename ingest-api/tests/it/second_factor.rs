//! The second factor through the real routes.

use chrono::Utc;
use ingest_api::app::AppState;
use ingest_api::auth::totp::Authenticator;
use ingest_api::budgets::Budgets;
use runtime::config::{Quota, Quotas};
use serde_json::json;
use sqlx::PgPool;

use crate::world::{Answer, Caller, PASSWORD, SignedIn, World, authenticator, enrol_factor, sign_in, text, world};

/// As if the half minute whose code was used were long over.
async fn forget_steps(pool: &PgPool) {
    sqlx::query("update second_factors set last_step = 0").execute(pool).await.unwrap();
}

/// Sends the code of now; again when the half minute ended on the way.
pub async fn with_code(factor: &Authenticator, send: impl AsyncFn(String) -> Answer) -> Answer {
    loop {
        let code = factor.code(Utc::now());
        let answer = send(code.clone()).await;
        if answer.status.is_success() || factor.code(Utc::now()) == code {
            return answer;
        }
    }
}

async fn log_in(world: &World, login: &str, password: &str, totp: &str) -> Answer {
    world.nobody().post("/auth/login", json!({"login": login, "password": password, "totp": totp})).await
}

/// A manager with a second factor.
async fn manager(world: &World) -> (SignedIn, Authenticator) {
    world.new_user("manager", "manager", Some(&world.here)).await;
    let signed_in = sign_in(&world.nobody(), "manager", PASSWORD).await;
    let (_, factor) = enrol_factor(&signed_in.caller).await;
    (signed_in, factor)
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn totp_code_cannot_be_reused(pool: PgPool) {
    let world = world(&pool).await;
    let (_, factor) = manager(&world).await;
    // The code that confirmed the factor has counted.
    let used = factor.code(Utc::now());
    assert_eq!(log_in(&world, "manager", PASSWORD, &used).await.problem().0, 401);
    forget_steps(&pool).await;
    // Fifty at once: one of them counts.
    sqlx::query("delete from sign_in_failures").execute(&pool).await.unwrap();
    let code = factor.code(Utc::now());
    let attempts = (0..50).map(|_| async { log_in(&world, "manager", PASSWORD, &code).await.status.as_u16() });
    let statuses = futures::future::join_all(attempts).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 401, 429].contains(status)), "{statuses:?}");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn only_the_code_of_this_half_minute_is_taken_and_ten_guesses_lock(pool: PgPool) {
    let world = world(&pool).await;
    let (_, factor) = manager(&world).await;
    forget_steps(&pool).await;
    for seconds in [-60, -30, 30] {
        let other = factor.code(Utc::now() + chrono::TimeDelta::seconds(seconds));
        if other != factor.code(Utc::now()) {
            assert_eq!(log_in(&world, "manager", PASSWORD, &other).await.problem().1, "unauthenticated", "{seconds}");
        }
    }
    assert_eq!(log_in(&world, "manager", "wrong", &factor.code(Utc::now())).await.status, 401);
    sqlx::query("delete from sign_in_failures").execute(&pool).await.unwrap();
    forget_steps(&pool).await;
    with_code(&factor, async |code| log_in(&world, "manager", PASSWORD, &code).await).await.expect(200);
    for _ in 0..10 {
        assert_eq!(log_in(&world, "manager", PASSWORD, "00000x").await.status, 401);
    }
    forget_steps(&pool).await;
    let locked = with_code(&factor, async |code| log_in(&world, "manager", PASSWORD, &code).await).await;
    assert_eq!(locked.problem().1, "locked");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_role_that_needs_it_gets_a_token_that_enrols_and_opens_nothing_else(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("tech", "it_admin", None).await;
    let answer = world.nobody().post("/auth/login", json!({"login": "tech", "password": PASSWORD})).await;
    let body = answer.expect(202);
    assert_eq!(body["next_step"], "second_factor_enrolment");
    assert!(body.get("refresh_token").is_none());
    let token = text(&body, "access_token");
    let tech = world.with_token(&token);
    for path in ["/terminals", "/locations", "/auth/account", "/auth/sessions"] {
        assert_eq!(tech.get(path).await.problem().1, "unauthenticated", "{path}");
    }
    assert_eq!(world.nobody().post("/auth/refresh", json!({"refresh_token": &token[..60]})).await.problem().0, 401);
    let (confirmed, _) = enrol_factor(&tech).await;
    let signed_in = world.with_token(&text(&confirmed["session"], "access_token"));
    signed_in.get("/terminals").await.expect(200);
    // The token of before goes on opening the enrolment only, and replaces no factor.
    assert_eq!(tech.send("POST", "/auth/second-factor", &[], None).await.problem().1, "reauth_required");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_policy_asks_other_roles_too(pool: PgPool) {
    let world = world(&pool).await;
    world.user("anna", "manager", Some(&world.here)).await;
    let policy = world.owner.get("/sign-in-policy").await;
    assert_eq!(policy.expect(200)["second_factor_roles"], json!(["owner", "it_admin"]));
    let edit = json!({"second_factor_roles": ["manager"]});
    let edited = world.owner.patch("/sign-in-policy", &policy.etag(), edit).await.expect(200);
    assert_eq!(edited["second_factor_roles"], json!(["owner", "manager", "it_admin"]));
    let answer = world.nobody().post("/auth/login", json!({"login": "anna", "password": PASSWORD})).await;
    assert_eq!(answer.status, 202);
    world.user("bea", "cashier", Some(&world.here)).await;
    // The policy is the owners', and theirs alone.
    let anna = sign_in(&world.nobody(), "anna", PASSWORD).await.caller;
    assert_eq!(anna.get("/sign-in-policy").await.problem().0, 403);
    let remove = anna.send("POST", "/auth/second-factor/remove", &[], None).await;
    assert_eq!(remove.problem(), (409, "illegal_transition".into(), String::new()));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_recovery_code_counts_once_even_fifty_times_at_once(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "manager", Some(&world.here)).await;
    let anna = sign_in(&world.nobody(), "anna", PASSWORD).await.caller;
    let (confirmed, _) = enrol_factor(&anna).await;
    let codes: Vec<String> = serde_json::from_value(confirmed["recovery_codes"].clone()).unwrap();
    assert_eq!(codes.len(), 10);
    assert!(codes.iter().all(|code| code.replace('-', "").len() * 5 == 120), "bits of a code");
    // More at once than an account has sign-ins.
    let quotas = Quotas { sign_in: Quota::new(1_000, 1).unwrap(), ..Quotas::default() };
    let nobody = Caller::of(AppState { budgets: Budgets::new(&quotas, None), ..world.app.clone() }, None);
    let log_in = async |code: &str| {
        let body = json!({"login": "anna", "password": PASSWORD, "recovery_code": code});
        nobody.post("/auth/login", body).await.status.as_u16()
    };
    let attempts = (0..50).map(|_| async { log_in(&codes[0]).await });
    let statuses = futures::future::join_all(attempts).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    sqlx::query("delete from sign_in_failures").execute(&pool).await.unwrap();
    assert_eq!(log_in(&codes[1].to_lowercase().replace('-', " ")).await, 200);
    assert_eq!(log_in(&codes[1]).await, 401);
    assert_eq!(anna.get("/auth/account").await.expect(200)["recovery_codes_left"], 8);
    let fresh = anna.send("POST", "/auth/recovery-codes", &[], None).await.expect(200);
    assert_eq!(log_in(&codes[2]).await, 401, "new codes end the earlier ones");
    assert_eq!(log_in(fresh["recovery_codes"][0].as_str().unwrap()).await, 200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn secrets_and_codes_are_stored_sealed_or_hashed(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "manager", Some(&world.here)).await;
    let signed_in = sign_in(&world.nobody(), "anna", PASSWORD).await;
    let offered = signed_in.caller.post("/auth/second-factor", json!({"password": PASSWORD})).await.expect(200);
    let (secret, uri) = (text(&offered, "secret"), text(&offered, "otpauth_uri"));
    assert!(uri.starts_with("otpauth://totp/Vorca%20POS:anna?") && uri.contains(&secret), "{uri}");
    assert!(text(&offered, "qr_svg").contains("<svg"));
    let raw = totp_rs::Secret::try_from_base32(&secret).unwrap().as_ref().to_vec();
    let stored: Vec<Vec<u8>> = sqlx::query_scalar(
        "select pending from second_factors where pending is not null
         union all select secret from second_factors where secret is not null
         union all select code_hash from recovery_codes union all select token_hash from refresh_tokens",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(stored.len() > 10);
    let needles = [raw, secret.into_bytes(), signed_in.refresh_token.into_bytes()];
    for (stored, needle) in stored.iter().flat_map(|stored| needles.iter().map(move |needle| (stored, needle))) {
        assert!(!stored.windows(needle.len()).any(|window| window == &needle[..]), "in the clear");
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_lost_factor_is_taken_away_by_an_administrator_and_ends_every_session(pool: PgPool) {
    let world = world(&pool).await;
    let id = world.new_user("anna", "cashier", Some(&world.here)).await;
    let anna = sign_in(&world.nobody(), "anna", PASSWORD).await.caller;
    enrol_factor(&anna).await;
    let answer = world.nobody().post("/auth/login", json!({"login": "anna", "password": PASSWORD})).await;
    assert_eq!(answer.problem().1, "second_factor_required");
    let path = format!("/users/{id}/second-factor/reset");
    assert_eq!(anna.send("POST", &path, &[], None).await.problem().0, 403);
    world.owner.send("POST", &path, &[], None).await.expect(200);
    crate::world::until_shut_out(&anna, "/locations").await;
    sign_in(&world.nobody(), "anna", PASSWORD).await;
    assert_eq!(world.owner.send("POST", &path, &[], None).await.problem().1, "illegal_transition");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_command_line_lets_an_owner_in_again(pool: PgPool) {
    let world = world(&pool).await;
    let reset = ingest_api::auth::first_owner::reset_sign_in(&world.app.writer, "BOSS").await.unwrap();
    crate::world::until_shut_out(&world.owner, "/users").await;
    let body = json!({"login": "boss", "code": reset.reset_code, "new_password": "a whole new password"});
    world.nobody().post("/auth/password-reset", body).await.expect(200);
    let boss = sign_in(&world.nobody(), "boss", "a whole new password").await;
    assert!(boss.factor.is_some(), "the second factor has to be set up anew");
    boss.caller.get("/users").await.expect(200);
    let unknown = ingest_api::auth::first_owner::reset_sign_in(&world.app.writer, "nobody").await;
    assert_eq!(unknown.unwrap_err().status, 404);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_factor_counts_once_it_was_confirmed(pool: PgPool) {
    let world = world(&pool).await;
    let anna: Caller = world.user("anna", "manager", Some(&world.here)).await;
    let offer = async || anna.post("/auth/second-factor", json!({"password": PASSWORD})).await.expect(200);
    let confirm =
        async |code: &str| anna.post("/auth/second-factor/confirm", json!({"totp": code, "password": PASSWORD})).await;
    assert_eq!(confirm("123456").await.problem().1, "illegal_transition");
    let offered = offer().await;
    sign_in(&world.nobody(), "anna", PASSWORD).await;
    let again = offer().await;
    let first = authenticator(&text(&offered, "secret")).code(Utc::now());
    assert_eq!(confirm(&first).await.problem(), (422, "invalid_value".into(), "/totp".into()));
    let factor = authenticator(&text(&again, "secret"));
    with_code(&factor, async |code| confirm(&code).await).await.expect(200);
    let answer = world.nobody().post("/auth/login", json!({"login": "anna", "password": PASSWORD})).await;
    assert_eq!(answer.problem().1, "second_factor_required");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_stolen_token_sets_no_second_factor_up(pool: PgPool) {
    let world = world(&pool).await;
    let stolen = world.user("anna", "manager", Some(&world.here)).await;
    let needed = (422, "invalid_value".to_owned(), "/password".to_owned());
    assert_eq!(stolen.send("POST", "/auth/second-factor", &[], None).await.problem(), needed);
    assert_eq!(stolen.post("/auth/second-factor", json!({})).await.problem(), needed);
    let wrong = stolen.post("/auth/second-factor", json!({"password": "wrong"})).await;
    assert_eq!(wrong.problem().1, "unauthenticated");
    // What the user was offered is of no use to somebody else either.
    let anna = sign_in(&world.nobody(), "anna", PASSWORD).await.caller;
    let offered = anna.post("/auth/second-factor", json!({"password": PASSWORD})).await.expect(200);
    let factor = authenticator(&text(&offered, "secret"));
    let confirm = async |caller: &Caller, body: serde_json::Value| {
        with_code(&factor, async |code| {
            let mut body = body.clone();
            body["totp"] = json!(code);
            caller.post("/auth/second-factor/confirm", body).await
        })
        .await
    };
    assert_eq!(confirm(&stolen, json!({})).await.problem(), needed);
    let wrong = json!({"totp": "000000", "password": "wrong"});
    assert_eq!(stolen.post("/auth/second-factor/confirm", wrong).await.problem().1, "unauthenticated");
    let refused = "select count(*) from audit_log where outcome = 'refused' and action like 'auth.second_factor%'";
    assert_eq!(world.count(refused).await, 2);
    assert_eq!(world.count("select failures::bigint from sign_in_failures where subject like 'login/%'").await, 1);
    confirm(&anna, json!({"password": PASSWORD})).await.expect(200);
    // Whoever else held a session of the user does so no more.
    crate::world::until_shut_out(&stolen, "/locations").await;
    anna.get("/locations").await.expect(200);
    let done = "select count(*) from audit_log where outcome = 'done' and action = 'auth.second_factor'";
    assert_eq!(world.count(done).await, 2, "the owner's and this one");
}
