//! Bad input, as a table: every request is refused with its status, code and pointer, and leaves nothing.

use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::world::{World, world};

struct Case {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    wanted: (u16, &'static str, &'static str),
}

fn case(
    method: &'static str,
    path: impl Into<String>,
    body: impl Into<Vec<u8>>,
    wanted: (u16, &'static str, &'static str),
) -> Case {
    Case {
        method,
        path: path.into(),
        headers: vec![("idempotency-key", "k".into()), ("if-match", "\"1\"".into())],
        body: Some(body.into()),
        wanted,
    }
}

fn with(mut case: Case, name: &'static str, value: &str) -> Case {
    case.headers.retain(|(known, _)| *known != name);
    case.headers.push((name, value.to_owned()));
    case
}

fn read(path: impl Into<String>, wanted: (u16, &'static str, &'static str)) -> Case {
    Case { method: "GET", path: path.into(), headers: Vec::new(), body: None, wanted }
}

/// `body` with one value replaced (or added) at a JSON pointer.
fn altered(body: &Value, pointer: &str, value: Value) -> Vec<u8> {
    let mut body = body.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        parent => parent[name] = value,
    }
    body.to_string().into_bytes()
}

fn location(field: &str, value: Value, wanted: (u16, &'static str, &'static str)) -> Case {
    let good = json!({"external_id": "x", "name": "x", "currency": "EUR", "time_zone": "Europe/Berlin", "opened_on": "2020-01-01"});
    case("POST", "/locations", altered(&good, field, value), wanted)
}

fn receipt_body(world: &World) -> Value {
    json!({"location_id": world.here, "reason": "receipt", "lines": [{"variant_id": world.variants[0], "qty": 1000}]})
}

fn shape_cases(world: &World) -> Vec<Case> {
    let good = receipt_body(world);
    let text = good.to_string();
    let post = |body: Vec<u8>, wanted| case("POST", "/stock/receipts", body, wanted);
    let malformed = (400, "malformed", "");
    let mut deep = "[".repeat(10_000);
    deep.push_str(&"]".repeat(10_000));
    vec![
        post(b"".to_vec(), malformed),
        post(b"{".to_vec(), malformed),
        post(text.replace("]}", "],}").into_bytes(), malformed),
        post(format!("{text} x").into_bytes(), malformed),
        post(format!("{text}{text}").into_bytes(), malformed),
        post(format!("\u{feff}{text}").into_bytes(), malformed),
        post(text.replacen("\"reason\"", "\"reason\":\"receipt\",\"reason\"", 1).into_bytes(), malformed),
        post(text.replacen("\"qty\"", "\"qty\":1,\"qty\"", 1).into_bytes(), malformed),
        post(deep.into_bytes(), malformed),
        post([text.as_bytes(), b"\xff"].concat(), malformed),
        post(text.replace("1000", "NaN").into_bytes(), malformed),
        post(text.replace("1000", "1e999").into_bytes(), malformed),
        post(b"[]".to_vec(), (422, "invalid_value", "")),
        post(b"null".to_vec(), (422, "invalid_value", "")),
        post(b"7".to_vec(), (422, "invalid_value", "")),
        post(altered(&good, "/is_admin", json!(true)), (422, "unknown_field", "/is_admin")),
        post(altered(&good, "/version", json!(3)), (422, "unknown_field", "/version")),
        post(altered(&good, "/created_at", json!("x")), (422, "unknown_field", "/created_at")),
        post(altered(&good, "/lines/0/price", json!(3)), (422, "unknown_field", "/lines/0/price")),
        post(text.replace("\"reason\":\"receipt\",", "").into_bytes(), (422, "invalid_value", "/reason")),
        with(post(text.clone().into_bytes(), (415, "unsupported_media_type", "")), "content-type", "text/plain"),
        with(post(text.clone().into_bytes(), (415, "unsupported_media_type", "")), "content-encoding", "gzip"),
        with(post(text.clone().into_bytes(), (406, "not_acceptable", "")), "accept", "image/png"),
        post(vec![b' '; (4 << 20) + 1], (413, "payload_too_large", "")),
        case("POST", "/auth/login", vec![b' '; (16 << 10) + 1], (413, "payload_too_large", "")),
        case("POST", "/locations", vec![b' '; (2 << 20) + 1], (413, "payload_too_large", "")),
        case("POST", "/catalog/upsert", vec![b' '; (32 << 20) + 1], (413, "payload_too_large", "")),
        with(post(text.clone().into_bytes(), (400, "idempotency_key_required", "")), "idempotency-key", ""),
        with(
            post(text.clone().into_bytes(), (400, "idempotency_key_invalid", "")),
            "idempotency-key",
            &"x".repeat(256),
        ),
        with(post(text.clone().into_bytes(), (400, "idempotency_key_invalid", "")), "idempotency-key", "a b"),
    ]
}

