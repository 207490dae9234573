//! A31: one coupon for many sales at once.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::ask::Ask;
use super::ground::{Ground, PRICE, unique};
use super::trial::{Trial, Wanted};

/// A31
pub async fn used_fifty_times_at_once(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let mut promotion = json!({"external_id": unique("attack"), "name": "Half", "priority": 1, "needs_coupon": true,
        "effect": {"kind": "percent", "percent": "50"}});
    let made = ground.as_owner(Ask::post("/promotions", &promotion)).await?.succeeded()?;
    let path = format!("/promotions/{}", made.field("promotion_id")?);
    let tried = spend(ground, trial, &path).await;
    promotion["is_active"] = json!(false);
    ground.as_owner(Ask::new("PUT", path).json(&promotion).if_match(1)).await?.succeeded()?;
    tried
}

async fn spend(ground: &Ground, trial: &mut Trial, path: &str) -> Result<()> {
    let code: String = unique("half").chars().filter(char::is_ascii_alphanumeric).take(30).collect();
    let coupons = json!({"coupons": [{"code": code}]});
    ground.as_owner(Ask::post(format!("{path}/coupons"), &coupons)).await?.succeeded()?;
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let with_coupon = |after: i64| -> Value {
        let mut sale = ground.sale(&till, &ground.here.cashier, after);
        sale["coupons"] = json!([code]);
        sale["total_minor"] = json!(PRICE / 2);
        sale["tenders"][0]["amount_minor"] = json!(PRICE / 2);
        sale
    };
    let asks: Vec<Ask> = (0..50).map(|after| ground.selling(&token, &with_coupon(after))).collect();
    let answers = try_join_all(asks.iter().map(|ask| ask.send(&from))).await?;
    let wanted: &[Wanted] = &[(201, ""), (200, ""), (409, "coupon_used")];
    answers.iter().for_each(|answer| trial.expect("one of fifty that use the coupon", answer, wanted));
    let sold = answers.iter().filter(|answer| answer.status < 300).count();
    trial.holds("sales that it was good for", sold.to_string(), sold == 1);
    let usage = ground.as_owner(Ask::get(path)).await?.succeeded()?.json();
    let uses = usage["uses"].as_i64().context("uses")?;
    trial.holds("uses that are counted", uses.to_string(), uses == 1);
    Ok(())
}
