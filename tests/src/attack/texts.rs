//! A51, A59, A60, A62-A65: texts that are more than they seem: card numbers, lines of a log, other spellings, dates that
//! are none.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::Ask;
use super::bodies::percent;
use super::ground::{Ground, log_in, unique};
use super::sockets;
use super::trial::{Trial, Wanted};
use crate::stack::Service;

const INVALID: &[Wanted] = &[(422, "")];
/// A number of the test range of a card scheme.
const CARD: &str = "4111111111111111";

/// A51
pub async fn figures_by_injection(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let good = [("group_by", "day"), ("from", "2026-11-01"), ("to", "2026-11-22"), ("currency", "EUR")];
    let path = |altered: &str, value: &str| {
        let pairs = good.iter().map(|(name, good)| {
            let value = if *name == altered { percent(value) } else { (*good).to_owned() };
            format!("{name}={value}")
        });
        format!("/reports/kpis?{}", pairs.collect::<Vec<_>>().join("&"))
    };
    let read = ground.as_owner(Ask::get(path("", ""))).await?;
    trial.expect("figures of three weeks", &read, &[(200, "")]);
    for (name, value) in [
        ("group_by", "day) FORMAT JSON --"),
        ("group_by", "url('http://127.0.0.1/', CSV, 'a String')"),
        ("group_by", "1 UNION ALL SELECT name FROM system.users"),
        ("from", "2026-11-01' OR 1=1 --"),
        ("to", "2026-11-22 SETTINGS readonly=0"),
        ("currency", "EUR') UNION ALL SELECT 1 --"),
        ("currency", "eur"),
        ("currency", "'"),
    ] {
        trial.expect(format!("{name}={value}"), &ground.as_owner(Ask::get(path(name, value))).await?, INVALID);
    }
    for extra in ["&format=CSV", "&query=SELECT+1", "&max_rows=0", "&location_id=1'"] {
        let answer = ground.as_owner(Ask::get(path("", "") + extra)).await?;
        trial.expect(format!("{extra} too"), &answer, INVALID);
    }
    Ok(())
}

/// A59
pub async fn card_numbers(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let refused: &[Wanted] = &[(422, "card_data_refused")];
    let location = |name: &str| json!({"external_id": unique("l"), "name": name, "currency": "EUR", "time_zone": "UTC", "opened_on": "2024-01-01"});
    let wide: String = CARD.chars().filter_map(|digit| char::from_u32(digit as u32 + 0xfee0)).collect();
    for name in [
        CARD,
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "card 4111.1111.1111.1111 ok",
        "cvv 123",
        &wide,
        "CVC2: 1234",
    ] {
        let answer = ground.as_owner(Ask::post("/locations", &location(name))).await?;
        trial.expect(format!("{name} as a name"), &answer, refused);
        let is_told = answer.text().contains("1111");
        trial.holds("the answer repeats nothing of it", answer.brief(), !is_told);
    }
    let mut asks = vec![
        ("in a number", Ask::post("/locations", &json!({"cash_step": 4_111_111_111_111_111i64}))),
        ("as the name of a field", Ask::post("/locations", &json!({CARD: 1}))),
        ("in a query", Ask::get(format!("/variants?external_id={CARD}"))),
        ("in a path", Ask::get(format!("/variants/{CARD}"))),
        ("in a header", Ask::get("/locations").header("x-note", CARD)),
        ("as an Idempotency-Key", Ask::post("/stock/receipts", &json!({})).key(CARD)),
        ("as a login", log_in(CARD, "a password of somebody")),
    ];
    let mut sale = json!({"tenders": [{"kind": "card", "amount_minor": 1, "card": {"token": CARD}}]});
    asks.push(("as the token of a card", Ask::post("/sales", &sale).key("k")));
    sale["tenders"][0]["card"] = json!({"token": "tok", "cvv": "123"});
    asks.push(("a security code in a field of its name", Ask::post("/sales", &sale).key("k")));
    for (what, ask) in asks {
        let answer = ground.as_owner(ask).await?;
        trial.expect(what, &answer, refused);
        let is_told = answer.text().contains(CARD);
        trial.holds("the answer repeats nothing of it", answer.brief(), !is_told);
    }
    Ok(())
}

