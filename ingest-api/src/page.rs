//! Lists are read page by page: `?limit=&cursor=` -> `{items, next_cursor}`. A cursor is opaque, signed,
//! and good for the list it came from only.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::error::ApiError;

pub const LIMIT_DEFAULT: i64 = 100;
pub const LIMIT_MAX: i64 = 500;
const TAG_BYTES: usize = 16;
const CURSOR_CHARS_MAX: usize = 1_024;

/// Query of a plain list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Rows of a page, 1 to 500 (100).
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Absent (null) on the last page.
    pub next_cursor: Option<String>,
}

/// The rows of a page: 100 unless asked otherwise, never more than 500.
pub fn limit(asked: Option<i64>) -> Result<i64, ApiError> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(ApiError::invalid_value("/limit", format!("must lie in 1 to {LIMIT_MAX}"))),
    }
}

impl<T> Page<T> {
    /// Makes a page of rows read with `limit + 1`: the surplus row proves that there are more.
    pub fn of<K: Serialize>(
        mut items: Vec<T>,
        limit: i64,
        cursors: &Cursors,
        list: &str,
        key: impl Fn(&T) -> K,
    ) -> Result<Page<T>, ApiError> {
        let has_more = items.len() as i64 > limit;
        items.truncate(limit as usize);
        let next_cursor = match items.last() {
            Some(last) if has_more => Some(cursors.seal(list, &key(last))?),
            _ => None,
        };
        Ok(Page { items, next_cursor })
    }
}

/// Signs and opens cursors.
pub struct Cursors {
    key: hmac::Key,
}

impl Cursors {
    /// All nodes of a deployment share the secret, so they open each other's cursors.
    pub fn new(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&root, b"vorca list cursors");
        Cursors { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// The cursor behind `key` in `list`.
    pub fn seal<K: Serialize>(&self, list: &str, key: &K) -> Result<String, ApiError> {
        let body = serde_json::to_vec(key).map_err(ApiError::internal)?;
        let mut out = self.tag(list, &body).as_ref()[..TAG_BYTES].to_vec();
        out.extend_from_slice(&body);
        Ok(URL_SAFE_NO_PAD.encode(out))
    }

    /// The key inside a cursor of `list`; 400 when it was not made here, or for another list.
    pub fn open<K: DeserializeOwned>(&self, list: &str, cursor: Option<&str>) -> Result<Option<K>, ApiError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let foreign = || ApiError::bad_request("malformed", "this cursor was not made by this list");
        if cursor.len() > CURSOR_CHARS_MAX {
            return Err(foreign());
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| foreign())?;
        let (tag, body) = bytes.split_at_checked(TAG_BYTES).ok_or_else(foreign)?;
        let expected = self.tag(list, body);
        aws_lc_rs::constant_time::verify_slices_are_equal(tag, &expected.as_ref()[..TAG_BYTES])
            .map_err(|_| foreign())?;
        serde_json::from_slice(body).map(Some).map_err(|_| foreign())
    }

    fn tag(&self, list: &str, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(list.len() as u64).to_be_bytes());
        context.update(list.as_bytes());
        context.update(body);
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cursors_open_for_their_own_list_and_unchanged_only() {
        let cursors = Cursors::new(b"secret");
        let cursor = cursors.seal("users", &("b", 7)).unwrap();
        assert_eq!(cursors.open::<(String, i32)>("users", Some(&cursor)).unwrap(), Some(("b".into(), 7)));
        assert_eq!(cursors.open::<(String, i32)>("users", None).unwrap(), None);
        let mut tampered = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
        *tampered.last_mut().unwrap() ^= 1;
        let other = Cursors::new(b"other").seal("users", &("b", 7)).unwrap();
        for (list, bad) in [
            ("members", cursor.as_str()),
            ("users", &URL_SAFE_NO_PAD.encode(tampered)),
            ("users", &other),
            ("users", "!!!"),
            ("users", ""),
            ("users", &"A".repeat(5_000)),
        ] {
            assert_eq!(cursors.open::<(String, i32)>(list, Some(bad)).unwrap_err().code, "malformed", "{bad}");
        }
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(limit(None).unwrap(), 100);
        for bad in [0, -1, 501, 1_000_000_000] {
            assert_eq!(limit(Some(bad)).unwrap_err().status, 422);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_a_cursor_of_ours_or_malformed(text in ".{0,200}", coded in "[A-Za-z0-9_-]{0,200}") {
            let cursors = Cursors::new(b"secret");
            for text in [&text, &coded] {
                let opened = cursors.open::<(String, i64)>("users", Some(text));
                prop_assert_eq!(opened.map_err(|problem| (problem.status.as_u16(), problem.code)), Err((400, "malformed")));
            }
        }

        #[test]
        fn a_cursor_comes_back_as_it_was_sealed_and_not_with_another_byte(
            text in ".{0,60}", number: i64, at in any::<prop::sample::Index>(), bits in 1_u8..,
        ) {
            let (cursors, key) = (Cursors::new(b"secret"), (text, number));
            let cursor = cursors.seal("users", &key).unwrap();
            prop_assert_eq!(cursors.open("users", Some(&cursor)).unwrap(), Some(key));
            let mut damaged = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
            let at = at.index(damaged.len());
            damaged[at] ^= bits;
            let damaged = URL_SAFE_NO_PAD.encode(damaged);
            prop_assert_eq!(cursors.open::<(String, i64)>("users", Some(&damaged)).unwrap_err().code, "malformed");
        }
    }
}
