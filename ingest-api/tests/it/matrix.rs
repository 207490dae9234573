//! The access matrix: the committed file is the one the code makes, and every cell of it is what a caller with a
//! real token gets.

use std::sync::atomic::{AtomicI64, Ordering};

use axum::http::Method;
use chrono::Utc;
use ingest_api::access_matrix::{Caller as Column, Outcome, Reach, document, outcome, own_rules};
use ingest_api::router::{Route, routes};
use schemas::ids::LocationId;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::{Answer, Caller, Device, PASSWORD, PROGRAM, SignedIn, World, enrol_factor, sign_in, text, world};

#[test]
fn the_committed_matrix_is_the_one_the_code_makes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/access-matrix.md");
    let made = document();
    if std::env::var_os("UPDATE_ACCESS_MATRIX").is_some() {
        return std::fs::write(path, made).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == made, "docs/access-matrix.md is stale: its head says how to make it anew");
}

/// A location with one of everything that belongs to a location.
pub struct Place {
    pub location: String,
    pub terminal: String,
    pub device: Device,
    pub till: Caller,
    /// May sell here; nobody edits it.
    pub cashier: String,
    cashier_code: String,
    /// A manager with a PIN.
    approver_code: String,
    approver: String,
    /// A cashier of this location to be read and edited.
    pub user: String,
    user_login: String,
    pub sale: String,
    /// Of the cashier at the till.
    lease: String,
    /// A device is bound to it and unbound again and again.
    retiring: String,
}

impl Place {
    /// Ids of everything that belongs to the location, itself included.
    pub fn ids(&self) -> Vec<String> {
        let all = [&self.location, &self.terminal, &self.cashier, &self.user, &self.sale, &self.lease, &self.retiring];
        all.map(String::clone).to_vec()
    }
}

/// A caller, and what it needs to prove itself.
pub struct Who {
    pub caller: Caller,
    signed_in: Option<SignedIn>,
}

pub struct Matrix {
    pub world: World,
    pub own: Place,
    pub other: Place,
    /// Enrolled again and again.
    spare: String,
    pub member: String,
    /// A role that nobody holds.
    role: String,
    /// Inactive: nobody's price changes.
    promotion: String,
    /// A user who logs in and out.
    visitor: String,
    next: AtomicI64,
}

const PIN: &str = "2580";

fn promotion(external_id: &str) -> Value {
    json!({"external_id": external_id, "name": "x", "priority": 1, "is_active": false, "needs_coupon": true,
        "effect": {"kind": "percent", "percent": "10"}})
}

/// Routes after which their caller's session is over.
pub const ENDS_SESSION: [&str; 5] = [
    "/auth/logout",
    "/auth/logout-everywhere",
    "/auth/sessions/{session_id}/end",
    "/auth/password",
    "/auth/second-factor/remove",
];

/// A valid request for a route.
pub struct Ask {
    pub path: String,
    pub if_match: String,
    pub body: Option<Value>,
}

impl Matrix {
    pub async fn new(pool: &PgPool) -> Matrix {
        let world = world(pool).await;
        let next = AtomicI64::new(1);
        let (own, other) = (world.here.clone(), world.there.clone());
        let (own, other) = (place(&world, &own, &next).await, place(&world, &other, &next).await);
        let spare = world.terminal(&world.here, "spare").await;
        let member = text(&world.owner.post("/members", json!({})).await.expect(201), "customer_id");
        let role = world.new_role("nobody's", &own_rules()).await;
        let promotion = text(&world.owner.post("/promotions", promotion("first")).await.expect(201), "promotion_id");
        let visitor = world.new_user("visitor", "cashier", Some(&world.here)).await;
        Matrix { world, own, other, spare, member, role, promotion, visitor, next }
    }

    pub async fn caller(&self, column: Column) -> Who {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{n}-{}", column.heading().replace(" everywhere", "-all"));
        let (world, here) = (&self.world, Some(self.own.location.as_str()));
        // The owner's log-in may be longer ago than what makes users and clients allows.
        sqlx::query("update sessions set proved_at = now()").execute(&world.pool).await.unwrap();
        let own_role;
        let (role, location) = match column {
            Column::Nobody => return Who { caller: world.nobody(), signed_in: None },
            Column::Terminal => return Who { caller: self.own.till.clone(), signed_in: None },
            Column::ClientHere => return Who { caller: world.client(&name, here).await.1, signed_in: None },
            Column::ClientEverywhere => return Who { caller: world.client(&name, None).await.1, signed_in: None },
            Column::Here(role) => (role.as_str(), here),
            Column::Everywhere(role) => (role.as_str(), None),
            Column::OwnRole => {
                own_role = world.new_role(&name, &own_rules()).await;
                (own_role.as_str(), here)
            }
        };
        world.new_user(&name, role, location).await;
        let signed_in = sign_in(&world.nobody(), &name, PASSWORD).await;
        Who { caller: signed_in.caller.clone(), signed_in: Some(signed_in) }
    }

