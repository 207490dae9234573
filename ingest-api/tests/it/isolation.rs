//! I23: who is granted one location is told nothing of another. Every route that reads is asked, with real data at both.

use axum::http::Method;
use ingest_api::access::Role;
use ingest_api::access_matrix::Caller as Column;
use ingest_api::router::routes;
use serde_json::json;
use sqlx::PgPool;

use crate::matrix::{Matrix, Place, send};
use crate::world::{PASSWORD, sign_in, text};

/// Ids of everything at a place: what the matrix made there, and what a business leaves behind besides.
async fn everything_at(matrix: &Matrix, place: &Place, name: &str) -> Vec<String> {
    let (world, at) = (&matrix.world, &place.location);
    let mut ids = place.ids();
    ids.push(matrix.sell_to_member(place).await);
    let body =
        json!({"location_id": at, "reason": "found", "lines": [{"variant_id": world.variants[0], "delta": 1000}]});
    let adjusted = world.owner.post_keyed("/stock/adjustments", name, &body).await.expect(201);
    ids.push(text(&adjusted, "act_id"));
    ids.push(world.new_user(name, "manager", Some(at)).await);
    ids.push(sign_in(&world.nobody(), name, PASSWORD).await.session_id);
    ids.push(text(&world.client(name, Some(at)).await.0, "client_id"));
    ids
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn no_answer_names_anything_of_another_location(pool: PgPool) {
    let matrix = Matrix::new(&pool).await;
    let own = everything_at(&matrix, &matrix.own, "neighbour").await;
    let foreign = everything_at(&matrix, &matrix.other, "stranger").await;
    let local = [Role::Manager, Role::Owner, Role::ItAdmin, Role::Cashier].map(Column::Here);
    let (mut leaks, mut telling) = (Vec::new(), Vec::new());
    for column in local.into_iter().chain([Column::Terminal, Column::ClientHere]) {
        let who = matrix.caller(column).await;
        for route in routes().into_iter().filter(|route| route.method == Method::GET) {
            for place in [&matrix.own, &matrix.other] {
                let ask = matrix.ask(&route, place, &who).await;
                let answer = send(&who.caller, &route, &ask, "").await;
                let said = format!("{:?} {}", answer.headers, answer.text());
                let named: Vec<_> = foreign.iter().filter(|id| said.contains(id.as_str())).collect();
                if !named.is_empty() {
                    leaks.push(format!("{column:?} GET {}: {named:?} in {}", ask.path, answer.text()));
                }
                if own.iter().any(|id| said.contains(id.as_str())) {
                    telling.push(route.path);
                }
            }
        }
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    telling.sort_unstable();
    telling.dedup();
    // The walk sees something: these routes tell the caller of the own location.
    for path in [
        "/audit",
        "/catalog/changes",
        "/changes",
        "/documents",
        "/leases",
        "/locations",
        "/sales",
        "/stock",
        "/stock/movements",
        "/terminals",
        "/users",
        "/users/{user_id}",
        "/variants/{variant_id}/prices",
    ] {
        assert!(telling.contains(&path), "{path} tells nothing: {telling:?}");
    }
}
