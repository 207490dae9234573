//! `./dev attack`: every row of the attack matrix against a running platform, through its real doors: the HTTP port, raw
//! sockets, Kafka, Postgres. [`rows`] is the list; a file per theme holds what is tried.

mod ask;
mod bodies;
mod coupons;
pub mod fuzz;
pub mod ground;
mod idempotency;
mod money;
mod outside;
mod points;
mod records;
mod refresh;
mod returns;
pub mod rows;
mod scope;
mod second_factor;
mod sign_in;
mod sockets;
mod texts;
mod timing;
mod tokens;
pub mod trial;

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::StreamExt as _;
use serde::Serialize;

use ground::{Form, Ground};
use rows::{Row, State, Try};
use trial::{Attempt, Trial};

/// A node goes on believing a token that it has looked up for a second.
const REMEMBERED: Duration = Duration::from_millis(1_300);
/// Rows under way at once; each calls from addresses of its own and makes people and tills of its own.
const AT_ONCE: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Held,
    Failed,
    /// Its feature does not exist yet.
    Waits,
    /// Part of the full form only.
    Left,
}

/// What became of one row.
#[derive(Debug, Serialize)]
pub struct RowReport {
    /// `A1`
    pub row: String,
    pub what: &'static str,
    pub outcome: Outcome,
    /// What came back, each kind with its number; what it waits for.
    pub came: String,
    pub seconds: f64,
    pub attempts: Vec<Attempt>,
}

impl RowReport {
    fn resting(row: &Row, outcome: Outcome, came: &str) -> RowReport {
        let came = came.to_owned();
        RowReport { row: name(row), what: row.what, outcome, came, seconds: 0.0, attempts: Vec::new() }
    }

    pub fn wrong(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.wrong.is_some())
    }
}

fn name(row: &Row) -> String {
    format!("A{}", row.number)
}

/// Tries these rows, or all when none is named, and says of each what became of it, in the order of the matrix.
pub async fn run(ground: &Ground, wanted: &[u8]) -> Vec<RowReport> {
    let rows = rows::ROWS.iter().filter(|row| wanted.is_empty() || wanted.contains(&row.number));
    let (mut measured, mut tried, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match row.state {
            State::Waits(feature) => reports.push(RowReport::resting(row, Outcome::Waits, feature)),
            State::Measured(_) if ground.form == Form::Short => {
                reports.push(RowReport::resting(row, Outcome::Left, "the full form tries it"));
            }
            State::Tried(attack) => tried.push(attempt(ground, row, attack)),
            State::Measured(attack) => measured.push(attempt(ground, row, attack)),
        }
    }
    reports.extend(futures::stream::iter(tried).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
    // What measures has the machine for itself.
    for measuring in measured {
        reports.push(measuring.await);
    }
    reports.sort_by_key(|report| rows::ROWS.iter().position(|row| name(row) == report.row));
    reports
}

async fn attempt(ground: &Ground, row: &Row, attack: Try) -> RowReport {
    let (begun, mut trial) = (Instant::now(), Trial::default());
    let tried: Result<()> = attack(ground, &mut trial).await;
    if let Err(error) = tried {
        trial.note("the attack itself", "it could not be made", Some(format!("{error:#}")));
    }
    let outcome = if trial.has_held() { Outcome::Held } else { Outcome::Failed };
    RowReport {
        row: name(row),
        what: row.what,
        outcome,
        came: trial.came(),
        seconds: begun.elapsed().as_secs_f64(),
        attempts: trial.attempts,
    }
}

/// A line per row, and below a failed one what was wrong.
pub fn print(reports: &[RowReport]) {
    for report in reports {
        let outcome = match report.outcome {
            Outcome::Held => "held",
            Outcome::Failed => "FAILED",
            Outcome::Waits => "waits",
            Outcome::Left => "left out",
        };
        let came = if report.outcome == Outcome::Waits { format!("for {}", report.came) } else { report.came.clone() };
        println!("{:<4} {outcome:<8} {}\n              {}", report.row, report.what, shortened(&came));
        for attempt in report.wrong() {
            println!("              ! {}: {}", attempt.what, attempt.wrong.as_deref().unwrap_or_default());
        }
    }
    let count = |outcome: Outcome| reports.iter().filter(|report| report.outcome == outcome).count();
    let attempts: usize = reports.iter().map(|report| report.attempts.len()).sum();
    println!(
        "{attempts} attempts in {} rows: {} held, {} FAILED; {} wait for their feature, {} left to the full form",
        reports.len(),
        count(Outcome::Held),
        count(Outcome::Failed),
        count(Outcome::Waits),
        count(Outcome::Left)
    );
}

fn shortened(text: &str) -> String {
    const CHARS: usize = 150;
    if text.chars().count() <= CHARS {
        return text.to_owned();
    }
    text.chars().take(CHARS).chain(" ...".chars()).collect()
}
