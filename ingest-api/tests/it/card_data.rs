//! Card data in every text of every route, as the OpenAPI document lists them: refused with its place, never repeated,
//! never stored. The same on a running platform, with every store and log searched: `tests/tests/canaries.rs`.

use ingest_api::access::Role;
use ingest_api::access_matrix::{Caller as Column, Outcome, outcome};
use ingest_api::openapi;
use ingest_api::router::routes;
use schemas::ids::LocationId;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::matrix::Matrix;

/// A number that begins like a card, with its check digit; another one for each `n`.
fn canary(n: u64) -> String {
    let digits = format!("4{:014}", n * 7_919 + 1_000_003);
    (0..10).map(|check| format!("{digits}{check}")).find(|number| runtime::card_data::is_in(number)).unwrap()
}

/// Pointers to every text and number of a schema; `0` for what an array holds.
fn leaves(document: &Value, schema: &Value, at: String, found: &mut Vec<(String, bool)>) {
    if let Some(name) = schema["$ref"].as_str() {
        return leaves(document, document.pointer(name.trim_start_matches('#')).unwrap(), at, found);
    }
    for kind in ["oneOf", "anyOf", "allOf"] {
        for one in schema[kind].as_array().into_iter().flatten() {
            leaves(document, one, at.clone(), found);
        }
    }
    let is = |kind: &str| {
        schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!(kind)))
    };
    if is("string") || schema["enum"].is_array() {
        found.push((at.clone(), true));
    }
    if is("integer") {
        found.push((at.clone(), false));
    }
    if is("array") {
        leaves(document, &schema["items"], format!("{at}/0"), found);
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        leaves(document, member, format!("{at}/{name}"), found);
    }
}

/// The body with a value at a pointer, whatever was on the way there.
fn with(body: &Value, pointer: &str, value: Value) -> Value {
    let mut body = body.clone();
    let mut at = &mut body;
    for step in pointer.split('/').skip(1) {
        if step == "0" {
            if at.as_array().is_none_or(Vec::is_empty) {
                *at = json!([null]);
            }
            at = &mut at[0];
        } else {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[step];
        }
    }
    *at = value;
    body
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn card_data_in_any_field_of_any_route_is_refused_and_leaves_nothing(pool: PgPool) {
    let matrix = Matrix::new(&pool).await;
    let document: Value = serde_json::from_str(&openapi::text().unwrap()).unwrap();
    let own = LocationId(matrix.own.location.parse().unwrap());
    let (mut wrong, mut sent) = (Vec::new(), Vec::new());
    for route in routes() {
        let operation = &document["paths"][format!("/api/v1{}", route.path)][route.method.as_str().to_lowercase()];
        assert!(operation.is_object(), "{} {}", route.method, route.path);
        let may = |column: &Column| outcome(&route, column.principal(own).as_ref(), own) == Outcome::Served;
        let columns = [Column::Everywhere(Role::Owner), Column::Terminal];
        let column = columns.into_iter().find(may).expect("an owner or a till may do everything");
        let who = matrix.caller(column).await;
        let (ask, caller) = (matrix.ask(&route, &matrix.own, &who).await, &who.caller);
        let mut found = Vec::new();
        leaves(
            &document,
            &operation["requestBody"]["content"]["application/json"]["schema"],
            String::new(),
            &mut found,
        );
        found.retain(|(pointer, _)| !pointer.is_empty());
        let mut refuse =
            async |path: &str, headers: &[(&str, &str)], body: Option<Value>, place: &str, number: &str| {
                let body = body.map(|body| body.to_string().into_bytes());
                let mut all = vec![("if-match", ask.if_match.as_str())];
                if !headers.iter().any(|(name, _)| *name == "idempotency-key") {
                    all.push(("idempotency-key", "k"));
                }
                all.extend(headers);
                let answer = caller.send(route.method.as_str(), path, &all, body.as_deref()).await;
                let is_right = answer.status == 422
                    && answer.problem() == (422, "card_data_refused".to_owned(), place.to_owned())
                    && !answer.text().contains(number)
                    && !format!("{:?}", answer.headers).contains(number);
                if !is_right {
                    wrong.push(format!("{} {path} {place}: {}", route.method, answer.text()));
                }
            };
        for (pointer, is_text) in &found {
            let number = canary(sent.len() as u64);
            let value = if *is_text { json!(number) } else { json!(number.parse::<u64>().unwrap()) };
            // In a body that is right but for this, and in one that is wrong anyway.
            for base in [ask.body.clone().unwrap(), json!({})] {
                refuse(&ask.path, &[], Some(with(&base, pointer, value.clone())), pointer, &number).await;
            }
            if *is_text {
                refuse(&ask.path, &[], Some(with(&json!({}), pointer, json!("cvv 987"))), pointer, "cvv 987").await;
            }
            sent.push(number);
        }
        let number = canary(sent.len() as u64);
        for name in operation["parameters"].as_array().into_iter().flatten().filter(|it| it["in"] == "query") {
            let name = name["name"].as_str().unwrap();
            refuse(&format!("{}?{name}={number}", route.path), &[], None, &format!("/{name}"), &number).await;
        }
        refuse(&format!("{}/{number}", route.path), &[], None, "/path", &number).await;
        for name in ["idempotency-key", "x-request-id", "x-note", "user-agent"] {
            refuse(&ask.path, &[(name, &number)], ask.body.clone(), &format!("/{name}"), &number).await;
        }
        sent.push(number);
    }
    assert!(sent.len() > 200, "{}", sent.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), sent.len(), wrong.join("\n"));
    let stored = everything(&pool).await;
    for number in &sent {
        assert!(!stored.contains(number), "{number} is stored");
    }
    assert!(stored.contains(&matrix.own.location), "the search finds what is there");
}

