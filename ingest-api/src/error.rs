//! What the API answers when it does not do what was asked: problem+json with a stable `code`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// One wrong place of a request body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldProblem {
    /// JSON pointer into the request body, for instance `/lines/0/qty`.
    pub pointer: String,
    pub code: &'static str,
    pub message: String,
}

impl FieldProblem {
    pub fn new(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        FieldProblem { pointer: pointer.into(), code, message: message.into() }
    }
}

/// A refusal or failure as the client sees it. `source` is logged, never sent.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub retryable: bool,
    pub errors: Vec<FieldProblem>,
    /// More members of the problem body, for instance the quote of a `total_mismatch`.
    pub extra: Option<serde_json::Map<String, serde_json::Value>>,
    pub source: Option<anyhow::Error>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        ApiError {
            status,
            code,
            detail: detail.into(),
            retryable: false,
            errors: Vec::new(),
            extra: None,
            source: None,
        }
    }
    /// 400: the request cannot be read.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }
    /// 403: the caller may not do this there.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }
    /// 404: absent or out of the caller's scope.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("no such {what}"))
    }
    /// 409: the present state refuses it.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }
    /// 422: wrong whatever the state.
    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }
    /// 422 naming each wrong place of the body.
    pub fn invalid(errors: Vec<FieldProblem>) -> Self {
        let code = errors.first().map_or("invalid", |first| first.code);
        let detail = errors.first().map_or_else(String::new, |first| format!("{}: {}", first.pointer, first.message));
        ApiError { errors, ..Self::unprocessable(code, detail) }
    }
    /// 503: a dependency or load; the same request may be sent again.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        ApiError { retryable: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail) }
    }
    pub fn with_source(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        ApiError::unavailable("database_unavailable", "the database did not complete the request").with_source(error)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    type_: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    retryable: bool,
    errors: &'a [FieldProblem],
    #[serde(flatten)]
    extra: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body {
            type_: format!("https://vorca.dev/problems/{}", self.code),
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            retryable: self.retryable,
            errors: &self.errors,
            extra: self.extra.as_ref(),
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, bytes).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retryable {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