fn stock_cases(world: &World) -> Vec<Case> {
    let good = receipt_body(world);
    let post = |pointer: &'static str, value: Value| {
        case("POST", "/stock/receipts", altered(&good, pointer, value), (422, "invalid_value", pointer))
    };
    let line = good["lines"][0].clone();
    let mut cases: Vec<Case> = [
        json!(0),
        json!(-1000),
        json!(1i64 << 31),
        json!(i64::MAX),
        json!("1000"),
        json!(1.5),
        json!(true),
        json!(null),
        json!(1u64 << 63),
    ]
    .into_iter()
    .map(|qty| post("/lines/0/qty", qty))
    .collect();
    cases.extend([
        // By the piece: no fractions.
        post("/lines/0/qty", json!(1500)),
        post("/lines/0/variant_id", json!(Uuid::now_v7())),
        post("/lines/0/variant_id", json!("not a uuid")),
        post("/lines", json!([])),
        post("/lines", json!(vec![line.clone(); 10_001])),
        post("/reason", json!("stolen")),
        post("/document_uri", json!("x".repeat(100_000))),
        post("/document_uri", json!("a\u{0}b")),
        post("/effective_at", json!("9999-12-31T23:59:60Z")),
        post("/effective_at", json!("2019-12-31T12:00:00Z")),
        post("/effective_at", json!("2026-01-01T00:00:00+99:00")),
        post("/effective_at", json!("0000-00-00")),
        post("/effective_at", json!((chrono::Utc::now() + chrono::TimeDelta::days(1)).to_rfc3339())),
        post("/act_id", json!(Uuid::nil())),
        post("/act_id", json!("{00000000-0000-0000-0000-000000000000}")),
        post("/lines/0/unit_cost_minor", json!(i64::MAX)),
        case("POST", "/stock/receipts", altered(&good, "/location_id", json!(Uuid::now_v7())), (422, "invalid_value", "/location_id")),
        case("POST", "/stock/receipts", altered(&good, "/lines", json!([line, line])), (422, "invalid_value", "/lines/1/variant_id")),
        case("POST", "/stock/adjustments", json!({"location_id": world.here, "reason": "damage", "lines": [{"variant_id": world.variants[0], "delta": 0}]}).to_string(), (422, "invalid_value", "/lines/0/delta")),
        case("POST", "/stock/thresholds", json!({"location_id": world.here, "lines": [{"variant_id": world.variants[0]}]}).to_string(), (422, "invalid_value", "/lines/0/threshold")),
        case("POST", "/stock/thresholds", json!({"location_id": world.here, "lines": [{"variant_id": world.variants[0], "threshold": -1}]}).to_string(), (422, "invalid_value", "/lines/0/threshold")),
    ]);
    cases
}

