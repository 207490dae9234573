//! Merging two members, and the export of one: points, ledgers, aliases, history.

use ingest_api::customers::points;
use ingest_api::verify::{Report, audited};
use schemas::codec::Record as _;
use schemas::events::LoyaltyPosted;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::{Caller, World, text, world};

struct Shop {
    world: World,
    till: Caller,
    cashier: String,
    next: std::cell::Cell<i64>,
}

impl Shop {
    async fn new(pool: &PgPool) -> Shop {
        let world = world(pool).await;
        let (_, _, till) = world.till(&world.here, "1").await;
        let grants = json!([{"role": "cashier", "location_id": world.here}]);
        let body = json!({"login": "c1", "code": "c1", "grants": grants});
        let cashier = text(&world.owner.post("/users", body).await.expect(201), "user_id");
        Shop { world, till, cashier, next: 1.into() }
    }

    async fn member(&self, profile: Value) -> String {
        text(&self.world.owner.post("/members", json!({"profile": profile})).await.expect(201), "customer_id")
    }

    /// Sells so many large coffees of 3.90 to a member; the points it earned.
    async fn sell(&self, member: &str, pieces: i64) -> i64 {
        let number = self.next.replace(self.next.get() + 1);
        let body = json!({"sale_id": Uuid::now_v7(), "location_id": self.world.here, "terminal_seq": number,
            "receipt": {"series_epoch": 1, "number": number}, "cashier_id": self.cashier, "customer_id": member,
            "occurred_at": chrono::Utc::now(), "currency": "EUR",
            "lines": [{"line_no": 1, "variant_id": self.world.variants[1], "qty": pieces * 1000}],
            "tenders": [{"kind": "cash", "amount_minor": pieces * 390}], "total_minor": pieces * 390});
        let sold = self.till.post_keyed("/sales", &number.to_string(), &body).await.expect(201);
        sold["points_earned"].as_i64().unwrap()
    }

    async fn points(&self, member: &str) -> (i64, i64) {
        let loyalty = self.world.owner.get(&format!("/members/{member}/loyalty")).await.expect(200);
        let account = &loyalty["accounts"][0];
        let lots: i64 = account["lots"].as_array().unwrap().iter().map(|lot| lot["remaining"].as_i64().unwrap()).sum();
        assert_eq!(account["points"], lots, "the balance is its lots");
        (lots, account["version"].as_i64().unwrap())
    }

    async fn merge(&self, survivor: &str, absorbed: &str) -> crate::world::Answer {
        let body = json!({"absorbed_id": absorbed, "reason": "duplicate"});
        self.world.owner.post(&format!("/members/{survivor}/merge"), body).await
    }
}

