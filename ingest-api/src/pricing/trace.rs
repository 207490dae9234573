//! The price trace: one entry per rounding or allocation step, so that every cent explains itself.
//!
//! A JSON array in the order of computation. `line` 0 is the document; `base` and `result` are minor
//! units; `exact` is the rational that was rounded, in minor units; `shares` says how a figure of several lines was handed
//! to them: `[line, share]` each.

use std::fmt::Write;

use schemas::money::RoundingMode;
use uuid::Uuid;

use super::ratio::Ratio;

/// One step before it is written.
pub struct Step<'a> {
    pub line: i32,
    pub rule: &'static str,
    /// Price, tax or discount the step applied.
    pub id: Option<Uuid>,
    pub base: i64,
    pub exact: Ratio,
    pub mode: RoundingMode,
    pub result: i64,
    /// Line and share, in the order in which they were allocated.
    pub shares: &'a [(i32, i64)],
}

/// Writes steps as JSON while figures are computed; nothing in it needs escaping.
#[derive(Debug)]
pub struct Trace(String);

impl Trace {
    pub fn new() -> Self {
        let mut text = String::with_capacity(1024);
        text.push('[');
        Trace(text)
    }

    pub fn push(&mut self, step: Step<'_>) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let Step { line, rule, id, base, exact, mode, result, shares } = step;
        // Writing into a String cannot fail.
        let _ = write!(self.0, r#"{{"line":{line},"rule":"{rule}""#);
        if let Some(id) = id {
            let _ = write!(self.0, r#","id":"{id}""#);
        }
        let _ = write!(self.0, r#","base":{base},"exact":"{exact}","mode":"{mode}","result":{result}"#);
        for (place, (line, share)) in shares.iter().enumerate() {
            let before = if place == 0 { ",\"shares\":[" } else { "," };
            let _ = write!(self.0, "{before}[{line},{share}]");
        }
        if !shares.is_empty() {
            self.0.push(']');
        }
        self.0.push('}');
    }

    /// The finished JSON array.
    pub fn finish(mut self) -> String {
        self.0.push(']');
        self.0
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}
