//! A29, A32: more back than was sold, twice, fifty times at once, of a sale that never was.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::Ask;
use super::ground::{Ground, PRICE, Shop, unique};
use super::trial::{Trial, Wanted};
use crate::terminal::Terminal;

/// One piece of a sale back for cash: the document that comes `after` so many others of a till.
fn refund(till: &Terminal, by: &Shop, sale: &Value, qty: i64, after: i64) -> Value {
    let total = -PRICE * qty / 1000;
    json!({
        "document_id": Uuid::now_v7(), "location_id": till.location_id,
        "terminal_seq": till.next_terminal_seq + after,
        "receipt": {"series_epoch": till.series_epoch, "number": till.next_receipt_number + after},
        "cashier_id": by.manager.user_id, "occurred_at": chrono::Utc::now(), "currency": "EUR", "reason": "attacked",
        "lines": [{"line_no": 1, "origin_document_id": sale["sale_id"], "origin_line_no": 1, "qty": qty,
                   "disposition": "resellable"}],
        "tenders": [{"kind": "cash", "amount_minor": total}], "total_minor": total,
    })
}

fn refunding(token: &str, refund: &Value) -> Ask {
    Ask::post("/refunds", refund).bearer(token).key(&unique("refund"))
}

/// A29
pub async fn more_than_remains(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    ground.selling(&token, &sale).send(&from).await?.succeeded()?;
    let beyond = refund(&till, &ground.here, &sale, 2000, 1);
    let wanted = &[(422, "quantity_exceeds_document")];
    trial.expect("two of one sold", &refunding(&token, &beyond).send(&from).await?, wanted);
    // Each is a document of its own, of fifty tills' worth of numbers.
    let asks: Vec<Ask> =
        (1..=50).map(|after| refunding(&token, &refund(&till, &ground.here, &sale, 1000, after))).collect();
    let answers = try_join_all(asks.iter().map(|ask| ask.send_once(&from))).await?;
    // The last two are for who waits too long for the one location that all of them want.
    let wanted: &[Wanted] = &[(201, ""), (409, "already_refunded"), (503, "unavailable"), (503, "overloaded")];
    answers.iter().for_each(|answer| trial.expect("one of fifty refunds of the last piece", answer, wanted));
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    trial.holds("refunds that were made", made.to_string(), made == 1);
    let again = refund(&till, &ground.here, &sale, 1000, 60);
    trial.expect("and again", &refunding(&token, &again).send(&from).await?, &[(409, "already_refunded")]);
    let mut dear = refund(&till, &ground.here, &sale, 1000, 61);
    (dear["total_minor"], dear["tenders"][0]["amount_minor"]) = (json!(-PRICE * 2), json!(-PRICE * 2));
    let wanted = &[(409, "already_refunded"), (422, "total_mismatch")];
    trial.expect("for twice its price", &refunding(&token, &dear).send(&from).await?, wanted);
    Ok(())
}

/// A32
pub async fn at_another_location(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    ground.selling(&token, &sale).send(&from).await?.succeeded()?;
    let other = ground.till(&ground.there).await?;
    let their_token = ground.token_of_till(&other).await?;
    let mut never = refund(&other, &ground.there, &sale, 1000, 0);
    never["lines"][0]["origin_document_id"] = json!(Uuid::now_v7());
    trial.expect(
        "of a sale that never was",
        &refunding(&their_token, &never).send(&from).await?,
        &[(404, "not_found")],
    );
    let once = refund(&other, &ground.there, &sale, 1000, 0);
    trial.expect("of a sale of another location", &refunding(&their_token, &once).send(&from).await?, &[(201, "")]);
    let wanted = &[(409, "already_refunded")];
    let twice = refund(&other, &ground.there, &sale, 1000, 1);
    trial.expect("twice", &refunding(&their_token, &twice).send(&from).await?, wanted);
    let home = refund(&till, &ground.here, &sale, 1000, 1);
    trial.expect("and where it was sold", &refunding(&token, &home).send(&from).await?, wanted);
    let sold: Uuid = sale["sale_id"].as_str().context("an id")?.parse()?;
    let left = Ask::get(format!("/documents/{sold}/returnable")).bearer(&their_token).send(&from).await?;
    trial.expect("what is left of a sale of another location", &left, &[(404, "not_found")]);
    Ok(())
}
