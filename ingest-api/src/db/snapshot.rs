//! Reads the catalog into a [`Snapshot`]: all of it at first, then what changed since a version.
//!
//! A write to anything in it appends a row to `catalog_changes` under the locked `catalog_counter`; the
//! objects named there since the known version are read again from their tables.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use schemas::ids::{LocationId, ProgramId, TaxProfileId, VariantId};
use schemas::money::UnknownRoundingMode;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::db::promotions;
use crate::loyalty::accrual::EarnRule;
use crate::loyalty::program::{Program, Worth};
use crate::pricing::snapshot::{Location, Price, RateSet, Snapshot, Tax, TaxProfile, Variant};

/// The picture at the committed catalog version, or None when `known` is up to date.
pub async fn refreshed(pool: &PgPool, known: &Snapshot) -> Result<Option<Snapshot>, sqlx::Error> {
    let mut tx = pool.begin_with("begin isolation level repeatable read read only").await?;
    let (version, epoch) = counters(&mut tx).await?;
    if known.epoch == epoch && known.version == version {
        return Ok(None);
    }
    read_from(&mut tx, known).await.map(Some)
}

/// The picture at the committed catalog version, read statement by statement until nothing changes it meanwhile.
pub async fn refreshed_on(conn: &mut PgConnection, known: &Snapshot) -> Result<Snapshot, sqlx::Error> {
    let mut next = read_from(conn, known).await?;
    while counters(conn).await? != (next.version, next.epoch) {
        next = read_from(conn, &next).await?;
    }
    Ok(next)
}

async fn counters(conn: &mut PgConnection) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as("select version, (select max(epoch) from epochs) from catalog_counter").fetch_one(conn).await
}

async fn read_from(conn: &mut PgConnection, known: &Snapshot) -> Result<Snapshot, sqlx::Error> {
    let (version, epoch) = counters(conn).await?;
    // A restore may have gone back: nothing known before it counts.
    let mut next = if known.epoch == epoch { known.clone() } else { Snapshot::default() };
    let since = next.version;
    (next.version, next.epoch) = (version, epoch);
    let changed = if since == 0 { None } else { Some(Changed::since(conn, since).await?) };
    let ids = |kind: &str| changed.as_ref().map(|changed| changed.of(kind));
    for location in locations(conn, ids("location")).await? {
        next.locations.insert(location.location_id, Arc::new(location));
    }
    for variant in variants(conn, ids("variant")).await? {
        next.variants.insert(variant.variant_id, Arc::new(variant));
    }
    for profile in tax_profiles(conn, ids("tax_profile")).await? {
        next.tax_profiles.insert(profile.tax_profile_id, Arc::new(profile));
    }
    for (variant_id, prices) in prices(conn, ids("price")).await? {
        next.prices.insert(variant_id, prices.into());
    }
    if ids("promotion").is_none_or(|ids| !ids.is_empty()) {
        next.promotions = promotions::in_order(conn).await?;
    }
    if ids("loyalty_program").is_none_or(|ids| !ids.is_empty()) {
        next.programs = Arc::new(programs(conn).await?.into_iter().map(|it| (it.program_id, it)).collect());
    }
    Ok(next)
}

/// Objects named by the changes feed after a version, by kind.
struct Changed(HashMap<String, Vec<Uuid>>);

impl Changed {
    async fn since(conn: &mut PgConnection, version: i64) -> Result<Changed, sqlx::Error> {
        let rows: Vec<(String, Uuid)> =
            sqlx::query_as("select distinct kind, object_id from catalog_changes where catalog_version > $1")
                .bind(version)
                .fetch_all(conn)
                .await?;
        let mut by_kind: HashMap<String, Vec<Uuid>> = HashMap::new();
        for (kind, id) in rows {
            by_kind.entry(kind).or_default().push(id);
        }
        Ok(Changed(by_kind))
    }

    fn of(&self, kind: &str) -> Vec<Uuid> {
        self.0.get(kind).cloned().unwrap_or_default()
    }
}

#[derive(sqlx::FromRow)]
struct LocationRow {
    location_id: Uuid,
    currency: String,
    time_zone: String,
    day_cutoff: NaiveTime,
    opened_on: NaiveDate,
    rounding_mode: String,
    cash_step: i64,
    cash_mode: String,
    oversell: String,
    is_active: bool,
}

async fn locations(conn: &mut PgConnection, ids: Option<Vec<Uuid>>) -> Result<Vec<Location>, sqlx::Error> {
    let rows: Vec<LocationRow> = sqlx::query_as(
        "select location_id, currency, time_zone, day_cutoff, opened_on, rounding_mode, cash_step, cash_mode, oversell,
                is_active
         from locations where $1::uuid[] is null or location_id = any($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let zone = Tz::from_str(&row.time_zone)
                .map_err(|_| sqlx::Error::Decode(format!("unknown time zone {}", row.time_zone).into()))?;
            Ok(Location {
                location_id: LocationId(row.location_id),
                currency: row.currency.into(),
                zone,
                day_cutoff: row.day_cutoff,
                opened_on: row.opened_on,
                rounding_mode: row
                    .rounding_mode
                    .parse()
                    .map_err(|error: UnknownRoundingMode| sqlx::Error::Decode(Box::new(error)))?,
                cash_step: row.cash_step,
                cash_mode: row
                    .cash_mode
                    .parse()
                    .map_err(|error: UnknownRoundingMode| sqlx::Error::Decode(Box::new(error)))?,
                denies_oversell: row.oversell == "deny",
                is_active: row.is_active,
            })
        })
        .collect()
}

