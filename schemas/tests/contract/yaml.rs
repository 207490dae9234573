//! JSON values as block YAML: just enough for a document that people read and diff.

use serde_json::Value;

/// The value as YAML, ending with a line break.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                entry(&format!("{}{}:", " ".repeat(indent), plain_or_quoted(key)), value, indent + 2, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                entry(&format!("{}-", " ".repeat(indent)), item, indent + 2, out);
            }
        }
        scalar => out.push_str(&format!("{}{}\n", " ".repeat(indent), text(scalar))),
    }
}

fn entry(head: &str, value: &Value, indent: usize, out: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        // short lists of plain values stay on their line
        Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
        _ => false,
    };
    if is_block {
        out.push_str(&format!("{head}\n"));
        block(value, indent, out);
    } else {
        out.push_str(&format!("{head} {}\n", text(value)));
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => plain_or_quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// A text that no YAML reader takes for anything else stays bare; any other is a JSON string, which YAML is too.
fn plain_or_quoted(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|it| it.is_ascii_alphanumeric() || "_.-/".contains(it))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[test]
fn texts_that_look_like_something_else_are_quoted() {
    let value = serde_json::json!({
        "a": ["yes", "x y", "3.1.0", "plain.v1-value"], "b": {}, "c": [{"d": 1, "e": null}], "$ref": "#/a: b",
    });
    let expected = "a: [\"yes\", \"x y\", \"3.1.0\", plain.v1-value]\nb: {}\nc:\n  -\n    d: 1\n    e: null\n\"$ref\": \"#/a: b\"\n";
    assert_eq!(yaml(&value), expected);
}
