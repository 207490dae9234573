//! E-mail addresses.

use std::str::FromStr as _;

use email_address::EmailAddress;
use unicode_normalization::UnicodeNormalization as _;

const CHARS_MAX: usize = 254;

/// The one spelling of an address: NFC, in lower case. Servers may tell cases apart; people and shops do not.
pub fn normalised(text: &str) -> Option<String> {
    if text.len() > CHARS_MAX * 4 {
        return None;
    }
    let text: String = text.trim().nfc().collect::<String>().to_lowercase();
    let address = EmailAddress::from_str(&text).ok()?;
    let is_usual = text.len() <= CHARS_MAX && address.domain().contains('.') && address.email() == text;
    (is_usual && !text.contains(['"', '[', ' ', '<'])).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        assert_eq!(normalised(" Anna.Smith+tea@Example.COM ").as_deref(), Some("anna.smith+tea@example.com"));
        assert_eq!(normalised("cafe\u{301}@example.fr"), normalised("CAF\u{c9}@example.fr"));
        for bad in [
            "",
            "anna",
            "@example.com",
            "anna@",
            "anna@localhost",
            "a b@example.com",
            "Anna <a@example.com>",
            "\"a b\"@example.com",
            "a@[127.0.0.1]",
            &"a".repeat(2000),
        ] {
            assert_eq!(normalised(bad), None, "{bad}");
        }
    }
}
