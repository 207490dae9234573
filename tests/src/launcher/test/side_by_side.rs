//! Test programs side by side, as far as the machine carries it: they mostly wait. What each prints is shown when it
//! ends, whole; a line every few seconds says what runs meanwhile.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::programs::Program;
use crate::stack::die_with_this_thread;
use crate::steps::Step;

const LOOK: Duration = Duration::from_millis(100);
const SAY: Duration = Duration::from_secs(15);
/// Tests of one program at a time, beyond one a core: some of them sit and wait for a minute.
const TESTS_BEYOND: usize = 1;
/// Memory of a whole platform, with what its tests need.
const PLATFORM_BYTES: u64 = 1_400 << 20;

/// How many may run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    programs: usize,
    /// Of these, with a platform of their own.
    platforms: usize,
}

impl Room {
    /// What this machine has room for, beside the platform that is up: each keeps most of a core busy. One more would only
    /// make all of them slow.
    pub fn of_machine() -> Room {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let free =
            text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().split(' ').next()?.parse().ok());
        Room::of(cores, free.unwrap_or(0u64) << 10)
    }

    fn of(cores: usize, free_bytes: u64) -> Room {
        let platforms = usize::try_from(free_bytes / PLATFORM_BYTES).unwrap_or(usize::MAX);
        let programs = cores.max(2);
        Room { programs, platforms: platforms.clamp(1, programs) }
    }
}

/// A program that ended.
pub struct Ended {
    pub step: Step,
    pub has_succeeded: bool,
    /// Tests that failed, by name.
    pub failed: Vec<String>,
    /// All that it printed.
    pub log: PathBuf,
}

struct Running {
    program: Program,
    child: Child,
    begun: Instant,
    log: PathBuf,
}

impl Running {
    fn start(program: Program, environment: &[(String, String)], logs: &Path) -> Result<Running> {
        let log = logs.join(program.name.replace([' ', '/'], "-")).with_extension("log");
        let file = fs::File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut command = program.command();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("RUST_TEST_THREADS", (cores + TESTS_BEYOND).to_string());
        command.envs(environment.iter().cloned()).stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        die_with_this_thread(&mut command);
        let child = command.spawn().with_context(|| format!("starting {}", program.name))?;
        Ok(Running { program, child, begun: Instant::now(), log })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its name, and how many of its tests have ended.
    fn progress(&self) -> String {
        let ended = self.text().lines().filter(|line| verdict(line).is_some()).count();
        format!("{} ({ended} ended)", self.program.name)
    }
}

/// Name of a test and whether it passed, from the line that says so.
fn verdict(line: &str) -> Option<(&str, bool)> {
    let (name, said) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match said {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

/// Runs them all, each with this environment and its output in a file of its own in `logs`.
pub fn run(programs: Vec<Program>, environment: &[(String, String)], logs: &Path, room: Room) -> Result<Vec<Ended>> {
    let (begun, mut said) = (Instant::now(), Instant::now());
    let (mut waiting, mut running, mut ended) = (programs, Vec::<Running>::new(), Vec::new());
    while !waiting.is_empty() || !running.is_empty() {
        while let Some(next) = next(&waiting, &running, room) {
            running.push(Running::start(waiting.remove(next), environment, logs)?);
        }
        for at in (0..running.len()).rev() {
            if let Some(status) = running[at].child.try_wait()? {
                ended.push(end(&running.swap_remove(at), status.success())?);
                said = Instant::now();
            }
        }
        if said.elapsed() >= SAY {
            said = Instant::now();
            let names: Vec<String> = running.iter().map(Running::progress).collect();
            let (seconds, waiting) = (begun.elapsed().as_secs(), waiting.len());
            eprintln!("  {seconds:>4} s: {waiting} programs wait, {} ended, now: {}", ended.len(), names.join(", "));
        }
        std::thread::sleep(LOOK);
    }
    Ok(ended)
}

/// The first that may begin.
fn next(waiting: &[Program], running: &[Running], room: Room) -> Option<usize> {
    let platforms = running.iter().filter(|it| it.program.has_platform()).count();
    let has_room = |it: &Program| running.len() < room.programs && (!it.has_platform() || platforms < room.platforms);
    waiting.iter().position(has_room)
}

/// Shows all that a program printed.
fn end(it: &Running, has_succeeded: bool) -> Result<Ended> {
    let (text, took) = (it.text(), it.begun.elapsed());
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n     {} ({:.1} s)\n{}", it.program.name, took.as_secs_f64(), text.trim_end())?;
    let verdicts = text.lines().filter_map(verdict);
    let failed = verdicts.filter(|(_, has_passed)| !has_passed).map(|(name, _)| name.to_owned()).collect();
    Ok(Ended { step: Step::new(&it.program.name, took), has_succeeded, failed, log: it.log.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_run_as_there_are_cores_and_as_many_platforms_as_memory_holds() {
        assert_eq!(Room::of(1, 1 << 30), Room { programs: 2, platforms: 1 });
        assert_eq!(Room::of(2, 3 << 30), Room { programs: 2, platforms: 2 });
        assert_eq!(Room::of(8, 3 << 30), Room { programs: 8, platforms: 2 });
        assert_eq!(Room::of(8, 64 << 30), Room { programs: 8, platforms: 8 });
    }

    #[test]
    fn a_line_of_a_test_program_says_which_test_has_ended_how() {
        assert_eq!(verdict("test lanes::a_sale ... ok"), Some(("lanes::a_sale", true)));
        assert_eq!(verdict("test a - should panic ... FAILED"), Some(("a - should panic", false)));
        assert_eq!(verdict("test it has been running for over 60 seconds"), None);
        assert_eq!(verdict("test result: ok. 3 passed"), None);
    }
}
