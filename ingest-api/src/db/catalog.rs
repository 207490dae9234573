//! Products, variants and prices, one row or ten thousand: bulk statements take arrays.

use std::collections::{HashMap, HashSet};

use runtime::pg::PgTx;
use sqlx::{AssertSqlSafe, PgExecutor};
use uuid::Uuid;

use crate::catalog::prices::{NewPrice, Price};
use crate::catalog::products::{Product, ProductEdit};
use crate::catalog::upsert::{ProductRow, StoredProduct, StoredVariant, VariantRow};
use crate::catalog::variants::{Variant, VariantEdit, VariantParams};

const PRODUCT: &str = "product_id, external_id, name, category, is_active, version";
const VARIANT: &str = "v.variant_id, v.external_id, v.product_id, p.name as product_name, p.category, v.sku, v.name, \
                       v.barcodes, v.unit, v.is_measured, v.tracks_stock, v.tax_profile_id, \
                       v.unit_cost as unit_cost_minor, v.is_active, v.version";
const PRICE: &str = "price_id, variant_id, location_id, currency, amount_minor, tax_inclusive, valid_from, valid_to, \
                     catalog_version";

/// Gives this transaction the time that ten thousand rows need.
pub async fn allow_bulk(tx: &mut PgTx) -> Result<(), sqlx::Error> {
    sqlx::query("select set_config('statement_timeout', '60s', true), set_config('lock_timeout', '10s', true)")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub async fn find_product(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Product>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!("select {PRODUCT} from products where product_id = $1")))
        .bind(id)
        .fetch_optional(executor)
        .await
}

pub async fn list_products(
    executor: impl PgExecutor<'_>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Product>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {PRODUCT} from products where $1::uuid is null or product_id > $1 order by product_id limit $2"
    )))
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await
}

pub async fn update_product(tx: &mut PgTx, id: Uuid, edit: &ProductEdit) -> Result<Product, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "update products set name = coalesce($2, name), category = coalesce($3, category),
                is_active = coalesce($4, is_active), version = version + 1
         where product_id = $1 returning {PRODUCT}"
    )))
    .bind(id)
    .bind(&edit.name)
    .bind(&edit.category)
    .bind(edit.is_active)
    .fetch_one(&mut **tx)
    .await
}

/// Inserts what is new and updates what differs; returns those rows. An absent category stays.
pub async fn upsert_products(tx: &mut PgTx, rows: &[ProductRow]) -> Result<Vec<Product>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let external_ids: Vec<&str> = rows.iter().map(|row| row.external_id.as_str()).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let categories: Vec<Option<&str>> = rows.iter().map(|row| row.category.as_deref()).collect();
    let mut changed: Vec<Product> = sqlx::query_as(
        "update products p set name = row.name, category = coalesce(row.category, p.category), version = p.version + 1
         from unnest($1::text[], $2::text[], $3::text[]) as row (external_id, name, category)
         where p.external_id = row.external_id
           and (p.name, p.category) is distinct from (row.name, coalesce(row.category, p.category))
         returning p.product_id, p.external_id, p.name, p.category, p.is_active, p.version",
    )
    .bind(&external_ids)
    .bind(&names)
    .bind(&categories)
    .fetch_all(&mut **tx)
    .await?;
    let created: Vec<Product> = sqlx::query_as(AssertSqlSafe(format!(
        "insert into products (product_id, external_id, name, category, version)
         select product_id, external_id, name, coalesce(category, ''), 1
         from unnest($1::text[], $2::text[], $3::text[], $4::uuid[]) as row (external_id, name, category, product_id)
         on conflict (external_id) do nothing returning {PRODUCT}"
    )))
    .bind(&external_ids)
    .bind(&names)
    .bind(&categories)
    .bind(rows.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    changed.extend(created);
    Ok(changed)
}

pub async fn product_versions(tx: &mut PgTx, external_ids: Vec<String>) -> Result<Vec<StoredProduct>, sqlx::Error> {
    let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(
        "select p.external_id, p.product_id, p.version
         from unnest($1::text[]) with ordinality as row (external_id, place) join products p using (external_id)
         order by place",
    )
    .bind(external_ids)
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(external_id, product_id, version)| StoredProduct { external_id, product_id, version })
        .collect())
}

