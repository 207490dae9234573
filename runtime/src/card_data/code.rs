//! Security codes of cards (the three or four digits that are not on the stripe): by their label in a text, by the
//! name of a field. A bare number of three digits cannot be told from any other.

use super::digits::digit;
use super::plain;

/// Words that say it alone.
const LABELS: &[&str] = &[
    "cvv",
    "cvc",
    "cvn",
    "csc",
    "cvvcode",
    "cvccode",
    "securitycode",
    "kartenprüfnummer",
    "kartenpruefnummer",
    "prüfnummer",
    "pruefnummer",
    "sicherheitscode",
    "beveiligingscode",
    "cryptogramme",
];
/// Words that say it together.
const PHRASES: &[&[&str]] = &[
    &["security", "code"],
    &["card", "code"],
    &["card", "verification"],
    &["verification", "value"],
    &["code", "de", "sécurité"],
    &["code", "de", "securite"],
    &["código", "de", "seguridad"],
    &["codigo", "de", "seguridad"],
    &["código", "de", "segurança"],
    &["codice", "di", "sicurezza"],
];
/// What may stand between a label and its code.
const FILLERS: &[&str] = &[
    "is", "was", "ist", "est", "es", "the", "of", "on", "card", "code", "no", "nr", "num", "number", "nummer", "value",
];
const FILLERS_MAX: usize = 6;

/// Names of fields that are made to hold what must never be sent: codes, tracks, PIN blocks.
const NAMES: &[&str] = &[
    "cvv",
    "cvv2",
    "cvc",
    "cvc2",
    "cvn",
    "cvn2",
    "csc",
    "cid",
    "cav",
    "cav2",
    "cvd",
    "cvvcode",
    "cvccode",
    "cardcvv",
    "cardcvc",
    "cardcode",
    "securitycode",
    "cardsecuritycode",
    "verificationvalue",
    "cardverificationvalue",
    "cardverificationcode",
    "kartenprüfnummer",
    "prüfnummer",
    "sicherheitscode",
    "track1",
    "track2",
    "track1data",
    "track2data",
    "trackdata",
    "magstripe",
    "pinblock",
    "pan",
    "cardnumber",
    "primaryaccountnumber",
];

/// Whether a field of this name could only be there for card data.
pub fn is_code_name(name: &str) -> bool {
    let name = plain(name);
    let letters: String = name.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    NAMES.contains(&letters.as_str())
}

enum Token<'a> {
    Word(&'a str),
    /// So many digits without anything between them.
    Digits(usize),
}

/// Whether a security code stands after or right before its label, in a text in NFKC.
pub(super) fn is_in(text: &str) -> bool {
    if !may_hold_code(text) {
        return false;
    }
    let tokens = tokens(text);
    (0..tokens.len()).any(|at| {
        let Some(words) = label_at(&tokens, at) else { return false };
        let is_before = at > 0 && is_code(&tokens[at - 1]);
        is_before || is_followed(&tokens[at + words..])
    })
}

/// Most texts have no number of three or four digits.
fn may_hold_code(text: &str) -> bool {
    let mut length = 0;
    let ends = text.chars().map(digit).chain([None]).any(|digit| {
        let is_end = digit.is_none() && matches!(length, 3 | 4);
        length = if digit.is_some() { length + 1 } else { 0 };
        is_end
    });
    ends && text.len() >= 6
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_digit = digit(first).is_some();
        let same = |char: char| {
            if is_digit { digit(char).is_some() } else { char.is_alphabetic() && digit(char).is_none() }
        };
        let end = rest.find(|char| !same(char)).unwrap_or(rest.len());
        match (end, is_digit) {
            (0, _) => rest = &rest[first.len_utf8()..],
            (_, true) => tokens.push(Token::Digits(rest[..end].chars().count())),
            (_, false) => tokens.push(Token::Word(&rest[..end])),
        }
        rest = &rest[end..];
    }
    tokens
}

fn is_word(token: Option<&Token>, word: &str) -> bool {
    matches!(token, Some(Token::Word(found)) if found.len() == word.len() && found.to_lowercase() == word)
}

/// How many tokens the label that begins here has.
fn label_at(tokens: &[Token], at: usize) -> Option<usize> {
    if LABELS.iter().any(|label| is_word(tokens.get(at), label)) {
        return Some(1);
    }
    let is_phrase = |phrase: &&&[&str]| phrase.iter().enumerate().all(|(i, word)| is_word(tokens.get(at + i), word));
    PHRASES.iter().find(is_phrase).map(|phrase| phrase.len())
}

fn is_code(token: &Token) -> bool {
    matches!(token, Token::Digits(3 | 4))
}

/// After a label: perhaps its version (`CVV2`), a few words, the code.
fn is_followed(after: &[Token]) -> bool {
    let after = match after {
        [Token::Digits(1), rest @ ..] => rest,
        _ => after,
    };
    let is_filler = |token: &Token| FILLERS.iter().any(|filler| is_word(Some(token), filler));
    let skipped = after.iter().take(FILLERS_MAX).take_while(|token| is_filler(token)).count();
    after.get(skipped).is_some_and(is_code)
}
