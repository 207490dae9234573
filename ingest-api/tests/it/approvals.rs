//! Approvals: by whom, for what, once, and what happens to every other one.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ingest_api::access::Permission;
use ingest_api::approvals::{Approval, ApprovedAct};
use ingest_api::limits::{Ceiling, Mode, Rule};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::limits::{PIN, Till, set_pin};
use crate::world::{Answer, Caller, World, log_in, text, world};

/// A cashier and a manager with PINs at a till.
struct Shop {
    world: World,
    till: Till,
    cashier: String,
    manager: String,
}

async fn shop(pool: &PgPool) -> Shop {
    let world = world(pool).await;
    let till = Till::new(&world, &world.here, "1").await;
    let cashier = world.new_user("anna", "cashier", Some(&world.here)).await;
    let manager = world.new_user("mia", "manager", Some(&world.here)).await;
    set_pin(&world, &cashier).await;
    set_pin(&world, &manager).await;
    Shop { world, till, cashier, manager }
}

impl Shop {
    /// Asks for approval of what this answer refused, with somebody's PIN.
    async fn approve(&self, refused: &Answer, code: &str, pin: &str) -> Answer {
        let mut body = refused.json()["approval"].clone();
        body["approver"] = self.till.device.pin(&self.till.terminal, code, pin);
        self.till.caller.post("/approvals", body).await
    }
    /// An override with the approval of the manager.
    async fn approved(&self) -> (Value, Value) {
        let mut sale = self.till.overridden(&self.world, &self.cashier);
        let refused = self.till.sell(&sale).await;
        assert_eq!(refused.problem().1, "approval_required");
        let approval = self.approve(&refused, "mia", PIN).await.expect(201);
        sale["approval"] = approval["approval"].clone();
        (sale, approval)
    }
    fn signed(&self, change: impl FnOnce(&mut Approval), sale: &Value) -> Value {
        let tokens = &self.world.app.auth.tokens;
        let text = sale["approval"].as_str().unwrap();
        let mut approval: Approval = tokens.open_as("approval+jwt", "vorca-approval", text).unwrap();
        approval.jti = Uuid::now_v7();
        change(&mut approval);
        let mut sale = sale.clone();
        sale["approval"] = json!(tokens.sign_as("approval+jwt", &approval).unwrap());
        sale
    }
}

