//! Card data is refused wherever text comes in: path, query, headers ([`head`]) and, while they are read, bodies
//! ([`crate::json`]). 422 `card_data_refused` with the place, never with the value.
//!
//! Fields are judged by their type first. What is parsed into an identifier, a time or a word of a list is never kept
//! as text. A barcode with its check digit, a telephone number of its country and a UUID may look like a card number;
//! each is accepted in fields of its own kind only.

pub mod rate;

use axum::extract::Request;
use axum::http::HeaderName;
use runtime::card_data;
use serde_json::Value;

use crate::checks::is_gtin;
use crate::error::{ApiError, FieldProblem};
use crate::phone;
use crate::switches::{Part, is_off};

/// What a refusal says, whatever the place.
pub const REFUSED: &str = "must never hold card data";

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Field {
    /// Kept as it is.
    Text,
    /// Parsed into something that is no text; only its value is kept.
    Typed,
    /// A GTIN.
    Barcode,
    /// A telephone number in international form.
    Phone,
    /// What a device made up to be new, normally a UUID.
    Nonce,
}

impl Field {
    /// The kind of a newtype that bodies use, by its name.
    pub fn of_type(name: &str) -> Option<Field> {
        match name {
            "Barcode" => Some(Field::Barcode),
            "Phone" => Some(Field::Phone),
            "Nonce" => Some(Field::Nonce),
            _ => None,
        }
    }

    /// The kind of a field by its name, where its type is not known. Identifiers are recognised by their form.
    fn of_name(name: &str) -> Field {
        match name {
            "barcode" | "barcodes" => Field::Barcode,
            "phone" => Field::Phone,
            _ => Field::Text,
        }
    }

    /// Whether the text may not stand in such a field.
    pub fn refuses(self, text: &str) -> bool {
        match self {
            Field::Typed => false,
            _ if is_off(Part::CardFilter) || !card_data::is_in(text) => false,
            Field::Text => true,
            Field::Barcode => !is_gtin(text),
            Field::Phone => phone::normalised(text).is_none(),
            Field::Nonce => !card_data::is_uuid(text),
        }
    }
}

/// Whether a whole number may not stand in a body: none of this API is as large as the smallest card number.
pub fn refuses_number(number: u64) -> bool {
    number > card_data::BELOW_NUMBERS && !is_off(Part::CardFilter) && card_data::is_in(&number.to_string())
}

/// 422 at this place of a request.
pub fn refusal(pointer: impl Into<String>) -> ApiError {
    ApiError::invalid(vec![FieldProblem::new(pointer, "card_data_refused", REFUSED)])
}

/// Headers that proxies and clients fill with numbers and tokens of their own; none of them is kept as text.
const UNREAD: [HeaderName; 12] = [
    HeaderName::from_static("authorization"),
    HeaderName::from_static("content-length"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-amzn-trace-id"),
    HeaderName::from_static("x-cloud-trace-context"),
    HeaderName::from_static("x-datadog-trace-id"),
    HeaderName::from_static("x-datadog-parent-id"),
    HeaderName::from_static("x-b3-traceid"),
    HeaderName::from_static("x-b3-spanid"),
    HeaderName::from_static("cf-ray"),
    HeaderName::from_static("date"),
];

/// Judges everything of a request but its body: segments of the path, names and values of the query, headers.
pub fn head(request: &Request) -> Result<(), ApiError> {
    if is_off(Part::CardFilter) {
        return Ok(());
    }
    let uri = request.uri();
    if uri.path().split('/').any(|segment| is_refused(Field::Text, &decoded(segment))) {
        return Err(refusal("/path"));
    }
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()) {
        if card_data::is_in(&name) {
            return Err(refusal(""));
        }
        if card_data::is_code_name(&name) || is_refused(Field::of_name(&name), &value) {
            return Err(refusal(pointer_of("", &name)));
        }
    }
    for (name, value) in request.headers().iter().filter(|(name, _)| !UNREAD.contains(name)) {
        if card_data::is_code_name(name.as_str()) || is_refused(Field::Text, &String::from_utf8_lossy(value.as_bytes()))
        {
            return Err(refusal(pointer_of("", name.as_str())));
        }
    }
    Ok(())
}

