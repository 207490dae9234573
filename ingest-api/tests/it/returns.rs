//! Refunds, exchanges and voids through the API: figures, money, stock, points, and what is refused where.

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::limits::{PIN, set_pin};
use crate::rig::eventually;
use crate::world::{Answer, Caller, Device, World, text, world};

/// A till with people to work at it.
pub struct Shop {
    pub world: World,
    pub till: Till,
    pub cashier: String,
    pub manager: String,
}

/// A till at a location, and what it does next.
pub struct Till {
    terminal: String,
    device: Device,
    pub caller: Caller,
    location: String,
    next: std::sync::atomic::AtomicI64,
}

impl Till {
    async fn new(world: &World, location: &str, register: &str) -> Till {
        let (terminal, device, caller) = world.till(location, register).await;
        Till { terminal, device, caller, location: location.to_owned(), next: 1.into() }
    }

    fn number(&self) -> i64 {
        self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// Lines are variant, thousandths and what they cost; paid by these tenders.
    pub fn sale(&self, cashier: &str, lines: &[(&str, i64)], tenders: Value, total: i64) -> Value {
        let number = self.number();
        let lines: Vec<Value> = lines
            .iter()
            .zip(1..)
            .map(|((variant, qty), line_no)| json!({"line_no": line_no, "variant_id": variant, "qty": qty}))
            .collect();
        json!({"sale_id": Uuid::now_v7(), "location_id": self.location, "terminal_seq": number,
            "receipt": {"series_epoch": 1, "number": number}, "cashier_id": cashier, "occurred_at": Utc::now(),
            "currency": "EUR", "lines": lines, "tenders": tenders, "total_minor": total})
    }

    fn head(&self, cashier: &str) -> Value {
        let number = self.number();
        json!({"document_id": Uuid::now_v7(), "location_id": self.location, "terminal_seq": number,
            "receipt": {"series_epoch": 1, "number": number}, "cashier_id": cashier, "occurred_at": Utc::now(),
            "currency": "EUR", "reason": "defect"})
    }

    /// Lines are origin, its line, thousandths and disposition; paid out by these tenders.
    pub fn refund(&self, cashier: &str, lines: &[(&str, i32, i64, &str)], tenders: Value, total: i64) -> Value {
        let mut body = self.head(cashier);
        body["lines"] = back(lines);
        (body["tenders"], body["total_minor"]) = (tenders, json!(total));
        body
    }

    pub async fn send(&self, path: &str, body: &Value) -> Answer {
        self.caller.post_keyed(path, &Uuid::new_v4().to_string(), body).await
    }
}

fn back(lines: &[(&str, i32, i64, &str)]) -> Value {
    let line = |((origin, no, qty, disposition), line_no): (&(&str, i32, i64, &str), i32)| {
        json!({"line_no": line_no, "origin_document_id": origin, "origin_line_no": no, "qty": qty,
               "disposition": disposition})
    };
    lines.iter().zip(1..).map(line).collect()
}

fn cash(amount: i64) -> Value {
    json!([{"kind": "cash", "amount_minor": amount}])
}

pub async fn shop(pool: &PgPool) -> Shop {
    let world = world(pool).await;
    let till = Till::new(&world, &world.here, "1").await;
    let cashier = world.new_user("anna", "cashier", Some(&world.here)).await;
    let manager = world.new_user("mia", "manager", Some(&world.here)).await;
    Shop { world, till, cashier, manager }
}

impl Shop {
    /// Three of variant 0 (2.50) and 0.333 of variant 2 (19.90 by measure: 6.63) for cash: 14.13.
    async fn sold(&self) -> String {
        let lines = [(self.world.variants[0].as_str(), 3000), (self.world.variants[2].as_str(), 333)];
        let sale = self.till.sale(&self.cashier, &lines, cash(1413), 1413);
        self.till.send("/sales", &sale).await.expect(201);
        text(&sale, "sale_id")
    }
    async fn stock(&self, location: &str, variant: usize) -> Option<(i64, i64)> {
        sqlx::query_as("select qty, version from stock_levels where location_id = $1::uuid and variant_id = $2::uuid")
            .bind(location)
            .bind(&self.world.variants[variant])
            .fetch_optional(&self.world.pool)
            .await
            .unwrap()
    }
    async fn aside(&self, location: &str) -> Vec<(String, i64)> {
        let list = self.world.owner.get(&format!("/stock/aside?location_id={location}")).await.expect(200);
        let item = |row: &Value| (text(row, "kind"), row["qty"].as_i64().unwrap());
        let mut all: Vec<_> = list["items"].as_array().unwrap().iter().map(item).collect();
        all.sort();
        all
    }
    /// Books that no return may upset.
    async fn assert_consistent(&self) {
        for (what, query) in INVARIANTS {
            let broken: Vec<(String,)> =
                sqlx::query_as(sqlx::AssertSqlSafe(*query)).fetch_all(&self.world.pool).await.unwrap();
            assert!(broken.is_empty(), "{what}: {broken:?}");
        }
    }
}

const INVARIANTS: &[(&str, &str)] = &[
    (
        "money adds up",
        "select d.document_id::text from documents d
          where coalesce((select sum(payable_minor) from document_lines l where l.document_id = d.document_id), 0) <> d.total_minor
             or (select coalesce(sum(amount_minor), 0) from document_tenders t where t.document_id = d.document_id)
                - d.change_minor <> d.total_minor + d.rounding_minor
             or coalesce((select sum(tax_minor) from document_lines l where l.document_id = d.document_id), 0) <> d.tax_minor",
    ),
    (
        "each stock line moved stock once",
        "select l.document_id::text from document_lines l
           left join stock_movements m on m.cause_id = l.document_id and m.cause_line = l.line_no and m.delta = -l.qty
          where l.tracks_stock group by l.document_id, l.line_no having count(m.version) <> 1",
    ),
    (
        "levels are the sums of their movements",
        "select l.variant_id::text from stock_levels l
         full join (select location_id, variant_id, sum(delta) d, count(*) n, max(version) v
                      from stock_movements group by 1, 2) m using (location_id, variant_id)
          where (l.qty, l.version, l.version) is distinct from (coalesce(m.d, 0)::bigint, coalesce(m.n, 0), coalesce(m.v, 0))",
    ),
    (
        "post-states are right",
        "select variant_id::text from (
            select *, sum(delta) over (partition by location_id, variant_id order by version) r from stock_movements) x
          where r <> qty_after",
    ),
    (
        "points are ledger, balance and lots",
        "select a.account_id::text from loyalty_accounts a
         left join (select account_id, sum(delta) d, count(*) n from loyalty_entries group by 1) e using (account_id)
         left join (select account_id, sum(remaining) r from loyalty_lots group by 1) l using (account_id)
          where a.points <> coalesce(e.d, 0) or a.version <> coalesce(e.n, 0) or a.points <> coalesce(l.r, 0)",
    ),
    (
        "numbers have no gap, and each document its outbox row",
        "select s.stream_id::text from streams s
         left join (select stream_id, count(*) n, max(seq) m from outbox group by 1) o using (stream_id)
          where s.last_seq <> coalesce(o.n, 0) or s.last_seq <> coalesce(o.m, 0)
         union all select document_id::text from documents d
          where not exists (select 1 from outbox o where o.cause_id = d.document_id and o.seq = d.location_seq)",
    ),
    (
        "each document has its key, its audit row and the digest of its rows",
        "select document_id::text from documents d
          where not exists (select 1 from idempotency_keys k where k.fingerprint = d.content_hash)
             or (select count(*) from audit_log a where a.target = d.kind || '/' || d.document_id
                   and a.action = d.kind || '.create' and a.after_digest = d.document_digest and a.actor = d.cashier_id) <> 1
             or document_digest <> sha256(convert_to(
                coalesce((select string_agg(concat_ws('|', line_no, variant_id, qty, extended_minor, discount_minor, tax_minor,
                                                      added_tax_minor, net_minor, payable_minor) || E'\\n', '' order by line_no)
                            from document_lines l where l.document_id = d.document_id), '')
             || coalesce((select string_agg(concat_ws('|', tender_no, kind, amount_minor, tip_minor) || E'\\n', '' order by tender_no)
                            from document_tenders t where t.document_id = d.document_id), ''), 'UTF8'))",
    ),
];

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_refund_is_the_stored_sale_negated_and_equals_its_preview(pool: PgPool) {
    let shop = shop(&pool).await;
    let sale = shop.sold().await;
    let lines = [(sale.as_str(), 1, 1000, "resellable"), (sale.as_str(), 2, 100, "waste")];
    let preview = json!({"location_id": shop.world.here, "lines": back(&lines)});
    let preview = shop.till.caller.post("/refunds/preview", preview).await.expect(200);
    // 2.50 and 100 of 333 thousandths of 6.63.
    assert_eq!((&preview["total_minor"], &preview["tenders"]), (&json!(-449), &cash(-449)));
    assert_eq!(preview["acts"], json!([{"act": "refund", "amount_minor": 449}]));
    let refund = shop.till.refund(&shop.cashier, &lines, cash(-449), -449);
    let answer = shop.till.send("/refunds", &refund).await;
    let body = answer.expect(201);
    for figure in ["lines", "subtotal_minor", "tax_minor", "total_minor", "currency", "rounding_minor"] {
        assert_eq!(body[figure], preview[figure], "{figure}");
    }
    assert_eq!((&body["kind"], &body["reason"]), (&json!("refund"), &json!("defect")));
    let first = &body["lines"][0];
    assert_eq!((&first["qty"], &first["first_unit"], &first["last_unit"]), (&json!(-1000), &json!(1), &json!(1)));
    assert_eq!((&first["tax_minor"], &first["net_minor"]), (&json!(-40), &json!(-210)));
    // Sent again: the same bytes; read back: the same bytes.
    let again = shop.till.send("/refunds", &refund).await;
    assert_eq!((again.status.as_u16(), &again.bytes), (200, &answer.bytes));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let path = format!("/documents/{}", text(&refund, "document_id"));
    assert_eq!(answer.headers["location"], format!("/api/v1{path}"));
    assert_eq!(shop.till.caller.get(&path).await.bytes, answer.bytes);
    assert_eq!(shop.till.caller.get(&format!("/sales/{}", text(&refund, "document_id"))).await.problem().0, 404);
    assert_eq!(shop.till.caller.get(&format!("{path}/proof")).await.problem().1, "not_rooted");
    // Goods are where they were said to go.
    assert_eq!(shop.stock(&shop.world.here, 0).await, Some((-2000, 2)));
    assert_eq!(shop.stock(&shop.world.here, 2).await, Some((-333, 1)));
    assert_eq!(shop.aside(&shop.world.here).await, [("waste".to_owned(), 100)]);
    // The rest, then nothing is left.
    let lines = [(sale.as_str(), 1, 2000, "inspect"), (sale.as_str(), 2, 233, "inspect")];
    let rest = shop.till.refund(&shop.manager, &lines, cash(-964), -964);
    shop.till.send("/refunds", &rest).await.expect(201);
    let sums: (i64, i64, i64, i64) = sqlx::query_as(
        "select sum(total_minor)::bigint, sum(tax_minor)::bigint, sum(subtotal_minor)::bigint, sum(change_minor)::bigint
         from documents",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(sums, (0, 0, 0, 0), "a refund of everything is the sale");
    let left = shop.till.caller.get(&format!("/documents/{sale}/returnable")).await.expect(200);
    assert!(left["lines"].as_array().unwrap().iter().all(|line| line["left"] == 0), "{left}");
    let listed = shop.till.caller.get(&format!("/documents?origin_id={sale}")).await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert_eq!(shop.till.caller.get("/sales").await.expect(200)["items"].as_array().unwrap().len(), 1);
    let voids = shop.till.caller.get("/documents?kind=void").await.expect(200);
    assert_eq!(voids["items"], json!([]));
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn fifty_refunds_of_the_last_unit_one_wins(pool: PgPool) {
    let shop = shop(&pool).await;
    let sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], 1000)], cash(250), 250);
    shop.till.send("/sales", &sale).await.expect(201);
    let sale = text(&sale, "sale_id");
    // Half of them at another location, through another process.
    let there = Till::new(&shop.world, &shop.world.there, "1").await;
    let other = Caller::of(crate::world::app(&pool).await, there.caller.token.as_deref());
    let boss = shop.world.new_user("chief", "manager", None).await;
    let mut sending = Vec::new();
    for n in 0..50 {
        let (till, caller) = if n % 2 == 0 { (&shop.till, &shop.till.caller) } else { (&there, &other) };
        let refund = till.refund(&boss, &[(&sale, 1, 1000, "resellable")], cash(-250), -250);
        // Who waits too long for what all of them want is told so, and asks again as a till does.
        sending.push(async move {
            eventually(async || match caller.post_keyed("/refunds", &n.to_string(), &refund).await {
                answer if answer.status == 503 => Err(answer.text()),
                answer => Ok(answer),
            })
            .await
        });
    }
    let answers = futures::future::join_all(sending).await;
    let won = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(won, 1, "{:?}", answers.iter().map(Answer::text).collect::<Vec<_>>());
    for lost in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(lost.problem(), (409, "already_refunded".to_owned(), "/lines/0/qty".to_owned()));
        assert_eq!(lost.json()["left"], 0);
    }
    assert_eq!(shop.world.count("select count(*) from documents").await, 2);
    shop.assert_consistent().await;
}

