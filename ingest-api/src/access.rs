//! Who may do what, where: the one table of permissions, and the check each route goes through.
//!
//! A route declares exactly one [`Permission`]. The layer in `guard.rs` finds out who asks, refuses
//! whoever does not hold it anywhere (403, audited), and hands the handler an [`Access`], which answers
//! "here too?" for each location named in a path (404), a body or a query (403).

mod principal;
mod role;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::principal::{Access, Grant, Principal};
pub use self::role::{Granted, Role, RoleName, names as role_names};
use crate::limits::{Mode, Rule};

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
    /// Promotions and coupons: company-wide, so the grant must be too.
    ManagePromotions: [Owner Manager] + Client;
    /// Loyalty programs: what points are worth, company-wide.
    ManageLoyalty: [Owner Manager];
    ReadLocations: [Owner Manager Cashier ItAdmin] + Terminal + Client;
    ManageLocations: [Owner ItAdmin];
    ReadUsers: [Owner Manager];
    ReadRoles: [Owner Manager];
    /// Roles of the company's own; nobody gives one more than they hold everywhere.
    ManageRoles: [Owner];
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
    /// Receipts and thresholds.
    ManageStock: [Owner Manager] + Client;
    /// An act: stock that changed for another reason; its amount is what the goods cost.
    AdjustStock: [Owner Manager] + Client;
    Quote: [Owner Manager Cashier] + Terminal + Client;
    /// A terminal commits sales; the cashier it names must hold this at its location.
    Sell: [Owner Manager Cashier] + Terminal;
    /// An act: a price set by hand; its amount is the difference to the list price.
    OverridePrice: [Owner Manager Cashier];
    /// An act: a discount on a line; its amount is what it takes off.
    DiscountLines: [Owner Manager Cashier];
    /// An act, and the way to exchanges: goods come back; its amount is what is paid out for them.
    Refund: [Owner Manager Cashier] + Terminal;
    /// An act: money goes back to another tender than those that paid; its amount is what goes elsewhere.
    RefundToOtherTender: [Owner Manager Cashier];
    /// An act: a receipt number that is given up before anything was sold under it.
    Void: [Owner Manager Cashier] + Terminal;
    /// Acts of others that go beyond their limits, up to one's own; at a till with a PIN.
    ApproveActs: [Owner Manager] + Terminal;
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
    /// Whether it is an act: judged each time it is done, by amount and number.
    pub fn is_act(self) -> bool {
        Permission::ACTS.iter().any(|(act, _)| *act == self)
    }
    /// Whether a role of the company's own may be given it; what everybody needs for their own account, it has anyway.
    pub fn is_for_roles(self) -> bool {
        !self.roles().is_empty() && !self.is_for_everybody()
    }
    fn is_for_everybody(self) -> bool {
        matches!(self, Permission::OwnAccount | Permission::EnrolSecondFactor)
    }

    /// The acts, each with the built-in roles that hold it within limits; others that hold it have none.
    pub const ACTS: &[(Permission, &[(Role, Limit)])] = &[
        (Permission::OverridePrice, &[(Role::Cashier, Limit::Approval)]),
        (Permission::DiscountLines, &[(Role::Cashier, Limit::UpTo { percent: 20, per_shift: 20 })]),
        (Permission::AdjustStock, &[]),
        (Permission::Refund, &[(Role::Cashier, Limit::UpToUnits { units: 50, per_shift: 3 })]),
        (Permission::RefundToOtherTender, &[(Role::Cashier, Limit::Approval)]),
        (Permission::Void, &[(Role::Cashier, Limit::Approval)]),
    ];

    /// What a built-in role may do of it.
    pub fn rule_of(self, role: Role) -> Rule {
        let limits = Permission::ACTS.iter().find(|(act, _)| *act == self).map_or(&[][..], |(_, limits)| *limits);
        let limit = limits.iter().find(|(limited, _)| *limited == role).map(|(_, limit)| limit);
        match limit {
            _ if !self.is_held_by(role) => Rule::new(self, Mode::Deny),
            None => Rule::new(self, Mode::Allow),
            Some(Limit::Approval) => Rule::new(self, Mode::Approval),
            Some(Limit::UpTo { percent, per_shift }) => {
                Rule { percent_max: Some(*percent), per_shift: Some(*per_shift), ..Rule::new(self, Mode::Allow) }
            }
            Some(Limit::UpToUnits { units, per_shift }) => {
                Rule { units_max: Some(*units), per_shift: Some(*per_shift), ..Rule::new(self, Mode::Allow) }
            }
        }
    }
}

/// How a built-in role is limited: in percent, which means the same in every currency, or in whole units of the currency
/// of the document, of which every currency has its own.
pub enum Limit {
    /// Each time with an approval.
    Approval,
    UpTo {
        percent: i64,
        per_shift: i64,
    },
    /// 50 are 50.00 in EUR, 50 in JPY, 50.000 in KWD.
    UpToUnits {
        units: i64,
        per_shift: i64,
    },
}
