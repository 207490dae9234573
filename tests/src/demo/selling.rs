//! Simulated tills sell what the planner hands out: each till one sale after the other, all tills at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::business::Business;
use super::planner::{Expect, Planned, Planner, Refusal};
use super::tally::Tally;
use crate::client::Client;
use crate::device::DeviceKey;
use crate::journal::Journal;
use crate::terminal::{Outcome, Terminal};

/// Sales that may wait for one till before the planner waits too (closed loop only).
const WAITING_PER_TILL: usize = 64;

/// A sale on its way to its till.
struct Queued {
    planned: Planned,
    /// When its customer came; None in a closed loop, where the next one comes when the till is free.
    due: Option<Instant>,
}

/// All tills of the business, each enrolled with a device key of its own, in the order of the business.
///
/// With a `journal` each till notes what it sends and is answered.
pub async fn tills(
    owner: &Client,
    business: &Business,
    device_secret: &str,
    journal: Option<&Journal>,
) -> anyhow::Result<Vec<Vec<Terminal>>> {
    let mut places = Vec::new();
    for place in &business.places {
        let tills = stream::iter(&place.tills)
            .map(|till| async move {
                let key = || DeviceKey::derive(device_secret.as_bytes(), *till);
                Terminal::resume_or_enrol(owner, *till, key, journal.cloned()).await
            })
            .buffered(4)
            .try_collect()
            .await
            .with_context(|| format!("tills of {}", place.name))?;
        places.push(tills);
    }
    Ok(places)
}

/// Sells the planner's span to its end. With a `rate` the sales arrive at that rate whatever the answers
/// do, and a late answer counts from the moment its customer came; without, each till sends as fast as it
/// is answered.
pub async fn sell(
    tills: Vec<Vec<Terminal>>,
    planner: &mut Planner<'_>,
    rate: Option<f64>,
    tally: &Arc<Tally>,
) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    let mut queues = Vec::new();
    for place in tills {
        let mut of_place = Vec::new();
        for till in place {
            let capacity = if rate.is_some() { 1 << 16 } else { WAITING_PER_TILL };
            let (sender, receiver) = mpsc::channel(capacity);
            running.spawn(work(till, receiver, tally.clone()));
            of_place.push(sender);
        }
        queues.push(of_place);
    }
    let begin = Instant::now();
    let mut sent: u32 = 0;
    while let Some(planned) = planner.next_sale()? {
        let due = rate.map(|rate| begin + Duration::from_secs_f64(f64::from(sent) / rate));
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        sent += 1;
        let queue = &queues[planned.place][planned.till];
        if queue.send(Queued { planned, due }).await.is_err() || tally.is_hopeless() {
            break;
        }
    }
    drop(queues);
    while let Some(done) = running.join_next().await {
        done.context("a till ended")??;
    }
    Ok(())
}

async fn work(till: Terminal, mut queue: mpsc::Receiver<Queued>, tally: Arc<Tally>) -> anyhow::Result<()> {
    while let Some(Queued { planned, due }) = queue.recv().await {
        let key = planned.sale.sale_id.to_string();
        let due = due.unwrap_or_else(Instant::now);
        let outcome = till.send(&planned.sale, &key).await?;
        tally.took(due.elapsed());
        match (planned.expect, outcome) {
            (Expect::Sold, Outcome::Sold(sold)) => tally.sold(planned.sale.total_minor, sold.replayed),
            (Expect::SoldTwice, Outcome::Sold(first)) => {
                tally.sold(planned.sale.total_minor, first.replayed);
                match till.send(&planned.sale, &key).await? {
                    Outcome::Sold(second) if second.replayed && second.body == first.body => tally.replayed(),
                    other => tally.unexpected(&planned, &format!("sent twice, then: {other:?}")),
                }
            }
            (Expect::Refused(how), Outcome::Refused(problem)) => {
                let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::IM_A_TEAPOT);
                let is_taken = tally.is_resumed && problem.code == "sequence_reuse";
                if is_taken || is_right(how, status, &problem.code) {
                    tally.refused(&problem.code);
                } else {
                    tally.unexpected(&planned, &format!("refused as {status} {}: {}", problem.code, problem.detail));
                }
            }
            (_, other) => tally.unexpected(&planned, &brief(&other)),
        }
    }
    Ok(())
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Sold(_) => "committed".to_owned(),
        Outcome::Refused(problem) => format!(
            "refused as {} {}: {} {:?}",
            problem.status,
            problem.code,
            problem.detail,
            problem.errors.iter().map(|error| (&error.pointer, &error.code)).take(3).collect::<Vec<_>>()
        ),
        Outcome::Unknown(what) => format!("unknown: {what}"),
    }
}

/// Whether a refusal is the one this mistake must get.
fn is_right(how: Refusal, status: StatusCode, code: &str) -> bool {
    match how {
        Refusal::WrongTotal => status == 422 && code == "total_mismatch",
        Refusal::UnknownVariant => status == 422 && code == "unknown_variant",
        Refusal::OtherLocation => status == 403,
        Refusal::TendersShort => status == 422 && code == "tenders_do_not_add_up",
        Refusal::OtherMarket => status == 422 && code == "no_price",
        Refusal::ZeroQuantity => status == 422 && code == "invalid_value",
        // with a single location the stranger is nobody at all
        Refusal::CashierOfAnotherLocation => status == 403 || status == 422 && code == "unknown_cashier",
    }
}
