//! What a lane looks up it finds by descending an index, also when it planned its statements while the tables were empty.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection};

use crate::rig::{Rig, Size, code, eventually};

/// Tables a lane reads and, in the same business, sales fill.
const TABLES: [&str; 6] = ["documents", "idempotency_keys", "stock_levels", "loyalty_accounts", "streams", "terminals"];
const ROUNDS: usize = 400;
/// Three stock rows, each read twice, what an update leaves behind until it is cleaned up, and small tables that are read
/// as a whole as long as they are small. A table that is read as a whole for every batch makes hundreds.
const ROWS_A_SALE_MAX: i64 = 60;

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_in_a_new_business_reads_a_few_rows(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options.clone(), Size { tills: 2, variants: 40, ..Size::default() }).await;
    sell_and_count(rig, options).await;
}

/// The planner believes a table that was looked at while it was empty to be empty.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_reads_a_few_rows_whatever_the_statistics_say(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options.clone(), Size { tills: 2, variants: 40, ..Size::default() }).await;
    sqlx::query("analyze").execute(&rig.pool).await.unwrap();
    sell_and_count(rig, options).await;
}

async fn sell_and_count(rig: Rig, options: PgConnectOptions) {
    let before = rows_read(&options).await;
    for round in 0..ROUNDS {
        let of = |till: usize| [round % 40, (round + 7 * till + 1) % 40, (round + 13) % 40];
        let (left, right) = (rig.till(0, 0), rig.till(0, 1));
        let (mut a, b) = (rig.sale(left, &of(0)), rig.sale(right, &of(1)));
        a.customer_id = Some(rig.customers[round % 2]);
        let (a, b) = tokio::join!(rig.sell(left, &a), rig.sell(right, &b));
        assert_eq!((code(&a), code(&b)), ((201, ""), (201, "")));
    }
    // A session writes down what it read when it ends.
    rig.close().await;
    let sales = 2 * ROUNDS as i64;
    for ((table, was), (_, read)) in before.into_iter().zip(rows_read(&options).await) {
        let (read, most) = (read - was, ROWS_A_SALE_MAX * sales);
        println!("{sales} sales read {read} rows of {table}");
        assert!(read <= most, "{sales} sales read {read} rows of {table}, {most} at most are expected");
    }
}

/// Rows that index entries and sequential scans led to, table by table.
async fn rows_read(options: &PgConnectOptions) -> Vec<(&'static str, i64)> {
    let mut conn = PgConnection::connect_with(options).await.unwrap();
    let sql = "select (select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes where relname = $1)::bigint
                    + (select coalesce(sum(seq_tup_read), 0) from pg_stat_user_tables where relname = $1)::bigint";
    let mut all = Vec::new();
    for table in TABLES {
        all.push((table, sqlx::query_scalar(sql).bind(table).fetch_one(&mut conn).await.unwrap()));
    }
    all
}

/// Limits cost nothing where nothing is limited: not one look at their tables.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_without_acts_asks_nothing_of_limits(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options.clone(), Size { tills: 2, ..Size::default() }).await;
    let before = looks(&options).await;
    sell(&rig, false).await;
    // What a session did is counted when it has ended.
    let rig = rig.close().await.reopen(options.clone()).await;
    assert_eq!(looks(&options).await, before, "plain sales");
    sell(&rig, true).await;
    rig.close().await;
    eventually(async || match looks(&options).await {
        looks if looks > before => Ok(()),
        looks => Err(format!("sales with a discount are not seen: {looks} looks")),
    })
    .await;
}

async fn sell(rig: &Rig, with_discount: bool) {
    let till = rig.till(0, 0);
    for _ in 0..5 {
        let mut sale = rig.sale(till, &[0]);
        if with_discount {
            let discount = serde_json::json!({"kind": "amount", "amount_minor": 190, "reason": "friend"});
            sale.lines[0].discount = Some(serde_json::from_value(discount).unwrap());
            (sale.total_minor, sale.tenders[0].amount_minor) = (1000, 1000);
        }
        assert_eq!(code(&rig.sell(till, &sale).await), (201, ""));
    }
}

/// Scans of the tables of limits, and rows written to them.
async fn looks(options: &PgConnectOptions) -> i64 {
    let mut conn = PgConnection::connect_with(options).await.unwrap();
    let sql = "select (sum(seq_scan) + sum(coalesce(idx_scan, 0)) + sum(n_tup_ins))::bigint from pg_stat_user_tables
               where relname in ('limited_acts', 'approvals', 'roles')";
    sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
}

/// Points cost nothing where none are spent and nobody owes any: not one look at lots.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sale_that_spends_no_points_reads_no_lots(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options.clone(), Size { tills: 2, ..Size::default() }).await;
    let till = rig.till(0, 0);
    for _ in 0..5 {
        let mut sale = rig.sale(till, &[0]);
        sale.customer_id = Some(rig.customers[0]);
        assert_eq!(code(&rig.sell(till, &sale).await), (201, ""));
    }
    let rig = rig.close().await.reopen(options.clone()).await;
    assert_eq!(lots_read(&options).await, 0);
    sqlx::query("update loyalty_accounts set points = -1").execute(&rig.pool).await.unwrap();
    let mut sale = rig.sale(rig.till(0, 0), &[0]);
    sale.customer_id = Some(rig.customers[0]);
    assert_eq!(code(&rig.sell(rig.till(0, 0), &sale).await), (201, ""));
    rig.close().await;
    eventually(async || match lots_read(&options).await {
        0 => Err("an account in debt is not looked at".to_owned()),
        _ => Ok(()),
    })
    .await;
}

async fn lots_read(options: &PgConnectOptions) -> i64 {
    let mut conn = PgConnection::connect_with(options).await.unwrap();
    let sql = "select (idx_scan + seq_scan)::bigint from pg_stat_user_tables where relname = 'loyalty_lots'";
    sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
}