    /// An API client of little permission, as the answer that made it.
    async fn client(&self) -> Value {
        let name = format!("client {}", self.next.fetch_add(1, Ordering::Relaxed));
        let body = json!({"name": name, "permissions": ["read_catalog"]});
        self.world.owner.post("/api-clients", body).await.expect(201)
    }

    /// A code that the authenticator being offered shows; nothing for who is offered none.
    async fn offered_code(&self, who: &Who) -> String {
        match who.caller.post("/auth/second-factor", json!({"password": PASSWORD})).await {
            offered if offered.status == 200 => {
                crate::world::authenticator(&text(&offered.json(), "secret")).code(Utc::now())
            }
            _ => "000000".to_owned(),
        }
    }

    /// What has to be there before a route can do what it is for.
    async fn prepare(&self, route: &Route, place: &Place, who: &Who) {
        match route.path {
            "/terminals/{terminal_id}/retire" => {
                let code = self.world.enrolment_code(&place.retiring).await;
                let body = json!({"code": code, "device_public_key": Device::new().public()});
                self.world.nobody().post("/enrolments", body).await.expect(201);
            }
            "/users/{user_id}/second-factor/reset" => {
                let login = json!({"login": place.user_login, "password": PASSWORD});
                let answer = self.world.nobody().post("/auth/login", login).await;
                if answer.status == 200 {
                    enrol_factor(&self.world.with_token(&text(&answer.json(), "access_token"))).await;
                }
            }
            "/auth/recovery-codes" | "/auth/second-factor/remove"
                if who.signed_in.as_ref().is_some_and(|it| it.factor.is_none()) =>
            {
                enrol_factor(&who.caller).await;
            }
            _ => {}
        }
    }

