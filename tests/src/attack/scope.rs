//! A20-A22, A25, A33: objects and acts that are somebody else's, and fields that are nobody's to set.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::Ask;
use super::ground::{Ground, Shop, unique};
use super::trial::{Trial, Wanted};

const FORBIDDEN: &[Wanted] = &[(403, "forbidden")];
const UNKNOWN_FIELD: &[Wanted] = &[(422, "unknown_field")];

/// The object of a location behind a parameter of a path; none where objects belong to the whole company.
fn object(shop: &Shop, parameter: &str) -> Option<Uuid> {
    Some(match parameter {
        "location_id" => shop.location_id,
        "terminal_id" => shop.terminal_id,
        "user_id" => shop.cashier.user_id,
        "sale_id" | "document_id" => shop.sale_id,
        _ => return None,
    })
}

/// A body that is right for the routes which take one.
fn body_for(path: &str) -> Option<Value> {
    Some(match path {
        "/locations/{location_id}" => json!({"name": "Mine now"}),
        "/users/{user_id}" => json!({"is_active": false}),
        "/users/{user_id}/pin" => json!({"pin": "270914"}),
        _ => return None,
    })
}

/// A20
pub async fn objects_of_another_location(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let callers = [
        ("a cashier", ground.token_of(&ground.here.cashier).await?),
        ("a manager", ground.token_of(&ground.here.manager).await?),
        ("a till", ground.token_of_till(&till).await?),
    ];
    let from = ground.stranger()?;
    let mut routes = 0;
    for (whole, methods) in ground.document["paths"].as_object().context("no paths")? {
        let path = whole.trim_start_matches("/api/v1");
        let Some(parameter) = path.split(['{', '}']).nth(1) else { continue };
        let Some(theirs) = object(&ground.there, parameter) else { continue };
        for method in methods.as_object().into_iter().flatten().map(|(name, _)| name.to_uppercase()) {
            routes += 1;
            let ask = |id: Uuid, token: &str| {
                let ask = Ask::new(&method, path.replace(&format!("{{{parameter}}}"), &id.to_string()));
                let ask = ask.bearer(token).if_match(1);
                if method == "GET" { ask } else { body_for(path).map_or(ask.clone(), |body| ask.json(&body)) }
            };
            for (who, token) in &callers {
                let answer = ask(theirs, token).send(&from).await?;
                let nothing = ask(Uuid::now_v7(), token).send(&from).await?;
                trial.expect(
                    format!("{who}: {method} {path} of another location"),
                    &answer,
                    &[(404, "not_found"), FORBIDDEN[0]],
                );
                trial.alike(format!("{who}: {method} {path} of another location and of none"), &answer, &nothing);
            }
        }
    }
    trial.holds("routes with an object of a location", routes.to_string(), routes >= 15);
    Ok(())
}

/// A21
pub async fn another_location_in_the_body(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (there, from) = (ground.there.location_id, ground.stranger()?);
    let manager = ground.token_of(&ground.here.manager).await?;
    let till = ground.till(&ground.here).await?;
    let token = ground.token_of_till(&till).await?;
    let lines = json!([{"variant_id": ground.counted, "qty": 1000}]);
    let asks = |location: Uuid| {
        let mut sale = ground.sale(&till, &ground.here.cashier, 0);
        sale["location_id"] = json!(location);
        let quote = json!({"location_id": location, "lines": sale["lines"].clone()});
        let booked = |mut line: Value, name: &str, value: Value| {
            line[name] = value;
            json!([line])
        };
        let line = json!({"variant_id": ground.counted});
        let receipt = json!({"location_id": location, "reason": "receipt", "lines": lines.clone()});
        let adjusted = booked(line.clone(), "delta", json!(-1000));
        let adjustment = json!({"location_id": location, "reason": "damage", "lines": adjusted});
        let thresholds = json!({"location_id": location, "lines": booked(line, "threshold", json!(1000))});
        let terminal = json!({"location_id": location, "register_id": unique("R"), "name": "Mine"});
        let user = json!({"login": unique("mine"), "code": unique("m"), "grants": [{"role": "cashier", "location_id": location}]});
        vec![
            ground.selling(&token, &sale),
            Ask::post("/quotes", &quote).bearer(&token),
            Ask::get(format!("/changes?location={location}")).bearer(&token),
            Ask::get(format!("/sales?location_id={location}")).bearer(&token),
            Ask::get(format!("/stock/movements?location_id={location}")).bearer(&manager),
            Ask::post("/stock/receipts", &receipt).bearer(&manager).key(&unique("k")),
            Ask::post("/stock/adjustments", &adjustment).bearer(&manager).key(&unique("k")),
            Ask::post("/stock/thresholds", &thresholds).bearer(&manager).key(&unique("k")),
            Ask::post("/users", &user).bearer(&manager),
            Ask::post("/terminals", &terminal).bearer(&manager),
        ]
    };
    let (of_others, of_nobody) = (asks(there), asks(Uuid::now_v7()));
    for (theirs, nobodys) in of_others.iter().zip(&of_nobody) {
        let path = theirs.path.split('?').next().unwrap_or_default();
        let (answer, nothing) = (theirs.send(&from).await?, nobodys.send(&from).await?);
        trial.expect(format!("{} {path} for another location", theirs.method), &answer, FORBIDDEN);
        trial.alike(format!("{} {path} for another location and for none", theirs.method), &answer, &nothing);
    }
    Ok(())
}

