//! What is attacked: two locations with people, tills, goods and a sale each, made through the public API under names
//! that nothing else has.

use anyhow::{Context, Result};
use chrono::Utc;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::{AGAIN_AFTER, AGAIN_MAX, Answer, Ask, Caller};
use crate::client::{ApiError, Client, Identity};
use crate::demo;
use crate::device::DeviceKey;
use crate::session::Session;
use crate::stack::Stack;
use crate::terminal::Terminal;

/// Of everybody who is made here.
pub const PASSWORD: &str = "quiet lanterns over the harbour 7";
/// What one piece costs; a sale of one piece has this total.
pub const PRICE: i64 = 250;
/// The largest price there is.
pub const DEAR: i64 = 1_000_000_000_000;

/// How much is sent: the long form repeats the figures of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Short,
    Full,
}

pub struct Ground {
    pub stack: Stack,
    pub form: Form,
    pub api: String,
    /// From an address of its own: what the attackers do locks nobody out.
    pub caller: Caller,
    pub owner: Client,
    pub here: Shop,
    pub there: Shop,
    /// Sold by the piece, stock not counted.
    pub variant: Uuid,
    /// The same at the largest price there is.
    pub dear: Uuid,
    /// Stock counted.
    pub counted: Uuid,
    /// The OpenAPI document as it is served.
    pub document: Value,
}

pub struct Shop {
    pub location_id: Uuid,
    pub manager: Person,
    pub cashier: Person,
    pub terminal_id: Uuid,
    /// A sale that was committed here.
    pub sale_id: Uuid,
}

#[derive(Debug, Clone)]
pub struct Person {
    pub user_id: Uuid,
    pub login: String,
}

/// A session that has begun.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub access: String,
    pub refresh: String,
    pub session_id: Uuid,
}

/// What no other name holds.
pub fn unique(kind: &str) -> String {
    format!("{kind}-{}", &Uuid::new_v4().simple().to_string()[..12])
}

impl Ground {
    pub async fn prepare(stack: &Stack, form: Form) -> Result<Ground> {
        let endpoints = stack.endpoints()?;
        let owner = demo::owner(&endpoints)?;
        let [variant, dear, counted] = goods(&owner).await.context("goods")?;
        let here = Shop::open(&owner, variant).await.context("a location")?;
        let there = Shop::open(&owner, variant).await.context("another location")?;
        let caller = Caller::stranger(&endpoints.api)?;
        let document = Ask::get("/openapi.json").send(&caller).await?.succeeded()?.json();
        let receipt = json!({"location_id": here.location_id, "reason": "receipt",
            "lines": [{"variant_id": counted, "qty": 100_000}]});
        owner.post_keyed::<Value>("/stock/receipts", Some(&unique("receipt")), &receipt).await?;
        let (stack, api) = (stack.clone(), endpoints.api);
        Ok(Ground { stack, form, api, caller, owner, here, there, variant, dear, counted, document })
    }

    /// Someone who calls from an address that nobody has called from.
    pub fn stranger(&self) -> Result<Caller> {
        Caller::stranger(&self.api)
    }

    pub fn is_full(&self) -> bool {
        self.form == Form::Full
    }

    pub async fn owner_token(&self) -> Result<String> {
        self.owner.token().await?.context("the owner has no token")
    }

    /// A new user who can log in.
    pub async fn person(&self, role: &str, location: Option<Uuid>) -> Result<Person> {
        person(&self.owner, role, location).await
    }

    /// A new till of a location, enrolled.
    pub async fn till(&self, shop: &Shop) -> Result<Terminal> {
        till(&self.owner, shop.location_id).await
    }

