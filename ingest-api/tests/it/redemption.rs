//! Points that are spent: what they pay for, which of them, how many; points that wait, are owed or are lost.

use chrono::{DateTime, TimeDelta, Utc};
use ingest_api::loyalty::expiry::{Expired, expire_points};
use ingest_api::verify::{Report, audited, ledger};
use schemas::codec::{Codec, Record, frame};
use schemas::events::{DocumentCommitted, LoyaltyPosted};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::{Answer, Caller, PROGRAM, World, text, world};

/// A business whose points are worth a cent each, with a till and a member.
struct Shop {
    world: World,
    till: Caller,
    cashier: String,
    member: String,
    next: std::sync::atomic::AtomicI64,
}

impl Shop {
    async fn new(pool: &PgPool) -> Shop {
        let world = world(pool).await;
        let (_, _, till) = world.till(&world.here, "1").await;
        let cashier = world.new_user("seller", "cashier", Some(&world.here)).await;
        let member = text(&world.owner.post("/members", json!({})).await.expect(201), "customer_id");
        let shop = Shop { world, till, cashier, member, next: 0.into() };
        shop.program(json!({"redeem_points": 1, "redeem_minor": 1})).await;
        shop
    }

    /// Edits the program.
    async fn program(&self, edit: Value) -> Value {
        let path = format!("/loyalty/programs/{PROGRAM}");
        let etag = self.world.owner.get(&path).await.etag();
        self.world.owner.patch(&path, &etag, edit).await.expect(200)
    }

    /// A sale to the member: variant and pieces of each line; points to spend, and what is then to be paid in cash.
    fn sale(&self, lines: &[(usize, i64)], points: i64, total: i64) -> Value {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let line = |(i, (variant, pieces)): (usize, &(usize, i64))| json!({"line_no": i + 1, "variant_id": self.world.variants[*variant], "qty": pieces * 1000});
        let lines: Vec<Value> = lines.iter().enumerate().map(line).collect();
        let mut sale = json!({"sale_id": Uuid::now_v7(), "location_id": self.world.here, "terminal_seq": number,
            "receipt": {"series_epoch": 1, "number": number}, "cashier_id": self.cashier, "customer_id": self.member,
            "occurred_at": Utc::now(), "currency": "EUR", "lines": lines, "tenders": [], "total_minor": total});
        if total > 0 {
            sale["tenders"] = json!([{"kind": "cash", "amount_minor": total}]);
        }
        if points > 0 {
            sale["redemption"] = json!({"program_id": PROGRAM, "points": points});
        }
        sale
    }

    async fn send(&self, sale: &Value) -> Answer {
        self.till.post_keyed("/sales", sale["sale_id"].as_str().unwrap(), sale).await
    }

    /// So many large coffees of 3.90 at an instant; the points they earned.
    async fn earn_at(&self, pieces: i64, at: DateTime<Utc>) -> i64 {
        let mut sale = self.sale(&[(1, pieces)], 0, pieces * 390);
        sale["occurred_at"] = json!(at);
        self.send(&sale).await.expect(201)["points_earned"].as_i64().unwrap()
    }

    async fn earn(&self, pieces: i64) -> i64 {
        self.earn_at(pieces, Utc::now()).await
    }

    /// The member's account as the API shows it.
    async fn account(&self) -> Value {
        let loyalty = self.world.owner.get(&format!("/members/{}/loyalty", self.member)).await.expect(200);
        loyalty["accounts"][0].clone()
    }

    /// Balance, available, pending, debt.
    async fn points(&self) -> [i64; 4] {
        let account = self.account().await;
        ["points", "available", "pending", "debt"].map(|name| account[name].as_i64().unwrap())
    }

    /// What remains of each lot, oldest first.
    async fn lots(&self) -> Vec<i64> {
        let account = self.account().await;
        account["lots"].as_array().unwrap().iter().map(|lot| lot["remaining"].as_i64().unwrap()).collect()
    }

