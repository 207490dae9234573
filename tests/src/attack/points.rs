//! A30: the same points for many sales at once.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::ask::{Answer, Ask};
use super::ground::{Ground, PRICE};
use super::trial::{Trial, Wanted};

/// Pieces of the sale that earns what is spent then.
const PIECES: i64 = 100;
/// Points of each of the fifty sales, worth as many cents.
const SPENT: i64 = 20;

/// A30
pub async fn redeemed_fifty_times_at_once(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (program, before) = program(ground).await?;
    edit(ground, &program, &json!({"redeem_points": 1, "redeem_minor": 1, "pending_days": null})).await?;
    let tried = spend(ground, trial, &program).await;
    let worth = json!({"redeem_points": before["redeem_points"], "redeem_minor": before["redeem_minor"],
        "pending_days": before["pending_days"]});
    edit(ground, &program, &worth).await?;
    tried
}

async fn spend(ground: &Ground, trial: &mut Trial, program: &str) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let member = ground.as_owner(Ask::post("/members", &json!({}))).await?.succeeded()?.field("customer_id")?;
    let mut sale = ground.sale(&till, &ground.here.cashier, 0);
    sale["customer_id"] = json!(member);
    sale["lines"][0]["qty"] = json!(PIECES * 1000);
    sale["total_minor"] = json!(PIECES * PRICE);
    sale["tenders"][0]["amount_minor"] = json!(PIECES * PRICE);
    let sold = ground.selling(&token, &sale).send(&from).await?;
    trial.expect("the sale that earns the points", &sold, &[(201, "")]);
    let earned = sold.json()["points_earned"].as_i64().context("points")?;
    let asks = (1..=50).map(|after| {
        let mut sale = ground.sale(&till, &ground.here.cashier, after);
        sale["customer_id"] = json!(member);
        sale["redemption"] = json!({"program_id": program, "points": SPENT});
        sale["total_minor"] = json!(PRICE - SPENT);
        sale["tenders"][0]["amount_minor"] = json!(PRICE - SPENT);
        ground.selling(&token, &sale)
    });
    let asks: Vec<Ask> = asks.collect();
    let answers = try_join_all(asks.iter().map(|ask| ask.send(&from))).await?;
    let wanted: &[Wanted] = &[(201, ""), (200, ""), (409, "insufficient_points")];
    answers.iter().for_each(|answer| trial.expect("one of fifty that spend the same points", answer, wanted));
    let figure = |answer: &Answer, name: &str| answer.json()[name].as_i64().unwrap_or_default();
    let sold = || answers.iter().filter(|answer| answer.status < 300);
    let spent: i64 = sold().map(|answer| figure(answer, "points_redeemed")).sum();
    let earned = earned + sold().map(|answer| figure(answer, "points_earned")).sum::<i64>();
    trial.holds("points spent of those there were", format!("{spent} of {earned}"), spent > 0 && spent <= earned);
    let loyalty = ground.as_owner(Ask::get(format!("/members/{member}/loyalty"))).await?.succeeded()?.json();
    let left = loyalty["accounts"][0]["points"].as_i64().context("a balance")?;
    trial.holds("points that are left", left.to_string(), left == earned - spent && (0..SPENT).contains(&left));
    Ok(())
}

/// The first program, as it is.
async fn program(ground: &Ground) -> Result<(String, Value)> {
    let programs = ground.as_owner(Ask::get("/loyalty/programs")).await?.succeeded()?.json();
    let first = programs["programs"][0].clone();
    Ok((first["program_id"].as_str().context("a program")?.to_owned(), first))
}

async fn edit(ground: &Ground, program: &str, edit: &Value) -> Result<()> {
    let path = format!("/loyalty/programs/{program}");
    let now = ground.as_owner(Ask::get(path.as_str())).await?.succeeded()?.json();
    let version = now["version"].as_i64().context("a version")?;
    ground.as_owner(Ask::new("PATCH", path).json(edit).if_match(version)).await?.succeeded()?;
    Ok(())
}