fn parts(answer: &Answer) -> (u16, String, String) {
    let (status, code, _) = answer.problem();
    (status, code, text(&answer.json(), "detail"))
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn approval_cannot_be_replayed_or_self_issued(pool: PgPool) {
    let shop = shop(&pool).await;
    let (sale, approval) = shop.approved().await;
    assert_eq!(text(&approval, "approver"), shop.manager);
    let sold = shop.till.sell(&sale).await;
    assert_eq!(sold.expect(201)["approval_id"], approval["approval_id"]);
    // The same sale again is its twin, however it names the approval.
    for again in [sale.clone(), without(&sale, "approval")] {
        let again = shop.till.sell(&again).await;
        assert_eq!((again.status.as_u16(), &again.bytes), (200, &sold.bytes));
    }
    let mut next = shop.till.overridden(&shop.world, &shop.cashier);
    next["approval"] = sale["approval"].clone();
    assert_eq!(shop.till.sell(&next).await.problem(), (409, "approval_used".into(), String::new()));
    // Nobody approves for themselves, and a cashier approves for nobody.
    let refused = shop.till.sell(&without(&next, "approval")).await;
    set_pin(&shop.world, &shop.world.new_user("bea", "cashier", Some(&shop.world.here)).await).await;
    for cashier in ["anna", "bea"] {
        assert_eq!(shop.approve(&refused, cashier, PIN).await.problem().1, "forbidden", "{cashier}");
    }
    let manager = log_in(&shop.world.nobody(), "mia", crate::world::PASSWORD).await;
    let mut own = refused.json()["approval"].clone();
    own["requester"] = json!(shop.manager);
    assert_eq!(manager.post("/approvals", own).await.problem().1, "forbidden");
    let cashier = log_in(&shop.world.nobody(), "anna", crate::world::PASSWORD).await;
    assert_eq!(cashier.post("/approvals", refused.json()["approval"].clone()).await.problem().1, "forbidden");
    let elsewhere = shop.world.user("eve", "manager", Some(&shop.world.there)).await;
    assert_eq!(elsewhere.post("/approvals", refused.json()["approval"].clone()).await.problem().1, "forbidden");
    // With the manager's own token it works too.
    let approval = manager.post("/approvals", refused.json()["approval"].clone()).await.expect(201);
    next["approval"] = approval["approval"].clone();
    shop.till.sell(&next).await.expect(201);

    let spent: Vec<(String, String, i64)> = sqlx::query_as(
        "select requester::text, approver::text, (select count(*) from documents d where d.approval_id = a.approval_id
                and d.document_id = a.cause_id and d.content_hash = a.digest)
         from approvals a",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(spent, vec![(shop.cashier.clone(), shop.manager.clone(), 1); 2]);
    let approvers: Vec<Option<Uuid>> =
        sqlx::query_scalar("select approver from audit_log where action = 'sale.create'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(approvers, vec![Some(shop.manager.parse().unwrap()); 2]);
    assert_eq!(shop.world.count("select count(*) from audit_log where action = 'approval.issue'").await, 2);
    let note = "select count(*) from audit_log where outcome = 'refused' and action = 'refused.ApproveActs'
                and reason like 'approval by user/% of override_price up to 50 EUR%'";
    assert_eq!(shop.world.count(note).await, 3, "those who asked for an approval and may not give one");
}

fn without(sale: &Value, name: &str) -> Value {
    let mut sale = sale.clone();
    sale.as_object_mut().unwrap().remove(name);
    sale
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_approval_is_good_for_what_it_says_and_nothing_else(pool: PgPool) {
    let shop = shop(&pool).await;
    let (sale, _) = shop.approved().await;
    let now = Utc::now().timestamp();
    type Change = Box<dyn FnOnce(&mut Approval)>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(move |it| it.exp = now - 1), "has expired"),
        (Box::new(|it| it.acts[0].ceiling_minor = Some(49)), "ceiling"),
        (Box::new(|it| it.currency = "USD".into()), "ceiling"),
        (Box::new(|it| it.digest = "00".repeat(32)), "another document"),
        (Box::new(|it| it.location_id = Uuid::now_v7()), "another location"),
        (Box::new(|it| it.sub = Uuid::now_v7()), "another person"),
        (Box::new(|it| it.approver = it.sub), "of their own"),
        (Box::new(|it| it.approver = Uuid::now_v7()), "may not do so any more"),
        (
            Box::new(|it| it.acts = vec![ApprovedAct { act: Permission::DiscountLines, ceiling_minor: None }]),
            "another act",
        ),
        (Box::new(|it| it.aud = "vorca-api".into()), "no approval"),
        (Box::new(|it| it.iss = "another".into()), "no approval"),
    ];
    for (change, flaw) in cases {
        let (status, code, detail) = parts(&shop.till.sell(&shop.signed(change, &sale)).await);
        assert_eq!((status, code.as_str()), (403, "approval_invalid"), "{flaw}");
        assert!(detail.contains(flaw), "{flaw}: {detail}");
    }
    let token = sale["approval"].as_str().unwrap();
    let (body, signature) = token.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    let access_token = shop.world.owner.token.clone().unwrap();
    for forged in ["x", "", &format!("{body}."), &format!("{body}.{turned}"), &access_token] {
        let mut sale = sale.clone();
        sale["approval"] = json!(forged);
        assert_eq!(parts(&shop.till.sell(&sale).await).1, "approval_invalid", "{forged}");
    }
    // An approval opens no door.
    assert_eq!(shop.world.with_token(token).get("/stock").await.status, 401);
    // Who approved and may not any more: judged when it is spent.
    let path = format!("/users/{}", shop.manager);
    let granted = |role: &str, at: &str| json!({"is_active": true, "grants": [{"role": role, "location_id": at}]});
    let (here, there) = (&shop.world.here, &shop.world.there);
    for edit in [json!({"is_active": false}), granted("cashier", here), granted("manager", there)] {
        let etag = shop.world.owner.get(&path).await.etag();
        shop.world.owner.patch(&path, &etag, edit.clone()).await.expect(200);
        assert!(parts(&shop.till.sell(&sale).await).2.contains("may not do so any more"), "{edit}");
    }
    assert_eq!(shop.world.count("select count(*) from documents").await, 0);
    let audited =
        "select count(*) from audit_log where outcome = 'refused' and reason like '%override_price of 50 EUR%'";
    assert_eq!(shop.world.count(audited).await, 20, "every one of them is in the log");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_approval_lasts_five_minutes_and_is_spent_where_it_is_needed(pool: PgPool) {
    let shop = shop(&pool).await;
    let (sale, approval) = shop.approved().await;
    let instant = |name: &str| text(&approval, name).parse::<DateTime<Utc>>().unwrap();
    assert_eq!(instant("expires_at") - instant("issued_at"), TimeDelta::minutes(5));
    let token = sale["approval"].as_str().unwrap();
    let signed: Approval = shop.world.app.auth.tokens.open_as("approval+jwt", "vorca-approval", token).unwrap();
    assert_eq!((signed.iat, signed.exp), (instant("issued_at").timestamp(), instant("expires_at").timestamp()));
    // What is within the limits needs none.
    let mut small = shop.till.discounted(&shop.world, &shop.cashier, "10", 225);
    small["approval"] = sale["approval"].clone();
    assert_eq!(shop.till.sell(&small).await.expect(201)["approval_id"], Value::Null);
    assert_eq!(shop.till.sell(&sale).await.expect(201)["approval_id"], approval["approval_id"]);
}

/// Their own limits hold for what they approve: the ceiling at once, the share when it is known what it is a share of.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn whoever_approves_goes_no_further_than_they_may_themselves(pool: PgPool) {
    let shop = shop(&pool).await;
    let ceilings = Some(vec![Ceiling { currency: "EUR".into(), amount_minor: 100 }]);
    let allow = |permission| Rule::new(permission, Mode::Allow);
    let overrides = Rule { percent_max: Some(20), ceilings, ..allow(Permission::OverridePrice) };
    let role = shop.world.new_role("supervisor", &[allow(Permission::ApproveActs), overrides]).await;
    let supervisor = shop.world.new_user("sue", &role, Some(&shop.world.here)).await;
    set_pin(&shop.world, &supervisor).await;
    let sale = |price: i64, pieces: i64| {
        let mut sale = shop.till.overridden(&shop.world, &shop.cashier);
        sale["lines"][0]["override"]["unit_price_minor"] = json!(price);
        sale["lines"][0]["qty"] = json!(1000 * pieces);
        (sale["total_minor"], sale["tenders"][0]["amount_minor"]) = (json!(price * pieces), json!(price * pieces));
        sale
    };
    let approve = async |sale: &mut Value| {
        let answer = shop.approve(&shop.till.sell(sale).await, "sue", PIN).await;
        if answer.status == 201 {
            sale["approval"] = answer.json()["approval"].clone();
        }
        answer
    };
    let (mut within, mut dear, mut large) = (sale(200, 2), sale(199, 1), sale(216, 3));
    approve(&mut within).await.expect(201);
    shop.till.sell(&within).await.expect(201);
    assert_eq!(approve(&mut large).await.problem().1, "forbidden", "3 times 34");
    approve(&mut dear).await.expect(201);
    assert_eq!(shop.till.sell(&dear).await.problem().1, "approval_invalid", "more than a fifth");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn of_twenty_that_spend_one_approval_one_wins(pool: PgPool) {
    let shop = shop(&pool).await;
    let (lead, lead_id) = lead(&shop.world, "lea").await;
    let body = json!({"location_id": shop.world.here, "reason": "found",
                      "lines": [{"variant_id": shop.world.variants[0], "delta": 1000}]});
    let refused = lead.post_keyed("/stock/adjustments", "first", &body).await;
    assert_eq!(refused.problem().1, "approval_required");
    assert_eq!(refused.json()["approval"]["requester"], json!(lead_id));
    let approval = shop.approve(&refused, "mia", PIN).await.expect(201);
    let mut body = body;
    body["approval"] = approval["approval"].clone();
    let (lead, body) = (Arc::new(lead), Arc::new(body));
    let sending = (0..20).map(|n| {
        let (lead, body) = (Arc::clone(&lead), Arc::clone(&body));
        tokio::spawn(async move { lead.post_keyed("/stock/adjustments", &n.to_string(), &body).await })
    });
    let mut codes: Vec<(u16, String)> = Vec::new();
    for answer in futures::future::join_all(sending).await {
        let answer = answer.unwrap();
        codes.push(if answer.status == 201 { (201, String::new()) } else { (answer.problem().0, answer.problem().1) });
    }
    codes.sort();
    assert_eq!(codes[0], (201, String::new()));
    assert_eq!(codes[1..], vec![(409, "approval_used".to_owned()); 19]);
    let stored =
        "select count(*) from stock_acts a join approvals p on p.cause_id = a.act_id and p.approval_id = a.approval_id
                  join stock_movements m on m.cause_id = a.act_id and m.approval_id = p.approval_id
                  join audit_log l on l.target = 'stock_act/' || a.act_id and l.approver = p.approver
                  where a.kind = 'adjustment'";
    assert_eq!(shop.world.count(stored).await, 1);
}

/// Somebody who adjusts stock with an approval each time.
async fn lead(world: &World, login: &str) -> (Caller, String) {
    let rules = [Rule::new(Permission::AdjustStock, Mode::Approval), Rule::new(Permission::ReadStock, Mode::Allow)];
    let role = world.new_role(&format!("role of {login}"), &rules).await;
    let user = world.new_user(login, &role, Some(&world.here)).await;
    (log_in(&world.nobody(), login, crate::world::PASSWORD).await, user)
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_wrong_pin_approves_nothing_and_five_lock_it(pool: PgPool) {
    let shop = shop(&pool).await;
    let stranger = shop.world.new_user("eve", "manager", Some(&shop.world.there)).await;
    set_pin(&shop.world, &stranger).await;
    let refused = shop.till.sell(&shop.till.overridden(&shop.world, &shop.cashier)).await;
    for (code, pin) in [("mia", "9999"), ("nobody", PIN), ("eve", PIN)] {
        assert_eq!(shop.approve(&refused, code, pin).await.problem(), (401, "unauthenticated".into(), String::new()));
    }
    let bare = shop.till.caller.post("/approvals", refused.json()["approval"].clone()).await;
    assert_eq!(bare.problem(), (422, "invalid_value".into(), "/approver".into()));
    for _ in 0..4 {
        shop.approve(&refused, "mia", "9999").await;
    }
    assert_eq!(shop.approve(&refused, "mia", PIN).await.problem().1, "locked");
    assert_eq!(shop.till.pin("mia", PIN).await.problem().1, "locked", "one lock for both");
    assert_eq!(shop.world.count("select count(*) from audit_log where action = 'approval.issue'").await, 0);
    // What the till sends has to be right, too.
    for (name, wrong, place) in [
        ("digest", json!("A7".repeat(32)), "/digest"),
        ("acts", json!([]), "/acts"),
        ("acts", json!([{"act": "sell", "ceiling_minor": 1}]), "/acts/0/act"),
        ("currency", json!("EURO"), "/currency"),
    ] {
        let mut body = refused.json()["approval"].clone();
        body[name] = wrong;
        body["approver"] = shop.till.device.pin(&shop.till.terminal, "mia", PIN);
        assert_eq!(shop.till.caller.post("/approvals", body).await.problem().2, place);
    }
}
