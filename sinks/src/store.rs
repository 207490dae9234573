//! The ClickHouse client: one insert per table, time limits, and what its errors mean.
//!
//! Inserts are idempotent by identity, so every failure may simply be tried again, whatever had arrived.

use std::time::Duration;

use clickhouse::{Client, RowOwned, RowWrite};
use secrecy::ExposeSecret;

use crate::rows::Rows;

/// Longest an insert or a mart query may take.
pub const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// What a failure calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Not there, restarting, out of disk, rights missing: wait and try again.
    Unavailable,
    /// It says "not so fast" (too many parts, queries or bytes): slow down, then try again.
    Saturated,
    /// It refuses the values: find the record that carries them.
    Data,
    /// Table or column missing: `sinks migrate` has not run.
    Schema,
}

/// A failed statement.
#[derive(Debug, thiserror::Error)]
#[error("clickhouse: {source}")]
pub struct StoreError {
    pub class: Class,
    #[source]
    source: clickhouse::error::Error,
}

impl From<clickhouse::error::Error> for StoreError {
    fn from(source: clickhouse::error::Error) -> Self {
        StoreError { class: classify(&source), source }
    }
}

/// ClickHouse, as one user.
#[derive(Clone)]
pub struct Store {
    client: Client,
}

impl Store {
    /// A client for the HTTP interface at `url`. Nothing is connected yet.
    pub fn new(url: &str, user: &str, password: &str) -> Self {
        let client = Client::default()
            .with_url(url)
            .with_user(user)
            .with_password(password)
            .with_product_info("vorca-sinks", env!("CARGO_PKG_VERSION"));
        Store { client }
    }

    /// The client for a configured server and user.
    pub fn of(config: &runtime::config::ClickHouse) -> Self {
        Self::new(&config.url, &config.user, config.password.expose_secret())
    }

    /// The client for reading.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs one statement that returns nothing.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        let run = self.client.query_raw(sql).execute();
        within(run).await
    }

    /// Reads all rows of a query.
    pub async fn fetch<T: RowOwned + clickhouse::RowRead>(&self, sql: &str) -> Result<Vec<T>, StoreError> {
        within(self.client.query_raw(sql).fetch_all::<T>()).await
    }

    /// Writes the rows, one insert per table, a document after what it consists of.
    pub async fn insert(&self, rows: &Rows) -> Result<(), StoreError> {
        self.insert_into("lines", &rows.lines).await?;
        self.insert_into("tenders", &rows.tenders).await?;
        self.insert_into("documents", &rows.documents).await?;
        self.insert_into("movements", &rows.movements).await?;
        self.insert_into("loyalty_entries", &rows.loyalty_entries).await?;
        self.insert_into("alerts", &rows.alerts).await?;
        self.insert_into("dim_variants", &rows.dim_variants).await?;
        self.insert_into("dim_locations", &rows.dim_locations).await?;
        self.insert_into("dim_cashiers", &rows.dim_cashiers).await?;
        self.insert_into("audit_heads", &rows.audit_heads).await?;
        self.insert_into("audit_roots", &rows.audit_roots).await
    }

    async fn insert_into<T: RowOwned + RowWrite>(&self, table: &str, rows: &[T]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let written = self.write_all(table, rows).await;
        if written.as_ref().is_err_and(|error| error.class == Class::Schema) {
            self.client.clear_cached_metadata().await;
        }
        written
    }

    async fn write_all<T: RowOwned + RowWrite>(&self, table: &str, rows: &[T]) -> Result<(), StoreError> {
        let mut insert = self
            .client
            .insert_unescaped::<T>(&format!("vorca_raw.{table}"))
            .await?
            .with_timeouts(Some(STATEMENT_MAX), Some(STATEMENT_MAX))
            .with_setting("async_insert", "0")
            // A history may touch many months in one batch.
            .with_setting("max_partitions_per_insert_block", "0");
        for row in rows {
            insert.write(row).await?;
        }
        Ok(insert.end().await?)
    }
}

async fn within<T>(work: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_MAX, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(clickhouse::error::Error::TimedOut.into()),
    }
}

fn classify(error: &clickhouse::error::Error) -> Class {
    use clickhouse::error::Error;
    match error {
        Error::BadResponse(body) => exception_code(body).map_or(Class::Unavailable, class_of),
        Error::SchemaMismatch(_) => Class::Schema,
        Error::SequenceMustHaveLength | Error::Custom(_) | Error::InvalidUtf8Encoding(_) => Class::Data,
        _ => Class::Unavailable,
    }
}

/// The number in `Code: 252. DB::Exception: ...`.
fn exception_code(body: &str) -> Option<u32> {
    let digits = body.split_once("Code: ")?.1;
    digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

fn class_of(code: u32) -> Class {
    match code {
        // Too many parts, queries; memory; time.
        252 | 202 | 241 | 159 | 160 => Class::Saturated,
        // Values: cannot parse or read, wrong type, out of bound, too large, incorrect, overflow, constraint.
        6 | 26 | 27 | 33 | 38 | 41 | 53 | 69 | 70 | 72 | 117 | 128 | 131 | 321 | 407 | 469 => Class::Data,
        // Missing column, table, database.
        16 | 60 | 81 => Class::Schema,
        _ => Class::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clickhouse::error::Error;

    fn class(body: &str) -> Class {
        classify(&Error::BadResponse(body.to_owned()))
    }

    #[test]
    fn the_body_of_an_error_decides_not_its_status() {
        assert_eq!(class("Code: 252. DB::Exception: Too many parts (3001)"), Class::Saturated);
        assert_eq!(class("Code: 117. DB::Exception: bad data"), Class::Data);
        assert_eq!(class("Code: 60. DB::Exception: Table vorca_raw.lines does not exist"), Class::Schema);
        assert_eq!(class("Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space"), Class::Unavailable);
        assert_eq!(class("Code: 516. DB::Exception: Authentication failed"), Class::Unavailable);
        assert_eq!(class("502 Bad Gateway"), Class::Unavailable);
        assert_eq!(classify(&Error::TimedOut), Class::Unavailable);
    }

    #[test]
    fn an_outage_is_never_blamed_on_the_data() {
        for error in [Error::TimedOut, Error::Network("reset".into()), Error::BadResponse(String::new())] {
            assert_ne!(classify(&error), Class::Data);
        }
    }
}