    /// Sells to the member at the till of a place; the sale's id.
    pub async fn sell_to_member(&self, place: &Place) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut sold = sale(&self.world, &place.location, &place.cashier, number);
        sold["customer_id"] = json!(self.member);
        place.till.post_keyed("/sales", &number.to_string(), &sold).await.expect(201);
        text(&sold, "sale_id")
    }

    /// Sells one of variant 0 at the till of a place; the sale's id.
    async fn sell(&self, place: &Place) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sold = sale(&self.world, &place.location, &place.cashier, number);
        place.till.post_keyed("/sales", &number.to_string(), &sold).await.expect(201);
        text(&sold, "sale_id")
    }

    /// Leaves one of variant 0 at a place to be looked at.
    async fn set_aside(&self, place: &Place) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sale = self.sell(place).await;
        let body = refund(&place.location, &place.approver, &sale, number, "inspect");
        place.till.post_keyed("/refunds", &number.to_string(), &body).await.expect(201);
    }

    pub async fn another_member(&self) -> String {
        text(&self.world.owner.post("/members", json!({})).await.expect(201), "customer_id")
    }

    /// What `If-Match` wants for an object now.
    async fn etag(&self, path: &str) -> String {
        self.world.owner.get(path).await.etag()
    }

    pub async fn ask(&self, route: &Route, place: &Place, who: &Who) -> Ask {
        self.prepare(route, place, who).await;
        let is_of_client = route.path.contains("{client_id}") || route.path.contains("{secret_id}");
        let client = if is_of_client { self.client().await } else { Value::Null };
        let retires = route.path.ends_with("/retire");
        let session = who.signed_in.as_ref().map(|it| it.session_id.clone());
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut ask = Ask { path: route.path.to_owned(), if_match: String::new(), body: None };
        let world = &self.world;
        for (name, id) in [
            ("{user_id}", &place.user),
            ("{role_id}", &self.role),
            ("{promotion_id}", &self.promotion),
            ("{terminal_id}", if retires { &place.retiring } else { &place.terminal }),
            ("{lease_id}", &place.lease),
            ("{session_id}", &session.unwrap_or_else(|| Uuid::now_v7().to_string())),
            ("{client_id}", &client["client_id"].as_str().unwrap_or_default().to_owned()),
            ("{secret_id}", &client["secret_id"].as_str().unwrap_or_default().to_owned()),
            ("{location_id}", &place.location),
            ("{tax_profile_id}", &world.tax_profile),
            ("{product_id}", &world.product),
            ("{variant_id}", &world.variants[1]),
            ("{customer_id}", &self.member),
            ("{sale_id}", &place.sale),
            ("{program_id}", &PROGRAM.to_owned()),
            ("{document_id}", &place.sale),
        ] {
            ask.path = ask.path.replace(name, id);
        }
        if route.method == Method::GET {
            ask.path.push_str(&match route.path {
                "/stock/movements" => format!("?location_id={}", place.location),
                "/changes" => format!("?location={}", place.location),
                "/audit" => "?limit=500".to_owned(),
                "/catalog/changes" => "?limit=5000".to_owned(),
                "/reports/kpis" => "?group_by=day&from=2026-01-01&to=2026-01-02".to_owned(),
                _ => String::new(),
            });
            return ask;
        }
        if [Method::PATCH, Method::PUT].contains(&route.method) {
            ask.if_match = self.etag(&ask.path).await;
        }
        if route.path.ends_with("/rates") {
            ask.if_match = self.etag(ask.path.trim_end_matches("/rates")).await;
        }
        ask.body = match route.path.starts_with("/auth/") {
            true => self.sign_in_body(route, who).await,
            false => self.body(route, place, n).await,
        };
        if route.path == "/approvals" && who.signed_in.is_none() {
            let pin = self.own.device.pin(&self.own.terminal, &self.own.approver_code, PIN);
            ask.body = ask.body.map(|body| with(body, "approver", pin));
        }
        // A member is erased or absorbed once.
        if route.path.ends_with("/erasure") {
            ask.path = ask.path.replace(&self.member, &self.another_member().await);
        }
        ask
    }

    /// A right body for a route of signing in.
    async fn sign_in_body(&self, route: &Route, who: &Who) -> Option<Value> {
        let world = &self.world;
        Some(match route.path {
            "/auth/login" => json!({"login": "visitor", "password": PASSWORD}),
            "/auth/refresh" => {
                json!({"refresh_token": sign_in(&world.nobody(), "visitor", PASSWORD).await.refresh_token})
            }
            "/auth/password-reset" => {
                let path = format!("/users/{}/password-reset", self.visitor);
                let code = text(&world.owner.send("POST", &path, &[], None).await.expect(201), "code");
                json!({"login": "visitor", "code": code, "new_password": PASSWORD})
            }
            "/auth/terminal-token" => {
                self.other.device.request(&self.other.terminal, Utc::now(), &Uuid::new_v4().to_string())
            }
            "/auth/client-token" => {
                let made = self.client().await;
                json!({"client_id": made["client_id"], "client_secret": made["client_secret"]})
            }
            "/auth/pin" => self.own.device.pin(&self.own.terminal, &self.own.cashier_code, PIN),
            "/auth/step-up" => match who.signed_in.as_ref().and_then(|it| it.recovery_codes.get(self.nth_code())) {
                Some(code) => json!({"recovery_code": code}),
                None => json!({"password": PASSWORD}),
            },
            "/auth/password" => json!({"old_password": PASSWORD, "new_password": "another long enough password"}),
            "/auth/second-factor" => json!({"password": PASSWORD}),
            "/auth/second-factor/confirm" => json!({"totp": self.offered_code(who).await, "password": PASSWORD}),
            "/auth/unlock-address" => json!({"address": "192.0.2.1"}),
            _ => return None,
        })
    }

    /// Recovery codes are good once.
    fn nth_code(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) as usize % 10
    }

    /// A body that is right and new each time.
    async fn body(&self, route: &Route, place: &Place, n: i64) -> Option<Value> {
        let (world, at) = (&self.world, &place.location);
        let id = format!("m{n}");
        let rates = json!([{"name": "VAT", "rate": "0.19", "inclusive": true}]);
        let valid_from = Utc::now() + chrono::TimeDelta::days(n);
        let line = |qty: &str| json!([{"variant_id": world.variants[0], qty: 1000}]);
        Some(match (route.method.as_str(), route.path) {
            ("POST", "/enrolments") => {
                let code = world.enrolment_code(&self.spare).await;
                json!({"code": code, "device_public_key": Device::new().public()})
            }
            ("POST", "/terminals/{terminal_id}/enrolment-codes")
            | ("POST", "/terminals/{terminal_id}/retire")
            | ("POST", "/leases/{lease_id}/revoke")
            | ("POST", "/api-client-secrets/{secret_id}/end")
            | ("POST", "/users/{user_id}/sessions/end")
            | ("POST", "/users/{user_id}/unlock")
            | ("POST", "/users/{user_id}/password-reset")
            | ("POST", "/users/{user_id}/second-factor/reset") => return None,
            ("POST", "/users/{user_id}/pin") => json!({"pin": PIN}),
            ("PATCH", "/sign-in-policy") => json!({"lease_hours": 72}),
            ("POST", "/api-clients") => json!({"name": id, "permissions": ["read_catalog"]}),
            ("POST", "/api-clients/{client_id}/secrets") => json!({}),
            ("POST", "/users") => json!({"login": id, "code": id, "grants": [{"role": "cashier", "location_id": at}]}),
            ("PATCH", "/users/{user_id}") => json!({"code": id}),
            ("POST", "/roles") | ("PUT", "/roles/{role_id}") => {
                json!({"name": id, "rules": [{"permission": "read_stock", "mode": "allow"}]})
            }
            ("POST", "/promotions") | ("PUT", "/promotions/{promotion_id}") => promotion(&id),
            ("POST", "/promotions/{promotion_id}/coupons") => json!({"coupons": [{"code": format!("MATRIX{n}")}]}),
            ("POST", "/approvals") => json!({"location_id": at, "requester": Uuid::now_v7(), "digest": "a7".repeat(32),
                "currency": "EUR", "acts": [{"act": "override_price", "ceiling_minor": 100}]}),
            ("POST", "/terminals") => json!({"location_id": at, "register_id": id, "name": "Till"}),
            ("POST", "/locations") => json!({"external_id": id, "name": "Shop", "currency": "EUR",
                "time_zone": "Europe/Berlin", "opened_on": "2020-01-01"}),
            ("PATCH", "/members/{customer_id}/profile") => json!({"given_name": id}),
            ("PATCH", _) => json!({"name": format!("Name {n}")}),
            ("POST", "/tax-profiles") => {
                json!({"external_id": id, "name": "x", "valid_from": valid_from, "rates": rates})
            }
            ("POST", "/tax-profiles/{tax_profile_id}/rates") => json!({"valid_from": valid_from, "rates": rates}),
            ("POST", "/catalog/upsert") => json!({"products": [{"external_id": id, "name": "x"}]}),
            ("POST", "/prices") => prices(world, at, n),
            ("POST", "/members") => json!({"external_id": id}),
            ("POST", "/members/lookup") => json!({"email": format!("{id}@example.com")}),
            ("POST", "/members/{customer_id}/merge") => {
                json!({"absorbed_id": self.another_member().await, "reason": "duplicate"})
            }
            ("POST", "/members/{customer_id}/erasure") => json!({"reason": "request"}),
            ("POST", "/members/upsert") => json!({"members": [{"external_id": id}]}),
            ("POST", "/stock/receipts") => json!({"location_id": at, "reason": "receipt", "lines": line("qty")}),
            ("POST", "/stock/adjustments") => json!({"location_id": at, "reason": "found", "lines": line("delta")}),
            ("POST", "/stock/thresholds") => json!({"location_id": at, "lines": line("threshold")}),
            ("POST", "/quotes") => {
                json!({"location_id": at, "lines": [{"line_no": 1, "variant_id": world.variants[0], "qty": 1000}]})
            }
            ("POST", "/sales") => sale(world, at, &place.cashier, n),
            ("POST", "/refunds") => refund(at, &place.approver, &self.sell(place).await, n, "resellable"),
            ("POST", "/refunds/preview") => {
                json!({"location_id": at, "lines": back(&self.sell(place).await, "resellable")})
            }
            ("POST", "/exchanges") => {
                let mut body = begun(at, &place.approver, n);
                body["returns"] = back(&self.sell(place).await, "resellable");
                body["lines"] = json!([{"line_no": 2, "variant_id": world.variants[0], "qty": 1000}]);
                (body["tenders"], body["total_minor"]) = (json!([]), json!(0));
                body
            }
            ("POST", "/exchanges/preview") => {
                json!({"location_id": at, "returns": back(&self.sell(place).await, "resellable"),
                    "lines": [{"line_no": 2, "variant_id": world.variants[0], "qty": 1000}]})
            }
            ("POST", "/voids") => begun(at, &place.approver, n),
            ("POST", "/stock/dispositions") => {
                self.set_aside(place).await;
                json!({"location_id": at, "reason": "checked",
                    "lines": [{"variant_id": world.variants[0], "qty": 1000, "to": "stock"}]})
            }
            other => panic!("this test knows no request for {other:?}"),
        })
    }
}

