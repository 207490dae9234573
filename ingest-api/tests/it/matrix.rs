//! The access matrix: the committed file is the one the code makes, and every cell of it is what a caller with a
//! real token gets.

use std::sync::atomic::{AtomicI64, Ordering};

use axum::http::Method;
use chrono::Utc;
use ingest_api::access_matrix::{Caller as Column, Outcome, Reach, document, outcome};
use ingest_api::router::{Route, routes};
use schemas::ids::LocationId;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::{Answer, Caller, Device, World, text, world};

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
    /// A cashier of this location to be read and edited.
    pub user: String,
    pub sale: String,
}

pub struct Matrix {
    pub world: World,
    pub own: Place,
    pub other: Place,
    /// Enrolled again and again.
    spare: String,
    member: String,
    next: AtomicI64,
}

/// A valid request for a route.
pub struct Ask {
    pub path: String,
    if_match: String,
    body: Option<Value>,
}

impl Matrix {
    pub async fn new(pool: &PgPool) -> Matrix {
        let world = world(pool).await;
        let next = AtomicI64::new(1);
        let (own, other) = (world.here.clone(), world.there.clone());
        let (own, other) = (place(&world, &own, &next).await, place(&world, &other, &next).await);
        let spare = world.terminal(&world.here, "spare").await;
        let member = text(&world.owner.post("/members", json!({})).await.expect(201), "customer_id");
        Matrix { world, own, other, spare, member, next }
    }

    pub async fn caller(&self, column: Column) -> Caller {
        let login = format!("try-{}", column.heading().replace(" everywhere", "-all"));
        match column {
            Column::Nobody => self.world.nobody(),
            Column::Terminal => self.own.till.clone(),
            Column::Here(role) => self.world.user(&login, role.as_str(), Some(&self.own.location)).await,
            Column::Everywhere(role) => self.world.user(&login, role.as_str(), None).await,
        }
    }

    /// What `If-Match` wants for an object now.
    async fn etag(&self, path: &str) -> String {
        self.world.owner.get(path).await.etag()
    }