    /// Access token of a till, which comes again when it is told to.
    pub async fn token_of_till(&self, till: &Terminal) -> Result<String> {
        for _ in 0..AGAIN_MAX {
            match till.client.token().await {
                Ok(token) => return token.context("the till has no token"),
                Err(ApiError::Refused(problem)) if problem.status == 503 => tokio::time::sleep(AGAIN_AFTER).await,
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("no token for a till: the platform is busy")
    }

    /// Signs a user in who has no second factor.
    pub async fn sign_in(&self, who: &Person) -> Result<SignedIn> {
        SignedIn::of(&log_in(&who.login, PASSWORD).send(&self.stranger()?).await?.succeeded()?.json())
    }

    /// Access token of somebody of a shop.
    pub async fn token_of(&self, who: &Person) -> Result<String> {
        self.sign_in(who).await.map(|session| session.access)
    }

    /// Sends as the owner, who proves the second factor once more where that is asked for.
    pub async fn as_owner(&self, ask: Ask) -> Result<Answer> {
        let token = self.owner_token().await?;
        let ask = ask.bearer(&token);
        let answer = ask.send(&self.caller).await?;
        if answer.code() != "reauth_required" {
            return Ok(answer);
        }
        let session = Session::of_owner(&self.stack.endpoints()?);
        session.step_up(&self.owner.with(Identity::Anonymous), &token).await?;
        ask.send(&self.caller).await
    }

    /// One piece for cash: the document that comes `after` so many others of a till.
    pub fn sale(&self, till: &Terminal, cashier: &Person, after: i64) -> Value {
        sale(till, cashier.user_id, self.variant, after)
    }

    /// A POST of a sale under its own id as key.
    pub fn selling(&self, token: &str, sale: &Value) -> Ask {
        Ask::post("/sales", sale).bearer(token).key(sale["sale_id"].as_str().unwrap_or_default())
    }

    /// How many rows the audit log holds of somebody who was refused.
    pub async fn refusals_of(&self, actor: Uuid) -> Result<usize> {
        let answer = self.as_owner(Ask::get(format!("/audit?actor={actor}&outcome=refused&limit=500"))).await?;
        Ok(answer.succeeded()?.json()["items"].as_array().map_or(0, Vec::len))
    }
}

impl SignedIn {
    pub fn of(body: &Value) -> Result<SignedIn> {
        let text = |name: &str| body[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {body}"));
        let session_id = text("session_id")?.parse()?;
        Ok(SignedIn { access: text("access_token")?, refresh: text("refresh_token")?, session_id })
    }
}

/// A log-in as the API takes it.
pub fn log_in(login: &str, password: &str) -> Ask {
    Ask::post("/auth/login", &json!({"login": login, "password": password}))
}

async fn person(owner: &Client, role: &str, location: Option<Uuid>) -> Result<Person> {
    let (user_id, login) = (Uuid::now_v7(), unique("attacked"));
    let mut grant = json!({"role": role});
    if let Some(location) = location {
        grant["location_id"] = json!(location);
    }
    let code = unique("a");
    let body = json!({"user_id": user_id, "login": login, "code": code, "password": PASSWORD, "grants": [grant]});
    owner.post::<Value>("/users", &body).await.with_context(|| format!("a {role}"))?;
    Ok(Person { user_id, login })
}

async fn till(owner: &Client, location_id: Uuid) -> Result<Terminal> {
    let terminal_id = Uuid::now_v7();
    let body =
        json!({"terminal_id": terminal_id, "location_id": location_id, "register_id": unique("R"), "name": "Till"});
    owner.post::<Value>("/terminals", &body).await.context("a terminal")?;
    Terminal::enrol(owner, terminal_id, DeviceKey::generate()?, None).await
}

fn sale(till: &Terminal, cashier: Uuid, variant: Uuid, after: i64) -> Value {
    json!({
        "sale_id": Uuid::now_v7(), "location_id": till.location_id, "terminal_seq": till.next_terminal_seq + after,
        "receipt": {"series_epoch": till.series_epoch, "number": till.next_receipt_number + after},
        "cashier_id": cashier, "occurred_at": Utc::now().to_rfc3339(), "currency": "EUR",
        "lines": [{"line_no": 1, "variant_id": variant, "qty": 1000}],
        "tenders": [{"kind": "cash", "amount_minor": PRICE}], "total_minor": PRICE,
    })
}

async fn goods(owner: &Client) -> Result<[Uuid; 3]> {
    let name = unique("attacked");
    let profile = json!({"external_id": name, "name": "Full rate", "valid_from": "2020-01-01T00:00:00Z",
        "rates": [{"name": "VAT", "rate": "0.19", "inclusive": true}]});
    owner.post::<Value>("/tax-profiles", &profile).await.context("a tax profile")?;
    let ids = ["piece", "dear", "counted"].map(|kind| format!("{kind}-{name}"));
    let variant = |(n, id): (usize, &String)| {
        json!({"external_id": id, "product_external_id": name, "sku": id, "name": id, "is_measured": false,
            "tracks_stock": n == 2, "tax_profile_external_id": name})
    };
    let price = |(n, id): (usize, &String)| {
        json!({"variant_external_id": id, "currency": "EUR", "amount_minor": if n == 1 { DEAR } else { PRICE },
            "tax_inclusive": true, "valid_from": "2024-01-01T00:00:00Z"})
    };
    let body = json!({"products": [{"external_id": name, "name": "Attacked goods"}],
        "variants": ids.iter().enumerate().map(variant).collect::<Vec<_>>(),
        "prices": ids.iter().enumerate().map(price).collect::<Vec<_>>()});
    let stored: Value = owner.post("/catalog/upsert", &body).await.context("the catalog")?;
    let id_of = |external: &String| -> Result<Uuid> {
        let rows = stored["variants"].as_array().context("no variants")?;
        let row = rows.iter().find(|row| row["external_id"] == *external).context("a variant is missing")?;
        Ok(row["variant_id"].as_str().context("no id")?.parse()?)
    };
    Ok([id_of(&ids[0])?, id_of(&ids[1])?, id_of(&ids[2])?])
}

impl Shop {
    async fn open(owner: &Client, variant: Uuid) -> Result<Shop> {
        let (location_id, name) = (Uuid::now_v7(), unique("attacked"));
        let body = json!({"location_id": location_id, "external_id": name, "name": name, "currency": "EUR",
            "time_zone": "Europe/Berlin", "opened_on": "2024-01-02"});
        owner.post::<Value>("/locations", &body).await.context("a location")?;
        let manager = person(owner, "manager", Some(location_id)).await?;
        let cashier = person(owner, "cashier", Some(location_id)).await?;
        let till = till(owner, location_id).await?;
        let sale = sale(&till, cashier.user_id, variant, 0);
        let token = till.client.token().await?.context("the till has no token")?;
        let key = sale["sale_id"].as_str().unwrap_or_default();
        let call = crate::client::Call {
            method: reqwest::Method::POST,
            path: "/sales",
            body: Some(sale.to_string().into()),
            idempotency_key: Some(key),
            if_match: None,
            repeat: true,
        };
        let answer = till.client.send(&call).await?;
        anyhow::ensure!(answer.status == StatusCode::CREATED && !token.is_empty(), "{:?}", answer.problem());
        Ok(Shop { location_id, manager, cashier, terminal_id: till.terminal_id, sale_id: key.parse()? })
    }
}
