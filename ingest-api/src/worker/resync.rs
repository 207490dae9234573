//! Resyncs: a movement or entry with delta 0, a new version and the full post-state, which is the one record that may
//! jump versions. Written when a processor asks because it saw a gap, and for every entity when an epoch begins
//! ([`super::epoch`]).

use chrono::{DateTime, Utc};
use runtime::consumer::{Batch, Failure, Handler, Reject};
use runtime::pg::{PgTx, Writer};
use schemas::codec::{Codec, DecodeError};
use schemas::events::{LoyaltyPosted, ResyncRequested, StockMoved};
use schemas::ids::{AccountId, COMPANY_STREAM, CustomerId, LocationId, ProgramId, UserId, VariantId};
use schemas::time::{Day, Timestamp};
use sqlx::Row;
use uuid::Uuid;

use crate::business_day;
use crate::db::outbox::{self, Act};
use crate::error::ApiError;

/// Entities of one act; more go into further acts, so that no outbox row becomes huge.
pub(super) const AT_ONCE: usize = 500;
pub(super) const CAUSE: &str = "resync";

/// Answers requests from the topic of resync requests.
pub struct Resync {
    writer: Writer,
    codec: Codec,
}

impl Resync {
    pub fn new(writer: Writer, codec: Codec) -> Self {
        Resync { writer, codec }
    }

    async fn answer(&self, request: &ResyncRequested) -> Result<(), ApiError> {
        match parse(request) {
            Some(Entity::Stock(location, variant)) => {
                stock(&self.writer, location, vec![variant], Some((request.seen_epoch, request.seen_version))).await
            }
            Some(Entity::Account(account)) => {
                accounts(&self.writer, vec![account], Some((request.seen_epoch, request.seen_version))).await
            }
            None => Ok(()),
        }
    }
}

enum Entity {
    Stock(LocationId, VariantId),
    Account(AccountId),
}

fn parse(request: &ResyncRequested) -> Option<Entity> {
    match request.entity_kind.as_str() {
        "stock" => {
            let (location, variant) = request.entity.split_once(':')?;
            Some(Entity::Stock(location.parse().ok()?, variant.parse().ok()?))
        }
        "loyalty" => Some(Entity::Account(request.entity.parse().ok()?)),
        _ => None,
    }
}

impl Handler for Resync {
    async fn handle(&mut self, batch: &Batch) -> Result<Vec<Reject>, Failure> {
        let mut rejects = Vec::new();
        for (index, record) in batch.records.iter().enumerate() {
            let mut reject = |code, error: String| rejects.push(Reject { index, code, error, own_schema: false });
            let Some(payload) = &record.payload else {
                reject("malformed", "a request has a body".to_owned());
                continue;
            };
            let request: ResyncRequested = match self.codec.decode(payload).await {
                Ok(request) => request,
                Err(error @ DecodeError::Unavailable(_)) => return Err(Failure::retry(error)),
                Err(error) => {
                    reject(error.code(), error.to_string());
                    continue;
                }
            };
            if parse(&request).is_none() {
                reject("unknown_entity", format!("{} {}", request.entity_kind, request.entity));
                continue;
            }
            self.answer(&request)
                .await
                .map_err(|error| Failure::retry(anyhow::anyhow!("resync of {}: {error}", request.entity)))?;
            tracing::info!(entity = request.entity, group = request.consumer_group, "resynced");
        }
        Ok(rejects)
    }
}

/// Writes a resync for stock levels of one location, in acts of [`AT_ONCE`]. With `after` (epoch and version a
/// reader saw) a level that was resynced since is left alone.
pub async fn stock(
    writer: &Writer,
    location: LocationId,
    variants: Vec<VariantId>,
    after: Option<(i64, i64)>,
) -> Result<(), ApiError> {
    for some in variants.chunks(AT_ONCE) {
        let input = (location, some.to_vec(), after);
        writer
            .write(input, |tx, (location, variants, after)| Box::pin(stock_act(tx, *location, variants, *after)))
            .await?;
    }
    Ok(())
}