async fn ids(tx: &mut PgTx, sql: &'static str, keys: Vec<String>) -> Result<HashMap<String, Uuid>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, Uuid)> = sqlx::query_as(sql).bind(keys).fetch_all(&mut **tx).await?;
    Ok(rows.into_iter().collect())
}

pub async fn product_ids(tx: &mut PgTx, keys: Vec<String>) -> Result<HashMap<String, Uuid>, sqlx::Error> {
    ids(tx, "select external_id, product_id from products where external_id = any($1)", keys).await
}

pub async fn tax_profile_ids(tx: &mut PgTx, keys: Vec<String>) -> Result<HashMap<String, Uuid>, sqlx::Error> {
    ids(tx, "select external_id, tax_profile_id from tax_profiles where external_id = any($1)", keys).await
}

pub async fn location_ids(tx: &mut PgTx, keys: Vec<String>) -> Result<HashMap<String, Uuid>, sqlx::Error> {
    ids(tx, "select external_id, location_id from locations where external_id = any($1)", keys).await
}

pub async fn has_tax_profile(tx: &mut PgTx, id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from tax_profiles where tax_profile_id = $1)")
        .bind(id)
        .fetch_one(&mut **tx)
        .await
}

/// Rows whose SKU belongs to a variant that this call does not name and so leaves as it is, counted from 0; at most a
/// hundred.
pub async fn taken_skus(tx: &mut PgTx, rows: &[VariantRow]) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "select place - 1
         from unnest($1::text[], $2::text[]) with ordinality as row (external_id, sku, place)
         join variants v on v.sku = row.sku
         where not exists (select from unnest($1::text[]) as named (id) where named.id = v.external_id)
         order by place limit 100",
    )
    .bind(rows.iter().map(|row| row.external_id.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.sku.as_str()).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await
}

/// Inserts what is new and updates what differs; returns the ids of those rows. Absent values stay.
pub async fn upsert_variants(
    tx: &mut PgTx,
    rows: &[VariantRow],
    product_ids: Vec<Uuid>,
    profile_ids: Vec<Uuid>,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    stage_variants(tx, rows, product_ids, profile_ids).await?;
    let mut changed: Vec<Uuid> = sqlx::query_scalar(
        "update variants v set product_id = s.product_id, sku = s.sku, name = s.name,
                barcodes = coalesce(s.barcodes, v.barcodes), unit = coalesce(s.unit, v.unit),
                is_measured = coalesce(s.is_measured, v.is_measured),
                tracks_stock = coalesce(s.tracks_stock, v.tracks_stock), tax_profile_id = s.tax_profile_id,
                unit_cost = coalesce(s.unit_cost, v.unit_cost), version = v.version + 1
         from staged_variants s
         where v.external_id = s.external_id
           and (v.product_id, v.sku, v.name, v.barcodes, v.unit, v.is_measured, v.tracks_stock, v.tax_profile_id,
                v.unit_cost)
               is distinct from
               (s.product_id, s.sku, s.name, coalesce(s.barcodes, v.barcodes), coalesce(s.unit, v.unit),
                coalesce(s.is_measured, v.is_measured), coalesce(s.tracks_stock, v.tracks_stock),
                s.tax_profile_id, coalesce(s.unit_cost, v.unit_cost))
         returning v.variant_id",
    )
    .fetch_all(&mut **tx)
    .await?;
    let created: Vec<Uuid> = sqlx::query_scalar(
        "insert into variants (variant_id, external_id, product_id, sku, name, barcodes, unit, is_measured,
                               tracks_stock, tax_profile_id, unit_cost, version)
         select s.variant_id, s.external_id, s.product_id, s.sku, s.name, coalesce(s.barcodes, '{}'),
                coalesce(s.unit, 'piece'), coalesce(s.is_measured, false), coalesce(s.tracks_stock, true),
                s.tax_profile_id, s.unit_cost, 1
         from staged_variants s
         where not exists (select from variants v where v.external_id = s.external_id)
         returning variant_id",
    )
    .fetch_all(&mut **tx)
    .await?;
    changed.extend(created);
    Ok(changed)
}

