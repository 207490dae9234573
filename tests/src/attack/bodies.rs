//! A41-A45, A49, A50: bodies, methods and texts that are meant to break what reads them.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ask::Ask;
use super::ground::{Ground, unique};
use super::trial::{Trial, Wanted};

const MALFORMED: &[Wanted] = &[(400, "malformed")];
const NOT_JSON: &[Wanted] = &[(415, "unsupported_media_type")];
const INVALID: &[Wanted] = &[(422, "")];

fn location(name: &str) -> Value {
    json!({"external_id": unique("l"), "name": name, "currency": "EUR", "time_zone": "UTC", "opened_on": "2024-01-01"})
}

/// A41
pub async fn broken_json(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let good = location("Broken").to_string();
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for (what, body) in [
        ("nothing", String::new()),
        ("half of it", good[..good.len() / 2].to_owned()),
        ("a trailing comma", good.replace('}', ",}")),
        ("a key twice", good.replacen("\"name\"", "\"name\":\"x\",\"name\"", 1)),
        ("a BOM", format!("\u{feff}{good}")),
        ("two bodies", format!("{good}{good}")),
        ("a comment", format!("{good}// sold")),
        ("single quotes", good.replace('"', "'")),
        ("arrays 10,000 deep", nested("[", "]", 10_000)),
        ("objects 10,000 deep", nested("{\"a\":", "}", 10_000)),
        ("deep inside a field", good.replace("\"Broken\"", &nested("[", "]", 10_000))),
        ("deep and never closed", "[".repeat(1_000_000)),
    ] {
        let ask = Ask::new("POST", "/locations").bytes(body).header("content-type", "application/json");
        trial.expect(what, &ground.as_owner(ask).await?, MALFORMED);
    }
    let ask = Ask::new("POST", "/locations")
        .bytes(&b"{\"name\":\"\xff\xfe\"}"[..])
        .header("content-type", "application/json");
    trial.expect("no UTF-8", &ground.as_owner(ask).await?, MALFORMED);
    Ok(())
}

/// A42
pub async fn too_much(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let till = ground.till(&ground.here).await?;
    let (token, from) = (ground.token_of_till(&till).await?, ground.stranger()?);
    let sale = ground.sale(&till, &ground.here.cashier, 0);
    let large = Ask::new("POST", "/sales").bytes(vec![b' '; (2 << 20) + 1]).header("content-type", "application/json");
    trial.expect("2 MiB and a byte", &large.bearer(&token).key("k").send(&from).await?, &[(413, "payload_too_large")]);
    let mut many = sale.clone();
    many["lines"] = json!(vec![sale["lines"][0].clone(); 10_000]);
    trial.expect("10,000 lines", &ground.selling(&token, &many).send(&from).await?, INVALID);
    let mut tendered = sale.clone();
    tendered["tenders"] = json!(vec![sale["tenders"][0].clone(); 10_000]);
    trial.expect("10,000 tenders", &ground.selling(&token, &tendered).send(&from).await?, INVALID);
    for pointer in ["/currency", "/occurred_at", "/sale_id"] {
        let mut long = sale.clone();
        *long.pointer_mut(pointer).context("a place")? = json!("x".repeat(100_000));
        let answer = Ask::post("/sales", &long).bearer(&token).key("k").send(&from).await?;
        trial.expect(format!("100 KB in {pointer}"), &answer, INVALID);
    }
    let answer = ground.as_owner(Ask::post("/locations", &location(&"x".repeat(100_000)))).await?;
    trial.expect("100 KB in a name", &answer, INVALID);
    let long = "x".repeat(100_000);
    let keys = json!({"external_id": "x", long.as_str(): 1});
    trial.expect(
        "100 KB in the name of a field",
        &ground.as_owner(Ask::post("/locations", &keys)).await?,
        &[(422, "unknown_field")],
    );
    Ok(())
}

/// A43
pub async fn compressed(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let bytes = if ground.is_full() { 1 << 30 } else { 64 << 20 };
    let bomb = Ask::new("POST", "/locations").gzipped(&vec![b' '; bytes])?.header("content-type", "application/json");
    let refused: &[Wanted] = &[NOT_JSON[0], (413, "payload_too_large")];
    trial.expect(format!("{} MiB of spaces, compressed", bytes >> 20), &ground.as_owner(bomb).await?, refused);
    for coding in ["gzip", "br", "zstd", "deflate", "gzip, gzip", "x-gzip"] {
        let ask = Ask::post("/locations", &location("Packed")).header("content-encoding", coding);
        trial.expect(format!("Content-Encoding: {coding}"), &ground.as_owner(ask).await?, NOT_JSON);
    }
    Ok(())
}

/// A44
pub async fn other_media(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let body = location("Media").to_string();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json; charset=utf-16",
        "application/jsonp",
        "",
    ] {
        let ask = Ask::new("POST", "/locations").bytes(body.clone()).header("content-type", kind);
        trial.expect(format!("Content-Type: {kind}"), &ground.as_owner(ask).await?, NOT_JSON);
    }
    let bare = Ask::new("POST", "/locations").bytes(body);
    trial.expect("no Content-Type", &ground.as_owner(bare).await?, NOT_JSON);
    for kind in ["image/png", "text/html", "application/xml;q=0.9, text/*"] {
        let ask = Ask::get("/locations").header("accept", kind);
        trial.expect(format!("Accept: {kind}"), &ground.as_owner(ask).await?, &[(406, "not_acceptable")]);
    }
    Ok(())
}

