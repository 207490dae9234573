//! Who runs a task on the command line, as the audit log names them.

use std::fmt;
use std::str::FromStr;

use nix::unistd::{Uid, User};
use runtime::card_data;

const NAME_CHARS_MAX: usize = 60;

/// An operator: the account that the process runs under and, where several people share it, who of them it was. The
/// account is what the operating system says; the name is what the operator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    account: String,
    name: Option<Name>,
}

impl Operator {
    /// Under the account of this process.
    pub fn here(name: Option<Name>) -> Self {
        let uid = Uid::current();
        let account = User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
        Operator { account, name }
    }
}

/// `operator <account>`, or `operator <name> as <account>`: the role of an audit row.
impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(Name(name)) => write!(f, "operator {name} as {}", self.account),
            None => write!(f, "operator {}", self.account),
        }
    }
}

/// A name given with `--by`: 1 to 60 characters, none of them a control character, no card number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if !(1..=NAME_CHARS_MAX).contains(&text.chars().count()) || text.chars().any(char::is_control) {
            return Err("a name has 1 to 60 characters");
        }
        if card_data::is_in(text) { Err("a name holds no card data") } else { Ok(Name(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_the_account_and_who_says_so() {
        let account = Operator::here(None).to_string();
        assert!(account.len() > "operator ".len(), "{account}");
        let named = Operator::here(Some(" Anna ".parse().unwrap())).to_string();
        assert_eq!(named, account.replace("operator ", "operator Anna as "));
        for bad in ["", " ", "a\nb", &"x".repeat(61), "4111 1111 1111 1111"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
