//! Card data in a text: card numbers in any spelling, and security codes that are labelled as such. Pure, and the one
//! definition of both for whoever refuses them (the API) and whoever masks them (the log).
//!
//! A card number is 13 to 19 digits with an issuer's prefix and the right check digit (Luhn), alone or in groups: with
//! blanks, dashes or underscores between the groups, or one and the same mark between groups as cards have them. Digits
//! of every script count, and letters and digits in another form (full-width, mathematical, in circles) are the plain ones
//! (NFKC). A longer run of digits is no card number, unless it is one with expiry or security code glued
//! to its end.

mod code;
mod digits;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

pub use code::is_code_name;

use digits::digit;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};

/// Shorter and longer numbers are no card numbers.
const LENGTHS: std::ops::RangeInclusive<usize> = 13..=19;
/// No whole number up to here is a card number.
pub const BELOW_NUMBERS: u64 = 999_999_999_999;
/// What stands in the log instead of a card number.
pub const MASK: &str = "[masked]";

/// Whether the text holds a card number or a labelled security code.
pub fn is_in(text: &str) -> bool {
    if first_number(text).is_some() {
        return true;
    }
    match plain(text) {
        Cow::Borrowed(text) => code::is_in(text),
        Cow::Owned(text) => first_number(&text).is_some() || code::is_in(&text),
    }
}

/// The text in NFKC; borrowed when it is that already, as nearly every text is.
fn plain(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfkc().collect())
}

/// The text with each card number replaced by [`MASK`]; UUIDs stay whole.
pub fn mask(text: &str) -> Cow<'_, str> {
    let (mut masked, mut from) = (String::new(), 0);
    for found in numbers(text).into_iter().filter(|found| !is_in_uuid(text, found)) {
        if found.start >= from {
            masked.push_str(&text[from..found.start]);
            masked.push_str(MASK);
        }
        from = from.max(found.end);
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[from..]);
    Cow::Owned(masked)
}

/// Whether this is how a UUID is written: 36 characters, hyphens at their places, hexadecimal digits between them.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_in_uuid(text: &str, found: &Range<usize>) -> bool {
    let first = found.end.saturating_sub(36);
    (first..=found.start).any(|at| text.get(at..at + 36).is_some_and(is_uuid))
}

/// What stands between two groups of digits of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// Blanks, dashes, underscores, and characters that are not seen.
    Plain,
    /// One mark, however often.
    Mark(char),
    /// Letters, or different marks: what follows is another number.
    End,
}

impl Gap {
    fn and(self, char: char) -> Gap {
        match (self, kind(char)) {
            (gap, Gap::Plain) => gap,
            (Gap::Plain, Gap::Mark(mark)) => Gap::Mark(mark),
            (Gap::Mark(known), Gap::Mark(mark)) if known == mark => self,
            _ => Gap::End,
        }
    }
}

fn kind(char: char) -> Gap {
    let is_dash = matches!(
        char,
        '-' | '_' | '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
    );
    let is_unseen = matches!(char, '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match char {
        _ if is_dash || is_unseen || char.is_whitespace() || char.is_control() => Gap::Plain,
        _ if char.is_alphanumeric() => Gap::End,
        _ => Gap::Mark(char),
    }
}

/// Digits without anything between them.
struct Group {
    /// What stands before it.
    gap: Gap,
    /// Its digits, counted over the whole text.
    digits: Range<usize>,
}

/// The digits of a text, in groups.
#[derive(Default)]
struct Digits {
    values: Vec<u8>,
    /// Where each stands, in bytes.
    places: Vec<Range<usize>>,
    groups: Vec<Group>,
}

impl Digits {
    fn of(text: &str) -> Digits {
        let mut all = Digits::default();
        let mut gap = Gap::End;
        let mut is_inside = false;
        for (at, char) in text.char_indices() {
            let Some(value) = digit(char) else {
                gap = if is_inside { kind(char) } else { gap.and(char) };
                is_inside = false;
                continue;
            };
            if !is_inside {
                all.groups.push(Group { gap, digits: all.values.len()..all.values.len() });
            }
            all.values.push(value);
            all.places.push(at..at + char.len_utf8());
            if let Some(group) = all.groups.last_mut() {
                group.digits.end += 1;
            }
            is_inside = true;
        }
        all
    }

