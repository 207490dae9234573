//! What is known of a request before any handler: its id, trace and address; and the last line of
//! defence behind every handler: nothing but problem+json leaves on a failure, panics included.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use runtime::card_data;
use runtime::config::TrustedProxies;
use uuid::Uuid;

use crate::card_filter;
use crate::error::{ApiError, REQUEST_ID};

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 64;
const URI_BYTES_MAX: usize = 8 << 10;
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Headers by which a request asks to be taken for another one.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Who asked, under which id and trace. Goes into audit rows and outbox rows.
#[derive(Debug, Clone)]
pub struct Context {
    pub request_id: String,
    /// W3C `traceparent` as received, or a new one: never empty.
    pub trace_parent: String,
    /// Address without port from which the request came, as far as proxies are trusted to say so; empty when the server
    /// does not know it.
    pub address: String,
}

impl Context {
    /// The context of an act without a request, for instance of a command line task.
    pub fn of_task(name: &str) -> Self {
        Context { request_id: format!("{name}-{}", Uuid::now_v7()), trace_parent: new_trace(), address: String::new() }
    }
    /// The trace id inside `trace_parent`: 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.trace_parent.get(3..35).unwrap_or("")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts
            .extensions
            .get::<Context>()
            .cloned()
            .ok_or_else(|| ApiError::internal(anyhow::anyhow!("no context layer")))
    }
}

/// Outermost layer: gives the request its [`Context`], bounds address and headers, catches panics,
/// turns every bare failure status into a problem and echoes `X-Request-Id` and `traceparent`.
pub async fn stamp(State(proxies): State<TrustedProxies>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let context = context_of(request.headers(), peer, &proxies);
    let (request_id, trace_parent) = (context.request_id.clone(), context.trace_parent.clone());
    request.extensions_mut().insert(context);
    let answer = async {
        if OVERRIDES.iter().any(|name| request.headers().contains_key(name)) {
            return as_itself_alone(request.method());
        }
        if let Err(problem) = admit(&request) {
            return problem.into_response();
        }
        let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
                ApiError::internal(anyhow::anyhow!("panicked: {text}")).into_response()
            }
        };
        as_problem(response)
    };
    let mut response = REQUEST_ID.scope(request_id.clone(), answer).await;
    let headers = response.headers_mut();
    for (name, value) in [(REQUEST_ID_HEADER, request_id), (HeaderName::from_static("traceparent"), trace_parent)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn context_of(headers: &HeaderMap, peer: Option<IpAddr>, proxies: &TrustedProxies) -> Context {
    let given = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok()).filter(|id| {
        (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && (card_data::is_uuid(id) || !card_data::is_in(id))
    });
    let trace = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .filter(|text| is_trace_parent(text) && !holds_number(text));
    Context {
        request_id: given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned),
        trace_parent: trace.map_or_else(new_trace, str::to_owned),
        address: peer.map(|peer| address_of(headers, peer, proxies).to_string()).unwrap_or_default(),
    }
}

/// The peer; behind proxies that are trusted, the last address of `X-Forwarded-For` that none of them is. What stands
/// before it anybody may have written.
fn address_of(headers: &HeaderMap, peer: IpAddr, proxies: &TrustedProxies) -> IpAddr {
    let mut address = peer.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev().filter_map(|line| line.to_str().ok());
    let mut hops = lines.flat_map(|line| line.rsplit(','));
    while proxies.contains(address) {
        match hops.next().and_then(|hop| hop.trim().parse::<IpAddr>().ok()) {
            Some(hop) => address = hop.to_canonical(),
            None => break,
        }
    }
    address
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower case, neither id all zero.
fn is_trace_parent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = |range: std::ops::Range<usize>| {
        bytes[range].iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    bytes.len() == 55
        && text.starts_with("00-")
        && bytes[35] == b'-'
        && bytes[52] == b'-'
        && is_hex(3..35)
        && is_hex(36..52)
        && is_hex(53..55)
        && bytes[3..35].iter().any(|byte| *byte != b'0')
        && bytes[36..52].iter().any(|byte| *byte != b'0')
}

/// A trace goes far, up to the analysts: one whose ids could be read as a card number is replaced.
fn holds_number(trace_parent: &str) -> bool {
    trace_parent.split('-').any(card_data::is_in)
}

fn new_trace() -> String {
    let (trace, span) = (rand::random::<u128>() | 1, rand::random::<u64>() | 1);
    format!("00-{trace:032x}-{span:016x}-01")
}

/// 405: a proxy may have let the request pass for what it is, so it is taken for nothing else.
fn as_itself_alone(method: &Method) -> Response {
    let mut refusal = ApiError::from_status(StatusCode::METHOD_NOT_ALLOWED).into_response();
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        refusal.headers_mut().insert(header::ALLOW, method);
    }
    refusal
}