#[test]
fn no_type_has_room_for_a_card_number() {
    let document: Value = serde_json::from_str(&openapi::text().unwrap()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let card: Vec<_> = schemas["Card"]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(card, ["token", "brand", "last_four", "expiry"]);
    for (schema, body) in schemas {
        for name in body["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(!runtime::card_data::is_code_name(name), "{schema} has a field {name}");
        }
    }
}

/// Every row of every table, as text.
pub async fn everything(pool: &PgPool) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', schemaname, tablename) from pg_tables
         where schemaname not in ('pg_catalog', 'information_schema')",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut text = String::new();
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select t::text from {table} t")))
            .fetch_all(pool)
            .await
            .unwrap();
        rows.iter().for_each(|row| text.push_str(row));
    }
    text
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_barcode_and_a_uuid_that_look_like_cards_are_welcome_where_they_belong(pool: PgPool) {
    let world = crate::world::world(&pool).await;
    let is_both = |code: &String| ingest_api::checks::is_gtin(code) && runtime::card_data::is_in(code);
    let barcode = (0..).map(|n| format!("4{n:012}")).find(is_both).unwrap();
    let path = format!("/variants/{}", world.variants[0]);
    let etag = world.owner.get(&path).await.etag();
    let edited = world.owner.patch(&path, &etag, json!({"barcodes": [barcode]})).await.expect(200);
    assert_eq!(edited["barcodes"][0], barcode);
    let found = world.owner.get(&format!("/variants?barcode={barcode}")).await.expect(200);
    assert_eq!(found["items"][0]["variant_id"], edited["variant_id"]);
    let named = world.owner.patch(&path, "\"0\"", json!({"name": barcode})).await;
    assert_eq!(named.problem(), (422, "card_data_refused".to_owned(), "/name".to_owned()));
    let id = "41111111-1111-4111-8111-111111111111".replace("-4111-8111-", "-7111-8111-");
    let id = (0..)
        .map(|n| id.replace("111111111111", &format!("{n:012}")))
        .find(|id| runtime::card_data::is_in(id))
        .unwrap();
    let body = json!({"customer_id": id, "external_id": "x"});
    assert_eq!(world.owner.post("/members", body).await.expect(201)["customer_id"], id);
    world.owner.get(&format!("/members/{id}")).await.expect(200);
}
