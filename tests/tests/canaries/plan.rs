//! Which canary goes where: every text and number of every route that the OpenAPI document lists, again and again, in
//! every spelling.

use serde_json::{Value, json};

/// One request.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: String,
    /// Whole, with its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Value>,
}

/// Requests with the number each of them holds.
pub struct Plan {
    pub asks: Vec<(String, Ask)>,
    /// Different places that numbers go to.
    pub places: usize,
}

/// Where in a request.
enum Place {
    /// JSON pointer; whether a text belongs there.
    Body(String, bool),
    Query(String),
    Path,
    Header(&'static str),
}

impl Plan {
    pub fn new(document: &Value, count: usize) -> Plan {
        let mut places = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                for place in of_operation(document, operation) {
                    places.push((method.to_uppercase(), path.clone(), place));
                }
            }
        }
        let asks = (0..count).map(|n| {
            let (method, path, place) = &places[n % places.len()];
            let number = number(n as u64);
            let ask = ask(method, path, place, &number, n / places.len());
            (number, ask)
        });
        Plan { asks: asks.collect(), places: places.len() }
    }
}

fn of_operation(document: &Value, operation: &Value) -> Vec<Place> {
    let mut places = vec![Place::Path];
    places.extend(["idempotency-key", "x-request-id", "user-agent", "x-note"].map(Place::Header));
    for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|it| it["in"] == "query") {
        places.push(Place::Query(parameter["name"].as_str().unwrap().to_owned()));
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    leaves(document, schema, String::new(), &mut places);
    places
}

fn leaves(document: &Value, schema: &Value, at: String, places: &mut Vec<Place>) {
    if let Some(name) = schema["$ref"].as_str() {
        return leaves(document, document.pointer(name.trim_start_matches('#')).unwrap(), at, places);
    }
    for kind in ["oneOf", "anyOf", "allOf"] {
        for one in schema[kind].as_array().into_iter().flatten() {
            leaves(document, one, at.clone(), places);
        }
    }
    let kinds = &schema["type"];
    let is = |kind: &str| kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.contains(&json!(kind)));
    if is("string") || schema["enum"].is_array() {
        places.push(Place::Body(at.clone(), true));
    }
    if is("integer") {
        places.push(Place::Body(at.clone(), false));
    }
    if is("array") {
        leaves(document, &schema["items"], format!("{at}/0"), places);
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        leaves(document, member, format!("{at}/{name}"), places);
    }
}

/// A number of 15 to 19 digits that begins like a card, with its check digit; another one for each `n`.
fn number(n: u64) -> String {
    let (prefix, length) =
        [("4", 16), ("37", 15), ("5301", 16), ("6011", 17), ("6221", 18), ("4", 19), ("3530", 16)][(n % 7) as usize];
    let body = format!("{prefix}{:0width$}", n * 104_729 % 100_000_000_007, width = length - 1 - prefix.len());
    (0..10).map(|check| format!("{body}{check}")).find(|number| is_luhn(number)).unwrap()
}

fn is_luhn(number: &str) -> bool {
    let digits = number.bytes().rev().map(|byte| u32::from(byte - b'0')).enumerate();
    let sum: u32 =
        digits.map(|(place, digit)| if place % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }).sum();
    sum.is_multiple_of(10)
}

/// The number as people write it.
fn spelt(number: &str, round: usize) -> String {
    let groups = |between: &str| {
        let groups: Vec<&str> = number.as_bytes().chunks(4).map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(between)
    };
    match round % 7 {
        0 => number.to_owned(),
        1 => groups(" "),
        2 => groups("-"),
        3 => format!("{number} cvv 123"),
        4 => format!("paid by {} 12/27 123", groups(" ")),
        5 => number.bytes().map(|byte| char::from_u32(0xff10 + u32::from(byte - b'0')).unwrap()).collect(),
        _ => format!("cvc2: 1234, card {number}"),
    }
}

fn ask(method: &str, path: &str, place: &Place, number: &str, round: usize) -> Ask {
    let id = "01990a5e-5f4c-7c3e-9d0c-2b8f6a1d4e77";
    let steps = path.split('/').map(|step| if step.starts_with('{') { id } else { step });
    let mut ask = Ask {
        method: method.to_owned(),
        path: steps.collect::<Vec<_>>().join("/"),
        headers: vec![("if-match".to_owned(), "\"1\"".to_owned())],
        body: None,
    };
    let text = spelt(number, round);
    // Headers and addresses are ASCII.
    let plain = if text.is_ascii() { text.clone() } else { number.to_owned() };
    match place {
        Place::Path => ask.path = format!("{}/{}", ask.path, escaped(&text)),
        Place::Query(name) => ask.path = format!("{}?{name}={}", ask.path, escaped(&text)),
        Place::Header(name) => ask.headers.push(((*name).to_owned(), plain)),
        Place::Body(pointer, is_text) => {
            let value = if *is_text { json!(text) } else { json!(number.parse::<u64>().unwrap()) };
            ask.body = Some(at(pointer, value));
        }
    }
    if !matches!(place, Place::Header("idempotency-key")) {
        ask.headers.push(("idempotency-key".to_owned(), "k".to_owned()));
    }
    ask
}

/// A body with this value at this place and nothing else.
fn at(pointer: &str, value: Value) -> Value {
    pointer
        .split('/')
        .skip(1)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .fold(value, |inside, step| if step == "0" { json!([inside]) } else { json!({ step: inside }) })
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
