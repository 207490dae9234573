//! What a verification found, for people and as JSON.

use serde::Serialize;

/// At most this many differing ids are named per check; the count is always whole.
const NAMED: usize = 20;

/// One invariant over one pair of stores.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Number of the invariant, for instance `I6`.
    pub id: &'static str,
    pub claim: &'static str,
    /// Rows, records or entities that were compared.
    pub compared: u64,
    pub differing: u64,
    /// The first differing ids with what differs.
    pub named: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub checks: Vec<Check>,
    /// Facts worth knowing that are no violation, such as gaps in a terminal's numbers.
    pub notes: Vec<String>,
}

impl Report {
    /// Records the outcome of one check.
    pub fn add(&mut self, id: &'static str, claim: &'static str, compared: u64, differing: Vec<String>) {
        let count = differing.len() as u64;
        let named = differing.into_iter().take(NAMED).collect();
        self.checks.push(Check { id, claim, compared, differing: count, named });
    }

    /// True when every check compared without a difference.
    pub fn agrees(&self) -> bool {
        self.checks.iter().all(|check| check.differing == 0)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for check in &self.checks {
            let mark = if check.differing == 0 { "ok " } else { "DIFFERS" };
            writeln!(f, "{mark:<8}{:<5}{} ({} compared)", check.id, check.claim, check.compared)?;
            for id in &check.named {
                writeln!(f, "             {id}")?;
            }
            if check.differing > check.named.len() as u64 {
                writeln!(f, "             ... and {} more", check.differing - check.named.len() as u64)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note    {note}")?;
        }
        let bad = self.checks.iter().filter(|check| check.differing > 0).count();
        match bad {
            0 => write!(f, "All {} checks agree.", self.checks.len()),
            _ => write!(f, "{bad} of {} checks differ.", self.checks.len()),
        }
    }
}
