//! I14 and I15 in Redis: the serving view equals the ledgers, entity by entity.

use std::time::Instant;

use anyhow::Context;
use schemas::ids::{CustomerId, LocationId, ProgramId, VariantId};
use sinks::view::entry::{loyalty_key, stock_key};
use sqlx::Row;
use uuid::Uuid;

use super::{Report, Stores};

/// Entities asked for in one pipeline.
const PIPELINE: usize = 1_000;

/// One entity as the ledger has it: its key in the view, version, and figure.
struct Entity {
    key: String,
    field: &'static str,
    version: i64,
    figure: i64,
}

/// Compares every stock level and account, waiting until the view has caught up, at most `stores.drain`.
pub async fn check(stores: &Stores, report: &mut Report) -> anyhow::Result<()> {
    let mut redis = runtime::redis::connect(&stores.redis).context("the Redis URL")?;
    let deadline = Instant::now() + stores.drain;
    for (id, claim, kind) in [
        ("I14", "stock levels in Redis = stock levels", "stock"),
        ("I15", "loyalty balances in Redis = accounts", "loyalty"),
    ] {
        loop {
            let entities = ledger(stores, kind).await?;
            let mut differing = Vec::new();
            for chunk in entities.chunks(PIPELINE) {
                let mut pipe = redis::pipe();
                for entity in chunk {
                    pipe.cmd("HMGET").arg(&entity.key).arg("version").arg(entity.field);
                }
                let held: Vec<(Option<i64>, Option<i64>)> =
                    pipe.query_async(&mut redis).await.context("reading Redis")?;
                differing.extend(
                    chunk.iter().zip(held).filter(|(e, held)| *held != (Some(e.version), Some(e.figure))).map(
                        |(e, (version, figure))| {
                            format!(
                                "{}: ledger v{} {} {}, Redis v{version:?} {figure:?}",
                                e.key, e.version, e.field, e.figure
                            )
                        },
                    ),
                );
            }
            if differing.is_empty() || Instant::now() >= deadline {
                report.add(id, claim, entities.len() as u64, differing);
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
    Ok(())
}

async fn ledger(stores: &Stores, kind: &str) -> anyhow::Result<Vec<Entity>> {
    let entity = |key: String, field, row: &sqlx::postgres::PgRow| Entity {
        key,
        field,
        version: row.get(2),
        figure: row.get(3),
    };
    if kind == "stock" {
        let rows = sqlx::query("select location_id, variant_id, version, qty from stock_levels where version > 0");
        let rows = rows.fetch_all(&stores.pg).await?;
        let key = |row: &sqlx::postgres::PgRow| stock_key(LocationId(row.get::<Uuid, _>(0)), VariantId(row.get(1)));
        return Ok(rows.iter().map(|row| entity(key(row), "qty", row)).collect());
    }
    let rows = sqlx::query("select customer_id, program_id, version, points from loyalty_accounts where version > 0");
    let rows = rows.fetch_all(&stores.pg).await?;
    let key = |row: &sqlx::postgres::PgRow| loyalty_key(CustomerId(row.get::<Uuid, _>(0)), ProgramId(row.get(1)));
    Ok(rows.iter().map(|row| entity(key(row), "points", row)).collect())
}
