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
    ($($(#[$doc:meta])* $name:ident: [$($role:ident)*] $(+ $other:ident)*;)*) => {
        /// What a route, or a part of an act, asks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
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
                    $(Permission::$name => false $(|| matches!(Holder::$other, Holder::Terminal))*),*
                }
            }
            /// Whether an API client may be given it.
            pub fn is_for_clients(self) -> bool {
                match self {
                    Permission::Public => true,
                    $(Permission::$name => false $(|| matches!(Holder::$other, Holder::Client))*),*
                }
            }
        }
    };
}

/// Who holds permissions besides users.
enum Holder {
    Terminal,
    Client,
}

// The table. `+ Terminal`: enrolled terminals hold it too, at their own location. `+ Client`: it may be given to an API
// client.
permissions! {
    /// One's own sessions, password and second factor.
    OwnAccount: [Owner Manager Cashier ItAdmin];
    /// To set up one's second factor: the one thing that is open before it exists.
    EnrolSecondFactor: [Owner Manager Cashier ItAdmin];
    /// Who needs a second factor, how long leases last, locked addresses.
    ManageSignIn: [Owner];
    /// API clients and their secrets; nobody gives one more than they hold.
    ManageClients: [Owner ItAdmin];
    /// A cashier's PIN at a till.
    SignInCashiers: [] + Terminal;
    /// Leases of tills: list, revoke.
    ManageLeases: [Owner Manager ItAdmin];
    /// Catalog, prices, tax profiles and the catalog feed.
    ReadCatalog: [Owner Manager Cashier ItAdmin] + Terminal + Client;
    /// Products, variants, tax profiles: company-wide, so the grant must be too.
    ManageCatalog: [Owner Manager] + Client;
    /// Prices; of one location with a grant there, of all with a grant everywhere.
    ManagePrices: [Owner Manager] + Client;
    ReadLocations: [Owner Manager Cashier ItAdmin] + Terminal + Client;
    ManageLocations: [Owner ItAdmin];
    ReadUsers: [Owner Manager];
    /// Managers: cashiers of their own locations only.
    ManageUsers: [Owner Manager];
    ReadTerminals: [Owner Manager ItAdmin] + Terminal;
    ManageTerminals: [Owner ItAdmin];
    ReadMembers: [Owner Manager Cashier] + Terminal + Client;
    CreateMembers: [Owner Manager Cashier] + Terminal + Client;
    ImportMembers: [Owner Manager] + Client;
    /// Members by e-mail address or telephone number; every look-up is audited.
    LookUpMembers: [Owner Manager Cashier] + Terminal;
    /// Personal fields together with a new member.
    SignUpMembers: [Owner Manager Cashier] + Terminal;
    /// Personal fields of members; every reading is audited.
    ReadProfiles: [Owner Manager];
    EditProfiles: [Owner Manager];
    /// Everything that is kept about one member.
    ExportMembers: [Owner];
    MergeMembers: [Owner Manager];
    EraseMembers: [Owner];
    ReadStock: [Owner Manager Cashier] + Terminal + Client;
    /// Receipts, adjustments, thresholds.
    ManageStock: [Owner Manager] + Client;
    Quote: [Owner Manager Cashier] + Terminal + Client;
    /// A terminal commits sales; the cashier it names must hold this at its location.
    Sell: [Owner Manager Cashier] + Terminal;
    /// A unit price set by hand.
    OverridePrice: [Owner Manager];
    ReadSales: [Owner Manager Cashier] + Terminal + Client;
    /// The changes feed of a location.
    ReadChanges: [Owner Manager Cashier] + Terminal + Client;
    ReadReports: [Owner Manager] + Client;
    /// The audit log; without `ReadWholeAudit` its technical rows only.
    ReadAudit: [Owner Manager ItAdmin];
    /// Rows about money, stock and people.
    ReadWholeAudit: [Owner Manager];
}

impl Permission {
    /// As stored and sent, for instance `read_stock`.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
    /// The permission of this name.
    pub fn parse(name: &str) -> Option<Permission> {
        serde_json::from_value(name.into()).ok()
    }
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
                permission.is_held_by(grant.role) && grant.location_id.is_none_or(|granted| granted == location)
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
            Principal::User { grants, .. } => grants.iter().any(|grant| permission.is_held_by(grant.role)),
            Principal::Client { permissions, .. } => permission.is_for_clients() && permissions.contains(&permission),
        }
    }
    /// Whether it holds the permission at every location, present and future.
    pub fn may_everywhere(&self, permission: Permission) -> bool {
        match self {
            Principal::Terminal { .. } => false,
            Principal::User { grants, .. } => {
                grants.iter().any(|grant| permission.is_held_by(grant.role) && grant.location_id.is_none())
            }
            Principal::Client { locations, .. } => self.may_anywhere(permission) && locations.is_none(),
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
        let access = Access { principal: manager, permission: Permission::ManageStock, session: None };
        assert_eq!(access.scope(), Some(vec![here.0]));
        assert_eq!(access.require_object_at(there, "location").unwrap_err().status, 404);
        assert_eq!(access.require_named(there).unwrap_err().status, 403);
        let principal = user(&[(Role::Owner, None)]);
        let owner = Access { principal, permission: Permission::ManageStock, session: None };
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
    fn a_client_holds_what_it_was_given_and_clients_may_hold() {
        let here = LocationId(Uuid::from_u128(10));
        let client = |permissions: &[Permission], locations: Option<&[LocationId]>| Principal::Client {
            client_id: Uuid::from_u128(3),
            permissions: permissions.into(),
            locations: locations.map(Into::into),
        };
        let reader = client(&[Permission::ReadStock, Permission::ManageUsers], Some(&[here]));
        assert!(reader.may(Permission::ReadStock, here));
        assert!(!reader.may(Permission::ReadStock, LocationId(Uuid::from_u128(11))));
        assert!(!reader.may_everywhere(Permission::ReadStock));
        assert!(!reader.may_anywhere(Permission::ManageStock), "not given");
        assert!(!reader.may_anywhere(Permission::ManageUsers), "no client may hold it");
        assert!(client(&[Permission::ReadStock], None).may_everywhere(Permission::ReadStock));
        // Selling is for tills, people, what is known of them and keys are for people.
        use Permission::*;
        for permission in [
            Sell,
            ManageUsers,
            ManageClients,
            OwnAccount,
            LookUpMembers,
            SignUpMembers,
            ReadProfiles,
            EditProfiles,
            ExportMembers,
            MergeMembers,
            EraseMembers,
        ] {
            assert!(!permission.is_for_clients(), "{permission:?}");
        }
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
                OwnAccount
                    | EnrolSecondFactor
                    | ManageClients
                    | ManageLeases
                    | ReadCatalog
                    | ReadLocations
                    | ManageLocations
                    | ReadTerminals
                    | ManageTerminals
                    | ReadAudit
            ));
        }
    }
}
