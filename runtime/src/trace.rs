//! W3C trace context: one trace from the till's request through the outbox and Kafka headers to ClickHouse.

use std::fmt::Write as _;

/// A position in a trace, as carried by `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace.
    #[expect(clippy::new_without_default, reason = "each call gives another trace: not a default")]
    pub fn new() -> Self {
        TraceContext { trace_id: nonzero(), span_id: nonzero(), sampled: true }
    }

    /// Reads a `traceparent` header: `00-<32 hex>-<16 hex>-<2 hex>`, lower case; `None` when it is not one.
    /// A later version may append fields, which are ignored.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let version = bytes::<1>(parts.next()?)?[0];
        let trace_id = bytes::<16>(parts.next()?)?;
        let span_id = bytes::<8>(parts.next()?)?;
        let flags = bytes::<1>(parts.next()?)?[0];
        let whole = parts.next().is_none() || version > 0;
        let valid = version != 0xff && trace_id != [0; 16] && span_id != [0; 8] && whole;
        valid.then_some(TraceContext { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    /// The same trace, a new span below this one.
    pub fn child(&self) -> Self {
        TraceContext { span_id: nonzero(), ..*self }
    }

    /// The header's value, version 00.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", hex(&self.trace_id), hex(&self.span_id), u8::from(self.sampled))
    }

    /// The trace id as 32 hex digits, as logs and ClickHouse show it.
    pub fn trace_id_hex(&self) -> String {
        hex(&self.trace_id)
    }
}

fn nonzero<const N: usize>() -> [u8; N] {
    loop {
        let id: [u8; N] = std::array::from_fn(|_| rand::random());
        if id != [0; N] {
            return id;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != N * 2 || !text.bytes().all(lower_hex) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_survives_reading_and_writing() {
        let trace = TraceContext::parse(GOOD).unwrap();
        assert_eq!(trace.traceparent(), GOOD);
        assert_eq!(trace.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let child = trace.child();
        assert_eq!(child.trace_id, trace.trace_id);
        assert_ne!(child.span_id, trace.span_id);
        let new = TraceContext::new();
        assert_eq!(TraceContext::parse(&new.traceparent()), Some(new));
    }

    #[test]
    fn anything_else_is_not_a_trace() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let upper = GOOD.to_uppercase();
        let long = format!("{GOOD}-00");
        let wide = "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01";
        for text in ["", "00", "garbage", zero_trace, zero_span, &upper, &long, wide, &GOOD.replacen("00", "ff", 1)] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
        assert!(TraceContext::parse(&format!("{}-more", GOOD.replacen("00", "01", 1))).is_some());
    }
}
