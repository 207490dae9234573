//! The layer around every route that is not public: token, principal, permission.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::access::{Access, Permission, Principal};
use crate::app::AppState;
use crate::audit;
use crate::auth::tokens::Subject;
use crate::context::Context;
use crate::error::{ApiError, RefusedBecause};
#[cfg(feature = "switches")]
use crate::switches::{Part, is_off};

/// The layer of one route: token, principal, permission. A refusal is audited before it is answered.
pub async fn guard(
    State((app, permission)): State<(AppState, Permission)>,
    mut request: Request,
    next: Next,
) -> Response {
    if permission == Permission::Public {
        return next.run(request).await;
    }
    let access = match identify(&app, request.headers(), permission).await {
        Ok(access) => access,
        Err(problem) => return problem.into_response(),
    };
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
        follow_up(&app, permission).await;
    }
    let because = response.extensions().get::<RefusedBecause>().map(|because| because.0.clone());
    if (response.status() == StatusCode::FORBIDDEN || because.is_some())
        && let Err(problem) = audit::record_refusal(&app, trail, permission, because.unwrap_or_default()).await
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
            | Permission::ManageUsers
            | Permission::ManageRoles
    );
    if is_catalog && let Err(error) = app.catalog.refresh().await {
        tracing::warn!(%error, "the catalog could not be refreshed; it is polled for");
    }
}

async fn identify(app: &AppState, headers: &HeaderMap, permission: Permission) -> Result<Access, ApiError> {
    #[cfg(feature = "switches")]
    if is_off(Part::Authentication) && headers.contains_key("x-terminal") {
        return Ok(Access { principal: crate::switches::unproven(headers)?, permission, session: None });
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or_else(ApiError::unauthenticated)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(ApiError::unauthenticated)?;
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::unauthenticated());
    }
    let claims = app.auth.verify(token.trim())?;
    let subject = claims.subject();
    // Who still has to set up a second factor is nobody anywhere else.
    if matches!(subject, Some(Subject::Enrolling(_))) && permission != Permission::EnrolSecondFactor {
        return Err(ApiError::unauthenticated());
    }
    let principal = app.auth.principal(&app.gate, &claims).await?;
    let session = matches!(subject, Some(Subject::User(_))).then_some(claims.sid);
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