/// T9 for refunds: key, number, id and receipt, in this order.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_refund_is_one_whatever_is_sent_twice(pool: PgPool) {
    let shop = shop(&pool).await;
    let sale = shop.sold().await;
    let refund = shop.till.refund(&shop.cashier, &[(&sale, 1, 1000, "resellable")], cash(-250), -250);
    let sent = shop.till.caller.post_keyed("/refunds", "k", &refund).await;
    sent.expect(201);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body = refund.clone();
        change(&mut body);
        body
    };
    // The same key, another document.
    let other = changed(&|body| body["reason"] = json!("late"));
    assert_eq!(shop.till.caller.post_keyed("/refunds", "k", &other).await.problem().1, "idempotency_key_reuse");
    // When it left the till is no part of it.
    let later = changed(&|body| body["sent_at"] = json!(Utc::now()));
    let again = shop.till.caller.post_keyed("/refunds", "k2", &later).await;
    assert_eq!((again.status.as_u16(), &again.bytes), (200, &sent.bytes));
    assert_eq!(shop.till.send("/refunds", &other).await.problem().1, "sequence_reuse");
    let number = |body: &mut Value| body["terminal_seq"] = json!(90);
    assert_eq!(shop.till.send("/refunds", &changed(&number)).await.problem().1, "id_conflict");
    let receipt = changed(&|body| {
        number(body);
        body["document_id"] = json!(Uuid::now_v7());
    });
    assert_eq!(shop.till.send("/refunds", &receipt).await.problem().1, "receipt_conflict");
    // The number of a sale, and a refund's under a sale.
    let taken = changed(&|body| {
        body["terminal_seq"] = json!(1);
        body["document_id"] = json!(Uuid::now_v7());
    });
    assert_eq!(shop.till.send("/refunds", &taken).await.problem().1, "sequence_reuse");
    // Twins at once are one.
    let twin = shop.till.refund(&shop.cashier, &[(&sale, 1, 1000, "resellable")], cash(-250), -250);
    let sending = (0..20).map(|n| {
        let twin = twin.clone();
        let shop = &shop;
        async move { shop.till.caller.post_keyed("/refunds", &format!("t{}", n % 3), &twin).await }
    });
    let answers = futures::future::join_all(sending).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(
        answers.iter().all(|answer| answer.bytes == answers[0].bytes && [200, 201].contains(&answer.status.as_u16()))
    );
    shop.assert_consistent().await;
}

