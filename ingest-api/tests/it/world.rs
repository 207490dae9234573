//! A small business made through the API itself: an owner, two locations, a tax profile, three variants,
//! staff in four roles and an enrolled terminal.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use ingest_api::app::AppState;
use ingest_api::auth::totp::Authenticator;
use ingest_api::auth::{Auth, FirstOwner, create_owner, terminal_token};
use ingest_api::budgets::Budgets;
use ingest_api::catalog_cache::CatalogCache;
use ingest_api::lanes::LaneHandle;
use ingest_api::limits::Rule;
use ingest_api::privacy::{self, Vault};
use ingest_api::router::router;
use runtime::config::{Quota, Quotas};
use runtime::lifecycle::Shutdown;
use runtime::pg::Writer;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::rig::{eventually, patient_lanes};

pub const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEILW4C19BAllUEF0Y8gr/9aIDEeVFubLT4/Tw+zyP1ghH\n-----END PRIVATE KEY-----\n";

/// The loyalty program that every business begins with: a point for each whole unit of 1.00.
pub const PROGRAM: &str = "6c6f7961-6c74-5900-8000-000000000001";

/// Of every user a test makes.
pub const PASSWORD: &str = "a long enough password";

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    /// The body, when the status is this one.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self.json()
    }
    /// Status, code and first pointer of a problem; asserts that it is one.
    #[track_caller]
    pub fn problem(&self) -> (u16, String, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{} {}", self.status, self.text());
        let body = self.json();
        for member in ["type", "title", "status", "detail", "code", "retryable", "request_id", "errors"] {
            assert!(body.get(member).is_some(), "{member} missing: {body}");
        }
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        let pointer = body["errors"][0]["pointer"].as_str().unwrap_or_default();
        (self.status.as_u16(), body["code"].as_str().unwrap().to_owned(), pointer.to_owned())
    }
    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

/// Sends requests as somebody.
#[derive(Clone)]
pub struct Caller {
    router: Router,
    pub token: Option<String>,
    peer: Option<IpAddr>,
}

impl Caller {
    /// Sends to another process than the world's own.
    pub fn of(app: AppState, token: Option<&str>) -> Self {
        Caller { router: router(app), token: token.map(str::to_owned), peer: None }
    }
    pub fn with_token(&self, token: &str) -> Self {
        Caller { token: Some(token.to_owned()), ..self.clone() }
    }
    /// The same from an address, as the server sees it.
    pub fn from(&self, address: &str) -> Self {
        Caller { peer: Some(address.parse().unwrap()), ..self.clone() }
    }
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let request = request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_vec()))).unwrap();
        self.raw(request).await
    }
    pub async fn raw(&self, mut request: Request<Body>) -> Answer {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 4711))));
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 256 << 20).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[], Some(body.to_string().as_bytes())).await
    }
    pub async fn post_keyed(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("idempotency-key", key)], Some(body.to_string().as_bytes())).await
    }
    pub async fn put(&self, path: &str, etag: &str, body: Value) -> Answer {
        self.send("PUT", path, &[("if-match", etag)], Some(body.to_string().as_bytes())).await
    }
    pub async fn patch(&self, path: &str, etag: &str, body: Value) -> Answer {
        self.send("PATCH", path, &[("if-match", etag)], Some(body.to_string().as_bytes())).await
    }
}

/// A device with its key.
pub struct Device {
    pub key: Ed25519KeyPair,
}

impl Device {
    pub fn new() -> Self {
        Device { key: Ed25519KeyPair::generate().unwrap() }
    }
    pub fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.public_key())
    }
    pub fn sign(&self, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.key.sign(text.as_bytes()))
    }
    /// A signed token request.
    pub fn request(&self, terminal_id: &str, issued_at: DateTime<Utc>, nonce: &str) -> Value {
        let issued_at = issued_at.to_rfc3339();
        let text = terminal_token::signed_text(terminal_id, &issued_at, nonce);
        let signature = self.sign(&text);
        json!({"terminal_id": terminal_id, "issued_at": issued_at, "nonce": nonce, "signature": signature})
    }
    /// A cashier's PIN, signed.
    pub fn pin(&self, terminal_id: &str, cashier_code: &str, pin: &str) -> Value {
        let text = ingest_api::auth::pin::signed_text(terminal_id.parse().unwrap(), cashier_code, pin);
        let signature = self.sign(&text);
        json!({"cashier_code": cashier_code, "pin": pin, "signature": signature})
    }
}

