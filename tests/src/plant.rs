//! `./dev plant`: leaves the traces that bugs would leave in the stores, and shows that `verify` names each. A
//! checker that cannot fail proves nothing.
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

/// Planted before a look: a look takes long, and each bug leaves a trace of its own.
const AT_ONCE: usize = 4;
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
    ("a discount beyond the limit needed no approval", "I21"),
    ("a discount was not counted", "I20"),
    ("a session has two live refresh tokens", "I22"),
    ("points of a lot were spent without an entry", "I9"),
];

/// Plants every bug and verifies after every few. `journal` is the tills' journal of this platform.
pub async fn run(stack: &Stack, journal: &Path) -> Result<Vec<Planted>> {
    let mut victim = Victim::of(stack).await?;
    let (clean, report) = verify(stack, journal, DRAIN).await?;
    ensure!(clean, "the platform disagrees before anything is planted: {report}");
    let (mut planted, mut traces) = (Vec::<Planted>::new(), Vec::new());
    for (number, (bug, expected)) in BUGS.iter().enumerate() {
        let trace = victim.plant(number, bug, journal).await.with_context(|| format!("planting: {bug}"))?;
        let is_same = |(other, left): (&Planted, &String)| other.expected == *expected && *left == trace;
        ensure!(!planted.iter().zip(&traces).any(is_same), "{bug}: {trace} is the trace of another bug");
        traces.push(trace);
        planted.push(Planted { bug, expected, named: None });
        if traces.len() % AT_ONCE == 0 || traces.len() == BUGS.len() {
            let first = number / AT_ONCE * AT_ONCE;
            look(stack, journal, &mut planted[first..], &traces[first..]).await?;
        }
    }
    Ok(planted)
}

/// Verifies until each of these bugs is named by its own trace.
async fn look(stack: &Stack, journal: &Path, planted: &mut [Planted], traces: &[String]) -> Result<()> {
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let (_, report) = verify(stack, journal, Duration::ZERO).await?;
        for (bug, trace) in planted.iter_mut().zip(traces).filter(|(bug, _)| bug.named.is_none()) {
            bug.named = named(&report, bug.expected, trace);
        }
        if planted.iter().all(|bug| bug.named.is_some()) || Instant::now() > deadline {
            break;
        }
    }
    for Planted { bug, expected, named } in planted {
        match named {
            Some(text) => eprintln!("  caught {expected:<4} {bug}\n         {text}"),
            None => eprintln!("  MISSED {expected:<4} {bug}"),
        }
    }
    Ok(())
}

/// The line of the report that names `trace` under the expected invariant.
fn named(report: &serde_json::Value, expected: &str, trace: &str) -> Option<String> {
    let checks = report["checks"].as_array()?;
    let lines = checks.iter().filter(|check| check["id"] == expected).flat_map(|check| check["named"].as_array());
    lines.flatten().filter_map(|line| line.as_str()).find(|line| line.contains(trace)).map(str::to_owned)
}
