//! Limits at the till: how far a cashier goes alone, counted over all devices, the same with a lease as on the server.

use chrono::{DateTime, TimeDelta, Utc};
use ingest_api::access::Permission;
use ingest_api::limits::{Extent, Limits, Mode, Rule, Verdict};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::{Answer, Caller, Device, World, text, world};

pub const PIN: &str = "2580";

/// A till with its device, and what it sells next.
pub struct Till {
    pub terminal: String,
    pub device: Device,
    pub caller: Caller,
    location: String,
    next: std::sync::atomic::AtomicI64,
}

impl Till {
    pub async fn new(world: &World, location: &str, register: &str) -> Till {
        let (terminal, device, caller) = world.till(location, register).await;
        Till { terminal, device, caller, location: location.to_owned(), next: 1.into() }
    }

    /// One of variant 0 (2.50) for cash.
    pub fn sale(&self, world: &World, cashier: &str) -> Value {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        json!({"sale_id": Uuid::now_v7(), "location_id": self.location, "terminal_seq": number,
            "receipt": {"series_epoch": 1, "number": number}, "cashier_id": cashier, "occurred_at": Utc::now(),
            "currency": "EUR", "lines": [{"line_no": 1, "variant_id": world.variants[0], "qty": 1000}],
            "tenders": [{"kind": "cash", "amount_minor": 250}], "total_minor": 250})
    }
    pub fn discounted(&self, world: &World, cashier: &str, percent: &str, total: i64) -> Value {
        let mut sale = self.sale(world, cashier);
        sale["lines"][0]["discount"] = json!({"kind": "percent", "percent": percent, "reason": "friend"});
        sale["total_minor"] = json!(total);
        sale
    }
    /// For 2.00 instead of 2.50.
    pub fn overridden(&self, world: &World, cashier: &str) -> Value {
        let mut sale = self.sale(world, cashier);
        sale["lines"][0]["override"] = json!({"unit_price_minor": 200, "reason": "damaged"});
        sale["total_minor"] = json!(200);
        sale
    }
    pub async fn sell(&self, sale: &Value) -> Answer {
        self.caller.post_keyed("/sales", &Uuid::new_v4().to_string(), sale).await
    }
    pub async fn pin(&self, code: &str, pin: &str) -> Answer {
        self.caller.post("/auth/pin", self.device.pin(&self.terminal, code, pin)).await
    }
}

/// What a cashier may, and discounts by this rule.
pub fn seller(discounts: Rule) -> Vec<Rule> {
    vec![Rule::new(Permission::Sell, Mode::Allow), discounts]
}

pub fn discounts() -> Rule {
    Rule::new(Permission::DiscountLines, Mode::Allow)
}

