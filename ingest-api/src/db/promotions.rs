//! Promotions, their coupons, and what they have given.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::sales::Sold;
use crate::catalog::promotions::Promotion;
use crate::pricing::promotions::Usage;
use crate::pricing::promotions::rule::{self, Rule};
use crate::sales::coupons::{Coupon, Promoted};
use crate::sales::types::ValidSale;

const COLUMNS: &str = "promotion_id, external_id, name, priority, exclusion_group, rule, needs_coupon, currency, budget_minor, \
                       uses_max, is_active, version";

#[derive(sqlx::FromRow)]
struct Row {
    promotion_id: Uuid,
    name: String,
    priority: i32,
    exclusion_group: Option<String>,
    #[sqlx(json)]
    rule: Rule,
    needs_coupon: bool,
    currency: Option<String>,
    budget_minor: Option<i64>,
    uses_max: Option<i64>,
    is_active: bool,
}

/// All active promotions in the order in which they apply.
pub async fn in_order(conn: &mut PgConnection) -> Result<Vec<Arc<rule::Promotion>>, sqlx::Error> {
    let sql = format!("select {COLUMNS} from promotions where is_active order by priority, promotion_id");
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await?;
    let promotion = |row: Row| {
        Arc::new(rule::Promotion {
            promotion_id: row.promotion_id,
            name: row.name.into(),
            priority: row.priority,
            exclusion_group: row.exclusion_group.map(Into::into),
            needs_coupon: row.needs_coupon,
            budget_minor: row.budget_minor,
            uses_max: row.uses_max,
            is_active: row.is_active,
            currency: row.currency.map(Into::into),
            rule: row.rule,
        })
    };
    Ok(rows.into_iter().map(promotion).collect())
}

