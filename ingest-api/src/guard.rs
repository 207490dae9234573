//! The layer around every route that is not public: token, principal, permission.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::access::{Access, Permission, Principal};
use crate::app::AppState;
use crate::audit;
use crate::auth::tokens::{Claims, Subject};
use crate::budgets::Key;
use crate::budgets::layer::{self, Effort};
use crate::context::Context;
use crate::error::{ApiError, RefusedBecause};
#[cfg(feature = "switches")]
use crate::switches::{Part, is_off};

/// The layer of one route: token, budget, who it belongs to now, permission. What is beyond a budget has cost a look at
/// its token and no connection to Postgres, which sales wait for too.
pub async fn guard(
    State((app, permission, effort)): State<(AppState, Permission, Effort)>,
    request: Request,
    next: Next,
) -> Response {
    #[cfg(feature = "switches")]
    if is_off(Part::Authentication)
        && let Ok(principal) = crate::switches::unproven(request.headers())
    {
        return permit(&app, Access { principal, permission, session: None }, request, next).await;
    }
    let (claims, subject) = match proven(&app, request.headers(), permission) {
        Ok(proven) => proven,
        Err(problem) => return problem.into_response(),
    };
    let standing = app.budgets.take(layer::budget(subject, effort, request.headers()), Key::of(subject));
    let mut response = if standing.is_admitted() {
        match identify(&app, &claims, subject, permission).await {
            Ok(access) => permit(&app, access, request, next).await,
            Err(problem) => problem.into_response(),
        }
    } else {
        standing.problem().into_response()
    };
    standing.write(response.headers_mut());
    response
}

/// Lets the request through to whoever holds the permission. A refusal is audited before it is answered.
async fn permit(app: &AppState, access: Access, mut request: Request, next: Next) -> Response {
    let permission = access.permission;
    let may = access.principal.may_anywhere(permission);
    let is_write = request.method() != Method::GET;
    let trail = audit::Trail::of(&request, &access.principal);
    if may {
        request.extensions_mut().insert(access);
    }
    let response = if may {
        next.run(request).await
    } else {
        ApiError::forbidden("forbidden", "you do not hold the permission for this").into_response()
    };
    if is_write && response.status().is_success() {
        follow_up(app, permission).await;
    }
    let because = response.extensions().get::<RefusedBecause>().map(|because| because.0.clone());
    if (response.status() == StatusCode::FORBIDDEN || because.is_some())
        && let Err(problem) = audit::record_refusal(app, trail, permission, because.unwrap_or_default()).await
    {
        return problem.into_response();
    }
    response
}

/// After a committed write: wake the relay, and let this process price with the new catalog at once.
async fn follow_up(app: &AppState, permission: Permission) {
    app.committed.notify_one();
    let is_catalog = matches!(
        permission,
        Permission::ManageCatalog
            | Permission::ManagePrices
            | Permission::ManageLocations
            | Permission::ManagePromotions
            | Permission::ManageUsers
            | Permission::ManageRoles
            | Permission::ManageLoyalty
    );
    if is_catalog && let Err(error) = app.catalog.refresh().await {
        tracing::warn!(%error, "the catalog could not be refreshed; it is polled for");
    }
}

/// What the token says, when it is genuine and good for such a route.
fn proven(app: &AppState, headers: &HeaderMap, permission: Permission) -> Result<(Claims, Subject), ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or_else(ApiError::unauthenticated)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(ApiError::unauthenticated)?;
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::unauthenticated());
    }
    let claims = app.auth.verify(token.trim())?;
    let subject = claims.subject().ok_or_else(ApiError::unauthenticated)?;
    // Who still has to set up a second factor is nobody anywhere else.
    if matches!(subject, Subject::Enrolling(_)) && permission != Permission::EnrolSecondFactor {
        return Err(ApiError::unauthenticated());
    }
    Ok((claims, subject))
}

async fn identify(
    app: &AppState,
    claims: &Claims,
    subject: Subject,
    permission: Permission,
) -> Result<Access, ApiError> {
    let principal = app.auth.principal(&app.gate, claims).await?;
    let session = matches!(subject, Subject::User(_)).then_some(claims.sid);
    Ok(Access { principal, permission, session })
}

/// The route with the identifiers that were named: what else somebody writes into a path is kept nowhere.
fn place(request: &Request) -> String {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    // From the end: the path has lost the prefix that all routes share.
    let parts = route.rsplit('/').zip(request.uri().path().rsplit('/').filter(|part| !part.is_empty()));
    let named = |(of_route, named)| if Uuid::try_parse(named).is_ok() { named } else { of_route };
    let mut parts: Vec<&str> = parts.map(named).collect();
    parts.push("");
    parts.reverse();
    parts.join("/")
}

impl audit::Trail {
    fn of(request: &Request, principal: &Principal) -> audit::Trail {
        audit::Trail {
            principal: principal.clone(),
            context: request.extensions().get::<Context>().cloned().unwrap_or_else(|| Context::of_task("unknown")),
            target: format!("{} {}", request.method(), place(request)),
        }
    }
}
