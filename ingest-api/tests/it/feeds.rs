//! Feeds over a restore, who is told of whom, and how long a page may be.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::world::{Caller, World, text, until_blocked, world};

async fn people(reader: &Caller) -> Vec<(String, Value)> {
    let page = reader.get("/catalog/changes?limit=5000").await.expect(200);
    let cashiers = page["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "cashier");
    cashiers.map(|item| (text(&item["body"], "code"), item["body"]["sells_at"].clone())).collect()
}

fn known(people: &[(&str, Value)]) -> Vec<(String, Value)> {
    people.iter().map(|(code, places)| ((*code).to_owned(), places.clone())).collect()
}

async fn edit(world: &World, login: &str, body: Value) {
    let id: String = sqlx::query_scalar("select user_id::text from users where login = $1")
        .bind(login)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    let path = format!("/users/{id}");
    let version = world.owner.get(&path).await.etag();
    world.owner.patch(&path, &version, body).await.expect(200);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_till_is_told_of_the_people_who_may_sell_there(pool: PgPool) {
    let world = world(&pool).await;
    let (_, _, till) = world.till(&world.here, "1").await;
    let boss = text(&world.owner.get(&format!("/users/{}", world.owner_login.user_id)).await.expect(200), "code");
    let (here, there) = (json!([world.here]), json!([world.there]));
    world.user("anna", "cashier", Some(&world.here)).await;
    world.user("bea", "cashier", Some(&world.there)).await;
    world.user("ida", "it_admin", None).await;
    let first = known(&[(&boss, Value::Null), ("anna", here.clone())]);
    assert_eq!(people(&till).await, first);
    // Whoever leaves is told of once more, without the places that are none of this till's business.
    edit(&world, "anna", json!({"grants": [{"role": "cashier", "location_id": world.there}]})).await;
    let left = [first, known(&[("anna", json!([]))])].concat();
    assert_eq!(people(&till).await, left);
    edit(&world, "anna", json!({"code": "anna2"})).await;
    assert_eq!(people(&till).await, left);
    let all = [
        (boss.as_str(), Value::Null),
        ("anna", here),
        ("bea", there.clone()),
        ("anna", there.clone()),
        ("anna2", there),
    ];
    assert_eq!(people(&world.owner).await, known(&all));
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_cursor_of_before_a_restore_is_gone(pool: PgPool) {
    let world = world(&pool).await;
    let body = json!({"location_id": world.here, "reason": "receipt",
                      "lines": [{"variant_id": world.variants[0], "qty": 1000}]});
    world.owner.post_keyed("/stock/receipts", "one", &body).await.expect(201);
    let catalog = "/catalog/changes".to_owned();
    let changes = format!("/changes?location={}", world.here);
    let ask = |feed: &str, after: &str| {
        let path = format!("{feed}{}after={after}", if feed.contains('?') { '&' } else { '?' });
        let owner = world.owner.clone();
        async move { owner.get(&path).await }
    };
    let next = |page: &Value| page["next_after"].as_str().or(page["next_cursor"].as_str()).unwrap().to_owned();
    for feed in [&catalog, &changes] {
        let cursor = next(&ask(feed, "0").await.expect(200));
        let (epoch, number) = cursor.split_once('-').unwrap();
        assert_eq!(epoch, "1");
        let number: i64 = number.parse().unwrap();
        assert_eq!(next(&ask(feed, &cursor).await.expect(200)), cursor);
        for beyond in [format!("1-{}", number + 1), format!("2-{number}")] {
            let gone = ask(feed, &beyond).await.problem();
            assert_eq!((gone.0, gone.1.as_str()), (410, "cursor_expired"), "{feed} {beyond}");
        }
    }
    sqlx::query("insert into epochs (epoch, reason) values (2, 'restored')").execute(&pool).await.unwrap();
    for feed in [&catalog, &changes] {
        assert_eq!(ask(feed, "1-1").await.problem().1, "cursor_expired", "{feed}");
        assert!(next(&ask(feed, "0").await.expect(200)).starts_with("2-"), "{feed}");
    }
}

/// While an epoch is being raised, a catalog write waits and is then one of the new epoch.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_catalog_write_never_appends_in_an_epoch_that_is_over(pool: PgPool) {
    let world = world(&pool).await;
    let mut raising = pool.begin().await.unwrap();
    sqlx::raw_sql(
        "select 1 from streams order by stream_id for no key update;
         insert into epochs (epoch, reason) values (2, 'restored')",
    )
    .execute(&mut *raising)
    .await
    .unwrap();
    let raised = async {
        until_blocked(&pool, 1).await;
        raising.commit().await.unwrap();
    };
    let path = format!("/variants/{}", world.variants[0]);
    let (answer, ()) = tokio::join!(world.owner.patch(&path, "\"1\"", json!({"name": "Tiny"})), raised);
    answer.expect(200);
    let epoch = world.count("select epoch from outbox order by id desc limit 1").await;
    assert_eq!(epoch, 2);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_page_of_changes_is_bounded_by_its_lines(pool: PgPool) {
    let world = world(&pool).await;
    let (_, _, till) = world.till(&world.here, "1").await;
    for number in 1..=3 {
        let sale = json!({"sale_id": uuid::Uuid::now_v7(), "location_id": world.here, "terminal_seq": number,
            "receipt": {"series_epoch": 1, "number": number}, "cashier_id": world.owner_login.user_id,
            "occurred_at": chrono::Utc::now(), "currency": "EUR",
            "lines": [{"line_no": 1, "variant_id": world.variants[0], "qty": 1000}],
            "tenders": [{"kind": "cash", "amount_minor": 250}], "total_minor": 250});
        till.post_keyed("/sales", &format!("k{number}"), &sale).await.expect(201);
    }
    // As if each had twelve thousand lines: a page takes one of them.
    sqlx::raw_sql(
        "insert into document_lines
         select copy.* from document_lines l cross join generate_series(2, 12000) n
         cross join lateral jsonb_populate_record(l, jsonb_build_object('line_no', n)) copy",
    )
    .execute(&pool)
    .await
    .unwrap();
    let (mut seen, mut after) = (0, "0".to_owned());
    loop {
        let page = till.get(&format!("/changes?location={}&after={after}", world.here)).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 1);
        seen += items.len();
        after = text(&page, "next_cursor");
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!((seen, after.as_str()), (3, "1-3"));
}