#[derive(sqlx::FromRow)]
struct VariantRow {
    variant_id: Uuid,
    product_id: Uuid,
    sku: String,
    name: String,
    category: String,
    unit: String,
    is_measured: bool,
    tracks_stock: bool,
    tax_profile_id: Uuid,
    unit_cost: Option<i64>,
    is_active: bool,
}

async fn variants(conn: &mut PgConnection, ids: Option<Vec<Uuid>>) -> Result<Vec<Variant>, sqlx::Error> {
    let rows: Vec<VariantRow> = sqlx::query_as(
        "select v.variant_id, v.product_id, v.sku, v.name, p.category, v.unit, v.is_measured, v.tracks_stock,
                v.tax_profile_id, v.unit_cost, v.is_active
         from variants v join products p using (product_id) where $1::uuid[] is null or v.variant_id = any($1)",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Variant {
            variant_id: VariantId(row.variant_id),
            product_id: row.product_id.into(),
            sku: row.sku,
            name: row.name,
            category: row.category,
            unit: row.unit,
            is_measured: row.is_measured,
            tracks_stock: row.tracks_stock,
            tax_profile_id: TaxProfileId(row.tax_profile_id),
            unit_cost: row.unit_cost,
            is_active: row.is_active,
        })
        .collect())
}

#[derive(sqlx::FromRow)]
struct RateRow {
    tax_profile_id: Uuid,
    valid_from: DateTime<Utc>,
    tax_id: Uuid,
    name: String,
    rate: Decimal,
    inclusive: bool,
    compound: bool,
    scope: String,
}

async fn tax_profiles(conn: &mut PgConnection, ids: Option<Vec<Uuid>>) -> Result<Vec<TaxProfile>, sqlx::Error> {
    let rows: Vec<RateRow> = sqlx::query_as(
        "select tax_profile_id, valid_from, tax_id, name, rate, inclusive, compound, scope
         from tax_rates where $1::uuid[] is null or tax_profile_id = any($1)
         order by tax_profile_id, valid_from desc, ordinal",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let mut profiles: Vec<TaxProfile> = Vec::new();
    for row in rows {
        let id = TaxProfileId(row.tax_profile_id);
        if profiles.last().is_none_or(|profile| profile.tax_profile_id != id) {
            profiles.push(TaxProfile { tax_profile_id: id, rate_sets: Vec::new() });
        }
        let Some(profile) = profiles.last_mut() else { continue };
        if profile.rate_sets.last().is_none_or(|set| set.valid_from != row.valid_from) {
            profile.rate_sets.push(RateSet { valid_from: row.valid_from, taxes: Vec::new() });
        }
        let Some(set) = profile.rate_sets.last_mut() else { continue };
        set.taxes.push(Tax {
            tax_id: row.tax_id,
            name: row.name.into(),
            rate: row.rate.normalize(),
            rate_text: row.rate.normalize().to_string().into(),
            is_inclusive: row.inclusive,
            is_compound: row.compound,
            is_per_order: row.scope == "order",
        });
    }
    Ok(profiles)
}

#[derive(sqlx::FromRow)]
struct PriceRow {
    price_id: Uuid,
    variant_id: Uuid,
    location_id: Option<Uuid>,
    currency: String,
    amount_minor: i64,
    tax_inclusive: bool,
    valid_from: DateTime<Utc>,
    valid_to: Option<DateTime<Utc>>,
}

/// All price versions of each variant that has one of `ids`.
async fn prices(
    conn: &mut PgConnection,
    ids: Option<Vec<Uuid>>,
) -> Result<HashMap<VariantId, Vec<Price>>, sqlx::Error> {
    let rows: Vec<PriceRow> = sqlx::query_as(
        "select price_id, variant_id, location_id, currency, amount_minor, tax_inclusive, valid_from, valid_to
         from prices
         where $1::uuid[] is null or variant_id in (select variant_id from prices where price_id = any($1))
         order by variant_id, valid_from desc, catalog_version desc, price_id desc",
    )
    .bind(ids)
    .fetch_all(conn)
    .await?;
    let mut by_variant: HashMap<VariantId, Vec<Price>> = HashMap::new();
    for row in rows {
        by_variant.entry(VariantId(row.variant_id)).or_default().push(Price {
            price_id: row.price_id,
            location_id: row.location_id.map(LocationId),
            currency: row.currency,
            amount_minor: row.amount_minor,
            tax_inclusive: row.tax_inclusive,
            valid_from: row.valid_from,
            valid_to: row.valid_to,
        });
    }
    Ok(by_variant)
}

#[derive(sqlx::FromRow)]
struct ProgramRow {
    program_id: Uuid,
    step_minor: i64,
    points_per_step: i64,
    expires_after_days: Option<i32>,
    pending_days: Option<i32>,
    redeem_points: Option<i64>,
    redeem_minor: Option<i64>,
}

/// All of them: there are few.
async fn programs(conn: &mut PgConnection) -> Result<Vec<Program>, sqlx::Error> {
    let rows: Vec<ProgramRow> = sqlx::query_as(
        "select program_id, step_minor, points_per_step, expires_after_days, pending_days, redeem_points, redeem_minor
         from loyalty_programs",
    )
    .fetch_all(conn)
    .await?;
    let program = |row: ProgramRow| Program {
        program_id: ProgramId(row.program_id),
        rule: EarnRule { step_minor: row.step_minor, points_per_step: row.points_per_step },
        expires_after_days: row.expires_after_days,
        pending_days: row.pending_days,
        worth: row.redeem_points.zip(row.redeem_minor).map(|(points, minor)| Worth { points, minor }),
    };
    Ok(rows.into_iter().map(program).collect())
}