/// A45
pub async fn other_methods(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let refused: &[Wanted] = &[(405, "method_not_allowed")];
    let sale = format!("/sales/{}", ground.here.sale_id);
    for (method, path) in [
        ("TRACE", "/locations"),
        ("PUT", "/locations"),
        ("DELETE", "/locations"),
        ("DELETE", sale.as_str()),
        ("PATCH", sale.as_str()),
        ("PUT", sale.as_str()),
        ("PROPFIND", "/sales"),
        ("get", "/locations"),
    ] {
        let answer = ground.as_owner(Ask::new(method, path)).await?;
        trial.expect(format!("{method} {}", path.split('/').nth(1).unwrap_or_default()), &answer, refused);
    }
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        for method in ["DELETE", "GET", "PATCH"] {
            let ask = Ask::post(sale.clone(), &json!({})).header(name, method).key("k");
            trial.expect(format!("POST with {name}: {method}"), &ground.as_owner(ask).await?, refused);
        }
    }
    let named = ground.as_owner(Ask::post(format!("{sale}?_method=GET"), &json!({}))).await?;
    trial.expect("POST with ?_method=GET", &named, refused);
    Ok(())
}

/// What means something to a database, a template, a shell or a search.
const TEXTS: [&str; 14] = [
    "' OR 1=1--",
    "'; drop table documents; --",
    "$1",
    "\") or 1=1 or (\"",
    "\\",
    "%",
    "_",
    "%00",
    "${jndi:ldap://127.0.0.1/a}",
    "{{7*7}}",
    "$(id)",
    "<script>alert(1)</script>",
    "../../../../etc/passwd",
    "\u{0}",
];

/// A49
pub async fn texts_with_a_meaning_elsewhere(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let document = &ground.document["paths"];
    let mut places = 0;
    for (path, methods) in document.as_object().context("no paths")? {
        let parameters = methods["get"]["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|it| it["in"] == "query") {
            let name = parameter["name"].as_str().context("a name")?;
            places += 1;
            for text in TEXTS {
                let query = percent(text);
                let answer = ground.as_owner(Ask::get(filled(ground, path, name, &query))).await?;
                let what = format!("{} ?{name}={text:?}", path.trim_start_matches("/api/v1"));
                trial.expect(what, &answer, &[(200, ""), (400, ""), (404, ""), (410, ""), (422, "")]);
                let is_empty = answer.status != 200 || answer.json()["items"].as_array().is_none_or(Vec::is_empty);
                let is_filter = !matches!(name, "limit" | "cursor" | "after");
                trial.holds(format!("?{name}={text:?} finds nothing"), answer.brief(), is_empty || !is_filter);
            }
        }
    }
    trial.holds("parameters of all routes", places.to_string(), places > 20);
    for text in TEXTS {
        let answer = ground.as_owner(Ask::post("/locations", &location(text))).await?;
        if text.contains('\0') {
            trial.expect("a NUL in a name", &answer, &[(400, ""), (422, "")]);
            continue;
        }
        trial.expect(format!("a location called {text:?}"), &answer, &[(201, "")]);
        let read = answer.json()["name"] == text;
        trial.holds(format!("{text:?} is what it is called"), answer.brief(), read);
    }
    Ok(())
}

/// The path with its other parameters as they have to be.
fn filled(ground: &Ground, path: &str, name: &str, value: &str) -> String {
    let mut path = path.trim_start_matches("/api/v1").replace("{variant_id}", &ground.variant.to_string());
    let here = ground.here.location_id;
    let mut query = match path.as_str() {
        "/changes" => vec![("location", here.to_string())],
        "/stock/movements" => vec![("location_id", here.to_string())],
        "/reports/kpis" => ["group_by=day", "from=2026-11-01", "to=2026-11-02"]
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name, value.to_owned()))
            .collect(),
        _ => Vec::new(),
    };
    query.retain(|(known, _)| *known != name);
    query.push((name, value.to_owned()));
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    path.push('?');
    path + &query.join("&")
}

pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A50
pub async fn wildcards_and_bombs(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let bomb = format!("({}a+)+$", "(".repeat(20));
    let texts = ["%", "_", "%%%%%%%%%%", "____", "*", ".*", "[a-z]*", "\\", &bomb, &"%_".repeat(49)];
    for path in [
        "/variants?sku=",
        "/variants?external_id=",
        "/variants?barcode=",
        "/members?external_id=",
        "/members?member_number=",
    ] {
        for text in texts {
            let answer = ground.as_owner(Ask::get(format!("{path}{}", percent(text)))).await?;
            trial.expect(format!("{path}{text}"), &answer, &[(200, ""), (422, "")]);
            let is_empty = answer.status != 200 || answer.json()["items"].as_array().is_some_and(Vec::is_empty);
            trial.holds(format!("{path}{text} finds nothing"), answer.brief(), is_empty);
        }
    }
    for body in [json!({"email": "%@%"}), json!({"phone": "+49%"}), json!({"email": "_@_.de"})] {
        let answer = ground.as_owner(Ask::post("/members/lookup", &body)).await?;
        trial.expect(format!("looking up {body}"), &answer, &[(200, ""), (422, "")]);
        let is_empty = answer.status != 200 || answer.json()["members"].as_array().is_some_and(Vec::is_empty);
        trial.holds(format!("{body} finds nobody"), answer.brief(), is_empty);
    }
    Ok(())
}
