//! One row of the table of routes, and the words it is written in.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::{IntoParams, ToSchema};

use crate::access::Permission;
use crate::access_matrix::Reach;
use crate::app::AppState;
use crate::budgets::layer::Effort;
use crate::openapi::Operation;

/// One row of the table.
pub struct Route {
    pub method: Method,
    /// Below [`super::BASE`].
    pub path: &'static str,
    pub permission: Permission,
    pub reach: Reach,
    pub effort: Effort,
    pub operation: Operation,
    pub(super) handler: MethodRouter<AppState>,
}

fn route<H, T>(method: Method, path: &'static str, permission: Permission, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, AppState>,
    T: 'static,
{
    let filter = match method {
        Method::GET => MethodFilter::GET,
        Method::PATCH => MethodFilter::PATCH,
        Method::PUT => MethodFilter::PUT,
        _ => MethodFilter::POST,
    };
    Route {
        method,
        path,
        permission,
        reach: Reach::Anywhere,
        effort: Effort::Usual,
        operation: Operation::new(summary),
        handler: on(filter, handler),
    }
}

pub(super) fn get<H, T>(path: &'static str, permission: Permission, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, AppState>,
    T: 'static,
{
    route(Method::GET, path, permission, handler, summary)
}

pub(super) fn post<H, T>(path: &'static str, permission: Permission, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, AppState>,
    T: 'static,
{
    route(Method::POST, path, permission, handler, summary)
}

pub(super) fn patch<H, T>(path: &'static str, permission: Permission, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, AppState>,
    T: 'static,
{
    route(Method::PATCH, path, permission, handler, summary).if_match()
}

pub(super) fn put<H, T>(path: &'static str, permission: Permission, handler: H, summary: &'static str) -> Route
where
    H: Handler<T, AppState>,
    T: 'static,
{
    route(Method::PUT, path, permission, handler, summary).if_match()
}

impl Route {
    /// How far its permission has to reach; [`Reach::Anywhere`] unless told. The handler enforces it, the test of the
    /// access matrix tries it.
    pub(super) fn reaches(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }
    /// Counted with what may take its time.
    pub(super) fn in_bulk(mut self) -> Self {
        self.effort = Effort::Bulk;
        self
    }
    /// A password is tried: counted with the tightest budget.
    pub(super) fn tries_password(mut self) -> Self {
        self.effort = Effort::SignIn;
        self
    }
    /// Whether it proves who somebody is.
    pub(super) fn is_sign_in(&self) -> bool {
        self.method == Method::POST && matches!(self.permission, Permission::Public | Permission::SignInCashiers)
    }
    /// The JSON body it takes.
    pub(super) fn takes<B: ToSchema>(mut self) -> Self {
        self.operation.takes::<B>(true);
        self
    }
    /// The JSON body it takes, when one comes.
    pub(super) fn may_take<B: ToSchema>(mut self) -> Self {
        self.operation.takes::<B>(false);
        self
    }
    /// The JSON body it gives on success.
    pub(super) fn gives<B: ToSchema>(mut self, status: u16) -> Self {
        self.operation.gives::<B>(status);
        self
    }
    /// A page of these.
    pub(super) fn lists<B: ToSchema>(mut self) -> Self {
        self.operation.lists::<B>();
        self
    }
    /// The query it reads.
    pub(super) fn asks<P: IntoParams>(mut self) -> Self {
        self.operation.asks::<P>();
        self
    }
    /// Needs If-Match.
    pub(super) fn if_match(mut self) -> Self {
        self.operation.header("If-Match", "`ETag` of what was read");
        self
    }
    /// Needs Idempotency-Key; a replay is 200 with the same bytes.
    pub(super) fn keyed(mut self) -> Self {
        self.operation.keyed();
        self
    }
}