/// Stores it, in place of what was there. Its usage is counted from the first moment on, whether it has limits or not.
pub async fn save(tx: &mut PgTx, promotion: &Promotion) -> Result<(), sqlx::Error> {
    let rule = serde_json::to_string(&promotion.rule).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "insert into promotions (promotion_id, external_id, name, priority, exclusion_group, rule, needs_coupon, currency,
             budget_minor, uses_max, is_active, version)
         values ($1, $2, $3, $4, $5, $6::jsonb, $7, $8, $9, $10, $11, $12)
         on conflict (promotion_id) do update set external_id = excluded.external_id, name = excluded.name,
             priority = excluded.priority, exclusion_group = excluded.exclusion_group, rule = excluded.rule,
             needs_coupon = excluded.needs_coupon, currency = excluded.currency, budget_minor = excluded.budget_minor,
             uses_max = excluded.uses_max, is_active = excluded.is_active, version = excluded.version",
    )
    .bind(promotion.promotion_id)
    .bind(&promotion.external_id)
    .bind(&promotion.name)
    .bind(promotion.priority)
    .bind(&promotion.exclusion_group)
    .bind(rule)
    .bind(promotion.needs_coupon)
    .bind(&promotion.currency)
    .bind(promotion.budget_minor)
    .bind(promotion.uses_max)
    .bind(promotion.is_active)
    .bind(promotion.version)
    .execute(&mut **tx)
    .await?;
    sqlx::query("insert into promotion_usage (promotion_id) values ($1) on conflict do nothing")
        .bind(promotion.promotion_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub async fn find(
    reader: impl sqlx::Executor<'_, Database = sqlx::Postgres>,
    id: Uuid,
) -> Result<Option<Promotion>, sqlx::Error> {
    let sql = format!("select {COLUMNS} from promotions where promotion_id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(reader).await
}

pub async fn list(pool: &PgPool, after: Option<Uuid>, limit: i64) -> Result<Vec<Promotion>, sqlx::Error> {
    let sql = format!(
        "select {COLUMNS} from promotions where $1::uuid is null or promotion_id > $1 order by promotion_id limit $2"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(after).bind(limit).fetch_all(pool).await
}

/// What it has given and to how many documents.
pub async fn usage(pool: &PgPool, id: Uuid) -> Result<Usage, sqlx::Error> {
    let row: Option<(i64, i64)> =
        sqlx::query_as("select given_minor, uses from promotion_usage where promotion_id = $1")
            .bind(id)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(given_minor, uses)| Usage { given_minor, uses }).unwrap_or_default())
}

/// Inserts coupons that do not exist yet; the codes that were taken.
pub async fn insert_coupons(tx: &mut PgTx, promotion_id: Uuid, new: &[Coupon]) -> Result<Vec<String>, sqlx::Error> {
    let inserted: Vec<String> = sqlx::query_scalar(
        "insert into coupons (code, promotion_id, uses_max, customer_id, expires_at)
         select code, $1, uses_max, customer_id, expires_at
         from unnest($2::text[], $3::bigint[], $4::uuid[], $5::timestamptz[]) as c (code, uses_max, customer_id, expires_at)
         on conflict (code) do nothing returning code",
    )
    .bind(promotion_id)
    .bind(new.iter().map(|coupon| coupon.code.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|coupon| coupon.uses_max).collect::<Vec<_>>())
    .bind(new.iter().map(|coupon| coupon.customer_id).collect::<Vec<_>>())
    .bind(new.iter().map(|coupon| coupon.expires_at).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    let taken = new.iter().map(|coupon| &coupon.code).filter(|code| !inserted.contains(code)).cloned();
    Ok(taken.collect())
}

const COUPONS: &str = "select code, promotion_id, uses_max, uses, customer_id, expires_at, is_active from coupons
                       where code = any($1) order by code";
const USAGES: &str = "select promotion_id, given_minor, uses from promotion_usage where promotion_id = any($1)
                      order by promotion_id";

/// What coupons and promotions are, without a lock: for quotes.
pub async fn look_up(pool: &PgPool, codes: &[String], counted: &[Uuid]) -> Result<Promoted, sqlx::Error> {
    let mut conn = pool.acquire().await?;
    read(&mut conn, COUPONS, USAGES, codes, counted).await
}

/// The same under their locks, coupons before usages, each in order; the last locks of a batch.
pub async fn lock_and_read(
    conn: &mut PgConnection,
    codes: &[String],
    counted: &[Uuid],
) -> Result<Promoted, sqlx::Error> {
    let locked = |sql: &str| format!("{sql} for no key update");
    // What was waited for is read again: a statement that waited still sees its old snapshot.
    sqlx::query(sqlx::AssertSqlSafe(locked(COUPONS))).bind(codes).execute(&mut *conn).await?;
    sqlx::query(sqlx::AssertSqlSafe(locked(USAGES))).bind(counted).execute(&mut *conn).await?;
    read(conn, COUPONS, USAGES, codes, counted).await
}

async fn read(
    conn: &mut PgConnection,
    coupons: &'static str,
    usages: &'static str,
    codes: &[String],
    counted: &[Uuid],
) -> Result<Promoted, sqlx::Error> {
    let found: Vec<Coupon> = sqlx::query_as(coupons).bind(codes).fetch_all(&mut *conn).await?;
    let used: Vec<(Uuid, i64, i64)> = sqlx::query_as(usages).bind(counted).fetch_all(conn).await?;
    Ok(Promoted {
        coupons: found.into_iter().map(|coupon| (coupon.code.clone(), coupon)).collect(),
        usage: used.into_iter().map(|(id, given_minor, uses)| (id, Usage { given_minor, uses })).collect(),
    })
}

/// Writes what the sales of a batch used: one statement, for batches alone that used something.
pub async fn insert_uses(
    conn: &mut PgConnection,
    sold: &[Sold<'_>],
    epoch: i64,
    recorded_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let mut rows: Vec<(Uuid, Uuid, String, i64, String)> = Vec::new();
    for sold in sold {
        let given =
            sold.priced.priced.promotions.given.iter().filter(|given| given.is_counted || given.coupon.is_some());
        rows.extend(given.map(|given| {
            let coupon = given.coupon.clone().unwrap_or_default();
            let currency = sold.sale.cart.currency.clone();
            (sold.sale.document_id.0, given.promotion_id, coupon, given.amount_minor, currency)
        }));
    }
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "with used as materialized (
             select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[])
                 as u (document_id, promotion_id, coupon, amount_minor, currency)
         ), count_promotions as (
             update promotion_usage p set given_minor = p.given_minor + s.amount, uses = p.uses + s.uses
             from (select promotion_id, sum(amount_minor)::bigint amount, count(*) uses from used group by promotion_id) s
             where p.promotion_id = s.promotion_id
         ), count_coupons as (
             update coupons c set uses = c.uses + s.uses
             from (select coupon, count(*) uses from used where coupon <> '' group by coupon) s where c.code = s.coupon
         )
         insert into promotion_uses (document_id, promotion_id, coupon, amount_minor, currency, epoch, recorded_at)
         select document_id, promotion_id, coupon, amount_minor, currency, $6, $7 from used",
    )
    .bind(rows.iter().map(|row| row.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.1).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.2.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.3).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.4.as_str()).collect::<Vec<_>>())
    .bind(epoch)
    .bind(recorded_at)
    .execute(conn)
    .await?;
    Ok(())
}

/// What a batch must lock: coupons that are named, and the promotions that count.
pub fn wanted<'a>(
    sales: impl Iterator<Item = &'a ValidSale>,
    promotions: &[Arc<rule::Promotion>],
) -> (Vec<String>, Vec<Uuid>) {
    let mut codes: Vec<String> = sales.flat_map(|sale| sale.cart.coupons.iter().cloned()).collect();
    codes.sort_unstable();
    codes.dedup();
    (codes, counted(promotions))
}

/// Promotions with a budget or a limit of uses.
pub fn counted(promotions: &[Arc<rule::Promotion>]) -> Vec<Uuid> {
    promotions.iter().filter(|promotion| promotion.is_counted()).map(|promotion| promotion.promotion_id).collect()
}
