//! Finds numbers in bytes, however their digits are spaced and in ASCII or full-width.

use std::collections::HashSet;

/// Numbers of 15 to 19 digits.
#[derive(Default)]
pub struct Needles {
    /// Length and value.
    numbers: HashSet<(u32, u64)>,
}

const LENGTHS: std::ops::RangeInclusive<u32> = 15..=19;

impl Needles {
    pub fn add(&mut self, number: &str) {
        let length = u32::try_from(number.len()).unwrap();
        assert!(LENGTHS.contains(&length), "{number}");
        self.numbers.insert((length, number.parse().unwrap()));
    }

    /// How many of them stand in these bytes.
    pub fn hits(&self, bytes: &[u8]) -> usize {
        let (mut digits, mut last, mut hits, mut at) = (0u32, 0u128, 0, 0);
        while at < bytes.len() {
            let (digit, width) = match &bytes[at..] {
                [byte @ b'0'..=b'9', ..] => (Some(byte - b'0'), 1),
                [0xef, 0xbc, byte @ 0x90..=0x99, ..] => (Some(byte - 0x90), 3),
                [b' ' | b'-', ..] => {
                    at += 1;
                    continue;
                }
                _ => (None, 1),
            };
            at += width;
            let Some(digit) = digit else {
                digits = 0;
                continue;
            };
            digits += 1;
            last = (last * 10 + u128::from(digit)) % 10u128.pow(*LENGTHS.end());
            if digits >= *LENGTHS.start() {
                hits += LENGTHS.take_while(|length| *length <= digits).filter(|length| self.has(*length, last)).count();
            }
        }
        hits
    }

    fn has(&self, length: u32, last: u128) -> bool {
        u64::try_from(last % 10u128.pow(length)).is_ok_and(|value| self.numbers.contains(&(length, value)))
    }
}

#[test]
fn numbers_are_found_in_every_spelling() {
    let mut needles = Needles::default();
    needles.add("4111111111111111");
    for text in [
        "4111111111111111",
        "x 4111 1111-1111 1111 y",
        "９4111111111111111",
        "４１１１１１１１１１１１１１１１",
        "12 4111111111111111 cvv 123",
    ] {
        assert_eq!(needles.hits(text.as_bytes()), 1, "{text}");
    }
    for text in ["", "411111111111111", "4111111111111112", "4111x111111111111"] {
        assert_eq!(needles.hits(text.as_bytes()), 0, "{text}");
    }
}
