//! Roles: four that are built in, and those a company makes of the same permissions.

use std::fmt;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Permission;
use crate::limits::{Mode, Rule};

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

/// The role of a grant as it is stored and sent: `owner`, `manager`, `cashier`, `it_admin`, or the id of a role of the
/// company's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RoleName {
    BuiltIn(Role),
    Own(Uuid),
}

impl RoleName {
    /// The role of this name; whether one of the company's own exists is for the database to say.
    pub fn parse(text: &str) -> Option<RoleName> {
        let own = || if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
        Role::parse(text).map(RoleName::BuiltIn).or_else(|| own().map(RoleName::Own))
    }
    pub fn built_in(self) -> Option<Role> {
        match self {
            RoleName::BuiltIn(role) => Some(role),
            RoleName::Own(_) => None,
        }
    }
    pub fn own(self) -> Option<Uuid> {
        match self {
            RoleName::BuiltIn(_) => None,
            RoleName::Own(role_id) => Some(role_id),
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoleName::BuiltIn(role) => f.write_str(role.as_str()),
            RoleName::Own(role_id) => write!(f, "{role_id}"),
        }
    }
}

impl utoipa::PartialSchema for RoleName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        <String as utoipa::PartialSchema>::schema()
    }
}
impl ToSchema for RoleName {}

impl Serialize for RoleName {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RoleName {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = RoleName;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("owner, manager, cashier, it_admin or the id of a role")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RoleName, E> {
                RoleName::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        // As an identifier: parsed here, never kept as a text.
        reader.deserialize_str(Text)
    }
}

/// What a grant gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    BuiltIn(Role),
    Own { name: Arc<str>, rules: Arc<[Rule]> },
}

impl Granted {
    /// Whether it lets its holder through the door of this permission; acts are judged behind it.
    pub fn holds(&self, permission: Permission) -> bool {
        match self {
            Granted::BuiltIn(role) => permission.is_held_by(*role),
            Granted::Own { .. } => self.rule(permission).mode != Mode::Deny,
        }
    }
    /// What it says of this permission.
    pub fn rule(&self, permission: Permission) -> Rule {
        match self {
            Granted::BuiltIn(role) => permission.rule_of(*role),
            Granted::Own { .. } if permission.is_for_everybody() => Rule::new(permission, Mode::Allow),
            Granted::Own { rules, .. } => {
                let found = rules.iter().find(|rule| rule.permission == permission);
                found.cloned().unwrap_or_else(|| Rule::new(permission, Mode::Deny))
            }
        }
    }
    fn name(&self) -> &str {
        match self {
            Granted::BuiltIn(role) => role.as_str(),
            Granted::Own { name, .. } => name,
        }
    }
}

/// Names for the audit row, each once, built-in ones first and the highest of them first.
pub fn names(granted: &[&Granted]) -> String {
    let rank = |it: &Granted| match it {
        Granted::BuiltIn(role) => *role as usize,
        Granted::Own { .. } => Role::ALL.len(),
    };
    let mut names: Vec<(usize, &str)> = granted.iter().map(|it| (rank(it), it.name())).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(",")
}
