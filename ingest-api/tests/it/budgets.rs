//! Budgets of the API: whose they are, what an answer says of them, and what several processes make of them. With a real
//! Redis, which `./dev test` gives.

use std::net::SocketAddr;
use std::sync::Arc;

use ingest_api::app::AppState;
use ingest_api::budgets::{Budget, Budgets, Key};
use redis::aio::ConnectionManager;
use runtime::config::{self, Http, Quota, Quotas};
use serde_json::json;
use sqlx::PgPool;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

use crate::process::Served;
use crate::rig::eventually;
use crate::sales::till;
use crate::world::{Answer, Caller, PASSWORD, World, until_blocked, world};

/// So many requests and, for as long as any test lasts, none besides.
fn quota(requests: u32) -> Quota {
    Quota::new(requests, 86_400).unwrap()
}

/// A process over the same database with these budgets.
fn process(world: &World, budgets: Quotas) -> Caller {
    Caller::of(AppState { budgets: Budgets::new(&budgets, None), ..world.app.clone() }, None)
}

fn standing(answer: &Answer) -> (&str, &str) {
    (answer.headers["ratelimit-policy"].to_str().unwrap(), answer.headers["ratelimit"].to_str().unwrap())
}

fn admitted(process: &Budgets, budget: Budget, key: Key, requests: usize) -> usize {
    (0..requests).filter(|_| process.take(budget, key).is_admitted()).count()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_caller_has_a_budget_of_its_own_kind_and_is_told_of_it(pool: PgPool) {
    let world = world(&pool).await;
    let (_, _, till) = world.till(&world.here, "1").await;
    let (_, client) = world.client("erp", None).await;
    for (caller, budget, path) in [
        (&till, "till", "/variants"),
        (&client, "integrator", "/variants"),
        (&world.owner, "office", "/users"),
        (&world.nobody().from("192.0.2.1"), "public", "/auth/jwks"),
    ] {
        let answer = caller.get(path).await;
        answer.expect(200);
        let (policy, rest) = standing(&answer);
        assert!(policy.starts_with(&format!("\"{budget}\";q=")) && policy.contains(";w="), "{policy}");
        assert!(rest.starts_with(&format!("\"{budget}\";r=")) && rest.contains(";t="), "{rest}");
    }
    // A refusal of any other kind says it too; who is not known has no budget to be told of.
    let refused = till.get("/users").await;
    assert_eq!((refused.status.as_u16(), standing(&refused).0.starts_with("\"till\"")), (403, true));
    let unknown = world.nobody().get("/users").await;
    assert_eq!((unknown.status.as_u16(), unknown.headers.get("ratelimit")), (401, None));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn beyond_its_budget_a_caller_waits_and_leaves_nothing(pool: PgPool) {
    let world = world(&pool).await;
    let nobody = process(&world, Quotas { office: quota(3), ..Quotas::default() });
    let owner = nobody.with_token(world.owner.token.as_deref().unwrap());
    let rows = async || world.count("select count(*) from audit_log").await;
    for left in [2, 1, 0] {
        let answer = owner.get("/users").await;
        answer.expect(200);
        assert!(standing(&answer).1.starts_with(&format!("\"office\";r={left};t=")), "{:?}", standing(&answer));
    }
    let before = rows().await;
    // Not even looked at: neither stored, nor refused for what it says, nor audited as refused.
    for (path, body) in [("/locations", json!({"external_id": "x"})), ("/auth/pin", json!({}))] {
        let answer = owner.post(path, body).await;
        assert_eq!(answer.problem(), (429, "rate_limited".into(), String::new()));
        assert_eq!(answer.json()["retryable"], true);
        let wait: i64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((28_000..=28_800).contains(&wait), "a third of a day for one of three, less what has passed: {wait}");
        assert!(standing(&answer).1.starts_with("\"office\";r=0;t=8"), "{}", standing(&answer).1);
    }
    assert_eq!(rows().await, before);
    // Others go on, of the same kind too.
    let other = world.user("mia", "manager", Some(&world.here)).await;
    nobody.with_token(other.token.as_deref().unwrap()).get("/users").await.expect(200);
    let (_, _, till) = world.till(&world.here, "1").await;
    nobody.with_token(till.token.as_deref().unwrap()).get("/variants").await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_may_take_its_time_does_not_use_up_the_everyday_budget(pool: PgPool) {
    let world = world(&pool).await;
    let (_, _, till) = world.till(&world.here, "1").await;
    let budgets = Quotas { till: quota(2), office: quota(2), replay: quota(3), ..Quotas::default() };
    let nobody = process(&world, budgets);
    let (till, owner) =
        (nobody.with_token(till.token.as_deref().unwrap()), nobody.with_token(world.owner.token.as_deref().unwrap()));
    // A till that brings up what it sold offline says so.
    for status in [200, 200, 200, 429] {
        let answer = till.send("GET", "/variants", &[("priority", "u=7")], None).await;
        assert_eq!((answer.status.as_u16(), standing(&answer).0), (status, "\"replay\";q=3;w=86400"));
    }
    for status in [200, 200, 429] {
        assert_eq!(till.get("/variants").await.status, status);
    }
    // Bulk routes are of that kind by themselves.
    for _ in 0..3 {
        owner.post("/catalog/upsert", crate::world::catalog()).await.expect(200);
    }
    assert_eq!(owner.post("/members/upsert", json!({"members": []})).await.problem().1, "rate_limited");
    owner.get("/users").await.expect(200);
}

/// An integrator at full speed whose writes hang, too: its excess is refused, and every sale passes meanwhile.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn integrator_cannot_starve_tills(pool: PgPool) {
    const QUOTA: u32 = 20;
    const FLOOD: usize = 200;
    let till = till(&pool).await;
    let (_, client) = till.world.client("erp", None).await;
    let budgets = Quotas { integrator: quota(QUOTA), ..Quotas::default() };
    let served = Served::limited(pool.connect_options().as_ref(), Http::at, budgets).await;
    let api = format!("http://{}/api/v1", served.address);
    let http = reqwest::Client::new();

    // Connections are opened by the first who need them, which is not what is asked about here.
    let sell = async |number: i64| {
        let request = http.post(format!("{api}/sales")).bearer_auth(till.caller.token.as_ref().unwrap());
        request.header("idempotency-key", number.to_string()).json(&till.sale(number)).send().await.unwrap()
    };
    eventually(async || {
        let status = sell(1).await.status().as_u16();
        if [200, 201].contains(&status) { Ok(()) } else { Err(format!("{status}")) }
    })
    .await;

    // What the integrator writes to is held, so whatever it gets into stands still until the till has sold.
    let mut holder = pool.begin().await.unwrap();
    let there: Uuid = till.world.there.parse().unwrap();
    sqlx::query("select from streams where stream_id = $1 for update").bind(there).execute(&mut *holder).await.unwrap();
    let receipt = json!({"location_id": there, "reason": "receipt",
                         "lines": [{"variant_id": till.world.variants[0], "qty": 1000}]});
    let flood: Vec<_> = (0..FLOOD)
        .map(|n| {
            let request = http.post(format!("{api}/stock/receipts")).bearer_auth(client.token.as_ref().unwrap());
            let request = request.header("idempotency-key", n.to_string()).json(&receipt);
            tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
        })
        .collect();
    until_blocked(&pool, 1).await;
    // Fewer than a cashier may discount in a shift.
    for number in 2..=15 {
        let answer = sell(number).await;
        let left = answer.headers()["ratelimit"].to_str().unwrap().to_owned();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
        assert!(left.starts_with("\"till\";r=29"), "{left}");
    }
    holder.rollback().await.unwrap();
    let mut statuses = Vec::new();
    for one in flood {
        statuses.push(one.await.unwrap());
    }
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(refused, FLOOD - QUOTA as usize, "{statuses:?}");
}

async fn log_in(from: &Caller, login: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"login": login, "password": PASSWORD}).to_string();
    from.send("POST", "/auth/login", headers, Some(body.as_bytes())).await
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn sign_ins_are_counted_by_network_and_a_forged_header_buys_no_other(pool: PgPool) {
    let world = world(&pool).await;
    world.new_user("anna", "cashier", Some(&world.here)).await;
    let nobody = process(&world, Quotas { sign_in: quota(4), ..Quotas::default() });
    let (one, neighbour) = (nobody.from("2001:db8:1:2::1"), nobody.from("2001:db8:1:2:ffff::9"));
    for from in [&one, &neighbour, &one, &neighbour] {
        let answer = log_in(from, "anna", &[]).await;
        answer.expect(200);
        assert_eq!(standing(&answer).0, "\"sign_in\";q=4;w=86400");
    }
    for name in ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip", "cf-connecting-ip"] {
        let refused = log_in(&neighbour, "ben", &[(name, "198.51.100.7")]).await;
        assert_eq!(refused.problem().1, "rate_limited", "{name}");
    }
    // Guesses that were refused were not made, so nothing is locked by them.
    assert_eq!(world.count("select count(*) from sign_in_failures where failures > 0").await, 0);
    // The same account from elsewhere has used its share; another one has not.
    let elsewhere = nobody.from("2001:db8:1:3::1");
    assert_eq!(log_in(&elsewhere, "ANNA", &[]).await.problem().1, "rate_limited");
    assert_eq!(log_in(&elsewhere, "ben", &[]).await.problem().1, "unauthenticated");
}