pub(super) async fn stock_act(
    tx: &mut PgTx,
    location: LocationId,
    variants: &[VariantId],
    after: Option<(i64, i64)>,
) -> Result<(), ApiError> {
    // An act is of a location; a system location's stock is locked with the location that it belongs to.
    let parent: Option<Uuid> =
        sqlx::query_scalar("select parent_location_id from system_locations where location_id = $1")
            .bind(location.0)
            .fetch_optional(&mut **tx)
            .await?;
    let shop = parent.unwrap_or(location.0);
    // The location first, then its stock rows in order of key, like every other act.
    sqlx::query("select 1 from streams where stream_id = $1 for no key update")
        .bind(shop)
        .fetch_optional(&mut **tx)
        .await?;
    let ids: Vec<Uuid> = variants.iter().map(|variant| variant.0).collect();
    let epoch = outbox::epoch(tx).await?;
    let (after_epoch, after_version) = after.unwrap_or((epoch, i64::MAX));
    let due: Vec<Uuid> = sqlx::query_scalar(
        "select variant_id from stock_levels l
          where location_id = $1 and variant_id = any($2) and version > 0
            and not exists (select 1 from stock_movements m where m.location_id = l.location_id and m.variant_id = l.variant_id
                              and m.resync and (m.epoch, m.version) > ($3, $4))
          order by variant_id for no key update",
    )
    .bind(location.0)
    .bind(&ids)
    .bind(after_epoch)
    .bind(after_version)
    .fetch_all(&mut **tx)
    .await?;
    if due.is_empty() {
        return Ok(());
    }
    let seq = outbox::lock_stream(tx, shop).await?;
    let place = sqlx::query("select time_zone, day_cutoff from locations where location_id = $1")
        .bind(shop)
        .fetch_one(&mut **tx)
        .await?;
    let (act_id, now) = (Uuid::now_v7(), Utc::now());
    let today = business_date(place.get(0), place.get(1), now);
    sqlx::query(
        "insert into stock_acts (act_id, epoch, location_id, location_seq, kind, reason, actor, effective_at, recorded_at, line_count)
         values ($1, $2, $3, $4, 'resync', 'resync', $5, $6, $6, $7)",
    )
    .bind(act_id)
    .bind(epoch)
    .bind(shop)
    .bind(seq)
    .bind(Uuid::nil())
    .bind(now)
    .bind(i32::try_from(due.len()).unwrap_or(i32::MAX))
    .execute(&mut **tx)
    .await?;
    let moved = sqlx::query(
        "with l as (update stock_levels set version = version + 1 where location_id = $1 and variant_id = any($2)
                    returning variant_id, version, qty, threshold, hysteresis),
              n as (select l.*, (row_number() over (order by variant_id))::int line from l)
         insert into stock_movements (location_id, variant_id, version, epoch, location_seq, delta, qty_after, cause_type,
                cause_id, cause_line, reason, actor, effective_at, recorded_at, resync, threshold, hysteresis,
                parent_location_id)
         select $1, variant_id, version, $3, $4, 0, qty, $5, $6, line, 'resync', $7, $8, $8, true, threshold, hysteresis, $9
         from n
         returning variant_id, version, qty_after, cause_line, threshold, hysteresis",
    )
    .bind(location.0)
    .bind(&due)
    .bind(epoch)
    .bind(seq)
    .bind(CAUSE)
    .bind(act_id)
    .bind(Uuid::nil())
    .bind(now)
    .bind(parent)
    .fetch_all(&mut **tx)
    .await?;
    let mut act = Act::new(shop, seq, CAUSE, act_id, "");
    for row in &moved {
        act.push(&StockMoved {
            epoch,
            location_id: location,
            parent_location_id: parent.map(LocationId),
            location_seq: seq,
            variant_id: VariantId(row.get(0)),
            version: row.get(1),
            delta: 0,
            qty_after: row.get(2),
            cause_type: CAUSE.to_owned(),
            cause_id: act_id,
            cause_line: row.get(3),
            transfer_id: None,
            reason: "resync".to_owned(),
            document_uri: None,
            actor: UserId::NIL,
            approval_id: None,
            effective_at: Timestamp::from(now),
            recorded_at: Timestamp::from(now),
            business_date: today,
            neutral: false,
            threshold: row.get(4),
            hysteresis: row.get(5),
            resync: true,
            unit_cost: None,
        });
    }
    outbox::append(tx, &act, epoch, now).await?;
    Ok(())
}