fn catalog_cases(world: &World) -> Vec<Case> {
    let good = crate::world::catalog();
    let upsert = |pointer: &'static str, value: Value| {
        case("POST", "/catalog/upsert", altered(&good, pointer, value), (422, "invalid_value", pointer))
    };
    let price = json!({"prices": [{"variant_id": world.variants[0], "currency": "EUR", "amount_minor": 1, "tax_inclusive": true, "valid_from": "2026-01-01T00:00:00Z"}]});
    let prices = |pointer: &'static str, value: Value| {
        case("POST", "/prices", altered(&price, pointer, value), (422, "invalid_value", pointer))
    };
    let profile = json!({"external_id": "p", "name": "p", "valid_from": "2020-01-01T00:00:00Z", "rates": [{"name": "VAT", "rate": "0.19", "inclusive": true}]});
    let profiles = |pointer: &'static str, value: Value| {
        case("POST", "/tax-profiles", altered(&profile, pointer, value), (422, "invalid_value", pointer))
    };
    vec![
        upsert("/products/0/name", json!("")),
        upsert("/products/0/name", json!("x".repeat(201))),
        upsert("/products/0/name", json!("a\u{202e}b")),
        upsert("/variants/0/sku", json!("a\u{200b}b")),
        upsert("/variants/0/product_external_id", json!("nothing")),
        upsert("/variants/0/tax_profile_external_id", json!("nothing")),
        upsert("/variants/1/sku", json!("small")),
        upsert("/variants/1/external_id", json!("small")),
        upsert("/variants/0/unit_cost_minor", json!(-1)),
        upsert("/prices/0/variant_external_id", json!("nothing")),
        upsert("/prices/0/location_external_id", json!("nothing")),
        upsert("/prices/0/currency", json!("eur")),
        upsert("/prices/0/amount_minor", json!(-1)),
        upsert("/prices/0/amount_minor", json!("250")),
        upsert("/prices/0/valid_to", json!("2019-01-01T00:00:00Z")),
        case("POST", "/catalog/upsert", "{}", (422, "invalid_value", "")),
        case(
            "POST",
            "/catalog/upsert",
            altered(&good, "/products/0/price", json!(1)),
            (422, "unknown_field", "/products/0/price"),
        ),
        prices("/prices/0/variant_id", json!(Uuid::now_v7())),
        prices("/prices/0/amount_minor", json!(i64::MAX)),
        prices("/prices/0/valid_from", json!("1000000-01-01T00:00:00Z")),
        prices("/prices", json!([])),
        profiles("/rates/0/rate", json!(0.19)),
        profiles("/rates/0/rate", json!("19")),
        profiles("/rates/0/rate", json!("-0.1")),
        profiles("/rates/0/rate", json!("0.1234567")),
        profiles("/rates/0/rate", json!("many")),
        profiles("/rates/0/rate", json!("0_1.9")),
        profiles("/rates/0/scope", json!("cart")),
        profiles("/rates", json!([])),
        case(
            "PATCH",
            format!("/variants/{}", world.variants[0]),
            json!({"tax_profile_id": Uuid::now_v7()}).to_string(),
            (422, "invalid_value", "/tax_profile_id"),
        ),
        case(
            "PATCH",
            format!("/variants/{}", world.variants[0]),
            json!({"is_measured": true}).to_string(),
            (422, "unknown_field", "/is_measured"),
        ),
        case("PATCH", format!("/variants/{}", Uuid::now_v7()), "{}", (404, "not_found", "")),
        case("PATCH", "/variants/none", "{}", (404, "not_found", "")),
        with(
            case("PATCH", format!("/products/{}", world.product), "{}", (428, "precondition_required", "")),
            "if-match",
            "",
        ),
        with(
            case("PATCH", format!("/products/{}", world.product), "{}", (412, "stale_version", "")),
            "if-match",
            "\"9\"",
        ),
    ]
}

