//! Sessions (the families of refresh tokens) and their tokens.

use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use crate::auth::refresh::{Family, Shown};
use crate::auth::sessions::Session;

/// A session to be, with its first token.
pub struct NewSession<'a> {
    pub session_id: Uuid,
    pub user_id: Uuid,
    pub device_public_key: Option<&'a [u8]>,
    pub address: &'a str,
    pub at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub token_hash: &'a [u8],
}

pub async fn insert(tx: &mut PgTx, new: &NewSession<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with s as (insert into sessions (session_id, user_id, device_public_key, address, created_at, proved_at,
                                          refreshed_at, expires_at)
                    values ($1, $2, $3, $4, $5, $5, $5, $6))
         insert into refresh_tokens (token_hash, session_id, generation, state) values ($7, $1, 1, 'live')",
    )
    .bind(new.session_id)
    .bind(new.user_id)
    .bind(new.device_public_key)
    .bind(new.address)
    .bind(new.at)
    .bind(new.expires_at)
    .bind(new.token_hash)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The session of a token, locked until the transaction ends.
pub async fn lock_family_of(tx: &mut PgTx, token_hash: &[u8]) -> Result<Option<Family>, sqlx::Error> {
    sqlx::query_as(
        "select s.session_id, s.user_id, s.device_public_key, s.refreshed_at, s.expires_at, s.ended_at is not null is_ended
         from sessions s where session_id = (select session_id from refresh_tokens where token_hash = $1)
         for update",
    )
    .bind(token_hash)
    .fetch_optional(&mut **tx)
    .await
}

/// What the token is in its family; read once the family is locked.
pub async fn shown(tx: &mut PgTx, token_hash: &[u8]) -> Result<Shown, sqlx::Error> {
    sqlx::query_as(
        "select t.generation, t.spent_at, t.successor,
                (select max(generation) from refresh_tokens f where f.session_id = t.session_id) newest
         from refresh_tokens t where token_hash = $1",
    )
    .bind(token_hash)
    .fetch_one(&mut **tx)
    .await
}

/// Spends the live token for a new one; `successor` is the new one, sealed.
pub async fn rotate(
    tx: &mut PgTx,
    session_id: Uuid,
    (generation, successor, token_hash): (i32, Option<&[u8]>, &[u8]),
    at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    // What the one before could still hand back is over now.
    sqlx::query("update refresh_tokens set successor = null where session_id = $1 and successor is not null")
        .bind(session_id)
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "update refresh_tokens set state = 'spent', spent_at = $3, successor = $4
         where session_id = $1 and generation = $2 and state = 'live'",
    )
    .bind(session_id)
    .bind(generation)
    .bind(at)
    .bind(successor)
    .execute(&mut **tx)
    .await?;
    sqlx::query("insert into refresh_tokens (token_hash, session_id, generation, state) values ($1, $2, $3, 'live')")
        .bind(token_hash)
        .bind(session_id)
        .bind(generation + 1)
        .execute(&mut **tx)
        .await?;
    sqlx::query("update sessions set refreshed_at = $2 where session_id = $1")
        .bind(session_id)
        .bind(at)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Ends those of a user's sessions that have not ended: one of them, or all. How many.
pub async fn end(tx: &mut PgTx, user_id: Uuid, one: Option<Uuid>, reason: &str) -> Result<i64, sqlx::Error> {
    end_chosen(tx, user_id, (one, None), reason).await
}

/// Ends a user's sessions but for this one. How many.
pub async fn end_others(tx: &mut PgTx, user_id: Uuid, but: Option<Uuid>, reason: &str) -> Result<i64, sqlx::Error> {
    end_chosen(tx, user_id, (None, but), reason).await
}

async fn end_chosen(
    tx: &mut PgTx,
    user_id: Uuid,
    (one, but): (Option<Uuid>, Option<Uuid>),
    reason: &str,
) -> Result<i64, sqlx::Error> {
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "update sessions set ended_at = now(), end_reason = $3
         where user_id = $1 and ($2::uuid is null or session_id = $2) and session_id is distinct from $4
           and ended_at is null returning session_id",
    )
    .bind(user_id)
    .bind(one)
    .bind(reason)
    .bind(but)
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query(
        "update refresh_tokens set state = 'spent', spent_at = coalesce(spent_at, now()), successor = null
         where session_id = any($1) and (state = 'live' or successor is not null)",
    )
    .bind(&ended)
    .execute(&mut **tx)
    .await?;
    Ok(ended.len() as i64)
}

/// Raises the session version of a user: tokens of before are worth nothing.
pub async fn raise_version(tx: &mut PgTx, user_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("update users set session_version = session_version + 1 where user_id = $1")
        .bind(user_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Sessions of a user that can still be refreshed, the latest first.
pub async fn list(
    executor: impl PgExecutor<'_>,
    user_id: Uuid,
    refreshed_after: DateTime<Utc>,
) -> Result<Vec<Session>, sqlx::Error> {
    sqlx::query_as(
        "select session_id, created_at, refreshed_at, expires_at, address, device_public_key is not null is_device_bound,
                false is_this_one
         from sessions where user_id = $1 and ended_at is null and expires_at > now() and refreshed_at > $2
         order by created_at desc, session_id",
    )
    .bind(user_id)
    .bind(refreshed_after)
    .fetch_all(executor)
    .await
}

/// When the user of this session last proved all they have; none when it has ended.
pub async fn proved_at(conn: &mut PgConnection, session_id: Uuid) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar(
        "select proved_at from sessions where session_id = $1 and ended_at is null and expires_at > now()",
    )
    .bind(session_id)
    .fetch_optional(conn)
    .await
}

/// Whether the session goes on; locked until the transaction ends, so that its proofs are judged one after another.
pub async fn lock_live(tx: &mut PgTx, session_id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select ended_at is null and expires_at > now() from sessions where session_id = $1 for update")
        .bind(session_id)
        .fetch_optional(&mut **tx)
        .await
        .map(|is_live| is_live.unwrap_or(false))
}

/// Counts a wrong proof: how many there were since the last right one.
pub async fn fail_proof(tx: &mut PgTx, session_id: Uuid) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(
        "update sessions set failed_proofs = failed_proofs + 1 where session_id = $1 returning failed_proofs",
    )
    .bind(session_id)
    .fetch_one(&mut **tx)
    .await
}

pub async fn prove(tx: &mut PgTx, session_id: Uuid, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query("update sessions set proved_at = $2, failed_proofs = 0 where session_id = $1")
        .bind(session_id)
        .bind(at)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
