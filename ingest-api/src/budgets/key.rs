//! Whose a budget is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use schemas::ids::{TerminalId, UserId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::auth::tokens::Subject;

/// One caller of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// A terminal, an API client or a user.
    Subject(Uuid),
    /// The [`network`] of an address.
    Address(IpAddr),
    /// What somebody wants to sign in as, whether it exists or not.
    Account(u128),
}

impl Key {
    pub fn of(subject: Subject) -> Self {
        match subject {
            Subject::Terminal(TerminalId(id), _) | Subject::User(UserId(id)) => Key::Subject(id),
            Subject::Enrolling(UserId(id)) | Subject::Client(id) => Key::Subject(id),
        }
    }

    /// None where the address is not known.
    pub fn address(text: &str) -> Option<Self> {
        text.parse().ok().map(network).map(Key::Address)
    }

    /// A log-in name, or the id of a terminal or an API client. Hashed: people type passwords into the wrong field.
    pub fn account(name: &str) -> Self {
        let digest = Sha256::digest(name);
        let (half, _) = digest.split_at(16);
        Key::Account(half.iter().fold(0, |bits, byte| (bits << 8) | u128::from(*byte)))
    }
}

/// Who an address belongs to: of IPv6 its first 64 bits, which is what one customer of a network is given.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// As it stands in Redis.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Subject(id) => write!(f, "{id}"),
            Key::Address(network) => write!(f, "{network}"),
            Key::Account(bits) => write!(f, "{bits:032x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_is_its_network() {
        let key = |text: &str| Key::address(text).unwrap();
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_eq!(Key::address(""), None);
        assert_eq!(Key::address("proxy"), None);
    }

    #[test]
    fn an_account_is_told_apart_and_not_readable() {
        assert_eq!(Key::account("anna"), Key::account("anna"));
        assert_ne!(Key::account("anna"), Key::account("ben"));
        assert!(!Key::account("anna").to_string().contains("anna"));
    }
}