    /// A debt as a claw-back leaves it.
    async fn owe(&self, points: i64) {
        sqlx::query(
            "with a as (update loyalty_accounts set points = points - $2, version = version + 1 where customer_id = $1
                        returning account_id, program_id, points, version),
                  l as (insert into loyalty_lots (lot_id, account_id, cause_id, earned_at, available_at, points, remaining)
                        select '00000000-0000-4000-8000-000000000001', account_id, $3, now(), now(), -$2, -$2 from a)
             insert into loyalty_entries (account_id, version, epoch, location_seq, program_id, kind, delta, points_after, lots,
                    cause_type, cause_id, actor, effective_at, recorded_at)
             select account_id, version, 1, 0, program_id, 'claw_back', -$2, points,
                    jsonb_build_array(jsonb_build_object('lot_id', '00000000-0000-4000-8000-000000000001', 'delta', -$2)),
                    'document', $3, $3, now(), now() from a",
        )
        .bind(self.member.parse::<Uuid>().unwrap())
        .bind(points)
        .bind(Uuid::now_v7())
        .execute(&self.world.pool)
        .await
        .unwrap();
    }

    /// Nothing that the checks of the ledger, of lots and lines, and of the audit log would name.
    async fn assert_ledger(&self) {
        assert_eq!(named(&self.world.pool).await, Vec::<String>::new());
        let digests: Vec<String> = sqlx::query_scalar(
            "select 'document ' || document_id from documents d where document_digest <> sha256(convert_to(
                    (select string_agg(concat_ws('|', line_no, variant_id, qty, extended_minor, discount_minor, tax_minor,
                            added_tax_minor, net_minor, payable_minor,
                            case when redemption_points <> 0 then redemption_minor || '|' || redemption_points end) || E'\\n', ''
                            order by line_no) from document_lines l where l.document_id = d.document_id)
                 || coalesce((select string_agg(concat_ws('|', tender_no, kind, amount_minor, tip_minor) || E'\\n', '' order by tender_no)
                      from document_tenders t where t.document_id = d.document_id), ''), 'UTF8'))",
        )
        .fetch_all(&self.world.pool)
        .await
        .unwrap();
        assert!(digests.is_empty(), "{digests:?}");
    }
}

/// What `worker verify` names of the ledger and of the audit log.
async fn named(pool: &PgPool) -> Vec<String> {
    let mut report = Report::default();
    ledger::check(pool, &mut report).await.unwrap();
    audited::check(pool, &mut report).await.unwrap();
    report.checks.into_iter().flat_map(|check| check.named).collect()
}

fn figures(body: &Value, names: &[&str]) -> Vec<i64> {
    names.iter().map(|name| body[*name].as_i64().unwrap_or_else(|| panic!("{name} in {body}"))).collect()
}

const LINE: [&str; 8] = [
    "extended_minor",
    "discount_minor",
    "redemption_minor",
    "redemption_points",
    "tax_minor",
    "added_tax_minor",
    "net_minor",
    "payable_minor",
];
const TOTALS: [&str; 7] = [
    "subtotal_minor",
    "discount_minor",
    "redemption_minor",
    "tax_minor",
    "total_minor",
    "points_redeemed",
    "points_earned",
];

