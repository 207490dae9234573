//! What is known of people: sealed where it is stored, read by those who may, gone when it is erased.

use ingest_api::customers::erasure;
use ingest_api::privacy::{new_key, rotate::Rotated};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::card_data::everything;
use crate::world::{World, privacy_config, text, vault, world};

/// Nobody else's.
fn anna() -> Value {
    json!({"given_name": "Annabel", "family_name": "Quartermaine", "email": "Annabel.Q@Example.com",
        "phone": "+49 30 901820", "birthday": "1983-07-14", "notes": "prefers oat milk",
        "consents": [{"channel": "email", "is_given": true, "at": "2026-01-02T03:04:05Z", "source": "till_form"}]})
}

/// What would tell who it is, in any spelling it might be kept in.
const TELLING: [&str; 10] = [
    "Annabel",
    "annabel",
    "Quartermaine",
    "30 901820",
    "4930901820",
    "1983-07-14",
    "oat milk",
    "till_form",
    "example.com",
    "Example.com",
];

async fn member(world: &World, profile: Value) -> String {
    text(
        &world.owner.post("/members", json!({"external_id": "h-1", "profile": profile})).await.expect(201),
        "customer_id",
    )
}

async fn assert_nothing_tells(pool: &PgPool, when: &str) {
    let stored = everything(pool).await;
    for word in TELLING {
        let hex: String = word.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!stored.contains(word) && !stored.contains(&hex), "{when}: {word} is stored in the clear");
    }
    assert!(stored.contains("customer") || stored.contains("member"), "the search finds what is there");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_profile_is_read_as_it_was_given_and_stored_sealed(pool: PgPool) {
    let world = world(&pool).await;
    let id = member(&world, anna()).await;
    let path = format!("/members/{id}/profile");
    let read = world.owner.get(&path).await;
    let profile = read.expect(200);
    assert_eq!((&profile["given_name"], &profile["birthday"]), (&json!("Annabel"), &json!("1983-07-14")));
    assert_eq!((&profile["email"], &profile["phone"]), (&json!("annabel.q@example.com"), &json!("+4930901820")));
    assert_eq!(profile["consents"][0]["source"], "till_form");
    assert_nothing_tells(&pool, "after the sign-up").await;

    // Under If-Match; what is stale is told by name only.
    assert_eq!(world.owner.send("PATCH", &path, &[], Some(b"{}")).await.problem().0, 428);
    let edited = world.owner.patch(&path, &read.etag(), json!({"phone": null, "family_name": "Vandermeer"})).await;
    assert_eq!(
        (&edited.expect(200)["phone"], &edited.expect(200)["family_name"]),
        (&Value::Null, &json!("Vandermeer"))
    );
    let stale = world.owner.patch(&path, &read.etag(), json!({"family_name": "Quartermaine"})).await;
    assert_eq!(stale.problem().0, 412);
    assert_eq!(stale.json()["fields"], json!([{"field": "family_name"}]));
    assert!(!stale.text().contains("Vandermeer"));
    assert_eq!(world.owner.get(&path).await.etag(), edited.etag());
    assert_nothing_tells(&pool, "after the edit").await;

    // Every reading and every edit has its row.
    let acts: Vec<(String, i64)> = sqlx::query_as(
        "select action, count(*) from audit_log where action like 'member.profile%' group by 1 order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(acts, [("member.profile.edit".to_owned(), 1), ("member.profile.read".to_owned(), 2)]);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn wrong_values_are_named_and_an_address_is_no_number(pool: PgPool) {
    let world = world(&pool).await;
    for (body, pointer) in [
        (json!({"profile": {"email": "anna"}}), "/profile/email"),
        (json!({"profile": {"phone": "030 901820"}}), "/profile/phone"),
        (json!({"profile": {"birthday": "2999-01-01"}}), "/profile/birthday"),
        (json!({"profile": {"given_name": ""}}), "/profile/given_name"),
        (
            json!({"profile": {"consents": [{"channel": "email", "is_given": true, "at": "2026-01-02T03:04:05Z", "source": "by Anna"}]}}),
            "/profile/consents/0/source",
        ),
        (json!({"external_id": "anna@example.com"}), "/external_id"),
        (json!({"member_number": "+49 30 901820"}), "/member_number"),
    ] {
        let answer = world.owner.post("/members", body.clone()).await;
        assert_eq!(answer.problem(), (422, "invalid_value".to_owned(), pointer.to_owned()), "{body}");
    }
    assert_eq!(world.count("select count(*) from customers").await, 0);
    assert_eq!(world.count("select count(*) from vault.data_keys").await, 0);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn members_are_found_by_what_they_say_of_themselves(pool: PgPool) {
    let world = world(&pool).await;
    let id = member(&world, anna()).await;
    let cashier = world.user("cashier", "cashier", Some(&world.here)).await;
    let find = async |body: Value| -> Vec<Value> {
        let found = cashier.post("/members/lookup", body).await.expect(200);
        assert!(!found.to_string().contains("nnabel"), "ids only: {found}");
        found["members"].as_array().unwrap().clone()
    };
    assert_eq!(find(json!({"email": "ANNABEL.Q@example.COM "})).await[0]["customer_id"], id);
    assert_eq!(find(json!({"phone": "+49 (30) 90-18-20"})).await[0]["customer_id"], id);
    assert!(find(json!({"email": "other@example.com"})).await.is_empty());
    for bad in [json!({}), json!({"email": "a@example.com", "phone": "+4930901820"}), json!({"email": "x"})] {
        assert_eq!(cashier.post("/members/lookup", bad).await.problem().0, 422);
    }
    // Each look-up has its row: on who was found, never on what was asked.
    let looked: Vec<(String,)> =
        sqlx::query_as("select target from audit_log where action = 'member.lookup' order by recorded_at, audit_id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let targets: Vec<_> = looked.into_iter().map(|(target,)| target).collect();
    assert_eq!(targets, [format!("member/{id}"), format!("member/{id}"), "members".to_owned()]);
    // A changed address leads nowhere any more, also while the key store still has the digest.
    let path = format!("/members/{id}/profile");
    let etag = world.owner.get(&path).await.etag();
    let old: Vec<(Vec<u8>,)> = sqlx::query_as("select digest from vault.lookups").fetch_all(&pool).await.unwrap();
    world.owner.patch(&path, &etag, json!({"email": "new@example.com"})).await.expect(200);
    assert_eq!(world.count("select count(*) from vault.lookups").await, 2);
    for (digest,) in old {
        sqlx::query("insert into vault.lookups select $1, $2::uuid on conflict do nothing")
            .bind(digest)
            .bind(&id)
            .execute(&pool)
            .await
            .unwrap();
    }
    assert!(find(json!({"email": "annabel.q@example.com"})).await.is_empty());
    assert_eq!(find(json!({"email": "new@example.com"})).await.len(), 1);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_erased_person_is_unreadable_everywhere_and_what_was_kept_before_too(pool: PgPool) {
    let world = world(&pool).await;
    let id = member(&world, anna()).await;
    // The ledger that must not change, and a copy of the sealed fields as a backup would hold them.
    let before: Vec<(i64, i64)> = ledger(&pool).await;
    sqlx::query("create table backup as select * from customer_fields").execute(&pool).await.unwrap();
    let erased = world.owner.post(&format!("/members/{id}/erasure"), json!({"reason": "request"})).await.expect(200);
    assert_eq!(erased["customer_id"], id);
    assert_eq!(world.owner.get(&format!("/members/{id}/profile")).await.problem().0, 410);
    let found = world.owner.get(&format!("/members/{id}")).await.expect(200);
    assert_eq!((&found["external_id"], &found["erased_at"]), (&Value::Null, &erased["erased_at"]));
    assert!(
        world.owner.post("/members/lookup", json!({"phone": "+4930901820"})).await.expect(200)["members"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(ledger(&pool).await, before, "what was bought stays");
    for sql in [
        "select count(*) from customer_fields",
        "select count(*) from vault.data_keys",
        "select count(*) from vault.lookups",
    ] {
        assert_eq!(sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&pool).await.unwrap(), 0, "{sql}");
    }
    // Again without effect.
    let again = world.owner.post(&format!("/members/{id}/erasure"), json!({"reason": "request"})).await.expect(200);
    assert_eq!(again, erased);

    // A restore brings the ciphertext back, never the key; the erasure is repeated.
    sqlx::query("insert into customer_fields select * from backup").execute(&pool).await.unwrap();
    sqlx::query("update customers set erased_at = null, key_is_gone = false").execute(&pool).await.unwrap();
    assert_eq!(world.owner.get(&format!("/members/{id}/profile")).await.problem().0, 410);
    let edit = world.owner.patch(&format!("/members/{id}/profile"), "\"1\"", json!({"notes": "x"})).await;
    assert_eq!(edit.problem().0, 410);
    let vault = world.app.vault().unwrap();
    assert_eq!(erasure::repeat_after_restore(&world.app.writer, &vault, 100).await.unwrap(), 1);
    assert_eq!(erasure::repeat_after_restore(&world.app.writer, &vault, 100).await.unwrap(), 0);
    assert_eq!(world.count("select count(*) from customer_fields").await, 0);
    sqlx::query("drop table backup").execute(&pool).await.unwrap();
    assert_nothing_tells(&pool, "after the erasure").await;
}

async fn ledger(pool: &PgPool) -> Vec<(i64, i64)> {
    sqlx::query_as("select points, version from loyalty_accounts order by account_id").fetch_all(pool).await.unwrap()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_erasure_whose_last_step_failed_is_finished_later(pool: PgPool) {
    let mut world = world(&pool).await;
    let id = member(&world, anna()).await;
    let vault = world.app.vault().unwrap();
    sqlx::query("alter table vault.erasures rename to away").execute(&pool).await.unwrap();
    let answer = world.owner.post(&format!("/members/{id}/erasure"), json!({"reason": "request"})).await;
    assert!(answer.status.is_server_error(), "{}", answer.text());
    assert_eq!(world.count("select count(*) from customer_fields").await, 0);
    assert_eq!(world.count("select count(*) from vault.data_keys").await, 1);
    sqlx::query("alter table vault.away rename to erasures").execute(&pool).await.unwrap();
    assert_eq!(erasure::forget_pending(&world.app.writer, &vault, 100).await.unwrap(), 1);
    assert_eq!(erasure::forget_pending(&world.app.writer, &vault, 100).await.unwrap(), 0);
    assert_eq!(world.count("select count(*) from vault.data_keys").await, 0);
    // Without a key store there are members, and nothing about people.
    world.app.vault = None;
    let other = crate::world::Caller::of(world.app.clone(), world.owner.token.as_deref());
    other.post("/members", json!({})).await.expect(201);
    assert_eq!(other.get(&format!("/members/{id}/profile")).await.problem().0, 503);
    assert_eq!(other.post("/members", json!({"profile": {"notes": "x"}})).await.problem().0, 503);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn the_master_key_changes_while_profiles_stay_readable(pool: PgPool) {
    let mut world = world(&pool).await;
    let (old, new) = (new_key(), new_key());
    let mut under = async |keys: &[&str]| {
        world.app.vault = Some(vault(&pool, &privacy_config(keys)).await);
        (world.app.vault().unwrap(), crate::world::Caller::of(world.app.clone(), world.owner.token.as_deref()))
    };
    let (_, caller) = under(&[&old]).await;
    let id = text(&caller.post("/members", json!({"profile": anna()})).await.expect(201), "customer_id");
    let path = format!("/members/{id}/profile");
    let (both, caller) = under(&[&new, &old]).await;
    assert_eq!(caller.get(&path).await.expect(200)["given_name"], "Annabel");
    let Rotated { from, .. } = both.rotate().await.unwrap();
    assert_eq!(from.into_values().collect::<Vec<_>>(), [1]);
    assert!(both.rotate().await.unwrap().from.is_empty(), "again without effect");
    let (_, caller) = under(&[&new]).await;
    assert_eq!(caller.get(&path).await.expect(200)["given_name"], "Annabel");
    // Whoever has the old key only has nothing: neither to read, nor by mistake to overwrite.
    let (only_old, caller) = under(&[&old]).await;
    assert_eq!(caller.get(&path).await.problem().0, 503);
    assert_eq!(caller.patch(&path, "\"1\"", json!({"notes": "x"})).await.problem().0, 503);
    assert!(only_old.rotate().await.is_err());
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_sealed_field_of_another_member_or_of_another_name_does_not_open(pool: PgPool) {
    let world = world(&pool).await;
    let one = member(&world, anna()).await;
    let other =
        text(&world.owner.post("/members", json!({"profile": {"notes": "other"}})).await.expect(201), "customer_id");
    sqlx::query("update customer_fields f set nonce = o.nonce, ciphertext = o.ciphertext from customer_fields o
                 where f.customer_id = $1::uuid and f.field = 'notes' and o.customer_id = $2::uuid and o.field = 'given_name'")
        .bind(&other)
        .bind(&one)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(world.owner.get(&format!("/members/{other}/profile")).await.problem().0, 503);
    sqlx::query("update customer_fields f set nonce = o.nonce, ciphertext = o.ciphertext from customer_fields o
                 where f.customer_id = $1::uuid and f.field = 'notes' and o.customer_id = $1::uuid and o.field = 'given_name'")
        .bind(&one)
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(world.owner.get(&format!("/members/{one}/profile")).await.problem().0, 503);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn api_clients_do_nothing_with_profiles(pool: PgPool) {
    let world = world(&pool).await;
    let id = member(&world, anna()).await;
    let (_, client) = world.client("shop system", None).await;
    client.post("/members", json!({"external_id": "shop-1"})).await.expect(201);
    let named = client.post("/members", json!({"external_id": "shop-2", "profile": {"notes": "x"}})).await;
    assert_eq!(named.problem().0, 403);
    assert_eq!(client.post("/members/lookup", json!({"phone": "+4930901820"})).await.problem().0, 403);
    for path in ["profile", "export"] {
        assert_eq!(client.get(&format!("/members/{id}/{path}")).await.problem().0, 403, "{path}");
    }
    assert_eq!(world.count("select count(*) from customers").await, 2);
}