/// Failures are counted by network as well, so nobody guesses on from the next address of the same line.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_network_that_sprays_is_locked_whole(pool: PgPool) {
    let world = world(&pool).await;
    for n in 0..10 {
        let from = world.nobody().from(&format!("2001:db8:1:2::{n:x}"));
        assert_eq!(log_in(&from, &format!("user-{n}"), &[]).await.status, 401);
    }
    assert_eq!(log_in(&world.nobody().from("2001:db8:1:2::ff"), "anna", &[]).await.problem().1, "locked");
    assert_eq!(log_in(&world.nobody().from("2001:db8:1:3::1"), "anna", &[]).await.status, 401);
    let unlock = world.owner.post("/auth/unlock-address", json!({"address": "2001:db8:1:2::abcd"})).await;
    assert_eq!(unlock.expect(200)["was_locked"], true);
}

fn redis_at(url: String) -> ConnectionManager {
    runtime::redis::connect(&config::Redis { url: url.into() }).unwrap()
}

fn redis_url() -> String {
    std::env::var("VORCA__REDIS__URL").expect("VORCA__REDIS__URL is not set: run ./dev test")
}

fn sharing(budgets: Quotas, url: String) -> Arc<Budgets> {
    Budgets::new(&budgets, Some(redis_at(url)))
}