/// T13: cash and stock where it happens, tax and revenue where it was sold, in the books of both once.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_return_at_another_location_is_in_the_books_of_both(pool: PgPool) {
    let shop = shop(&pool).await;
    let sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], 1000)], cash(250), 250);
    shop.till.send("/sales", &sale).await.expect(201);
    let sale = text(&sale, "sale_id");
    let there = Till::new(&shop.world, &shop.world.there, "1").await;
    let bea = shop.world.new_user("bea", "cashier", Some(&shop.world.there)).await;
    let refund = there.refund(&bea, &[(&sale, 1, 1000, "resellable")], cash(-250), -250);
    let body = there.send("/refunds", &refund).await.expect(201);
    assert_eq!(body["origin_location_id"], json!(shop.world.here));
    assert_eq!(body["lines"][0]["origin_location_id"], json!(shop.world.here));
    assert_eq!(body["location_id"], json!(shop.world.there));
    let cash_of = |at: String| {
        let pool = pool.clone();
        async move {
            let sum: i64 = sqlx::query_scalar(
                "select coalesce(sum(t.amount_minor) - sum(distinct d.change_minor), 0)::bigint
                 from documents d join document_tenders t using (document_id) where d.location_id = $1::uuid",
            )
            .bind(at)
            .fetch_one(&pool)
            .await
            .unwrap();
            sum
        }
    };
    assert_eq!((cash_of(shop.world.here.clone()).await, cash_of(shop.world.there.clone()).await), (250, -250));
    assert_eq!(shop.stock(&shop.world.here, 0).await, Some((-1000, 1)));
    assert_eq!(shop.stock(&shop.world.there, 0).await, Some((1000, 1)));
    // By origin and by place of the act the company comes to the same.
    let by_origin: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "select coalesce(origin_location_id, location_id), sum(net_minor)::bigint, sum(tax_minor)::bigint
         from document_lines group by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(by_origin, [(shop.world.here.parse().unwrap(), 0, 0)]);
    // Made once; of a sale never made there is nothing.
    let twice = there.refund(&bea, &[(&sale, 1, 1000, "resellable")], cash(-250), -250);
    assert_eq!(there.send("/refunds", &twice).await.problem().1, "already_refunded");
    let never = Uuid::now_v7().to_string();
    let unknown = there.refund(&bea, &[(&never, 1, 1000, "resellable")], cash(-250), -250);
    let problem = there.send("/refunds", &unknown).await.problem();
    assert_eq!(problem, (404, "not_found".to_owned(), "/lines/0/origin_document_id".to_owned()));
    // A till reads what is left at its own location only.
    assert_eq!(there.caller.get(&format!("/documents/{sale}/returnable")).await.problem().0, 404);
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn money_goes_back_to_who_paid_and_elsewhere_with_an_approval(pool: PgPool) {
    let shop = shop(&pool).await;
    set_pin(&shop.world, &shop.manager).await;
    let card = json!({"token": "tok_1", "brand": "visa", "last_four": "4242", "expiry": "12/30"});
    let tenders = json!([{"kind": "card", "amount_minor": 600, "card": card}, {"kind": "cash", "amount_minor": 150}]);
    let sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], 3000)], tenders, 750);
    shop.till.send("/sales", &sale).await.expect(201);
    let sale = text(&sale, "sale_id");
    let one = [(sale.as_str(), 1, 1000, "resellable")];
    let to_card = |amount: i64| json!([{"kind": "card", "amount_minor": amount, "origin": {"document_id": sale, "tender_no": 1}}]);
    let first = shop.till.refund(&shop.cashier, &one, to_card(-250), -250);
    let body = shop.till.send("/refunds", &first).await.expect(201);
    assert_eq!(body["tenders"][0]["card_last_four"], "4242");
    let stored: (String, i32) =
        sqlx::query_as("select psp_reference, origin_tender_no from document_tenders where amount_minor = -250")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(stored, ("tok_1".to_owned(), 1));
    // Cash instead: somebody else has to approve what goes elsewhere.
    let mut in_cash = shop.till.refund(&shop.cashier, &one, cash(-250), -250);
    let refused = shop.till.send("/refunds", &in_cash).await;
    assert_eq!(refused.problem().1, "approval_required");
    let mut asked = refused.json()["approval"].clone();
    assert_eq!(asked["acts"], json!([{"act": "refund_to_other_tender", "ceiling_minor": 250}]));
    asked["approver"] = shop.till.device.pin(&shop.till.terminal, "mia", PIN);
    let approval = shop.till.caller.post("/approvals", asked).await.expect(201);
    in_cash["approval"] = approval["approval"].clone();
    let approved = shop.till.send("/refunds", &in_cash).await.expect(201);
    assert_eq!(approved["approval_id"], approval["approval_id"]);
    // What the card still holds, and the rest in cash. The limit of three a shift counts all of them.
    let left = shop.till.caller.get(&format!("/documents/{sale}/returnable")).await.expect(200);
    assert_eq!((&left["tenders"][0]["held_minor"], &left["lines"][0]["payable_minor"]), (&json!(350), &json!(250)));
    let too_much = shop.till.refund(&shop.cashier, &one, to_card(-400), -250);
    assert_eq!(
        shop.till.send("/refunds", &too_much).await.problem(),
        (409, "already_refunded".to_owned(), "/tenders/0/amount_minor".to_owned())
    );
    let last = shop.till.refund(&shop.cashier, &one, to_card(-250), -250);
    shop.till.send("/refunds", &last).await.expect(201);
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn cashiers_refund_within_their_limits(pool: PgPool) {
    let shop = shop(&pool).await;
    let sell = |count: i64| {
        let sale =
            shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], count * 1000)], cash(count * 250), count * 250);
        let till = &shop.till;
        async move { (till.send("/sales", &sale).await.expect(201), text(&sale, "sale_id")).1 }
    };
    let (small, large) = (sell(10).await, sell(21).await);
    // 50.00 and not a cent more.
    let all = shop.till.refund(&shop.cashier, &[(&large, 1, 21_000, "resellable")], cash(-5250), -5250);
    let refused = shop.till.send("/refunds", &all).await;
    assert_eq!(refused.problem().1, "approval_required");
    assert_eq!(refused.json()["approval"]["acts"], json!([{"act": "refund", "ceiling_minor": 5250}]));
    let most = shop.till.refund(&shop.cashier, &[(&large, 1, 20_000, "resellable")], cash(-5000), -5000);
    shop.till.send("/refunds", &most).await.expect(201);
    // Three a shift, over all devices.
    let other = Till::new(&shop.world, &shop.world.here, "2").await;
    for till in [&shop.till, &other] {
        let one = till.refund(&shop.cashier, &[(&small, 1, 1000, "resellable")], cash(-250), -250);
        till.send("/refunds", &one).await.expect(201);
    }
    let fourth = other.refund(&shop.cashier, &[(&small, 1, 1000, "resellable")], cash(-250), -250);
    assert_eq!(other.send("/refunds", &fourth).await.problem().1, "approval_required");
    let by_manager = other.refund(&shop.manager, &[(&small, 1, 1000, "resellable")], cash(-250), -250);
    other.send("/refunds", &by_manager).await.expect(201);
    // Refused acts are in the log, and the ledger has what was done.
    let counted: Vec<(i64, i64)> = sqlx::query_as(
        "select ordinal, amount_minor from limited_acts where act = 'refund' and user_id = $1::uuid order by ordinal",
    )
    .bind(&shop.cashier)
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(counted, [(1, 5000), (2, 250), (3, 250)]);
    let refused = "select count(*) from audit_log where outcome = 'refused' and action = 'refused.Refund'";
    assert_eq!(shop.world.count(refused).await, 2);
    // Who has no right to take anything back, takes nothing back.
    let rules = [ingest_api::limits::Rule::new(ingest_api::access::Permission::Sell, ingest_api::limits::Mode::Allow)];
    let role = shop.world.new_role("only sells", &rules).await;
    let tom = shop.world.new_user("tom", &role, Some(&shop.world.here)).await;
    let none = other.refund(&tom, &[(&small, 1, 1000, "resellable")], cash(-250), -250);
    assert_eq!(other.send("/refunds", &none).await.problem().1, "forbidden");
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_exchange_is_one_document_and_its_goods_come_back_in_turn(pool: PgPool) {
    let shop = shop(&pool).await;
    let member = text(&shop.world.owner.post("/members", json!({})).await.expect(201), "customer_id");
    let mut sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], 2000)], cash(500), 500);
    sale["customer_id"] = json!(member);
    let sold = shop.till.send("/sales", &sale).await.expect(201);
    // Net 4.20 at a point for each 1.00.
    assert_eq!(sold["points_earned"], 4);
    let sale = text(&sale, "sale_id");
    // One of 2.50 against one of 3.90: 1.40 to pay.
    let lines = json!([{"line_no": 7, "variant_id": shop.world.variants[1], "qty": 1000}]);
    let returns = back(&[(&sale, 1, 1000, "resellable")]);
    let preview = json!({"location_id": shop.world.here, "returns": returns, "lines": lines});
    let preview = shop.till.caller.post("/exchanges/preview", preview).await.expect(200);
    assert_eq!((&preview["total_minor"], &preview["tenders"]), (&json!(140), &json!([])));
    let mut exchange = shop.till.head(&shop.cashier);
    (exchange["returns"], exchange["lines"]) = (returns, lines);
    (exchange["tenders"], exchange["total_minor"]) = (cash(200), json!(140));
    let answer = shop.till.send("/exchanges", &exchange).await;
    let body = answer.expect(201);
    for figure in ["lines", "total_minor", "points_clawed_back", "points_earned"] {
        assert_eq!(body[figure], preview[figure], "{figure}");
    }
    assert_eq!((&body["change_minor"], &body["customer_id"]), (&json!(60), &json!(member)));
    // Half of 4.20 comes back, 3.28 goes: -2 and +3.
    assert_eq!((&body["points_clawed_back"], &body["points_earned"]), (&json!(2), &json!(3)));
    assert_eq!(shop.till.send("/exchanges", &exchange).await.bytes, answer.bytes);
    assert_eq!(
        (shop.stock(&shop.world.here, 0).await, shop.stock(&shop.world.here, 1).await),
        (Some((-1000, 2)), Some((-1000, 1)))
    );
    // What the exchange gave comes back by its own name; what it took is no goods of it.
    let chain = text(&exchange, "document_id");
    let wrong = shop.till.refund(&shop.cashier, &[(&chain, 1, 1000, "resellable")], cash(-250), -250);
    assert_eq!(shop.till.send("/refunds", &wrong).await.problem().2, "/lines/0/origin_line_no");
    let next = shop.till.refund(
        &shop.cashier,
        &[(&chain, 7, 1000, "resellable"), (&sale, 1, 1000, "waste")],
        cash(-640),
        -640,
    );
    let body = shop.till.send("/refunds", &next).await.expect(201);
    assert_eq!((&body["lines"][0]["origin_document_id"], &body["lines"][1]["first_unit"]), (&json!(chain), &json!(2)));
    let points: i64 = sqlx::query_scalar("select points from loyalty_accounts").fetch_one(&pool).await.unwrap();
    assert_eq!(points, 0, "everything came back");
    let kinds: Vec<(String, i64)> =
        sqlx::query_as("select kind, delta from loyalty_entries order by version").fetch_all(&pool).await.unwrap();
    let told: Vec<(&str, i64)> = kinds.iter().map(|(kind, delta)| (kind.as_str(), *delta)).collect();
    assert_eq!(told, [("accrual", 4), ("claw_back", -2), ("accrual", 3), ("claw_back", -5)]);
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_exchange_pays_out_or_moves_no_money(pool: PgPool) {
    let shop = shop(&pool).await;
    let card = json!({"token": "tok_9", "brand": "visa", "last_four": "4242", "expiry": "12/30"});
    let tenders = json!([{"kind": "card", "amount_minor": 390, "card": card}]);
    let sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[1], 1000)], tenders, 390);
    shop.till.send("/sales", &sale).await.expect(201);
    let sale = text(&sale, "sale_id");
    let mut even = shop.till.head(&shop.cashier);
    even["returns"] = back(&[(&sale, 1, 1000, "resellable")]);
    even["lines"] = json!([{"line_no": 2, "variant_id": shop.world.variants[1], "qty": 1000}]);
    (even["tenders"], even["total_minor"]) = (cash(1), json!(0));
    assert_eq!(shop.till.send("/exchanges", &even).await.problem().1, "tenders_do_not_add_up");
    even["tenders"] = json!([]);
    shop.till.send("/exchanges", &even).await.expect(201);
    // Nothing was paid for the second one; what goes back goes to the card of the first.
    let mut less = shop.till.head(&shop.cashier);
    let chain = text(&even, "document_id");
    less["returns"] = back(&[(&chain, 2, 1000, "resellable")]);
    less["lines"] = json!([{"line_no": 2, "variant_id": shop.world.variants[0], "qty": 1000}]);
    less["total_minor"] = json!(-140);
    less["tenders"] = json!([{"kind": "card", "amount_minor": -140, "origin": {"document_id": sale, "tender_no": 1}}]);
    let body = shop.till.send("/exchanges", &less).await.expect(201);
    assert_eq!(body["tenders"][0]["origin"]["document_id"], json!(sale));
    let acts: Vec<i64> = sqlx::query_scalar("select amount_minor from limited_acts where act = 'refund'")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(acts, [140], "an exchange that pays nothing out counts as no refund");
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn points_that_are_spent_become_a_debt_of_the_member(pool: PgPool) {
    let shop = shop(&pool).await;
    let member = text(&shop.world.owner.post("/members", json!({})).await.expect(201), "customer_id");
    let mut sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], 2000)], cash(500), 500);
    sale["customer_id"] = json!(member);
    shop.till.send("/sales", &sale).await.expect(201);
    // As a redemption leaves it: the lot is used up.
    sqlx::raw_sql(
        "update loyalty_lots set remaining = 1;
         update loyalty_accounts set points = 1, version = 2 where points = 4;
         insert into loyalty_entries (account_id, version, epoch, location_seq, program_id, kind, delta, points_after, lots,
                cause_type, cause_id, actor, effective_at, recorded_at)
         select account_id, 2, 1, 0, program_id, 'adjustment', -3, 1, '[]', 'test', gen_random_uuid(), account_id, now(), now()
         from loyalty_accounts where points = 1",
    )
    .execute(&pool)
    .await
    .unwrap();
    let origin = text(&sale, "sale_id");
    let refund = shop.till.refund(&shop.cashier, &[(&origin, 1, 2000, "resellable")], cash(-500), -500);
    let body = shop.till.send("/refunds", &refund).await.expect(201);
    assert_eq!((&body["points_clawed_back"], &body["customer_id"]), (&json!(4), &json!(member)));
    let lots: Vec<i64> =
        sqlx::query_scalar("select remaining from loyalty_lots order by remaining").fetch_all(&pool).await.unwrap();
    assert_eq!(lots, [-3, 0]);
    // The next points in an exchange pay it.
    let mut other = shop.till.sale(&shop.cashier, &[(&shop.world.variants[1], 1000)], cash(390), 390);
    other["customer_id"] = Value::Null;
    shop.till.send("/sales", &other).await.expect(201);
    let mut exchange = shop.till.head(&shop.cashier);
    exchange["customer_id"] = json!(member);
    exchange["returns"] = back(&[(&text(&other, "sale_id"), 1, 1000, "resellable")]);
    exchange["lines"] = json!([{"line_no": 2, "variant_id": shop.world.variants[1], "qty": 2000}]);
    (exchange["tenders"], exchange["total_minor"]) = (cash(390), json!(390));
    let body = shop.till.send("/exchanges", &exchange).await.expect(201);
    assert_eq!((&body["points_clawed_back"], &body["points_earned"]), (&json!(0), &json!(6)));
    let lots: Vec<i64> =
        sqlx::query_scalar("select remaining from loyalty_lots order by remaining").fetch_all(&pool).await.unwrap();
    assert_eq!(lots, [0, 0, 3]);
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_void_takes_a_receipt_number_and_moves_nothing(pool: PgPool) {
    let shop = shop(&pool).await;
    set_pin(&shop.world, &shop.manager).await;
    let mut void = shop.till.head(&shop.cashier);
    let refused = shop.till.send("/voids", &void).await;
    assert_eq!(refused.problem().1, "approval_required");
    let mut asked = refused.json()["approval"].clone();
    assert_eq!(asked["acts"], json!([{"act": "void", "ceiling_minor": 0}]));
    asked["approver"] = shop.till.device.pin(&shop.till.terminal, "mia", PIN);
    void["approval"] = shop.till.caller.post("/approvals", asked).await.expect(201)["approval"].clone();
    let answer = shop.till.send("/voids", &void).await;
    let body = answer.expect(201);
    assert_eq!((&body["kind"], &body["total_minor"], &body["lines"]), (&json!("void"), &json!(0), &json!([])));
    assert_eq!(shop.till.send("/voids", &void).await.bytes, answer.bytes);
    let by_manager = shop.till.head(&shop.manager);
    shop.till.send("/voids", &by_manager).await.expect(201);
    // The number is taken.
    let mut sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], 1000)], cash(250), 250);
    sale["receipt"]["number"] = void["receipt"]["number"].clone();
    assert_eq!(shop.till.send("/sales", &sale).await.problem().1, "receipt_conflict");
    let mut without = shop.till.head(&shop.manager);
    without["reason"] = json!("");
    assert_eq!(shop.till.send("/voids", &without).await.problem().2, "/reason");
    assert_eq!(shop.world.count("select count(*) from stock_movements").await, 0);
    assert_eq!(shop.world.count("select count(*) from document_lines").await, 0);
    let nothing = shop.till.refund(&shop.manager, &[(&text(&void, "document_id"), 1, 1000, "waste")], cash(-1), -1);
    assert_eq!(shop.till.send("/refunds", &nothing).await.problem().2, "/lines/0/origin_document_id");
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn goods_that_wait_go_on_into_stock_or_waste(pool: PgPool) {
    let shop = shop(&pool).await;
    let sale = shop.sold().await;
    let refund = shop.till.refund(&shop.cashier, &[(&sale, 1, 3000, "inspect")], cash(-750), -750);
    shop.till.send("/refunds", &refund).await.expect(201);
    let variant = shop.world.variants[0].as_str();
    let body = |lines: Value| json!({"location_id": shop.world.here, "reason": "checked", "lines": lines});
    let line = |qty: i64, to: &str| json!({"variant_id": variant, "qty": qty, "to": to});
    let moved = body(json!([line(1000, "stock"), line(1000, "waste")]));
    let answer = shop.world.owner.post_keyed("/stock/dispositions", "d", &moved).await;
    let act = answer.expect(201);
    let deltas: Vec<i64> =
        act["movements"].as_array().unwrap().iter().map(|it| it["delta"].as_i64().unwrap()).collect();
    assert_eq!(deltas, [-1000, 1000, -1000, 1000]);
    assert!(
        act["movements"][0].get("system_location_id").is_some()
            && act["movements"][1].get("system_location_id").is_none()
    );
    let again = shop.world.owner.post_keyed("/stock/dispositions", "d", &moved).await;
    assert_eq!((again.status.as_u16(), &again.bytes), (200, &answer.bytes));
    assert_eq!(shop.aside(&shop.world.here).await, [("inspect".to_owned(), 1000), ("waste".to_owned(), 1000)]);
    assert_eq!(shop.stock(&shop.world.here, 0).await, Some((-2000, 2)));
    // More than waits.
    let more = body(json!([line(1000, "stock"), line(1000, "waste")]));
    let short = shop.world.owner.post_keyed("/stock/dispositions", "e", &more).await;
    assert_eq!(short.problem(), (409, "insufficient_stock".to_owned(), "/lines/0/qty".to_owned()));
    assert_eq!(short.json()["short"], json!([{"variant_id": variant, "wanted": 2000, "on_hand": 1000}]));
    for (lines, pointer) in [
        (json!([line(0, "stock")]), "/lines/0/qty"),
        (json!([line(1500, "stock")]), "/lines/0/qty"),
        (json!([line(1000, "stock"), line(1000, "stock")]), "/lines/1/variant_id"),
        (json!([]), "/lines"),
    ] {
        let answer = shop.world.owner.post_keyed("/stock/dispositions", "f", &body(lines)).await;
        assert_eq!((answer.problem().0, answer.problem().2.as_str()), (422, pointer));
    }
    // The list of stock is what can be sold; the feed says which movement is beside it.
    let stock = shop.world.owner.get(&format!("/stock?location_id={}", shop.world.here)).await.expect(200);
    assert!(stock["items"].as_array().unwrap().iter().all(|row| row["location_id"] == json!(shop.world.here)));
    let feed = shop.till.caller.get(&format!("/changes?location={}", shop.world.here)).await.expect(200);
    let last = feed["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["cause_type"], last["movements"].as_array().unwrap().len()), (&json!("disposition"), 4));
    shop.assert_consistent().await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_wrong_refund_is_refused_where_it_is_wrong(pool: PgPool) {
    let shop = shop(&pool).await;
    let sale = shop.sold().await;
    let good = || shop.till.refund(&shop.cashier, &[(&sale, 1, 1000, "resellable")], cash(-250), -250);
    let cases: Vec<(&str, Value, u16, &str, &str)> = vec![
        ("/lines/0/qty", json!(0), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!(-1000), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!(i64::MAX), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!("1000"), 422, "invalid_value", "/lines/0/qty"),
        ("/lines/0/qty", json!(1500), 422, "fractional_piece", "/lines/0/qty"),
        ("/lines/0/qty", json!(4000), 422, "quantity_exceeds_document", "/lines/0/qty"),
        ("/lines/0/origin_line_no", json!(9), 422, "invalid_value", "/lines/0/origin_line_no"),
        ("/lines/0/origin_document_id", json!(Uuid::now_v7()), 404, "not_found", "/lines/0/origin_document_id"),
        ("/lines/0/disposition", json!("gone"), 422, "invalid_value", "/lines/0/disposition"),
        ("/lines/0/line_no", json!(0), 422, "invalid_value", "/lines/0/line_no"),
        ("/lines/0/total", json!(1), 422, "unknown_field", "/lines/0/total"),
        ("/lines", json!([]), 422, "invalid_value", "/lines"),
        ("/total_minor", json!(-251), 422, "total_mismatch", "/total_minor"),
        ("/total_minor", json!(250), 422, "invalid_value", "/total_minor"),
        ("/tenders", json!([]), 422, "tenders_do_not_add_up", "/tenders"),
        ("/tenders/0/amount_minor", json!(250), 422, "invalid_value", "/tenders/0/amount_minor"),
        ("/tenders/0/amount_minor", json!(-251), 422, "tenders_do_not_add_up", "/tenders"),
        ("/tenders/0/amount_minor", json!(i64::MIN), 422, "invalid_value", "/tenders/0/amount_minor"),
        ("/tenders/0/kind", json!("store_credit"), 422, "invalid_value", "/tenders/0/kind"),
        ("/tenders/0/origin", json!({"document_id": sale, "tender_no": 1}), 422, "invalid_value", "/tenders/0/origin"),
        ("/reason", json!("For Anna"), 422, "invalid_value", "/reason"),
        ("/reason", json!(""), 422, "invalid_value", "/reason"),
        ("/currency", json!("USD"), 422, "wrong_currency", "/currency"),
        ("/occurred_at", json!(Utc::now() + TimeDelta::days(1)), 422, "invalid_value", "/occurred_at"),
        ("/occurred_at", json!("2019-12-31T12:00:00Z"), 422, "before_opening", "/occurred_at"),
        ("/cashier_id", json!(Uuid::now_v7()), 422, "unknown_cashier", "/cashier_id"),
        ("/document_id", json!(Uuid::new_v4()), 422, "invalid_value", "/document_id"),
        ("/receipt/series_epoch", json!(2), 422, "invalid_value", "/receipt/series_epoch"),
        ("/location_id", json!(shop.world.there), 403, "forbidden", ""),
    ];
    for (place, value, status, code, pointer) in cases {
        let mut refund = good();
        let (parent, name) = place.rsplit_once('/').unwrap();
        match refund.pointer_mut(parent).unwrap() {
            Value::Object(object) => drop(object.insert(name.to_owned(), value.clone())),
            other => panic!("{other}"),
        }
        let answer = shop.till.send("/refunds", &refund).await;
        assert_eq!(answer.problem(), (status, code.to_owned(), pointer.to_owned()), "{place} = {value}");
    }
    let mut without = good();
    without.as_object_mut().unwrap().remove("reason");
    assert_eq!(shop.till.send("/refunds", &without).await.problem().2, "/reason");
    let no_key = shop.till.caller.post("/refunds", good()).await;
    assert_eq!(no_key.problem().1, "idempotency_key_required");
    let mismatch = {
        let mut body = good();
        body["total_minor"] = json!(-5);
        shop.till.send("/refunds", &body).await
    };
    assert_eq!(mismatch.json()["quote"]["total_minor"], -250);
    // Nothing of all that is stored.
    assert_eq!(shop.world.count("select count(*) from documents").await, 1);
    assert_eq!(shop.world.count("select count(*) from limited_acts").await, 0);
    shop.till.send("/refunds", &good()).await.expect(201);
    shop.assert_consistent().await;
}

/// Whichever statement fails, nothing of a refund is stored.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn all_or_nothing(pool: PgPool) {
    let shop = shop(&pool).await;
    let member = text(&shop.world.owner.post("/members", json!({})).await.expect(201), "customer_id");
    let mut sale = shop.till.sale(&shop.cashier, &[(&shop.world.variants[0], 2000)], cash(500), 500);
    sale["customer_id"] = json!(member);
    shop.till.send("/sales", &sale).await.expect(201);
    let sale = text(&sale, "sale_id");
    let refund = shop.till.refund(&shop.cashier, &[(&sale, 1, 1000, "inspect")], cash(-250), -250);
    let tables = [
        "documents",
        "document_lines",
        "document_tenders",
        "stock_movements",
        "stock_levels",
        "loyalty_entries",
        "loyalty_lots",
        "limited_acts",
        "idempotency_keys",
        "audit_log",
        "outbox",
    ];
    sqlx::raw_sql(
        "create function fails() returns trigger language plpgsql as $$ begin raise exception 'planted'; end $$",
    )
    .execute(&pool)
    .await
    .unwrap();
    let state = "select md5(string_agg(t, '|' order by t)) from (
        select d::text t from documents d union all select l::text from document_lines l
        union all select s::text from stock_levels s union all select m::text from stock_movements m
        union all select a::text from loyalty_accounts a union all select l::text from loyalty_lots l
        union all select e::text from loyalty_entries e union all select s::text from streams s
        union all select y::text from system_locations y) x";
    let before: String = sqlx::query_scalar(state).fetch_one(&pool).await.unwrap();
    for table in tables {
        let make = format!("create trigger planted before insert on {table} for each row execute function fails()");
        sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(&pool).await.unwrap();
        let answer = shop.till.send("/refunds", &refund).await;
        assert!(!answer.status.is_success(), "{table}");
        let after: String = sqlx::query_scalar(state).fetch_one(&pool).await.unwrap();
        assert_eq!(after, before, "{table}");
        let drop = format!("drop trigger planted on {table}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&pool).await.unwrap();
    }
    shop.till.send("/refunds", &refund).await.expect(201);
    shop.assert_consistent().await;
}