#[sqlx::test(migrations = "../migrations/postgres")]
async fn points_lower_a_price_that_contains_its_tax(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let earned = shop.earn(100).await;
    assert_eq!(earned, 327, "39000 less 6227 tax");
    // 100 on bases of 500 and 390: 56.18 and 43.82, so 56 and 44. 444 * 19 / 119 = 70.89, 346 * 19 / 119 = 55.24.
    let sold = shop.send(&shop.sale(&[(0, 2), (1, 1)], 100, 790)).await.expect(201);
    assert_eq!(figures(&sold["lines"][0], &LINE), [500, 0, 56, 56, 71, 0, 373, 444]);
    assert_eq!(figures(&sold["lines"][1], &LINE), [390, 0, 44, 44, 55, 0, 291, 346]);
    assert_eq!(figures(&sold, &TOTALS), [890, 100, 100, 126, 790, 100, 6]);
    assert_eq!(shop.points().await, [earned - 100 + 6, earned - 100 + 6, 0, 0]);
    // Both entries stand in one document, the redemption first.
    let account = shop.account().await;
    let entries: Vec<(i64, &str, i64)> = account["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["version"].as_i64().unwrap(), it["kind"].as_str().unwrap(), it["delta"].as_i64().unwrap()))
        .collect();
    assert_eq!(entries, [(3, "accrual", 6), (2, "redemption", -100), (1, "accrual", 327)]);
    assert_eq!(account["entries"][0]["cause_id"], sold["sale_id"]);
    assert_eq!(account["entries"][1]["cause_id"], sold["sale_id"]);
    // Shares of the units, money and points, as a refund will give them back.
    let row: (i64, i64, String) = sqlx::query_as(
        "select redemption_minor, redemption_points, (unit_shares->'redemption')::text || (unit_shares->'redemption_points')::text
         from document_lines where document_id = $1 and line_no = 1",
    )
    .bind(text(&sold, "sale_id").parse::<Uuid>().unwrap())
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(row, (56, 56, "[28, 0][28, 0]".into()));
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn points_lower_the_base_of_a_tax_on_top(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let profile = json!({"external_id": "us", "name": "Sales tax", "valid_from": "2020-01-01T00:00:00Z",
        "rates": [{"name": "State", "rate": "0.08875", "inclusive": false}]});
    shop.world.owner.post("/tax-profiles", profile).await.expect(201);
    let variant = |id: &str| json!({"external_id": id, "product_external_id": "coffee", "sku": id, "name": id, "tax_profile_external_id": "us"});
    let price = |id: &str, amount: i64| json!({"variant_external_id": id, "currency": "EUR", "amount_minor": amount, "tax_inclusive": false, "valid_from": "2020-01-01T00:00:00Z"});
    let stored = shop
        .world
        .owner
        .post(
            "/catalog/upsert",
            json!({"variants": [variant("ten"), variant("five")],
        "prices": [price("ten", 1000), price("five", 500)]}),
        )
        .await
        .expect(200);
    shop.earn(100).await;
    let mut sale = shop.sale(&[(0, 1), (0, 1)], 300, 1307);
    for (i, row) in stored["variants"].as_array().unwrap().iter().enumerate() {
        sale["lines"][i]["variant_id"] = row["variant_id"].clone();
    }
    // 8.875 % of 800 and of 400: 71.00 and 35.50, to the even cent.
    let sold = shop.send(&sale).await.expect(201);
    assert_eq!(figures(&sold["lines"][0], &LINE), [1000, 0, 200, 200, 71, 71, 800, 871]);
    assert_eq!(figures(&sold["lines"][1], &LINE), [500, 0, 100, 100, 36, 36, 400, 436]);
    assert_eq!(figures(&sold, &TOTALS), [1500, 300, 300, 107, 1307, 300, 12]);
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn points_may_pay_for_everything_and_for_no_more(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let earned = shop.earn(100).await;
    let too_many = shop.send(&shop.sale(&[(0, 1)], 251, 0)).await;
    assert_eq!(too_many.problem(), (422, "redemption_exceeds_base".into(), "/redemption/points".into()));
    let sold = shop.send(&shop.sale(&[(0, 1)], 250, 0)).await.expect(201);
    assert_eq!(figures(&sold["lines"][0], &LINE), [250, 0, 250, 250, 0, 0, 0, 0]);
    assert_eq!(figures(&sold, &TOTALS), [250, 250, 250, 0, 0, 250, 0]);
    assert_eq!(shop.points().await[0], earned - 250);
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_oldest_points_are_spent_first(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let now = Utc::now();
    let young = shop.earn_at(10, now - TimeDelta::days(1)).await;
    let old = shop.earn_at(30, now - TimeDelta::days(9)).await;
    assert_eq!((young, old), (32, 98));
    shop.send(&shop.sale(&[(0, 1)], 100, 150)).await.expect(201);
    assert_eq!(shop.lots().await, [30, 1], "all of the old lot, two of the young one, and what this sale earned");
    let entry: Value = sqlx::query_scalar("select lots from loyalty_entries where kind = 'redemption'")
        .fetch_one(&pool)
        .await
        .unwrap();
    let deltas: Vec<i64> = entry.as_array().unwrap().iter().map(|lot| lot["delta"].as_i64().unwrap()).collect();
    assert_eq!(deltas, [-98, -2], "in the order of consumption");
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn replay_does_not_accrue_twice(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.earn(100).await;
    let sale = shop.sale(&[(1, 10)], 100, 3800);
    let first = shop.send(&sale).await;
    first.expect(201);
    let points = shop.points().await;
    for key in ["again", sale["sale_id"].as_str().unwrap()] {
        let twin = shop.till.post_keyed("/sales", key, &sale).await;
        assert_eq!((twin.status.as_u16(), &twin.bytes), (200, &first.bytes));
    }
    // The same numbers with other points are another document.
    let mut other = sale.clone();
    other["redemption"]["points"] = json!(99);
    assert_eq!(shop.till.post_keyed("/sales", "other", &other).await.problem().1, "sequence_reuse");
    assert_eq!(shop.points().await, points);
    let entries = shop.world.count("select count(*) from loyalty_entries").await;
    assert_eq!(entries, 3);
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn pending_not_redeemable(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.program(json!({"pending_days": 14})).await;
    let pending = shop.earn(100).await;
    assert_eq!(shop.points().await, [pending, 0, pending, 0]);
    let refused = shop.send(&shop.sale(&[(0, 1)], 100, 150)).await;
    assert_eq!(refused.problem(), (409, "insufficient_points".into(), "/redemption/points".into()));
    assert_eq!(refused.json()["points_available"], 0);
    // What was earned two weeks ago can be spent.
    let available = shop.earn_at(50, Utc::now() - TimeDelta::days(14)).await;
    assert_eq!(shop.points().await, [pending + available, available, pending, 0]);
    let refused = shop.send(&shop.sale(&[(1, 10)], available + 1, 3900 - available - 1)).await;
    assert_eq!(refused.json()["points_available"], available);
    shop.send(&shop.sale(&[(1, 10)], available, 3900 - available)).await.expect(201);
    assert_eq!(shop.points().await[1], 0);
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn twenty_tills_never_spend_the_same_points(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let earned = shop.earn(100).await;
    let sales: Vec<Value> = (0..20).map(|_| shop.sale(&[(0, 1)], 50, 200)).collect();
    let answers = futures::future::join_all(sales.iter().map(|sale| shop.send(sale))).await;
    let sold = answers.iter().filter(|answer| answer.status == 201).count() as i64;
    let short =
        answers.iter().filter(|answer| answer.status == 409 && answer.problem().1 == "insufficient_points").count();
    // Each earns one point, which the next may spend.
    assert_eq!((sold, short), (6, 14));
    assert_eq!(shop.points().await[0], earned - 6 * 50 + 6);
    shop.assert_ledger().await;
}

/// Another location has other lanes, and another process its own: accounts are locked across both.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn two_locations_never_spend_the_same_points(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let earned = shop.earn(100).await;
    let (_, _, there) = shop.world.till(&shop.world.there, "1").await;
    let there = Caller::of(crate::world::app(&pool).await, there.token.as_deref());
    shop.world
        .owner
        .patch(&format!("/users/{}", shop.cashier), "\"1\"", json!({"grants": [{"role": "cashier"}]}))
        .await
        .expect(200);
    let sent = (0..20).map(|i| {
        let mut sale = shop.sale(&[(0, 1)], 50, 200);
        if i % 2 == 0 {
            sale["location_id"] = json!(shop.world.there);
        }
        sale
    });
    let sales: Vec<Value> = sent.collect();
    let sent = sales.iter().enumerate().map(|(i, sale)| {
        let till = if i % 2 == 0 { &there } else { &shop.till };
        till.post_keyed("/sales", sale["sale_id"].as_str().unwrap(), sale)
    });
    let answers = futures::future::join_all(sent).await;
    let sold = answers.iter().filter(|answer| answer.status == 201).count() as i64;
    assert_eq!(sold, 6, "{}", answers[0].text());
    assert_eq!(shop.points().await[0], earned - 6 * 50 + 6);
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn ledger_balance_equals_sum_of_lots(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.program(json!({"redeem_points": 3, "redeem_minor": 2, "expires_after_days": 10, "pending_days": 2})).await;
    let mut random = 7u64;
    let mut draw = |below: i64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as i64 % below
    };
    let (mut spent, mut refused) = (0, 0);
    for _ in 0..60 {
        let (pieces, points) = (1 + draw(20), 3 * draw(40));
        let mut sale = shop.sale(&[(1, pieces), (0, 2)], points, pieces * 390 + 500 - points / 3 * 2);
        sale["occurred_at"] = json!(Utc::now() - TimeDelta::days(draw(14)));
        let answer = shop.send(&sale).await;
        match answer.status.as_u16() {
            201 => spent += points,
            _ => {
                assert_eq!(answer.problem().1, "insufficient_points");
                refused += 1;
            }
        }
        if draw(10) == 0 {
            expire_points(&shop.world.app.writer, 100).await.unwrap();
        }
        let [points, available, pending, debt] = shop.points().await;
        assert!(available + pending <= points && debt == 0);
        assert_eq!(shop.lots().await.iter().sum::<i64>(), points);
    }
    assert!(spent > 100 && refused > 3, "{spent} spent, {refused} refused");
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn new_points_pay_a_debt_first(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.owe(40).await;
    assert_eq!(shop.points().await, [-40, 0, 0, 40]);
    let refused = shop.send(&shop.sale(&[(0, 1)], 1, 249)).await;
    assert_eq!((refused.problem().1.as_str(), &refused.json()["points_available"]), ("insufficient_points", &json!(0)));
    assert_eq!(shop.earn(10).await, 32, "all of them were earned");
    assert_eq!((shop.points().await, shop.lots().await), ([-8, 0, 0, 8], vec![-8]));
    assert_eq!(shop.earn(10).await, 32);
    assert_eq!((shop.points().await, shop.lots().await), ([24, 24, 0, 0], vec![24]));
    assert_eq!(shop.earn(10).await, 32);
    assert_eq!(shop.lots().await, [24, 32]);
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn points_past_their_date_are_neither_spent_nor_kept(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.program(json!({"expires_after_days": 30})).await;
    let old = shop.earn_at(100, Utc::now() - TimeDelta::days(30)).await;
    let young = shop.earn(20).await;
    assert_eq!(shop.points().await, [old + young, young, 0, 0], "past its date before anybody wrote it off");
    let refused = shop.send(&shop.sale(&[(1, 10)], young + 1, 3900 - young - 1)).await;
    assert_eq!(refused.json()["points_available"], young);
    let writer = &shop.world.app.writer;
    assert_eq!(expire_points(writer, 100).await.unwrap(), Expired { accounts: 1, points: old });
    assert_eq!(expire_points(writer, 100).await.unwrap(), Expired::default());
    assert_eq!(shop.points().await, [young, young, 0, 0]);
    let entry = &shop.account().await["entries"][0];
    assert_eq!(
        (&entry["kind"], &entry["delta"], &entry["points_after"]),
        (&json!("expiry"), &json!(-old), &json!(young))
    );
    // One act of the company, published and audited.
    assert_eq!(shop.world.count("select count(*) from outbox where cause_type = 'expiry'").await, 1);
    let audited = shop.world.count("select count(*) from audit_log where action = 'loyalty.expire' and actor = '00000000-0000-0000-0000-000000000000'");
    assert_eq!(audited.await, 1);
    shop.assert_ledger().await;
}

/// Runs at the same time as sales that spend the points of other lots: nothing is lost twice.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn expiring_and_spending_at_once_agree(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.program(json!({"expires_after_days": 30})).await;
    let old = shop.earn_at(100, Utc::now() - TimeDelta::days(31)).await;
    let young = shop.earn(100).await;
    let sales: Vec<Value> = (0..10).map(|_| shop.sale(&[(0, 1)], 20, 230)).collect();
    let selling = futures::future::join_all(sales.iter().map(|sale| shop.send(sale)));
    let writer = &shop.world.app.writer;
    let (answers, first, second) = tokio::join!(selling, expire_points(writer, 100), expire_points(writer, 100));
    answers.iter().for_each(|answer| {
        answer.expect(201);
    });
    assert_eq!(first.unwrap().points + second.unwrap().points, old);
    assert_eq!(shop.points().await[0], young - 200 + 10);
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_quote_says_what_could_be_spent_and_costs_what_the_sale_costs(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.program(json!({"redeem_points": 3, "redeem_minor": 2})).await;
    let earned = shop.earn(100).await;
    assert_eq!(earned, 327);
    let sale = shop.sale(&[(0, 2), (1, 1)], 150, 790);
    let mut cart = json!({"location_id": sale["location_id"], "customer_id": shop.member, "occurred_at": sale["occurred_at"],
        "lines": sale["lines"]});
    let quote = shop.till.post("/quotes", cart.clone()).await.expect(200);
    let most = json!([{"program_id": PROGRAM, "redeem_points": 3, "redeem_minor": 2, "points_available": 327,
        "points_max": 327, "amount_max_minor": 218}]);
    assert_eq!((&quote["redeemable"], &quote["total_minor"]), (&most, &json!(890)));
    cart["redemption"] = sale["redemption"].clone();
    let quote = shop.till.post("/quotes", cart.clone()).await.expect(200);
    assert_eq!(quote["redeemable"], most, "on what the cart is worth without");
    let step = &quote["trace"].as_array().unwrap()[2];
    assert_eq!(
        step,
        &json!({"line": 0, "rule": "redemption", "id": PROGRAM, "base": 890, "exact": "100", "mode": "half_even",
        "result": 100, "shares": [[1, 56], [2, 44]]})
    );
    let sold = shop.send(&sale).await.expect(201);
    for figure in ["lines", "subtotal_minor", "discount_minor", "redemption_minor", "tax_minor", "total_minor"] {
        assert_eq!(quote[figure], sold[figure], "{figure}");
    }
    assert_eq!(
        sold["lines"][0]["redemption_points"].as_i64().unwrap()
            + sold["lines"][1]["redemption_points"].as_i64().unwrap(),
        150
    );
    // A small cart takes no more than it is worth, in whole cents.
    cart["redemption"] = Value::Null;
    cart["lines"] = json!([{"line_no": 1, "variant_id": shop.world.variants[2], "qty": 1}]);
    let quote = shop.till.post("/quotes", cart.clone()).await.expect(200);
    assert_eq!((&quote["total_minor"], &quote["redeemable"][0]["points_max"]), (&json!(2), &json!(3)));
    cart["customer_id"] = json!(Uuid::now_v7());
    let unknown = shop.till.post("/quotes", cart).await;
    assert_eq!(unknown.problem(), (422, "unknown_customer".into(), "/customer_id".into()));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn redemptions_that_make_no_sense_are_refused(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.program(json!({"redeem_points": 3, "redeem_minor": 2})).await;
    shop.earn(100).await;
    let good = || shop.sale(&[(0, 1)], 30, 230);
    let refused = async |change: fn(&mut Value)| {
        let mut sale = good();
        change(&mut sale);
        let answer = shop.send(&sale).await;
        let problem = answer.problem();
        // A quote says the same, up to what only a lane knows.
        let mut cart = json!({"location_id": sale["location_id"], "occurred_at": sale["occurred_at"], "lines": sale["lines"],
            "redemption": sale["redemption"]});
        cart["customer_id"] = sale["customer_id"].clone();
        if problem.1 != "insufficient_points" {
            assert_eq!(shop.till.post("/quotes", cart).await.problem(), problem);
        }
        problem
    };
    let problem = |status: u16, code: &str, pointer: &str| (status, code.to_owned(), pointer.to_owned());
    assert_eq!(refused(|it| it["customer_id"] = Value::Null).await, problem(422, "customer_required", "/customer_id"));
    assert_eq!(
        refused(|it| it["redemption"]["program_id"] = json!(Uuid::nil())).await,
        problem(422, "unknown_program", "/redemption/program_id")
    );
    for points in [0, -3, i64::MAX] {
        let mut sale = good();
        sale["redemption"]["points"] = json!(points);
        assert_eq!(shop.send(&sale).await.problem(), problem(422, "invalid_value", "/redemption/points"), "{points}");
    }
    assert_eq!(
        refused(|it| it["redemption"]["points"] = json!(31)).await,
        problem(422, "invalid_value", "/redemption/points")
    );
    assert_eq!(
        refused(|it| it["redemption"]["points"] = json!(378)).await,
        problem(422, "redemption_exceeds_base", "/redemption/points")
    );
    assert_eq!(
        refused(|it| it["redemption"]["money"] = json!(3)).await,
        problem(422, "unknown_field", "/redemption/money")
    );
    let mut dear = good();
    dear["total_minor"] = json!(250);
    let answer = shop.send(&dear).await;
    assert_eq!((answer.problem().1.as_str(), &answer.json()["quote"]["total_minor"]), ("total_mismatch", &json!(230)));
    let mut rich = shop.sale(&[(1, 10)], 330, 3680);
    assert_eq!(shop.send(&rich).await.problem(), problem(409, "insufficient_points", "/redemption/points"));
    // Points of somebody else are nobody's.
    let other = text(&shop.world.owner.post("/members", json!({})).await.expect(201), "customer_id");
    rich = good();
    rich["customer_id"] = json!(other);
    assert_eq!(shop.send(&rich).await.json()["points_available"], 0);
    shop.program(json!({"redeem_points": null, "redeem_minor": null})).await;
    assert_eq!(refused(|_| ()).await, problem(422, "not_redeemable", "/redemption/program_id"));
    let stored = shop.world.count("select count(*) from documents").await;
    assert_eq!(stored, 1, "nothing of a refused sale is stored");
    shop.assert_ledger().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_program_is_edited_under_its_version(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let (owner, path) = (&shop.world.owner, format!("/loyalty/programs/{PROGRAM}"));
    let program = owner.get(&path).await;
    assert_eq!(program.etag(), "\"2\"");
    assert_eq!(owner.get("/loyalty/programs").await.expect(200)["programs"], json!([program.json()]));
    assert_eq!(program.json()["pending_days"], Value::Null);
    let refused = async |edit: Value| owner.patch(&path, "\"2\"", edit).await.problem();
    for (edit, pointer) in [
        (json!({"step_minor": 0}), "/step_minor"),
        (json!({"points_per_step": -1}), "/points_per_step"),
        (json!({"redeem_points": 0}), "/redeem_points"),
        (json!({"redeem_minor": null}), "/redeem_minor"),
        (json!({"redeem_points": null}), "/redeem_points"),
        (json!({"expires_after_days": 0}), "/expires_after_days"),
        (json!({"pending_days": 36_501}), "/pending_days"),
        (json!({"expires_after_days": 14, "pending_days": 14}), "/pending_days"),
        (json!({"restore_days": -1}), "/restore_days"),
        (json!({"name": " "}), "/name"),
    ] {
        assert_eq!(refused(edit.clone()).await, (422, "invalid_value".into(), pointer.into()), "{edit}");
    }
    let stale = owner.patch(&path, "\"1\"", json!({"redeem_minor": 5, "step_minor": 100})).await;
    assert_eq!(stale.problem().1, "stale_version");
    assert_eq!(stale.json()["fields"], json!([{"field": "redeem_minor", "yours": 5, "current": 1}]));
    let unconditional = owner.send("PATCH", &path, &[], Some(b"{}")).await;
    assert_eq!(unconditional.problem().1, "precondition_required");
    let edit = json!({"step_minor": 200, "points_per_step": 3, "expires_after_days": 30, "pending_days": 3, "restore_days": 7});
    let edited = owner.patch(&path, "\"2\"", edit.clone()).await.expect(200);
    for (field, value) in edit.as_object().unwrap() {
        assert_eq!(&edited[field], value);
    }
    // The next sale goes by it, and whoever follows the catalog knows.
    assert_eq!(shop.earn(100).await, 489, "3 * floor(32773 / 200)");
    let lot = &shop.account().await["lots"][0];
    let at = |name: &str| lot[name].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(at("available_at") - at("earned_at"), TimeDelta::days(3));
    assert_eq!(at("expires_at") - at("earned_at"), TimeDelta::days(30));
    let feed = shop.till.get("/catalog/changes?limit=5000").await.expect(200);
    let told = feed["items"].as_array().unwrap().iter().rfind(|item| item["kind"] == "loyalty_program").unwrap();
    assert_eq!((&told["version"], &told["body"]), (&json!(3), &edited));
    // What a refund will take back by: the rule of the catalog version of each sale.
    let rules: Vec<(i64, i64, i64)> = sqlx::query_as(
        "select version, step_minor, points_per_step from loyalty_program_versions order by catalog_version",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(rules, [(1, 100, 1), (2, 100, 1), (3, 200, 3)]);
    let (version, is_after): (i64, bool) = sqlx::query_as(
        "select pricing_version, pricing_version >= (select max(catalog_version) from loyalty_program_versions) from documents",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(is_after);
    let rule = ingest_api::db::loyalty::rule_at;
    let mut conn = pool.acquire().await.unwrap();
    let program = schemas::ids::ProgramId(PROGRAM.parse().unwrap());
    assert_eq!(rule(&mut conn, program, version).await.unwrap().unwrap().step_minor, 200);
    assert_eq!(rule(&mut conn, program, 1).await.unwrap().unwrap().step_minor, 100);
    let audited = shop.world.count("select count(*) from audit_log where action = 'loyalty_program.edit'").await;
    assert_eq!(audited, 2);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_debt_is_paid_when_members_are_merged(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    let earned = shop.earn(100).await;
    let rich = shop.member.clone();
    let poor = text(&shop.world.owner.post("/members", json!({})).await.expect(201), "customer_id");
    let shop = Shop { member: poor.clone(), ..shop };
    shop.owe(40).await;
    let merge = json!({"absorbed_id": rich, "reason": "duplicate"});
    shop.world.owner.post(&format!("/members/{poor}/merge"), merge).await.expect(200);
    assert_eq!((shop.points().await, shop.lots().await), ([earned - 40, earned - 40, 0, 0], vec![earned - 40]));
    shop.assert_ledger().await;
}

/// The records of a sale, decoded from its outbox row.
async fn published<E: Record>(pool: &PgPool, sale: &Value) -> Vec<E> {
    let (topics, bodies): (Vec<String>, Vec<Vec<u8>>) =
        sqlx::query_as("select topics, bodies from outbox where cause_id = $1")
            .bind(text(sale, "sale_id").parse::<Uuid>().unwrap())
            .fetch_one(pool)
            .await
            .unwrap();
    let codec = Codec::with_known([(E::TOPIC.name, 1)]);
    let mut records = Vec::new();
    for (_, body) in topics.iter().zip(&bodies).filter(|(topic, _)| *topic == E::TOPIC.name) {
        records.push(codec.decode(&frame(1, body)).await.unwrap());
    }
    records
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_is_published_is_what_is_stored(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.earn(100).await;
    let sold = shop.send(&shop.sale(&[(0, 2), (1, 1)], 100, 790)).await.expect(201);
    let document: DocumentCommitted = published(&pool, &sold).await.remove(0);
    let shares: Vec<(i64, i64)> =
        document.lines.iter().map(|line| (line.redemption_minor, line.redemption_points)).collect();
    assert_eq!((shares, document.discount_minor), (vec![(56, 56), (44, 44)], 100));
    let entries: Vec<LoyaltyPosted> = published(&pool, &sold).await;
    let told: Vec<(&str, i64, i64, i64, i64)> = entries
        .iter()
        .map(|it| (it.kind.as_str(), it.version, it.delta, it.points_after, it.lots.iter().map(|lot| lot.delta).sum()))
        .collect();
    assert_eq!(told, [("redemption", 2, -100, 227, -100), ("accrual", 3, 6, 233, 6)]);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn verify_names_points_that_do_not_agree(pool: PgPool) {
    let shop = Shop::new(&pool).await;
    shop.program(json!({"expires_after_days": 30})).await;
    shop.earn_at(10, Utc::now() - TimeDelta::days(31)).await;
    shop.earn(100).await;
    shop.send(&shop.sale(&[(0, 2), (1, 1)], 100, 790)).await.expect(201);
    expire_points(&shop.world.app.writer, 100).await.unwrap();
    shop.assert_ledger().await;
    for (tampering, trace) in [
        ("update loyalty_lots set remaining = remaining - 1 where remaining > 100", "lot "),
        (
            "update document_lines set redemption_points = redemption_points + 1 where redemption_points > 0",
            "points redeemed, its lines say",
        ),
        ("update loyalty_entries set lots = '[]' where kind = 'redemption'", "its lots"),
        ("delete from loyalty_entries where kind = 'redemption'", "no entry takes them"),
        ("delete from audit_log where action = 'loyalty_program.edit'", "loyalty program "),
        ("delete from audit_log where action = 'loyalty.expire'", "points of account "),
    ] {
        let sees = async || named(&pool).await.iter().any(|what| what.contains(trace));
        assert!(!sees().await, "{tampering}: seen before");
        let tamper = format!("begin; set local session_replication_role = replica; {tampering}; commit");
        sqlx::raw_sql(sqlx::AssertSqlSafe(tamper)).execute(&pool).await.unwrap();
        assert!(sees().await, "{tampering}");
    }
}
