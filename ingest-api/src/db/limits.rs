//! The ledger of acts that limits are about, what was done of them, and approvals that were spent.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use runtime::pg::PgTx;
use schemas::ids::LocationId;
use serde::Deserialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::access::{Granted, Permission, Principal, RoleName};
use crate::approvals::{Approval, Settled};
use crate::business_day::business_moment;
use crate::db::roles::{self, OwnRole};
use crate::error::ApiError;
use crate::limits::{ActLimits, Limits, VERSION};

/// Person, location, business day and act: what is counted together.
pub type Counted = (Uuid, LocationId, NaiveDate, Permission);

/// What a batch or an act has to know before it is judged.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Roles of the company's own.
    pub own_roles: Vec<Uuid>,
    /// People whose roles are looked up here: who approved, and who holds roles of the company's own.
    pub people: Vec<Uuid>,
    pub counted: Vec<Counted>,
    pub approvals: Vec<Uuid>,
}

impl Wanted {
    pub fn is_empty(&self) -> bool {
        self.own_roles.is_empty() && self.people.is_empty() && self.counted.is_empty() && self.approvals.is_empty()
    }
}

/// What is so, in the snapshot of one statement.
#[derive(Debug, Default)]
pub struct Found {
    pub own_roles: HashMap<Uuid, OwnRole>,
    /// Grants of the people who are active.
    pub people: HashMap<Uuid, Vec<(RoleName, Option<LocationId>)>>,
    pub used: HashMap<Counted, i64>,
    pub spent: Vec<Uuid>,
}

impl Found {
    /// What a person is granted at a location; nothing for who is not active.
    pub fn granted(&self, user_id: Uuid, location: LocationId) -> Vec<Granted> {
        let grants = self.people.get(&user_id).map_or(&[][..], Vec::as_slice);
        let here = grants.iter().filter(|(_, at)| at.is_none_or(|at| at == location));
        here.filter_map(|(name, _)| roles::granted(*name, &self.own_roles)).collect()
    }
}

#[derive(Deserialize)]
struct Person {
    user_id: Uuid,
    grants: Vec<PersonGrant>,
}

#[derive(Deserialize)]
struct PersonGrant {
    role: RoleName,
    location_id: Option<Uuid>,
}

const READ: &str = include_str!("limits.sql");

