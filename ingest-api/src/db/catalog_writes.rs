//! The frame of every catalog write: the locked counter, the rows of the catalog feed, the outbox row.
//!
//! The counter row is locked first and holds until commit, so versions appear in order: a reader of the
//! feed that has seen V can never miss a smaller one. Each change takes a version of its own, so a page
//! of the feed may end anywhere.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use schemas::codec::Record;
use schemas::ids::COMPANY_STREAM;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::context::Context;
use crate::db::outbox::{self, Act};
use crate::error::ApiError;

/// What a change is about; the words of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Product,
    Variant,
    Price,
    TaxProfile,
    Location,
    Cashier,
    Promotion,
    LoyaltyProgram,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Product => "product",
            Kind::Variant => "variant",
            Kind::Price => "price",
            Kind::TaxProfile => "tax_profile",
            Kind::Location => "location",
            Kind::Cashier => "cashier",
            Kind::Promotion => "promotion",
            Kind::LoyaltyProgram => "loyalty_program",
        }
    }
}

struct Change {
    kind: Kind,
    object_id: Uuid,
    object_version: i64,
    concerns: Option<Concerned>,
    body: Value,
}

/// Locations whose readers of the feed are told of a change.
pub type Concerned = Vec<Uuid>;

/// One catalog write in progress: holds the lock on the counter.
pub struct CatalogWrite {
    pub epoch: i64,
    pub at: DateTime<Utc>,
    base: i64,
    changes: Vec<Change>,
    act: Act,
}

impl CatalogWrite {
    /// Locks the counter, then the company's stream: the epoch read under it is still the present one when the write
    /// appends to the outbox. The first statements of a catalog write that read anything.
    pub async fn begin(tx: &mut PgTx) -> Result<Self, sqlx::Error> {
        let base =
            sqlx::query_scalar("select version from catalog_counter for no key update").fetch_one(&mut **tx).await?;
        sqlx::query("select from streams where stream_id = $1 for no key update")
            .bind(COMPANY_STREAM.0)
            .execute(&mut **tx)
            .await?;
        let epoch = outbox::epoch(tx).await?;
        let act = Act::new(COMPANY_STREAM.0, 0, "catalog", Uuid::nil(), "");
        Ok(CatalogWrite { epoch, at: Utc::now(), base, changes: Vec::new(), act })
    }

    /// The version that the next change will take.
    pub fn next_version(&self) -> i64 {
        self.base + self.changes.len() as i64 + 1
    }

    /// Notes the new state of an object, for all readers of the feed or for those of some locations; returns the
    /// catalog version of the change.
    pub fn change(
        &mut self,
        kind: Kind,
        (object_id, object_version): (Uuid, i64),
        concerns: Option<Concerned>,
        body: &impl Serialize,
    ) -> Result<i64, ApiError> {
        let version = self.next_version();
        let body = serde_json::to_value(body).map_err(ApiError::internal)?;
        self.changes.push(Change { kind, object_id, object_version, concerns, body });
        Ok(version)
    }

    /// Notes a record for the compacted topic.
    pub fn publish<E: Record>(&mut self, event: &E) {
        self.act.push(event);
    }

    /// Writes feed, counter and outbox row; returns the catalog version now in force.
    pub async fn finish(self, tx: &mut PgTx, context: &Context, cause_id: Uuid) -> Result<i64, sqlx::Error> {
        let CatalogWrite { epoch, at, base, changes, mut act } = self;
        let version = base + changes.len() as i64;
        if changes.is_empty() {
            return Ok(version);
        }
        insert_changes(tx, base, at, changes).await?;
        sqlx::query("update catalog_counter set version = $1").bind(version).execute(&mut **tx).await?;
        if !act.topics.is_empty() {
            act.seq = outbox::lock_stream(tx, act.stream_id).await?;
            act.cause_id = cause_id;
            act.trace_parent.clone_from(&context.trace_parent);
            outbox::append(tx, &act, epoch, at).await?;
        }
        Ok(version)
    }
}

async fn insert_changes(tx: &mut PgTx, base: i64, at: DateTime<Utc>, changes: Vec<Change>) -> Result<(), sqlx::Error> {
    let versions: Vec<i64> = (1..=changes.len() as i64).map(|ordinal| base + ordinal).collect();
    sqlx::query(
        "insert into catalog_changes (catalog_version, kind, object_id, object_version, concerns, body, recorded_at)
         select version, kind, object_id, object_version, concerns::uuid[], body::jsonb, $7
         from unnest($1::bigint[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::text[])
              as row (version, kind, object_id, object_version, concerns, body)",
    )
    .bind(versions)
    .bind(changes.iter().map(|change| change.kind.as_str()).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.object_id).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.object_version).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.concerns.as_deref().map(array)).collect::<Vec<_>>())
    .bind(changes.iter().map(|change| change.body.to_string()).collect::<Vec<_>>())
    .bind(at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// An array as Postgres writes it: arrays of arrays cannot be unnested row by row.
fn array(ids: &[Uuid]) -> String {
    format!("{{{}}}", ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(","))
}
