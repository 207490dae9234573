//! Strict JSON: one well-formed value or 400, the expected shape or 422 with the place, card data nowhere.

#[cfg(test)]
mod any_body;
mod strict;

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::card_filter::{self, REFUSED};
use crate::error::{ApiError, FieldProblem};
use strict::Strict;

/// Deeper nesting is refused; no body of this API needs more than seven.
const DEPTH_MAX: u32 = 32;
const MESSAGE_CHARS_MAX: usize = 200;

/// Reads `bytes` as a `T`. The common case costs one parse; only a failure is read again to say
/// whether the text is malformed (400) or well-formed with wrong content (422).
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    if let Ok(value) = T::deserialize(Strict::new(&mut reader))
        && reader.end().is_ok()
    {
        return Ok(value);
    }
    well_formed(bytes)?;
    if let Some(place) = serde_json::from_slice(bytes).ok().as_ref().and_then(card_filter::place_in) {
        return Err(card_filter::refusal(place));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(Strict::new(&mut reader)) {
        Ok(value) => Ok(value),
        Err(error) => Err(ApiError::invalid(vec![problem_of(&error)])),
    }
}

/// One JSON value in UTF-8 without BOM, no key twice in an object, at most [`DEPTH_MAX`] deep.
fn well_formed(bytes: &[u8]) -> Result<(), ApiError> {
    let malformed = |text: String| ApiError::bad_request("malformed", text);
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the body is not UTF-8".into()))?;
    if text.starts_with('\u{feff}') {
        return Err(malformed("the body starts with a byte order mark".into()));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    Shape { depth: 0 }.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| malformed(short(&error)))
}

fn short(error: &impl fmt::Display) -> String {
    error.to_string().chars().take(MESSAGE_CHARS_MAX).collect()
}

fn problem_of(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldProblem {
    let mut pointer = pointer(error.path());
    let message = short(error.inner());
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text);
    if message == REFUSED {
        return FieldProblem::new(pointer, "card_data_refused", message);
    }
    if message.starts_with("unknown field") {
        return FieldProblem::new(pointer, "unknown_field", "this route does not have this field");
    }
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        pointer = format!("{pointer}/{name}");
        return FieldProblem::value(pointer, "this field is required");
    }
    FieldProblem::value(pointer, message)
}

/// RFC 6901 pointer of a path, cut where hostile input would make it long.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut out = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                out.push('/');
                out.extend(key.replace('~', "~0").replace('/', "~1").chars().take(MESSAGE_CHARS_MAX));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    out
}

/// Walks any JSON value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Shape {
    depth: u32,
}