/// A60
pub async fn lines_for_the_log(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (mark, from) = (unique("forged"), ground.stranger()?);
    let line = format!("{{\"level\":\"ERROR\",\"message\":\"{mark}\"}}");
    for text in
        [format!("{mark}\r\n{line}"), format!("{mark}\u{1b}[2J\u{1b}[31m"), format!("{mark}%s%n%x"), line.clone()]
    {
        let answer = log_in(&text, "a password of somebody").send(&from).await?;
        trial.expect(format!("{:?} as a login", text.replace(&mark, "")), &answer, &[(401, ""), (422, ""), (400, "")]);
        let location = json!({"external_id": text, "name": text});
        let answer = ground.as_owner(Ask::post("/locations", &location)).await?;
        trial.expect("the same as a name", &answer, INVALID);
    }
    for header in ["user-agent", "x-request-id", "traceparent", "referer"] {
        let ask = Ask::get("/locations/none").header(header, line.as_bytes());
        let answer = ask.send(&from).await?;
        trial.expect(format!("a line of the log as {header}"), &answer, &[(401, "")]);
        trial.holds("its request id is another", answer.header("x-request-id"), answer.header("x-request-id") != line);
    }
    let raw = format!(
        "GET /api/v1/{} HTTP/1.1\r\nhost: api\r\nuser-agent: \u{1b}[2J{mark}\r\nconnection: close\r\n\r\n",
        percent(&line)
    );
    sockets::say(ground, raw.as_bytes()).await?;
    let log = fs::read_to_string(ground.stack.layout().log(Service::Api.name())).context("the log of the API")?;
    let lines = log.lines().filter(|line| !line.trim().is_empty());
    let broken: Vec<&str> = lines.clone().filter(|line| serde_json::from_str::<Value>(line).is_err()).collect();
    trial.holds(
        "each line of the log is one entry",
        format!("{} of {}", broken.len(), lines.clone().count()),
        broken.is_empty(),
    );
    let forged = lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|entry| [&entry["message"], &entry["fields"]["message"]].contains(&&Value::from(mark.as_str())));
    trial.holds("none is of the attacker's making", forged.clone().count().to_string(), forged.count() == 0);
    trial.holds("no escape sequence stands in it", "the log", !log.contains('\u{1b}'));
    Ok(())
}

/// A62
pub async fn pages_and_cursors(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let first = ground.as_owner(Ask::get("/locations?limit=1")).await?.succeeded()?;
    let cursor = first.field("next_cursor")?;
    let next = ground.as_owner(Ask::get(format!("/locations?limit=1&cursor={cursor}"))).await?;
    trial.expect("a cursor as it came", &next, &[(200, "")]);
    for query in [
        "limit=1000000000",
        "limit=0",
        "limit=-1",
        "limit=501",
        "limit=1e3",
        "limit=99999999999999999999",
        "offset=1000000000000",
        "limit=1&limit=2",
    ] {
        trial.expect(query, &ground.as_owner(Ask::get(format!("/locations?{query}"))).await?, INVALID);
    }
    let mut flipped: Vec<char> = cursor.chars().collect();
    let last = flipped.len() - 2;
    flipped[last] = if flipped[last] == 'A' { 'B' } else { 'A' };
    let flipped: String = flipped.into_iter().collect();
    for (what, path) in [
        ("a changed one", format!("/locations?cursor={flipped}")),
        ("half of one", format!("/locations?cursor={}", &cursor[..cursor.len() / 2])),
        ("one of another list", format!("/users?cursor={cursor}")),
        ("an empty one", "/locations?cursor=".to_owned()),
        ("a plain one", format!("/locations?cursor={}", Uuid::now_v7())),
        ("5,000 characters", format!("/locations?cursor={}", "A".repeat(5_000))),
        ("one of a feed", format!("/changes?location={}&after=1-99999999999999999999", ground.here.location_id)),
        ("a negative one of a feed", format!("/changes?location={}&after=1--1", ground.here.location_id)),
    ] {
        trial.expect(what, &ground.as_owner(Ask::get(path)).await?, &[(400, "malformed"), (422, "")]);
    }
    let ahead =
        ground.as_owner(Ask::get(format!("/changes?location={}&after=1-999999999", ground.here.location_id))).await?;
    trial.expect("a place in a feed that was never reached", &ahead, &[(410, "cursor_expired")]);
    Ok(())
}

