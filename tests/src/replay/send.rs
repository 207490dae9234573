//! Sells the planned documents: each till in the order of its plan, many tills at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::SecondsFormat;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::make::{self, Ids};
use super::map::Map;
use super::plan::{Document, DocumentLine, Files, Lines, Location, Plan};
use super::progress_log::{ProgressLog, RefusedDocument};
use crate::client::{ApiError, Client};
use crate::device::DeviceKey;
use crate::terminal::{Outcome, Terminal};
use crate::wire::{Discount, Line, Override, Receipt, Sale, Tender, TenderKind};

/// Tills that sell at the same time.
const TILLS_AT_ONCE: usize = 32;

/// Counts while an import runs.
#[derive(Debug, Default)]
pub struct Counts {
    pub done: AtomicU64,
    pub sold: AtomicU64,
    pub refused: AtomicU64,
}

/// Everything a till needs to know; shared by all.
pub struct Import {
    pub owner: Client,
    pub map: Map,
    pub files: Files,
    pub ids: Ids,
    pub device_secret: String,
    pub log: ProgressLog,
    pub counts: Counts,
    /// Set on Ctrl-C: each till ends after the document it is sending.
    pub stop: AtomicBool,
}

/// Sells the plan to its end, or until it is stopped.
pub async fn send(import: &Arc<Import>, plan: &Plan) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(TILLS_AT_ONCE));
    let mut running = JoinSet::new();
    for location in &plan.locations {
        for n in 0..import.map.constants.tills_per_location {
            let place = places.clone().acquire_owned().await?;
            while let Some(done) = running.try_join_next() {
                done??;
            }
            let (import, location) = (import.clone(), location.clone());
            running.spawn(async move {
                let result = till(&import, &location, n).await;
                drop(place);
                result.with_context(|| format!("location {}, till {}", location.external_id, n + 1))
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// Sells every document of a location that falls to till `n`.
async fn till(import: &Import, location: &Location, n: usize) -> anyhow::Result<()> {
    let name = format!("{}/{n}", location.external_id);
    let tills = import.map.constants.tills_per_location as u64;
    let mine = (location.documents + tills - 1 - n as u64) / tills;
    let before = import.log.done(&name);
    import.counts.done.fetch_add(before, Ordering::Relaxed);
    if before >= mine || import.stop.load(Ordering::Relaxed) {
        return Ok(());
    }
    let terminal_id = make::terminal(&import.map, &location.external_id, n);
    let key = || DeviceKey::derive(import.device_secret.as_bytes(), terminal_id);
    let mut terminal = Terminal::resume_or_enrol(&import.owner, terminal_id, key, None).await?;
    // what an interrupted run left unknown is asked for; what another plan sold is, all along
    let mut asks = terminal.next_terminal_seq > 1;
    let documents: Lines<Document> = Lines::open(&import.files.documents(), location.offset)?;
    let all = documents.take(location.documents as usize).enumerate();
    for (position, document) in all.filter(|(position, _)| *position as u64 % tills == n as u64) {
        let index = position as u64 / tills;
        let document = document?;
        if index < before {
            continue;
        }
        if import.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is_known = asks && is_stored(&terminal, document.sale_id).await?;
        if asks && !is_known && import.log.is_same_plan {
            asks = false;
        }
        if is_known {
            import.counts.sold.fetch_add(1, Ordering::Relaxed);
        } else {
            sell(import, &mut terminal, &document).await?;
        }
        import.log.note_done(&name, index + 1)?;
        import.counts.done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn is_stored(terminal: &Terminal, sale_id: Uuid) -> anyhow::Result<bool> {
    match terminal.read_back::<Value>(sale_id).await {
        Ok(_) => Ok(true),
        Err(ApiError::Refused(problem)) if problem.status == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn sell(import: &Import, terminal: &mut Terminal, document: &Document) -> anyhow::Result<()> {
    let refuse = |code: &str, reason: String| {
        import.counts.refused.fetch_add(1, Ordering::Relaxed);
        import.log.note_refused(RefusedDocument { sale_id: document.sale_id, code: code.to_owned(), reason })
    };
    let sale = match sale(&import.map, &import.ids, document) {
        Ok(sale) => sale,
        Err((code, missing)) => return refuse(code, format!("the API has none by the code {missing}")),
    };
    for _ in 0..10 {
        match terminal.sell(sale.clone()).await? {
            Outcome::Sold(_) => {
                import.counts.sold.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Outcome::Refused(problem) if problem.status >= 422 => return refuse(&problem.code, reason(&problem)),
            // the till and the API disagree about the series or about who it is: no row is to blame
            Outcome::Refused(problem) => bail!("document {}: {} {}", document.document, problem.code, problem.detail),
            Outcome::Unknown(_) if import.stop.load(Ordering::Relaxed) => bail!("stopped while the API was away"),
            Outcome::Unknown(_) => tokio::time::sleep(Duration::from_secs(2)).await,
        }
    }
    bail!("document {}: no answer; run the same command again to go on", document.document)
}

fn reason(problem: &crate::client::Problem) -> String {
    match problem.errors.first() {
        Some(first) => format!("{}: {}", first.pointer, first.message),
        None => problem.detail.clone(),
    }
}

/// The document as its till would have sent it; else what of it the API does not have.
fn sale<'a>(map: &Map, ids: &Ids, document: &'a Document) -> Result<Sale, (&'static str, &'a str)> {
    let total_minor = document.paid_minor();
    let paid = Tender { kind: TenderKind::Other, amount_minor: total_minor, card: None };
    let mut lines = Vec::with_capacity(document.lines.len());
    for (line, line_no) in document.lines.iter().zip(1..) {
        let variant_id = ids.variant(&line.sku).ok_or(("unknown_variant", line.sku.as_str()))?;
        lines.push(sale_line(line, line_no, variant_id));
    }
    let customer_id = match &document.customer {
        Some(customer) => Some(ids.member(customer).ok_or(("unknown_customer", customer.as_str()))?),
        None => None,
    };
    Ok(Sale {
        sale_id: document.sale_id,
        location_id: Uuid::nil(),
        terminal_seq: 0,
        receipt: Receipt { series_epoch: 1, number: 0 },
        cashier_id: make::cashier(map),
        customer_id,
        occurred_at: document.occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        currency: map.constants.currency.to_string(),
        lines,
        tenders: if total_minor == 0 { Vec::new() } else { vec![paid] },
        total_minor,
        approval: None,
    })
}

fn sale_line(line: &DocumentLine, line_no: i32, variant_id: Uuid) -> Line {
    let amount_minor = line.discount_minor;
    let reason = || "imported".to_owned();
    Line {
        line_no,
        variant_id,
        qty: line.qty,
        discount: (amount_minor > 0).then(|| Discount::Amount { amount_minor, reason: reason() }),
        override_: Some(Override { amount_minor: line.amount_minor, reason: reason() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_loses_neither_its_products_nor_its_customer() {
        let map = Map::parse(include_str!("../../../maps/completejourney.toml")).unwrap();
        let line = DocumentLine { line: 2, sku: "a".to_owned(), qty: 1_000, amount_minor: 1, discount_minor: 0 };
        let document = Document {
            document: "1".to_owned(),
            sale_id: Uuid::nil(),
            occurred_at: chrono::DateTime::UNIX_EPOCH,
            customer: Some("k".to_owned()),
            lines: vec![line],
        };
        let (mut ids, id) = (Ids::default(), Uuid::from_u128(7));
        assert_eq!(sale(&map, &ids, &document).unwrap_err(), ("unknown_variant", "a"));
        ids.put("sku", "a", id);
        assert_eq!(sale(&map, &ids, &document).unwrap_err(), ("unknown_customer", "k"));
        ids.put("customer", "k", id);
        assert_eq!(sale(&map, &ids, &document).unwrap().customer_id, Some(id));
    }
}