fn business_date(zone: String, cutoff: chrono::NaiveTime, at: DateTime<Utc>) -> Day {
    match zone.parse::<chrono_tz::Tz>() {
        Ok(zone) => Day::from(business_day::business_moment(at, zone, cutoff).date),
        Err(_) => Day::from(at.date_naive()),
    }
}

/// The same for loyalty accounts, as acts of the company.
pub async fn accounts(writer: &Writer, accounts: Vec<AccountId>, after: Option<(i64, i64)>) -> Result<(), ApiError> {
    for some in accounts.chunks(AT_ONCE) {
        let input = (some.to_vec(), after);
        writer.write(input, |tx, (accounts, after)| Box::pin(account_act(tx, accounts, *after))).await?;
    }
    Ok(())
}

pub(super) async fn account_act(
    tx: &mut PgTx,
    accounts: &[AccountId],
    after: Option<(i64, i64)>,
) -> Result<(), ApiError> {
    sqlx::query("select 1 from streams where stream_id = $1 for no key update")
        .bind(COMPANY_STREAM.0)
        .fetch_optional(&mut **tx)
        .await?;
    let ids: Vec<Uuid> = accounts.iter().map(|account| account.0).collect();
    let epoch = outbox::epoch(tx).await?;
    let (after_epoch, after_version) = after.unwrap_or((epoch, i64::MAX));
    let due: Vec<Uuid> = sqlx::query_scalar(
        "select account_id from loyalty_accounts a
          where account_id = any($1) and version > 0
            and not exists (select 1 from loyalty_entries e where e.account_id = a.account_id and e.kind = 'resync'
                              and (e.epoch, e.version) > ($2, $3))
          order by account_id for no key update",
    )
    .bind(&ids)
    .bind(after_epoch)
    .bind(after_version)
    .fetch_all(&mut **tx)
    .await?;
    if due.is_empty() {
        return Ok(());
    }
    let seq = outbox::lock_stream(tx, COMPANY_STREAM.0).await?;
    let now = Utc::now();
    let posted = sqlx::query(
        "with a as (update loyalty_accounts set version = version + 1 where account_id = any($1)
                    returning account_id, customer_id, program_id, version, points)
         insert into loyalty_entries (account_id, version, epoch, location_seq, program_id, kind, delta, points_after, lots,
                cause_type, cause_id, actor, effective_at, recorded_at)
         select account_id, version, $2, $3, program_id, 'resync', 0, points, '[]', $4, gen_random_uuid(), $5, $6, $6 from a
         returning account_id, version, program_id, points_after, cause_id,
                   (select customer_id from loyalty_accounts c where c.account_id = loyalty_entries.account_id)",
    )
    .bind(&due)
    .bind(epoch)
    .bind(seq)
    .bind(CAUSE)
    .bind(Uuid::nil())
    .bind(now)
    .fetch_all(&mut **tx)
    .await?;
    let mut act = Act::new(COMPANY_STREAM.0, seq, CAUSE, Uuid::now_v7(), "");
    for row in &posted {
        act.push(&LoyaltyPosted {
            epoch,
            account_id: AccountId(row.get(0)),
            customer_id: CustomerId(row.get(5)),
            program_id: ProgramId(row.get(2)),
            location_id: None,
            location_seq: seq,
            kind: "resync".to_owned(),
            version: row.get(1),
            delta: 0,
            points_after: row.get(3),
            tier_multiplier: "1".to_owned(),
            lots: Vec::new(),
            cause_type: CAUSE.to_owned(),
            cause_id: row.get(4),
            cause_line: 0,
            actor: UserId::NIL,
            approval_id: None,
            effective_at: Timestamp::from(now),
            recorded_at: Timestamp::from(now),
            resync: true,
        });
    }
    outbox::append(tx, &act, epoch, now).await?;
    Ok(())
}
