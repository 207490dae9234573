//! Rule T14: the last units.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::rig::{Rig, Size, code};

async fn fifty_tills_want_one_of_ten(
    pool: PgPoolOptions,
    options: PgConnectOptions,
    oversell: &'static str,
) -> (Rig, usize, usize) {
    let rig = Rig::start(pool, options, Size { tills: 50, oversell, ..Size::default() }).await;
    let other_node = rig.another_node().await;
    rig.set_stock(0, 0, 10).await;
    let sales: Vec<_> = (0..50).map(|till| rig.sale(rig.till(0, till), &[0])).collect();
    let sent = sales.iter().enumerate().map(|(till, sale)| {
        let lanes = if till % 2 == 0 { &rig.lanes } else { &other_node };
        rig.send_by(lanes, rig.till(0, till), sale, "k")
    });
    let answers = futures::future::join_all(sent).await;
    let count = |wanted: (u16, &str)| answers.iter().filter(|answer| code(answer) == wanted).count();
    let (sold, short) = (count((201, "")), count((409, "insufficient_stock")));
    rig.assert_consistent().await;
    (rig, sold, short)
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn deny_sells_ten_of_ten(pool: PgPoolOptions, options: PgConnectOptions) {
    let (rig, sold, short) = fifty_tills_want_one_of_ten(pool, options, "deny").await;
    assert_eq!((sold, short, rig.stock(0, 0).await), (10, 40, Some((0, 11))));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn allow_sells_fifty_and_flags_forty(pool: PgPoolOptions, options: PgConnectOptions) {
    let (rig, sold, short) = fifty_tills_want_one_of_ten(pool, options, "allow_and_flag").await;
    assert_eq!((sold, short, rig.stock(0, 0).await), (50, 0, Some((-40_000, 51))));
    let flagged: i64 = sqlx::query_scalar("select count(*) from documents where flags = '{oversold}'")
        .fetch_one(&rig.pool)
        .await
        .unwrap();
    assert_eq!(flagged, 40);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn two_lines_of_one_variant_are_summed_before_deciding(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { oversell: "deny", ..Size::default() }).await;
    let till = rig.till(0, 0);
    rig.set_stock(0, 0, 1).await;
    rig.set_stock(0, 1, 5).await;
    let answer = rig.sell(till, &rig.sale(till, &[0, 1, 0])).await;
    let problem = answer.unwrap_err();
    assert_eq!(problem.code, "insufficient_stock");
    let short = &problem.extra.unwrap()["short"];
    assert_eq!((short.as_array().unwrap().len(), &short[0]["wanted"]), (1, &serde_json::json!(2000)));
    assert_eq!((rig.stock(0, 0).await, rig.stock(0, 1).await), (Some((1000, 1)), Some((5000, 1))));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_refused_sale_leaves_the_units_to_the_next_in_the_same_batch(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options, Size { oversell: "deny", ..Size::default() }).await;
    let (a, b) = (rig.till(0, 0), rig.till(0, 1));
    rig.set_stock(0, 0, 10).await;
    let (mut eleven, mut ten) = (rig.sale(a, &[0]), rig.sale(b, &[0]));
    for (sale, pieces) in [(&mut eleven, 11), (&mut ten, 10)] {
        sale.lines[0].qty = pieces * 1000;
        sale.total_minor = pieces * crate::rig::PRICE;
        sale.tenders[0].amount_minor = sale.total_minor;
    }
    let (first, second) = tokio::join!(rig.sell(a, &eleven), rig.sell(b, &ten));
    assert_eq!((code(&first), code(&second)), ((409, "insufficient_stock"), (201, "")));
    rig.assert_consistent().await;
}
