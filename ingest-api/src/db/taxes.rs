//! Tax profiles and their dated rates.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use rust_decimal::Decimal;
use schemas::ids::derived_id;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::taxes::{NewRate, Rate, TaxProfile};

type Head = (Uuid, String, String, i64);

pub async fn insert(tx: &mut PgTx, id: Uuid, external_id: &str, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("insert into tax_profiles (tax_profile_id, external_id, name, version) values ($1, $2, $3, 1)")
        .bind(id)
        .bind(external_id)
        .bind(name)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub async fn raise_version(tx: &mut PgTx, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update tax_profiles set version = version + 1 where tax_profile_id = $1")
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A tax keeps its id over all its rates: it derives from profile and name.
pub async fn insert_rates(
    tx: &mut PgTx,
    id: Uuid,
    valid_from: DateTime<Utc>,
    rates: &[NewRate],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into tax_rates (tax_profile_id, valid_from, ordinal, tax_id, name, rate, inclusive, compound, scope)
         select $1, $2, ordinal, tax_id, name, rate, inclusive, compound, scope
         from unnest($3::smallint[], $4::uuid[], $5::text[], $6::numeric[], $7::boolean[], $8::boolean[], $9::text[])
              as row (ordinal, tax_id, name, rate, inclusive, compound, scope)",
    )
    .bind(id)
    .bind(valid_from)
    .bind((0..rates.len() as i16).collect::<Vec<_>>())
    .bind(rates.iter().map(|rate| derived_id("tax", &format!("{id}|{}", rate.name))).collect::<Vec<_>>())
    .bind(rates.iter().map(|rate| rate.name.as_str()).collect::<Vec<_>>())
    .bind(rates.iter().map(|rate| rate.rate).collect::<Vec<Decimal>>())
    .bind(rates.iter().map(|rate| rate.inclusive).collect::<Vec<_>>())
    .bind(rates.iter().map(|rate| rate.compound).collect::<Vec<_>>())
    .bind(rates.iter().map(|rate| rate.scope.as_str()).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Option<TaxProfile>, sqlx::Error> {
    let head: Option<Head> =
        sqlx::query_as("select tax_profile_id, external_id, name, version from tax_profiles where tax_profile_id = $1")
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
    let Some(head) = head else { return Ok(None) };
    Ok(with_rates(conn, vec![head]).await?.pop())
}

/// Profiles after `after`, in the order of their ids.
pub async fn list(conn: &mut PgConnection, after: Option<Uuid>, limit: i64) -> Result<Vec<TaxProfile>, sqlx::Error> {
    let heads: Vec<Head> = sqlx::query_as(
        "select tax_profile_id, external_id, name, version from tax_profiles
         where $1::uuid is null or tax_profile_id > $1 order by tax_profile_id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    with_rates(conn, heads).await
}

async fn with_rates(conn: &mut PgConnection, heads: Vec<Head>) -> Result<Vec<TaxProfile>, sqlx::Error> {
    let ids: Vec<Uuid> = heads.iter().map(|head| head.0).collect();
    let rates: Vec<Rate> = sqlx::query_as(
        "select tax_profile_id, valid_from, ordinal, tax_id, name, trim_scale(rate) as rate, inclusive, compound, scope
         from tax_rates where tax_profile_id = any($1) order by tax_profile_id, valid_from, ordinal",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let mut by_profile: HashMap<Uuid, Vec<Rate>> = HashMap::new();
    for rate in rates {
        by_profile.entry(rate.tax_profile_id).or_default().push(rate);
    }
    Ok(heads
        .into_iter()
        .map(|(tax_profile_id, external_id, name, version)| TaxProfile {
            tax_profile_id,
            external_id,
            name,
            version,
            rates: by_profile.remove(&tax_profile_id).unwrap_or_default(),
        })
        .collect())
}
