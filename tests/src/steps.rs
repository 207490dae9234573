//! The parts of long tests, noted as they end: `./dev test` shows where its time went.

#![expect(
    clippy::disallowed_methods,
    reason = "where `./dev test` wants them noted is no configuration of the platform"
)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Environment variable naming the file that steps are noted in.
pub const STEPS_VARIABLE: &str = "VORCA_TEST_STEPS";

/// Something that took its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub name: String,
    pub seconds: f64,
}

impl Step {
    pub fn new(name: impl Into<String>, took: Duration) -> Step {
        Step { name: name.into(), seconds: took.as_secs_f64() }
    }
}

/// Runs a part of a test and notes, where that is wanted, how long it took. The name begins with that of the test
/// program: `faults: planted bugs`.
pub async fn step<T>(name: &str, part: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = part.await;
    if let Some(file) = std::env::var_os(STEPS_VARIABLE) {
        note(Path::new(&file), &Step::new(name, begun.elapsed()));
    }
    done
}

/// One line per step: programs that run side by side append to the same file.
fn note(file: &Path, step: &Step) {
    let line = format!("{:.3} {}\n", step.seconds, step.name);
    let noted =
        fs::OpenOptions::new().create(true).append(true).open(file).and_then(|mut it| it.write_all(line.as_bytes()));
    if let Err(error) = noted {
        eprintln!("{}: {error}", file.display());
    }
}

/// What was noted in a file; nothing when there is none.
pub fn noted(file: &Path) -> Vec<Step> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let read = |line: &str| {
        let (seconds, name) = line.split_once(' ')?;
        Some(Step { name: name.to_owned(), seconds: seconds.parse().ok()? })
    };
    text.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("steps");
        assert_eq!(noted(&file), []);
        let steps = [("faults: a b", 1500), ("it", 20)].map(|(name, ms)| Step::new(name, Duration::from_millis(ms)));
        steps.iter().for_each(|step| note(&file, step));
        assert_eq!(noted(&file), steps);
    }
}
