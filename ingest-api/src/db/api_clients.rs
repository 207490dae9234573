//! API clients and their secrets.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgExecutor};
use uuid::Uuid;

use crate::access::Permission;
use crate::auth::clients::{ApiClient, ApiClientEdit, NewApiClient, SecretStanding};

const COLUMNS: &str = "client_id, name, permissions, location_ids, is_active, expires_at, version,
    coalesce((select jsonb_agg(jsonb_build_object('secret_id', s.secret_id, 'created_at', s.created_at,
                                                  'expires_at', s.expires_at) order by s.secret_id)
              from api_client_secrets s where s.client_id = c.client_id and s.ended_at is null
                                          and coalesce(s.expires_at > now(), true)), '[]')";

type Row = (Uuid, String, Vec<String>, Option<Vec<Uuid>>, bool, Option<DateTime<Utc>>, i64, Json<Vec<SecretStanding>>);

fn client((client_id, name, permissions, location_ids, is_active, expires_at, version, secrets): Row) -> ApiClient {
    let permissions = permissions.iter().filter_map(|name| Permission::parse(name)).collect();
    ApiClient { client_id, name, permissions, location_ids, is_active, expires_at, secrets: secrets.0, version }
}

fn names(permissions: &[Permission]) -> Vec<String> {
    permissions.iter().map(|permission| permission.name()).collect()
}

pub async fn insert(tx: &mut PgTx, client_id: Uuid, new: &NewApiClient) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into api_clients (client_id, name, permissions, location_ids, expires_at, version)
         values ($1, $2, $3, $4, $5, 1)",
    )
    .bind(client_id)
    .bind(&new.name)
    .bind(names(&new.permissions))
    .bind(&new.location_ids)
    .bind(new.expires_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn lock(tx: &mut PgTx, client_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("select from api_clients where client_id = $1 for update").bind(client_id).execute(&mut **tx).await?;
    Ok(())
}

pub async fn find(tx: &mut PgTx, client_id: Uuid) -> Result<Option<ApiClient>, sqlx::Error> {
    let row: Option<Row> =
        sqlx::query_as(AssertSqlSafe(format!("select {COLUMNS} from api_clients c where client_id = $1")))
            .bind(client_id)
            .fetch_optional(&mut **tx)
            .await?;
    Ok(row.map(client))
}

/// In the order of their ids.
pub async fn list(
    executor: impl PgExecutor<'_>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ApiClient>, sqlx::Error> {
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(format!(
        "select {COLUMNS} from api_clients c where $1::uuid is null or client_id > $1 order by client_id limit $2"
    )))
    .bind(after)
    .bind(limit)
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(client).collect())
}

/// Tokens of before are worth nothing afterwards.
pub async fn update(tx: &mut PgTx, client_id: Uuid, edit: &ApiClientEdit) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update api_clients set name = coalesce($2, name), permissions = coalesce($3, permissions),
                location_ids = coalesce($4, location_ids), expires_at = coalesce($5, expires_at),
                is_active = coalesce($6, is_active), version = version + 1, session_version = session_version + 1
         where client_id = $1",
    )
    .bind(client_id)
    .bind(&edit.name)
    .bind(edit.permissions.as_deref().map(names))
    .bind(&edit.location_ids)
    .bind(edit.expires_at)
    .bind(edit.is_active)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub async fn insert_secret(
    tx: &mut PgTx,
    (client_id, secret_id): (Uuid, Uuid),
    hash: &[u8],
    expires_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with c as (update api_clients set version = version + 1 where client_id = $2)
         insert into api_client_secrets (secret_id, client_id, secret_hash, expires_at) values ($1, $2, $3, $4)",
    )
    .bind(secret_id)
    .bind(client_id)
    .bind(hash)
    .bind(expires_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The client whose secret it was; none when there is no such secret, or it has ended.
pub async fn end_secret(tx: &mut PgTx, secret_id: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "with s as (update api_client_secrets set ended_at = now() where secret_id = $1 and ended_at is null
                    returning client_id)
         update api_clients c set version = version + 1, session_version = session_version + 1
           from s where c.client_id = s.client_id returning c.client_id",
    )
    .bind(secret_id)
    .fetch_optional(&mut **tx)
    .await
}

/// The session version of a client whose secret this is and is good, when the client is good too.
pub async fn session_version(
    executor: impl PgExecutor<'_>,
    client_id: Uuid,
    hash: &[u8],
) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar(
        "select c.session_version from api_clients c join api_client_secrets s using (client_id)
         where c.client_id = $1 and s.secret_hash = $2 and c.is_active and coalesce(c.expires_at > now(), true)
           and s.ended_at is null and coalesce(s.expires_at > now(), true)",
    )
    .bind(client_id)
    .bind(hash)
    .fetch_optional(executor)
    .await
}

/// Whether there is such a client, good or not.
pub async fn is_known(executor: impl PgExecutor<'_>, client_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from api_clients where client_id = $1)")
        .bind(client_id)
        .fetch_one(executor)
        .await
}
