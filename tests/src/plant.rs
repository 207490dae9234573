//! `./dev plant`: leaves, one after another, the trace that a bug would leave in the stores, and shows that `verify`
//! names it. A checker that cannot fail proves nothing.
//!
//! Works on a throwaway platform that has sold something; nothing is healed in between, so each bug must be named by
//! its own ids.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::chaos::{DRAIN, verify};
use crate::stack::Stack;

mod traces;

use traces::Victim;

/// What was planted does not heal by waiting, and nearly all of it shows at once: only what a process has to meet first (a
/// record nobody can read) may need another look.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// One planted bug and what `verify` said.
#[derive(Debug, Serialize)]
pub struct Planted {
    pub bug: &'static str,
    /// The invariant that has to name it.
    pub expected: &'static str,
    /// What was named, or nothing: the bug went unseen.
    pub named: Option<String>,
}

type Bug = (&'static str, &'static str);

/// Bugs with the invariant that has to catch each.
const BUGS: &[Bug] = &[
    ("stock moved outside the sale's transaction", "I6"),
    ("a version is one too high", "I6"),
    ("dedupe skipped: a sale moved its stock twice", "I3"),
    ("the answer was given before COMMIT, and the commit was lost", "I1"),
    ("an outbox row was marked and never published", "I12"),
    ("a document has no outbox row", "I10"),
    ("a line's amount does not add up to its document", "I4"),
    ("points granted without a lot", "I9"),
    ("an event went to the wrong partition", "I13"),
    ("a processor went on from the last record instead of the newest", "I14"),
    ("an alert that follows from no movement", "I16"),
    ("a stale write to Redis", "I14"),
    ("a sale counted twice in ClickHouse", "I17"),
    ("a KPI slice added to instead of replaced", "I18"),
    ("a record nobody could read was passed over without a dead letter", "I26"),
    ("a day of products counted twice in its mart", "I18"),
    ("a row of the audit log was changed afterwards", "I19"),
    ("an act left no row in the audit log", "I21"),
];

/// Plants every bug and verifies after each. `journal` is the tills' journal of this platform.
pub async fn run(stack: &Stack, journal: &Path) -> Result<Vec<Planted>> {
    let mut victim = Victim::of(stack).await?;
    let (clean, report) = verify(stack, journal, DRAIN).await?;
    ensure!(clean, "the platform disagrees before anything is planted: {report}");
    let mut planted = Vec::new();
    for (number, (bug, expected)) in BUGS.iter().enumerate() {
        let trace = victim.plant(number, bug, journal).await.with_context(|| format!("planting: {bug}"))?;
        let deadline = Instant::now() + SEEN_WITHIN;
        let named = loop {
            let (_, report) = verify(stack, journal, Duration::ZERO).await?;
            let named = named(&report, expected, &trace);
            if named.is_some() || Instant::now() > deadline {
                break named;
            }
        };
        eprintln!(
            "  {} {expected:<4} {bug}{}",
            if named.is_some() { "caught" } else { "MISSED" },
            match &named {
                Some(text) => format!("\n         {text}"),
                None => String::new(),
            }
        );
        planted.push(Planted { bug, expected, named });
    }
    Ok(planted)
}

/// The line of the report that names `trace` under the expected invariant.
fn named(report: &serde_json::Value, expected: &str, trace: &str) -> Option<String> {
    let checks = report["checks"].as_array()?;
    let lines = checks.iter().filter(|check| check["id"] == expected).flat_map(|check| check["named"].as_array());
    lines.flatten().filter_map(|line| line.as_str()).find(|line| line.contains(trace)).map(str::to_owned)
}
