//! Roles of the company's own: who makes them, of what, and how fast a change holds.

use ingest_api::access::{Permission, Role};
use ingest_api::limits::{Ceiling, Mode, Rule};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::limits::{Till, discounts, seller};
use crate::world::{log_in, text, until_shut_out, world};

#[sqlx::test(migrations = "../migrations/postgres")]
async fn custom_role_cut_is_judged_within_a_second(pool: PgPool) {
    let world = world(&pool).await;
    let rules = [Rule::new(Permission::AdjustStock, Mode::Allow), Rule::new(Permission::Sell, Mode::Allow)];
    let role = world.new_role("stock keeper", &rules).await;
    let user = world.user("kim", &role, Some(&world.here)).await;
    let adjust = json!({"location_id": world.here, "reason": "found",
                        "lines": [{"variant_id": world.variants[0], "delta": 1000}]});
    user.post_keyed("/stock/adjustments", "1", &adjust).await.expect(201);
    assert_eq!(user.get("/stock").await.problem().0, 403, "the role says nothing of reading");
    assert_eq!(user.get("/auth/account").await.status, 200, "one's own account belongs to every role");
    let feed = world.owner.get("/catalog/changes?limit=5000").await.expect(200);
    let sells_at = |feed: &Value| {
        let items = feed["items"].as_array().unwrap().clone();
        let mine = items.into_iter().rfind(|item| item["kind"] == "cashier" && item["body"]["code"] == "kim");
        mine.unwrap()["body"]["sells_at"].clone()
    };
    assert_eq!(sells_at(&feed), json!([world.here]));

    let path = format!("/roles/{role}");
    let etag = world.owner.get(&path).await.etag();
    let less = json!({"name": "stock keeper", "rules": [{"permission": "read_stock", "mode": "allow"}]});
    world.owner.put(&path, &etag, less.clone()).await.expect(200);
    until_shut_out(&user, "/auth/account").await;
    let user = log_in(&world.nobody(), "kim", crate::world::PASSWORD).await;
    assert_eq!(user.post_keyed("/stock/adjustments", "2", &adjust).await.problem().0, 403);
    user.get("/stock").await.expect(200);
    let feed = world.owner.get("/catalog/changes?limit=5000").await.expect(200);
    assert_eq!(sells_at(&feed), json!([]), "tills are told");
    assert_eq!(world.owner.put(&path, &etag, less.clone()).await.problem().1, "stale_version");
    assert_eq!(world.owner.put(&path, "", less).await.problem().0, 428);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_cashier_of_a_cut_role_sells_no_more_at_once(pool: PgPool) {
    let world = world(&pool).await;
    let till = Till::new(&world, &world.here, "1").await;
    let role = world.new_role("seller", &seller(discounts())).await;
    let cashier = world.new_user("anna", &role, Some(&world.here)).await;
    till.sell(&till.discounted(&world, &cashier, "90", 25)).await.expect(201);
    let roles: Vec<String> = sqlx::query_scalar("select actor_role from audit_log where action = 'sale.create'")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(roles, ["seller"], "by its name");
    let path = format!("/roles/{role}");
    let put = async |rules: Value| {
        let etag = world.owner.get(&path).await.etag();
        world.owner.put(&path, &etag, json!({"name": "seller", "rules": rules})).await.expect(200);
    };
    put(json!([{"permission": "sell", "mode": "allow"},
               {"permission": "discount_lines", "mode": "allow", "ceilings": [{"currency": "EUR", "amount_minor": 24}]}]))
    .await;
    till.sell(&till.discounted(&world, &cashier, "9", 228)).await.expect(201);
    assert_eq!(till.sell(&till.discounted(&world, &cashier, "10", 225)).await.problem().1, "approval_required");
    put(json!([{"permission": "read_stock", "mode": "allow"}])).await;
    assert_eq!(till.sell(&till.sale(&world, &cashier)).await.problem().0, 403);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn nobody_gives_a_role_more_than_they_hold(pool: PgPool) {
    let world = world(&pool).await;
    let limited = Rule {
        percent_max: Some(20),
        ceilings: Some(vec![Ceiling { currency: "EUR".into(), amount_minor: 500 }]),
        per_shift: Some(5),
        ..discounts()
    };
    let rules = [
        Rule::new(Permission::ManageRoles, Mode::Allow),
        Rule::new(Permission::ReadRoles, Mode::Allow),
        Rule::new(Permission::AdjustStock, Mode::Approval),
        limited,
    ];
    let role = world.new_role("role maker", &rules).await;
    let maker = world.user("max", &role, None).await;
    let make = async |name: &str, rule: Value| maker.post("/roles", json!({"name": name, "rules": [rule]})).await;
    let fits = json!({"permission": "discount_lines", "mode": "allow", "percent_max": 20, "per_shift": 5,
                      "ceilings": [{"currency": "EUR", "amount_minor": 500}]});
    let made = make("fits", fits.clone()).await.expect(201);
    make("asks", json!({"permission": "adjust_stock", "mode": "approval"})).await.expect(201);
    for (field, value) in [
        ("percent_max", json!(21)),
        ("per_shift", json!(6)),
        ("percent_max", Value::Null),
        ("ceilings", json!([{"currency": "EUR", "amount_minor": 501}])),
        ("ceilings", Value::Null),
        ("ceilings", json!([{"currency": "USD", "amount_minor": 1}])),
    ] {
        let mut wider = fits.clone();
        wider[field] = value;
        assert_eq!(make("wider", wider).await.problem(), (403, "forbidden".into(), "/rules/0".into()));
    }
    for permission in ["adjust_stock", "sell", "manage_users"] {
        assert_eq!(make("more", json!({"permission": permission, "mode": "allow"})).await.problem().0, 403);
    }
    // Nor by changing one that exists.
    let path = format!("/roles/{}", text(&made, "role"));
    let etag = maker.get(&path).await.etag();
    let wider = json!({"name": "fits", "rules": [{"permission": "sell", "mode": "allow"}, fits]});
    assert_eq!(maker.put(&path, &etag, wider).await.problem(), (403, "forbidden".into(), "/rules/0".into()));
    // The same role held at one location only makes none: a role is the company's.
    let there = world.user("lou", &role, Some(&world.there)).await;
    assert_eq!(there.post("/roles", json!({"name": "x", "rules": [fits]})).await.problem().0, 403);
    // Only owners grant roles of the company's own.
    let manager = world.user("mia", "manager", Some(&world.here)).await;
    let user = json!({"login": "new", "code": "new", "grants": [{"role": role, "location_id": world.here}]});
    assert_eq!(manager.post("/users", user.clone()).await.problem().0, 403);
    sqlx::query("update sessions set proved_at = now() - interval '10 minutes'").execute(&pool).await.unwrap();
    assert_eq!(world.owner.post("/users", user).await.problem().1, "reauth_required");
    let late = json!({"name": "late", "rules": [{"permission": "sell", "mode": "allow"}]});
    assert_eq!(world.owner.post("/roles", late).await.problem().1, "reauth_required");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_role_is_checked_in_every_place(pool: PgPool) {
    let world = world(&pool).await;
    let rule = |extra: Value| {
        let mut rule = json!({"permission": "discount_lines", "mode": "allow"});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"name": "x", "rules": [rule]})
    };
    for (body, place) in [
        (json!({"name": "Cashier", "rules": [{"permission": "sell", "mode": "allow"}]}), "/name"),
        (json!({"name": "a, b", "rules": [{"permission": "sell", "mode": "allow"}]}), "/name"),
        (json!({"name": "x", "rules": []}), "/rules"),
        (json!({"name": "x", "rules": [{"permission": "own_account", "mode": "allow"}]}), "/rules/0/permission"),
        (json!({"name": "x", "rules": [{"permission": "public", "mode": "allow"}]}), "/rules/0/permission"),
        (json!({"name": "x", "rules": [{"permission": "sign_in_cashiers", "mode": "allow"}]}), "/rules/0/permission"),
        (json!({"name": "x", "rules": [{"permission": "fly", "mode": "allow"}]}), "/rules/0/permission"),
        (json!({"name": "x", "rules": [{"permission": "sell", "mode": "approval"}]}), "/rules/0/mode"),
        (
            json!({"name": "x", "rules": [{"permission": "sell", "mode": "allow", "per_shift": 1}]}),
            "/rules/0/per_shift",
        ),
        (rule(json!({"percent_max": 101})), "/rules/0/percent_max"),
        (rule(json!({"per_shift": -1})), "/rules/0/per_shift"),
        (rule(json!({"ceilings": []})), "/rules/0/ceilings"),
        (rule(json!({"ceilings": [{"currency": "EU", "amount_minor": 1}]})), "/rules/0/ceilings/0/currency"),
        (rule(json!({"ceilings": [{"currency": "EUR", "amount_minor": -1}]})), "/rules/0/ceilings/0/amount_minor"),
        (rule(json!({"permission": "adjust_stock", "percent_max": 5})), "/rules/0/percent_max"),
        (rule(json!({"version": 7})), "/rules/0/version"),
    ] {
        let answer = world.owner.post("/roles", body.clone()).await;
        let (status, _, pointer) = answer.problem();
        assert_eq!((status, pointer.as_str()), (422, place), "{body}: {}", answer.text());
    }
    let role = world.new_role("Lead", &[Rule::new(Permission::Sell, Mode::Allow)]).await;
    let again = json!({"name": "Lead", "rules": [{"permission": "sell", "mode": "allow"}]});
    assert_eq!(world.owner.post("/roles", again).await.problem(), (409, "already_exists".into(), "/name".into()));
    let listed = world.owner.get("/roles").await.expect(200);
    let named: Vec<String> = listed["items"].as_array().unwrap().iter().map(|it| text(it, "role")).collect();
    assert_eq!(named[..4], Role::ALL.map(|role| role.as_str().to_owned()));
    assert_eq!(named[4..], [role]);
    let user = json!({"login": "new", "code": "new", "grants": [{"role": uuid::Uuid::now_v7(), "location_id": null}]});
    assert_eq!(
        world.owner.post("/users", user).await.problem(),
        (422, "invalid_value".into(), "/grants/0/role".into())
    );
    assert_eq!(world.count("select count(*) from audit_log where action = 'role.create'").await, 1);
    // What only owners and IT admins hold makes a second factor compulsory.
    let technical = world.new_role("Technician", &[Rule::new(Permission::ManageTerminals, Mode::Allow)]).await;
    world.new_user("tec", &technical, None).await;
    let login = json!({"login": "tec", "password": crate::world::PASSWORD});
    world.nobody().post("/auth/login", login).await.expect(202);
}
