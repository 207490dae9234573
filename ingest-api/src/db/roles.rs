//! Roles of the company's own, and what grants make of them.

use std::collections::HashMap;

use runtime::pg::PgTx;
use serde::Deserialize;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::access::{Granted, RoleName};
use crate::db::limits::json_text;
use crate::limits::Rule;

/// A role of the company's own as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OwnRole {
    pub role_id: Uuid,
    pub name: String,
    #[serde(deserialize_with = "crate::limits::known")]
    pub rules: Vec<Rule>,
    pub version: i64,
}

impl OwnRole {
    pub fn granted(&self) -> Granted {
        Granted::Own { name: self.name.as_str().into(), rules: self.rules.as_slice().into() }
    }
}

/// What a grant of this role gives; nothing for a role that is not there.
pub fn granted(name: RoleName, own: &HashMap<Uuid, OwnRole>) -> Option<Granted> {
    match name {
        RoleName::BuiltIn(role) => Some(Granted::BuiltIn(role)),
        RoleName::Own(role_id) => own.get(&role_id).map(OwnRole::granted),
    }
}

fn role((role_id, name, rules, version): (Uuid, String, String, i64)) -> Result<OwnRole, sqlx::Error> {
    Ok(OwnRole { role_id, name, rules: rules_of(&rules)?, version })
}

/// The rules that a text out of `roles.rules` holds.
pub fn rules_of(text: &str) -> Result<Vec<Rule>, sqlx::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    crate::limits::known(&mut reader).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// These roles, or all of them by name.
pub async fn list(executor: impl PgExecutor<'_>, ids: Option<&[Uuid]>) -> Result<Vec<OwnRole>, sqlx::Error> {
    let rows: Vec<(Uuid, String, String, i64)> = sqlx::query_as(
        "select role_id, name, rules::text, version from roles where $1::uuid[] is null or role_id = any($1)
         order by name, role_id",
    )
    .bind(ids)
    .fetch_all(executor)
    .await?;
    rows.into_iter().map(role).collect()
}

/// Locked until the transaction ends.
pub async fn lock(tx: &mut PgTx, role_id: Uuid) -> Result<Option<OwnRole>, sqlx::Error> {
    let row: Option<(Uuid, String, String, i64)> =
        sqlx::query_as("select role_id, name, rules::text, version from roles where role_id = $1 for no key update")
            .bind(role_id)
            .fetch_optional(&mut **tx)
            .await?;
    row.map(role).transpose()
}

/// Stores it, in place of what was there.
pub async fn save(tx: &mut PgTx, role: &OwnRole, needs_second_factor: bool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into roles (role_id, name, rules, needs_second_factor, version) values ($1, $2, $3::jsonb, $4, $5)
         on conflict (role_id) do update set name = excluded.name, rules = excluded.rules,
             needs_second_factor = excluded.needs_second_factor, version = excluded.version",
    )
    .bind(role.role_id)
    .bind(&role.name)
    .bind(json_text(&role.rules)?)
    .bind(needs_second_factor)
    .bind(role.version)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Users who are granted the role anywhere, in the order in which they are locked.
pub async fn holders(conn: &mut PgConnection, role_id: Uuid) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("select distinct user_id from grants where role_id = $1 order by user_id")
        .bind(role_id)
        .fetch_all(conn)
        .await
}

/// Other users see their holders in another way now.
pub async fn raise_versions(tx: &mut PgTx, users: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query("update users set version = version + 1 where user_id = any($1)")
        .bind(users)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Roles whose holders may sell.
pub async fn selling(conn: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(r#"select role_id from roles where rules @> '[{"permission": "sell", "mode": "allow"}]'"#)
        .fetch_all(conn)
        .await
}
