//! Loyalty programs and the rules they had before.

use runtime::pg::PgTx;
use sqlx::{AssertSqlSafe, PgExecutor};
use uuid::Uuid;

use crate::loyalty::programs::LoyaltyProgram;

const COLUMNS: &str = "program_id, name, step_minor, points_per_step, expires_after_days, redeem_points, redeem_minor,
                       pending_days, restore_days, version";

pub async fn find(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<LoyaltyProgram>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from loyalty_programs where program_id = $1")))
        .bind(id)
        .fetch_optional(executor)
        .await
}

pub async fn list(executor: impl PgExecutor<'_>) -> Result<Vec<LoyaltyProgram>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from loyalty_programs order by program_id")))
        .fetch_all(executor)
        .await
}

/// Writes a program, in force from this catalog version on. The catalog is locked.
pub async fn update(tx: &mut PgTx, program: &LoyaltyProgram, catalog_version: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update loyalty_programs set name = $2, step_minor = $3, points_per_step = $4, expires_after_days = $5,
                redeem_points = $6, redeem_minor = $7, pending_days = $8, restore_days = $9, version = $10
         where program_id = $1",
    )
    .bind(program.program_id)
    .bind(&program.name)
    .bind(program.step_minor)
    .bind(program.points_per_step)
    .bind(program.expires_after_days)
    .bind(program.redeem_points)
    .bind(program.redeem_minor)
    .bind(program.pending_days)
    .bind(program.restore_days)
    .bind(program.version)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "insert into loyalty_program_versions (program_id, version, catalog_version, step_minor, points_per_step)
         values ($1, $2, $3, $4, $5)",
    )
    .bind(program.program_id)
    .bind(program.version)
    .bind(catalog_version)
    .bind(program.step_minor)
    .bind(program.points_per_step)
    .execute(&mut **tx)
    .await
    .map(drop)
}