pub struct World {
    pub pool: PgPool,
    pub app: AppState,
    pub owner: Caller,
    pub owner_login: FirstOwner,
    pub owner_factor: Arc<Authenticator>,
    /// Two locations, in EUR.
    pub here: String,
    pub there: String,
    pub tax_profile: String,
    pub product: String,
    /// By the piece, by the piece, by measure.
    pub variants: Vec<String>,
}

pub fn auth_config() -> runtime::config::Auth {
    runtime::config::Auth { signing_key: SIGNING_KEY.to_owned().into(), issuer: "vorca".to_owned() }
}

/// Tests ask as often as they like; those of budgets set their own.
fn generous() -> Quotas {
    let all = Quota::new(1_000_000, 1).unwrap();
    Quotas { till: all, replay: all, integrator: all, office: all, sign_in: all, public: all }
}

/// The state of an API process over this database.
pub async fn app(pool: &PgPool) -> AppState {
    schemas::codec::init();
    let config = auth_config();
    let catalog = CatalogCache::load(pool.clone()).await.unwrap();
    let committed: Arc<Notify> = Arc::default();
    let options = pool.connect_options().as_ref().clone();
    let lanes =
        LaneHandle::start(options, Arc::clone(&catalog), Arc::clone(&committed), &patient_lanes(), &TaskTracker::new());
    AppState {
        reads: pool.clone(),
        gate: pool.clone(),
        door: pool.clone(),
        writer: Writer::new(pool.clone(), &Shutdown::new()),
        catalog,
        lanes,
        committed,
        auth: Auth::new(&config).unwrap(),
        bulk: Arc::new(tokio::sync::Semaphore::new(1)),
        proxies: Default::default(),
        browsers: Default::default(),
        budgets: Budgets::new(&generous(), None),
        reports: None,
        vault: Some(vault(pool, &privacy_config(&[&privacy::new_key()])).await),
    }
}

/// What personal data is kept under; the first of the master keys wraps.
pub fn privacy_config(master_keys: &[&str]) -> runtime::config::Privacy {
    runtime::config::Privacy {
        vault_url: "postgres://the-pool-of-the-test".into(),
        master_keys: master_keys.join(",").into(),
        lookup_key: base64::engine::general_purpose::STANDARD.encode([7; 32]).into(),
    }
}

/// The key store, as a schema of the test's own database.
pub async fn vault(pool: &PgPool, config: &runtime::config::Privacy) -> Arc<Vault> {
    let is_made: bool =
        sqlx::query_scalar("select to_regclass('vault.data_keys') is not null").fetch_one(pool).await.unwrap();
    if !is_made {
        sqlx::raw_sql(include_str!("../../../migrations/vault/0001_keys.sql")).execute(pool).await.unwrap();
    }
    Arc::new(Vault::new(config, pool.clone()).unwrap())
}

