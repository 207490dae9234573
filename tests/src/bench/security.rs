//! What the boundary costs a request: the API beside itself with one part switched off, in alternating pairs on one
//! database; what sealing costs; and whether a flood of log-ins slows tills.

mod flood;
mod side;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::load::prepared;
use super::machine::{median, service_cpu};
use super::shop::{Shop, Spread};
use super::{Options, Ratio, Stage};
use crate::stack::Service;
use flood::FloodReport;
use side::Side;

/// Fewer pairs say nothing about a hundredth.
const PAIRS_MIN: usize = 9;
const SECONDS: u64 = 4;
/// Requests in flight; as many in every run, so that batches of the lanes are alike.
const WAITING: usize = 64;
/// More requests a second than this machine can answer, of either kind.
const SALES_MAX: usize = 4_000;
const READINGS_MAX: usize = 30_000;

/// A part and what it costs.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    pub of: &'static str,
    /// CPU with it by CPU without it.
    pub ratio: Ratio,
    pub pairs: usize,
    /// CPU microseconds a request, API and Postgres, medians.
    pub with_us: f64,
    pub without_us: f64,
    pub goal: Option<f64>,
}

/// What the worker and Postgres take to seal what sales have left.
#[derive(Debug, Clone, Serialize)]
pub struct Sealing {
    pub rows: i64,
    pub us_a_row: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct SecurityReport {
    pub costs: Vec<Cost>,
    pub sealing: Sealing,
    pub flood: FloodReport,
}

/// What a run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Sale,
    /// A location, read by its till: the cheapest request there is behind a token.
    Reading,
}

/// Name, switch, kind of request, goal. The first is the same API twice: how far equal things differ here.
const PARTS: [(&str, &str, Request, Option<f64>); 5] = [
    ("the same twice, a sale", "", Request::Sale, None),
    ("a token seen before, reading a location", "authentication", Request::Reading, Some(1.10)),
    ("a token seen before, a sale", "authentication", Request::Sale, Some(1.10)),
    ("the card filter, a sale", "card_filter", Request::Sale, Some(1.05)),
    ("the audit row, a sale", "audit", Request::Sale, Some(1.05)),
];

pub async fn measure(stage: &Stage, options: &Options) -> Result<SecurityReport> {
    stage.start(&[Service::Api]).await?;
    let mut shop = Shop::open(&stage.stack.endpoints()?).await.context("making the business")?;
    // The platform's own API stays for tokens; the sides that are measured stand beside it.
    let whole = Side::start(stage, "").await?;
    for _ in 0..2 {
        run(stage, &mut shop, &whole, Request::Sale).await?;
    }
    let mut costs = Vec::new();
    for (of, switch, request, goal) in PARTS {
        let without = Side::start(stage, switch).await?;
        run(stage, &mut shop, &without, request).await?;
        let pairs = options.pairs.max(PAIRS_MIN);
        costs.push(Cost { of, goal, ..compare(stage, &mut shop, [&whole, &without], request, pairs).await? });
    }
    let sealing = sealing(stage).await?;
    drop(whole);
    let flood = flood::measure(stage, &mut shop, options.pairs).await?;
    Ok(SecurityReport { costs, sealing, flood })
}

/// Alternating pairs; which side begins alternates too.
async fn compare(stage: &Stage, shop: &mut Shop, sides: [&Side; 2], request: Request, pairs: usize) -> Result<Cost> {
    let mut us = [Vec::new(), Vec::new()];
    for n in 0..pairs {
        for at in [n % 2, (n + 1) % 2] {
            us[at].push(run(stage, shop, sides[at], request).await?);
        }
        eprintln!("  pair {}: {:.1} us with it, {:.1} us without", n + 1, us[0][n], us[1][n]);
    }
    let ratio = Ratio::of(us[0].iter().zip(&us[1]).map(|(with, without)| with / without));
    let [with_us, without_us] = us.map(median);
    Ok(Cost { of: "", ratio, pairs, with_us, without_us, goal: None })
}

/// CPU microseconds a request, API and Postgres.
async fn run(stage: &Stage, shop: &mut Shop, side: &Side, request: Request) -> Result<f64> {
    shop.renew_tokens().await?;
    let seconds = SECONDS as usize;
    let (shots, status) = match request {
        Request::Sale => (shop.shots(SALES_MAX * seconds, Spread::Uniform)?, 201),
        Request::Reading => (shop.readings(READINGS_MAX * seconds), 200),
    };
    stage.checkpoint().await?;
    let used = || Ok::<f64, anyhow::Error>(side.cpu() + service_cpu(&stage.stack, Service::Postgres)?);
    let before = used()?;
    let load = side.load()?.expecting(status);
    let done = load.saturate(WAITING, Duration::from_secs(SECONDS), prepared(shots)).await?;
    Ok((used()? - before) * 1e6 / done.sold as f64)
}

/// Has everything sealed that the runs before have left, with nothing else going on.
async fn sealing(stage: &Stage) -> Result<Sealing> {
    let unsealed =
        "select count(*) from audit_log a where not exists (select from audit_seals s where s.audit_id = a.audit_id)";
    let count =
        async || -> Result<i64> { Ok(sqlx::query_scalar(unsealed).fetch_one(&mut stage.connect().await?).await?) };
    let rows = count().await?;
    ensure!(rows > 0, "nothing waits for its seal");
    let postgres = service_cpu(&stage.stack, Service::Postgres)?;
    stage.start(&[Service::Worker]).await?;
    let sealed = "select count(*) from audit_seals";
    let mut last = -1_i64;
    // Counting what is sealed is cheap beside sealing; the anti-join is not.
    loop {
        let now: i64 = sqlx::query_scalar(sealed).fetch_one(&mut stage.connect().await?).await?;
        if now == last && count().await? == 0 {
            break;
        }
        last = now;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let worker = service_cpu(&stage.stack, Service::Worker)?;
    let used = service_cpu(&stage.stack, Service::Postgres)? - postgres + worker;
    stage.stop(&[Service::Worker]).await?;
    Ok(Sealing { rows, us_a_row: used * 1e6 / rows as f64 })
}