fn admit(request: &Request) -> Result<(), ApiError> {
    let uri_bytes = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri_bytes > URI_BYTES_MAX {
        return Err(ApiError::from_status(StatusCode::URI_TOO_LONG));
    }
    let headers = request.headers();
    let header_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > HEADER_BYTES_MAX {
        return Err(ApiError::from_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::from_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    card_filter::head(request)?;
    if request.uri().path().starts_with("/api/") && !accepts_json(headers) {
        return Err(ApiError::from_status(StatusCode::NOT_ACCEPTABLE));
    }
    Ok(())
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if accepted.peek().is_none() {
        return true;
    }
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let kind = parts.next().unwrap_or_default();
        let is_ours =
            matches!(kind.as_str(), "" | "*/*" | "application/*" | "application/json" | "application/problem+json");
        is_ours && !parts.any(|part| is_never(&part))
    })
}

/// `q=0`: anything but this.
fn is_never(parameter: &str) -> bool {
    let quality = parameter.strip_prefix("q=").and_then(|quality| quality.parse::<f32>().ok());
    quality.is_some_and(|quality| quality <= 0.0)
}

/// A failure that the framework answered (no route, no method) has no problem body yet.
fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_failure = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !is_failure || kind.is_some_and(|kind| kind == "application/problem+json") {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut problem = ApiError::from_status(status).into_response();
    if let Some(allow) = allow {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_trace_parents_are_kept() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_trace_parent(good));
        assert!(is_trace_parent(&new_trace()));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-0",
        ] {
            assert!(!is_trace_parent(bad), "{bad}");
        }
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_came_from() {
        let address = |peer: &str, forwarded: &[&str], trusted: &str| {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
            }
            address_of(&headers, peer.parse().unwrap(), &trusted.parse().unwrap()).to_string()
        };
        let net = "10.0.0.0/8, 192.0.2.1";
        assert_eq!(address("203.0.113.9", &["1.1.1.1"], ""), "203.0.113.9", "nobody is trusted");
        assert_eq!(address("203.0.113.9", &["1.1.1.1"], net), "203.0.113.9", "not this one");
        assert_eq!(address("10.0.0.1", &["1.1.1.1"], net), "1.1.1.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 1.1.1.1"], net), "1.1.1.1", "the client wrote the first");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, 1.1.1.1, 192.0.2.1"], net), "1.1.1.1");
        assert_eq!(address("10.0.0.1", &["6.6.6.6", "1.1.1.1"], net), "1.1.1.1", "two lines are one list");
        assert_eq!(address("10.0.0.1", &["6.6.6.6, garbage"], net), "10.0.0.1");
        assert_eq!(address("10.0.0.1", &[], net), "10.0.0.1");
        assert_eq!(address("::ffff:10.0.0.1", &["2001:db8::1"], net), "2001:db8::1");
    }

    #[test]
    fn json_is_given_to_whoever_takes_it() {
        let accepts = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("accept", HeaderValue::from_static(value));
            }
            accepts_json(&headers)
        };
        let good: [&[&str]; 7] = [
            &[],
            &[""],
            &["*/*"],
            &["Application/JSON"],
            &["text/html, application/json;q=0.1"],
            &["image/png", "application/*"],
            &["application/json; charset=utf-8; q=1"],
        ];
        assert!(good.into_iter().all(accepts));
        let bad: [&[&str]; 4] = [&["image/png"], &["text/*"], &["application/json;q=0"], &["*/*; q=0.000"]];
        assert!(!bad.into_iter().any(accepts));
    }

    #[test]
    fn a_trace_that_could_be_a_card_number_is_replaced() {
        let with = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(text));
            context_of(&headers, None, &TrustedProxies::default()).trace_parent
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(with(good), good);
        for bad in [
            "00-a4111111111111111aaaaaaaaaaaaaaa-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-4111111111111111-01",
        ] {
            assert!(is_trace_parent(bad) && with(bad) != bad, "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_kept_only_when_it_is_plain() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID_HEADER, HeaderValue::from_str(id).unwrap());
            context_of(&headers, None, &TrustedProxies::default()).request_id
        };
        assert_eq!(with("till-7.42_a"), "till-7.42_a");
        assert_ne!(with("a b"), "a b");
        assert_ne!(with("4111111111111111"), "4111111111111111");
        assert_ne!(with(&"x".repeat(65)), "x".repeat(65));
    }
}
