//! Where budgets meet requests.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use runtime::names;

use super::{Budget, Key};
use crate::app::AppState;
use crate::auth::tokens::Subject;
use crate::context::Context;
use crate::error::ProblemCode;

/// `Priority: u=7` (RFC 9218): background work, such as what a till sold while it was offline.
const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// What a route asks of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    Usual,
    /// Thousands of rows at a time.
    Bulk,
    /// A password is tried.
    SignIn,
}

/// The budget that a request of this caller is counted in.
pub fn budget(subject: Subject, effort: Effort, headers: &HeaderMap) -> Budget {
    if effort == Effort::Bulk || is_background(headers) { Budget::Replay } else { Budget::of(subject) }
}

fn is_background(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(PRIORITY).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|item| item.trim() == "u=7"))
}

/// The layer of a route that takes no token: counts by the address a request comes from, as far as that is known.
pub async fn by_address(State((app, effort)): State<(AppState, Effort)>, request: Request, next: Next) -> Response {
    let budget = if effort == Effort::SignIn { Budget::SignIn } else { Budget::Public };
    let address = request.extensions().get::<Context>().and_then(|context| Key::address(&context.address));
    let Some(key) = address else { return next.run(request).await };
    let standing = app.budgets.take(budget, key);
    let mut response =
        if standing.is_admitted() { next.run(request).await } else { standing.problem().into_response() };
    standing.write(response.headers_mut());
    response
}

/// The layer of a route that proves who somebody is: counts what came of it.
pub async fn count_sign_ins(State(route): State<&'static str>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let refusal = response.extensions().get::<ProblemCode>().map(|ProblemCode(code)| *code);
    metrics::counter!(names::SIGN_INS, "route" => route, "outcome" => refusal.unwrap_or("done")).increment(1);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_the_lowest_urgency_is_background() {
        let is_background = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(PRIORITY, HeaderValue::from_static(value));
            super::is_background(&headers)
        };
        assert!(is_background("u=7") && is_background("i, u=7"));
        assert!(!is_background("u=6") && !is_background("u=77") && !is_background("") && !is_background("i"));
        assert!(!super::is_background(&HeaderMap::new()));
    }
}
