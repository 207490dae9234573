//! Stock rows, movements and acts, set by set; and the keys under which acts may be sent again.

use std::collections::HashMap;

use chrono::{NaiveDate, NaiveTime};
use chrono_tz::Tz;
use runtime::pg::PgTx;
use schemas::events::StockMoved;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::error::ApiError;
use crate::inventory::disposition::{AsideLevel, AsideParams};
use crate::inventory::levels::{Movement, MovementParams, StockLevel, StockParams};
use crate::inventory::store::{Act, Head};

/// Locks the location (its stream); false when there is none. First of all locks of an act.
pub async fn lock_location(tx: &mut PgTx, location: Uuid) -> Result<bool, sqlx::Error> {
    let row: Option<i64> = sqlx::query_scalar("select last_seq from streams where stream_id = $1 for no key update")
        .bind(location)
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.is_some())
}

/// The fingerprint and response stored under a key.
pub async fn find_key(
    tx: &mut PgTx,
    (principal, route, key): (&str, &str, &str),
) -> Result<Option<(Vec<u8>, String)>, sqlx::Error> {
    sqlx::query_as(
        "select fingerprint, response from idempotency_keys where principal = $1 and route = $2 and key = $3",
    )
    .bind(principal)
    .bind(route)
    .bind(key)
    .fetch_optional(&mut **tx)
    .await
}

pub async fn insert_key(
    tx: &mut PgTx,
    (principal, route, key): (&str, &str, &str),
    fingerprint: &[u8; 32],
    response: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into idempotency_keys (principal, route, key, fingerprint, status, response)
         values ($1, $2, $3, $4, 201, $5)",
    )
    .bind(principal)
    .bind(route)
    .bind(key)
    .bind(&fingerprint[..])
    .bind(response)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A location's trading calendar.
#[derive(Debug, sqlx::FromRow)]
pub struct Place {
    pub currency: String,
    pub time_zone: String,
    pub day_cutoff: NaiveTime,
    pub opened_on: NaiveDate,
}

impl Place {
    pub fn zone(&self) -> Result<Tz, ApiError> {
        self.time_zone.parse().map_err(|_| ApiError::internal(anyhow::anyhow!("zone of a location")))
    }
}

pub async fn place(tx: &mut PgTx, location: Uuid) -> Result<Option<Place>, sqlx::Error> {
    sqlx::query_as("select currency, time_zone, day_cutoff, opened_on from locations where location_id = $1")
        .bind(location)
        .fetch_optional(&mut **tx)
        .await
}

#[derive(Debug, Clone, Copy)]
pub struct VariantKind {
    pub is_measured: bool,
    pub tracks_stock: bool,
    pub unit_cost: Option<i64>,
}

pub async fn variant_kinds(tx: &mut PgTx, ids: Vec<Uuid>) -> Result<HashMap<Uuid, VariantKind>, sqlx::Error> {
    let rows: Vec<(Uuid, bool, bool, Option<i64>)> = sqlx::query_as(
        "select variant_id, is_measured, tracks_stock, unit_cost from variants where variant_id = any($1)",
    )
    .bind(ids)
    .fetch_all(&mut **tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, is_measured, tracks_stock, unit_cost)| (id, VariantKind { is_measured, tracks_stock, unit_cost }))
        .collect())
}

/// A locked stock row.
#[derive(Debug, sqlx::FromRow)]
pub struct Level {
    pub variant_id: Uuid,
    pub qty: i64,
    pub version: i64,
    pub threshold: Option<i64>,
    pub hysteresis: i64,
}

pub async fn insert_missing_levels(tx: &mut PgTx, location: Uuid, variants: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into stock_levels (location_id, variant_id)
         select $1, variant_id from unnest($2::uuid[]) as row (variant_id) order by variant_id
         on conflict do nothing",
    )
    .bind(location)
    .bind(variants)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Locks in the order of the variants.
