use super::*;
use proptest::prelude::*;

/// Test numbers of the card networks, and a few more by their rules.
const NUMBERS: &[&str] = &[
    "4111111111111111",
    "4012888888881881",
    "4222222222222",
    "5555555555554444",
    "5105105105105100",
    "2223003122003222",
    "378282246310005",
    "371449635398431",
    "6011111111111117",
    "3530111333300000",
    "30569309025904",
    "38520000023237",
    "6200000000000005",
    "6759649826438453",
    "2200000000000004",
    "4000000000000000006",
];

/// The number with its check digit; `digits` are all but the last.
fn with_check(digits: &[u8]) -> Vec<u8> {
    let check = (0..10).find(|check| is_luhn(&[digits, &[*check]].concat())).unwrap();
    [digits, &[check]].concat()
}

fn text(digits: &[u8]) -> String {
    digits.iter().map(|digit| char::from(b'0' + digit)).collect()
}

#[test]
fn numbers_are_found_in_every_spelling() {
    for number in NUMBERS {
        let grouped = |between: &str| {
            let groups: Vec<_> = number.as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap()).collect();
            groups.join(between)
        };
        let spaced: String = number.chars().flat_map(|digit| [digit, ' ']).collect();
        let wide: String =
            number.bytes().map(|digit| char::from_u32(0xff10 + u32::from(digit - b'0')).unwrap()).collect();
        let arabic: String =
            number.bytes().map(|digit| char::from_u32(0x660 + u32::from(digit - b'0')).unwrap()).collect();
        for spelling in [
            (*number).to_owned(),
            grouped(" "),
            grouped("-"),
            grouped("."),
            grouped("/"),
            grouped("\u{a0}"),
            grouped("\u{2013}"),
            grouped("\u{200b}"),
            grouped(" - "),
            grouped("_"),
            grouped("\n"),
            spaced,
            wide,
            arabic,
            format!("card {number}, thanks"),
            format!("x{number}y"),
            format!("12 {number} 123"),
            format!("{number}=2712"),
            format!("{number} 12/27 123"),
            format!("%B{number}^DOE/JANE^2712"),
            // What NFKC makes of these is one digit after the number, or one mark for two.
            format!("{number}½"),
            grouped("\u{2003}"),
            grouped("\u{ff0e}"),
        ] {
            assert!(is_in(&spelling), "{spelling}");
        }
    }
    for glued in ["4111111111111111123", "41111111111111112712", "3782822463100051234", "41111111111111112712123"] {
        assert!(is_in(glued), "{glued}");
    }
}

#[test]
fn other_numbers_are_not() {
    for number in [
        "",
        "4111111111111112",
        "411111111111",
        "0000000000000000",
        "9999999999999995",
        "2026-11-22 10:15:00.123456",
        "20261122101500",
        "1795341300123456",
        "1795341300123",
        "203.0.113.195, 70.41.3.18, 150.172.238.178",
        "1,234,567.89",
        "4111 1111 abc 1111 1111",
        "0049 30 1234567",
        "411111111111111100000000000000000",
        "４１１１１１１１１１１１１１１２",
        "10 x 12 x 500",
        "2131,368,32053127496,873902,1.0,1.59",
        "400,000,000,000,000,6",
    ] {
        assert!(!is_in(number), "{number}");
    }
}

#[test]
fn codes_are_found_by_their_label() {
    for text in [
        "cvv 123",
        "CVV: 123",
        "cvv2=1234",
        "CVC123",
        "cvc is 999",
        "security code 123",
        "Security-Code: 0123",
        "123 cvv",
        "(123) CVC",
        "Prüfnummer 123",
        "KARTENPRÜFNUMMER 123",
        "code de sécurité : 123",
        "código de seguridad 123",
        "ＣＶＶ 123",
        "ｃｖｖ２：１２３",
        "１２３　ＣＶＣ",
        "Ｓｅｃｕｒｉｔｙ　Ｃｏｄｅ　１２３",
        "𝐜𝐯𝐯 𝟏𝟐𝟑",
        "ⓒⓥⓥ ①②③",
        "pru\u{308}fnummer 123",
        "the cvv code on the card is 123",
        "csc:1234",
    ] {
        assert!(is_in(text), "{text}");
    }
    for text in [
        "cvv",
        "cvv 12",
        "cvv 12345",
        "123",
        "csv 123",
        "cvvx 123",
        "ＣＳＶ 123",
        "ＣＶＶ ½",
        "postal code 1234",
        "security guard 123",
        "recvv 123",
    ] {
        assert!(!is_in(text), "{text}");
    }
    for name in ["cvv", "CVV2", "card_cvc", "security-code", "cardSecurityCode", "track_2", "pan", "ＣＶＶ", "ｐａｎ"]
    {
        assert!(is_code_name(name), "{name}");
    }
    for name in ["name", "code", "card", "customer_id", "receipt", "company", "span"] {
        assert!(!is_code_name(name), "{name}");
    }
}

