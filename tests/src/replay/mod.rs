//! `./dev replay`: sells a retailer's real history through the REST API as its tills would have.
//!
//! Planning (cells, rows, documents, order) is pure and sorts on disk; sending keeps its progress, so that
//! an import can be stopped at any time and run again without selling anything twice.

pub mod cells;
pub mod lines;
pub mod make;
pub mod map;
pub mod plan;
pub mod progress_log;
pub mod reconcile;
pub mod rows;
pub mod send;
pub mod sort;
pub mod source;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::Identity;
use crate::demo::owner;
use crate::endpoints::{Endpoints, write_private};
use crate::session::Session;
use map::Map;
use plan::{Files, Plan};
use progress_log::ProgressLog;
use reconcile::Reconciliation;
use rows::Refused;
use send::{Counts, Import};

/// What an import did.
#[derive(Debug)]
pub struct ReplayReport {
    pub plan: Plan,
    pub sold: u64,
    pub refused_documents: u64,
    pub selling: Duration,
    /// Where the refused rows stand.
    pub report: PathBuf,
    /// None when it was stopped before its end.
    pub reconciliation: Option<Reconciliation>,
}

impl ReplayReport {
    /// Sold to the end, and the three sides agree.
    pub fn is_clean(&self) -> bool {
        self.reconciliation.as_ref().is_some_and(|found| found.differences.is_empty())
    }
}

/// Imports `file` by the map at `map_path`. Run again, it goes on where it stopped.
pub async fn run(endpoints: &Endpoints, file: &Path, map_path: &Path) -> anyhow::Result<ReplayReport> {
    let map_text = std::fs::read_to_string(map_path).with_context(|| format!("cannot read {}", map_path.display()))?;
    let map = Map::parse(&map_text).with_context(|| format!("map {}", map_path.display()))?;
    let directory = endpoints.run_dir.join("replay").join(&map.name);
    let files = Files(directory.clone());
    eprintln!("  reading {}", file.display());
    let plan = {
        let (file, map, map_text, files) = (file.to_owned(), map.clone(), map_text.clone(), Files(directory.clone()));
        tokio::task::spawn_blocking(move || plan::find_or_make(&file, &map, &map_text, &files)).await??
    };
    eprintln!(
        "  {} rows: {} documents at {} locations; {} rows cannot be sold",
        plan.rows,
        plan.documents,
        plan.locations.len(),
        plan.refused_rows
    );
    let owner = owner(endpoints)?;
    let ids = make::make(&owner, &map, &plan, &files, &|step| eprintln!("  made {step}")).await?;
    let log = ProgressLog::open(&directory.join("progress.jsonl"), &plan.fingerprint)?;
    let device_secret = device_secret(&directory)?;
    let (counts, stop) = (Counts::default(), AtomicBool::new(false));
    let owner = owner.in_background(Identity::Office(Session::of_owner(endpoints)));
    let import = Arc::new(Import { owner, map, files, ids, device_secret, log, counts, stop });
    let begin = Instant::now();
    // ends with this function, however that ends
    let mut watcher = tokio::task::JoinSet::new();
    watcher.spawn(watch(import.clone(), plan.documents));
    send::send(&import, &plan).await?;
    watcher.abort_all();
    let selling = begin.elapsed();
    let report = directory.join("refused.csv");
    let reconciliation = if import.stop.load(Ordering::Relaxed) {
        None
    } else {
        eprintln!("  comparing file, Postgres and ClickHouse");
        Some(reconcile::reconcile(endpoints, &import.map, &plan, &import.files, &import.log, &report).await?)
    };
    Ok(ReplayReport {
        plan,
        sold: import.counts.sold.load(Ordering::Relaxed),
        refused_documents: import.counts.refused.load(Ordering::Relaxed),
        selling,
        report,
        reconciliation,
    })
}

/// Reads and plans a file without sending anything, and prints what would be sold and refused: the way to
/// get a map right. Needs no platform.
pub fn check(file: &Path, map_path: &Path) -> anyhow::Result<()> {
    let map_text = std::fs::read_to_string(map_path).with_context(|| format!("cannot read {}", map_path.display()))?;
    let map = Map::parse(&map_text).with_context(|| format!("map {}", map_path.display()))?;
    let directory = tempfile::tempdir()?;
    let files = Files(directory.path().join("plan"));
    let plan = plan::find_or_make(file, &map, &map_text, &files)?;
    let mut codes: BTreeMap<String, (u64, Refused)> = BTreeMap::new();
    for row in plan::refused_rows(&files)? {
        let row = row?;
        codes.entry(row.code.clone()).or_insert((0, row)).0 += 1;
    }
    println!("  rows               {:>12}", plan.rows);
    println!("  documents          {:>12}   at {} locations", plan.documents, plan.locations.len());
    println!("  products           {:>12}", plan.variants);
    println!("  customers          {:>12}", plan.members);
    println!("  rows refused       {:>12}", plan.refused_rows);
    for (code, (count, first)) in codes {
        println!("      {code:<24} {count:>8}   line {}: {}", first.line, first.reason);
    }
    Ok(())
}

/// Secret of the devices of this import, made once.
fn device_secret(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join("device-secret");
    match std::fs::read_to_string(&path) {
        Ok(secret) => Ok(secret),
        Err(_) => {
            let secret = format!("{:032x}", rand::random::<u128>());
            write_private(&path, secret.as_bytes())?;
            Ok(secret)
        }
    }
}

/// Shows how far it is; Ctrl-C stops after the documents under way.
async fn watch(import: Arc<Import>, total: u64) {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style =
            ProgressStyle::with_template("  {bar:32.cyan/blue} {pos}/{len} documents  {per_sec:.0}  eta {eta}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(total).with_style(style)
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    let mut said = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            signal = tokio::signal::ctrl_c() => {
                if signal.is_ok() && !import.stop.swap(true, Ordering::Relaxed) {
                    eprintln!("  stopping after the documents under way; run the same command to go on");
                }
            }
        }
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let (done, refused) = (of(&import.counts.done), of(&import.counts.refused));
        match &bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(format!("{refused} refused"));
            }
            None if said.elapsed() >= Duration::from_secs(5) => {
                said = Instant::now();
                eprintln!("  {done}/{total} documents, {refused} refused");
            }
            None => {}
        }
    }
}

/// Prints the result for people.
pub fn print(report: &ReplayReport) {
    let Some(found) = &report.reconciliation else {
        println!("stopped; run the same command to go on");
        return;
    };
    let refused: u64 = found.refused.values().sum();
    println!();
    println!("  rows in the file   {:>12}", report.plan.rows);
    println!("  accepted           {:>12}", found.accepted_rows);
    println!("  refused            {refused:>12}   {}", report.report.display());
    for (code, count) in &found.refused {
        println!("      {code:<24} {count:>8}");
    }
    let (days, paid) = (found.days, found.total.paid_minor);
    if found.differences.is_empty() {
        println!("  paid, minor units  {paid:>12}   equal in file, Postgres and ClickHouse on {days} location days");
    } else {
        println!("  DIFFERENT on {} of {days} location days:", found.differences.len());
        for d in found.differences.iter().take(20) {
            println!(
                "      {} {}  file {} ({} lines)  Postgres {} ({})  ClickHouse {} ({})",
                d.location_id,
                d.day,
                d.file.paid_minor,
                d.file.lines,
                d.postgres.paid_minor,
                d.postgres.lines,
                d.clickhouse.paid_minor,
                d.clickhouse.lines
            );
        }
    }
}
