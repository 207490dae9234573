//! From claims to the principal as Postgres knows it now: active, at its present session version, in a session that has
//! not ended, with its present grants. Remembered for at most a second, so a revocation holds at once.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use schemas::ids::{LocationId, TerminalId, UserId};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use crate::access::{Grant, Granted, Permission, Principal, Role};
use crate::auth::tokens::{Claims, Subject};
use crate::db::roles::rules_of;
use crate::error::ApiError;

const REMEMBERED: Duration = Duration::from_secs(1);
const REMEMBERED_MAX: u64 = 20_000;

/// What Postgres said about one subject, of a user in one session.
#[derive(Debug, Clone)]
struct Standing {
    session_version: i32,
    is_active: bool,
    principal: Principal,
}

/// Why there is no standing.
enum Absent {
    Unknown,
    Failed(ApiError),
}

/// The short memory of standings. Only users have sessions that can end by themselves. Many requests of one subject at
/// a time ask Postgres once: the connections for it are few, and those of tills wait for them too.
pub struct Principals {
    standings: Cache<(Subject, Option<Uuid>), Standing>,
}

impl Absent {
    /// The same for everybody who waited for it, so the error itself is not given away.
    fn problem(&self) -> ApiError {
        match self {
            Absent::Unknown => ApiError::unauthenticated(),
            Absent::Failed(problem) => {
                let again = ApiError::new(problem.status, problem.code, problem.detail.clone());
                again.with_source(anyhow::anyhow!("{problem}"))
            }
        }
    }
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
        let session = matches!(subject, Subject::User(_)).then_some(claims.sid);
        let asked = async {
            let standing = load(pool, subject, session).await.map_err(|error| Absent::Failed(error.into()))?;
            standing.ok_or(Absent::Unknown)
        };
        let standing = match self.standings.try_get_with((subject, session), asked).await {
            Ok(standing) => standing,
            Err(absent) => return Err(absent.problem()),
        };
        let is_same_place = match (subject, &standing.principal) {
            (Subject::Terminal(_, location), Principal::Terminal { location_id, .. }) => *location_id == location,
            (Subject::User(_) | Subject::Enrolling(_), Principal::User { .. }) => true,
            (Subject::Client(_), Principal::Client { .. }) => true,
            _ => false,
        };
        if !standing.is_active || standing.session_version != claims.sv || !is_same_place {
            return Err(ApiError::unauthenticated());
        }
        Ok(standing.principal)
    }
}

async fn load(pool: &PgPool, subject: Subject, session: Option<Uuid>) -> Result<Option<Standing>, sqlx::Error> {
    match subject {
        Subject::User(user_id) | Subject::Enrolling(user_id) => load_user(pool, user_id, session).await,
        Subject::Terminal(terminal_id, _) => load_terminal(pool, terminal_id).await,
        Subject::Client(client_id) => load_client(pool, client_id).await,
    }
}

/// The principal that a user is now, whatever sessions there are; none for who is not active.
pub async fn user(conn: &mut PgConnection, user_id: Uuid) -> Result<Option<Principal>, sqlx::Error> {
    let standing = load_user(conn, UserId(user_id), None).await?;
    Ok(standing.filter(|standing| standing.is_active).map(|standing| standing.principal))
}

async fn load_user(
    executor: impl PgExecutor<'_>,
    user_id: UserId,
    session: Option<Uuid>,
) -> Result<Option<Standing>, sqlx::Error> {
    let rows: Vec<UserRow> = sqlx::query_as(
        "select u.session_version,
                u.is_active and ($2::uuid is null
                    or exists (select from sessions s where s.session_id = $2 and s.user_id = u.user_id
                                 and s.ended_at is null and s.expires_at > now())),
                g.role, g.location_id, r.name, r.rules::text
         from users u left join grants g using (user_id) left join roles r using (role_id) where u.user_id = $1",
    )
    .bind(user_id.0)
    .bind(session)
    .fetch_all(executor)
    .await?;
    let Some(&(session_version, is_active, ..)) = rows.first() else { return Ok(None) };
    let grants =
        rows.into_iter().filter_map(|(_, _, role, location, name, rules)| grant(role?, location, name.zip(rules)));
    let grants: Arc<[Grant]> = grants.collect::<Result<_, _>>()?;
    Ok(Some(Standing { session_version, is_active, principal: Principal::User { user_id, grants } }))
}

/// Session version, whether it is active; of one grant: role, location, and of a role of the company's own its name and rules.
type UserRow = (i32, bool, Option<String>, Option<Uuid>, Option<String>, Option<String>);

fn grant(role: String, location: Option<Uuid>, own: Option<(String, String)>) -> Option<Result<Grant, sqlx::Error>> {
    let role = match own {
        None => Granted::BuiltIn(Role::parse(&role)?),
        Some((name, rules)) => match rules_of(&rules) {
            Ok(rules) => Granted::Own { name: name.into(), rules: rules.into() },
            Err(error) => return Some(Err(error)),
        },
    };
    Some(Ok(Grant { role, location_id: location.map(LocationId) }))
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

/// Session version, whether it is active, permissions, and locations: none means every one.
type ClientRow = (i32, bool, Vec<String>, Option<Vec<Uuid>>);

async fn load_client(pool: &PgPool, client_id: Uuid) -> Result<Option<Standing>, sqlx::Error> {
    let row: Option<ClientRow> = sqlx::query_as(
        "select session_version, is_active and coalesce(expires_at > now(), true), permissions, location_ids
         from api_clients where client_id = $1",
    )
    .bind(client_id)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(session_version, is_active, permissions, locations)| Standing {
        session_version,
        is_active,
        principal: Principal::Client {
            client_id,
            permissions: permissions.iter().filter_map(|name| Permission::parse(name)).collect(),
            locations: locations.map(|locations| locations.into_iter().map(LocationId).collect()),
        },
    }))
}
