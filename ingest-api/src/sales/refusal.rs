//! Why a sale is not sold: an answer, never a rollback. Kept apart from HTTP so that deciding stays pure.

use axum::http::StatusCode;
use serde_json::Value;

use crate::error::{ApiError, FieldProblem};

/// An answer other than a sale; can be given to several twins.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    pub errors: Vec<FieldProblem>,
    /// One more member of the problem body.
    pub extra: Option<(&'static str, Value)>,
    /// What the audit row of it says; none: only the permission that was missing.
    pub audit: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Refusal { status, code, detail: detail.into(), errors: Vec::new(), extra: None, audit: None }
    }
    /// 409: the present state refuses it.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }
    /// 422: wrong whatever the state.
    pub fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }
    /// 404: what the body names at this place does not exist.
    pub fn absent(pointer: &str, detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail).at(pointer)
    }
    /// 403: not permitted.
    pub fn forbidden(pointer: &str, detail: &str) -> Self {
        let errors = vec![FieldProblem::new(pointer, "forbidden", detail)];
        Refusal { errors, ..Self::new(StatusCode::FORBIDDEN, "forbidden", detail) }
    }
    /// 403 with a code of its own.
    pub fn denied(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }
    /// Names the place that its detail is about.
    pub fn at(mut self, pointer: &str) -> Self {
        self.errors = vec![FieldProblem::new(pointer, self.code, self.detail.as_str())];
        self
    }
    /// Has the refusal audited with this text, whatever its status.
    pub fn audited(self, note: String) -> Self {
        Refusal { audit: Some(note), ..self }
    }
    /// 422 naming each wrong place; the code is that of the first.
    pub fn fields(errors: Vec<FieldProblem>) -> Self {
        let code = errors.first().map_or("invalid_value", |first| first.code);
        let detail = errors.first().map_or_else(String::new, |first| format!("{}: {}", first.pointer, first.message));
        Refusal { errors, ..Self::unprocessable(code, detail) }
    }
    /// 422 at one place.
    pub fn field(pointer: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldProblem::new(pointer, code, message)])
    }
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.extra = Some((name, value));
        self
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let mut error = ApiError::new(refusal.status, refusal.code, refusal.detail);
        error.errors = refusal.errors;
        error.audit = refusal.audit.map(String::into_boxed_str);
        match refusal.extra {
            Some((name, value)) => error.with_extra(name, value),
            None => error,
        }
    }
}
