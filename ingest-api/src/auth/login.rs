//! `POST /auth/login`, and the first owner. A wrong password, an unknown login and an inactive user get
//! the same answer after the same work.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use runtime::pg::Writer;
use schemas::ids::UserId;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::Role;
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::passwords::{PASSWORD_BYTES_MAX, Passwords};
use crate::auth::tokens::{IssuedToken, Subject};
use crate::checks::{CODE_CHARS_MAX, Checks};
use crate::context::Context;
use crate::db::catalog_writes::CatalogWrite;
use crate::db::users as db;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, Valid};
use crate::users::{self, UserGrant};

#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub login: String,
    pub password: String,
}

impl Body for Login {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.text("/login", &mut self.login, CODE_CHARS_MAX);
        self.login = self.login.to_lowercase();
    }
}

/// `POST /auth/login`
pub async fn log_in(
    State(app): State<AppState>,
    context: Context,
    Valid(Login { login, password }): Valid<Login>,
) -> Result<Response, ApiError> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(ApiError::from_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let known: Option<(Uuid, Option<String>, i32, bool)> =
        sqlx::query_as("select user_id, password_hash, session_version, is_active from users where login = $1")
            .bind(&login)
            .fetch_optional(&app.reads)
            .await?;
    let stored = known.as_ref().filter(|(.., is_active)| *is_active).and_then(|(_, hash, ..)| hash.clone());
    let is_right = app.auth.passwords.is_right(password, stored).await?;
    let user_id = known.as_ref().map_or(Uuid::nil(), |(user_id, ..)| *user_id);
    record(&app.writer, context, user_id, is_right).await?;
    match known {
        Some((user_id, _, session_version, _)) if is_right => {
            let subject = Subject::User(UserId(user_id));
            let token: IssuedToken = app.auth.tokens.issue(subject, session_version).map_err(ApiError::internal)?;
            json_response(StatusCode::OK, &token)
        }
        _ => Err(ApiError::unauthenticated()),
    }
}

/// Every log-in leaves a row, a failed one too; an unknown login is not written down.
async fn record(writer: &Writer, context: Context, user_id: Uuid, is_done: bool) -> Result<(), ApiError> {
    writer
        .write((context, user_id, is_done), |tx, (context, user_id, is_done)| {
            Box::pin(async move {
                let entry = Entry {
                    location: None,
                    actor: *user_id,
                    role: String::new(),
                    action: "auth.login",
                    target: format!("user/{user_id}"),
                    before: None,
                    after: None,
                    reason: "",
                    terminal: None,
                    is_refused: !is_done,
                };
                Ok::<_, ApiError>(audit::record(tx, context, entry).await?)
            })
        })
        .await
}

/// The first owner, made from the command line.
#[derive(Debug, serde::Serialize)]
pub struct FirstOwner {
    pub user_id: Uuid,
    pub login: String,
    /// Shown once; only its hash is stored.
    pub password: String,
}

/// Makes the first owner with a generated password. Refused (409) when an owner exists.
pub async fn create_owner(writer: &Writer, login: &str) -> Result<FirstOwner, ApiError> {
    let mut login = login.to_owned();
    let mut checks = Checks::default();
    checks.text("/login", &mut login, CODE_CHARS_MAX);
    checks.done()?;
    let login = login.to_lowercase();
    let password = generated_password();
    let hash = Passwords::new().map_err(ApiError::internal)?.hash(password.clone()).await?;
    let context = Context::of_task("create-owner");
    let user_id = writer
        .write((login.clone(), hash, context), |tx, (login, hash, context)| {
            Box::pin(async move {
                // Two of these at once: the counter lock lets one go first.
                let write = CatalogWrite::begin(tx).await?;
                if db::has_owner(tx).await? {
                    return Err(ApiError::conflict("illegal_transition", "an owner exists already"));
                }
                let id = Uuid::now_v7();
                db::insert(tx, id, (login, "owner"), Some(hash)).await?;
                db::replace_grants(tx, id, &[UserGrant { role: Role::Owner, location_id: None }]).await?;
                let user = db::find(tx, id).await?.ok_or_else(|| ApiError::not_found("user"))?;
                let entry = Entry {
                    location: None,
                    actor: id,
                    role: "owner".to_owned(),
                    action: "user.create_owner",
                    target: format!("user/{id}"),
                    before: None,
                    after: None,
                    reason: "",
                    terminal: None,
                    is_refused: false,
                };
                audit::record(tx, context, entry.states(None, &user)).await?;
                users::publish(tx, write, context, None, &user).await?;
                Ok(id)
            })
        })
        .await?;
    Ok(FirstOwner { user_id, login, password })
}

/// 120 random bits as 24 characters without look-alikes.
fn generated_password() -> String {
    random_text(24)
}

/// Random characters of 5 bits each, without I, L, O and U.
pub fn random_text(chars: usize) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut bytes = vec![0u8; chars];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}