/// A63
pub async fn dates_that_are_none(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    for at in [
        "0000-00-00T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
        "2026-11-22T12:00:00+99:00",
        "1000000-01-01T00:00:00Z",
        "+262143-12-31T23:59:59Z",
        "-262144-01-01T00:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-11-22T24:00:01Z",
        "2026-11-22",
        "1790000000",
        "",
        "now",
        "2126-01-01T00:00:00Z",
    ] {
        let mut sale = sale.clone();
        sale["occurred_at"] = json!(at);
        trial.expect(format!("a sale at {at:?}"), &ground.selling(&token, &sale).send(&from).await?, INVALID);
    }
    for date in ["0000-01-01", "2026-13-01", "10000-01-01", "+262143-01-01", "-0001-01-01"] {
        for name in ["from", "to"] {
            let other = if name == "from" { "to" } else { "from" };
            let query = format!("group_by=day&{name}={}&{other}=2026-11-01", percent(date));
            let answer = ground.as_owner(Ask::get(format!("/reports/kpis?{query}"))).await?;
            trial.expect(format!("figures {name} {date}"), &answer, INVALID);
        }
        let answer = ground.as_owner(Ask::get(format!("/sales?business_date={}", percent(date)))).await?;
        // A day on which nothing can have been sold is a day without sales.
        trial.expect(format!("sales of {date}"), &answer, &[(422, ""), (200, "")]);
    }
    let audit = ground.as_owner(Ask::get(format!("/audit?from={}", percent("+262143-12-31T23:59:59Z")))).await?;
    trial.expect("the audit log from the end of time on", &audit, &[(422, ""), (200, "")]);
    Ok(())
}

/// A64
pub async fn texts_that_look_alike(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let name = unique("twin");
    let profile = ground.as_owner(Ask::get("/tax-profiles?limit=1")).await?.succeeded()?.json();
    let profile = profile["items"][0]["external_id"].as_str().context("no tax profile")?.to_owned();
    let variant = |external_id: &str, sku: &str| {
        json!({"external_id": external_id, "product_external_id": name, "sku": sku, "name": "Twin", "is_measured": false,
            "tax_profile_external_id": profile})
    };
    let upsert = |variants: Value| {
        Ask::post(
            "/catalog/upsert",
            &json!({"products": [{"external_id": name, "name": "Twin"}], "variants": variants, "prices": []}),
        )
    };
    for (what, sku) in [
        ("RTL override", "a\u{202e}b"),
        ("a zero-width space", "a\u{200b}b"),
        ("a soft hyphen", "a\u{ad}b"),
        ("a tag", "a\u{e0041}b"),
        ("a BOM", "a\u{feff}b"),
        ("nothing but space", "\u{3000}"),
    ] {
        for (field, body) in [
            ("sku", variant(&unique("v"), &format!("{name}{sku}"))),
            ("external_id", variant(&format!("{name}{sku}"), &unique("v"))),
        ] {
            if what.starts_with("nothing") {
                continue;
            }
            trial.expect(format!("{what} in {field}"), &ground.as_owner(upsert(json!([body]))).await?, INVALID);
        }
        if what.starts_with("nothing") {
            trial.expect(
                "a sku of space",
                &ground.as_owner(upsert(json!([variant(&unique("v"), sku)]))).await?,
                INVALID,
            );
        }
    }
    let (composed, decomposed) = (format!("{name}-caf\u{e9}"), format!("{name}-cafe\u{301}"));
    let first = ground.as_owner(upsert(json!([variant(&unique("v"), &composed)]))).await?;
    trial.expect("a sku with a composed letter", &first, &[(200, "")]);
    for (what, sku) in [
        ("decomposed", decomposed.clone()),
        ("in upper case", composed.to_uppercase()),
        ("with space around", format!(" {composed} ")),
    ] {
        let answer = ground.as_owner(upsert(json!([variant(&unique("v"), &sku)]))).await?;
        trial.expect(format!("its twin {what}"), &answer, &[(409, "already_exists"), (422, "")]);
    }
    let both =
        json!([variant(&unique("v"), &format!("{decomposed}2")), variant(&unique("v"), &format!("{composed}2"))]);
    trial.expect("both in one body", &ground.as_owner(upsert(both)).await?, &[(409, ""), (422, "")]);
    let found = ground.as_owner(Ask::get(format!("/variants?sku={}", percent(&decomposed)))).await?.succeeded()?.json();
    let rows = found["items"].as_array().map_or(0, Vec::len);
    trial.holds("one variant has the sku, in either spelling", format!("{rows} rows"), rows == 1);
    Ok(())
}