/// A22
pub async fn acts_of_a_manager(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let who = ground.person("cashier", Some(ground.here.location_id)).await?;
    let (token, from, here) = (ground.token_of(&who).await?, ground.stranger()?, ground.here.location_id);
    let adjustment =
        json!({"location_id": here, "reason": "damage", "lines": [{"variant_id": ground.counted, "delta": -1000}]});
    let price = json!({"prices": [{"variant_id": ground.variant, "location_id": here, "currency": "EUR", "amount_minor": 1,
        "tax_inclusive": true, "valid_from": "2026-01-01T00:00:00Z"}]});
    let raise = json!({"grants": [{"role": "owner"}]});
    let asks = [
        Ask::post("/stock/adjustments", &adjustment).key(&unique("k")),
        Ask::post("/prices", &price),
        Ask::new("PATCH", format!("/variants/{}", ground.variant)).if_match(1).json(&json!({"name": "Free"})),
        Ask::new("PATCH", format!("/users/{}", who.user_id)).if_match(1).json(&raise),
        Ask::post("/users", &json!({"login": unique("mine"), "code": unique("m"), "grants": [{"role": "owner"}]})),
        Ask::new("POST", format!("/terminals/{}/enrolment-codes", ground.here.terminal_id)),
        Ask::get("/reports/kpis?group_by=day&from=2026-11-01&to=2026-11-22"),
        Ask::get("/audit"),
        Ask::get("/users"),
    ];
    for ask in &asks {
        let path = ask.path.split('?').next().unwrap_or_default();
        let answer = ask.clone().bearer(&token).send(&from).await?;
        trial.expect(format!("a cashier: {} {path}", ask.method), &answer, FORBIDDEN);
    }
    let rows = ground.refusals_of(who.user_id).await?;
    trial.holds("the audit log has each refusal", format!("{rows} rows"), rows == asks.len());

    let till = ground.till(&ground.here).await?;
    let mut sale = ground.sale(&till, &who, 0);
    sale["lines"][0]["override"] = json!({"unit_price_minor": 1, "reason": "friend"});
    (sale["total_minor"], sale["tenders"][0]["amount_minor"]) = (json!(1), json!(1));
    let till_token = ground.token_of_till(&till).await?;
    let answer = ground.selling(&till_token, &sale).send(&from).await?;
    trial.expect("a price set by a cashier", &answer, &[(403, "forbidden"), (403, "approval_required")]);
    Ok(())
}

/// A25
pub async fn fields_that_nobody_sets(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    for (pointer, name, value) in [
        ("", "points", json!(1_000_000)),
        ("", "version", json!(7)),
        ("", "created_at", json!("2020-01-01T00:00:00Z")),
        ("", "business_date", json!("2020-01-01")),
        ("", "tax_minor", json!(0)),
        ("/lines/0", "price", json!(1)),
        ("/lines/0", "unit_price_minor", json!(1)),
        ("/lines/0", "tax_minor", json!(0)),
        ("/receipt", "printed", json!(true)),
    ] {
        let mut sale = sale.clone();
        sale.pointer_mut(pointer).context("a place")?[name] = value;
        let answer = ground.selling(&token, &sale).send(&from).await?;
        trial.expect(format!("{pointer}/{name} in a sale"), &answer, UNKNOWN_FIELD);
    }
    let user = json!({"login": unique("mass"), "code": unique("m"), "grants": []});
    for (name, value) in [
        ("role", json!("owner")),
        ("is_admin", json!(true)),
        ("is_active", json!(true)),
        ("version", json!(9)),
        ("password_hash", json!("x")),
        ("session_version", json!(0)),
    ] {
        let mut user = user.clone();
        user[name] = value;
        trial.expect(
            format!("{name} in a new user"),
            &ground.as_owner(Ask::post("/users", &user)).await?,
            UNKNOWN_FIELD,
        );
    }
    let edit = Ask::new("PATCH", format!("/locations/{}", ground.here.location_id)).if_match(1);
    for name in ["currency", "time_zone", "location_id", "version", "__proto__", "constructor"] {
        let answer = ground.as_owner(edit.clone().json(&json!({name: "USD"}))).await?;
        trial.expect(format!("{name} in the edit of a location"), &answer, UNKNOWN_FIELD);
    }
    trial.expect("the sale without any of it", &ground.selling(&token, &sale).send(&from).await?, &[(201, "")]);
    Ok(())
}

/// A33
pub async fn edits_of_what_has_changed(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let path = format!("/locations/{}", ground.there.location_id);
    let edit = |name: &str| Ask::new("PATCH", path.clone()).json(&json!({"name": name}));
    trial.expect("no If-Match", &ground.as_owner(edit("a")).await?, &[(428, "precondition_required")]);
    let read = ground.as_owner(Ask::get(path.clone())).await?.succeeded()?;
    let tag = read.header("etag").to_owned();
    let edited = ground.as_owner(edit("Edited").header("if-match", &tag)).await?;
    trial.expect("the version that was read", &edited, &[(200, "")]);
    for stale in [tag.as_str(), "*", "W/\"1\"", "\"' OR 1=1--\"", "\"99999999999999999999\"", "\"-1\""] {
        let answer = ground.as_owner(edit("Edited again").header("if-match", stale)).await?;
        trial.expect(format!("If-Match: {stale}"), &answer, &[(412, "stale_version")]);
    }
    Ok(())
}
