//! Locations and their streams.

use runtime::pg::PgTx;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::locations::{Location, LocationEdit, NewLocation, Rounding};

const COLUMNS: &str = "location_id, external_id, name, currency, time_zone, day_cutoff, opened_on, rounding_mode, \
                       cash_step, cash_mode, oversell, is_active, version";

/// Makes the location's stream, its relay mark and the location itself.
pub async fn insert(tx: &mut PgTx, id: Uuid, new: &NewLocation) -> Result<Location, sqlx::Error> {
    sqlx::query("insert into streams (stream_id) values ($1)").bind(id).execute(&mut **tx).await?;
    sqlx::query("insert into stream_progress (stream_id) values ($1)").bind(id).execute(&mut **tx).await?;
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "insert into locations (location_id, external_id, name, currency, time_zone, day_cutoff, opened_on,
                                rounding_mode, cash_step, cash_mode, oversell, version)
         values ($1, $2, $3, $4, $5, coalesce($6, time '00:00'), $7, coalesce($8, 'half_even'), coalesce($9, 1),
                 coalesce($10, 'half_up'), coalesce($11, 'allow_and_flag'), 1)
         returning {COLUMNS}"
    )))
    .bind(id)
    .bind(&new.external_id)
    .bind(&new.name)
    .bind(&new.currency)
    .bind(&new.time_zone)
    .bind(new.day_cutoff)
    .bind(new.opened_on)
    .bind(new.rounding_mode.map(Rounding::as_str))
    .bind(new.cash_step)
    .bind(new.cash_mode.map(Rounding::as_str))
    .bind(new.oversell.map(|oversell| oversell.as_str()))
    .fetch_one(&mut **tx)
    .await
}

pub async fn update(tx: &mut PgTx, id: Uuid, edit: &LocationEdit) -> Result<Location, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "update locations set name = coalesce($2, name), day_cutoff = coalesce($3, day_cutoff),
                opened_on = coalesce($4, opened_on), rounding_mode = coalesce($5, rounding_mode),
                cash_step = coalesce($6, cash_step), cash_mode = coalesce($7, cash_mode),
                oversell = coalesce($8, oversell), is_active = coalesce($9, is_active), version = version + 1
         where location_id = $1 returning {COLUMNS}"
    )))
    .bind(id)
    .bind(&edit.name)
    .bind(edit.day_cutoff)
    .bind(edit.opened_on)
    .bind(edit.rounding_mode.map(Rounding::as_str))
    .bind(edit.cash_step)
    .bind(edit.cash_mode.map(Rounding::as_str))
    .bind(edit.oversell.map(|oversell| oversell.as_str()))
    .bind(edit.is_active)
    .fetch_one(&mut **tx)
    .await
}

pub async fn find(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Location>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from locations where location_id = $1")))
        .bind(id)
        .fetch_optional(executor)
        .await
}

/// Locations in scope after `after`, in the order of their ids.
pub async fn list(
    executor: impl PgExecutor<'_>,
    scope: Option<Vec<Uuid>>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Location>, sqlx::Error> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from locations
         where ($1::uuid[] is null or location_id = any($1)) and ($2::uuid is null or location_id > $2)
         order by location_id limit $3"
    )))
    .bind(scope)
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await
}