pub async fn lock_levels(tx: &mut PgTx, location: Uuid, variants: &[Uuid]) -> Result<Vec<Level>, sqlx::Error> {
    sqlx::query_as(
        "select variant_id, qty, version, threshold, hysteresis from stock_levels
         where location_id = $1 and variant_id = any($2) order by variant_id for no key update",
    )
    .bind(location)
    .bind(variants)
    .fetch_all(&mut **tx)
    .await
}

pub async fn update_levels(tx: &mut PgTx, moves: &[StockMoved]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update stock_levels s set qty = row.qty, version = row.version, threshold = row.threshold,
                hysteresis = row.hysteresis
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
              as row (location_id, variant_id, qty, version, threshold, hysteresis)
         where s.location_id = row.location_id and s.variant_id = row.variant_id",
    )
    .bind(moves.iter().map(|moved| moved.location_id.0).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.variant_id.0).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.qty_after).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.version).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.threshold).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.hysteresis).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn insert_movements(tx: &mut PgTx, act: &Act, moves: &[StockMoved]) -> Result<(), sqlx::Error> {
    let Some(first) = moves.first() else { return Ok(()) };
    sqlx::query(
        "insert into stock_movements (location_id, variant_id, version, epoch, location_seq, delta, qty_after,
                cause_type, cause_id, cause_line, reason, document_uri, actor, effective_at, recorded_at, threshold,
                hysteresis, unit_cost, approval_id)
         select $1, variant_id, version, $2, $3, delta, qty_after, $4, $5, cause_line, $6, $7, $8, $9, $10, threshold,
                hysteresis, unit_cost, $19
         from unnest($11::uuid[], $12::bigint[], $13::bigint[], $14::bigint[], $15::int[], $16::bigint[],
                     $17::bigint[], $18::bigint[])
              as row (variant_id, version, delta, qty_after, cause_line, threshold, hysteresis, unit_cost)",
    )
    .bind(act.location_id.0)
    .bind(first.epoch)
    .bind(first.location_seq)
    .bind(act.kind.as_str())
    .bind(first.cause_id)
    .bind(&act.reason)
    .bind(&act.document_uri)
    .bind(first.actor.0)
    .bind(first.effective_at.to_utc())
    .bind(first.recorded_at.to_utc())
    .bind(moves.iter().map(|moved| moved.variant_id.0).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.version).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.delta).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.qty_after).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.cause_line).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.threshold).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.hysteresis).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.unit_cost).collect::<Vec<_>>())
    .bind(first.approval_id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn insert_act(tx: &mut PgTx, act: &Act, head: &Head) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into stock_acts (act_id, epoch, location_id, location_seq, kind, reason, document_uri, actor,
                                 effective_at, recorded_at, line_count, approval_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(head.act_id)
    .bind(head.epoch)
    .bind(act.location_id.0)
    .bind(head.seq)
    .bind(act.kind.as_str())
    .bind(&act.reason)
    .bind(&act.document_uri)
    .bind(head.actor)
    .bind(head.effective_at)
    .bind(head.recorded_at)
    .bind(act.changes.len() as i32)
    .bind(head.approval_id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Stock rows in scope, in the order of location and variant.
pub async fn list_levels(
    executor: impl PgExecutor<'_>,
    params: &StockParams,
    scope: Option<Vec<Uuid>>,
    after: Option<(Uuid, Uuid)>,
    limit: i64,
) -> Result<Vec<StockLevel>, sqlx::Error> {
    let (location, variant) = after.unzip();
    sqlx::query_as(
        "select s.location_id, s.variant_id, v.sku, v.name, s.qty, s.version, s.threshold, s.hysteresis,
                coalesce(s.qty < s.threshold, false) as is_low
         from stock_levels s join variants v using (variant_id)
         where ($1::uuid is null or s.location_id = $1) and ($2::uuid is null or s.variant_id = $2)
           and (not $3 or s.qty < s.threshold) and ($4::uuid[] is null or s.location_id = any($4))
           and ($5::uuid is null or (s.location_id, s.variant_id) > ($5, $6))
           and not exists (select from system_locations y where y.location_id = s.location_id)
         order by s.location_id, s.variant_id limit $7",
    )
    .bind(params.location_id)
    .bind(params.variant_id)
    .bind(params.low.unwrap_or(false))
    .bind(scope)
    .bind(location)
    .bind(variant)
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// What lies beside the stock of locations in scope, in the order of place and variant.
pub async fn list_aside(
    executor: impl PgExecutor<'_>,
    params: &AsideParams,
    scope: Option<Vec<Uuid>>,
    after: Option<(Uuid, Uuid)>,
    limit: i64,
) -> Result<Vec<AsideLevel>, sqlx::Error> {
    let (place, variant) = after.unzip();
    sqlx::query_as(
        "select y.parent_location_id as location_id, y.kind, y.location_id as system_location_id, s.variant_id, v.sku, v.name,
                s.qty, s.version
         from system_locations y join stock_levels s using (location_id) join variants v using (variant_id)
         where ($1::uuid is null or y.parent_location_id = $1) and ($2::uuid is null or s.variant_id = $2)
           and ($3::uuid[] is null or y.parent_location_id = any($3))
           and ($4::uuid is null or (y.location_id, s.variant_id) > ($4, $5))
         order by y.location_id, s.variant_id limit $6",
    )
    .bind(params.location_id)
    .bind(params.variant_id)
    .bind(scope)
    .bind(place)
    .bind(variant)
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// Movements of a location, in the order of variant and version.
pub async fn list_movements(
    executor: impl PgExecutor<'_>,
    params: &MovementParams,
    after: Option<(Uuid, i64)>,
    limit: i64,
) -> Result<Vec<Movement>, sqlx::Error> {
    let (variant, version) = after.unzip();
    sqlx::query_as(
        "select location_id, variant_id, version, location_seq, delta, qty_after, cause_type, cause_id, cause_line,
                reason, document_uri, actor, effective_at, recorded_at, threshold, hysteresis,
                unit_cost as unit_cost_minor
         from stock_movements
         where location_id = $1 and ($2::uuid is null or variant_id = $2)
           and ($3::uuid is null or (variant_id, version) > ($3, $4))
         order by variant_id, version limit $5",
    )
    .bind(params.location_id)
    .bind(params.variant_id)
    .bind(variant)
    .bind(version)
    .bind(limit)
    .fetch_all(executor)
    .await
}

/// Writes movements of any place and cause.
pub async fn insert_moved(tx: &mut PgTx, moves: &[StockMoved]) -> Result<(), sqlx::Error> {
    if moves.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into stock_movements (location_id, parent_location_id, variant_id, version, epoch, location_seq, delta,
                qty_after, cause_type, cause_id, cause_line, reason, actor, approval_id, effective_at, recorded_at, threshold,
                hysteresis, unit_cost)
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::text[], $10::uuid[], $11::int[], $12::text[], $13::uuid[], $14::uuid[], $15::timestamptz[],
                $16::timestamptz[], $17::bigint[], $18::bigint[], $19::bigint[])",
    )
    .bind(moves.iter().map(|moved| moved.location_id.0).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.parent_location_id.map(|parent| parent.0)).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.variant_id.0).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.version).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.epoch).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.location_seq).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.delta).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.qty_after).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.cause_type.as_str()).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.cause_id).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.cause_line).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.reason.as_str()).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.actor.0).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.approval_id).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.effective_at.to_utc()).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.recorded_at.to_utc()).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.threshold).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.hysteresis).collect::<Vec<_>>())
    .bind(moves.iter().map(|moved| moved.unit_cost).collect::<Vec<_>>())
    .execute(&mut **tx)
    .await?;
    Ok(())
}
