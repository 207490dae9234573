//! Everything at once: tills at a fixed rate for minutes, with a day's sales already in the slices that the new ones
//! fall into, and each hop watched: REST latency, outbox, folds, ClickHouse, memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::Connection;

use super::load::{Load, LoadResult, prepared};
use super::machine::{median, service_cpu};
use super::shop::{Shop, Spread, as_it_happens};
use super::{Options, Stage};
use crate::demo::{drain, progress::Watch};
use crate::stack::{Service, resident};

/// How often KPIs, lag and memory are looked at.
const KPI_EVERY: Duration = Duration::from_millis(250);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Sales made at once while the day is filled.
const FILL: usize = 20_000;

#[derive(Debug, Clone, Serialize)]
pub struct PipelineReport {
    pub already_there: i64,
    pub fill_seconds: f64,
    pub load: LoadResult,
    /// From a commit to the first answer of `GET /reports/kpis` that counts it.
    pub kpi_p50_ms: f64,
    pub kpi_p99_ms: f64,
    pub kpi_max_ms: f64,
    pub lag: Vec<Lag>,
    /// From the last sale to nothing being on its way.
    pub drained_seconds: Option<f64>,
    pub processes: Vec<Process>,
    pub verify_agrees: bool,
}

/// How far behind at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Lag {
    pub second: f64,
    pub outbox_acts: i64,
    pub processor_records: f64,
    pub clickhouse_s: f64,
}

/// One process over the run.
#[derive(Debug, Clone, Serialize)]
pub struct Process {
    pub name: &'static str,
    /// Medians of the first and the last third, and the highest of all, MB.
    pub first_mb: f64,
    pub last_mb: f64,
    pub max_mb: f64,
    /// CPU microseconds a sale.
    pub us: f64,
}

/// Fills the day, then sells at `options.rate` for `options.minutes`.
pub async fn measure(stage: &Stage, options: &Options) -> Result<PipelineReport> {
    let everything: Vec<Service> = Service::OURS.into();
    stage.start(&everything).await?;
    let endpoints = stage.stack.endpoints()?;
    let mut shop = Shop::open(&endpoints).await.context("making the business")?;
    let load = Load::new(&endpoints.api)?;
    let begin = Instant::now();
    fill(stage, options, &mut shop, load).await?;
    let fill_seconds = begin.elapsed().as_secs_f64();
    eprintln!("  {} sales filled in {fill_seconds:.0} s; waiting for ClickHouse", options.fill);
    let watch = Watch::new(&endpoints)?;
    ensure!(drain(&watch, Duration::from_secs(900)).await.is_some(), "the filled day did not reach ClickHouse");
    let already_there = all_counted(stage).await?;

    shop.renew_tokens().await?;
    let shop = Arc::new(Mutex::new(shop));
    let started = Utc::now();
    let cpu_before = cpu(stage)?;
    let stop = tokio_util::sync::CancellationToken::new();
    let kpis = tokio::spawn(watch_kpis(stage.clone(), stop.clone()));
    let looks = tokio::spawn(watch_all(stage.clone(), Watch::new(&endpoints)?, stop.clone()));
    let sold = load.open(options.rate, Duration::from_secs(options.minutes * 60), as_it_happens(shop)).await?;
    eprintln!("  sold {:.0}/s, p50 {:.1} ms, p99 {:.1} ms", sold.sold_per_s, sold.p50_ms, sold.p99_ms);
    let drained = drain(&watch, Duration::from_secs(300)).await;
    // One more look so that the last commits are seen.
    tokio::time::sleep(KPI_EVERY * 4).await;
    stop.cancel();
    let (kpis, (lag, memory)) = (kpis.await??, looks.await??);
    let cpu_after = cpu(stage)?;
    let fresh = freshness(&commits(stage, started).await?, &kpis, already_there)?;
    let at = |q: f64| fresh[((fresh.len() as f64 * q) as usize).min(fresh.len() - 1)];
    let processes = processes(&memory, &cpu_before, &cpu_after, sold.sold);
    Ok(PipelineReport {
        already_there,
        fill_seconds,
        kpi_p50_ms: at(0.5),
        kpi_p99_ms: at(0.99),
        kpi_max_ms: at(1.0),
        lag,
        drained_seconds: drained.map(|took| took.as_secs_f64()),
        processes,
        verify_agrees: stage.verify().await?,
        load: sold,
    })
}

/// `options.fill` sales of today, spread over its hours so far, as fast as they are taken.
async fn fill(stage: &Stage, options: &Options, shop: &mut Shop, load: Load) -> Result<()> {
    let now = Utc::now();
    let midnight = now.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let span = (now - midnight).max(TimeDelta::minutes(30));
    let mut left = options.fill;
    while left > 0 {
        let count = left.min(FILL);
        shop.renew_tokens().await?;
        let mut shots = Vec::with_capacity(count);
        for n in 0..count {
            let at = now - TimeDelta::milliseconds(span.num_milliseconds() * n as i64 / count as i64);
            shots.push(shop.shot(Spread::Uniform, at)?);
        }
        load.saturate(128, Duration::from_secs(600), prepared(shots)).await?;
        left -= count;
        eprintln!("  filling: {left} left, outbox {}", stage.waiting_acts().await?);
    }
    Ok(())
}