impl Shape {
    fn inner<E: serde::de::Error>(self) -> Result<Shape, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom("nested too deep"));
        }
        Ok(Shape { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if !seen.insert(key) {
                return Err(serde::de::Error::custom("a key stands twice in one object"));
            }
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code)]
    struct Sale {
        total_minor: i64,
        lines: Vec<Line>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code)]
    struct Line {
        qty: i64,
        note: Option<String>,
        kind: Option<Kind>,
        notes: Option<Vec<String>>,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Cash,
    }

    fn outcome(text: &[u8]) -> (u16, &'static str, String) {
        match parse::<Sale>(text) {
            Ok(_) => (200, "", String::new()),
            Err(problem) => (
                problem.status.as_u16(),
                problem.code,
                problem.errors.first().map(|error| error.pointer.clone()).unwrap_or_default(),
            ),
        }
    }

    #[test]
    fn every_kind_of_broken_text_is_malformed() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep_inside = format!(r#"{{"total_minor":1,"lines":{}{}}}"#, "[".repeat(100), "]".repeat(100));
        for text in [
            &b""[..],
            b"{",
            br#"{"total_minor":1,"lines":[],}"#,
            br#"{"total_minor":1,"lines":[]} x"#,
            br#"{"total_minor":1,"lines":[]}{}"#,
            br#"{"total_minor":1,"total_minor":2,"lines":[]}"#,
            br#"{"total_minor":1,"lines":[{"qty":1,"qty":2}]}"#,
            b"\xef\xbb\xbf{\"total_minor\":1,\"lines\":[]}",
            b"{\"total_minor\":1,\"lines\":[],\"x\":\"\xff\"}",
            br#"{"total_minor":NaN,"lines":[]}"#,
            br#"{"total_minor":1e999,"lines":[]}"#,
            deep.as_bytes(),
            deep_inside.as_bytes(),
        ] {
            assert_eq!(
                outcome(text),
                (400, "malformed", String::new()),
                "{:?}",
                String::from_utf8_lossy(&text[..text.len().min(80)])
            );
        }
    }

    #[test]
    fn card_data_is_refused_before_anything_else_and_never_repeated() {
        for (text, pointer) in [
            (r#"{"total_minor":1,"lines":[{"qty":1,"note":"4111 1111 1111 1111"}]}"#, "/lines/0/note"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"note":"\u0034111111111111111"}]}"#, "/lines/0/note"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"note":"cvv 123"}]}"#, "/lines/0/note"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"notes":["x","4111111111111111"]}]}"#, "/lines/0/notes/1"),
            (r#"{"total_minor":4111111111111111,"lines":[]}"#, "/total_minor"),
            (r#"{"total_minor":1,"lines":[{"qty":-4111111111111111}]}"#, "/lines/0/qty"),
            (r#"{"total_minor":4111111111111111.0,"lines":[]}"#, "/total_minor"),
            (r#"{"total_minor":"4111111111111111","lines":[]}"#, "/total_minor"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"kind":"4111111111111111"}]}"#, "/lines/0/kind"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"4111111111111111":1}]}"#, "/lines/0"),
            (r#"{"total_minor":1,"lines":[],"cvv":"123"}"#, "/cvv"),
            (r#"{"lines":[{"note":"4111111111111111"}],"x":1}"#, "/lines/0/note"),
            (r#""4111111111111111""#, ""),
        ] {
            assert_eq!(outcome(text.as_bytes()), (422, "card_data_refused", pointer.into()), "{text}");
            let problem = parse::<Sale>(text.as_bytes()).unwrap_err();
            assert!(!format!("{problem:?}").contains("1111"), "{problem:?}");
        }
        // A broken text is not read at all, and not repeated either.
        let problem = parse::<Sale>(br#"{"total_minor":4111111111111111 "#).unwrap_err();
        assert!(problem.status == 400 && !format!("{problem:?}").contains("1111"), "{problem:?}");
    }

    #[test]
    fn identifiers_barcodes_and_telephone_numbers_pass_in_their_own_fields() {
        #[derive(Deserialize)]
        struct Barcode(String);
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Own {
            id: uuid::Uuid,
            barcodes: Option<Vec<Barcode>>,
            name: String,
        }
        let id = "41111111-1111-1111-1111-111111111111";
        let code = (0..)
            .map(|n| format!("4{n:012}"))
            .find(|code| crate::checks::is_gtin(code) && runtime::card_data::is_in(code));
        let code = code.unwrap();
        let own: Own = parse(format!(r#"{{"id":"{id}","barcodes":["{code}"],"name":"x"}}"#).as_bytes()).unwrap();
        assert_eq!(
            (own.id.to_string(), own.barcodes.unwrap()[0].0.clone(), own.name),
            (id.into(), code.clone(), "x".into())
        );
        for (body, pointer) in [
            (format!(r#"{{"id":"{id}","name":"{code}"}}"#), "/name"),
            (format!(r#"{{"id":"{id}","name":"x","barcodes":["4111111111111111"]}}"#), "/barcodes/0"),
        ] {
            let problem = parse::<Own>(body.as_bytes()).err().unwrap();
            assert_eq!((problem.code, problem.errors[0].pointer.as_str()), ("card_data_refused", pointer), "{body}");
        }
    }

    #[test]
    fn wrong_content_points_to_its_place() {
        for (text, code, pointer) in [
            (r#"{"total_minor":"1","lines":[]}"#, "invalid_value", "/total_minor"),
            (r#"{"total_minor":1.5,"lines":[]}"#, "invalid_value", "/total_minor"),
            (r#"{"total_minor":9223372036854775808,"lines":[]}"#, "invalid_value", "/total_minor"),
            (r#"{"total_minor":1,"lines":[{"qty":1},{"qty":null}]}"#, "invalid_value", "/lines/1/qty"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"price":3}]}"#, "unknown_field", "/lines/0/price"),
            (r#"{"total_minor":1,"lines":[],"is_admin":true}"#, "unknown_field", "/is_admin"),
            (r#"{"total_minor":1,"lines":[],"a/b~":1}"#, "unknown_field", "/a~1b~0"),
            (r#"{"total_minor":1,"lines":[{}]}"#, "invalid_value", "/lines/0/qty"),
            (r#"{"total_minor":1}"#, "invalid_value", "/lines"),
            (r#"[]"#, "invalid_value", ""),
            (r#"[1,[]]"#, "invalid_value", ""),
            (r#"{"total_minor":1,"lines":[[1,null,null,null]]}"#, "invalid_value", "/lines/0"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"kind":{"cash":null}}]}"#, "invalid_value", "/lines/0/kind"),
            (r#"{"total_minor":1,"lines":[{"qty":1,"kind":"card"}]}"#, "invalid_value", "/lines/0/kind"),
        ] {
            assert_eq!(outcome(text.as_bytes()), (422, code, pointer.into()), "{text}");
        }
        assert_eq!(outcome(br#" {"total_minor":1,"lines":[{"qty":1,"kind":"cash"}]} "#).0, 200);
    }
}
