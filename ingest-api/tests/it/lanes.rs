//! Commit lanes: T9, T14, all or nothing, culprits, busy locations.

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::rig::{Rig, Size, body, code};

async fn rig(pool: PgPoolOptions, options: PgConnectOptions, size: Size) -> Rig {
    let pool: PgPool = pool.connect_with(options.clone()).await.unwrap();
    Rig::start(pool, options, size).await
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_is_one_transaction_with_every_row(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = rig(pool, options, Size::default()).await;
    let till = rig.till(0, 0);
    rig.set_stock(0, 0, 10).await;
    let mut sale = rig.sale(till, &[0, 1, 0]);
    sale.customer_id = Some(rig.customers[0]);
    let answer = rig.sell(till, &sale).await;
    assert_eq!(code(&answer), (201, ""), "{answer:?}");
    let json: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(json["location_seq"], 1);
    assert_eq!(json["total_minor"], 3570);
    assert_eq!(json["points_earned"], 30);
    assert_eq!(json["flags"], serde_json::json!(["oversold"]));
    assert_eq!((rig.stock(0, 0).await, rig.stock(0, 1).await), (Some((8000, 3)), Some((-1000, 1))));
    assert_eq!(rig.stock(0, 2).await, None);
    rig.assert_consistent().await;
}