async fn place(world: &World, location: &str, next: &AtomicI64) -> Place {
    let n = next.fetch_add(1, Ordering::Relaxed);
    let (terminal, device, till) = world.till(location, "1").await;
    let (cashier_code, user_login) = (format!("seller{n}"), format!("cashier{n}"));
    let cashier = world.new_user(&cashier_code, "cashier", Some(location)).await;
    let user = world.new_user(&user_login, "cashier", Some(location)).await;
    world.owner.post(&format!("/users/{cashier}/pin"), json!({"pin": PIN})).await.expect(200);
    let lease = till.post("/auth/pin", device.pin(&terminal, &cashier_code, PIN)).await.expect(201);
    let retiring = world.terminal(location, "retiring").await;
    let approver_code = format!("approver{n}");
    let approver = world.new_user(&approver_code, "manager", Some(location)).await;
    world.owner.post(&format!("/users/{approver}/pin"), json!({"pin": PIN})).await.expect(200);
    world.owner.post("/prices", prices(world, location, n)).await.expect(201);
    let sold = sale(world, location, &cashier, next.fetch_add(1, Ordering::Relaxed));
    till.post_keyed("/sales", &n.to_string(), &sold).await.expect(201);
    let waiting = sale(world, location, &cashier, next.fetch_add(1, Ordering::Relaxed));
    till.post_keyed("/sales", "waiting", &waiting).await.expect(201);
    let number = next.fetch_add(1, Ordering::Relaxed);
    let body = refund(location, &approver, &text(&waiting, "sale_id"), number, "inspect");
    till.post_keyed("/refunds", "waiting", &body).await.expect(201);
    Place {
        location: location.to_owned(),
        terminal,
        device,
        till,
        cashier,
        cashier_code,
        approver_code,
        approver,
        user,
        user_login,
        sale: text(&sold, "sale_id"),
        lease: text(&lease, "lease_id"),
        retiring,
    }
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

/// A price of variant 1 at a location, from another day each time.
fn prices(world: &World, location: &str, n: i64) -> Value {
    let valid_from = Utc::now() + chrono::TimeDelta::days(n);
    json!({"prices": [{"variant_id": world.variants[1], "location_id": location, "currency": "EUR", "amount_minor": n,
        "tax_inclusive": true, "valid_from": valid_from}]})
}

/// One of variant 0 for cash.
fn sale(world: &World, location: &str, cashier: &str, number: i64) -> Value {
    json!({"sale_id": Uuid::now_v7(), "location_id": location, "terminal_seq": number,
        "receipt": {"series_epoch": 1, "number": number}, "cashier_id": cashier, "occurred_at": Utc::now(),
        "currency": "EUR", "lines": [{"line_no": 1, "variant_id": world.variants[0], "qty": 1000}],
        "tenders": [{"kind": "cash", "amount_minor": 250}], "total_minor": 250})
}

/// What a refund, an exchange and a void begin with.
fn begun(location: &str, cashier: &str, number: i64) -> Value {
    json!({"document_id": Uuid::now_v7(), "location_id": location, "terminal_seq": number,
        "receipt": {"series_epoch": 1, "number": number}, "cashier_id": cashier, "occurred_at": Utc::now(),
        "currency": "EUR", "reason": "defect"})
}

/// The one line of such a sale.
fn back(sale: &str, disposition: &str) -> Value {
    json!([{"line_no": 1, "origin_document_id": sale, "origin_line_no": 1, "qty": 1000, "disposition": disposition}])
}

fn refund(location: &str, cashier: &str, sale: &str, number: i64, disposition: &str) -> Value {
    let mut body = begun(location, cashier, number);
    body["lines"] = back(sale, disposition);
    body["tenders"] = json!([{"kind": "cash", "amount_minor": -250}]);
    body["total_minor"] = json!(-250);
    body
}

pub async fn send(caller: &Caller, route: &Route, ask: &Ask, query: &str) -> Answer {
    let key = Uuid::new_v4().to_string();
    let headers = [("if-match", ask.if_match.as_str()), ("idempotency-key", &key)];
    let body = ask.body.as_ref().map(|body| body.to_string().into_bytes());
    caller.send(route.method.as_str(), &format!("{}{query}", ask.path), &headers, body.as_deref()).await
}

/// Lists that also take `location_id`.
fn may_name(route: &Route) -> bool {
    ["/terminals", "/stock", "/stock/aside", "/sales", "/documents", "/leases", "/reports/kpis", "/audit"]
        .contains(&route.path)
}

/// Without ClickHouse reports end in 503, a day that is not over has no root, and an owner's second factor is compulsory:
/// all behind every check of rights.
pub fn is_served(route: &Route, answer: &Answer) -> bool {
    let ends_in = |path: &str, status: u16| route.path == path && answer.status.as_u16() == status;
    answer.status.is_success()
        || ends_in("/reports/kpis", 503)
        || ends_in("/sales/{sale_id}/proof", 409)
        || ends_in("/documents/{document_id}/proof", 409)
        || ends_in("/auth/second-factor/remove", 409)
}

/// What is wrong with one cell, if anything is.
async fn try_cell(matrix: &Matrix, who: &Who, route: &Route, place: &Place, wanted: Outcome) -> Option<String> {
    let (ask, caller) = (matrix.ask(route, place, who).await, &who.caller);
    let answer = send(caller, route, &ask, "").await;
    let is_right = match wanted {
        Outcome::NeedsApproval => answer.problem().1 == "approval_required",
        Outcome::Refused(status) => answer.status == status && answer.problem().0 == status.as_u16(),
        Outcome::Served => is_served(route, &answer) && is_listed(route, &answer, place) != Some(false),
        Outcome::LeftOut => is_served(route, &answer) && is_listed(route, &answer, place) != Some(true),
    };
    if !is_right {
        return Some(answer.text());
    }
    if route.reach != Reach::Listed || !may_name(route) || matches!(wanted, Outcome::Refused(_)) {
        return None;
    }
    let separator = if ask.path.contains('?') { '&' } else { '?' };
    let named = send(caller, route, &ask, &format!("{separator}location_id={}", place.location)).await;
    let is_right = if wanted == Outcome::Served { is_served(route, &named) } else { named.status == 403 };
    (!is_right).then(|| format!("named: {}", named.text()))
}

/// Whether a list shows something of a place; nothing for what is no list.
fn is_listed(route: &Route, answer: &Answer, place: &Place) -> Option<bool> {
    let is_list = route.reach == Reach::Listed && answer.status.is_success();
    is_list
        .then(|| answer.text().replace("\": \"", "\":\"").contains(&format!("\"location_id\":\"{}\"", place.location)))
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_cell_of_the_matrix_is_what_a_caller_gets(pool: PgPool) {
    let matrix = Matrix::new(&pool).await;
    let own = LocationId(matrix.own.location.parse().unwrap());
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for column in Column::all() {
        let caller = matrix.caller(column).await;
        for route in routes() {
            for place in [&matrix.own, &matrix.other] {
                let at = LocationId(place.location.parse().unwrap());
                let wanted = outcome(&route, column.principal(own).as_ref(), at);
                tried += 1;
                let leaver = if ENDS_SESSION.contains(&route.path) { Some(matrix.caller(column).await) } else { None };
                let who = leaver.as_ref().unwrap_or(&caller);
                if let Some(got) = try_cell(&matrix, who, &route, place, wanted).await {
                    let (method, path, own) = (&route.method, route.path, at == own);
                    wrong.push(format!("{column:?} {method} {path} own: {own}: wanted {wanted:?}, got {got}"));
                }
            }
        }
    }
    assert_eq!(tried, Column::all().len() * routes().len() * 2);
    assert!(wrong.is_empty(), "{} of {tried} cells:\n{}", wrong.len(), wrong.join("\n"));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_terminal_reads_itself_and_no_other_of_its_location(pool: PgPool) {
    let world = world(&pool).await;
    let (terminal, _, till) = world.till(&world.here, "1").await;
    let neighbour = world.terminal(&world.here, "2").await;
    till.get(&format!("/terminals/{terminal}")).await.expect(200);
    assert_eq!(till.get(&format!("/terminals/{neighbour}")).await.problem().0, 404);
    assert_eq!(till.get("/terminals").await.expect(200)["items"].as_array().unwrap().len(), 1);
}
