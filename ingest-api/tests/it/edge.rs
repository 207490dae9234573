//! The edge of the API: what is refused before any handler, what browsers are told, and hostile values that every route
//! takes for what they are. Each case is inert or refused, never a failure of ours.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use ingest_api::app::AppState;
use ingest_api::browsers::Browsers;
use ingest_api::budgets::Budgets;
use ingest_api::openapi;
use runtime::config::{Http, Quota, Quotas};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::process::Served;
use crate::rig::DEADLINE;
use crate::world::{Answer, Caller, World, text, world};

const EVIL: &str = "https://evil.example";
const OFFICE: &str = "https://office.example";

async fn preflight(caller: &Caller, origin: &str) -> Answer {
    let request = Request::builder().method("OPTIONS").uri("/api/v1/users").header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    let request = request.header("access-control-request-headers", "authorization,idempotency-key");
    caller.raw(request.body(Body::empty()).unwrap()).await
}

fn allowed_origin(answer: &Answer) -> Option<&str> {
    answer.headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap())
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn no_page_calls_the_api_unless_its_origin_is_configured(pool: PgPool) {
    let world = world(&pool).await;
    for origin in [EVIL, OFFICE, "null"] {
        let answer = preflight(&world.nobody(), origin).await;
        assert_eq!((answer.problem().0, allowed_origin(&answer)), (401, None), "{origin}: as anybody without a token");
        let answer = world.owner.send("GET", "/users", &[("origin", origin)], None).await;
        assert_eq!((answer.status.as_u16(), allowed_origin(&answer)), (200, None), "{origin}");
    }
    let http = Http { cors_origins: OFFICE.parse().unwrap(), ..Http::at(SocketAddr::from(([127, 0, 0, 1], 0))) };
    let app = AppState { browsers: Browsers::of(&http), ..world.app.clone() };
    let open = Caller::of(app, world.owner.token.as_deref());
    for (origin, allowed) in [
        (OFFICE, Some(OFFICE)),
        (EVIL, None),
        ("null", None),
        ("http://office.example", None),
        ("https://office.example.evil.example", None),
        ("https://office.example:8443", None),
    ] {
        let asked = preflight(&open, origin).await;
        assert_eq!(allowed_origin(&asked), allowed, "{origin}");
        let answer = open.send("GET", "/users", &[("origin", origin)], None).await;
        assert_eq!((answer.status.as_u16(), allowed_origin(&answer)), (200, allowed), "{origin}");
        for answer in [&asked, &answer] {
            assert!(answer.headers.get("access-control-allow-credentials").is_none(), "{origin}");
            let vary = answer.headers["vary"].to_str().unwrap();
            assert!(vary.contains("origin"), "an answer to one is kept from others: {vary}");
        }
    }
    let asked = preflight(&open, OFFICE).await;
    let said = |name: &str| asked.headers[name].to_str().unwrap().to_owned();
    assert!(said("access-control-allow-headers").contains("idempotency-key"));
    assert_eq!(said("access-control-allow-methods"), "GET,POST,PUT,PATCH");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn each_answer_says_what_a_browser_may_do_with_it(pool: PgPool) {
    let world = world(&pool).await;
    let page = Request::builder().uri("/docs/").body(Body::empty()).unwrap();
    let nowhere = Request::builder().uri("/nowhere").body(Body::empty()).unwrap();
    let mut answers = vec![
        ("a list", world.owner.get("/users").await),
        ("a refusal", world.nobody().get("/users").await),
        ("no route", world.nobody().raw(nowhere).await),
        ("too long", world.nobody().get(&format!("/users?x={}", "y".repeat(9_000))).await),
        ("the document", world.nobody().get("/openapi.json").await),
    ];
    let is_safe = |what: &str, headers: &HeaderMap, policy: &str| {
        for (name, wanted) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("content-security-policy", policy),
        ] {
            assert_eq!(headers.get(name).map(|value| value.to_str().unwrap()), Some(wanted), "{what}: {name}");
        }
        assert!(headers.get("server").is_none() && headers.get("x-powered-by").is_none(), "{what}");
    };
    for (what, answer) in answers.drain(..) {
        is_safe(what, &answer.headers, "default-src 'none'; frame-ancestors 'none'");
        assert!(answer.headers.get("strict-transport-security").is_none(), "{what}: not known to be behind TLS");
    }
    let page = world.nobody().raw(page).await;
    let policy = page.headers["content-security-policy"].to_str().unwrap().to_owned();
    is_safe("the page", &page.headers, &policy);
    assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!page.text().contains("<script>"), "a script in the page would not run under {policy}");

    let http = Http { behind_tls: true, ..Http::at(SocketAddr::from(([127, 0, 0, 1], 0))) };
    let app = AppState { browsers: Browsers::of(&http), ..world.app.clone() };
    let answer = Caller::of(app, None).get("/users").await;
    assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000; includeSubDomains");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn methods_forms_and_codings_that_no_route_has_are_refused(pool: PgPool) {
    let world = world(&pool).await;
    let owner = &world.owner;
    let location = format!("/locations/{}", world.here);
    for (method, path) in [
        ("TRACE", "/users"),
        ("PUT", "/users"),
        ("DELETE", location.as_str()),
        ("CONNECT", "/users"),
        ("FOO", "/users"),
    ] {
        let answer = owner.send(method, path, &[], None).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed".into(), String::new()), "{method} {path}");
        assert!(answer.headers["allow"].to_str().unwrap().contains("GET"), "{method} {path}");
    }
    // What asks to be taken for something else is neither.
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        for (method, path, other) in
            [("POST", "/users", "DELETE"), ("POST", &location, "PATCH"), ("GET", "/users", "GET")]
        {
            let headers = [(name, other), ("if-match", "\"1\"")];
            let answer = owner.send(method, path, &headers, Some(b"{\"name\":\"changed\"}")).await;
            assert_eq!(answer.problem().0, 405, "{method} {path} as {other}");
            assert_eq!(answer.headers["allow"], method, "{path} as {other}");
        }
    }
    assert_eq!(owner.get(&location).await.expect(200)["name"], "Shop here");

    let bomb = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0][..], &[0; 1 << 16]].concat();
    for coding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "x"] {
        for path in ["/locations", "/auth/logout-everywhere", "/catalog/upsert"] {
            let answer = owner.send("POST", path, &[("content-encoding", coding)], Some(&bomb)).await;
            assert_eq!(answer.problem(), (415, "unsupported_media_type".into(), String::new()), "{coding} {path}");
        }
    }
    let twice = [("content-encoding", "identity"), ("content-encoding", "gzip")];
    assert_eq!(owner.send("POST", "/locations", &twice, Some(&bomb)).await.problem().0, 415);
    let body = json!({"external_id": "x"}).to_string();
    for kind in
        ["text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "json"]
    {
        let answer = owner.send("POST", "/locations", &[("content-type", kind)], Some(body.as_bytes())).await;
        assert_eq!(answer.problem().0, 415, "{kind}");
    }
    for accept in ["image/png", "application/json;q=0", "text/html"] {
        assert_eq!(owner.send("GET", "/users", &[("accept", accept)], None).await.problem().0, 406, "{accept}");
    }
    // The owner is still there: nothing of it was done.
    owner.get("/users").await.expect(200);
}

