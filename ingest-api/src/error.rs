//! What the API answers when it does not do what was asked: problem+json with a stable `code`.
//!
//! [`Code`] is the whole catalogue. Handlers build an [`ApiError`]; the text of a source error is
//! logged here, once, and never sent. A 500 is a bug in this crate, whatever the input was.

use std::borrow::Cow;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use runtime::names;
use runtime::pg::WriteFailure;
use runtime::problem::Code;
use serde::Serialize;
use serde_json::{Map, Value};

/// One wrong place of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldProblem {
    /// JSON pointer into the request body, for instance `/lines/0/qty`; for a query `/limit`.
    pub pointer: String,
    pub code: &'static str,
    pub message: String,
}

impl FieldProblem {
    pub fn new(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        FieldProblem { pointer: pointer.into(), code, message: message.into() }
    }
    /// `invalid_value` at this place.
    pub fn value(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(pointer, "invalid_value", message)
    }
}

/// A refusal or failure as the client sees it. `source` is logged, never sent.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    /// One of [`Code::ALL`].
    pub code: &'static str,
    pub detail: Cow<'static, str>,
    /// Whether the very same request may succeed when it is sent again.
    pub retryable: bool,
    pub errors: Vec<FieldProblem>,
    /// More members of the body, for instance the quote of a `total_mismatch`.
    pub extra: Option<Box<Map<String, Value>>>,
    pub source: Option<anyhow::Error>,
    /// What the guard writes about it into the audit log.
    pub audit: Option<Box<str>>,
    /// Seconds after which it may be sent again, where it may.
    pub retry_after_s: u64,
}

/// For tasks that have no HTTP client: detail and hidden cause, for the operator.
impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)?;
        match &self.source {
            Some(source) => write!(f, ": {source:#}"),
            None => Ok(()),
        }
    }
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let known = Code::ALL.iter().find(|known| known.code() == code);
        debug_assert!(known.is_some(), "{code} is not in the catalogue");
        let retryable = known.is_some_and(|known| known.retryable());
        let (detail, errors) = (detail.into(), Vec::new());
        ApiError { status, code, detail, retryable, errors, extra: None, source: None, audit: None, retry_after_s: 1 }
    }
    /// 400: the request cannot be read.
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }
    /// 401: who is asking is not known. Says nothing about why.
    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "no valid credentials")
    }
    /// 403: the caller may not do this there.
    pub fn forbidden(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }
    /// 404: absent or out of the caller's scope.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("no such {what}"))
    }
    /// 409: the present state refuses it.
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }
    /// 422: wrong whatever the state.
    pub fn unprocessable(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }
    /// 422 naming each wrong place of the request; the code is that of the first.
    pub fn invalid(errors: Vec<FieldProblem>) -> Self {
        let code = errors.first().map_or("invalid_value", |first| first.code);
        let detail = errors.first().map_or_else(String::new, |first| format!("{}: {}", first.pointer, first.message));
        ApiError { errors, ..Self::unprocessable(code, detail) }
    }
    /// 422 `invalid_value` at one place.
    pub fn invalid_value(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldProblem::value(pointer, message)])
    }
    /// 409 `already_exists` naming each place whose value is taken, when there is any.
    pub fn taken(pointers: impl IntoIterator<Item = String>) -> Result<(), Self> {
        let taken = |pointer| FieldProblem::new(pointer, "already_exists", "already taken");
        let errors: Vec<FieldProblem> = pointers.into_iter().map(taken).collect();
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError { errors, ..Self::conflict("already_exists", "this name or number is taken") })
    }
    /// 503: a dependency (`unavailable`) or load (`overloaded`); the same request may be sent again.
    pub fn unavailable(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }
    /// 500: what cannot happen, happened.
    pub fn internal(source: impl Into<anyhow::Error>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the platform made a mistake; nothing was stored")
            .with_source(source)
    }
    /// When it may be sent again.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = seconds;
        self
    }
    /// The cause, for the log.
    pub fn with_source(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// One more member of the body.
    pub fn with_extra(mut self, name: &str, value: Value) -> Self {
        self.extra.get_or_insert_default().insert(name.to_owned(), value);
        self
    }

    /// The problem that stands for a bare status, as the framework or the server answers it.
    pub fn from_status(status: StatusCode) -> Self {
        let (code, detail) = match status.as_u16() {
            400 => ("malformed", "the request cannot be read"),
            401 => ("unauthenticated", "no valid credentials"),
            403 => ("forbidden", "not allowed"),
            404 => ("not_found", "no such route"),
            405 => ("method_not_allowed", "this route does not have that method"),
            406 => ("not_acceptable", "the API answers application/json"),
            408 => ("request_timeout", "the request did not arrive in time"),
            413 => ("payload_too_large", "the body is longer than this route accepts"),
            414 => ("uri_too_long", "the address is longer than 8 KiB"),
            415 => ("unsupported_media_type", "send application/json in UTF-8, not compressed"),
            422 => ("invalid_value", "the request holds a wrong value"),
            429 => ("rate_limited", "too many requests"),
            431 => ("headers_too_large", "the headers are longer than 16 KiB"),
            503 => ("unavailable", "something the request needs is not reachable"),
            code if code < 500 => ("malformed", "the request cannot be answered"),
            _ => ("internal", "the platform made a mistake; nothing was stored"),
        };
        Self::new(status, code, detail)
    }
}

