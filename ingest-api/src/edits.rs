//! Edits under If-Match: a stale one is told which of its fields differ from the present state.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::{IfMatch, etag};

/// 412 unless `if_match` is the present version: names each field of the edit with the caller's and the
/// present value, so that a client can merge.
pub fn check_version(
    if_match: IfMatch,
    version: i64,
    edit: &impl Serialize,
    current: &impl Serialize,
) -> Result<(), ApiError> {
    if if_match.0 == version {
        return Ok(());
    }
    let (edit, current) = (to_value(edit)?, to_value(current)?);
    let mut fields = Vec::new();
    for (name, yours) in edit.as_object().into_iter().flatten().filter(|(_, yours)| !yours.is_null()) {
        let current = current.get(name).unwrap_or(&Value::Null);
        if current != yours {
            fields.push(json!({ "field": name, "yours": yours, "current": current }));
        }
    }
    let problem =
        ApiError::new(StatusCode::PRECONDITION_FAILED, "stale_version", "the object has changed since it was read");
    Err(problem.with_extra("current_version", version.into()).with_extra("fields", fields.into()))
}

fn to_value(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(ApiError::internal)
}

/// A resource with its version as `ETag`.
pub fn with_etag<T: Serialize>(status: StatusCode, body: &T, version: i64) -> Result<Response, ApiError> {
    let mut response = json_response(status, body)?;
    if let Ok(tag) = HeaderValue::from_str(&etag(version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// A JSON answer; what cannot be written is a bug, not a panic.
pub fn json_response<T: Serialize>(status: StatusCode, body: &T) -> Result<Response, ApiError> {
    let bytes = serde_json::to_vec(body).map_err(ApiError::internal)?;
    let mut response = (status, bytes).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
