//! Telephone numbers.

use serde::Deserialize;

/// A number as it was sent. The name of this type tells the card filter that it may look like a card number.
#[derive(Clone, Deserialize)]
pub struct Phone(pub String);

/// The one spelling of a number in international form (`+49 30 901820` is `+4930901820`); none when it begins without
/// `+`, or is not a number of its country.
pub fn normalised(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.starts_with('+') || text.len() > 40 {
        return None;
    }
    let number = phonenumber::parse(None, text).ok()?;
    let is_plain = number.extension().is_none() && phonenumber::is_valid(&number);
    is_plain.then(|| number.format().mode(phonenumber::Mode::E164).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        for text in ["+49 30 901820", "+4930901820", " +49 (30) 90-18-20 ", "+49 30 / 901820"] {
            assert_eq!(normalised(text).as_deref(), Some("+4930901820"), "{text}");
        }
        for bad in [
            "",
            "030 901820",
            "+",
            "+49",
            "+4111111111111111",
            "+1 555",
            "hello",
            "+49 30 901820 ext. 5",
            &"+4".repeat(500),
        ] {
            assert_eq!(normalised(bad), None, "{bad}");
        }
    }
}