#[test]
fn the_mask_leaves_everything_else() {
    assert_eq!(mask("paid by 4111 1111 1111 1111, twice: 5555555555554444."), "paid by [masked], twice: [masked].");
    assert_eq!(mask("4111111111111111"), MASK);
    let id = "41111111-1111-4111-8111-111111111111";
    assert!(is_in(&id.replace("41111111-1111-4111", "41111111-1111-1111")), "digits of a UUID can be a card number");
    let id = format!("sale {} done", id.replace("41111111-1111-4111", "41111111-1111-1111"));
    assert!(matches!(mask(&id), Cow::Borrowed(same) if same == id));
    assert!(matches!(mask("nothing to see"), Cow::Borrowed(_)));
}

prop_compose! {
    /// A card number by rule: any usual prefix, any length that goes with it.
    fn number()(
        (prefix, length) in prop_oneof![
            (Just("4"), prop_oneof![Just(13usize), Just(16), Just(19)]), (Just("34"), Just(15usize)), (Just("37"), Just(15usize)),
            (Just("51"), Just(16usize)), (Just("55"), Just(16usize)), (Just("2221"), Just(16usize)), (Just("2720"), Just(16usize)),
            (Just("6011"), 16..=19usize), (Just("65"), 16..=19usize), (Just("36"), 14..=19usize), (Just("3528"), 16..=19usize),
            (Just("62"), 16..=19usize), (Just("6759"), 13..=19usize), (Just("2200"), 16..=19usize), (Just("60"), Just(16usize)),
        ],
        middle in prop::collection::vec(0..10u8, 19),
    ) -> Vec<u8> {
        let mut digits: Vec<u8> = prefix.bytes().map(|byte| byte - b'0').collect();
        digits.extend(&middle[..length - 1 - digits.len()]);
        with_check(&digits)
    }
}

proptest! {
    #[test]
    fn a_number_is_found_wherever_blanks_and_dashes_stand(
        digits in number(),
        gaps in prop::collection::vec(prop::sample::select(vec!["", "", " ", "-", "\u{2011}", "  ", " - ", "_"]), 19),
        before in "[a-zA-Z(:#]{0,5}", after in "[a-zA-Z);,!]{0,5}",
    ) {
        let spelt: String = digits.iter().zip(&gaps).map(|(digit, gap)| format!("{digit}{gap}")).collect();
        let whole = format!("{before}{}{after}", spelt.trim_end_matches(|char: char| !char.is_ascii_digit()));
        prop_assert!(is_in(&whole), "{whole}");
        prop_assert!(mask(&whole).contains(MASK));
    }

    #[test]
    fn one_wrong_digit_and_it_is_none(digits in number(), place in 0..19usize, by in 1..10u8) {
        let mut wrong = digits.clone();
        let place = place % wrong.len();
        wrong[place] = (wrong[place] + by) % 10;
        prop_assume!(glued(&wrong).is_none());
        prop_assert!(first_number(&text(&wrong)).is_none(), "{}", text(&wrong));
    }

    #[test]
    fn nothing_breaks_it_and_what_is_masked_is_clean(any in "\\PC*") {
        let masked = mask(&any).into_owned();
        prop_assert_eq!(mask(&masked), masked.as_str());
        prop_assert_eq!(first_number(&any).is_none(), masked == any);
    }

    #[test]
    fn numbers_among_numbers(digits in number(), before in "[0-9]{1,4} ", after in " [0-9]{1,4}") {
        let whole = format!("{before}{}{after}", text(&digits));
        prop_assert!(is_in(&whole));
    }
}
