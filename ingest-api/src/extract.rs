//! From bytes to valid types: what a handler receives has already been read, bounded and checked.
//!
//! Malformed JSON (broken, duplicate keys, a BOM, something after the value, nested too deep) is 400;
//! well-formed JSON with wrong content is 422 with a pointer to each wrong place.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::checks::Checks;
use crate::error::{ApiError, FieldProblem};
use crate::json;

/// Body limit of a route that does not state its own.
pub const BODY_BYTES_MAX: usize = 2 << 20;
/// A body must have arrived by then.
const BODY_SECONDS_MAX: u64 = 30;
/// A bulk body must have arrived by then.
const BULK_BODY_SECONDS_MAX: u64 = 60;
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

/// A request body that can say what is wrong with it beyond its types.
pub trait Body: DeserializeOwned + Send {
    /// Largest body in bytes; a longer one is 413 before it is parsed.
    const BYTES_MAX: usize = BODY_BYTES_MAX;
    /// Reports every wrong place; may bring values into their canonical form.
    fn check(&mut self, checks: &mut Checks);
}

/// The parsed, bounded and checked JSON body of a request.
#[derive(Debug)]
pub struct Valid<T>(pub T);

impl<S: Send + Sync, T: Body> FromRequest<S> for Valid<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        read::<T>(request).await.map(Valid)
    }
}

/// None without a body.
impl<S: Send + Sync, T: Body> OptionalFromRequest<S> for Valid<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, ApiError> {
        if request.headers().get(header::CONTENT_TYPE).is_none() && request.body().is_end_stream() {
            return Ok(None);
        }
        read::<T>(request).await.map(|body| Some(Valid(body)))
    }
}

async fn read<T: Body>(request: Request) -> Result<T, ApiError> {
    let too_large = || ApiError::from_status(StatusCode::PAYLOAD_TOO_LARGE);
    check_content_type(request.headers())?;
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > T::BYTES_MAX) {
        return Err(too_large());
    }
    let seconds = if T::BYTES_MAX > BODY_BYTES_MAX { BULK_BODY_SECONDS_MAX } else { BODY_SECONDS_MAX };
    let collected = axum::body::to_bytes(request.into_body(), T::BYTES_MAX);
    let bytes = match tokio::time::timeout(Duration::from_secs(seconds), collected).await {
        Err(_) => return Err(ApiError::from_status(StatusCode::REQUEST_TIMEOUT)),
        Ok(Err(error)) if is_length_limit(&error) => return Err(too_large()),
        Ok(Err(_)) => return Err(ApiError::bad_request("malformed", "the body broke off")),
        Ok(Ok(bytes)) => bytes,
    };
    let mut body: T = json::parse(&bytes)?;
    let mut checks = Checks::default();
    body.check(&mut checks);
    checks.done()?;
    Ok(body)
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.to_string().contains("length limit") {
            return true;
        }
        source = inner.source();
    }
    error.to_string().contains("length limit")
}

/// `application/json`, once, in UTF-8 when a charset is named. What is compressed does not get as far as here.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let unsupported = || ApiError::from_status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind =
        kinds.next().filter(|_| kinds.next().is_none()).and_then(|kind| kind.to_str().ok()).ok_or_else(unsupported)?;
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    if parts.next().as_deref() != Some("application/json") {
        return Err(unsupported());
    }
    for part in parts {
        if let Some(charset) = part.strip_prefix("charset=")
            && charset.trim_matches('"') != "utf-8"
        {
            return Err(unsupported());
        }
    }
    Ok(())
}

/// The parsed query string; an unknown or wrong parameter is 422 with its name.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::<T>::try_from_uri(&parts.uri).map_err(|error| {
            let text = error.body_text();
            let text = text.split_once("query string: ").map_or(text.as_str(), |(_, rest)| rest);
            ApiError::invalid(vec![query_problem(text)])
        })?;
        Ok(Params(params))
    }
}

