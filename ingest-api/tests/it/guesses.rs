//! Guessing, by whichever door: it is counted, and a lock hides what is behind it.

use serde_json::json;
use sqlx::PgPool;

use crate::passwords::{try_login, weaken};
use crate::world::{PASSWORD, until_shut_out, world};

#[sqlx::test(migrations = "../migrations/postgres")]
async fn whatever_tries_a_password_or_a_code_counts_against_its_name(pool: PgPool) {
    let world = world(&pool).await;
    let id = world.new_user("anna", "cashier", Some(&world.here)).await;
    let reset = json!({"login": "anna", "code": "AAAA-AAAA-AAAA-AAAA", "new_password": "a quite different password"});
    let change = json!({"old_password": "wrong", "new_password": "a quite different password"});
    for (path, guess) in [("/auth/password", change), ("/auth/password-reset", reset)] {
        let anna = crate::world::log_in(&world.nobody(), "anna", PASSWORD).await;
        for n in 0..10 {
            assert_eq!(anna.post(path, guess.clone()).await.problem().0, 401, "{path} {n}");
        }
        assert_eq!(anna.post(path, guess).await.problem().1, "locked", "{path}");
        assert_eq!(try_login(&world.nobody(), "anna", PASSWORD).await.problem().1, "locked", "{path}");
        world.owner.send("POST", &format!("/users/{id}/unlock"), &[], None).await.expect(200);
    }
}

/// Making a weak hash stronger costs another one, which would tell who waits.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn behind_a_lock_a_right_password_under_a_weak_hash_costs_no_more(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    for _ in 0..10 {
        try_login(&world.nobody(), "anna", "wrong").await;
    }
    let weak = weaken(&pool).await;
    for password in ["wrong", PASSWORD] {
        let before = world.app.auth.passwords.hashes();
        assert_eq!(try_login(&world.nobody(), "anna", password).await.problem().1, "locked", "{password}");
        assert_eq!(world.app.auth.passwords.hashes() - before, 1, "{password}");
    }
    let stored: String =
        sqlx::query_scalar("select password_hash from users where login = 'anna'").fetch_one(&pool).await.unwrap();
    assert_eq!(stored, weak);
}

/// Whoever asks for a reset may have lost a session to somebody else.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_reset_code_ends_every_session_when_it_is_made_and_when_it_is_used(pool: PgPool) {
    let world = world(&pool).await;
    let id = world.new_user("anna", "manager", Some(&world.here)).await;
    let session = async || crate::world::log_in(&world.nobody(), "anna", PASSWORD).await;
    let before = session().await;
    let made = world.owner.send("POST", &format!("/users/{id}/password-reset"), &[], None).await.expect(201);
    until_shut_out(&before, "/users").await;
    let between = session().await;
    let reset = json!({"login": "anna", "code": made["code"], "new_password": "a quite different password"});
    let ended = world.nobody().post("/auth/password-reset", reset).await.expect(200);
    assert_eq!(ended, json!({"sessions_ended": 1}));
    until_shut_out(&between, "/users").await;
}
