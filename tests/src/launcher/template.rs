//! The schema that every test's database begins with. A test gets a database of its own; making the whole schema in each
//! takes seconds, copying a database that has it a fraction of one.

use std::path::Path;

use anyhow::{Context, Result};
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

use crate::stack::{Stack, superuser_url};

/// Postgres makes new databases after this one, unless told otherwise.
const TEMPLATE: &str = "template1";

/// Puts the migrations of the checkout into the template, in place of what an earlier build put there. A test still runs
/// its migrations and finds them done.
pub fn prepare(stack: &Stack) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fill(stack)).context("preparing the schema for tests")
}

async fn fill(stack: &Stack) -> Result<()> {
    let url = superuser_url(stack.identity());
    let (server, _) = url.rsplit_once('/').context("the address of Postgres names no database")?;
    let mut conn = PgConnection::connect(&format!("{server}/{TEMPLATE}")).await?;
    let anew = "drop schema public cascade; create schema public authorization pg_database_owner;
                grant usage on schema public to public";
    sqlx::raw_sql(anew).execute(&mut conn).await?;
    let migrations: &Path = &stack.layout().checkout.join("migrations/postgres");
    Migrator::new(migrations).await?.run(&mut conn).await?;
    // Nobody may be connected to a template that is copied.
    conn.close().await?;
    Ok(())
}