fn anybody() -> Key {
    Key::Subject(Uuid::new_v4())
}

#[tokio::test]
async fn processes_share_what_a_caller_spent() {
    let budgets = Quotas { till: quota(100), ..Quotas::default() };
    let process = || sharing(budgets, redis_url());
    let (here, there, other, caller) = (process(), process(), process(), anybody());
    assert_eq!(admitted(&here, Budget::Till, caller, 70), 70);
    assert_eq!(admitted(&there, Budget::Till, caller, 70), 70, "neither has heard of the other");
    here.share().await.unwrap();
    there.share().await.unwrap();
    assert_eq!(admitted(&there, Budget::Till, caller, 10), 0, "it has heard of all 140");
    // Who has heard of its own alone, or of nothing, gets one request in and hears of the rest.
    for late in [&here, &other] {
        assert_eq!(admitted(late, Budget::Till, caller, 1), 1);
        late.share().await.unwrap();
        assert_eq!(admitted(late, Budget::Till, caller, 10), 0);
    }
    assert_eq!(admitted(&here, Budget::Till, anybody(), 200), 100, "another caller");
    assert_eq!(admitted(&there, Budget::Office, caller, 1), 1, "another budget");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_run_get_the_quota_once_each_at_most() {
    let budgets = Quotas { till: quota(100), ..Quotas::default() };
    let (here, there, caller) = (sharing(budgets, redis_url()), sharing(budgets, redis_url()), anybody());
    let running = [tokio::spawn(Arc::clone(&here).follow()), tokio::spawn(Arc::clone(&there).follow())];
    let mut counts = [0, 0];
    eventually(async || {
        for (count, process) in counts.iter_mut().zip([&here, &there]) {
            *count += admitted(process, Budget::Till, caller, 1);
        }
        let is_shut = [&here, &there].iter().all(|process| !process.take(Budget::Till, caller).is_admitted());
        if is_shut { Ok(()) } else { Err(format!("{counts:?} and still open")) }
    })
    .await;
    // One request in each round was counted by neither of the two.
    assert!(counts[0] + counts[1] < 100, "together they let through no more than one of them may: {counts:?}");
    running.iter().for_each(|task| task.abort());
}

/// A cable to Redis that can be cut.
async fn cable(is_cut: &watch::Sender<bool>) -> SocketAddr {
    let url = redis_url();
    let target = url.rsplit_once('@').unwrap().1.trim_end_matches("/0").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, cut) = (listener.local_addr().unwrap(), is_cut.subscribe());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (target, mut cut) = (target.clone(), cut.clone());
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(&target).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.wait_for(|cut| *cut) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_nobody_is_refused_for_it_and_sign_ins_count_double() {
    let is_cut = watch::Sender::new(false);
    let url = redis_url();
    let address = cable(&is_cut).await;
    let through = format!("{}@{address}/0", url.rsplit_once('@').unwrap().0);
    let process = sharing(Quotas { till: quota(10), sign_in: quota(10), ..Quotas::default() }, through);
    let running = tokio::spawn(Arc::clone(&process).follow());
    let until = async |is_alone: bool| {
        eventually(async || if process.is_alone() == is_alone { Ok(()) } else { Err(format!("alone: {}", !is_alone)) })
            .await;
    };
    assert!(process.is_alone(), "nothing was heard yet");
    until(false).await;
    assert_eq!(admitted(&process, Budget::SignIn, anybody(), 20), 10);
    is_cut.send_replace(true);
    until(true).await;
    assert_eq!(admitted(&process, Budget::Till, anybody(), 20), 10, "as ever");
    assert_eq!(admitted(&process, Budget::SignIn, anybody(), 20), 5);
    is_cut.send_replace(false);
    until(false).await;
    assert_eq!(admitted(&process, Budget::SignIn, anybody(), 20), 10);
    running.abort();
}

#[test]
fn without_a_redis_sign_ins_count_once() {
    let process = Budgets::new(&Quotas { sign_in: quota(10), ..Quotas::default() }, None);
    assert_eq!(admitted(&process, Budget::SignIn, anybody(), 20), 10);
}
