//! Users and grants.

use std::collections::HashMap;

use runtime::pg::PgTx;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::access::RoleName;
use crate::users::{User, UserEdit, UserGrant};

const COLUMNS: &str = "user_id, login, code, is_active, password_hash is not null, version";

type Head = (Uuid, String, String, bool, bool, i64);

pub async fn insert(
    tx: &mut PgTx,
    id: Uuid,
    (login, code): (&str, &str),
    password_hash: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query("insert into users (user_id, login, code, password_hash, version) values ($1, $2, $3, $4, 1)")
        .bind(id)
        .bind(login)
        .bind(code)
        .bind(password_hash)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

pub async fn update(tx: &mut PgTx, id: Uuid, edit: &UserEdit) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update users set code = coalesce($2, code), is_active = coalesce($3, is_active), version = version + 1
         where user_id = $1",
    )
    .bind(id)
    .bind(&edit.code)
    .bind(edit.is_active)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn replace_grants(tx: &mut PgTx, id: Uuid, grants: &[UserGrant]) -> Result<(), sqlx::Error> {
    sqlx::query("delete from grants where user_id = $1").bind(id).execute(&mut **tx).await?;
    sqlx::query("insert into grants (user_id, role, location_id) select $1, * from unnest($2::text[], $3::uuid[])")
        .bind(id)
        .bind(grants.iter().map(|grant| grant.role.to_string()).collect::<Vec<_>>())
        .bind(grants.iter().map(|grant| grant.location_id).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Whether an active owner of everything exists who can log in.
pub async fn has_owner(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from grants g join users u using (user_id)
                        where g.role = 'owner' and g.location_id is null and u.is_active
                          and u.password_hash is not null)",
    )
    .fetch_one(conn)
    .await
}

pub async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Option<User>, sqlx::Error> {
    let head: Option<Head> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("select {COLUMNS} from users where user_id = $1")))
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
    let Some(head) = head else { return Ok(None) };
    Ok(with_grants(conn, vec![head]).await?.pop())
}

/// Users with a grant in scope, in the order of their ids.
pub async fn list(
    conn: &mut PgConnection,
    scope: Option<Vec<Uuid>>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<User>, sqlx::Error> {
    let heads: Vec<Head> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from users u
         where ($1::uuid[] is null
                or exists (select from grants g where g.user_id = u.user_id and g.location_id = any($1)))
           and ($2::uuid is null or user_id > $2)
         order by user_id limit $3"
    )))
    .bind(scope)
    .bind(after)
    .bind(limit)
    .fetch_all(&mut *conn)
    .await?;
    with_grants(conn, heads).await
}

async fn with_grants(conn: &mut PgConnection, heads: Vec<Head>) -> Result<Vec<User>, sqlx::Error> {
    let rows: Vec<(Uuid, String, Option<Uuid>)> = sqlx::query_as(
        "select user_id, role, location_id from grants where user_id = any($1) order by user_id, role, location_id",
    )
    .bind(heads.iter().map(|head| head.0).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let mut grants: HashMap<Uuid, Vec<UserGrant>> = HashMap::new();
    for (user_id, role, location_id) in rows {
        if let Some(role) = RoleName::parse(&role) {
            grants.entry(user_id).or_default().push(UserGrant { role, location_id });
        }
    }
    Ok(heads
        .into_iter()
        .map(|(user_id, login, code, is_active, has_password, version)| User {
            user_id,
            login,
            code,
            is_active,
            has_password,
            grants: grants.remove(&user_id).unwrap_or_default(),
            version,
        })
        .collect())
}
