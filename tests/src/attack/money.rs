//! A26-A28: figures that do not add up, cannot be, or run over.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ask::Ask;
use super::ground::{DEAR, Ground, PRICE};
use super::trial::{Trial, Wanted};

const INVALID: &[Wanted] = &[(422, "")];

/// A26
pub async fn figures_that_differ(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    let altered = |pointers: &[(&str, Value)]| {
        let mut sale = sale.clone();
        for (pointer, value) in pointers {
            if let Some(place) = sale.pointer_mut(pointer) {
                *place = value.clone();
            }
        }
        ground.selling(&token, &sale)
    };
    let (total, tender) = ("/total_minor", "/tenders/0/amount_minor");
    for (what, ask, code) in [
        ("a cent less", altered(&[(total, json!(PRICE - 1)), (tender, json!(PRICE - 1))]), "total_mismatch"),
        ("a cent more", altered(&[(total, json!(PRICE + 1)), (tender, json!(PRICE + 1))]), "total_mismatch"),
        ("nothing", altered(&[(total, json!(0)), (tender, json!(0))]), ""),
        ("less than nothing", altered(&[(total, json!(-PRICE)), (tender, json!(-PRICE))]), ""),
        ("two pieces for the price of one", altered(&[("/lines/0/qty", json!(2000))]), "total_mismatch"),
        ("a tender that does not cover it", altered(&[(tender, json!(PRICE - 1))]), "tenders_do_not_add_up"),
        ("another currency", altered(&[("/currency", json!("USD"))]), "wrong_currency"),
    ] {
        trial.expect(what, &ask.send(&from).await?, &[(422, code)]);
    }
    let mut dear = sale.clone();
    dear["lines"][0]["discount"] = json!({"kind": "amount", "amount_minor": PRICE + 1, "reason": "more"});
    trial.expect("a discount above the line", &ground.selling(&token, &dear).send(&from).await?, INVALID);
    dear["lines"][0]["discount"] = json!({"kind": "percent", "percent": "100.0001", "reason": "more"});
    trial.expect("a discount above all", &ground.selling(&token, &dear).send(&from).await?, INVALID);
    let mut others = sale.clone();
    others["lines"][0]["override"] = json!({"amount_minor": 1, "reason": "other"});
    let answer = ground.selling(&token, &others).send(&from).await?;
    trial.expect("an amount of the till's own making", &answer, &[(422, ""), (403, "")]);
    trial.expect("the sale as it is", &altered(&[]).send(&from).await?, &[(201, "")]);
    Ok(())
}

/// A27
pub async fn quantities_that_cannot_be(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    let key = sale["sale_id"].as_str().context("an id")?;
    for (raw, status) in [
        ("0", 422),
        ("-1", 422),
        ("-1000", 422),
        ("1500", 422),
        ("2147483648", 422),
        ("9223372036854775807", 422),
        ("9223372036854775808", 422),
        ("-9223372036854775809", 422),
        ("1.5", 422),
        ("1e3", 422),
        ("\"1\"", 422),
        ("null", 422),
        ("[1000]", 422),
        ("NaN", 400),
        ("Infinity", 400),
        ("1e309", 400),
        ("0x3e8", 400),
        ("01000", 400),
    ] {
        let body = sale.to_string().replace("\"qty\":1000", &format!("\"qty\":{raw}"));
        let ask = Ask::new("POST", "/sales").bytes(body).header("content-type", "application/json");
        let answer = ask.bearer(&token).key(key).send(&from).await?;
        trial.expect(format!("qty {raw}"), &answer, &[(status, "")]);
    }
    trial.expect("the sale as it is", &ground.selling(&token, &sale).send(&from).await?, &[(201, "")]);
    Ok(())
}

/// A28
pub async fn amounts_that_run_over(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let line = |n: i64| json!({"line_no": n, "variant_id": ground.dear, "qty": 1_000_000_000});
    for lines in [1, 10, 200] {
        let cart = json!({"location_id": till.location_id, "lines": (1..=lines).map(line).collect::<Vec<_>>()});
        let answer = Ask::post("/quotes", &cart).bearer(&token).send(&from).await?;
        trial.expect(format!("{lines} lines of a million pieces at {DEAR}"), &answer, INVALID);
    }
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    for (pointer, value) in [
        ("/total_minor", json!(i64::MAX)),
        ("/total_minor", json!(i64::MIN)),
        ("/tenders/0/amount_minor", json!(i64::MAX)),
        ("/terminal_seq", json!(i64::MAX)),
        ("/receipt/number", json!(i64::MAX)),
        ("/receipt/series_epoch", json!(i32::MAX)),
        ("/lines/0/line_no", json!(i32::MIN)),
    ] {
        let mut sale = sale.clone();
        *sale.pointer_mut(pointer).context("a place")? = value.clone();
        trial.expect(
            format!("{pointer} {value}"),
            &ground.selling(&token, &sale).send(&from).await?,
            &[(422, ""), (409, "")],
        );
    }
    let mut sale = sale;
    sale["tenders"] = json!([{"kind": "other", "amount_minor": i64::MAX}, {"kind": "other", "amount_minor": i64::MAX}]);
    trial.expect("tenders that run over together", &ground.selling(&token, &sale).send(&from).await?, INVALID);
    let price = json!({"prices": [{"variant_id": ground.dear, "currency": "EUR", "amount_minor": DEAR + 1,
        "tax_inclusive": true, "valid_from": "2026-01-01T00:00:00Z"}]});
    trial.expect("a price above the largest", &ground.as_owner(Ask::post("/prices", &price)).await?, INVALID);
    Ok(())
}
