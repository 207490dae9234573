//! The committed OpenAPI document is the one the code makes.

use axum::body::Body;
use axum::http::Request;
use ingest_api::router::{BASE, routes};
use serde_json::Value;
use sqlx::PgPool;

use crate::world::world;

#[test]
fn the_committed_document_is_the_one_the_code_makes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let made = ingest_api::openapi::text().unwrap();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        return std::fs::write(path, made).unwrap();
    }
    assert!(committed == made, "ingest-api/openapi.json is stale: run `ingest-api openapi > ingest-api/openapi.json`");
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document: Value = serde_json::from_str(&ingest_api::openapi::text().unwrap()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for route in routes() {
        let operation = &document["paths"][format!("{BASE}{}", route.path)][route.method.as_str().to_lowercase()];
        assert!(operation["summary"].is_string(), "{} {} is missing", route.method, route.path);
        assert!(operation["responses"]["default"].is_object());
    }
}

fn collect(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "$ref" => out.push(text.clone()),
                    other => collect(other, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, out)),
        _ => {}
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_document_and_its_pages_are_served(pool: PgPool) {
    let world = world(&pool).await;
    let nobody = world.nobody();
    assert!(nobody.get("/openapi.json").await.expect(200)["paths"].is_object());
    let page = nobody.raw(Request::builder().uri("/docs/").body(Body::empty()).unwrap()).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("swagger"), "{}", page.text());
}