/// One statement, in the caller's transaction and under its lock of the location: nobody else counts meanwhile.
pub async fn read(conn: &mut PgConnection, wanted: &Wanted) -> Result<Found, sqlx::Error> {
    if wanted.is_empty() {
        return Ok(Found::default());
    }
    let row: (String, String, Option<Vec<i64>>, Option<Vec<Uuid>>) = sqlx::query_as(READ)
        .bind(&wanted.own_roles)
        .bind(&wanted.people)
        .bind(wanted.counted.iter().map(|it| it.0).collect::<Vec<_>>())
        .bind(wanted.counted.iter().map(|it| it.1.0).collect::<Vec<_>>())
        .bind(wanted.counted.iter().map(|it| it.2).collect::<Vec<_>>())
        .bind(wanted.counted.iter().map(|it| it.3.name()).collect::<Vec<_>>())
        .bind(&wanted.approvals)
        .fetch_one(conn)
        .await?;
    let (own_roles, people, used, spent) = row;
    let own_roles: Vec<OwnRole> = from_json(&own_roles)?;
    let people: Vec<Person> = from_json(&people)?;
    let grants = |person: Person| {
        let grants = person.grants.into_iter().map(|it| (it.role, it.location_id.map(LocationId)));
        (person.user_id, grants.collect())
    };
    Ok(Found {
        own_roles: own_roles.into_iter().map(|role| (role.role_id, role)).collect(),
        people: people.into_iter().map(grants).collect(),
        used: wanted.counted.iter().copied().zip(used.unwrap_or_default()).collect(),
        spent: spent.unwrap_or_default(),
    })
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// JSON of something that is numbers and codes.
pub fn json_text(value: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// What a user may do at a location, with what they have done there today: the snapshot of a lease.
pub async fn of(
    tx: &mut PgTx,
    principal: &Principal,
    location: LocationId,
    now: DateTime<Utc>,
) -> Result<Limits, ApiError> {
    let place = super::inventory::place(tx, location.0).await?.ok_or_else(|| ApiError::not_found("location"))?;
    let business_date = business_moment(now, place.zone()?, place.day_cutoff).date;
    let counted =
        Permission::ACTS.iter().map(|(act, _)| (principal.actor().0, location, business_date, *act)).collect();
    let wanted = Wanted { counted, ..Wanted::default() };
    let found = read(tx, &wanted).await?;
    let acts = wanted.counted.iter().map(|key| ActLimits {
        act: key.3,
        rules: principal.rules(key.3, location),
        used: found.used.get(key).copied().unwrap_or_default(),
    });
    Ok(Limits { version: VERSION, business_date, acts: acts.collect() })
}

/// The acts of one document or stock act, settled.
pub struct Done<'a> {
    pub cause_type: &'static str,
    pub cause_id: Uuid,
    pub location: LocationId,
    pub user_id: Uuid,
    pub business_date: NaiveDate,
    pub digest: &'a [u8; 32],
    pub acts: &'a [Settled],
    /// The approval that one of them needed.
    pub approval: Option<&'a Approval>,
}

const INSERT: &str = "
    with acts as (
        insert into limited_acts (cause_id, act, cause_type, epoch, location_id, user_id, business_date, ordinal, currency,
                                  amount_minor, share_ppm, verdict, rules, approval_id, recorded_at)
        select cause_id, act, cause_type, $1, location_id, user_id, business_date, ordinal, currency, amount, share, verdict,
               rules::jsonb, approval_id, $2
        from unnest($3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::date[], $9::bigint[], $10::text[],
                    $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::uuid[])
             as a (cause_id, act, cause_type, location_id, user_id, business_date, ordinal, currency, amount, share,
                   verdict, rules, approval_id)
    )
    insert into approvals (approval_id, epoch, location_id, requester, approver, digest, cause_type, cause_id, issued_at,
                           spent_at)
    select approval_id, $1, location_id, requester, approver, digest, cause_type, cause_id, issued_at, $2
    from unnest($16::uuid[], $17::uuid[], $18::uuid[], $19::uuid[], $20::bytea[], $21::text[], $22::uuid[],
                $23::timestamptz[])
         as p (approval_id, location_id, requester, approver, digest, cause_type, cause_id, issued_at)";

/// Writes the acts of a whole batch, and spends their approvals, in one statement.
pub async fn insert(
    conn: &mut PgConnection,
    (epoch, recorded_at): (i64, DateTime<Utc>),
    done: &[Done<'_>],
) -> Result<(), sqlx::Error> {
    let acts: Vec<(&Done<'_>, &Settled)> =
        done.iter().flat_map(|it| it.acts.iter().map(move |act| (it, act))).collect();
    if acts.is_empty() {
        return Ok(());
    }
    let rules = acts.iter().map(|(_, act)| json_text(&act.asked.rules)).collect::<Result<Vec<_>, _>>()?;
    let approval_of = |done: &Done<'_>, act: &Settled| {
        let is_approved = act.standing == crate::approvals::Standing::Approved;
        done.approval.filter(|_| is_approved).map(|approval| approval.jti)
    };
    let spent: Vec<(&Done<'_>, &Approval)> = done.iter().filter_map(|it| Some((it, it.approval?))).collect();
    let issued_at = |approval: &Approval| DateTime::from_timestamp(approval.iat, 0).unwrap_or_default();
    sqlx::query(INSERT)
        .bind(epoch)
        .bind(recorded_at)
        .bind(acts.iter().map(|(done, _)| done.cause_id).collect::<Vec<_>>())
        .bind(acts.iter().map(|(_, act)| act.asked.act.name()).collect::<Vec<_>>())
        .bind(acts.iter().map(|(done, _)| done.cause_type).collect::<Vec<_>>())
        .bind(acts.iter().map(|(done, _)| done.location.0).collect::<Vec<_>>())
        .bind(acts.iter().map(|(done, _)| done.user_id).collect::<Vec<_>>())
        .bind(acts.iter().map(|(done, _)| done.business_date).collect::<Vec<_>>())
        .bind(acts.iter().map(|(_, act)| act.ordinal()).collect::<Vec<_>>())
        .bind(acts.iter().map(|(_, act)| act.asked.extent.currency.as_str()).collect::<Vec<_>>())
        .bind(acts.iter().map(|(_, act)| act.asked.extent.amount_minor).collect::<Vec<_>>())
        .bind(acts.iter().map(|(_, act)| act.asked.extent.share_ppm).collect::<Vec<_>>())
        .bind(acts.iter().map(|(_, act)| act.standing.as_str()).collect::<Vec<_>>())
        .bind(rules)
        .bind(acts.iter().map(|(done, act)| approval_of(done, act)).collect::<Vec<_>>())
        .bind(spent.iter().map(|(_, approval)| approval.jti).collect::<Vec<_>>())
        .bind(spent.iter().map(|(done, _)| done.location.0).collect::<Vec<_>>())
        .bind(spent.iter().map(|(_, approval)| approval.sub).collect::<Vec<_>>())
        .bind(spent.iter().map(|(_, approval)| approval.approver).collect::<Vec<_>>())
        .bind(spent.iter().map(|(done, _)| &done.digest[..]).collect::<Vec<_>>())
        .bind(spent.iter().map(|(done, _)| done.cause_type).collect::<Vec<_>>())
        .bind(spent.iter().map(|(done, _)| done.cause_id).collect::<Vec<_>>())
        .bind(spent.iter().map(|(_, approval)| issued_at(approval)).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}
