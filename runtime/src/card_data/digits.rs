//! Digits of every script.

/// First character, its value, and how many follow in order; beyond nine they begin again at zero. From the Unicode
/// character database: everything with a digit value.
const RUNS: &[(u32, u8, u32)] = &[
    (0xb2, 2, 2),
    (0xb9, 1, 1),
    (0x660, 0, 10),
    (0x6f0, 0, 10),
    (0x7c0, 0, 10),
    (0x966, 0, 10),
    (0x9e6, 0, 10),
    (0xa66, 0, 10),
    (0xae6, 0, 10),
    (0xb66, 0, 10),
    (0xbe6, 0, 10),
    (0xc66, 0, 10),
    (0xce6, 0, 10),
    (0xd66, 0, 10),
    (0xde6, 0, 10),
    (0xe50, 0, 10),
    (0xed0, 0, 10),
    (0xf20, 0, 10),
    (0x1040, 0, 10),
    (0x1090, 0, 10),
    (0x1369, 1, 9),
    (0x17e0, 0, 10),
    (0x1810, 0, 10),
    (0x1946, 0, 10),
    (0x19d0, 0, 10),
    (0x19da, 1, 1),
    (0x1a80, 0, 10),
    (0x1a90, 0, 10),
    (0x1b50, 0, 10),
    (0x1bb0, 0, 10),
    (0x1c40, 0, 10),
    (0x1c50, 0, 10),
    (0x2070, 0, 1),
    (0x2074, 4, 6),
    (0x2080, 0, 10),
    (0x2460, 1, 9),
    (0x2474, 1, 9),
    (0x2488, 1, 9),
    (0x24ea, 0, 1),
    (0x24f5, 1, 9),
    (0x24ff, 0, 1),
    (0x2776, 1, 9),
    (0x2780, 1, 9),
    (0x278a, 1, 9),
    (0xa620, 0, 10),
    (0xa8d0, 0, 10),
    (0xa900, 0, 10),
    (0xa9d0, 0, 10),
    (0xa9f0, 0, 10),
    (0xaa50, 0, 10),
    (0xabf0, 0, 10),
    (0xff10, 0, 10),
    (0x104a0, 0, 10),
    (0x10a40, 1, 4),
    (0x10d30, 0, 10),
    (0x10d40, 0, 10),
    (0x10e60, 1, 9),
    (0x11052, 1, 9),
    (0x11066, 0, 10),
    (0x110f0, 0, 10),
    (0x11136, 0, 10),
    (0x111d0, 0, 10),
    (0x112f0, 0, 10),
    (0x11450, 0, 10),
    (0x114d0, 0, 10),
    (0x11650, 0, 10),
    (0x116c0, 0, 10),
    (0x116d0, 0, 20),
    (0x11730, 0, 10),
    (0x118e0, 0, 10),
    (0x11950, 0, 10),
    (0x11bf0, 0, 10),
    (0x11c50, 0, 10),
    (0x11d50, 0, 10),
    (0x11da0, 0, 10),
    (0x11f50, 0, 10),
    (0x16a60, 0, 10),
    (0x16ac0, 0, 10),
    (0x16b50, 0, 10),
    (0x16d70, 0, 10),
    (0x1ccf0, 0, 10),
    (0x1d7ce, 0, 50),
    (0x1e140, 0, 10),
    (0x1e2f0, 0, 10),
    (0x1e4f0, 0, 10),
    (0x1e5f1, 0, 10),
    (0x1e950, 0, 10),
    (0x1f100, 0, 1),
    (0x1f101, 0, 10),
    (0x1fbf0, 0, 10),
];

/// The value of a digit in any script: full-width, superscript, circled and mathematical ones too.
pub(super) fn digit(char: char) -> Option<u8> {
    if char.is_ascii() {
        return char.is_ascii_digit().then(|| char as u8 - b'0');
    }
    let code = char as u32;
    let after = RUNS.partition_point(|(first, ..)| *first <= code);
    let (first, value, count) = *RUNS.get(after.checked_sub(1)?)?;
    let place = code - first;
    (place < count).then(|| ((u32::from(value) + place) % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_counts() {
        for (text, value) in [("7", 7), ("７", 7), ("٧", 7), ("७", 7), ("⑦", 7), ("𝟕", 7), ("𝟽", 7), ("⁷", 7), ("²", 2)]
        {
            assert_eq!(text.chars().next().and_then(digit), Some(value), "{text}");
        }
        for other in ['a', ' ', 'Ⅶ', '七', '½', '\u{10ffff}'] {
            assert_eq!(digit(other), None, "{other}");
        }
        assert!(RUNS.is_sorted_by(|one, next| one.0 + one.2 <= next.0));
    }
}