    /// The digits of the card number that begins with this group: the longest one.
    fn number_at(&self, first: usize) -> Option<Range<usize>> {
        let start = self.groups[first].digits.start;
        let mut longest = glued(&self.values[self.groups[first].digits.clone()]).map(|length| start..start + length);
        let mut between = None;
        for (i, group) in self.groups.iter().enumerate().skip(first) {
            if i > first && (!self.may_join(i) || *between.get_or_insert(group.gap) != group.gap) {
                break;
            }
            let candidate = start..group.digits.end;
            if candidate.len() > *LENGTHS.end() {
                break;
            }
            if is_card_number(&self.values[candidate.clone()]) {
                longest = Some(candidate);
            }
        }
        longest
    }

    /// Whether this group may go on with the number of the one before it. Points, slashes and commas stand in lists,
    /// dates and amounts too, so there the group before must be as long as the groups on cards.
    fn may_join(&self, group: usize) -> bool {
        match self.groups[group].gap {
            Gap::End => false,
            Gap::Plain => true,
            Gap::Mark(_) => {
                let is_usual = |group: &Group, least| (least..=6).contains(&group.digits.len());
                is_usual(&self.groups[group - 1], 4) && is_usual(&self.groups[group], 1)
            }
        }
    }

    fn numbers(&self) -> impl Iterator<Item = Range<usize>> {
        let found = (0..self.groups.len()).filter_map(|first| self.number_at(first));
        found.map(|digits| self.places[digits.start].start..self.places[digits.end - 1].end)
    }
}

/// Most texts have too few digits to be looked at closely.
fn may_hold_number(text: &str) -> bool {
    text.len() >= *LENGTHS.start()
        && text.bytes().filter(|byte| byte.is_ascii_digit() || !byte.is_ascii()).count() >= *LENGTHS.start()
}

fn first_number(text: &str) -> Option<Range<usize>> {
    if may_hold_number(text) { Digits::of(text).numbers().next() } else { None }
}

/// Where card numbers stand, in bytes, in order of their beginning.
fn numbers(text: &str) -> Vec<Range<usize>> {
    if may_hold_number(text) { Digits::of(text).numbers().collect() } else { Vec::new() }
}

fn is_card_number(digits: &[u8]) -> bool {
    LENGTHS.contains(&digits.len()) && has_issuer(digits) && is_luhn(digits)
}

/// The number made of the first `count` digits.
fn prefix(digits: &[u8], count: usize) -> u32 {
    digits.iter().take(count).fold(0, |number, digit| number * 10 + u32::from(*digit))
}

/// Whether cards of this length begin like this. Generous where cards are (15 to 19 digits from 3 to 6), exact where
/// barcodes and telephone numbers are.
fn has_issuer(digits: &[u8]) -> bool {
    let (one, two, three, four) = (prefix(digits, 1), prefix(digits, 2), prefix(digits, 3), prefix(digits, 4));
    let is_maestro = matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763);
    match digits.len() {
        13 => one == 4 || is_maestro,
        14 => matches!(two, 36 | 38 | 39) || matches!(three, 300..=305) || four == 3095 || is_maestro,
        15 if one == 1 => true,
        _ => {
            matches!(one, 3..=6)
                || matches!(two, 81 | 82)
                || matches!(four, 1946 | 2200..=2205 | 2221..=2720 | 8600 | 9792 | 9860)
        }
    }
}

/// The length of a card number with three or four digits of a code, the four of an expiry or both glued to it.
fn glued(group: &[u8]) -> Option<usize> {
    let is_usual = |length: usize| match length {
        15 => matches!(prefix(group, 2), 34 | 37),
        _ => matches!(prefix(group, 2), 40..=49 | 51..=55) || matches!(prefix(group, 4), 2221..=2720),
    };
    [16, 15].into_iter().find(|length| {
        let rest = group.len().saturating_sub(*length);
        matches!(rest, 3 | 4 | 7 | 8) && is_usual(*length) && is_luhn(&group[..*length])
    })
}

fn is_luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let places = digits.iter().rev().enumerate();
    let sum: u32 = places.map(|(place, digit)| u32::from(if place % 2 == 0 { *digit } else { doubled(*digit) })).sum();
    sum.is_multiple_of(10)
}