pub async fn world(pool: &PgPool) -> World {
    let app = app(pool).await;
    let owner_login = create_owner(&app.writer, "Boss").await.unwrap();
    let nobody = Caller::of(app.clone(), None);
    let SignedIn { caller: owner, factor, .. } = sign_in(&nobody, &owner_login.login, &owner_login.password).await;
    let (here, there) = (location(&owner, "here").await, location(&owner, "there").await);
    let profile = json!({"external_id": "full", "name": "Full", "valid_from": "2020-01-01T00:00:00Z",
        "rates": [{"name": "VAT", "rate": "0.19", "inclusive": true}]});
    let tax_profile = text(&owner.post("/tax-profiles", profile).await.expect(201), "tax_profile_id");
    let stored = owner.post("/catalog/upsert", catalog()).await.expect(200);
    let product = text(&stored["products"][0], "product_id");
    let variants = stored["variants"].as_array().unwrap().iter().map(|row| text(row, "variant_id")).collect();
    let (pool, owner_factor) = (pool.clone(), Arc::new(factor.expect("an owner has a second factor")));
    World { pool, app, owner, owner_login, owner_factor, here, there, tax_profile, product, variants }
}

/// The catalog that [`world`] upserts.
pub fn catalog() -> Value {
    let variant = |id: &str, name: &str, measured: bool| {
        json!({"external_id": id, "product_external_id": "coffee", "sku": id.to_uppercase(), "name": name,
               "is_measured": measured, "tax_profile_external_id": "full", "barcodes": []})
    };
    let price = |id: &str, amount: i64| {
        json!({"variant_external_id": id, "currency": "EUR", "amount_minor": amount, "tax_inclusive": true,
               "valid_from": "2020-01-01T00:00:00Z"})
    };
    json!({
        "products": [{"external_id": "coffee", "name": "Coffee", "category": "Drinks"}],
        "variants": [variant("small", "Small", false), variant("large", "Large", false), variant("beans", "Beans", true)],
        "prices": [price("small", 250), price("large", 390), price("beans", 1990)],
    })
}

pub fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} missing in {value}")).to_owned()
}

pub async fn location(owner: &Caller, external_id: &str) -> String {
    let body = json!({"external_id": external_id, "name": format!("Shop {external_id}"), "currency": "EUR",
        "time_zone": "Europe/Berlin", "opened_on": "2020-01-01"});
    text(&owner.post("/locations", body).await.expect(201), "location_id")
}

/// Logs in; who needs a second factor sets one up.
pub async fn log_in(caller: &Caller, login: &str, password: &str) -> Caller {
    sign_in(caller, login, password).await.caller
}

/// What a log-in left somebody with.
pub struct SignedIn {
    pub caller: Caller,
    pub session_id: String,
    pub refresh_token: String,
    /// When one was set up on the way.
    pub factor: Option<Authenticator>,
    pub recovery_codes: Vec<String>,
}

impl SignedIn {
    fn of(caller: &Caller, session: &Value) -> Self {
        SignedIn {
            caller: caller.with_token(&text(session, "access_token")),
            session_id: text(session, "session_id"),
            refresh_token: text(session, "refresh_token"),
            factor: None,
            recovery_codes: Vec::new(),
        }
    }
}

/// As [`log_in`], with all that it left.
pub async fn sign_in(caller: &Caller, login: &str, password: &str) -> SignedIn {
    let answer = caller.post("/auth/login", json!({"login": login, "password": password})).await;
    if answer.status != 202 {
        return SignedIn::of(caller, &answer.expect(200));
    }
    let (confirmed, factor) = enrol_factor(&caller.with_token(&text(&answer.json(), "access_token"))).await;
    let recovery_codes = serde_json::from_value(confirmed["recovery_codes"].clone()).unwrap();
    SignedIn { factor: Some(factor), recovery_codes, ..SignedIn::of(caller, &confirmed["session"]) }
}

/// Sets a second factor up for a user of [`PASSWORD`], or with the token of a log-in that opens nothing else; what the
/// confirmation answered.
pub async fn enrol_factor(caller: &Caller) -> (Value, Authenticator) {
    let offered = caller.post("/auth/second-factor", json!({"password": PASSWORD})).await.expect(200);
    let factor = authenticator(&text(&offered, "secret"));
    loop {
        let code = factor.code(Utc::now());
        let answer = caller.post("/auth/second-factor/confirm", json!({"totp": code, "password": PASSWORD})).await;
        // The half minute may have ended on the way.
        if answer.status != 422 || factor.code(Utc::now()) == code {
            return (answer.expect(200), factor);
        }
    }
}

