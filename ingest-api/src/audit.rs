//! Audit rows: who did, or was refused, what. Written in the transaction of the act itself; a refusal,
//! which has none, gets one of its own.
//!
//! What makes the rows believable stands below: `chain` says which bytes are hashed, `sealer` numbers and chains them,
//! `signing` signs, `roots` and `proof` let a single receipt be checked by whoever holds it.

pub mod chain;
pub mod merkle;
pub mod proof;
pub mod roots;
pub mod routes;
pub mod sealer;
pub mod signing;

use chrono::Utc;
use runtime::pg::PgTx;
use schemas::ids::LocationId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::access::{Permission, Principal};
use crate::app::AppState;
use crate::context::Context;
use crate::error::ApiError;
use crate::operator::Operator;

/// Who asked for what, kept until the outcome is known.
#[derive(Debug, Clone)]
pub struct Trail {
    pub principal: Principal,
    pub context: Context,
    /// Method and path; never a body.
    pub target: String,
}

/// One row to be.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    pub location: Option<LocationId>,
    pub actor: Uuid,
    pub role: String,
    /// Whose approval let it be done.
    pub approver: Option<Uuid>,
    /// For instance `stock.receipt`.
    pub action: &'a str,
    /// The object, for instance `location/<id>`.
    pub target: String,
    /// Digest of the state before and after, where there is one.
    pub before: Option<[u8; 32]>,
    pub after: Option<[u8; 32]>,
    pub reason: &'a str,
    pub terminal: Option<Uuid>,
    pub is_refused: bool,
}

impl<'a> Entry<'a> {
    /// An act that was done by this principal.
    pub fn done(principal: &Principal, action: &'a str, target: String) -> Self {
        Entry {
            location: None,
            actor: principal.actor().0,
            role: principal.role_text(),
            approver: None,
            action,
            target,
            before: None,
            after: None,
            reason: "",
            terminal: principal.terminal().map(|(terminal, _)| terminal.0),
            is_refused: false,
        }
    }
    /// An act of a command line task: nobody's.
    pub fn of_task(action: &'a str, target: String) -> Self {
        Entry {
            location: None,
            actor: Uuid::nil(),
            role: String::new(),
            approver: None,
            action,
            target,
            before: None,
            after: None,
            reason: "",
            terminal: None,
            is_refused: false,
        }
    }
    /// An act of somebody at the command line.
    pub fn of_operator(by: &Operator, action: &'a str, target: String) -> Self {
        Entry { role: by.to_string(), ..Entry::of_task(action, target) }
    }
    pub fn refused(mut self) -> Self {
        self.is_refused = true;
        self
    }
    pub fn at(mut self, location: LocationId) -> Self {
        self.location = Some(location);
        self
    }
    pub fn approved_by(mut self, approver: Option<Uuid>) -> Self {
        self.approver = approver;
        self
    }
    pub fn because(mut self, reason: &'a str) -> Self {
        self.reason = reason;
        self
    }
    /// States are stored as digests: the trail proves content without repeating it.
    pub fn states<T: serde::Serialize>(mut self, before: Option<&T>, after: &T) -> Self {
        self.before = before.map(digest);
        self.after = Some(digest(after));
        self
    }
}

fn digest<T: serde::Serialize>(state: &T) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(state).unwrap_or_default()).into()
}

/// Writes one row in the transaction of the act.
pub async fn record(tx: &mut PgTx, context: &Context, entry: Entry<'_>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into audit_log (audit_id, epoch, recorded_at, location_id, actor, actor_role, action, target,
                                before_digest, after_digest, reason, outcome, request_id, terminal_id, address, approver)
         values ($1, (select max(epoch) from epochs), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(Uuid::now_v7())
    .bind(Utc::now())
    .bind(entry.location.map(|location| location.0))
    .bind(entry.actor)
    .bind(entry.role)
    .bind(entry.action)
    .bind(entry.target)
    .bind(entry.before.map(Vec::from))
    .bind(entry.after.map(Vec::from))
    .bind(entry.reason)
    .bind(if entry.is_refused { "refused" } else { "done" })
    .bind(&context.request_id)
    .bind(entry.terminal)
    .bind(&context.address)
    .bind(entry.approver)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Records that a request was refused for want of this permission, or for what `because` says.
pub async fn record_refusal(
    app: &AppState,
    trail: Trail,
    permission: Permission,
    because: String,
) -> Result<(), ApiError> {
    app.writer
        .write((trail, permission, because), |tx, (trail, permission, because)| {
            Box::pin(async move {
                let action = format!("refused.{permission:?}");
                let mut entry = Entry::done(&trail.principal, &action, trail.target.clone()).because(because);
                entry.is_refused = true;
                entry.location = trail.principal.terminal().map(|(_, location)| location);
                Ok::<_, ApiError>(record(tx, &trail.context, entry).await?)
            })
        })
        .await
}
