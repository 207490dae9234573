//! A new epoch after a restore of the database (D15): every entity opens it with its full state.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use runtime::pg::{PgTx, Writer};
use schemas::codec::Record;
use schemas::events::{Cashier, Location, Variant};
use schemas::ids::{AccountId, COMPANY_STREAM, LocationId, VariantId};
use sqlx::Row;
use uuid::Uuid;

use super::resync::{AT_ONCE, CAUSE, account_act, stock_act};
use crate::audit::{self, Entry};
use crate::context::Context;
use crate::db::outbox::{self, Act};
use crate::error::ApiError;

/// What a new epoch began with.
#[derive(Debug, serde::Serialize)]
pub struct Raised {
    pub epoch: i64,
    /// Each location, and all zero for acts of the company, with the last number of the time line that was kept: what
    /// `sinks withdraw` reads. A location that is not here was given up as a whole.
    pub kept: Vec<(Uuid, i64)>,
    pub stock_levels: usize,
    pub accounts: usize,
    /// Variants, locations and cashiers published again.
    pub catalog: usize,
}

/// Begins a new epoch after a restore: resyncs every stock level and account and publishes every catalog state into it,
/// so that no reader drops a version that the lost time line had used already. One transaction under the locks of the
/// catalog and of every stream: no act can come between the epoch and the resyncs, so each entity's first event in it is
/// its resync. Acts wait or are refused meanwhile.
pub async fn raise_epoch(writer: &Writer, reason: &str) -> Result<Raised, ApiError> {
    writer.write(reason.to_owned(), |tx, reason| Box::pin(open_epoch(tx, reason))).await
}

async fn open_epoch(tx: &mut PgTx, reason: &str) -> Result<Raised, ApiError> {
    sqlx::query("select from catalog_counter for no key update").execute(&mut **tx).await?;
    let kept: Vec<(Uuid, i64)> =
        sqlx::query_as("select stream_id, last_seq from streams order by stream_id for no key update")
            .fetch_all(&mut **tx)
            .await?;
    let epoch: i64 =
        sqlx::query_scalar("insert into epochs (epoch, reason) select max(epoch) + 1, $1 from epochs returning epoch")
            .bind(reason)
            .fetch_one(&mut **tx)
            .await?;
    sqlx::query("insert into epoch_cuts (epoch, stream_id, kept_seq) select $1, stream_id, last_seq from streams")
        .bind(epoch)
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "insert into audit_cuts (epoch, chain, kept_seq) select $1, chain, max(seq) from audit_seals group by chain",
    )
    .bind(epoch)
    .execute(&mut **tx)
    .await?;
    let act = Entry {
        location: None,
        actor: Uuid::nil(),
        role: String::new(),
        approver: None,
        action: "epoch.raise",
        target: format!("epoch/{epoch}"),
        before: None,
        after: None,
        reason,
        terminal: None,
        is_refused: false,
    };
    audit::record(tx, &Context::of_task("raise-epoch"), act).await?;
    let mut raised = Raised { epoch, kept, stock_levels: 0, accounts: 0, catalog: 0 };
    for (location, _) in &raised.kept {
        // Its own stock, and that of its system locations.
        let levels: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "select location_id, variant_id from stock_levels
              where version > 0 and (location_id = $1 or location_id in (
                    select location_id from system_locations where parent_location_id = $1))
              order by 1, 2",
        )
        .bind(location)
        .fetch_all(&mut **tx)
        .await?;
        raised.stock_levels += levels.len();
        for stock in levels.chunk_by(|a, b| a.0 == b.0) {
            let variants: Vec<VariantId> = stock.iter().map(|(_, variant)| VariantId(*variant)).collect();
            for some in variants.chunks(AT_ONCE) {
                stock_act(tx, LocationId(stock[0].0), some, None).await?;
            }
        }
    }
    let all: Vec<Uuid> = sqlx::query_scalar("select account_id from loyalty_accounts where version > 0 order by 1")
        .fetch_all(&mut **tx)
        .await?;
    raised.accounts = all.len();
    let all: Vec<AccountId> = all.into_iter().map(AccountId).collect();
    for some in all.chunks(AT_ONCE) {
        account_act(tx, some, None).await?;
    }
    let now = Utc::now();
    let variants = variants(tx, epoch, now).await?;
    raised.catalog += publish(tx, epoch, now, &variants).await?;
    let locations = locations(tx, epoch, now).await?;
    raised.catalog += publish(tx, epoch, now, &locations).await?;
    let cashiers = cashiers(tx, epoch, now).await?;
    raised.catalog += publish(tx, epoch, now, &cashiers).await?;
    Ok(raised)
}