fn other_cases(world: &World) -> Vec<Case> {
    let here = &world.here;
    let user = |field: &'static str, value: Value, wanted| {
        let good = json!({"login": "x", "code": "x", "grants": []});
        case("POST", "/users", altered(&good, field, value), wanted)
    };
    vec![
        location("/currency", json!("ZZZ"), (422, "invalid_value", "/currency")),
        location("/currency", json!("EURO"), (422, "invalid_value", "/currency")),
        location("/time_zone", json!("Mars/Base"), (422, "invalid_value", "/time_zone")),
        location("/opened_on", json!("0000-01-01"), (422, "invalid_value", "/opened_on")),
        location("/opened_on", json!("2020-02-30"), (422, "invalid_value", "/opened_on")),
        location("/day_cutoff", json!("25:00"), (422, "invalid_value", "/day_cutoff")),
        location("/cash_step", json!(0), (422, "invalid_value", "/cash_step")),
        location("/rounding_mode", json!("random"), (422, "invalid_value", "/rounding_mode")),
        location("/location_id", json!(Uuid::nil()), (422, "invalid_value", "/location_id")),
        location("/location_id", json!(here), (409, "id_conflict", "")),
        location("/external_id", json!("here"), (409, "already_exists", "/external_id")),
        location("/name", json!("x".repeat(100_000)), (422, "invalid_value", "/name")),
        case("PATCH", format!("/locations/{here}"), r#"{"currency":"USD"}"#, (422, "unknown_field", "/currency")),
        user("/password", json!("short"), (422, "invalid_value", "/password")),
        user("/password", json!("x".repeat(1_025)), (422, "invalid_value", "/password")),
        user("/role", json!("owner"), (422, "unknown_field", "/role")),
        user("/grants", json!([{"role": "god"}]), (422, "invalid_value", "/grants/0/role")),
        user("/login", json!("boss"), (409, "already_exists", "/login")),
        case(
            "POST",
            "/terminals",
            json!({"location_id": Uuid::now_v7(), "register_id": "1", "name": "x"}).to_string(),
            (422, "invalid_value", "/location_id"),
        ),
        case(
            "POST",
            "/enrolments",
            r#"{"code":"x","device_public_key":"short"}"#,
            (422, "invalid_value", "/device_public_key"),
        ),
        case("POST", "/members", r#"{"points":1000}"#, (422, "unknown_field", "/points")),
        case("POST", "/members", r#"{"member_number":""}"#, (422, "invalid_value", "/member_number")),
        read("/locations?limit=0", (422, "invalid_value", "/limit")),
        read("/locations?limit=1000000000", (422, "invalid_value", "/limit")),
        read("/locations?limit=x", (422, "invalid_value", "/limit")),
        read("/locations?offset=5", (422, "unknown_field", "/offset")),
        read("/locations?cursor=AAAA", (400, "malformed", "")),
        read("/stock/movements", (422, "invalid_value", "/location_id")),
        read("/stock?low=maybe", (422, "invalid_value", "/low")),
        read("/changes", (422, "invalid_value", "/location")),
        read(format!("/changes?location={here}&after=17"), (400, "malformed", "")),
        read(format!("/changes?location={}", Uuid::now_v7()), (422, "unknown_location", "/location")),
        read("/reports/kpis?group_by=weather&from=2026-01-01&to=2026-01-02", (422, "invalid_value", "/group_by")),
        read("/reports/kpis?group_by=day&from=2026-13-01&to=2026-01-02", (422, "invalid_value", "/from")),
        read("/reports/kpis?group_by=day&from=2026-01-01&to=2026-01-02", (503, "unavailable", "")),
        read(format!("/locations/{{{here}}}").replace(['{', '}'], "%7B"), (404, "not_found", "")),
        read(format!("/locations/{}", Uuid::now_v7()), (404, "not_found", "")),
        read("/members/1", (404, "not_found", "")),
    ]
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn every_bad_request_is_refused_where_it_is_wrong(pool: PgPool) {
    let world = world(&pool).await;
    let tables = [
        "outbox",
        "catalog_changes",
        "stock_acts",
        "idempotency_keys",
        "locations",
        "users",
        "variants",
        "prices",
        "customers",
    ];
    let sizes = async || {
        let mut sizes = Vec::new();
        for table in tables {
            let sql = format!("select count(*) from {table}");
            sizes.push(sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap());
        }
        sizes
    };
    let before = sizes().await;
    let tables_of_cases = [shape_cases(&world), stock_cases(&world), catalog_cases(&world), other_cases(&world)];
    let cases: Vec<Case> = tables_of_cases.into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for case in &cases {
        let headers: Vec<(&str, &str)> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = world.owner.send(case.method, &case.path, &headers, case.body.as_deref()).await;
        let (status, code, pointer) = answer.problem();
        if (status, code.as_str(), pointer.as_str()) != case.wanted {
            let body =
                String::from_utf8_lossy(case.body.as_deref().unwrap_or_default()).chars().take(200).collect::<String>();
            wrong.push(format!(
                "{} {} {body}\n  wanted {:?}\n  got {}",
                case.method,
                case.path,
                case.wanted,
                answer.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 100);
    assert_eq!(sizes().await, before, "a refused request left something behind");
}