fn query_problem(text: &str) -> FieldProblem {
    let text: String = text.chars().take(200).collect();
    if let Some(name) = text.split("unknown field `").nth(1).and_then(|rest| rest.split('`').next()) {
        return FieldProblem::new(format!("/{name}"), "unknown_field", "this route does not have this parameter");
    }
    if let Some(name) = text.split("missing field `").nth(1).and_then(|rest| rest.split('`').next()) {
        return FieldProblem::value(format!("/{name}"), "this parameter is required");
    }
    match text.split_once(": ") {
        Some((name, message)) if !name.contains(' ') => FieldProblem::value(format!("/{name}"), message),
        _ => FieldProblem::value("", text),
    }
}

/// One identifier in the path; one that is no UUID names nothing, so it is 404.
#[derive(Debug, Clone, Copy)]
pub struct PathId(pub uuid::Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let absent = || ApiError::not_found("object");
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await.map_err(|_| absent())?;
        // The hyphenated form only: braces, URNs and bare hex are spellings we never hand out.
        let id = if path.0.len() == 36 { uuid::Uuid::try_parse(&path.0).ok() } else { None };
        id.map(PathId).ok_or_else(absent)
    }
}

/// The caller's key of a write, as text without the quotes a structured header may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub String);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        idempotency_key(&parts.headers)
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<IdempotencyKey, ApiError> {
    let invalid = || ApiError::bad_request("idempotency_key_invalid", "send 1 to 255 visible ASCII characters, once");
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Err(ApiError::bad_request("idempotency_key_required", "this route needs an Idempotency-Key header"));
    };
    if values.next().is_some() {
        return Err(invalid());
    }
    let text = value.to_str().map_err(|_| invalid())?.trim();
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let is_plain = bare.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
    if bare.is_empty() || bare.len() > IDEMPOTENCY_KEY_CHARS_MAX || !is_plain {
        return Err(invalid());
    }
    Ok(IdempotencyKey(bare.to_owned()))
}

/// The version a caller read before editing, from `If-Match: "<version>"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            return Err(ApiError::new(
                StatusCode::PRECONDITION_REQUIRED,
                "precondition_required",
                "send If-Match with the ETag that was read",
            ));
        };
        let text = value.to_str().unwrap_or("").trim();
        let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        // A tag that we never gave out matches nothing, so it reads as a version that never was.
        Ok(IfMatch(bare.and_then(|bare| bare.parse().ok()).unwrap_or(0)))
    }
}

/// `ETag` of a version.
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn key(values: &[&[u8]]) -> Result<String, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
        }
        idempotency_key(&headers).map(|key| key.0).map_err(|problem| problem.code)
    }

    #[test]
    fn idempotency_keys_are_one_visible_text() {
        assert_eq!(key(&[b"abc"]), Ok("abc".into()));
        assert_eq!(key(&[b"\"abc\""]), Ok("abc".into()));
        assert_eq!(key(&[]), Err("idempotency_key_required"));
        let long = [b'x'; 256];
        for bad in [&b""[..], b"a b", "\u{1f600}".as_bytes(), b"\"", &long] {
            assert_eq!(key(&[bad]), Err("idempotency_key_invalid"), "{bad:?}");
        }
        assert_eq!(key(&[b"a", b"a"]), Err("idempotency_key_invalid"));
    }

    #[test]
    fn content_type_is_json_in_utf8_and_stands_once() {
        let status = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            check_content_type(&headers).is_ok()
        };
        assert!(status(&[("content-type", "application/json")]));
        assert!(status(&[("content-type", "Application/JSON; charset=UTF-8")]));
        assert!(!status(&[]));
        assert!(!status(&[("content-type", "text/plain")]));
        assert!(!status(&[("content-type", "application/json; charset=utf-16")]));
        assert!(!status(&[("content-type", "application/json"), ("content-type", "text/plain")]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_header_is_a_key_or_refused(
            bytes in prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..300),
        ) {
            match key(&[&bytes]) {
                Ok(key) => prop_assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())),
                Err(code) => prop_assert_eq!(code, "idempotency_key_invalid"),
            }
        }

        #[test]
        fn a_key_is_read_as_it_was_written_quoted_or_not(given in "[!#-\\[\\]-~]{1,255}") {
            prop_assert_eq!(key(&[given.as_bytes()]), Ok(given.clone()));
            prop_assert_eq!(key(&[format!("\"{given}\"").as_bytes()]), Ok(given));
        }
    }
}