/// Arrays of arrays cannot be unnested row by row, so barcodes travel as one text each.
async fn stage_variants(
    tx: &mut PgTx,
    rows: &[VariantRow],
    product_ids: Vec<Uuid>,
    profile_ids: Vec<Uuid>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "create temporary table if not exists staged_variants
             (external_id text, product_id uuid, sku text, name text, barcodes text[], unit text, is_measured boolean,
              tracks_stock boolean, tax_profile_id uuid, unit_cost bigint, variant_id uuid) on commit delete rows",
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "insert into staged_variants
         select external_id, product_id, sku, name, string_to_array(barcodes, ' '), unit, is_measured, tracks_stock,
                tax_profile_id, unit_cost, variant_id
         from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[],
                     $8::boolean[], $9::uuid[], $10::bigint[], $11::uuid[])
              as row (external_id, product_id, sku, name, barcodes, unit, is_measured, tracks_stock, tax_profile_id,
                      unit_cost, variant_id)",
    )
    .bind(rows.iter().map(|row| row.external_id.as_str()).collect::<Vec<_>>())
    .bind(product_ids)
    .bind(rows.iter().map(|row| row.sku.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.barcodes.as_ref().map(|codes| codes.join(" "))).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.unit.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.is_measured).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.tracks_stock).collect::<Vec<_>>())
    .bind(profile_ids)
    .bind(rows.iter().map(|row| row.unit_cost_minor).collect::<Vec<_>>())
    .bind(rows.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn find_variant(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Variant>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {VARIANT} from variants v join products p using (product_id) where v.variant_id = $1"
    )))
    .bind(id)
    .fetch_optional(executor)
    .await
}

pub async fn find_variants(tx: &mut PgTx, ids: &[Uuid]) -> Result<Vec<Variant>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {VARIANT} from variants v join products p using (product_id)
         where v.variant_id = any($1) order by v.variant_id"
    )))
    .bind(ids)
    .fetch_all(&mut **tx)
    .await
}

pub async fn list_variants(
    executor: impl PgExecutor<'_>,
    params: &VariantParams,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Variant>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {VARIANT} from variants v join products p using (product_id)
         where ($1::uuid is null or v.product_id = $1) and ($2::text is null or v.sku = $2)
           and ($3::text is null or $3 = any(v.barcodes)) and ($4::text is null or v.external_id = $4)
           and ($5::uuid is null or v.variant_id > $5)
         order by v.variant_id limit $6"
    )))
    .bind(params.product_id)
    .bind(&params.sku)
    .bind(&params.barcode)
    .bind(&params.external_id)
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await
}

pub async fn update_variant(tx: &mut PgTx, id: Uuid, edit: &VariantEdit) -> Result<Variant, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "with v as (
             update variants set sku = coalesce($2, sku), name = coalesce($3, name), barcodes = coalesce($4, barcodes),
                    tracks_stock = coalesce($5, tracks_stock), tax_profile_id = coalesce($6, tax_profile_id),
                    unit_cost = coalesce($7, unit_cost), is_active = coalesce($8, is_active), version = version + 1
             where variant_id = $1 returning *)
         select {VARIANT} from v join products p using (product_id)"
    )))
    .bind(id)
    .bind(&edit.sku)
    .bind(&edit.name)
    .bind(&edit.barcodes)
    .bind(edit.tracks_stock)
    .bind(edit.tax_profile_id)
    .bind(edit.unit_cost_minor)
    .bind(edit.is_active)
    .fetch_one(&mut **tx)
    .await
}

/// Gives every variant of these products one more version, since it repeats what changed about them.
pub async fn touch_variants_of(tx: &mut PgTx, products: &[Uuid]) -> Result<Vec<Variant>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "with v as (update variants set version = version + 1 where product_id = any($1) returning *)
         select {VARIANT} from v join products p using (product_id) order by v.variant_id"
    )))
    .bind(products)
    .fetch_all(&mut **tx)
    .await
}

