//! Who may do what, where: the one table of permissions, and the check each route goes through.
//!
//! A route declares exactly one [`Permission`]. The layer in `guard.rs` finds out who asks, refuses
//! whoever does not hold it anywhere (403, audited), and hands the handler an [`Access`], which answers
//! "here too?" for each location named in a path (404), a body or a query (403).

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use schemas::ids::{LocationId, TerminalId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::ApiError;

/// What a user may be, at one location or everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Owner,
    Manager,
    Cashier,
    ItAdmin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Owner, Role::Manager, Role::Cashier, Role::ItAdmin];

    /// As stored and sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Manager => "manager",
            Role::Cashier => "cashier",
            Role::ItAdmin => "it_admin",
        }
    }
    /// The role of this name.
    pub fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident: [$($role:ident)*] $(+ $terminal:ident)?;)*) => {
        /// What a route, or a part of an act, asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Permission {
            /// Anybody, without a token.
            Public,
            $($(#[$doc])* $name),*
        }
        impl Permission {
            pub const ALL: &[Permission] = &[Permission::Public, $(Permission::$name),*];

            /// Roles that hold it where they are granted.
            pub fn roles(self) -> &'static [Role] {
                match self {
                    Permission::Public => &[],
                    $(Permission::$name => &[$(Role::$role),*]),*
                }
            }
            /// Whether an enrolled terminal holds it at its own location.
            pub fn is_for_terminals(self) -> bool {
                match self {
                    Permission::Public => true,
                    $(Permission::$name => false $(|| stringify!($terminal) == "Terminal")?),*
                }
            }
        }
    };
}

// The table. `+ Terminal`: enrolled terminals hold it too, at their own location.
permissions! {
    /// Catalog, prices, tax profiles and the catalog feed.
    ReadCatalog: [Owner Manager Cashier ItAdmin] + Terminal;
    /// Products, variants, tax profiles: company-wide, so the grant must be too.
    ManageCatalog: [Owner Manager];
    /// Prices; of one location with a grant there, of all with a grant everywhere.
    ManagePrices: [Owner Manager];
    ReadLocations: [Owner Manager Cashier ItAdmin] + Terminal;
    ManageLocations: [Owner ItAdmin];
    ReadUsers: [Owner Manager];
    /// Managers: cashiers of their own locations only.
    ManageUsers: [Owner Manager];
    ReadTerminals: [Owner Manager ItAdmin] + Terminal;
    ManageTerminals: [Owner ItAdmin];
    ReadMembers: [Owner Manager Cashier] + Terminal;
    CreateMembers: [Owner Manager Cashier] + Terminal;
    ImportMembers: [Owner Manager];
    ReadStock: [Owner Manager Cashier] + Terminal;
    /// Receipts, adjustments, thresholds.
    ManageStock: [Owner Manager];
    Quote: [Owner Manager Cashier] + Terminal;
    /// A terminal commits sales; the cashier it names must hold this at its location.
    Sell: [Owner Manager Cashier] + Terminal;
    /// A unit price set by hand.
    OverridePrice: [Owner Manager];
    ReadSales: [Owner Manager Cashier] + Terminal;
    /// The changes feed of a location.
    ReadChanges: [Owner Manager Cashier] + Terminal;
    ReadReports: [Owner Manager];
    /// The audit log; without `ReadWholeAudit` its technical rows only.
    ReadAudit: [Owner Manager ItAdmin];
    /// Rows about money, stock and people.
    ReadWholeAudit: [Owner Manager];
}

impl Permission {
    /// Whether this role holds it where it is granted.
    pub fn is_held_by(self, role: Role) -> bool {
        self.roles().contains(&role)
    }
}

/// A role at a location; none means every location.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    pub role: Role,
    pub location_id: Option<LocationId>,
}

/// Who asks. Proven by an access token and still so in Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    User { user_id: UserId, grants: Arc<[Grant]> },
    Terminal { terminal_id: TerminalId, location_id: LocationId },
}