pub async fn set_pin(world: &World, user: &str) {
    world.owner.post(&format!("/users/{user}/pin"), json!({"pin": PIN})).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn limit_counts_across_devices(pool: PgPool) {
    let world = world(&pool).await;
    let role = world.new_role("three a day", &seller(Rule { per_shift: Some(3), ..discounts() })).await;
    let cashier = world.new_user("anna", &role, Some(&world.here)).await;
    let other = world.new_user("bea", &role, Some(&world.here)).await;
    let (left, mut right) = (Till::new(&world, &world.here, "1").await, Till::new(&world, &world.here, "2").await);
    // The second till talks to another node.
    right.caller = Caller::of(crate::world::app(&pool).await, right.caller.token.as_deref());
    let mut sending = Vec::new();
    for _ in 0..6 {
        for till in [&left, &right] {
            let sale = till.discounted(&world, &cashier, "10", 225);
            sending.push(async move { till.sell(&sale).await });
        }
    }
    let answers = futures::future::join_all(sending).await;
    let sold = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(sold, 3, "{:?}", answers.iter().map(Answer::text).collect::<Vec<_>>());
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.problem().1, "approval_required");
        assert_eq!(refused.json()["approval"]["acts"], json!([{"act": "discount_lines", "ceiling_minor": 25}]));
    }
    let ordinals: Vec<i64> = sqlx::query_scalar("select ordinal from limited_acts where user_id::text = $1 order by 1")
        .bind(&cashier)
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(ordinals, [1, 2, 3]);
    // Whoever else, whatever other day, and what needs no discount at all.
    left.sell(&left.discounted(&world, &other, "10", 225)).await.expect(201);
    right.sell(&right.sale(&world, &cashier)).await.expect(201);
    let mut yesterday = left.discounted(&world, &cashier, "10", 225);
    yesterday["occurred_at"] = json!(Utc::now() - TimeDelta::days(1));
    left.sell(&yesterday).await.expect(201);
    let refused: Vec<String> =
        sqlx::query_scalar("select reason from audit_log where outcome = 'refused' and action = 'refused.Sell'")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(refused.len(), 9, "every refused act is in the log");
    let wanted = format!("user/{cashier}: discount_lines of 25 EUR, number 4 of the day, limit: ");
    assert!(
        refused.iter().all(|reason| reason.starts_with(&wanted) && reason.contains("\"per_shift\":3")),
        "{refused:?}"
    );
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_a_built_in_cashier_may_and_who_may_more(pool: PgPool) {
    let world = world(&pool).await;
    let till = Till::new(&world, &world.here, "1").await;
    let cashier = world.new_user("anna", "cashier", Some(&world.here)).await;
    let manager = world.new_user("mia", "manager", Some(&world.here)).await;
    till.sell(&till.discounted(&world, &cashier, "20", 200)).await.expect(201);
    let beyond = till.discounted(&world, &cashier, "20.0001", 200);
    assert_eq!(till.sell(&beyond).await.problem().1, "approval_required");
    assert_eq!(till.sell(&till.overridden(&world, &cashier)).await.problem().1, "approval_required");
    till.sell(&till.overridden(&world, &manager)).await.expect(201);
    till.sell(&till.discounted(&world, &manager, "100", 0)).await.expect(201);
    // Amounts out of the books of before are for who overrides without limit, and are no acts.
    let mut imported = till.sale(&world, &cashier);
    imported["lines"][0]["override"] = json!({"amount_minor": 1, "reason": "imported"});
    imported["total_minor"] = json!(1);
    assert_eq!(till.sell(&imported).await.problem(), (403, "forbidden".into(), "/cashier_id".into()));
    imported["cashier_id"] = json!(manager);
    till.sell(&imported).await.expect(201);
    assert_eq!(world.count("select count(*) from limited_acts").await, 3);
    let described: Vec<String> = sqlx::query_scalar(
        "select reason from audit_log where action = 'sale.create' and reason <> '' order by recorded_at",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(described, ["discount_lines 50 allowed", "override_price 50 allowed", "discount_lines 250 allowed"]);
    // Somebody whose role says nothing of discounts gives none, approved or not.
    let role = world.new_role("only sells", &[Rule::new(Permission::Sell, Mode::Allow)]).await;
    let plain = world.new_user("tom", &role, Some(&world.here)).await;
    till.sell(&till.sale(&world, &plain)).await.expect(201);
    assert_eq!(till.sell(&till.discounted(&world, &plain, "1", 248)).await.problem().1, "forbidden");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_lease_decides_as_the_server_does(pool: PgPool) {
    let world = world(&pool).await;
    let till = Till::new(&world, &world.here, "1").await;
    let rule = Rule { percent_max: Some(30), per_shift: Some(2), ..discounts() };
    let role = world.new_role("limited", &seller(rule)).await;
    let cashier = world.new_user("anna", &role, Some(&world.here)).await;
    set_pin(&world, &cashier).await;
    for (percent, total) in [("30", 175), ("31", 172), ("10", 225), ("1", 248)] {
        let lease = till.pin("anna", PIN).await.expect(201);
        let limits: Limits = serde_json::from_value(lease["limits"].clone()).unwrap();
        assert_eq!(limits.version, 1);
        let share_ppm = Some(percent.parse::<i64>().unwrap() * 10_000);
        let extent = Extent { currency: "EUR".into(), amount_minor: Some(250 - total), share_ppm };
        let verdict = limits.judge(Permission::DiscountLines, &extent);
        let answer = till.sell(&till.discounted(&world, &cashier, percent, total)).await;
        let wanted = match answer.status.as_u16() {
            201 => Verdict::Allowed,
            _ => Verdict::NeedsApproval,
        };
        assert_eq!(verdict, wanted, "{percent} %: {}", answer.text());
    }
    assert_eq!(world.count("select count(*) from limited_acts").await, 2);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_was_sold_offline_within_the_lease_is_taken_and_flagged(pool: PgPool) {
    let world = world(&pool).await;
    let (till, next) = (Till::new(&world, &world.here, "1").await, Till::new(&world, &world.here, "2").await);
    let rule = Rule { per_shift: Some(1), percent_max: Some(50), ..discounts() };
    let role = world.new_role("once", &seller(rule)).await;
    let cashier = world.new_user("anna", &role, Some(&world.here)).await;
    set_pin(&world, &cashier).await;
    let lease = text(&till.pin("anna", PIN).await.expect(201), "lease_id");
    next.sell(&next.discounted(&world, &cashier, "10", 225)).await.expect(201);
    let sale = |at: DateTime<Utc>| {
        let mut sale = till.discounted(&world, &cashier, "10", 225);
        (sale["lease_id"], sale["occurred_at"]) = (json!(lease), json!(at));
        sale
    };
    // Asked at once it is a request; an hour later it is a fact that the till could not know to be one too many.
    assert_eq!(till.sell(&sale(Utc::now())).await.problem().1, "approval_required");
    let offline = till.sell(&sale(Utc::now() - TimeDelta::minutes(6))).await.expect(201);
    assert!(offline["flags"].as_array().unwrap().contains(&json!("over_limit")), "{offline}");
    // What the lease itself did not allow is no fact of it: neither too much of it, nor another act.
    let mut beyond = sale(Utc::now() - TimeDelta::minutes(6));
    beyond["lines"][0]["discount"]["percent"] = json!("60");
    beyond["total_minor"] = json!(100);
    assert_eq!(till.sell(&beyond).await.problem().1, "approval_required");
    let mut beyond = sale(Utc::now() - TimeDelta::minutes(6));
    beyond["lines"][0]["override"] = json!({"unit_price_minor": 250, "reason": "wrong"});
    assert_eq!(till.sell(&beyond).await.problem().1, "forbidden");
    let standings: Vec<String> =
        sqlx::query_scalar("select verdict from limited_acts order by ordinal").fetch_all(&pool).await.unwrap();
    assert_eq!(standings, ["allowed", "over_limit"]);
}

/// What `worker verify` says of limits: every line it names.
async fn named(pool: &PgPool) -> Vec<String> {
    let mut report = ingest_api::verify::Report::default();
    ingest_api::verify::limits::check(pool, &mut report).await.unwrap();
    report.checks.iter().flat_map(|check| check.named.iter().map(|line| format!("{} {line}", check.id))).collect()
}

/// As a bug inside the server would, which asks no trigger.
async fn past_guards(pool: &PgPool, sql: &str) {
    let sql = format!("begin; set local session_replication_role = replica; {sql}; commit");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(pool).await.unwrap();
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn verify_names_what_was_not_counted_or_not_approved(pool: PgPool) {
    let world = world(&pool).await;
    let till = Till::new(&world, &world.here, "1").await;
    let cashier = world.new_user("anna", "cashier", Some(&world.here)).await;
    let manager = world.user("mia", "manager", Some(&world.here)).await;
    for _ in 0..2 {
        till.sell(&till.discounted(&world, &cashier, "10", 225)).await.expect(201);
    }
    let mut sale = till.overridden(&world, &cashier);
    let refused = till.sell(&sale).await.json();
    sale["approval"] = manager.post("/approvals", refused["approval"].clone()).await.expect(201)["approval"].clone();
    till.sell(&sale).await.expect(201);
    let adjusted = json!({"location_id": world.here, "reason": "found",
                          "lines": [{"variant_id": world.variants[0], "delta": 1000}]});
    manager.post_keyed("/stock/adjustments", "1", &adjusted).await.expect(201);
    assert_eq!(named(&pool).await, [""; 0]);
    const LEDGERS: [&str; 4] = ["limited_acts", "approvals", "documents", "audit_log"];
    for ledger in LEDGERS {
        past_guards(&pool, &format!("create table kept_{ledger} as table {ledger}")).await;
    }
    for (bug, line) in [
        ("delete from limited_acts where ordinal = 2", "I20 document"),
        ("delete from limited_acts where act = 'adjust_stock'", "I20 adjustment"),
        ("delete from limited_acts where act = 'discount_lines' and ordinal = 1", "the last is number 2"),
        ("update limited_acts set amount_minor = 1 where act = 'override_price'", "I20 document"),
        ("update limited_acts set verdict = 'allowed', approval_id = null where act = 'override_price'", "was allowed"),
        ("update limited_acts set rules = '[]' where ordinal = 2", "its rules say otherwise"),
        ("update limited_acts set ordinal = 21 where ordinal = 2", "number 21"),
        ("update approvals set cause_id = gen_random_uuid()", "was not spent on it"),
        ("update approvals set requester = gen_random_uuid()", "was not spent on it"),
        ("update approvals set spent_at = issued_at + interval '301 seconds'", "after it was given"),
        ("update documents set approval_id = null where approval_id is not null", "not in its document"),
        ("update audit_log set approver = null where approver is not null", "does not name the approver"),
        ("delete from audit_log where action = 'approval.issue'", "no audit row of its being given"),
        ("update limited_acts set verdict = 'over_limit', approval_id = null where act = 'override_price'", "a flag"),
    ] {
        past_guards(&pool, bug).await;
        let lines = named(&pool).await;
        assert!(lines.iter().any(|it| it.contains(line)), "{bug}: {lines:?}");
        for ledger in LEDGERS {
            past_guards(&pool, &format!("delete from {ledger}; insert into {ledger} select * from kept_{ledger}"))
                .await;
        }
    }
    assert_eq!(named(&pool).await, [""; 0]);
}