/// Waits until the KPIs count every document there is; how many.
async fn all_counted(stage: &Stage) -> Result<i64> {
    let sql = "select count(*) from documents";
    let there: i64 = sqlx::query_scalar(sql).fetch_one(&mut stage.connect().await?).await?;
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        let counted = kpi_documents(stage).await?;
        if counted == there {
            return Ok(there);
        }
        ensure!(Instant::now() < deadline, "the KPIs count {counted} of {there} documents");
        tokio::time::sleep(KPI_EVERY).await;
    }
}

/// Documents of yesterday to tomorrow as the KPI route counts them (business days of all zones).
async fn kpi_documents(stage: &Stage) -> Result<i64> {
    #[derive(serde::Deserialize)]
    struct Item {
        documents: i64,
    }
    #[derive(serde::Deserialize)]
    struct Report {
        items: Vec<Item>,
    }
    let today = Utc::now().date_naive();
    let path =
        format!("/reports/kpis?group_by=day&from={}&to={}", today - TimeDelta::days(1), today + TimeDelta::days(1));
    let report: Report = stage.owner.get(&path).await?;
    Ok(report.items.iter().map(|item| item.documents).sum())
}

type Seen = Vec<(DateTime<Utc>, i64)>;

async fn watch_kpis(stage: Stage, stop: tokio_util::sync::CancellationToken) -> Result<Seen> {
    let mut seen = Vec::new();
    let mut ticks = tokio::time::interval(KPI_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let documents = kpi_documents(&stage).await?;
        // The moment the answer was there: what it counts was visible by then.
        seen.push((Utc::now(), documents));
    }
    Ok(seen)
}

type Memory = BTreeMap<&'static str, Vec<f64>>;

async fn watch_all(
    stage: Stage,
    watch: Watch,
    stop: tokio_util::sync::CancellationToken,
) -> Result<(Vec<Lag>, Memory)> {
    let (mut lag, mut memory) = (Vec::new(), Memory::new());
    let begin = Instant::now();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let behind = watch.behind().await;
        lag.push(Lag {
            second: begin.elapsed().as_secs_f64(),
            outbox_acts: behind.outbox,
            processor_records: behind.processors.unwrap_or(-1.0),
            clickhouse_s: behind.clickhouse_s.unwrap_or(-1.0),
        });
        for it in stage.stack.processes()? {
            if let (true, Some(bytes)) = (Service::OURS.contains(&it.service), it.process.and_then(resident)) {
                memory.entry(it.service.name()).or_default().push(bytes as f64 / f64::from(1 << 20));
            }
        }
    }
    Ok((lag, memory))
}

fn cpu(stage: &Stage) -> Result<BTreeMap<&'static str, f64>> {
    Service::all().map(|service| Ok((service.name(), service_cpu(&stage.stack, service)?))).collect()
}

fn processes(
    memory: &Memory,
    before: &BTreeMap<&'static str, f64>,
    after: &BTreeMap<&'static str, f64>,
    sales: u64,
) -> Vec<Process> {
    let of = |name: &'static str| {
        let seen = memory.get(name).map_or(&[][..], Vec::as_slice);
        let third = seen.len() / 3;
        Process {
            name,
            first_mb: median(seen[..third].iter().copied()),
            last_mb: median(seen[seen.len() - third..].iter().copied()),
            max_mb: seen.iter().copied().fold(0.0, f64::max),
            us: (after[name] - before[name]) * 1e6 / sales as f64,
        }
    };
    Service::all().map(|service| of(service.name())).collect()
}

/// Commit times since `started`, in order.
async fn commits(stage: &Stage, started: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>> {
    let mut conn = sqlx::PgConnection::connect(&stage.superuser()?).await?;
    let sql = "select recorded_at from documents where recorded_at >= $1 order by 1";
    Ok(sqlx::query_scalar(sql).bind(started).fetch_all(&mut conn).await?)
}

/// Milliseconds from each commit to the first look that counted as many, sorted.
fn freshness(commits: &[DateTime<Utc>], seen: &[(DateTime<Utc>, i64)], already_there: i64) -> Result<Vec<f64>> {
    let mut looks = seen.iter().peekable();
    let mut fresh = Vec::with_capacity(commits.len());
    for (n, commit) in commits.iter().enumerate() {
        while looks.peek().is_some_and(|(_, counted)| counted - already_there <= n as i64) {
            looks.next();
        }
        let (at, _) = looks.peek().context("the KPIs never counted all commits")?;
        fresh.push((*at - *commit).num_microseconds().unwrap_or(i64::MAX).max(0) as f64 / 1_000.0);
    }
    ensure!(!fresh.is_empty(), "no commit was seen");
    fresh.sort_by(f64::total_cmp);
    Ok(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_fresh_when_the_first_look_counts_it() {
        let at = |ms: i64| DateTime::from_timestamp_millis(1_000_000 + ms).unwrap();
        let seen = [(at(100), 5), (at(200), 6), (at(500), 8)];
        assert_eq!(freshness(&[at(50), at(60), at(210)], &seen, 5).unwrap(), [150.0, 290.0, 440.0]);
        assert!(freshness(&[at(50), at(60), at(70), at(80)], &seen, 5).is_err());
    }
}