/// Publishes states as acts of the company; how many there were.
pub(super) async fn publish<E: Record>(
    tx: &mut PgTx,
    epoch: i64,
    now: DateTime<Utc>,
    states: &[E],
) -> Result<usize, ApiError> {
    for some in states.chunks(AT_ONCE) {
        let seq = outbox::lock_stream(tx, COMPANY_STREAM.0).await?;
        let mut act = Act::new(COMPANY_STREAM.0, seq, CAUSE, Uuid::now_v7(), "");
        some.iter().for_each(|state| act.push(state));
        outbox::append(tx, &act, epoch, now).await?;
    }
    Ok(states.len())
}

async fn variants(tx: &mut PgTx, epoch: i64, now: DateTime<Utc>) -> Result<Vec<Variant>, sqlx::Error> {
    let rows = sqlx::query(
        "select v.variant_id, v.version, coalesce(c.version, 0), v.external_id, v.product_id, p.name, p.category, v.sku,
                v.name, v.barcodes, v.unit, v.is_measured, v.tracks_stock, v.tax_profile_id, v.is_active
           from variants v join products p using (product_id)
           left join (select object_id, max(catalog_version) as version from catalog_changes where kind = 'variant'
                       group by object_id) c on c.object_id = v.variant_id
          order by v.variant_id",
    )
    .fetch_all(&mut **tx)
    .await?;
    let state = |row: &sqlx::postgres::PgRow| Variant {
        epoch,
        variant_id: VariantId(row.get(0)),
        version: row.get(1),
        catalog_version: row.get(2),
        external_id: row.get(3),
        product_id: row.get::<Uuid, _>(4).into(),
        product_name: row.get(5),
        category: row.get(6),
        sku: row.get(7),
        name: row.get(8),
        barcodes: row.get(9),
        unit: row.get(10),
        is_measured: row.get(11),
        tracks_stock: row.get(12),
        tax_profile_id: row.get::<Uuid, _>(13).into(),
        is_active: row.get(14),
        recorded_at: now.into(),
    };
    Ok(rows.iter().map(state).collect())
}

async fn locations(tx: &mut PgTx, epoch: i64, now: DateTime<Utc>) -> Result<Vec<Location>, sqlx::Error> {
    let rows = sqlx::query(
        "select l.location_id, l.version, coalesce(c.version, 0), l.external_id, l.name, l.currency, l.time_zone,
                l.day_cutoff, l.opened_on, l.is_active
           from locations l
           left join (select object_id, max(catalog_version) as version from catalog_changes where kind = 'location'
                       group by object_id) c on c.object_id = l.location_id
          order by l.location_id",
    )
    .fetch_all(&mut **tx)
    .await?;
    let state = |row: &sqlx::postgres::PgRow| Location {
        epoch,
        location_id: LocationId(row.get(0)),
        version: row.get(1),
        catalog_version: row.get(2),
        external_id: row.get(3),
        name: row.get(4),
        currency: row.get(5),
        time_zone: row.get(6),
        day_cutoff: row.get::<NaiveTime, _>(7).format("%H:%M:%S").to_string(),
        opened_on: row.get::<NaiveDate, _>(8).into(),
        is_active: row.get(9),
        recorded_at: now.into(),
    };
    Ok(rows.iter().map(state).collect())
}

async fn cashiers(tx: &mut PgTx, epoch: i64, now: DateTime<Utc>) -> Result<Vec<Cashier>, sqlx::Error> {
    let rows = sqlx::query(
        "select u.user_id, u.version, coalesce(c.version, 0), u.code, u.is_active
           from users u
           left join (select object_id, max(catalog_version) as version from catalog_changes where kind = 'cashier'
                       group by object_id) c on c.object_id = u.user_id
          order by u.user_id",
    )
    .fetch_all(&mut **tx)
    .await?;
    let state = |row: &sqlx::postgres::PgRow| Cashier {
        epoch,
        cashier_id: row.get::<Uuid, _>(0).into(),
        version: row.get(1),
        catalog_version: row.get(2),
        code: row.get(3),
        is_active: row.get(4),
        recorded_at: now.into(),
    };
    Ok(rows.iter().map(state).collect())
}
