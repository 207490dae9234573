//! Cashiers at tills, leases, retired devices.

use argon2::password_hash::{PasswordVerifier as _, phc::PasswordHash};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::world::{Caller, Device, World, text, until_shut_out, world};

const PIN: &str = "2580";

struct Till {
    terminal: String,
    device: Device,
    caller: Caller,
    cashier: String,
}

/// A till at `here` and a cashier with a PIN.
async fn till(world: &World) -> Till {
    let (terminal, device, caller) = world.till(&world.here, "1").await;
    let cashier = world.new_user("anna", "cashier", Some(&world.here)).await;
    set_pin(world, &cashier, PIN).await;
    Till { terminal, device, caller, cashier }
}

async fn set_pin(world: &World, user: &str, pin: &str) {
    world.owner.post(&format!("/users/{user}/pin"), json!({"pin": pin})).await.expect(200);
}

impl Till {
    async fn sign_in(&self, code: &str, pin: &str) -> crate::world::Answer {
        self.caller.post("/auth/pin", self.device.pin(&self.terminal, code, pin)).await
    }
}

async fn standing(world: &World, lease: &Value) -> Value {
    let listed = world.owner.get("/leases?limit=500").await.expect(200);
    let found = listed["items"].as_array().unwrap().iter().find(|it| it["lease_id"] == lease["lease_id"]).cloned();
    found.expect("the lease is listed")
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_pin_inside_the_device_issues_a_lease_that_is_bound_to_it(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let lease = till.sign_in("anna", PIN).await.expect(201);
    assert_eq!(
        (text(&lease, "cashier_id"), text(&lease, "terminal_id")),
        (till.cashier.clone(), till.terminal.clone())
    );
    let instant = |name: &str| text(&lease, name).parse::<DateTime<Utc>>().unwrap();
    assert_eq!(instant("expires_at") - instant("issued_at"), TimeDelta::hours(72));
    let may: Vec<&str> = lease["permissions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(may.contains(&"sell") && !may.contains(&"manage_stock"), "{may:?}");
    assert!(may.contains(&"discount_lines") && !may.contains(&"override_price"), "{may:?}");
    // Offline the device signs the PIN again and compares; another device, or another PIN, does not get in.
    let verifier = text(&lease, "verifier");
    let opens = |device: &Device, pin: &str| {
        let signature = text(&device.pin(&till.terminal, "anna", pin), "signature");
        let hash = PasswordHash::new(&verifier).unwrap();
        argon2::Argon2::default().verify_password(signature.as_bytes(), &hash).is_ok()
    };
    assert!(opens(&till.device, PIN));
    assert!(!opens(&till.device, "2581"));
    assert!(!opens(&Device::new(), PIN));
    assert!(verifier.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert!(!world.owner.get("/leases").await.text().contains("argon2"), "the verifier is the device's alone");
    // The policy says how long the next one lasts.
    let etag = world.owner.get("/sign-in-policy").await.etag();
    world.owner.patch("/sign-in-policy", &etag, json!({"lease_hours": 8})).await.expect(200);
    let next = till.sign_in("anna", PIN).await.expect(201);
    let hours = |name: &str| text(&next, name).parse::<DateTime<Utc>>().unwrap();
    assert_eq!(hours("expires_at") - hours("issued_at"), TimeDelta::hours(8));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_pin_is_refused_alike_whatever_is_wrong(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let elsewhere = world.new_user("bea", "cashier", Some(&world.there)).await;
    set_pin(&world, &elsewhere, PIN).await;
    world.new_user("no-pin", "cashier", Some(&world.here)).await;
    let mut answers = vec![
        till.sign_in("anna", "9999").await,
        till.sign_in("nobody", PIN).await,
        till.sign_in("bea", PIN).await,
        till.sign_in("no-pin", PIN).await,
        till.caller.post("/auth/pin", Device::new().pin(&till.terminal, "anna", PIN)).await,
    ];
    let first = answers.remove(0);
    assert_eq!(first.problem(), (401, "unauthenticated".into(), String::new()));
    for answer in answers {
        assert_eq!((answer.problem(), &answer.json()["detail"]), (first.problem(), &first.json()["detail"]));
    }
    let user = world.user("user", "manager", Some(&world.here)).await;
    assert_eq!(user.post("/auth/pin", till.device.pin(&till.terminal, "anna", PIN)).await.problem().0, 403);
    for bad in ["123", "1111", "1234", "9876", "12a4", "1234567890123"] {
        let answer = world.owner.post(&format!("/users/{}/pin", till.cashier), json!({"pin": bad})).await;
        assert_eq!(answer.problem(), (422, "invalid_value".into(), "/pin".into()), "{bad}");
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn five_wrong_pins_lock_it_and_end_the_lease(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let lease = till.sign_in("anna", PIN).await.expect(201);
    for _ in 0..5 {
        assert_eq!(till.sign_in("anna", "9999").await.status, 401);
        assert_eq!(till.sign_in("nobody", "9999").await.status, 401);
    }
    assert_eq!(till.sign_in("anna", PIN).await.problem().1, "locked", "the right one too");
    assert_eq!(till.sign_in("nobody", PIN).await.problem().1, "locked", "and one that nobody has");
    assert_eq!(standing(&world, &lease).await["revoke_reason"], "PIN guessed at");
    world.owner.send("POST", &format!("/users/{}/unlock", till.cashier), &[], None).await.expect(200);
    till.sign_in("anna", PIN).await.expect(201);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_lease_is_listed_and_taken_back_where_it_is(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let lease = till.sign_in("anna", PIN).await.expect(201);
    let revoke = format!("/leases/{}/revoke", text(&lease, "lease_id"));
    let stranger = world.user("stranger", "manager", Some(&world.there)).await;
    assert_eq!(stranger.get("/leases").await.expect(200)["items"], json!([]));
    assert_eq!(stranger.send("POST", &revoke, &[], None).await.problem().0, 404);
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    let live = format!("/leases?live=true&terminal_id={}", till.terminal);
    assert_eq!(manager.get(&live).await.expect(200)["items"].as_array().unwrap().len(), 1);
    let revoked = manager.send("POST", &revoke, &[], None).await.expect(200);
    assert_eq!(manager.get(&live).await.expect(200)["items"], json!([]));
    let again = manager.send("POST", &revoke, &[], None).await.expect(200);
    assert_eq!(again["revoked_at"], revoked["revoked_at"], "when it was first taken back");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_ends_a_cashier_ends_the_leases(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let path = format!("/users/{}", till.cashier);
    let edit = async |body: Value| {
        let etag = world.owner.get(&path).await.etag();
        world.owner.patch(&path, &etag, body).await.expect(200);
    };
    let lease = till.sign_in("anna", PIN).await.expect(201);
    set_pin(&world, &till.cashier, "1470").await;
    assert_eq!(standing(&world, &lease).await["revoke_reason"], "PIN changed");
    assert_eq!(till.sign_in("anna", PIN).await.status, 401);
    let lease = till.sign_in("anna", "1470").await.expect(201);
    edit(json!({"code": "anna"})).await;
    assert_eq!(standing(&world, &lease).await["revoked_at"], Value::Null);
    edit(json!({"grants": [{"role": "cashier", "location_id": world.there}]})).await;
    assert_eq!(standing(&world, &lease).await["revoke_reason"], "rights changed");
    assert_eq!(till.sign_in("anna", "1470").await.status, 401, "she may not sell here any more");
    edit(json!({"grants": [{"role": "cashier", "location_id": world.here}]})).await;
    let lease = till.sign_in("anna", "1470").await.expect(201);
    edit(json!({"is_active": false})).await;
    assert_eq!(standing(&world, &lease).await["revoke_reason"], "rights changed");
    assert_eq!(till.sign_in("anna", "1470").await.status, 401);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_stolen_till_is_shut_out_at_once_and_another_device_goes_on(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let lease = till.sign_in("anna", PIN).await.expect(201);
    let unused = world.enrolment_code(&till.terminal).await;
    let retire = format!("/terminals/{}/retire", till.terminal);
    world.owner.send("POST", &retire, &[], None).await.expect(200);
    until_shut_out(&till.caller, "/catalog/changes").await;
    let request = till.device.request(&till.terminal, Utc::now(), &uuid::Uuid::new_v4().to_string());
    assert_eq!(world.nobody().post("/auth/terminal-token", request).await.status, 401);
    assert_eq!(standing(&world, &lease).await["revoke_reason"], "the device was retired");
    let enrol = async |code: String, device: &Device| {
        world.nobody().post("/enrolments", json!({"code": code, "device_public_key": device.public()})).await
    };
    assert_eq!(enrol(unused, &till.device).await.status, 401, "codes of before are over");
    assert_eq!(world.owner.send("POST", &retire, &[], None).await.problem().1, "illegal_transition");
    let device = Device::new();
    let enrolled = enrol(world.enrolment_code(&till.terminal).await, &device).await.expect(201);
    assert_eq!(enrolled["series_epoch"], 2, "a receipt series of its own");
    let request = device.request(&till.terminal, Utc::now(), &uuid::Uuid::new_v4().to_string());
    let token = world.nobody().post("/auth/terminal-token", request).await.expect(200);
    let again = Till { caller: world.with_token(&text(&token, "access_token")), device, ..till };
    let lease = again.sign_in("anna", PIN).await.expect(201);
    // Another device on the same terminal ends what this one holds.
    enrol(world.enrolment_code(&again.terminal).await, &Device::new()).await.expect(201);
    assert_eq!(standing(&world, &lease).await["revoke_reason"], "another device was enrolled");
    until_shut_out(&again.caller, "/catalog/changes").await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn offline_lease_after_revoke_is_accepted_and_flagged(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let lease = till.sign_in("anna", PIN).await.expect(201);
    let sale = |number: i64, lease: &Value, occurred_at: DateTime<Utc>| {
        json!({"sale_id": uuid::Uuid::now_v7(), "location_id": world.here, "terminal_seq": number,
            "receipt": {"series_epoch": 1, "number": number}, "cashier_id": till.cashier, "lease_id": lease,
            "occurred_at": occurred_at, "currency": "EUR",
            "lines": [{"line_no": 1, "variant_id": world.variants[0], "qty": 1000}],
            "tenders": [{"kind": "cash", "amount_minor": 250}], "total_minor": 250})
    };
    let sell = async |sale: &Value| till.caller.post_keyed("/sales", &uuid::Uuid::new_v4().to_string(), sale).await;
    let flags = |answer: crate::world::Answer| {
        let flags = answer.expect(201)["flags"].as_array().unwrap().clone();
        flags.into_iter().filter(|flag| flag != "oversold").collect::<Vec<_>>()
    };
    let id = &lease["lease_id"];
    assert!(flags(sell(&sale(1, id, Utc::now())).await).is_empty());
    // Revoked because the cashier may not sell there any more: what was sold under it is a fact.
    let path = format!("/users/{}", till.cashier);
    let etag = world.owner.get(&path).await.etag();
    world.owner.patch(&path, &etag, json!({"grants": []})).await.expect(200);
    let offline = sale(2, id, Utc::now() - TimeDelta::minutes(5));
    assert_eq!(flags(sell(&offline).await), ["stale_lease"]);
    sell(&offline).await.expect(200);
    assert_eq!(sell(&sale(3, &Value::Null, Utc::now())).await.problem().0, 403, "without the lease she may not");
    let stored: Vec<String> = sqlx::query_scalar(
        "select lease_id::text from documents where 'stale_lease' = any(flags) and terminal_id::text = $1",
    )
    .bind(&till.terminal)
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(stored, [text(&lease, "lease_id")]);
    // One that had run out when the sale was made, and one that ran out afterwards.
    sqlx::query("update leases set revoked_at = null, revoke_reason = null, expires_at = now() - interval '1 hour'")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(flags(sell(&sale(3, id, Utc::now())).await), ["stale_lease"]);
    assert!(flags(sell(&sale(4, id, Utc::now() - TimeDelta::hours(2))).await).is_empty());
    // A lease of nobody, of another cashier or another terminal is none.
    let manager = world.new_user("supervisor", "manager", Some(&world.here)).await;
    let mut foreign = sale(5, id, Utc::now());
    foreign["cashier_id"] = json!(manager);
    for wrong in [foreign, sale(5, &json!(uuid::Uuid::now_v7()), Utc::now())] {
        assert_eq!(sell(&wrong).await.problem(), (422, "invalid_value".into(), "/lease_id".into()));
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn under_a_lock_no_pin_is_looked_at(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let hashes = || world.app.auth.pins.hashes();
    let before = hashes();
    assert_eq!(till.sign_in("anna", "9999").await.status, 401);
    assert_eq!(hashes() - before, 1, "a wrong PIN is compared");
    sqlx::query("update sign_in_failures set locked_until = now() + interval '1 hour'").execute(&pool).await.unwrap();
    for pin in ["9999", PIN] {
        let before = hashes();
        assert_eq!(till.sign_in("anna", pin).await.status, 429);
        assert_eq!(hashes() - before, 0, "{pin}");
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_storm_of_log_ins_keeps_no_cashier_waiting(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let storm = futures::future::join_all((0..60).map(|_| world.app.auth.passwords.hash("x".to_owned())));
    let (storm, lease) = tokio::join!(storm, till.sign_in("anna", PIN));
    assert_eq!(storm.iter().filter(|hash| hash.is_err()).count(), 8);
    lease.expect(201);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_pin_goes_when_its_user_is_given_more_than_who_set_it_has_to_give(pool: PgPool) {
    let world = world(&pool).await;
    let till = till(&world).await;
    let manager = world.user("manager", "manager", Some(&world.here)).await;
    let path = format!("/users/{}", till.cashier);
    let pin_by = async |caller: &Caller| caller.post(&format!("{path}/pin"), json!({"pin": PIN})).await.expect(200);
    let grant = async |grants: Value| {
        let etag = world.owner.get(&path).await.etag();
        world.owner.patch(&path, &etag, json!({"grants": grants})).await.expect(200);
    };
    let cashier = json!({"role": "cashier", "location_id": world.here});
    let supervisor = json!({"role": "manager", "location_id": world.here});
    pin_by(&manager).await;
    grant(json!([cashier, supervisor])).await;
    assert_eq!(till.sign_in("anna", PIN).await.status, 401, "the manager knows it");
    let taken = "select count(*) from audit_log where action = 'user.pin' and reason <> ''";
    assert_eq!(world.count(taken).await, 1);
    // Less, or what the one who set it could give: it stays.
    pin_by(&world.owner).await;
    grant(json!([cashier])).await;
    grant(json!([cashier, supervisor])).await;
    till.sign_in("anna", PIN).await.expect(201);
    grant(json!([cashier])).await;
    pin_by(&manager).await;
    grant(json!([])).await;
    grant(json!([cashier])).await;
    till.sign_in("anna", PIN).await.expect(201);
}
