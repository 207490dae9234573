//! What the demonstration shows of limits: at a till of its own a cashier gives half the price away, which needs an approval;
//! the manager approves it with a PIN, and it is sold. The next one is refused and left at that.

use anyhow::{Context, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use schemas::ids::derived_id;
use serde_json::{Value, json};
use uuid::Uuid;

use super::business::Business;
use super::planner::Issued;
use super::state::State;
use crate::client::{ApiError, Client};
use crate::device::DeviceKey;
use crate::journal::Journal;
use crate::terminal::{Outcome, Terminal};
use crate::wire::{Discount, Line, NewTerminal, Receipt, Sale, Tender, TenderKind};

const PIN: &str = "730519";
const MANAGER_CODE: &str = "M-001";

/// Shows it once per business; a later run finds the sale and does nothing.
pub async fn show(
    owner: &Client,
    business: &Business,
    issued: &Issued,
    state: &State,
    journal: Option<&Journal>,
) -> anyhow::Result<()> {
    let (Some(place), Some(first)) = (business.places.first(), state.spans.first()) else { return Ok(()) };
    let at = first.from + TimeDelta::hours(1);
    let (approved, refused) = (sale_id(business.seed, at, "approved"), sale_id(business.seed, at, "refused"));
    if owner.get::<Value>(&format!("/sales/{approved}")).await.is_ok() {
        return Ok(());
    }
    let _: Value = owner.post(&format!("/users/{}/pin", place.manager), &json!({"pin": PIN})).await?;
    let mut till = counter(owner, business, state, journal).await?;

    let ranked = business.ranked(place.market);
    let by_piece =
        ranked.iter().find(|index| !business.variants[**index].is_measured).context("nothing by the piece")?;
    let discount = Discount::Percent { percent: "50".to_owned(), reason: "damaged".to_owned() };
    let variant_id = *issued.variants.get(*by_piece).context("a variant without id")?;
    let line = Line { line_no: 1, variant_id, qty: 1_000, discount: Some(discount), override_: None };
    let occurred_at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let currency = place.market.currency().to_owned();
    let cart =
        json!({"location_id": place.location_id, "occurred_at": occurred_at, "currency": currency, "lines": [line]});
    let quote: Value = till.client.post("/quotes", &cart).await?;
    let total_minor = quote["total_minor"].as_i64().context("a quote without total")?;
    let mut sale = Sale {
        sale_id: refused,
        location_id: place.location_id,
        terminal_seq: 0,
        receipt: Receipt { series_epoch: 1, number: 0 },
        cashier_id: place.cashiers[0],
        customer_id: None,
        occurred_at,
        currency,
        lines: vec![line],
        tenders: vec![Tender { kind: TenderKind::Cash, amount_minor: total_minor, card: None }],
        total_minor,
        approval: None,
    };
    asked(&mut till, &sale).await?;
    sale.sale_id = approved;
    let mut wanted = asked(&mut till, &sale).await?;
    let key = DeviceKey::derive(state.device_secret.as_bytes(), till.terminal_id)?;
    let signature = key.sign_pin(till.terminal_id, MANAGER_CODE, PIN);
    wanted["approver"] = json!({"cashier_code": MANAGER_CODE, "pin": PIN, "signature": signature});
    let approval: Value = till.client.post("/approvals", &wanted).await?;
    sale.approval = approval["approval"].as_str().map(str::to_owned);
    match till.sell(sale).await? {
        Outcome::Sold(_) => {
            eprintln!("  50 % off is beyond a cashier's limit: refused, then sold with the manager's approval");
            Ok(())
        }
        other => anyhow::bail!("the approved sale was not sold: {other:?}"),
    }
}

/// The till of what the demonstration shows beside plain sales, at the first location.
pub async fn counter(
    owner: &Client,
    business: &Business,
    state: &State,
    journal: Option<&Journal>,
) -> anyhow::Result<Terminal> {
    let place = business.places.first().context("no location")?;
    let terminal_id = derived_id("demo.counter", &business.seed.to_string());
    make_terminal(owner, terminal_id, place.location_id).await?;
    let key = || DeviceKey::derive(state.device_secret.as_bytes(), terminal_id);
    Terminal::resume_or_enrol(owner, terminal_id, key, journal.cloned()).await
}

/// What the API wants approved of a sale that is beyond the limit.
async fn asked(till: &mut Terminal, sale: &Sale) -> anyhow::Result<Value> {
    match till.sell(sale.clone()).await? {
        Outcome::Refused(problem) => {
            ensure!(problem.code == "approval_required", "refused as {}: {}", problem.code, problem.detail);
            problem.approval.context("approval_required says nothing of what to approve")
        }
        other => anyhow::bail!("beyond the limit, and yet: {other:?}"),
    }
}

async fn make_terminal(owner: &Client, terminal_id: Uuid, location_id: Uuid) -> anyhow::Result<()> {
    let (register_id, name) = ("99".to_owned(), "Counter".to_owned());
    let made = owner.post::<Value>("/terminals", &NewTerminal { terminal_id, location_id, register_id, name }).await;
    match made {
        Err(ApiError::Refused(problem)) if ["id_conflict", "already_exists"].contains(&problem.code.as_str()) => Ok(()),
        made => made.map(|_| ()).context("the counter's till"),
    }
}

/// A UUIDv7 of the sale's instant, its random part from the seed.
fn sale_id(seed: u64, at: DateTime<Utc>, which: &str) -> Uuid {
    let mut random = [0; 10];
    random.copy_from_slice(&derived_id("demo.approval", &format!("{seed}/{which}")).as_bytes()[..10]);
    uuid::Builder::from_unix_timestamp_millis(at.timestamp_millis().max(0) as u64, &random).into_uuid()
}