/// A65
pub async fn identifiers_in_other_forms(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let id = ground.here.location_id;
    let (upper, bare) = (id.to_string().to_uppercase(), id.simple().to_string());
    let body = |id: &str| {
        json!({"location_id": id, "external_id": unique("l"), "name": "x", "currency": "EUR", "time_zone": "UTC",
            "opened_on": "2024-01-01"})
    };
    for (what, text) in [
        ("version 1", "9b2e1c0a-8a5f-11ef-b864-0242ac120002".to_owned()),
        ("version 3", "6fa459ea-ee8a-3ca4-894e-db77e160355e".to_owned()),
        ("nil", Uuid::nil().to_string()),
        ("max", Uuid::max().to_string()),
        ("too long", format!("{}0", Uuid::now_v7())),
    ] {
        trial.expect(
            format!("a new id: {what}"),
            &ground.as_owner(Ask::post("/locations", &body(&text))).await?,
            INVALID,
        );
    }
    for (what, new) in [("braces", Uuid::now_v7()), ("a URN", Uuid::now_v7())] {
        let spelt = if what == "braces" { new.braced().to_string() } else { new.urn().to_string() };
        let answer = ground.as_owner(Ask::post("/locations", &body(&spelt))).await?;
        trial.expect(format!("a new id: {what}"), &answer, &[(422, ""), (201, "")]);
        let is_one = answer.status == 422 || answer.json()["location_id"] == new.to_string();
        trial.holds("it is kept in the one spelling there is", answer.brief(), is_one);
    }
    let again = ground.as_owner(Ask::post("/locations", &body(&upper))).await?;
    trial.expect("an id that exists, in upper case", &again, &[(409, "id_conflict"), (422, "")]);
    let again = ground.as_owner(Ask::post("/locations", &body(&bare))).await?;
    trial.expect("an id that exists, without hyphens", &again, &[(409, "id_conflict"), (422, "")]);
    let read = ground.as_owner(Ask::get(format!("/locations/{upper}"))).await?;
    trial.expect("reading it in upper case", &read, &[(200, ""), (404, "not_found")]);
    for text in [format!("{{{id}}}"), bare, format!("urn:uuid:{id}"), format!("{id} "), "..".to_owned(), "0".to_owned()]
    {
        let answer = ground.as_owner(Ask::get(format!("/locations/{}", percent(&text)))).await?;
        trial.expect(format!("reading {:?}", text.replace(&id.to_string(), "<id>")), &answer, &[(404, "not_found")]);
    }
    Ok(())
}
