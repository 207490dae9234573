//! Card data, people and secrets on a platform of their own: ten thousand card numbers go through every text of every
//! route, and are refused; people sign up, are edited, looked up, merged and erased. Then every store and every log is
//! searched. Nothing of it may be found, and what was planted to be found must be.

#![allow(clippy::disallowed_methods, reason = "tests read addresses from the environment and write past the product")]

#[path = "canaries/plan.rs"]
mod plan;
#[path = "canaries/search.rs"]
mod search;
#[path = "canaries/stores.rs"]
mod stores;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use e2e::client::Identity;
use e2e::demo;
use e2e::launcher::{start_servers, up::start_platform};
use e2e::session::Session;
use e2e::stack::{Layout, Service, Stack};
use futures::StreamExt as _;
use plan::{Ask, Plan};
use reqwest::{Client, Method, StatusCode};
use search::Needles;
use serde_json::{Value, json};

const CANARIES: usize = 10_000;
const AT_ONCE: usize = 8;
/// Of every wait. Far beyond what anything here takes: it only ends a test that would never end.
const DEADLINE: Duration = Duration::from_secs(240);

fn platform() -> Stack {
    let bin = Path::new(env!("CARGO_BIN_EXE_vorca-dev")).parent().expect("folder of vorca-dev");
    let layout = Layout { bin: bin.to_path_buf(), ..Layout::throwaway("canaries").unwrap().unlimited() };
    let stack = start_servers(layout).unwrap();
    start_platform(&stack).unwrap();
    stack
}

/// The API as its owner.
struct Office {
    http: Client,
    api: String,
    token: String,
}

impl Office {
    async fn open(stack: &Stack) -> Office {
        let endpoints = stack.endpoints().unwrap();
        let http = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let api = e2e::client::Client::new(&endpoints.api, Identity::Anonymous).unwrap();
        let session = Session::of_owner(&endpoints);
        let (token, _) = session.token(&api, None).await.unwrap();
        // Export, merge and erasure ask for a proof of this minute.
        session.step_up(&api, &token).await.unwrap();
        Office { http, api: endpoints.api, token }
    }

    async fn send(&self, ask: &Ask) -> (StatusCode, String) {
        let method: Method = ask.method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{}", self.api, ask.path)).bearer_auth(&self.token);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &ask.body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), format!("{:?}", answer.headers()));
        (status, headers + &answer.text().await.unwrap())
    }