/// As [`Field::refuses`], where a UUID cannot be told from other text by its type: alone, or in the name of an object as
/// the audit log has it (`user/<id>`).
pub fn is_refused(field: Field, text: &str) -> bool {
    let (what, id) = text.rsplit_once('/').unwrap_or(("", text));
    field.refuses(if card_data::is_uuid(id) { what } else { text })
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn pointer_of(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The first place of a body that was not understood where card data stands, whatever else is wrong with it: then the
/// refusal has to say this, and no message about the rest may repeat a value.
pub fn place_in(body: &Value) -> Option<String> {
    place_below(body, String::new(), Field::Text)
}

fn place_below(value: &Value, at: String, field: Field) -> Option<String> {
    match value {
        Value::String(text) => is_refused(field, text).then_some(at),
        Value::Number(number) => {
            let digits = number.as_f64().map(|number| format!("{number:.0}")).unwrap_or_default();
            (card_data::is_in(&number.to_string()) || card_data::is_in(&digits)).then_some(at)
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(i, item)| place_below(item, format!("{at}/{i}"), field))
        }
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            if card_data::is_in(name) {
                return Some(at.clone());
            }
            let place = pointer_of(&at, &name.chars().take(200).collect::<String>());
            if card_data::is_code_name(name) {
                return Some(place);
            }
            place_below(value, place, Field::of_name(name))
        }),
        Value::Null | Value::Bool(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use serde_json::json;

    const NUMBER: &str = "4111111111111111";
    /// A barcode and a telephone number with the check digit of a card number and an issuer's prefix.
    const BARCODE: &str = "4006381333931";
    const UUID: &str = "41111111-1111-1111-1111-111111111111";

    fn refused(uri: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let problem = head(&request.body(Body::empty()).unwrap()).err()?;
        assert_eq!((problem.status.as_u16(), problem.code), (422, "card_data_refused"));
        assert!(!format!("{problem:?}").contains("1111"), "{problem:?}");
        Some(problem.errors[0].pointer.clone())
    }

    #[test]
    fn each_part_of_the_head_is_judged() {
        let at = |place: &str| Some(place.to_owned());
        assert_eq!(refused(&format!("/api/v1/members/{NUMBER}"), &[]), at("/path"));
        assert_eq!(refused("/api/v1/members/4111%201111%201111%201111", &[]), at("/path"));
        assert_eq!(refused(&format!("/api/v1/members?member_number={NUMBER}"), &[]), at("/member_number"));
        assert_eq!(refused("/api/v1/members?member_number=4111+1111-1111%201111", &[]), at("/member_number"));
        assert_eq!(refused(&format!("/api/v1/members?{NUMBER}=1"), &[]), at(""));
        assert_eq!(refused("/api/v1/members?cvv=123", &[]), at("/cvv"));
        assert_eq!(refused("/api/v1/members?external_id=cvv:123", &[]), at("/external_id"));
        assert_eq!(refused(&format!("/api/v1/audit?target=4111-1111-1111-1111/{UUID}"), &[]), at("/target"));
        assert_eq!(refused("/", &[("idempotency-key", NUMBER)]), at("/idempotency-key"));
        assert_eq!(refused("/", &[("x-request-id", "till-4111111111111111")]), at("/x-request-id"));
        assert_eq!(refused("/", &[("x-note", "4111 1111 1111 1111")]), at("/x-note"));
        assert_eq!(refused("/", &[("x-cvv", "x"), ("cvv2", "123")]), at("/cvv2"));
    }

    #[test]
    fn what_only_looks_like_it_passes_in_its_own_field() {
        assert!(card_data::is_in(UUID), "digits of this UUID are a card number");
        let agent =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Safari/537.36";
        for (uri, headers) in [
            (format!("/api/v1/sales/{UUID}"), vec![("idempotency-key", UUID), ("x-request-id", UUID)]),
            (
                "/api/v1/changes?after=3-1795341300123456".to_owned(),
                vec![("user-agent", agent), ("if-match", "\"12\"")],
            ),
            (format!("/api/v1/audit?target=sale/{UUID}"), vec![]),
            ("/".to_owned(), vec![("x-forwarded-for", "203.0.113.195, 70.41.3.18, 150.172.238.178")]),
            ("/".to_owned(), vec![("traceparent", "00-41111111111111114111111111111111-4111111111111111-01")]),
        ] {
            assert_eq!(refused(&uri, &headers), None, "{uri} {headers:?}");
        }
        let barcode = barcode_like_a_card();
        assert!(Field::Text.refuses(&barcode) && !Field::Barcode.refuses(&barcode), "{barcode}");
        assert_eq!(refused(&format!("/api/v1/variants?barcode={barcode}"), &[]), None);
        assert_eq!(refused(&format!("/api/v1/variants?sku={barcode}"), &[]), Some("/sku".to_owned()));
        assert!(Field::Barcode.refuses(NUMBER) && Field::Phone.refuses(NUMBER) && Field::Nonce.refuses(NUMBER));
        assert!(Field::Text.refuses(UUID) && !Field::Nonce.refuses(UUID));
        assert!(!Field::Text.refuses(BARCODE), "no check digit of a card");
    }

    /// A GTIN that is a card number too.
    fn barcode_like_a_card() -> String {
        let mut numbers = (0..).map(|n| format!("4{n:012}"));
        numbers.find(|number| is_gtin(number) && card_data::is_in(number)).unwrap()
    }

    #[test]
    fn a_body_that_is_not_understood_is_searched_whole() {
        for (body, place) in [
            (json!({"a": 1, "b": [{"c": NUMBER}]}), Some("/b/0/c")),
            (json!({"a": 4111111111111111u64}), Some("/a")),
            (json!({"a": 4111111111111111.0}), Some("/a")),
            (json!({NUMBER: 1}), Some("")),
            (json!({"a": {"cvv": "x"}}), Some("/a/cvv")),
            (json!({"a/b": "cvv 123"}), Some("/a~1b")),
            (json!({"sale_id": UUID, "barcodes": [barcode_like_a_card()]}), None),
            (json!({"sku": barcode_like_a_card()}), Some("/sku")),
        ] {
            assert_eq!(place_in(&body).as_deref(), place, "{body}");
        }
    }
}
