//! Acts that ask for a fresh proof.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::second_factor::with_code;
use crate::world::{Caller, PASSWORD, World, authenticator, enrol_factor, sign_in, text, until_shut_out, world};

async fn minutes_pass(pool: &PgPool) {
    sqlx::query("update sessions set proved_at = proved_at - interval '5 minutes 1 second'")
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("update second_factors set last_step = 0").execute(pool).await.unwrap();
}

/// Method, path, body; and the ETag's path where there is one.
type Act = (&'static str, String, Value, Option<String>);

async fn acts(world: &World) -> Vec<Act> {
    let user = world.new_user("target", "cashier", Some(&world.here)).await;
    let body = json!({"name": "shop system", "permissions": ["read_catalog"]});
    let client = world.owner.post("/api-clients", body).await.expect(201);
    let (client, secret) = (text(&client, "client_id"), text(&client, "secret_id"));
    let target = sign_in(&world.nobody(), "target", PASSWORD).await.caller;
    enrol_factor(&target).await;
    let mut members = Vec::new();
    for _ in 0..2 {
        members.push(text(&world.owner.post("/members", json!({})).await.expect(201), "customer_id"));
    }
    let member = |act: &str| format!("/members/{}/{act}", members[0]);
    let role = |name: &str| json!({"name": name, "rules": [{"permission": "sell", "mode": "allow"}]});
    let role_path = format!("/roles/{}", text(&world.owner.post("/roles", role("one")).await.expect(201), "role"));
    let user_path = format!("/users/{user}");
    let client_path = format!("/api-clients/{client}");
    vec![
        (
            "PATCH",
            user_path.clone(),
            json!({"grants": [{"role": "manager", "location_id": world.here}]}),
            Some(user_path.clone()),
        ),
        (
            "POST",
            "/users".into(),
            json!({"login": "m", "code": "m", "grants": [{"role": "manager", "location_id": world.here}]}),
            None,
        ),
        ("POST", format!("{user_path}/second-factor/reset"), Value::Null, None),
        ("POST", format!("{user_path}/password-reset"), Value::Null, None),
        ("POST", format!("{user_path}/pin"), json!({"pin": "2580"}), None),
        ("POST", format!("{user_path}/unlock"), Value::Null, None),
        ("POST", "/auth/unlock-address".into(), json!({"address": "192.0.2.1"}), None),
        ("POST", member("merge"), json!({"absorbed_id": members[1], "reason": "duplicate"}), None),
        ("GET", member("export"), Value::Null, None),
        ("POST", member("erasure"), json!({"reason": "request"}), None),
        ("POST", "/auth/second-factor".into(), Value::Null, None),
        ("POST", "/auth/recovery-codes".into(), Value::Null, None),
        ("PATCH", "/sign-in-policy".into(), json!({"lease_hours": 24}), Some("/sign-in-policy".into())),
        ("POST", "/roles".into(), role("another"), None),
        ("PUT", role_path.clone(), role("renamed"), Some(role_path)),
        ("POST", "/api-clients".into(), json!({"name": "another", "permissions": ["read_catalog"]}), None),
        ("PATCH", client_path.clone(), json!({"name": "renamed"}), Some(client_path.clone())),
        ("POST", format!("{client_path}/secrets"), json!({}), None),
        ("POST", format!("/api-client-secrets/{secret}/end"), Value::Null, None),
    ]
}

async fn send(caller: &Caller, (method, path, body, tagged): &Act) -> crate::world::Answer {
    let etag = match tagged {
        Some(path) => caller.get(path).await.etag(),
        None => String::new(),
    };
    let body = (!body.is_null()).then(|| body.to_string().into_bytes());
    caller.send(method, path, &[("if-match", &etag)], body.as_deref()).await
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn step_up_required_matrix(pool: PgPool) {
    let world = world(&pool).await;
    let acts = acts(&world).await;
    minutes_pass(&pool).await;
    for act in &acts {
        let answer = send(&world.owner, act).await;
        assert_eq!(answer.problem(), (403, "reauth_required".into(), String::new()), "{} {}", act.0, act.1);
    }
    let refused = "select count(*) from audit_log where outcome = 'refused' and action like 'refused.%'";
    assert_eq!(world.count(refused).await, acts.len() as i64, "each is audited");
    // What changes nobody's rights goes on.
    let cashier = json!({"login": "c", "code": "c", "grants": [{"role": "cashier", "location_id": world.here}]});
    world.owner.post("/users", cashier).await.expect(201);
    let step_up = async |code: String| world.owner.post("/auth/step-up", json!({"totp": code})).await;
    with_code(&world.owner_factor, step_up).await.expect(200);
    for act in &acts {
        let answer = send(&world.owner, act).await;
        assert!(answer.status.is_success(), "{} {}: {}", act.0, act.1, answer.text());
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_step_up_takes_all_that_a_user_can_prove(pool: PgPool) {
    let world = world(&pool).await;
    let anna = world.user("anna", "manager", Some(&world.here)).await;
    let prove = async |body: Value| anna.post("/auth/step-up", body).await;
    assert_eq!(prove(json!({})).await.problem().0, 422);
    assert_eq!(prove(json!({"password": "wrong"})).await.problem().0, 401);
    prove(json!({"password": PASSWORD})).await.expect(200);
    let before = chrono::Utc::now();
    let (confirmed, factor) = enrol_factor(&anna).await;
    // With a second factor the password is not enough, and a used code is none, nor one of the half minute before.
    assert_eq!(prove(json!({"password": PASSWORD})).await.problem().0, 401);
    assert_eq!(prove(json!({"totp": factor.code(before)})).await.problem().0, 401);
    let code = &confirmed["recovery_codes"][0];
    prove(json!({"recovery_code": code})).await.expect(200);
    assert_eq!(prove(json!({"recovery_code": code})).await.problem().0, 401);
    // Ten guesses lock the name, from whichever session.
    sqlx::query("update sign_in_failures set failures = 9").execute(&pool).await.unwrap();
    assert_eq!(prove(json!({"totp": "000000"})).await.problem().0, 401);
    minutes_pass(&pool).await;
    let locked = with_code(&factor, async |code| prove(json!({"totp": code})).await).await;
    assert_eq!(locked.problem().1, "locked");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_proof_belongs_to_its_session(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "manager", Some(&world.here)).await;
    let old = sign_in(&world.nobody(), "anna", PASSWORD).await.caller;
    let (_, factor) = enrol_factor(&old).await;
    minutes_pass(&pool).await;
    let log_in = async |code: String| {
        world.nobody().post("/auth/login", json!({"login": "anna", "password": PASSWORD, "totp": code})).await
    };
    let new = with_code(&factor, log_in).await.expect(200);
    let new = world.with_token(&text(&new, "access_token"));
    minutes_pass(&pool).await;
    sqlx::query(
        "update sessions set proved_at = now() where session_id = (select max(session_id::text)::uuid from sessions)",
    )
    .execute(&pool)
    .await
    .unwrap();
    for path in ["/auth/recovery-codes", "/auth/second-factor/remove"] {
        assert_eq!(old.send("POST", path, &[], None).await.problem().1, "reauth_required", "{path}");
    }
    // What one session offers, another one without a proof cannot put in the place of the factor there is.
    let offered = new.send("POST", "/auth/second-factor", &[], None).await.expect(200);
    let confirm =
        async |caller: &Caller, code: String| caller.post("/auth/second-factor/confirm", json!({"totp": code})).await;
    let factor = authenticator(&text(&offered, "secret"));
    let code = factor.code(chrono::Utc::now());
    assert_eq!(confirm(&old, code).await.problem().1, "reauth_required");
    with_code(&factor, async |code| confirm(&new, code).await).await.expect(200);
    for path in ["/auth/recovery-codes", "/auth/second-factor/remove"] {
        new.send("POST", path, &[], None).await.expect(200);
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn five_wrong_proofs_in_a_row_end_the_session(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "manager", Some(&world.here)).await;
    let session = async || sign_in(&world.nobody(), "anna", PASSWORD).await.caller;
    let (anna, guesser) = (session().await, session().await);
    let prove = async |password: &str| guesser.post("/auth/step-up", json!({"password": password})).await;
    for _ in 0..4 {
        assert_eq!(prove("wrong").await.problem().0, 401);
    }
    prove(PASSWORD).await.expect(200);
    for _ in 0..5 {
        guesser.get("/locations").await.expect(200);
        assert_eq!(prove("wrong").await.problem().0, 401);
    }
    assert_eq!(prove(PASSWORD).await.problem().0, 401, "at once, whatever the door remembers");
    until_shut_out(&guesser, "/locations").await;
    anna.get("/locations").await.expect(200);
    let ended = "select count(*) from audit_log where action = 'auth.step_up' and reason = 'the session is ended'";
    assert_eq!(world.count(ended).await, 1);
}