/// All that the server says to these bytes until it closes the connection.
async fn say(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // It may have heard enough before all is said.
    let _said_all = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let ended = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it goes on listening after {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
    String::from_utf8_lossy(&answer).into_owned()
}

fn answers(said: &str) -> usize {
    said.matches("HTTP/1.1 ").count()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_request_that_two_servers_could_read_in_two_ways_ends_the_connection(pool: PgPool) {
    let Served { address, .. } = Served::start(pool.connect_options().as_ref(), Http::at).await;
    let post = "POST /api/v1/auth/login HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n";
    let smuggled = "GET /api/v1/auth/jwks HTTP/1.1\r\nhost: here\r\n\r\n";
    for (what, head, body) in [
        ("both lengths", "content-length: 4\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        ("both lengths, the other way", "transfer-encoding: chunked\r\ncontent-length: 4\r\n", "0\r\n\r\n"),
        ("two lengths", "content-length: 2\r\ncontent-length: 9\r\n", "{}"),
        ("a list of lengths", "content-length: 2, 9\r\n", "{}"),
        ("a signed length", "content-length: +2\r\n", "{}"),
        ("not chunked at last", "transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("chunked by another name", "transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
        ("a chunk without a size", "transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
        ("a chunk longer than it says", "transfer-encoding: chunked\r\n", "1\r\n{}}\r\n0\r\n\r\n"),
        ("a size beyond counting", "transfer-encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a folded header", "x-note: one\r\n two\r\ncontent-length: 2\r\n", "{}"),
        ("a space before the colon", "content-length : 2\r\n", "{}"),
        ("a NUL in a header", "x-note: a\0b\r\ncontent-length: 2\r\n", "{}"),
        ("a bare line end in a header", "x-note: a\rb\r\ncontent-length: 2\r\n", "{}"),
    ] {
        let said = say(address, format!("{post}{head}\r\n{body}{smuggled}").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{what}: {said}");
        assert_eq!(answers(&said), 1, "{what}: what came after it was answered too: {said}");
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_head_without_end_is_cut_off(pool: PgPool) {
    let Served { address, .. } = Served::start(pool.connect_options().as_ref(), Http::at).await;
    let get =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n{headers}\r\n");
    let jwks = "/api/v1/auth/jwks";
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let long = |count: usize| format!("x-long: {}\r\n", "y".repeat(count));
    // Within what hyper reads a problem says why; beyond it the status alone does.
    for (what, request, status, has_problem) in [
        ("as many headers as it takes", get(jwks, &many(90)), 200, false),
        ("too many headers", get(jwks, &many(101)), 431, false),
        ("a long header", get(jwks, &long(17 << 10)), 431, true),
        ("a header far beyond the buffer", get(jwks, &long(300 << 10)), 431, false),
        ("a long address", get(&format!("{jwks}?x={}", "y".repeat(9 << 10)), ""), 414, true),
        ("an address beyond all bounds", get(&format!("{jwks}?x={}", "y".repeat(70_000)), ""), 414, false),
    ] {
        let said = say(address, request.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {}", &said[..said.len().min(300)]);
        assert_eq!(said.contains("application/problem+json"), has_problem, "{what}");
    }
}

const HOSTILE: [&str; 14] = [
    "' OR 1=1--",
    "$1",
    "%",
    "_",
    "\\",
    "a\0b",
    "\u{202e}abc",
    "a\u{200b}b",
    "10000-01-01",
    "9999-12-31T23:59:60Z",
    "-1",
    "99999999999999999999",
    "{00000000-0000-4000-8000-000000000000}",
    "../../etc/passwd",
];

/// Every parameter of every list, as the document names them.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn no_value_of_any_parameter_is_too_much(pool: PgPool) {
    let world = world(&pool).await;
    let document = serde_json::to_value(openapi::document()).unwrap();
    let (mut asked, mut wrong) = (0, Vec::new());
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.trim_start_matches("/api/v1").replace(['{', '}'], "");
        let parameters = methods["get"]["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            for value in HOSTILE {
                let name = parameter["name"].as_str().unwrap();
                let query = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
                let answer = world.owner.get(&format!("{path}?{query}")).await;
                asked += 1;
                if answer.status.is_server_error() && answer.problem().1 != "unavailable" || answer.status == 429 {
                    wrong.push(format!("{path}?{query}: {}", answer.text()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 400, "{asked}");
}

/// Texts of the bodies that make things: pointers to them.
fn leaves(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| leaves(value, format!("{at}/{name}"), out)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, value)| leaves(value, format!("{at}/{n}"), out)),
        Value::String(_) => out.push(at),
        _ => {}
    }
}

fn makers(world: &World) -> Vec<(&'static str, Value)> {
    let (here, variant) = (&world.here, &world.variants[0]);
    vec![
        (
            "/locations",
            json!({"external_id": "a", "name": "a", "currency": "EUR", "time_zone": "Europe/Berlin",
                              "opened_on": "2020-01-01", "oversell": "deny"}),
        ),
        (
            "/tax-profiles",
            json!({"external_id": "p", "name": "p", "valid_from": "2020-01-01T00:00:00Z",
                                 "rates": [{"name": "VAT", "rate": "0.19", "inclusive": true}]}),
        ),
        (
            "/users",
            json!({"login": "u", "code": "u", "password": "a long enough password",
                          "grants": [{"role": "cashier", "location_id": here}]}),
        ),
        ("/terminals", json!({"location_id": here, "register_id": "r", "name": "Till"})),
        (
            "/members",
            json!({"external_id": "m", "member_number": "m", "profile": {"given_name": "A", "family_name": "B",
                            "email": "a@example.com", "phone": "+49 30 901820", "birthday": "1983-07-14", "notes": "n"}}),
        ),
        ("/members/lookup", json!({"email": "a@example.com"})),
        ("/api-clients", json!({"name": "c", "permissions": ["read_stock"]})),
        ("/catalog/upsert", crate::world::catalog()),
        (
            "/stock/receipts",
            json!({"location_id": here, "reason": "receipt", "document_uri": "note/1",
                                   "lines": [{"variant_id": variant, "qty": 1000}]}),
        ),
        (
            "/stock/adjustments",
            json!({"location_id": here, "reason": "damage", "lines": [{"variant_id": variant, "delta": 1000}]}),
        ),
        (
            "/quotes",
            json!({"location_id": here, "occurred_at": "2026-01-01T00:00:00Z",
            "lines": [{"line_no": 1, "variant_id": variant, "qty": 1000,
                       "discount": {"kind": "percent", "percent": "10", "reason": "happy_hour"}}]}),
        ),
        ("/auth/login", json!({"login": "boss", "password": "x", "totp": "123456"})),
        ("/auth/refresh", json!({"refresh_token": "x", "issued_at": "2026-01-01T00:00:00Z", "signature": "x"})),
        ("/auth/client-token", json!({"client_id": Uuid::nil(), "client_secret": "x"})),
        ("/auth/password-reset", json!({"login": "boss", "code": "x", "new_password": "a long enough password"})),
        ("/enrolments", json!({"code": "x", "device_public_key": "x"})),
    ]
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn no_text_of_any_body_is_too_much(pool: PgPool) {
    let world = world(&pool).await;
    // Nobody is locked out of what is tried here.
    let much = Quota::new(1_000_000, 1).unwrap();
    let budgets = Quotas { office: much, sign_in: much, replay: much, ..Quotas::default() };
    let app = AppState { budgets: Budgets::new(&budgets, None), ..world.app.clone() };
    let owner = Caller::of(app, world.owner.token.as_deref());
    let (mut asked, mut wrong) = (0, Vec::new());
    for (path, good) in makers(&world) {
        let mut pointers = Vec::new();
        leaves(&good, String::new(), &mut pointers);
        for pointer in pointers {
            for value in HOSTILE {
                let mut body = good.clone();
                *body.pointer_mut(&pointer).unwrap() = json!(value);
                let key = Uuid::now_v7().to_string();
                sqlx::query("delete from sign_in_failures").execute(&pool).await.unwrap();
                let answer = owner.post_keyed(path, &key, &body).await;
                asked += 1;
                let status = answer.status.as_u16();
                // A password is not kept, so it may hold anything.
                let is_kept =
                    !pointer.ends_with("password") && !pointer.ends_with("secret") && !pointer.ends_with("_token");
                let must_refuse = is_kept && (value.contains('\0') || value.contains('\u{202e}'));
                if status >= 500 || status == 429 || must_refuse && answer.status.is_success() {
                    wrong.push(format!("{path} {pointer} {value:?}: {status} {}", answer.text()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(asked > 500, "{asked}");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn two_spellings_of_one_name_are_one(pool: PgPool) {
    let world = world(&pool).await;
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let place = |id: &str| json!({"external_id": id, "name": id, "currency": "EUR", "time_zone": "Europe/Berlin", "opened_on": "2020-01-01"});
    world.owner.post("/locations", place(composed)).await.expect(201);
    let twin = world.owner.post("/locations", place(&format!(" {decomposed} "))).await;
    assert_eq!(twin.problem(), (409, "already_exists".into(), "/external_id".into()));
    let mut catalog = crate::world::catalog();
    catalog["variants"][0]["sku"] = json!(composed);
    catalog["variants"][1]["sku"] = json!(decomposed.to_uppercase());
    let twins = world.owner.post("/catalog/upsert", catalog).await;
    assert_eq!(twins.problem(), (422, "invalid_value".into(), "/variants/1/sku".into()));
    let login = |login: &str, code: &str| json!({"login": login, "code": code, "grants": []});
    world.owner.post("/users", login(composed, "u1")).await.expect(201);
    assert_eq!(world.owner.post("/users", login(&decomposed.to_uppercase(), "u2")).await.problem().2, "/login");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_identifier_is_one_in_whatever_form(pool: PgPool) {
    let world = world(&pool).await;
    let id = Uuid::now_v7();
    let act = |act_id: String| {
        json!({"act_id": act_id, "location_id": world.here, "reason": "receipt",
               "lines": [{"variant_id": world.variants[0], "qty": 1000}]})
    };
    let stored = world.owner.post_keyed("/stock/receipts", "1", &act(id.to_string())).await.expect(201);
    assert_eq!(text(&stored, "act_id"), id.to_string());
    let forms = [id.to_string().to_uppercase(), id.simple().to_string(), id.braced().to_string(), id.urn().to_string()];
    for (n, form) in forms.iter().enumerate() {
        let again = world.owner.post_keyed("/stock/receipts", &format!("form-{n}"), &act(form.clone())).await;
        assert!(matches!(again.status.as_u16(), 409 | 422), "{form}: {}", again.text());
    }
    for version in [Uuid::nil(), Uuid::max(), "00000000-0000-1000-8000-000000000001".parse().unwrap()] {
        let refused = world.owner.post_keyed("/stock/receipts", "v", &act(version.to_string())).await;
        assert_eq!(refused.problem(), (422, "invalid_value".into(), "/act_id".into()), "{version}");
    }
    assert_eq!(world.count("select count(*) from stock_acts").await, 1);
    // In a path: the hyphenated form, in either case.
    let upper = world.here.to_uppercase();
    assert_eq!(world.owner.get(&format!("/locations/{upper}")).await.expect(200)["location_id"], world.here.as_str());
    for form in [world.here.replace('-', ""), format!("%7B{}%7D", world.here), format!("urn:uuid:{}", world.here)] {
        assert_eq!(world.owner.get(&format!("/locations/{form}")).await.problem().0, 404, "{form}");
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_cursor_is_good_for_its_own_list_and_untouched(pool: PgPool) {
    let world = world(&pool).await;
    let first = world.owner.get("/locations?limit=1").await.expect(200);
    let cursor = text(&first, "next_cursor");
    world.owner.get(&format!("/locations?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(world.owner.get(&format!("/users?cursor={cursor}")).await.problem().0, 400, "of another list");
    for at in 0..cursor.len() {
        let mut touched: Vec<char> = cursor.chars().collect();
        touched[at] = if touched[at] == 'A' { 'B' } else { 'A' };
        let touched: String = touched.into_iter().collect();
        let answer = world.owner.get(&format!("/locations?limit=1&cursor={touched}")).await;
        assert_eq!(answer.problem().0, 400, "{touched} for {cursor}");
    }
    for bad in ["limit=501", "limit=0", "limit=-1", "limit=1e3", "limit=99999999999999999999", "limit="] {
        assert_eq!(world.owner.get(&format!("/locations?{bad}")).await.problem().0, 422, "{bad}");
    }
    for bad in [String::new(), "A".repeat(5_000), "=".into(), "%00".into(), "☃".into()] {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("cursor", &bad).finish();
        assert_eq!(world.owner.get(&format!("/locations?{query}")).await.problem().0, 400, "{bad}");
    }
}
