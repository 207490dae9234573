//! From claims to the principal as Postgres knows it now: active, at its present session version, with
//! its present grants. Remembered for at most a second, so a revocation holds at once.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use schemas::ids::{LocationId, TerminalId, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::access::{Grant, Principal, Role};
use crate::auth::tokens::{Claims, Subject};
use crate::error::ApiError;

const REMEMBERED: Duration = Duration::from_secs(1);
const REMEMBERED_MAX: u64 = 20_000;

/// What Postgres said about one subject.
#[derive(Debug, Clone)]
struct Standing {
    session_version: i32,
    is_active: bool,
    principal: Principal,
}

/// The short memory of standings.
pub struct Principals {
    standings: Cache<Subject, Standing>,
}

impl Default for Principals {
    fn default() -> Self {
        Principals { standings: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build() }
    }
}

impl Principals {
    /// 401 when the subject is gone, not active, or the session or place is not the present one.
    pub async fn find(&self, pool: &PgPool, claims: &Claims) -> Result<Principal, ApiError> {
        let subject = claims.subject().ok_or_else(ApiError::unauthenticated)?;
        let standing = match self.standings.get(&subject) {
            Some(standing) => standing,
            None => {
                let standing = load(pool, subject).await?.ok_or_else(ApiError::unauthenticated)?;
                self.standings.insert(subject, standing.clone());
                standing
            }
        };
        let is_same_place = match (subject, &standing.principal) {
            (Subject::User(_), Principal::User { .. }) => true,
            (Subject::Terminal(_, location), Principal::Terminal { location_id, .. }) => *location_id == location,
            _ => false,
        };
        if !standing.is_active || standing.session_version != claims.sv || !is_same_place {
            return Err(ApiError::unauthenticated());
        }
        Ok(standing.principal)
    }
}

async fn load(pool: &PgPool, subject: Subject) -> Result<Option<Standing>, sqlx::Error> {
    match subject {
        Subject::User(user_id) => load_user(pool, user_id).await,
        Subject::Terminal(terminal_id, _) => load_terminal(pool, terminal_id).await,
    }
}

async fn load_user(pool: &PgPool, user_id: UserId) -> Result<Option<Standing>, sqlx::Error> {
    let rows: Vec<(i32, bool, Option<String>, Option<Uuid>)> = sqlx::query_as(
        "select u.session_version, u.is_active, g.role, g.location_id
         from users u left join grants g using (user_id) where u.user_id = $1",
    )
    .bind(user_id.0)
    .fetch_all(pool)
    .await?;
    let Some(&(session_version, is_active, ..)) = rows.first() else { return Ok(None) };
    let grants: Arc<[Grant]> = rows
        .into_iter()
        .filter_map(|(_, _, role, location)| {
            Some(Grant { role: Role::parse(&role?)?, location_id: location.map(LocationId) })
        })
        .collect();
    Ok(Some(Standing { session_version, is_active, principal: Principal::User { user_id, grants } }))
}

async fn load_terminal(pool: &PgPool, terminal_id: TerminalId) -> Result<Option<Standing>, sqlx::Error> {
    let row: Option<(i32, bool, Uuid)> = sqlx::query_as(
        "select t.session_version, t.is_active and l.is_active, t.location_id
         from terminals t join locations l using (location_id)
         where t.terminal_id = $1 and t.device_public_key is not null",
    )
    .bind(terminal_id.0)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(session_version, is_active, location)| Standing {
        session_version,
        is_active,
        principal: Principal::Terminal { terminal_id, location_id: LocationId(location) },
    }))
}
