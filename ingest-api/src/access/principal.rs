//! Who asks, what they hold where, and the check each handler goes through.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use schemas::ids::{LocationId, TerminalId, UserId};
use uuid::Uuid;

use super::{Granted, Permission};
use crate::error::ApiError;
use crate::limits::{Mode, Rule};

/// A role at a location; none means every location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub role: Granted,
    pub location_id: Option<LocationId>,
}

/// Who asks. Proven by an access token and still so in Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    User {
        user_id: UserId,
        grants: Arc<[Grant]>,
    },
    Terminal {
        terminal_id: TerminalId,
        location_id: LocationId,
    },
    /// A program of an integrator. `locations`: none means every one.
    Client {
        client_id: Uuid,
        permissions: Arc<[Permission]>,
        locations: Option<Arc<[LocationId]>>,
    },
}

impl Principal {
    /// Whether it holds the permission at this location.
    pub fn may(&self, permission: Permission, location: LocationId) -> bool {
        match self {
            Principal::Terminal { location_id, .. } => permission.is_for_terminals() && *location_id == location,
            Principal::User { grants, .. } => grants.iter().any(|grant| {
                grant.role.holds(permission) && grant.location_id.is_none_or(|granted| granted == location)
            }),
            Principal::Client { locations, .. } => {
                self.may_anywhere(permission)
                    && locations.as_ref().is_none_or(|locations| locations.contains(&location))
            }
        }
    }
    /// Whether it holds the permission at any location.
    pub fn may_anywhere(&self, permission: Permission) -> bool {
        match self {
            Principal::Terminal { .. } => permission.is_for_terminals(),
            Principal::User { grants, .. } => grants.iter().any(|grant| grant.role.holds(permission)),
            Principal::Client { permissions, .. } => permission.is_for_clients() && permissions.contains(&permission),
        }
    }
    /// Whether it holds the permission at every location, present and future.
    pub fn may_everywhere(&self, permission: Permission) -> bool {
        match self {
            Principal::Terminal { .. } => false,
            Principal::User { grants, .. } => {
                grants.iter().any(|grant| grant.role.holds(permission) && grant.location_id.is_none())
            }
            Principal::Client { locations, .. } => self.may_anywhere(permission) && locations.is_none(),
        }
    }
    /// What a user is granted at this location.
    pub fn granted(&self, location: LocationId) -> Vec<Granted> {
        let Principal::User { grants, .. } = self else { return Vec::new() };
        let here = grants.iter().filter(|grant| grant.location_id.is_none_or(|granted| granted == location));
        here.map(|grant| grant.role.clone()).collect()
    }
    /// What it may do of an act at this location, one rule for each grant that says something.
    pub fn rules(&self, act: Permission, location: LocationId) -> Vec<Rule> {
        match self {
            Principal::User { .. } => {
                let rules = self.granted(location).into_iter().map(|role| role.rule(act));
                rules.filter(|rule| rule.mode != Mode::Deny).collect()
            }
            _ if self.may(act, location) => vec![Rule::new(act, Mode::Allow)],
            _ => Vec::new(),
        }
    }
    /// Whether some grant for every location permits at least as much as this rule.
    pub fn covers(&self, rule: &Rule) -> bool {
        match self {
            Principal::User { grants, .. } => {
                grants.iter().any(|grant| grant.location_id.is_none() && grant.role.rule(rule.permission).covers(rule))
            }
            _ => rule.mode == Mode::Deny,
        }
    }
    /// Whose idempotency keys these are: a terminal's outlive the cashier's turn.
    pub fn key_scope(&self) -> String {
        match self {
            Principal::User { user_id, .. } => format!("user:{user_id}"),
            Principal::Terminal { terminal_id, .. } => format!("terminal:{terminal_id}"),
            Principal::Client { client_id, .. } => format!("client:{client_id}"),
        }
    }
    /// The identifier that ledger and audit rows carry.
    pub fn actor(&self) -> UserId {
        match self {
            Principal::User { user_id, .. } => *user_id,
            Principal::Terminal { terminal_id, .. } => UserId(terminal_id.0),
            Principal::Client { client_id, .. } => UserId(*client_id),
        }
    }
    /// The terminal, when one asks.
    pub fn terminal(&self) -> Option<(TerminalId, LocationId)> {
        match self {
            Principal::Terminal { terminal_id, location_id } => Some((*terminal_id, *location_id)),
            Principal::User { .. } | Principal::Client { .. } => None,
        }
    }
    /// Roles for the audit row, for instance `manager`, or `terminal`.
    pub fn role_text(&self) -> String {
        match self {
            Principal::Terminal { .. } => "terminal".to_owned(),
            Principal::Client { .. } => "client".to_owned(),
            Principal::User { grants, .. } => {
                let roles: Vec<&Granted> = grants.iter().map(|grant| &grant.role).collect();
                super::role::names(&roles)
            }
        }
    }
}

/// Who asks, and the permission of the route they came through.
#[derive(Debug, Clone)]
pub struct Access {
    pub principal: Principal,
    pub permission: Permission,
    /// The session of a user; none for whoever has no session.
    pub session: Option<Uuid>,
}

impl Access {
    pub fn actor(&self) -> UserId {
        self.principal.actor()
    }
    /// Locations a list may show: none means every one.
    pub fn scope(&self) -> Option<Vec<Uuid>> {
        if self.principal.may_everywhere(self.permission) {
            return None;
        }
        Some(match &self.principal {
            Principal::Terminal { location_id, .. } => vec![location_id.0],
            Principal::Client { locations, .. } => locations.iter().flat_map(|all| all.iter()).map(|it| it.0).collect(),
            Principal::User { grants, .. } => {
                let held = grants.iter().filter(|grant| grant.role.holds(self.permission));
                held.filter_map(|grant| grant.location_id.map(|location| location.0)).collect()
            }
        })
    }
    /// A location of an object in the path: 404 out of scope, as if it did not exist.
    pub fn require_object_at(&self, location: LocationId, what: &str) -> Result<(), ApiError> {
        if self.principal.may(self.permission, location) { Ok(()) } else { Err(ApiError::not_found(what)) }
    }
    /// A location named in a body or query: 403 out of scope, whether it exists or not.
    pub fn require_named(&self, location: LocationId) -> Result<(), ApiError> {
        if self.principal.may(self.permission, location) {
            return Ok(());
        }
        Err(ApiError::forbidden("forbidden", "this location is outside your grants"))
    }
    /// An act that concerns the whole company.
    pub fn require_everywhere(&self) -> Result<(), ApiError> {
        if self.principal.may_everywhere(self.permission) {
            return Ok(());
        }
        Err(ApiError::forbidden("forbidden", "this needs a grant for every location"))
    }
    /// The user who asks for something of their own.
    pub fn require_user(&self) -> Result<UserId, ApiError> {
        match self.principal {
            Principal::User { user_id, .. } => Ok(user_id),
            _ => Err(ApiError::forbidden("forbidden", "only a user may do this")),
        }
    }
    /// An act that only an enrolled terminal may do.
    pub fn require_terminal(&self) -> Result<(TerminalId, LocationId), ApiError> {
        self.principal.terminal().ok_or_else(|| ApiError::forbidden("forbidden", "only a terminal may do this"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Access {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Access>().cloned().ok_or_else(ApiError::unauthenticated)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Access::from_request_parts(parts, state).await.map(|access| access.principal)
    }
}
