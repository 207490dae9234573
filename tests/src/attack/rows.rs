//! The attack matrix, one entry per row: what is tried, and by which function; or what the row waits for.

use anyhow::Result;
use futures::future::BoxFuture;

use super::ground::Ground;
use super::trial::Trial;
use super::{
    bodies, coupons, idempotency, money, outside, points, records, refresh, returns, scope, second_factor, sign_in,
    sockets, texts, timing, tokens,
};

/// Tries one row; an error is an attack that could not even be made.
pub type Try = for<'a> fn(&'a Ground, &'a mut Trial) -> BoxFuture<'a, Result<()>>;

#[derive(Clone, Copy)]
pub enum State {
    /// In both forms.
    Tried(Try),
    /// In the full form only: it measures, and takes minutes.
    Measured(Try),
    /// There is nothing yet that it could attack.
    Waits(&'static str),
}

pub struct Row {
    /// 1 to [`LAST`]: `A1` to `A72`.
    pub number: u8,
    pub what: &'static str,
    pub state: State,
}

/// The matrix ends with A72.
pub const LAST: u8 = 72;

macro_rules! rows {
    ($($number:literal $what:literal $kind:ident $($module:ident::$function:ident)? $(($for:literal))?;)*) => {
        /// Every row, in order.
        pub const ROWS: &[Row] = &[$(Row {
            number: $number,
            what: $what,
            state: State::$kind($(|ground, trial| Box::pin($module::$function(ground, trial)))? $($for)?),
        }),*];
    };
}

rows! {
    1 "no token, a garbage token" Tried tokens::missing_or_garbage;
    2 "a token without a signature: alg none, nOnE" Tried tokens::unsigned;
    3 "HS256 signed with the public key" Tried tokens::signed_with_the_public_key;
    4 "exp, nbf, iat as text, list, 1e400, below zero" Tried tokens::times_of_other_kinds;
    5 "expired, not valid yet, a claim missing or of others" Tried tokens::outside_their_time_or_incomplete;
    6 "kid as path, SQL, URL; jku, x5u, jwk" Tried tokens::keys_from_elsewhere;
    7 "a refresh token as access token, and so on" Tried tokens::tokens_in_the_place_of_others;
    8 "a refresh token shown after it was spent" Tried refresh::spent_and_shown_again;
    9 "a hundred refreshes of one token at once" Tried refresh::a_hundred_at_once;
    10 "the refresh token before the last, within the grace" Tried refresh::the_one_before_the_last;
    11 "an access token after log-out, role cut, disablement" Tried sign_in::after_it_was_taken_away;
    12 "the 11th wrong password; the right one while locked" Tried sign_in::guessed_until_locked;
    13 "one password at many names from one address" Tried sign_in::many_names_from_one_address;
    14 "times of log-ins with known and unknown names" Measured timing::known_and_unknown_names;
    15 "passwords of 1 MB, with NUL, unpaired, of 65 characters" Tried sign_in::odd_passwords;
    16 "a code of the second factor twice, old, guessed" Tried second_factor::codes_used_twice_old_and_guessed;
    17 "one code fifty times at once" Tried second_factor::one_code_fifty_times_at_once;
    18 "administration after the first step only" Tried tokens::after_the_first_step_only;
    19 "changing the second factor without a fresh proof" Tried second_factor::without_a_fresh_proof;
    20 "people and tills of A on objects of B, every route" Tried scope::objects_of_another_location;
    21 "location B in the body, A in the token" Tried scope::another_location_in_the_body;
    22 "a cashier doing what managers do" Tried scope::acts_of_a_manager;
    23 "a socket that listens to a foreign room" Waits("realtime");
    24 "a socket's origin, frames too large or too many" Waits("realtime");
    25 "fields that nobody may set" Tried scope::fields_that_nobody_sets;
    26 "totals, discounts, amounts that differ" Tried money::figures_that_differ;
    27 "quantities 0, -1, 2^31, 2^63, 1.5, text, NaN, 1e309" Tried money::quantities_that_cannot_be;
    28 "amounts and sums at the edge of 64 bits" Tried money::amounts_that_run_over;
    29 "refunds above what remains, fifty at once" Tried returns::more_than_remains;
    30 "points redeemed in fifty sales at once" Tried points::redeemed_fifty_times_at_once;
    31 "a coupon twice at once" Tried coupons::used_fifty_times_at_once;
    32 "a return at another location, of nothing, twice" Tried returns::at_another_location;
    33 "a stale If-Match, none" Tried scope::edits_of_what_has_changed;
    34 "a transfer received twice, or more than was shipped" Waits("transfers");
    35 "no Idempotency-Key" Tried idempotency::no_key;
    36 "another body under the same key" Tried idempotency::another_body_under_the_same_key;
    37 "the key of another principal" Tried idempotency::the_key_of_somebody_else;
    38 "fifty twins at once" Tried idempotency::fifty_twins;
    39 "keys that are too long, empty, broken, two" Tried idempotency::keys_that_are_none;
    40 "the id of somebody else's sale" Tried idempotency::the_identifier_of_another_sale;
    41 "broken JSON, keys twice, a BOM, 10,000 deep" Tried bodies::broken_json;
    42 "2 MiB and a byte, 10,000 lines, 100 KB of text" Tried bodies::too_much;
    43 "a gzip bomb" Tried bodies::compressed;
    44 "other content types, Accept: image/png" Tried bodies::other_media;
    45 "TRACE, PUT on a list, method overrides" Tried bodies::other_methods;
    46 "two lengths, bad chunks, folded headers" Tried sockets::two_lengths;
    47 "heads and bodies of a byte a second" Tried sockets::a_byte_a_second;
    48 "a header of 32 KB, an address of 16 KB" Tried sockets::long_heads;
    49 "SQL, NUL, templates in each filter and in names" Tried bodies::texts_with_a_meaning_elsewhere;
    50 "wildcards and expressions in searches" Tried bodies::wildcards_and_bombs;
    51 "SQL for ClickHouse in the parameters of figures" Tried texts::figures_by_injection;
    52 "formulas in exported cells" Waits("exports as files");
    53 "paths and line breaks in the name of an export" Waits("exports as files");
    54 "exports of 100 million rows" Waits("exports as files");
    55 "an export's link of somebody else, or too late" Waits("exports as files");
    56 "webhooks to addresses inside" Waits("webhooks");
    57 "webhooks from outside with a wrong signature" Waits("webhooks");
    58 "webhooks from outside again, late, with other amounts" Waits("webhooks");
    59 "card numbers and security codes anywhere" Tried texts::card_numbers;
    60 "line breaks, escapes, JSON for the log" Tried texts::lines_for_the_log;
    61 "forged X-Forwarded-For and X-Real-IP" Tried sign_in::forged_addresses;
    62 "page sizes, offsets, changed cursors" Tried texts::pages_and_cursors;
    63 "dates that are none, or at the end of time" Tried texts::dates_that_are_none;
    64 "direction marks, invisible characters, NFC twins" Tried texts::texts_that_look_alike;
    65 "UUIDs of other versions and spellings" Tried texts::identifiers_in_other_forms;
    66 "records forged on Kafka without rights" Waits("logins and ACLs of Kafka: the local broker has none");
    67 "Avro lengths that lie, records that are none" Tried records::forged_records;
    68 "ledgers changed with the application's login" Tried records::rows_changed_with_the_applications_login;
    69 "secrets in metrics, errors, logs" Tried outside::secrets;
    70 "metrics, administration, versions without a token" Tried outside::doors_that_are_not_public;
    71 "a thousand items of a sync, one of them poisoned" Waits("offline batches");
    72 "CORS with a foreign origin and credentials" Tried outside::pages_of_other_origins;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_matrix_is_listed_once_and_in_order() {
        let numbers: Vec<u8> = ROWS.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (1..=LAST).collect::<Vec<_>>());
        assert!(ROWS.iter().all(|row| !row.what.is_empty()));
        assert!(ROWS.iter().all(|row| !matches!(row.state, State::Waits(""))));
    }

    /// `docs/attacks.md` has a line per row; whoever reads it reads what the code does.
    #[test]
    fn the_document_lists_the_rows_as_they_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/attacks.md");
        let document = std::fs::read_to_string(path).unwrap();
        for row in ROWS {
            let state = match row.state {
                State::Tried(_) => "tried".to_owned(),
                State::Measured(_) => "tried in the full form".to_owned(),
                State::Waits(feature) => format!("waits for {feature}"),
            };
            let line = format!("| A{} | {} | {state} |", row.number, row.what);
            assert!(document.contains(&line), "docs/attacks.md lacks\n{line}");
        }
        assert_eq!(document.matches("\n| A").count(), ROWS.len(), "docs/attacks.md has a row that is none");
    }
}