fn stored((external_id, variant_id, version): (String, Uuid, i64)) -> StoredVariant {
    StoredVariant { external_id, variant_id, version }
}

/// In the order of the keys; unknown ones are left out.
pub async fn variants_by_external_id(tx: &mut PgTx, keys: Vec<String>) -> Result<Vec<StoredVariant>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(
        "select v.external_id, v.variant_id, v.version
         from unnest($1::text[]) with ordinality as row (external_id, place) join variants v using (external_id)
         order by place",
    )
    .bind(keys)
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(stored).collect())
}

/// In the order of the ids.
pub async fn variant_versions(tx: &mut PgTx, ids: Vec<Uuid>) -> Result<Vec<StoredVariant>, sqlx::Error> {
    let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(
        "select v.external_id, v.variant_id, v.version
         from unnest($1::uuid[]) with ordinality as row (variant_id, place) join variants v using (variant_id)
         order by place",
    )
    .bind(ids)
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows.into_iter().map(stored).collect())
}

pub async fn known_variants(tx: &mut PgTx, ids: Vec<Uuid>) -> Result<HashSet<Uuid>, sqlx::Error> {
    let rows: Vec<Uuid> = sqlx::query_scalar("select variant_id from variants where variant_id = any($1)")
        .bind(ids)
        .fetch_all(&mut **tx)
        .await?;
    Ok(rows.into_iter().collect())
}

/// The currency of each of these locations.
pub async fn currencies(tx: &mut PgTx, ids: Vec<Uuid>) -> Result<HashMap<Uuid, String>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, String)> =
        sqlx::query_as("select location_id, currency from locations where location_id = any($1)")
            .bind(ids)
            .fetch_all(&mut **tx)
            .await?;
    Ok(rows.into_iter().collect())
}

/// What was recorded last for the variant, location, currency and `valid_from` of each of these.
pub async fn latest_prices(tx: &mut PgTx, prices: &[NewPrice]) -> Result<Vec<Price>, sqlx::Error> {
    if prices.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_as(
        "select distinct on (p.variant_id, p.location_id, p.currency, p.valid_from)
                p.price_id, p.variant_id, p.location_id, p.currency, p.amount_minor, p.tax_inclusive, p.valid_from,
                p.valid_to, p.catalog_version
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[])
              as row (variant_id, location_id, currency, valid_from)
         join prices p on p.variant_id = row.variant_id and p.location_id is not distinct from row.location_id
                      and p.currency = row.currency and p.valid_from = row.valid_from
         order by p.variant_id, p.location_id, p.currency, p.valid_from, p.catalog_version desc",
    )
    .bind(prices.iter().map(|price| price.variant_id).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.location_id).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.currency.as_str()).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.valid_from).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await
}

pub async fn insert_prices(tx: &mut PgTx, prices: &[Price]) -> Result<(), sqlx::Error> {
    if prices.is_empty() {
        return Ok(());
    }
    sqlx::query(AssertSqlSafe(format!(
        "insert into prices ({PRICE})
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::boolean[],
                              $7::timestamptz[], $8::timestamptz[], $9::bigint[])"
    )))
    .bind(prices.iter().map(|price| price.price_id).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.variant_id).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.location_id).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.currency.as_str()).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.amount_minor).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.tax_inclusive).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.valid_from).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.valid_to).collect::<Vec<_>>())
    .bind(prices.iter().map(|price| price.catalog_version).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// All price versions of a variant: general ones, and those of locations in scope.
pub async fn list_prices(
    executor: impl PgExecutor<'_>,
    variant: Uuid,
    scope: Option<Vec<Uuid>>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Price>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {PRICE} from prices
         where variant_id = $1 and (location_id is null or $2::uuid[] is null or location_id = any($2))
           and ($3::uuid is null or price_id > $3)
         order by price_id limit $4"
    )))
    .bind(variant)
    .bind(scope)
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await
}
