//! What browsers are told: which pages may call the API, and that its answers are data and nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use runtime::config::{Http, Origins};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// An answer loads nothing, runs nothing and stands in no frame.
const DATA: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// The pages of the API's description load their own files only; their library writes styles as it goes.
const PAGES: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
const TLS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");
/// How long a browser may remember what it was told about an origin.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Headers that scripts may send besides those that every page may.
const SENT: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("priority"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
];
/// Headers that scripts may read.
const READ: [HeaderName; 8] = [
    header::ETAG,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("idempotency-replayed"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-request-id"),
];

/// Closed by default.
#[derive(Debug, Clone, Default)]
pub struct Browsers {
    origins: Origins,
    is_behind_tls: bool,
}

impl Browsers {
    pub fn of(http: &Http) -> Arc<Self> {
        Arc::new(Browsers { origins: http.cors_origins.clone(), is_behind_tls: http.behind_tls })
    }

    /// Lets the scripts of the configured origins in, without cookies, which this API has none of; None: of no origin.
    pub fn cors(&self) -> Option<CorsLayer> {
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.origins.iter().cloned()))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH])
            .allow_headers(SENT)
            .expose_headers(READ)
            .max_age(REMEMBERED);
        (!self.origins.is_empty()).then_some(cors)
    }
}

/// Layer around everything: the headers by which a browser keeps an answer from being misused.
pub async fn protect(State(browsers): State<Arc<Browsers>>, request: Request, next: Next) -> Response {
    let is_page = request.uri().path().starts_with("/docs");
    let mut response = next.run(request).await;
    write(response.headers_mut(), is_page, browsers.is_behind_tls);
    response
}

fn write(headers: &mut HeaderMap, is_page: bool, is_behind_tls: bool) {
    headers.insert(header::CONTENT_SECURITY_POLICY, if is_page { PAGES } else { DATA });
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if is_behind_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, TLS_ONLY);
    }
}