impl Principal {
    /// Whether it holds the permission at this location.
    pub fn may(&self, permission: Permission, location: LocationId) -> bool {
        match self {
            Principal::Terminal { location_id, .. } => permission.is_for_terminals() && *location_id == location,
            Principal::User { grants, .. } => grants.iter().any(|grant| {
                permission.is_held_by(grant.role) && grant.location_id.is_none_or(|granted| granted == location)
            }),
        }
    }
    /// Whether it holds the permission at any location.
    pub fn may_anywhere(&self, permission: Permission) -> bool {
        match self {
            Principal::Terminal { .. } => permission.is_for_terminals(),
            Principal::User { grants, .. } => grants.iter().any(|grant| permission.is_held_by(grant.role)),
        }
    }
    /// Whether it holds the permission at every location, present and future.
    pub fn may_everywhere(&self, permission: Permission) -> bool {
        match self {
            Principal::Terminal { .. } => false,
            Principal::User { grants, .. } => {
                grants.iter().any(|grant| permission.is_held_by(grant.role) && grant.location_id.is_none())
            }
        }
    }
    /// Whose idempotency keys these are: a terminal's outlive the cashier's turn.
    pub fn key_scope(&self) -> String {
        match self {
            Principal::User { user_id, .. } => format!("user:{user_id}"),
            Principal::Terminal { terminal_id, .. } => format!("terminal:{terminal_id}"),
        }
    }
    /// The identifier that ledger and audit rows carry.
    pub fn actor(&self) -> UserId {
        match self {
            Principal::User { user_id, .. } => *user_id,
            Principal::Terminal { terminal_id, .. } => UserId(terminal_id.0),
        }
    }
    /// The terminal, when one asks.
    pub fn terminal(&self) -> Option<(TerminalId, LocationId)> {
        match self {
            Principal::Terminal { terminal_id, location_id } => Some((*terminal_id, *location_id)),
            Principal::User { .. } => None,
        }
    }
    /// Roles for the audit row, for instance `manager`, or `terminal`.
    pub fn role_text(&self) -> String {
        match self {
            Principal::Terminal { .. } => "terminal".to_owned(),
            Principal::User { grants, .. } => {
                let mut roles: Vec<_> = grants.iter().map(|grant| grant.role).collect();
                roles.sort_unstable();
                roles.dedup();
                roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// Who asks, and the permission of the route they came through.
#[derive(Debug, Clone)]
pub struct Access {
    pub principal: Principal,
    pub permission: Permission,
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
            Principal::User { grants, .. } => {
                let held = grants.iter().filter(|grant| self.permission.is_held_by(grant.role));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(grants: &[(Role, Option<LocationId>)]) -> Principal {
        let grants =
            grants.iter().map(|(role, location_id)| Grant { role: *role, location_id: *location_id }).collect();
        Principal::User { user_id: UserId(Uuid::from_u128(1)), grants }
    }

    #[test]
    fn a_grant_holds_at_its_location_and_nowhere_else() {
        let (here, there) = (LocationId(Uuid::from_u128(10)), LocationId(Uuid::from_u128(11)));
        let manager = user(&[(Role::Manager, Some(here)), (Role::Cashier, Some(there))]);
        assert!(manager.may(Permission::ManageStock, here));
        assert!(!manager.may(Permission::ManageStock, there));
        assert!(manager.may(Permission::Sell, there));
        assert!(!manager.may_everywhere(Permission::ManageStock));
        let access = Access { principal: manager, permission: Permission::ManageStock };
        assert_eq!(access.scope(), Some(vec![here.0]));
        assert_eq!(access.require_object_at(there, "location").unwrap_err().status, 404);
        assert_eq!(access.require_named(there).unwrap_err().status, 403);
        let owner = Access { principal: user(&[(Role::Owner, None)]), permission: Permission::ManageStock };
        assert_eq!(owner.scope(), None);
    }

    #[test]
    fn terminals_act_at_their_own_location_only() {
        let here = LocationId(Uuid::from_u128(10));
        let terminal = Principal::Terminal { terminal_id: TerminalId(Uuid::from_u128(2)), location_id: here };
        assert!(terminal.may(Permission::Sell, here));
        assert!(!terminal.may(Permission::Sell, LocationId(Uuid::from_u128(11))));
        assert!(!terminal.may_anywhere(Permission::ManageStock));
        assert!(!terminal.may_everywhere(Permission::ReadCatalog));
    }

    #[test]
    fn the_table_as_a_whole() {
        let rows: Vec<String> = Permission::ALL
            .iter()
            .map(|permission| {
                let roles: Vec<_> = permission.roles().iter().map(|role| role.as_str()).collect();
                let terminal = if permission.is_for_terminals() { " terminal" } else { "" };
                format!("{permission:?}: {}{terminal}", roles.join(" "))
            })
            .collect();
        assert!(rows.contains(&"ManageStock: owner manager".to_owned()));
        assert!(rows.contains(&"Sell: owner manager cashier terminal".to_owned()));
        // Personal data and money acts are closed to the technical role.
        for permission in Permission::ALL.iter().filter(|permission| permission.is_held_by(Role::ItAdmin)) {
            use Permission::*;
            assert!(matches!(
                permission,
                ReadCatalog | ReadLocations | ManageLocations | ReadTerminals | ManageTerminals | ReadAudit
            ));
        }
    }
}