    pub async fn ask(&self, route: &Route, place: &Place) -> Ask {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut ask = Ask { path: route.path.to_owned(), if_match: String::new(), body: None };
        let world = &self.world;
        for (name, id) in [
            ("{user_id}", &place.user),
            ("{terminal_id}", &place.terminal),
            ("{location_id}", &place.location),
            ("{tax_profile_id}", &world.tax_profile),
            ("{product_id}", &world.product),
            ("{variant_id}", &world.variants[1]),
            ("{customer_id}", &self.member),
            ("{sale_id}", &place.sale),
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
        if route.method == Method::PATCH {
            ask.if_match = self.etag(&ask.path).await;
        }
        if route.path.ends_with("/rates") {
            ask.if_match = self.etag(ask.path.trim_end_matches("/rates")).await;
        }
        ask.body = self.body(route, place, n).await;
        ask
    }

    /// A body that is right and new each time.
    async fn body(&self, route: &Route, place: &Place, n: i64) -> Option<Value> {
        let (world, at) = (&self.world, &place.location);
        let id = format!("m{n}");
        let rates = json!([{"name": "VAT", "rate": "0.19", "inclusive": true}]);
        let valid_from = Utc::now() + chrono::TimeDelta::days(n);
        let line = |qty: &str| json!([{"variant_id": world.variants[0], qty: 1000}]);
        Some(match (route.method.as_str(), route.path) {
            ("POST", "/auth/login") => {
                json!({"login": world.owner_login.login, "password": world.owner_login.password})
            }
            ("POST", "/auth/terminal-token") => {
                self.other.device.request(&self.other.terminal, Utc::now(), &Uuid::new_v4().to_string())
            }
            ("POST", "/enrolments") => {
                let code = world.enrolment_code(&self.spare).await;
                json!({"code": code, "device_public_key": Device::new().public()})
            }
            ("POST", "/terminals/{terminal_id}/enrolment-codes") => return None,
            ("POST", "/users") => json!({"login": id, "code": id, "grants": [{"role": "cashier", "location_id": at}]}),
            ("PATCH", "/users/{user_id}") => json!({"code": id}),
            ("POST", "/terminals") => json!({"location_id": at, "register_id": id, "name": "Till"}),
            ("POST", "/locations") => json!({"external_id": id, "name": "Shop", "currency": "EUR",
                "time_zone": "Europe/Berlin", "opened_on": "2020-01-01"}),
            ("PATCH", _) => json!({"name": format!("Name {n}")}),
            ("POST", "/tax-profiles") => {
                json!({"external_id": id, "name": "x", "valid_from": valid_from, "rates": rates})
            }
            ("POST", "/tax-profiles/{tax_profile_id}/rates") => json!({"valid_from": valid_from, "rates": rates}),
            ("POST", "/catalog/upsert") => json!({"products": [{"external_id": id, "name": "x"}]}),
            ("POST", "/prices") => prices(world, at, n),
            ("POST", "/members") => json!({"external_id": id}),
            ("POST", "/members/upsert") => json!({"members": [{"external_id": id}]}),
            ("POST", "/stock/receipts") => json!({"location_id": at, "reason": "receipt", "lines": line("qty")}),
            ("POST", "/stock/adjustments") => json!({"location_id": at, "reason": "found", "lines": line("delta")}),
            ("POST", "/stock/thresholds") => json!({"location_id": at, "lines": line("threshold")}),
            ("POST", "/quotes") => {
                json!({"location_id": at, "lines": [{"line_no": 1, "variant_id": world.variants[0], "qty": 1000}]})
            }
            ("POST", "/sales") => sale(world, at, &place.cashier, n),
            other => panic!("this test knows no request for {other:?}"),
        })
    }
}

async fn place(world: &World, location: &str, next: &AtomicI64) -> Place {
    let n = next.fetch_add(1, Ordering::Relaxed);
    let (terminal, device, till) = world.till(location, "1").await;
    let user = async |name: &str| {
        let id = format!("{name}{n}");
        let body = json!({"login": id, "code": id, "grants": [{"role": "cashier", "location_id": location}]});
        text(&world.owner.post("/users", body).await.expect(201), "user_id")
    };
    let (cashier, user) = (user("seller").await, user("cashier").await);
    world.owner.post("/prices", prices(world, location, n)).await.expect(201);
    let sold = sale(world, location, &cashier, next.fetch_add(1, Ordering::Relaxed));
    till.post_keyed("/sales", &n.to_string(), &sold).await.expect(201);
    Place { location: location.to_owned(), terminal, device, till, cashier, user, sale: text(&sold, "sale_id") }
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

pub async fn send(caller: &Caller, route: &Route, ask: &Ask, query: &str) -> Answer {
    let key = Uuid::new_v4().to_string();
    let headers = [("if-match", ask.if_match.as_str()), ("idempotency-key", &key)];
    let body = ask.body.as_ref().map(|body| body.to_string().into_bytes());
    caller.send(route.method.as_str(), &format!("{}{query}", ask.path), &headers, body.as_deref()).await
}

/// Lists that also take `location_id`.
fn may_name(route: &Route) -> bool {
    ["/terminals", "/stock", "/sales", "/reports/kpis", "/audit"].contains(&route.path)
}

/// Without ClickHouse reports end in 503, and a day that is not over has no root: both behind every check of rights.
fn is_served(route: &Route, answer: &Answer) -> bool {
    let ends_in = |path: &str, status: u16| route.path == path && answer.status.as_u16() == status;
    answer.status.is_success() || ends_in("/reports/kpis", 503) || ends_in("/sales/{sale_id}/proof", 409)
}

/// What is wrong with one cell, if anything is.
async fn try_cell(matrix: &Matrix, caller: &Caller, route: &Route, place: &Place, wanted: Outcome) -> Option<String> {
    let ask = matrix.ask(route, place).await;
    let answer = send(caller, route, &ask, "").await;
    let is_right = match wanted {
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
                if let Some(got) = try_cell(&matrix, &caller, &route, place, wanted).await {
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
