//! What the demonstration shows beside plain sales, at the counter of the first location: goods come back for money, are
//! exchanged, or turn out to be waste; a member pays with points and another with a coupon; a receipt is given up.

use anyhow::{Context, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::Method;
use schemas::ids::derived_id;
use serde_json::{Value, json};
use uuid::Uuid;

use super::approval::counter;
use super::business::{Business, Place};
use super::state::State;
use crate::client::{Call, Client, decode};
use crate::terminal::Terminal;

/// One sale in so many comes back, of those of a page.
const ONE_IN: usize = 20;
const PAGE: usize = 400;
const COUPON: &str = "WELCOME10";
const DISPOSITIONS: [&str; 4] = ["resellable", "resellable", "inspect", "waste"];

/// How often each was done.
#[derive(Debug, Default)]
struct Done {
    refunds: usize,
    exchanges: usize,
}

/// Shows it once per business; a later run finds the void, which comes last, and does nothing.
pub async fn show(owner: &Client, business: &Business, state: &State) -> anyhow::Result<()> {
    let (Some(place), Some(first)) = (business.places.first(), state.spans.first()) else { return Ok(()) };
    let void = document_id(business.seed, first.from, "void");
    if owner.get::<Value>(&format!("/documents/{void}")).await.is_ok() {
        return Ok(());
    }
    let mut till = counter(owner, business, state, None).await?;
    let mut done = Done::default();
    // Goods of the second location come back at the first one as well.
    for sold_at in business.places.iter().filter(|it| it.market == place.market).take(2) {
        let path = format!("/sales?location_id={}&limit={PAGE}", sold_at.location_id);
        let sales: Value = owner.get(&path).await?;
        let sales = sales["items"].as_array().context("a page of sales")?.clone();
        for (nth, sale) in sales.iter().step_by(ONE_IN).enumerate() {
            bring_back(&mut till, place, (business.seed, nth), sale, &mut done).await?;
        }
    }
    let sales: Value = owner.get(&format!("/sales?location_id={}&limit={PAGE}", place.location_id)).await?;
    let sales = sales["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    // A small business may have none of either.
    let has_points = |sale: &&Value| sale["points_earned"].as_i64().is_some_and(|points| points > 0);
    if let Some(sale) = sales.iter().find(has_points) {
        spend_points(owner, &mut till, place, business.seed, sale).await.context("spending points")?;
    }
    if let Some(sale) = sales.first() {
        use_coupon(owner, &mut till, place, business.seed, sale).await.context("using a coupon")?;
    }
    let body = begun(&till, place, void, "wrong_button");
    commit(&mut till, "/voids", void, &body).await?;
    eprintln!(
        "  {} refunds and {} exchanges, some of them of another location's sales; points, a coupon and a void",
        done.refunds, done.exchanges
    );
    Ok(())
}

/// The first line of a sale comes back: a unit of it, or all that was weighed.
async fn bring_back(
    till: &mut Terminal,
    place: &Place,
    (seed, nth): (u64, usize),
    sale: &Value,
    done: &mut Done,
) -> anyhow::Result<()> {
    let line = &sale["lines"][0];
    let is_weighed = line["qty"].as_i64().unwrap_or_default() % 1_000 != 0;
    let qty = if is_weighed { line["qty"].clone() } else { json!(1_000) };
    let returned = json!([{"line_no": 1, "origin_document_id": sale["sale_id"], "origin_line_no": line["line_no"],
        "qty": qty, "disposition": DISPOSITIONS[nth % DISPOSITIONS.len()]}]);
    let id = document_id(seed, Utc::now(), sale["sale_id"].as_str().context("an id")?);
    // Every third one takes the same goods again.
    let is_exchange = nth % 3 == 2 && !is_weighed;
    let mut body = begun(till, place, id, "defect");
    let path = if is_exchange { "/exchanges" } else { "/refunds" };
    let mut asked = json!({"location_id": place.location_id});
    for body in [&mut body, &mut asked] {
        if is_exchange {
            body["returns"] = returned.clone();
            body["lines"] = json!([{"line_no": 2, "variant_id": line["variant_id"], "qty": 1_000}]);
        } else {
            body["lines"] = returned.clone();
        }
    }
    let preview: Value = till.client.post(&format!("{path}/preview"), &asked).await?;
    let total = preview["total_minor"].as_i64().context("a preview without total")?;
    body["total_minor"] = json!(total);
    body["tenders"] = if total > 0 { json!([{"kind": "cash", "amount_minor": total}]) } else { planned(&preview) };
    commit(till, path, id, &body).await?;
    if is_exchange {
        done.exchanges += 1
    } else {
        done.refunds += 1
    }
    Ok(())
}

/// The tenders of a preview as they are sent.
fn planned(preview: &Value) -> Value {
    let sent = preview["tenders"].as_array().into_iter().flatten().map(|tender| {
        let mut sent = json!({"kind": tender["kind"], "amount_minor": tender["amount_minor"]});
        if !tender["origin"].is_null() {
            sent["origin"] = tender["origin"].clone();
        }
        sent
    });
    Value::from_iter(sent)
}

/// The member buys the same again and pays with all points that the cart takes, worth a minor unit each.
async fn spend_points(
    owner: &Client,
    till: &mut Terminal,
    place: &Place,
    seed: u64,
    sale: &Value,
) -> anyhow::Result<()> {
    let programs: Value = owner.get("/loyalty/programs").await?;
    let program = &programs["programs"][0];
    if program["redeem_points"].is_null() {
        let path = format!("/loyalty/programs/{}", program["program_id"].as_str().context("a program")?);
        let version = format!("\"{}\"", program["version"]);
        let body = serde_json::to_vec(&json!({"redeem_points": 1, "redeem_minor": 1}))?;
        let call = Call {
            method: Method::PATCH,
            path: &path,
            body: Some(body.into()),
            idempotency_key: None,
            if_match: Some(&version),
            repeat: true,
        };
        decode::<Value>(owner.send(&call).await?)?;
    }
    let mut cart = again(place, sale);
    cart["customer_id"] = sale["customer_id"].clone();
    let quote: Value = till.client.post("/quotes", &cart).await?;
    let points = quote["redeemable"][0]["points"].as_i64().unwrap_or_default();
    if points > 0 {
        cart["redemption"] = json!({"program_id": program["program_id"], "points": points});
    }
    sell(till, place, document_id(seed, Utc::now(), "points"), cart).await
}

/// Ten percent off with a coupon, which is good once.
async fn use_coupon(owner: &Client, till: &mut Terminal, place: &Place, seed: u64, sale: &Value) -> anyhow::Result<()> {
    let promotion_id = derived_id("demo.promotion", &seed.to_string());
    let promotion = json!({"promotion_id": promotion_id, "external_id": "welcome", "name": "Welcome", "priority": 1,
        "needs_coupon": true, "effect": {"kind": "percent", "percent": "10"}});
    if owner.get::<Value>(&format!("/promotions/{promotion_id}")).await.is_err() {
        owner.post::<Value>("/promotions", &promotion).await?;
        let coupons = json!({"coupons": [{"code": COUPON}]});
        owner.post::<Value>(&format!("/promotions/{promotion_id}/coupons"), &coupons).await?;
    }
    let mut cart = again(place, sale);
    cart["coupons"] = json!([COUPON]);
    sell(till, place, document_id(seed, Utc::now(), "coupon"), cart).await
}

/// A cart of the sale's first goods, for now.
fn again(place: &Place, sale: &Value) -> Value {
    json!({"location_id": place.location_id, "occurred_at": now(), "currency": place.market.currency(),
        "lines": [{"line_no": 1, "variant_id": sale["lines"][0]["variant_id"], "qty": 1_000}]})
}

/// Sells a cart for cash at what its quote says.
async fn sell(till: &mut Terminal, place: &Place, id: Uuid, cart: Value) -> anyhow::Result<()> {
    let quote: Value = till.client.post("/quotes", &cart).await?;
    let total = quote["total_minor"].as_i64().context("a quote without total")?;
    let mut sale = cart;
    sale["sale_id"] = json!(id);
    sale["terminal_seq"] = json!(till.next_terminal_seq);
    sale["receipt"] = json!({"series_epoch": till.series_epoch, "number": till.next_receipt_number});
    sale["cashier_id"] = json!(place.manager);
    sale["total_minor"] = json!(total);
    sale["tenders"] = if total > 0 { json!([{"kind": "cash", "amount_minor": total}]) } else { json!([]) };
    commit(till, "/sales", id, &sale).await
}

/// What every other document of a till begins with.
fn begun(till: &Terminal, place: &Place, id: Uuid, reason: &str) -> Value {
    json!({"document_id": id, "location_id": place.location_id, "terminal_seq": till.next_terminal_seq,
        "receipt": {"series_epoch": till.series_epoch, "number": till.next_receipt_number},
        "cashier_id": place.manager, "occurred_at": now(), "currency": place.market.currency(), "reason": reason})
}

/// Sends a document under its own id as key, and moves both series on.
async fn commit(till: &mut Terminal, path: &str, id: Uuid, body: &Value) -> anyhow::Result<()> {
    let key = id.to_string();
    let body = Some(serde_json::to_vec(body)?.into());
    let call = Call { method: Method::POST, path, body, idempotency_key: Some(&key), if_match: None, repeat: true };
    let answer = till.client.send(&call).await?;
    ensure!(answer.status.is_success(), "{path} was answered {}: {:?}", answer.status, answer.problem());
    till.next_terminal_seq += 1;
    till.next_receipt_number += 1;
    Ok(())
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A UUIDv7 of an instant, its random part from the seed.
fn document_id(seed: u64, at: DateTime<Utc>, which: &str) -> Uuid {
    let mut random = [0; 10];
    random.copy_from_slice(&derived_id("demo.returns", &format!("{seed}/{which}")).as_bytes()[..10]);
    uuid::Builder::from_unix_timestamp_millis(at.timestamp_millis().max(0) as u64, &random).into_uuid()
}