pub fn authenticator(secret: &str) -> Authenticator {
    let secret = totp_rs::Secret::try_from_base32(secret).unwrap();
    Authenticator::new(secret.as_ref(), "anybody").unwrap()
}

impl World {
    pub fn nobody(&self) -> Caller {
        Caller { token: None, ..self.owner.clone() }
    }
    pub fn with_token(&self, token: &str) -> Caller {
        self.owner.with_token(token)
    }

    /// A new user in this role, logged in.
    pub async fn user(&self, login: &str, role: &str, location: Option<&str>) -> Caller {
        self.new_user(login, role, location).await;
        log_in(&self.nobody(), login, PASSWORD).await
    }

    /// An API client with all that clients may hold, and a token of it.
    pub async fn client(&self, name: &str, location: Option<&str>) -> (Value, Caller) {
        use ingest_api::access::Permission;
        let held = Permission::ALL.iter().filter(|it| **it != Permission::Public && it.is_for_clients());
        let permissions: Vec<String> = held.map(|permission| permission.name()).collect();
        let mut body = json!({"name": name, "permissions": permissions});
        if let Some(location) = location {
            body["location_ids"] = json!([location]);
        }
        let made = self.owner.post("/api-clients", body).await.expect(201);
        let credentials = json!({"client_id": made["client_id"], "client_secret": made["client_secret"]});
        let token = self.nobody().post("/auth/client-token", credentials).await.expect(200);
        (made, self.with_token(&text(&token, "access_token")))
    }

    /// A new role of the company's own: its id.
    pub async fn new_role(&self, name: &str, rules: &[Rule]) -> String {
        text(&self.owner.post("/roles", json!({"name": name, "rules": rules})).await.expect(201), "role")
    }

    /// A new user of this role without logging in: its id.
    pub async fn new_user(&self, login: &str, role: &str, location: Option<&str>) -> String {
        let body = json!({"login": login, "code": login, "password": PASSWORD,
                          "grants": [{"role": role, "location_id": location}]});
        text(&self.owner.post("/users", body).await.expect(201), "user_id")
    }

    /// A new terminal at a location, without a device yet.
    pub async fn terminal(&self, location: &str, register: &str) -> String {
        let body = json!({"location_id": location, "register_id": register, "name": "Till"});
        text(&self.owner.post("/terminals", body).await.expect(201), "terminal_id")
    }

    pub async fn enrolment_code(&self, terminal: &str) -> String {
        let path = format!("/terminals/{terminal}/enrolment-codes");
        text(&self.owner.send("POST", &path, &[], None).await.expect(201), "code")
    }

    /// A terminal with an enrolled device and a token.
    pub async fn till(&self, location: &str, register: &str) -> (String, Device, Caller) {
        let terminal = self.terminal(location, register).await;
        let device = Device::new();
        let code = self.enrolment_code(&terminal).await;
        self.nobody()
            .post("/enrolments", json!({"code": code, "device_public_key": device.public()}))
            .await
            .expect(201);
        let request = device.request(&terminal, Utc::now(), &Uuid::new_v4().to_string());
        let body = self.nobody().post("/auth/terminal-token", request).await.expect(200);
        let caller = self.with_token(&text(&body, "access_token"));
        (terminal, device, caller)
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

/// Waits until the API turns this caller away at the door.
pub async fn until_shut_out(caller: &Caller, path: &str) {
    eventually(async || match caller.get(path).await.status.as_u16() {
        401 => Ok(()),
        status => Err(format!("{path} still answers {status}, not 401")),
    })
    .await;
}

/// Waits until so many sessions of this database wait for a lock.
pub async fn until_blocked(pool: &PgPool, sessions: i64) {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually(async || {
        let blocked: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        if blocked >= sessions { Ok(()) } else { Err(format!("{blocked} of {sessions} sessions wait for a lock")) }
    })
    .await;
}
