//! A35-A40: keys and identifiers that come twice, wrong, or from somebody else.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::ask::Ask;
use super::ground::{Ground, PRICE, unique};
use super::sockets;
use super::trial::{Trial, Wanted};

const CREATED: &[Wanted] = &[(201, "")];
const INVALID: &[Wanted] = &[(400, "idempotency_key_invalid")];

/// A35
pub async fn no_key(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let required: &[Wanted] = &[(400, "idempotency_key_required")];
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    trial.expect("a sale", &Ask::post("/sales", &sale).bearer(&token).send(&from).await?, required);
    for path in ["/stock/receipts", "/stock/adjustments", "/stock/thresholds"] {
        trial.expect(path, &ground.as_owner(Ask::post(path, &json!({}))).await?, required);
    }
    Ok(())
}

/// A36
pub async fn another_body_under_the_same_key(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let key = unique("same");
    let first = ground.sale(&till, &ground.here.cashier, 0);
    let sold = Ask::post("/sales", &first).bearer(&token).key(&key).send(&from).await?;
    trial.expect("a sale", &sold, CREATED);
    let other = ground.sale(&till, &ground.here.cashier, 1);
    let mut dearer = first.clone();
    (dearer["lines"][0]["qty"], dearer["total_minor"]) = (json!(2000), json!(2 * PRICE));
    dearer["tenders"][0]["amount_minor"] = json!(2 * PRICE);
    for (what, sale) in [("another sale", &other), ("the same sale with another total", &dearer)] {
        let answer = Ask::post("/sales", sale).bearer(&token).key(&key).send(&from).await?;
        trial.expect(format!("{what} under its key"), &answer, &[(422, "idempotency_key_reuse")]);
    }
    let read = Ask::get(format!("/sales/{}", first["sale_id"].as_str().unwrap_or_default())).bearer(&token);
    let read = read.send(&from).await?;
    trial.holds("the first is what it was", read.brief(), read.body == sold.body);
    Ok(())
}

/// A37
pub async fn the_key_of_somebody_else(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (key, from) = (unique("shared"), ground.stranger()?);
    let mut sold = Vec::new();
    for shop in [&ground.here, &ground.there] {
        let till = ground.till(shop).await?;
        let token = ground.token_of_till(&till).await?;
        let sale = ground.sale(&till, &shop.cashier, 0);
        let answer = Ask::post("/sales", &sale).bearer(&token).key(&key).send(&from).await?;
        trial.expect("a sale under a key that two tills use", &answer, CREATED);
        let is_own = answer.json()["sale_id"] == sale["sale_id"];
        trial.holds("each is answered with its own", answer.brief(), is_own);
        sold.push(answer.body);
    }
    trial.holds("nothing of one is in the other", sold.len().to_string(), sold[0] != sold[1]);
    Ok(())
}

/// A38
pub async fn fifty_twins(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let ask = ground.selling(&token, &ground.sale(&till, &ground.here.cashier, 0));
    let answers = try_join_all((0..50).map(|_| ask.send_once(&from))).await?;
    // The last is for who waits too long for the one row that all of them want.
    let wanted: &[Wanted] = &[(201, ""), (200, ""), (409, "in_progress"), (503, "unavailable")];
    answers.iter().for_each(|answer| trial.expect("one of fifty twins", answer, wanted));
    let created: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    trial.holds("sales that were made", created.len().to_string(), created.len() == 1);
    let first = created.first().context("no sale was made")?;
    let replays = answers.iter().filter(|answer| answer.status == 200);
    let are_same = replays.clone().all(|it| it.body == first.body && it.header("idempotency-replayed") == "true");
    trial.holds("the others are told the very same", format!("{} replays", replays.count()), are_same);
    let receipt = json!({"location_id": ground.here.location_id, "reason": "receipt",
        "lines": [{"variant_id": ground.counted, "qty": 1000}]});
    let ask = Ask::post("/stock/receipts", &receipt).key(&unique("twin")).bearer(&ground.owner_token().await?);
    let answers = try_join_all((0..50).map(|_| ask.send_once(&from))).await?;
    answers.iter().for_each(|answer| trial.expect("one of fifty twins of a receipt", answer, wanted));
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    trial.holds("receipts that were booked", created.to_string(), created == 1);
    Ok(())
}

/// A39
pub async fn keys_that_are_none(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    let ask = Ask::post("/sales", &sale).bearer(&token);
    for (what, key) in [
        ("256 characters", "k".repeat(256)),
        ("10,000 characters", "k".repeat(10_000)),
        ("an emoji", "\u{1f511}".to_owned()),
        ("spaces", "a b".to_owned()),
        ("a tab", "a\tb".to_owned()),
        ("a quote", "a\"b".to_owned()),
        ("quotes around nothing", "\"\"".to_owned()),
    ] {
        trial.expect(what, &ask.clone().key(&key).send(&from).await?, INVALID);
    }
    trial.expect("two keys", &ask.clone().key("one").key("two").send(&from).await?, INVALID);
    trial.expect("the same key twice", &ask.clone().key("one").key("one").send(&from).await?, INVALID);
    trial.expect(
        "an empty one",
        &ask.clone().key("").send(&from).await?,
        &[INVALID[0], (400, "idempotency_key_required")],
    );
    let body = sale.to_string();
    for (what, key) in
        [("a CR/LF with another header", "a\r\nx-evil: 1"), ("a folded line", "a\r\n b"), ("a NUL", "a\0b")]
    {
        let text = format!(
            "POST /api/v1/sales HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let said = sockets::say(ground, text.as_bytes()).await?;
        // A line break makes a second header of it: the key is what stands before, and the sale is none of another key.
        let is_right = if what.starts_with("a CR/LF") { [201, 400].contains(&said.status) } else { said.status == 400 };
        trial.holds(what, said.brief(), is_right && !said.text.to_lowercase().contains("x-evil"));
    }
    Ok(())
}

/// A40
pub async fn the_identifier_of_another_sale(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.there).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let mut sale = ground.sale(&till, &ground.there.cashier, 0);
    sale["sale_id"] = json!(ground.here.sale_id);
    let answer = Ask::post("/sales", &sale).bearer(&token).key(&unique("k")).send(&from).await?;
    trial.expect("a sale under the id of one at another location", &answer, &[(409, "id_conflict")]);
    let theirs: Value = ground.as_owner(Ask::get(format!("/sales/{}", ground.here.sale_id))).await?.succeeded()?.json();
    let shown = ["location_id", "terminal_id", "cashier_id", "register_id"]
        .into_iter()
        .filter(|name| theirs[*name].as_str().is_some_and(|value| answer.text().contains(value)))
        .collect::<Vec<_>>();
    trial.holds("nothing of it is shown", format!("{shown:?}"), shown.is_empty());
    let location = json!({"location_id": ground.here.location_id, "external_id": unique("l"), "name": "x",
        "currency": "EUR", "time_zone": "UTC", "opened_on": "2024-01-01"});
    let answer = ground.as_owner(Ask::post("/locations", &location)).await?;
    trial.expect("a location under the id of another", &answer, &[(409, "id_conflict")]);
    Ok(())
}
