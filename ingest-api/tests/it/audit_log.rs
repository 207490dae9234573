//! Who finds what in the audit log: every act and every refusal leaves its row, and each reader sees what is theirs.

use axum::http::Method;
use ingest_api::access::{Permission, Role};
use ingest_api::access_matrix::{Caller as Column, Outcome, outcome};
use ingest_api::router::routes;
use ingest_api::verify::{Report, audited, cards};
use schemas::ids::LocationId;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::matrix::{Matrix, is_served, send};
use crate::world::{Caller, World, world};

/// Rows of the log, and the newest: action and outcome.
async fn newest(pool: &PgPool) -> (i64, String, String) {
    sqlx::query_as(
        "select count(*) over (), action, outcome from audit_log order by recorded_at desc, audit_id desc limit 1",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_route_that_does_something_leaves_a_row(pool: PgPool) {
    let matrix = Matrix::new(&pool).await;
    let own = LocationId(matrix.own.location.parse().unwrap());
    let mut walked = 0;
    for route in routes().into_iter().filter(|route| route.method != Method::GET) {
        let columns = [Column::Everywhere(Role::Owner), Column::Terminal];
        let may = |column: &Column| outcome(&route, column.principal(own).as_ref(), own) == Outcome::Served;
        let column = columns.into_iter().find(may).expect("an owner or a till may do everything");
        let who = matrix.caller(column).await;
        let ask = matrix.ask(&route, &matrix.own, &who).await;
        let (before, ..) = newest(&pool).await;
        let answer = send(&who.caller, &route, &ask, "").await;
        assert!(is_served(&route, &answer), "{} {}: {}", route.method, route.path, answer.text());
        let (after, action, outcome) = newest(&pool).await;
        walked += 1;
        // A quote or a preview does nothing, and neither does what was refused for what it is.
        if route.path == "/quotes" || route.path.ends_with("/preview") || !answer.status.is_success() {
            assert_eq!(after, before, "{} {} left {action}", route.method, route.path);
        } else {
            assert!(after > before, "{} {} left no row", route.method, route.path);
            assert_eq!(outcome, "done", "{} {}: {action}", route.method, route.path);
        }
    }
    assert!(walked > 18, "the table was walked: {walked}");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_refusal_leaves_a_row(pool: PgPool) {
    let matrix = Matrix::new(&pool).await;
    let mut callers = Vec::new();
    for role in Role::ALL {
        callers.push((role, matrix.caller(Column::Here(role)).await));
    }
    let mut refused = 0;
    for route in routes().into_iter().filter(|route| route.permission != Permission::Public) {
        for (role, who) in callers.iter().filter(|(role, _)| !route.permission.is_held_by(*role)) {
            let ask = matrix.ask(&route, &matrix.own, who).await;
            let (before, ..) = newest(&pool).await;
            let answer = send(&who.caller, &route, &ask, "").await;
            assert_eq!(answer.problem().0, 403, "{role:?} {} {}", route.method, route.path);
            let (after, action, outcome) = newest(&pool).await;
            let told = (after - before, action, outcome.as_str());
            let expected = (1, format!("refused.{:?}", route.permission), "refused");
            assert_eq!(told, expected, "{role:?} {} {}", route.method, route.path);
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused} refusals");
}

async fn items(caller: &Caller, query: &str) -> Vec<Value> {
    caller.get(&format!("/audit?limit=500{query}")).await.expect(200)["items"].as_array().unwrap().clone()
}

fn actions(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["action"].as_str().unwrap()).collect()
}

async fn busy(pool: &PgPool) -> World {
    let world = world(pool).await;
    for (n, location) in [&world.here, &world.there].into_iter().enumerate() {
        world.terminal(location, "1").await;
        let body = json!({"location_id": location, "reason": "found", "lines": [{"variant_id": world.variants[0], "delta": 1000}]});
        world.owner.post_keyed("/stock/adjustments", &n.to_string(), &body).await.expect(201);
    }
    world
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn each_reader_sees_what_is_theirs(pool: PgPool) {
    let world = busy(&pool).await;
    let owner = items(&world.owner, "").await;
    for action in
        ["stock.adjustment", "terminal.create", "location.create", "user.create_owner", "auth.login", "catalog.upsert"]
    {
        assert!(actions(&owner).contains(&action), "{action}: {:?}", actions(&owner));
    }
    let manager = items(&world.user("manager", "manager", Some(&world.here)).await, "").await;
    assert!(
        !manager.is_empty() && manager.iter().all(|item| item["location_id"] == world.here.as_str()),
        "{manager:?}"
    );
    assert!(actions(&manager).contains(&"stock.adjustment"));

    let technician = world.user("technician", "it_admin", None).await;
    technician.post("/members", json!({})).await.problem();
    let seen = items(&technician, "").await;
    for action in ["terminal.create", "location.create", "auth.login"] {
        assert!(actions(&seen).contains(&action), "{action}");
    }
    let closed = ["stock.", "user.", "catalog.", "price.", "tax_profile.", "sale.", "member.", "refused.CreateMembers"];
    let leaked: Vec<_> = actions(&seen).into_iter().filter(|it| closed.iter().any(|at| it.starts_with(at))).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    let local = items(&world.user("local", "it_admin", Some(&world.there)).await, "").await;
    assert!(actions(&local).contains(&"terminal.create"));
    assert!(local.iter().all(|item| item["location_id"] == world.there.as_str()), "{local:?}");

    let cashier = world.user("cashier", "cashier", Some(&world.here)).await;
    assert_eq!(cashier.get("/audit").await.problem().0, 403);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn filters_narrow_and_pages_follow(pool: PgPool) {
    let world = busy(&pool).await;
    let all = items(&world.owner, "").await;
    let one = items(&world.owner, "&action=stock.adjustment").await;
    assert_eq!(one.len(), 2);
    assert_eq!(items(&world.owner, "&action=stock.").await.len(), 2);
    assert!(items(&world.owner, "&action=stock").await.is_empty(), "a name is whole");
    let row = &one[0];
    let by = async |name: &str, value: &str| items(&world.owner, &format!("&{name}={value}")).await;
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    assert_eq!(by("target", &text("target")).await, std::slice::from_ref(row));
    assert_eq!(by("location_id", &world.there).await.iter().filter(|it| it["action"] == "stock.adjustment").count(), 1);
    assert!(by("actor", &text("actor")).await.len() > 5);
    assert!(by("actor", "00000000-0000-0000-0000-00000000beef").await.is_empty());
    assert!(by("outcome", "refused").await.is_empty());
    let at = text("recorded_at");
    assert_eq!(items(&world.owner, &format!("&from={at}&action=stock.adjustment")).await.len(), 1);
    assert_eq!(items(&world.owner, &format!("&to={at}&action=stock.adjustment")).await.len(), 1);

    // Newest first, page by page, the same rows. The readings themselves come above where the pages begin.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    let until = all[0]["recorded_at"].as_str().unwrap();
    loop {
        let page = world.owner.get(&format!("/audit?limit=3&to={until}{cursor}")).await.expect(200);
        paged.extend(page["items"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, all[1..]);
    let bent = world.owner.get(&format!("/audit?limit=3{cursor}")).await;
    assert_eq!(bent.problem().1, "malformed", "a cursor of another filter");
    for bad in ["limit=0", "outcome=maybe", "actor=x", "colour=red", "from=yesterday", "action=%00"] {
        assert_eq!(world.owner.get(&format!("/audit?{bad}")).await.problem().0, 422, "{bad}");
    }
    let there = world.user("manager", "manager", Some(&world.here)).await;
    assert_eq!(there.get(&format!("/audit?location_id={}", world.there)).await.problem().0, 403);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn reading_the_log_stands_in_the_log(pool: PgPool) {
    let world = world(&pool).await;
    items(&world.owner, "&action=auth.login").await;
    let read = items(&world.owner, "&action=audit.read").await;
    assert_eq!(read.len(), 2, "this very reading too: {read:?}");
    assert!(read[1]["reason"].as_str().unwrap().contains("auth.login"), "{read:?}");
}

/// What I21 and I24 name, before and after each of these was done past the application.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn acts_without_a_row_and_card_numbers_are_named(pool: PgPool) {
    let matrix = Matrix::new(&pool).await;
    let body = json!({"location_id": matrix.own.location, "reason": "found",
                      "lines": [{"variant_id": matrix.world.variants[0], "delta": 1000}]});
    matrix.world.owner.post_keyed("/stock/adjustments", "k", &body).await.expect(201);
    let owner = &matrix.world.owner;
    let [kept, absorbed] = [matrix.another_member().await, matrix.another_member().await];
    let merge = json!({"absorbed_id": absorbed, "reason": "duplicate"});
    owner.post(&format!("/members/{kept}/merge"), merge).await.expect(200);
    owner.post(&format!("/members/{kept}/erasure"), json!({"reason": "request"})).await.expect(200);
    let named = async || {
        let mut report = Report::default();
        audited::check(&pool, &mut report).await.unwrap();
        cards::check(&pool, &mut report).await.unwrap();
        report.checks.into_iter().flat_map(|check| check.named).collect::<Vec<_>>()
    };
    assert_eq!(named().await, Vec::<String>::new());
    let mut seen = Vec::new();
    for (sql, expected) in [
        ("delete from audit_log where action = 'stock.adjustment'", "adjustment "),
        (
            "update audit_log set actor = gen_random_uuid() where ctid = (select min(ctid) from audit_log where action = 'sale.create')",
            "document ",
        ),
        ("delete from audit_log where action = 'terminal.enrol'", "terminal "),
        ("delete from audit_log where action like 'user.%'", "user "),
        ("delete from audit_log where action = 'location.create'", "location "),
        ("delete from audit_log where action = 'member.merge'", ": merged"),
        ("delete from audit_log where action = 'member.erase'", ": erased"),
        ("insert into epochs (epoch, reason) values (2, 'x')", "epoch 2"),
        ("update document_tenders set psp_reference = 'tok 4111 1111 1111 1111' where tender_no = 1", "tender 1"),
        ("update document_lines set override_reason = '4111-1111-1111-1111' where line_no = 1", "line 1"),
    ] {
        let past = format!("begin; set local session_replication_role = replica; {sql}; commit");
        sqlx::raw_sql(sqlx::AssertSqlSafe(past)).execute(&pool).await.unwrap();
        let now = named().await;
        let new: Vec<_> = now.iter().filter(|name| !seen.contains(*name)).collect();
        assert!(new.iter().any(|name| name.contains(expected)), "{sql}: {now:?}");
        let is_number = |name: &String| name.contains("4111 1111") || name.contains("4111-1111");
        assert!(!now.iter().any(is_number), "where, never what: {now:?}");
        seen = now;
    }
}
