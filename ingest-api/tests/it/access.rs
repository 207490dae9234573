//! Who may do what, where: every route, every refusal.

use std::collections::HashSet;

use axum::body::Body;
use axum::http::Request;
use ingest_api::access::Permission;
use ingest_api::router::{BASE, Route, routes};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::matrix::ENDS_SESSION;
use crate::world::{until_shut_out, world};

/// The path of a route with identifiers that exist nowhere.
fn concrete(path: &str) -> String {
    let mut out = String::new();
    for (i, part) in path.split(['{', '}']).enumerate() {
        if i % 2 == 0 { out.push_str(part) } else { out.push_str(&Uuid::now_v7().to_string()) }
    }
    out
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_route_has_a_permission(pool: PgPool) {
    let world = world(&pool).await;
    let mut seen = HashSet::new();
    let public = [
        "/auth/login",
        "/auth/refresh",
        "/auth/password-reset",
        "/auth/terminal-token",
        "/auth/client-token",
        "/auth/jwks",
        "/enrolments",
    ];
    for route in routes() {
        assert!(seen.insert((route.method.clone(), route.path)), "{} {} twice", route.method, route.path);
        let is_public = route.permission == Permission::Public;
        assert_eq!(is_public, public.contains(&route.path), "{} {}", route.method, route.path);
        if is_public {
            continue;
        }
        let path = concrete(route.path);
        for caller in [world.nobody(), world.with_token("garbage"), world.with_token("a.b.c")] {
            let answer = caller.send(route.method.as_str(), &path, &[], None).await;
            assert_eq!(answer.problem().1, "unauthenticated", "{} {}", route.method, route.path);
            assert_eq!(answer.status, 401);
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert!(seen.len() > 35, "the table was walked: {}", seen.len());
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_role_reaches_exactly_the_routes_of_the_table(pool: PgPool) {
    use ingest_api::access::Role;
    let world = world(&pool).await;
    let mut callers = Vec::new();
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Owner) {
        callers.push((Some(role), world.user(role.as_str(), role.as_str(), Some(&world.here)).await));
    }
    callers.push((None, world.till(&world.here, "1").await.2));
    // Whose session is over is nobody on the routes after it; the access matrix tries those.
    let is_tried = |route: &Route| route.permission != Permission::Public && !ENDS_SESSION.contains(&route.path);
    for route in routes().into_iter().filter(is_tried) {
        for (role, caller) in &callers {
            let may = match role {
                Some(role) => route.permission.is_held_by(*role),
                None => route.permission.is_for_terminals(),
            };
            let answer = caller.send(route.method.as_str(), &concrete(route.path), &[], None).await;
            let is_barred = answer.status == 403 && answer.text().contains("you do not hold the permission");
            assert_eq!(is_barred, !may, "{role:?} on {} {}: {}", route.method, route.path, answer.text());
        }
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn another_location_is_404_in_a_path_and_403_when_named(pool: PgPool) {
    let world = world(&pool).await;
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    let (_, _, till) = world.till(&world.here, "1").await;
    let (other_terminal, _, _) = world.till(&world.there, "1").await;
    let there = &world.there;
    let absent = Uuid::now_v7();
    for caller in [&manager, &till] {
        for path in
            [format!("/locations/{there}"), format!("/terminals/{other_terminal}"), format!("/terminals/{absent}")]
        {
            assert_eq!(caller.get(&path).await.problem().0, 404, "{path}");
        }
        for location in [there.as_str(), &absent.to_string()] {
            for path in [
                format!("/stock?location_id={location}"),
                format!("/stock/movements?location_id={location}"),
                format!("/changes?location={location}"),
                format!("/terminals?location_id={location}"),
            ] {
                assert_eq!(caller.get(&path).await.problem().0, 403, "{path}");
            }
        }
        let listed = caller.get("/locations").await.expect(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(caller.get("/terminals").await.expect(200)["items"].as_array().unwrap().len(), 1);
    }
    let receipt =
        json!({"location_id": there, "reason": "receipt", "lines": [{"variant_id": world.variants[0], "qty": 1000}]});
    assert_eq!(manager.post_keyed("/stock/receipts", "k", &receipt).await.problem().0, 403);
    assert_eq!(
        manager
            .get(&format!("/reports/kpis?group_by=day&from=2026-01-01&to=2026-01-02&location_id={there}"))
            .await
            .problem()
            .0,
        403
    );
    assert_eq!(world.count("select count(*) from stock_movements").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_refused_act_leaves_an_audit_row_and_nothing_else(pool: PgPool) {
    let world = world(&pool).await;
    let cashier = world.user("cashier", "cashier", Some(&world.here)).await;
    let before = world.count("select count(*) from audit_log").await;
    let body = json!({"location_id": world.here, "reason": "damage", "lines": [{"variant_id": world.variants[0], "delta": -1000}]});
    let answer = cashier.post_keyed("/stock/adjustments", "k", &body).await;
    assert_eq!(answer.problem(), (403, "forbidden".into(), String::new()));
    assert_eq!(world.count("select count(*) from audit_log").await, before + 1);
    let (action, target, outcome): (String, String, String) =
        sqlx::query_as("select action, target, outcome from audit_log order by recorded_at desc limit 1")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!((action.as_str(), outcome.as_str()), ("refused.AdjustStock", "refused"));
    assert_eq!(target, "POST /stock/adjustments");
    assert_eq!(world.count("select count(*) from stock_acts").await, 0);
    assert_eq!(world.count("select count(*) from idempotency_keys").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_the_router_itself_refuses_is_a_problem_too(pool: PgPool) {
    let world = world(&pool).await;
    let owner = &world.owner;
    assert_eq!(owner.get("/nothing").await.problem().1, "not_found");
    assert_eq!(owner.send("PUT", "/locations", &[], None).await.problem().1, "method_not_allowed");
    assert_eq!(owner.send("TRACE", "/locations", &[], None).await.problem().0, 405);
    assert_eq!(owner.send("DELETE", "/locations", &[("x-http-method-override", "GET")], None).await.problem().0, 405);
    assert_eq!(owner.send("GET", "/locations", &[("accept", "image/png")], None).await.problem().1, "not_acceptable");
    assert_eq!(owner.send("GET", "/locations", &[("x-filler", &"x".repeat(20_000))], None).await.problem().0, 431);
    assert_eq!(owner.get(&format!("/locations?cursor={}", "x".repeat(16_000))).await.problem().0, 414);
    // Of two tokens neither counts.
    assert_eq!(owner.send("GET", "/locations", &[("authorization", "Bearer x")], None).await.problem().0, 401);
    let outside = Request::builder().uri("/nowhere").body(Body::empty()).unwrap();
    assert_eq!(owner.raw(outside).await.problem().0, 404);
    let answer = owner.send("GET", "/locations", &[("x-request-id", "till-7")], None).await;
    assert_eq!(answer.headers["x-request-id"], "till-7");
    assert!(BASE.starts_with("/api/"));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_token_is_worth_nothing_once_its_user_is_inactive(pool: PgPool) {
    let world = world(&pool).await;
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    manager.get("/locations").await.expect(200);
    let user = world.owner.get("/users").await.expect(200)["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["login"] == "manager")
        .cloned()
        .unwrap();
    let path = format!("/users/{}", user["user_id"].as_str().unwrap());
    world.owner.patch(&path, "\"1\"", json!({"is_active": false})).await.expect(200);
    until_shut_out(&manager, "/locations").await;
    let again =
        world.nobody().post("/auth/login", json!({"login": "manager", "password": "a long enough password"})).await;
    assert_eq!(again.problem().1, "unauthenticated");
}
