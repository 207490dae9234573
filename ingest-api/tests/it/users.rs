//! Users and grants: who may make whom.

use serde_json::json;
use sqlx::PgPool;

use crate::world::{text, world};

#[sqlx::test(migrations = "../migrations/postgres")]
async fn managers_look_after_the_cashiers_of_their_own_locations(pool: PgPool) {
    let world = world(&pool).await;
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    let grant = |role: &str, location: Option<&str>| json!([{"role": role, "location_id": location}]);
    let new = |code: &str, grants| json!({"login": code, "code": code, "grants": grants});
    for grants in [
        grant("owner", None),
        grant("manager", Some(&world.here)),
        grant("cashier", None),
        grant("cashier", Some(&world.there)),
        json!([]),
    ] {
        assert_eq!(manager.post("/users", new("x", grants.clone())).await.problem().0, 403, "{grants}");
    }
    let cashier = manager.post("/users", new("anna", grant("cashier", Some(&world.here)))).await.expect(201);
    let path = format!("/users/{}", text(&cashier, "user_id"));
    assert_eq!(cashier["has_password"], false);
    let answer = manager.patch(&path, "\"1\"", json!({"grants": [{"role": "owner", "location_id": null}]})).await;
    assert_eq!(answer.problem().0, 403);
    let edited = manager.patch(&path, "\"1\"", json!({"code": "anna2"})).await;
    assert_eq!(edited.expect(200)["code"], "anna2");
    assert_eq!(edited.etag(), "\"2\"");
    // The owner is out of the manager's reach and sight.
    let owner = format!("/users/{}", world.owner_login.user_id);
    assert_eq!(manager.patch(&owner, "\"1\"", json!({"code": "z"})).await.problem().0, 404);
    assert_eq!(manager.get(&owner).await.problem().0, 404);
    let seen = manager.get("/users").await.expect(200);
    assert_eq!(seen["items"].as_array().unwrap().len(), 2, "{seen}");
    assert_eq!(world.owner.get("/users").await.expect(200)["items"].as_array().unwrap().len(), 3);
    // Taken codes and unknown locations are named.
    let twin = world.owner.post("/users", new("anna2", json!([]))).await;
    assert_eq!(twin.problem(), (409, "already_exists".into(), "/code".into()));
    let nowhere = grant("cashier", Some("0190a6c0-0000-7000-8000-000000000000"));
    let answer = world.owner.post("/users", new("bea", nowhere)).await;
    assert_eq!(answer.problem(), (422, "invalid_value".into(), "/grants/0/location_id".into()));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_last_owner_who_can_log_in_stays(pool: PgPool) {
    let world = world(&pool).await;
    let deputy = json!({"login": "deputy", "code": "D", "grants": [{"role": "owner"}]});
    let deputy = world.owner.post("/users", deputy).await.expect(201);
    let boss = format!("/users/{}", world.owner_login.user_id);
    let leave = async || world.owner.patch(&boss, "\"1\"", json!({"is_active": false})).await;
    assert_eq!(leave().await.problem(), (409, "illegal_transition".into(), String::new()));
    let path = format!("/users/{}/password-reset", text(&deputy, "user_id"));
    let code = text(&world.owner.send("POST", &path, &[], None).await.expect(201), "code");
    let reset = json!({"login": "deputy", "code": code, "new_password": "a long enough password"});
    world.nobody().post("/auth/password-reset", reset).await.expect(200);
    leave().await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn members_are_numbers_with_an_account(pool: PgPool) {
    let world = world(&pool).await;
    let member = world.owner.post("/members", json!({"external_id": "c-1"})).await.expect(201);
    let id = text(&member, "customer_id");
    assert!(text(&member, "member_number").starts_with('M'));
    let loyalty = world.owner.get(&format!("/members/{id}/loyalty")).await.expect(200);
    assert_eq!(loyalty["accounts"][0]["points"], 0);
    assert_eq!(loyalty["accounts"].as_array().unwrap().len(), 1);
    let rows: Vec<_> = (0..10_000).map(|i| json!({"external_id": format!("c-{i}")})).collect();
    let first = world.owner.post("/members/upsert", json!({"members": rows})).await.expect(200);
    assert_eq!((first["created"].as_i64(), first["unchanged"].as_i64()), (Some(9_999), Some(1)));
    let second = world.owner.post("/members/upsert", json!({"members": rows})).await.expect(200);
    assert_eq!((second["created"].as_i64(), second["members"].clone()), (Some(0), first["members"].clone()));
    assert_eq!(first["members"][1]["customer_id"], id);
    assert_eq!(world.count("select count(*) from loyalty_accounts").await, 10_000);
    // A number that somebody has, and one given twice: nothing is stored, each row is named.
    let number = text(&first["members"][7], "member_number");
    let taken = json!({"members": [{"external_id": "new-1"}, {"external_id": "new-2", "member_number": number},
        {"external_id": "new-3", "member_number": "X-1"}, {"external_id": "new-4", "member_number": "X-1"}]});
    let taken = world.owner.post("/members/upsert", taken).await;
    assert_eq!(taken.problem(), (409, "already_exists".into(), "/members/1/member_number".into()));
    assert_eq!(taken.json()["errors"][1]["pointer"], "/members/3/member_number");
    assert_eq!(world.count("select count(*) from loyalty_accounts").await, 10_000);
    let twin = world.owner.post("/members", json!({"external_id": "c-1"})).await;
    assert_eq!(twin.problem(), (409, "already_exists".into(), "/external_id".into()));
    let named = world.owner.post("/members", json!({"name": "Anna", "email": "a@example.org"})).await;
    assert_eq!(named.problem(), (422, "unknown_field".into(), "/name".into()));
    // Pages hold together over the whole list.
    let (mut seen, mut path) = (0, "/members?limit=500".to_owned());
    loop {
        let page = world.owner.get(&path).await.expect(200);
        seen += page["items"].as_array().unwrap().len();
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/members?limit=500&cursor={cursor}");
    }
    assert_eq!(seen, 10_000);
    let found = world.owner.get("/members?external_id=c-77").await.expect(200);
    assert_eq!(found["items"][0]["external_id"], "c-77");
}
