//! ClickHouse DDL in order: `sinks migrate`.
//!
//! Files are compiled in, run statement by statement and recorded with their hash. Each is idempotent, since
//! ClickHouse has no transactional DDL: one that broke off half-way runs again from its start.

use anyhow::{Context, bail};
use clickhouse::Row;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::store::Store;

/// One file of `migrations/clickhouse/`.
struct Migration {
    number: u32,
    name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($number:literal $name:literal,)*) => {
        &[$(Migration {
            number: $number,
            name: $name,
            sql: include_str!(concat!("../../migrations/clickhouse/", $name, ".sql")),
        }),*]
    };
}

/// In the order they run.
const MIGRATIONS: &[Migration] = migrations! {
    1 "0001_raw",
    2 "0002_dimensions",
    3 "0003_sales_facts",
    4 "0004_ledger_facts",
    5 "0005_kpis",
    6 "0006_audit",
};

#[derive(Row, Deserialize)]
struct Applied {
    migration: u32,
    sha256: String,
}

/// Runs what has not run here yet and returns the names. Running it again does nothing.
///
/// Fails when a file was changed after it ran here: a change is a new file.
pub async fn migrate(store: &Store) -> anyhow::Result<Vec<&'static str>> {
    let applied = applied(store).await?;
    let mut ran = Vec::new();
    for migration in MIGRATIONS {
        let sha256 = sha256(migration.sql);
        match applied.iter().find(|row| row.migration == migration.number) {
            Some(row) if row.sha256 == sha256 => continue,
            Some(_) => bail!("migration {} was changed after it ran here: add a new file instead", migration.name),
            None => {}
        }
        for statement in statements(migration.sql) {
            let head = statement.lines().next().unwrap_or_default();
            store.execute(&statement).await.with_context(|| format!("{}: {head}", migration.name))?;
        }
        let record = format!(
            "INSERT INTO vorca_raw.schema_migrations VALUES ({}, '{}', '{sha256}', now64(6))",
            migration.number, migration.name
        );
        store.execute(&record).await.with_context(|| format!("recording {}", migration.name))?;
        ran.push(migration.name);
    }
    Ok(ran)
}

async fn applied(store: &Store) -> anyhow::Result<Vec<Applied>> {
    let known = "SELECT count() FROM system.tables WHERE database = 'vorca_raw' AND name = 'schema_migrations'";
    if store.fetch::<u64>(known).await.context("looking for earlier migrations")? != [1] {
        return Ok(Vec::new());
    }
    let sql = "SELECT migration, toString(sha256) AS sha256 FROM vorca_raw.schema_migrations FINAL ORDER BY migration";
    store.fetch(sql).await.context("reading earlier migrations")
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Statements end with `;` at the end of a line; lines that start with `--` are comments.
fn statements(sql: &str) -> Vec<String> {
    let code: Vec<&str> = sql.lines().filter(|line| !line.starts_with("--")).collect();
    let code = code.join("\n");
    code.split(";\n").map(|part| part.trim().trim_end_matches(';').to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_may_run_twice() {
        for migration in MIGRATIONS {
            for statement in statements(migration.sql) {
                let again = statement.contains("IF NOT EXISTS") || statement.starts_with("CREATE OR REPLACE VIEW");
                assert!(again, "{}: {statement}", migration.name);
            }
        }
    }

    #[test]
    fn every_table_and_column_says_what_it_is() {
        for migration in MIGRATIONS {
            for statement in statements(migration.sql).iter().filter(|text| !text.starts_with("CREATE DATABASE")) {
                let (head, rest) = statement.split_once("\n(\n").expect("a column list");
                let (columns, tail) = rest.split_once("\n)\n").expect("its end");
                assert!(tail.contains("\nCOMMENT '"), "no comment on {head}");
                let uncommented = columns.split(",\n    ").filter(|column| {
                    let is_nested = column.contains("currency_scale UInt16, ");
                    !column.contains(" COMMENT '")
                        && !is_nested
                        && !column.contains("gross_minor Int64, ")
                        && !column.trim().ends_with("Array(Tuple(")
                        && !column.trim().starts_with("currency LowCard")
                });
                let uncommented: Vec<&str> = uncommented.collect();
                assert!(uncommented.is_empty(), "{head}: {uncommented:?}");
                assert!(!columns.contains("Nullable"), "{head}");
            }
        }
    }
}