impl From<sqlx::Error> for ApiError {
    /// The one place where database failures become answers: named constraints are conflicts, values
    /// the database cannot hold are the caller's, an unreachable or busy database is an honest 503.
    fn from(error: sqlx::Error) -> Self {
        let problem = match &error {
            sqlx::Error::Database(database) => {
                from_sqlstate(database.code().as_deref().unwrap_or(""), database.constraint())
            }
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_) => Self::unavailable("unavailable", "the database is not reachable"),
            _ => Self::from_status(StatusCode::INTERNAL_SERVER_ERROR),
        };
        problem.with_source(error)
    }
}

fn from_sqlstate(state: &str, constraint: Option<&str>) -> ApiError {
    match (state, constraint) {
        ("23505", Some(name)) => from_unique(name),
        ("23505", None) => ApiError::conflict("id_conflict", "already taken"),
        ("23503", _) => ApiError::unprocessable("invalid_value", "refers to something that does not exist"),
        ("23514" | "23502", _) => ApiError::unprocessable("invalid_value", "a value is out of range"),
        ("55P03", _) => ApiError::unavailable("overloaded", "another act holds what this one needs"),
        ("53100", _) => ApiError::unavailable("storage_full", "the store has no room"),
        (state, _) if state.starts_with("22") => ApiError::unprocessable("invalid_value", "a value cannot be stored"),
        (state, _) if ["40", "53", "57", "58", "08"].iter().any(|class| state.starts_with(class)) => {
            ApiError::unavailable("unavailable", "the database did not complete the request")
        }
        // Read-only: a server that is being failed over.
        ("25006", _) => ApiError::unavailable("unavailable", "the database takes no writes at present"),
        _ => ApiError::from_status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn from_unique(constraint: &str) -> ApiError {
    let place = match constraint {
        "idempotency_keys_pkey" => {
            return ApiError::conflict("in_progress", "a twin of this request is running");
        }
        "locations_external_id_key"
        | "tax_profiles_external_id_key"
        | "products_external_id_key"
        | "variants_external_id_key"
        | "customers_external_id_key" => "/external_id",
        "variants_sku_key" => "/sku",
        "api_clients_name_key" | "roles_name_key" => "/name",
        "users_login_key" => "/login",
        "users_code_key" => "/code",
        "terminals_register_key" => "/register_id",
        "customers_member_number_key" => "/member_number",
        _ => return ApiError::conflict("id_conflict", "this identifier belongs to something else"),
    };
    let taken = ApiError::taken([place.to_owned()]);
    taken.err().unwrap_or_else(|| ApiError::conflict("already_exists", "this name or number is taken"))
}

impl WriteFailure for ApiError {
    fn sqlstate(&self) -> Option<String> {
        let error = self.source.as_ref()?.downcast_ref::<sqlx::Error>()?;
        Some(error.as_database_error()?.code()?.into_owned())
    }
}

tokio::task_local! {
    /// Id of the request being answered; set by `context::stamp`, read when a problem is written.
    pub static REQUEST_ID: String;
}

/// Beside a response: a refusal that has to be audited, and what its row says.
#[derive(Debug, Clone)]
pub struct RefusedBecause(pub String);
/// Stands in the extensions of an answer that is a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemCode(pub &'static str);

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    type_: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    retryable: bool,
    request_id: &'a str,
    errors: &'a [FieldProblem],
    #[serde(flatten)]
    extra: Option<&'a Map<String, Value>>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let request_id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
        log(&self, &request_id);
        metrics::counter!(names::HTTP_PROBLEMS, "code" => self.code).increment(1);
        let body = Body {
            type_: format!("urn:vorca:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            retryable: self.retryable,
            request_id: &request_id,
            errors: &self.errors,
            extra: self.extra.as_deref(),
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, bytes).into_response();
        if let Some(note) = self.audit {
            response.extensions_mut().insert(RefusedBecause(note.into()));
        }
        let mut set = |name: HeaderName, value| response.headers_mut().insert(name, value);
        set(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.retryable {
            set(header::RETRY_AFTER, HeaderValue::from(self.retry_after_s));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            set(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(ProblemCode(self.code));
        response
    }
}

fn log(problem: &ApiError, request_id: &str) {
    let source = problem.source.as_ref().map(|source| format!("{source:#}")).unwrap_or_default();
    if problem.status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id, code = problem.code, error = source, "request ended in a bug");
    } else if problem.status.is_server_error() {
        tracing::warn!(request_id, code = problem.code, detail = %problem.detail, error = source, "request not served");
    } else {
        tracing::debug!(request_id, code = problem.code, error = source, "request refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_the_server_may_answer_has_a_code_of_the_catalogue() {
        for status in (400..600).filter_map(|code| StatusCode::from_u16(code).ok()) {
            let problem = ApiError::from_status(status);
            assert!(Code::ALL.iter().any(|code| code.code() == problem.code), "{status}");
        }
    }

    #[test]
    fn the_text_of_a_source_is_never_sent() {
        let problem = ApiError::internal(anyhow::anyhow!("secret detail"));
        assert!(!problem.detail.contains("secret"));
    }
}
