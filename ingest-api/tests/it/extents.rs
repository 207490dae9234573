//! How far an act goes: what limits look at in a document, line by line and as a whole.

use ingest_api::access::Permission;
use ingest_api::limits::{Ceiling, Mode, Rule};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::limits::Till;
use crate::world::{World, log_in, world};

/// Allowed up to this part of a line and this amount of a document, in EUR.
fn up_to(permission: Permission, percent_max: i64, amount_minor: i64) -> Rule {
    let ceilings = Some(vec![Ceiling { currency: "EUR".into(), amount_minor }]);
    Rule { percent_max: Some(percent_max), ceilings, ..Rule::new(permission, Mode::Allow) }
}

/// A line of variant 0 (2.50) or 1 (3.90), with what makes it an act.
fn line(world: &World, variant: usize, pieces: i64, act: Value) -> Value {
    let mut line = json!({"variant_id": world.variants[variant], "qty": 1000 * pieces});
    line.as_object_mut().unwrap().extend(act.as_object().unwrap().clone());
    line
}

fn percent(percent: &str) -> Value {
    json!({"discount": {"kind": "percent", "percent": percent, "reason": "friend"}})
}

fn amount(amount_minor: i64) -> Value {
    json!({"discount": {"kind": "amount", "amount_minor": amount_minor, "reason": "friend"}})
}

fn price(unit_price_minor: i64) -> Value {
    json!({"override": {"unit_price_minor": unit_price_minor, "reason": "damaged"}})
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn of_a_sale_the_largest_share_and_all_amounts_together_count(pool: PgPool) {
    let world = world(&pool).await;
    let till = Till::new(&world, &world.here, "1").await;
    let rules = [
        Rule::new(Permission::Sell, Mode::Allow),
        up_to(Permission::DiscountLines, 20, 150),
        up_to(Permission::OverridePrice, 20, 60),
    ];
    let role = world.new_role("limited", &rules).await;
    let cashier = world.new_user("anna", &role, Some(&world.here)).await;
    let beyond = async |lines: Vec<Value>, total: i64| {
        let mut sale = till.sale(&world, &cashier);
        sale["lines"] = json!(lines);
        for (n, line) in sale["lines"].as_array_mut().unwrap().iter_mut().enumerate() {
            line["line_no"] = json!(n + 1);
        }
        (sale["total_minor"], sale["tenders"][0]["amount_minor"]) = (json!(total), json!(total));
        let answer = till.sell(&sale).await;
        match answer.status.as_u16() {
            201 => Value::Null,
            _ => {
                assert_eq!(answer.problem().1, "approval_required", "{}", answer.text());
                answer.json()["approval"]["acts"][0]["ceiling_minor"].clone()
            }
        }
    };
    let small = |pieces, act| line(&world, 0, pieces, act);
    let large = |pieces, act| line(&world, 1, pieces, act);
    // An amount is a share, too.
    assert_eq!(beyond(vec![small(1, amount(50))], 200).await, Value::Null);
    assert_eq!(beyond(vec![small(1, amount(51))], 199).await, 51);
    // The line that is given most away of decides, wherever it stands.
    assert_eq!(beyond(vec![small(1, percent("10")), large(1, percent("20"))], 537).await, Value::Null);
    assert_eq!(beyond(vec![small(1, percent("10")), large(1, percent("30"))], 498).await, 142);
    assert_eq!(beyond(vec![large(1, percent("30")), small(1, percent("10"))], 498).await, 142);
    // All lines together, below the ceiling each.
    assert_eq!(beyond(vec![small(2, percent("20")), large(1, json!({}))], 790).await, Value::Null);
    assert_eq!(beyond(vec![small(2, percent("20")), large(1, percent("20"))], 712).await, 178);
    // A price goes too far upwards as it does downwards, and once for each piece.
    for (unit_price, pieces, is_beyond) in
        [(200, 1, None), (199, 1, Some(51)), (300, 1, None), (301, 1, Some(51)), (230, 3, None), (229, 3, Some(63))]
    {
        let answer = beyond(vec![small(pieces, price(unit_price))], unit_price * pieces).await;
        assert_eq!(answer, json!(is_beyond), "{pieces} for {unit_price} each");
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn of_an_adjustment_what_the_goods_cost_counts_whichever_way_they_went(pool: PgPool) {
    let world = world(&pool).await;
    let ceilings = Some(vec![Ceiling { currency: "EUR".into(), amount_minor: 500 }]);
    let rule = Rule { ceilings, per_shift: Some(4), ..Rule::new(Permission::AdjustStock, Mode::Allow) };
    let role = world.new_role("keeper", &[rule]).await;
    world.new_user("kim", &role, Some(&world.here)).await;
    let keeper = log_in(&world.nobody(), "kim", crate::world::PASSWORD).await;
    let costs = async |variant: usize, cost: i64| {
        let path = format!("/variants/{}", world.variants[variant]);
        let etag = world.owner.get(&path).await.etag();
        world.owner.patch(&path, &etag, json!({"unit_cost_minor": cost})).await.expect(200);
    };
    let asked = std::sync::atomic::AtomicI64::new(0);
    // None: done; otherwise what an approval would have to allow.
    let adjust = async |lines: &[(usize, i64, Option<i64>)]| {
        let lines: Vec<Value> = lines
            .iter()
            .map(|(variant, delta, cost)| {
                json!({"variant_id": world.variants[*variant], "delta": delta, "unit_cost_minor": cost})
            })
            .collect();
        let body = json!({"location_id": world.here, "reason": "found", "lines": lines});
        let key = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let answer = keeper.post_keyed("/stock/adjustments", &key, &body).await;
        if answer.status == 201 {
            return None;
        }
        assert_eq!(answer.problem().1, "approval_required", "{}", answer.text());
        Some(answer.json()["approval"]["acts"][0]["ceiling_minor"].clone())
    };
    costs(0, 100).await;
    costs(1, 100).await;
    assert_eq!(adjust(&[(0, 5_000, None)]).await, None);
    assert_eq!(adjust(&[(0, 6_000, None)]).await, Some(json!(600)));
    assert_eq!(adjust(&[(0, -5_000, None)]).await, None);
    assert_eq!(adjust(&[(0, -6_000, None)]).await, Some(json!(600)));
    assert_eq!(
        adjust(&[(0, 3_000, None), (1, -3_000, None)]).await,
        Some(json!(600)),
        "one way does not pay the other"
    );
    assert_eq!(adjust(&[(0, 6_000, Some(1))]).await, Some(json!(600)), "whoever asks does not say what it cost");
    assert_eq!(adjust(&[(2, 1, None)]).await, Some(Value::Null), "what nobody knows the cost of is too much");
    costs(2, 2_001).await;
    assert_eq!(adjust(&[(2, 250, None)]).await, Some(json!(501)), "500 and a quarter of a cent");
    assert_eq!(adjust(&[(2, 249, None)]).await, None);
    // Four a day, and each of them was one.
    assert_eq!(adjust(&[(1, 1_000, None)]).await, None);
    assert_eq!(adjust(&[(1, 1_000, None)]).await, Some(json!(100)));
}