    async fn ok(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Value {
        let ask = Ask {
            method: method.to_owned(),
            path: format!("/api/v1{path}"),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: (!body.is_null()).then_some(body),
        };
        let (status, text) = self.send(&ask).await;
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text[text.find("}{").map_or(0, |at| at + 1)..]).unwrap_or(Value::Null)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_cards_people_and_secrets_is_found_anywhere() {
    let stack = tokio::task::spawn_blocking(platform).await.unwrap();
    let options = demo::Options {
        sales: 40,
        locations: 2,
        patience: DEADLINE,
        ..demo::Options::of_run(&stack.layout().run).unwrap()
    };
    assert!(demo::run(&stack.endpoints().unwrap(), &options).await.unwrap().is_clean());

    let office = Arc::new(Office::open(&stack).await);
    let document = office.ok("GET", "/openapi.json", &[], Value::Null).await;
    let plan = Plan::new(&document, CANARIES);
    assert!(plan.places > 150, "{} places", plan.places);
    let cards = refuse_all(&office, plan).await;
    // The next token, for ten thousand requests take their time.
    let office = Office::open(&stack).await;
    let people = live(&office).await;
    let marker = plant(&office).await;

    let found = search_everything(&stack, &cards, &people, marker).await;
    assert!(found.is_empty(), "found:\n{}", found.join("\n"));
    secrets_stay_secret(&stack, &office.token).await;
    tokio::task::spawn_blocking(move || stack.shutdown()).await.unwrap().unwrap();
}

/// Sends every canary; each is refused, and not repeated.
async fn refuse_all(office: &Arc<Office>, plan: Plan) -> Needles {
    let mut needles = Needles::default();
    plan.asks.iter().for_each(|(number, _)| needles.add(number));
    let answers = futures::stream::iter(plan.asks).map(|(number, ask)| {
        let office = Arc::clone(office);
        async move {
            let (status, text) = office.send(&ask).await;
            // An office user is no till: what it says for one is not even read.
            let is_unread = status == 403 && ask.path == "/api/v1/auth/pin";
            let is_refused = status == 422 && text.contains("\"card_data_refused\"");
            let is_right = (is_refused || is_unread) && !text.contains(&number);
            (!is_right).then(|| format!("{} {}: {status} {text}", ask.method, ask.path))
        }
    });
    let wrong: Vec<String> = answers.buffer_unordered(AT_ONCE).filter_map(|wrong| async move { wrong }).collect().await;
    assert!(
        wrong.is_empty(),
        "{} of {CANARIES} were not refused:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    needles
}

/// A number that is no card number and belongs to one person.
fn telling(n: u64) -> String {
    format!("7{:015}", 31_337_000 + n)
}

/// People with numbers in every field: sign up, edit, read, look up, merge, export, erase.
async fn live(office: &Office) -> Needles {
    let mut needles = Needles::default();
    let mut next = 0;
    let mut number = || {
        next += 1;
        let number = telling(next);
        needles.add(&number);
        number
    };
    let mut ids = Vec::new();
    for n in 0..6u64 {
        let email = format!("p{}@example.com", number());
        let phone = format!("+49 30 {}", 90_182_000 + n);
        let body = json!({"profile": {"given_name": format!("Anna {}", number()), "family_name": number(), "email": email,
            "phone": phone, "birthday": "1983-07-14", "notes": format!("call {}", number()),
            "consents": [{"channel": "email", "is_given": true, "at": "2026-01-02T03:04:05Z", "source": number()}]}});
        let member = office.ok("POST", "/members", &[], body).await;
        let id = member["customer_id"].as_str().unwrap().to_owned();
        let edit = json!({"notes": number()});
        office.ok("PATCH", &format!("/members/{id}/profile"), &[("if-match", "\"1\"")], edit).await;
        for lookup in [json!({"email": email}), json!({"phone": phone})] {
            let found = office.ok("POST", "/members/lookup", &[], lookup).await;
            assert_eq!(found["members"][0]["customer_id"], id.as_str());
        }
        office.ok("GET", &format!("/members/{id}/profile"), &[], Value::Null).await;
        office.ok("GET", &format!("/members/{id}/export"), &[], Value::Null).await;
        ids.push(id);
    }
    // Refusals about people are not quoted either.
    let wrong = json!({"profile": {"email": format!("{} at home", number()), "birthday": number()}});
    let ask = Ask { method: "POST".into(), path: "/api/v1/members".into(), headers: Vec::new(), body: Some(wrong) };
    assert_eq!(office.send(&ask).await.0, 422);
    let merge = json!({"absorbed_id": ids[1], "reason": "duplicate"});
    office.ok("POST", &format!("/members/{}/merge", ids[0]), &[], merge).await;
    for id in &ids[2..4] {
        office.ok("POST", &format!("/members/{id}/erasure"), &[], json!({"reason": "request"})).await;
    }
    needles
}

/// Something that must be found in the database and beyond it, or the search proves nothing.
async fn plant(office: &Office) -> Needles {
    let mut marker = Needles::default();
    let number = telling(999_999);
    marker.add(&number);
    // The first row on a page goes into the write-ahead log as part of a compressed page, the next ones as they are.
    for n in 0..5 {
        let body = json!({"external_id": format!("planted-{n}"), "name": format!("Planted {number}"), "currency": "EUR",
            "time_zone": "Europe/Berlin", "opened_on": "2020-01-01"});
        office.ok("POST", "/locations", &[], body).await;
    }
    marker
}

/// Where something was found that must not be; asserts that the planted marker is found where it must be.
async fn search_everything(stack: &Stack, cards: &Needles, people: &Needles, marker: Needles) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |place: &str, bytes: &[u8]| {
        for (what, needles) in [("card", cards), ("person", people)] {
            let hits = needles.hits(bytes);
            if hits > 0 {
                found.push(format!("{what}: {hits} in {place}"));
            }
        }
        marker.hits(bytes)
    };
    // The marker has arrived where it goes: whatever else was published before it has, too.
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while marker.hits(&stores::clickhouse(stack).await) == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the planted location does not reach ClickHouse");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(look("ClickHouse", &stores::clickhouse(stack).await) > 0);
    assert!(look("the topics", &stores::topics(stack).await) > 0, "the topics hold the marker");
    assert!(look("a dump of the database", &stores::dump(stack, "vorca").await) > 0, "the dump holds the marker");
    look("a dump of the key store", &stores::dump(stack, "vorca_vault").await);
    stores::checkpoint(stack).await;
    let mut files = 0;
    let mut write_ahead = 0;
    for path in stores::files(&stack.layout().run) {
        // Servers rotate and remove files while they are read.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let hits = look(&path.display().to_string(), &bytes);
        write_ahead += hits * usize::from(path.components().any(|part| part.as_os_str() == "pg_wal"));
        files += 1;
    }
    assert!(write_ahead > 0, "the write-ahead log holds the marker");
    assert!(files > 100, "{files} files");
    found
}

/// Keys, passwords and tokens are in no log, no metric and no answer of an admin port.
async fn secrets_stay_secret(stack: &Stack, token: &str) {
    let run = &stack.layout().run;
    let session = Session::of_owner(&stack.endpoints().unwrap());
    let mut secrets = vec![token.to_owned(), session.who.password.clone(), session.secret().unwrap().unwrap()];
    for (_, path) in stack.layout().privacy_keys() {
        secrets.push(std::fs::read_to_string(path).unwrap().trim().to_owned());
    }
    for path in [stack.layout().signing_key(), stack.layout().audit_key()] {
        let key = std::fs::read_to_string(path).unwrap();
        secrets.extend(key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
    }
    for name in ["vorca", "vorca-app", "vorca-relay", "vorca-vault", "redis", "clickhouse-api", "clickhouse-sink"] {
        secrets.push(stack.identity().password(name).to_owned());
    }
    let mut texts = vec![("a dump of the database".to_owned(), stores::dump(stack, "vorca").await)];
    for service in Service::all() {
        texts
            .push((format!("log of {service}"), std::fs::read(stack.layout().log(service.name())).unwrap_or_default()));
    }
    let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    for (role, admin) in stack.endpoints().unwrap().admin {
        for path in ["/metrics", "/readyz", "/livez", "/startupz", "/debug", "/env"] {
            let answer = client.get(format!("{admin}{path}")).send().await.unwrap();
            texts.push((format!("{path} of {role}"), answer.bytes().await.unwrap().to_vec()));
        }
    }
    assert!(texts.len() > 20 && secrets.iter().all(|secret| secret.len() >= 12), "{}", run.display());
    for (place, text) in texts {
        let text = String::from_utf8_lossy(&text).into_owned();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "a secret is in {place}");
        }
    }
}