/// Ledger and balances agree, versions have no gap, each post-state is right.
async fn assert_ledger(pool: &PgPool) {
    let wrong: Vec<String> = sqlx::query_scalar(
        "select a.account_id::text from loyalty_accounts a
           left join (select account_id, sum(delta)::bigint d, count(*) n, max(version) v from loyalty_entries group by 1) e
             using (account_id)
           left join (select account_id, sum(remaining)::bigint r from loyalty_lots group by 1) l using (account_id)
          where (a.points, a.version, a.version, a.points)
                is distinct from (coalesce(d, 0), coalesce(v, 0), coalesce(n, 0), coalesce(r, 0))
         union all
         select account_id::text from (
             select *, sum(delta) over (partition by account_id order by version) s,
                    (select coalesce(sum((lot->>'delta')::bigint), 0) from jsonb_array_elements(lots) lot) l
             from loyalty_entries) x
          where s <> points_after or l <> delta",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn points_profile_and_history_follow_the_survivor(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let consent = |is_given: bool, day: i64| json!([{"channel": "email", "is_given": is_given, "at": format!("2026-01-0{day}T00:00:00Z"), "source": "web"}]);
    let ours = shop.member(json!({"given_name": "Anna", "consents": consent(true, 1)})).await;
    let theirs =
        shop.member(json!({"given_name": "Ann", "email": "ann@example.com", "consents": consent(false, 2)})).await;
    let (first, second) = (shop.sell(&ours, 10).await, shop.sell(&theirs, 30).await);
    assert!(first > 0 && second > first);
    let merged = shop.merge(&ours, &theirs).await.expect(200);
    assert_eq!((&merged["customer_id"], &merged["points_moved"]), (&json!(ours), &json!(second)));
    assert_eq!(shop.points(&ours).await, (first + second, 2));
    assert_ledger(&pool).await;

    // What is asked about the alias is answered about the survivor.
    let alias = shop.world.owner.get(&format!("/members/{theirs}")).await.expect(200);
    assert_eq!(alias["merged_into"], ours);
    assert_eq!(shop.points(&theirs).await, (first + second, 2));
    let profile = shop.world.owner.get(&format!("/members/{theirs}/profile")).await.expect(200);
    assert_eq!((&profile["customer_id"], &profile["given_name"]), (&json!(ours), &json!("Anna")));
    assert_eq!((&profile["email"], &profile["consents"][0]["is_given"]), (&json!("ann@example.com"), &json!(false)));
    let found = shop.world.owner.post("/members/lookup", json!({"email": "ann@example.com"})).await.expect(200);
    assert_eq!(found["members"].as_array().unwrap().len(), 1);
    assert_eq!(found["members"][0]["customer_id"], ours);
    assert_eq!(shop.world.count("select count(*) from vault.data_keys").await, 1, "the other key is destroyed");

    // Both entries of the pair are published, of one act, in this order.
    let (topics, bodies): (Vec<String>, Vec<Vec<u8>>) =
        sqlx::query_as("select topics, bodies from outbox where cause_type = 'merge'").fetch_one(&pool).await.unwrap();
    assert_eq!(topics, [LoyaltyPosted::TOPIC.name; 2]);
    assert_eq!(bodies.len(), 2);
    let kinds: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "select e.kind, e.delta, e.points_after, e.version from loyalty_entries e where cause_type = 'merge' order by kind",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(kinds, [("merge_in".into(), second, first + second, 2), ("merge_out".into(), -second, 0, 2)]);

    // Again without effect.
    let again = shop.merge(&ours, &theirs).await.expect(200);
    assert_eq!((&again["points_moved"], &again["version"]), (&json!(0), &merged["version"]));
    assert_eq!(shop.points(&ours).await, (first + second, 2));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_tills_sell_to_an_alias_follows(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let (ours, theirs) = (shop.member(json!({})).await, shop.member(json!({})).await);
    shop.merge(&ours, &theirs).await.expect(200);
    assert_eq!(shop.points(&ours).await, (0, 0), "nothing to move, nothing written");
    let earned = shop.sell(&theirs, 20).await;
    assert_eq!(points::follow_merges(&shop.world.app.writer, 100).await.unwrap(), 1);
    assert_eq!(shop.points(&ours).await, (earned, 1));
    assert_eq!(points::follow_merges(&shop.world.app.writer, 100).await.unwrap(), 0);
    assert_ledger(&pool).await;
    // The platform itself did it, and says so.
    let rows: Vec<(String, Uuid, String)> =
        sqlx::query_as("select target, actor, reason from audit_log where action = 'member.points'")
            .fetch_all(&pool)
            .await
            .unwrap();
    let cause: Uuid = sqlx::query_scalar("select cause_id from loyalty_entries where kind = 'merge_out'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(rows, [(format!("member/{ours} member/{theirs}"), Uuid::nil(), cause.to_string())]);
    let named = async || {
        let mut report = Report::default();
        audited::check(&pool, &mut report).await.unwrap();
        report.checks.into_iter().flat_map(|check| check.named).collect::<Vec<_>>()
    };
    assert_eq!(named().await, Vec::<String>::new());
    let past = "begin; set local session_replication_role = replica;
                delete from audit_log where action = 'member.points'; commit";
    sqlx::raw_sql(past).execute(&pool).await.unwrap();
    let named = named().await;
    assert!(named.len() == 1 && named[0].starts_with("points of account "), "{named:?}");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn merges_that_make_no_sense_are_refused(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let (a, b, c, d) = (
        shop.member(json!({})).await,
        shop.member(json!({})).await,
        shop.member(json!({})).await,
        shop.member(json!({})).await,
    );
    let refused = async |survivor: &str, absorbed: &str, status: u16| {
        assert_eq!(shop.merge(survivor, absorbed).await.problem().0, status, "{absorbed} into {survivor}");
    };
    refused(&a, &a, 422).await;
    refused(&a, &Uuid::now_v7().to_string(), 422).await;
    refused(&Uuid::now_v7().to_string(), &a, 404).await;
    shop.merge(&b, &a).await.expect(200);
    refused(&a, &c, 409).await;
    refused(&c, &a, 409).await;
    // An alias of an alias is an alias of the last survivor.
    shop.merge(&c, &b).await.expect(200);
    assert_eq!(shop.world.owner.get(&format!("/members/{a}")).await.expect(200)["merged_into"], c);
    // Erasing an alias erases the person, everywhere.
    let erased =
        shop.world.owner.post(&format!("/members/{a}/erasure"), json!({"reason": "request"})).await.expect(200);
    assert_eq!((&erased["customer_id"], erased["aliases"].as_array().unwrap().len()), (&json!(c), 2));
    refused(&d, &c, 409).await;
    refused(&c, &d, 409).await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn sales_and_merges_at_once_lose_no_point(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let ours = shop.member(json!({})).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(shop.member(json!({})).await);
    }
    let selling = async {
        let mut earned = 0;
        for n in 0..12 {
            earned += shop.sell(if n % 3 == 0 { &ours } else { &others[n % 4] }, 10).await;
        }
        earned
    };
    let merging = async {
        for other in &others {
            shop.merge(&ours, other).await.expect(200);
        }
    };
    let (earned, ()) = tokio::join!(selling, merging);
    points::follow_merges(&shop.world.app.writer, 100).await.unwrap();
    assert_eq!(shop.points(&ours).await.0, earned);
    assert_ledger(&pool).await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_export_holds_everything_about_one_person_and_nothing_about_another(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let (ours, theirs) = (shop.member(json!({"given_name": "Anna"})).await, shop.member(json!({})).await);
    let stranger = shop.member(json!({"given_name": "Berta"})).await;
    for member in [&ours, &theirs, &stranger] {
        shop.sell(member, 10).await;
    }
    shop.merge(&ours, &theirs).await.expect(200);
    let export = shop.world.owner.get(&format!("/members/{theirs}/export")).await.expect(200);
    assert_eq!(export["profile"]["given_name"], "Anna");
    assert_eq!(export["members"].as_array().unwrap().len(), 2);
    assert_eq!(export["entries"].as_array().unwrap().len(), 4);
    let sold: Vec<_> = export["documents"].as_array().unwrap().iter().map(|sale| sale["customer_id"].clone()).collect();
    assert_eq!((sold.len(), sold.contains(&json!(ours)), sold.contains(&json!(theirs))), (2, true, true));
    assert!(!export.to_string().contains(&stranger) && !export.to_string().contains("Berta"));
    shop.world.owner.post(&format!("/members/{ours}/erasure"), json!({"reason": "request"})).await.expect(200);
    let export = shop.world.owner.get(&format!("/members/{ours}/export")).await.expect(200);
    assert_eq!((&export["profile"], export["documents"].as_array().unwrap().len()), (&Value::Null, 2));
    let audited = shop.world.count("select count(*) from audit_log where action = 'member.export'").await;
    assert_eq!(audited, 2);
}
