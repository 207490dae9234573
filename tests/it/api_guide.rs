//! The worked sale of the API guide: sent as it is printed, answered as it is printed.

use e2e::client::Call;
use e2e::demo::owner;
use e2e::device::DeviceKey;
use e2e::terminal::Terminal;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, root, world};

/// The one block of the guide that is marked so.
fn block(mark: &str) -> Value {
    let guide = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let (_, rest) = guide.split_once(&format!("```json {mark}\n")).expect("the block is there");
    serde_json::from_str(rest.split_once("```").unwrap().0).unwrap()
}

/// A till, a manager and two variants as the guide describes them.
struct Shop {
    till: Terminal,
    manager: Uuid,
    variants: [Uuid; 2],
}

async fn shop(world: &World) -> Shop {
    let owner = owner(&world.endpoints).unwrap();
    let [location, terminal, manager] = std::array::from_fn(|_| Uuid::now_v7());
    let name = &location.simple().to_string()[20..];
    let post = |path: &'static str, body: Value| {
        let owner = owner.clone();
        async move { owner.post::<Value>(path, &body).await.unwrap() }
    };
    post(
        "/locations",
        json!({"location_id": location, "external_id": name, "name": name, "currency": "EUR",
        "time_zone": "Europe/Berlin", "opened_on": "2024-05-01", "cash_step": 5}),
    )
    .await;
    post(
        "/users",
        json!({"user_id": manager, "login": name, "code": name,
        "grants": [{"role": "manager", "location_id": location}]}),
    )
    .await;
    post("/terminals", json!({"terminal_id": terminal, "location_id": location, "register_id": "1", "name": "Front"}))
        .await;
    post(
        "/tax-profiles",
        json!({"external_id": name, "name": "Full rate", "valid_from": "2020-01-01T00:00:00Z",
        "rates": [{"name": "VAT", "rate": "0.19", "inclusive": true}]}),
    )
    .await;
    let (coffee, beans) = (format!("coffee-{name}"), format!("beans-{name}"));
    let variant = |id: &str, is_measured: bool| {
        json!({"external_id": id, "product_external_id": name, "sku": id, "name": id, "is_measured": is_measured,
            "barcodes": [], "tax_profile_external_id": name})
    };
    let price = |id: &str, amount: i64| {
        json!({"variant_external_id": id, "currency": "EUR", "amount_minor": amount, "tax_inclusive": true,
            "valid_from": "2026-01-01T00:00:00Z"})
    };
    let made = post(
        "/catalog/upsert",
        json!({"products": [{"external_id": name, "name": "Coffee"}],
        "variants": [variant(&coffee, false), variant(&beans, true)],
        "prices": [price(&coffee, 250), price(&beans, 1990)]}),
    )
    .await;
    let id = |external: &str| -> Uuid {
        let rows = made["variants"].as_array().unwrap();
        let row = rows.iter().find(|row| row["external_id"] == external).unwrap();
        row["variant_id"].as_str().unwrap().parse().unwrap()
    };
    let till = Terminal::enrol(&owner, terminal, DeviceKey::generate().unwrap(), None).await.unwrap();
    Shop { till, manager, variants: [id(&coffee), id(&beans)] }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worked_sale_is_answered_as_printed() {
    let world = world().await;
    let shop = shop(&world).await;
    let mut sale = block("sale");
    sale["sale_id"] = json!(Uuid::now_v7());
    sale["location_id"] = json!(shop.till.location_id);
    sale["cashier_id"] = json!(shop.manager);
    for (line, variant) in shop.variants.iter().enumerate() {
        sale["lines"][line]["variant_id"] = json!(variant);
    }
    let key = sale["sale_id"].to_string();
    let call = Call {
        method: Method::POST,
        path: "/sales",
        body: Some(sale.to_string().into()),
        idempotency_key: Some(key.trim_matches('"')),
        if_match: None,
        repeat: false,
    };
    let answer = shop.till.client.send(&call).await.unwrap();
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    let sold: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_holds(&sold, &block("sold"), "");
    let again = shop.till.client.send(&call).await.unwrap();
    assert_eq!((again.status.as_u16(), again.body), (200, answer.body));
}

/// Everything printed stands in the answer.
fn assert_holds(found: &Value, printed: &Value, at: &str) {
    match printed {
        Value::Object(members) => {
            members.iter().for_each(|(name, printed)| assert_holds(&found[name], printed, &format!("{at}/{name}")));
        }
        Value::Array(items) => {
            assert_eq!(found.as_array().map(Vec::len), Some(items.len()), "{at}");
            items.iter().enumerate().for_each(|(n, printed)| assert_holds(&found[n], printed, &format!("{at}/{n}")));
        }
        value => assert_eq!(found, value, "{at}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_again_by_an_id_of_ones_own_is_a_conflict_and_the_object_can_be_read() {
    let world = world().await;
    let owner = owner(&world.endpoints).unwrap();
    let customer = Uuid::now_v7();
    let body = json!({"customer_id": customer, "external_id": &customer.simple().to_string()[20..]});
    owner.post::<Value>("/members", &body).await.unwrap();
    assert_eq!(owner.post::<Value>("/members", &body).await.unwrap_err().code(), "id_conflict");
    let named = json!({"external_id": &customer.simple().to_string()[20..]});
    assert_eq!(owner.post::<Value>("/members", &named).await.unwrap_err().code(), "already_exists");
    let read: Value = owner.get(&format!("/members/{customer}")).await.unwrap();
    assert_eq!(read["external_id"], body["external_id"]);
}
