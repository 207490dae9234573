//! Processes as the kernel sees them: identified by pid and start time, so that a reused pid is never taken for ours.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A pid with the kernel's start time of that process (clock ticks since boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identified {
    pub pid: i32,
    pub started: u64,
}

impl Identified {
    pub fn of(pid: i32) -> Option<Identified> {
        start_time(pid).map(|started| Identified { pid, started })
    }

    /// Still the same process, and not a zombie?
    pub fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Signals the process and its group (every child of the supervisor leads a group of its own).
    pub fn signal(self, signal: Signal) {
        if self.is_alive() && killpg(Pid::from_raw(self.pid), signal).is_err() {
            // Not a group leader: the process alone. It may have gone meanwhile, which is as good.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// Asks with SIGTERM, insists with SIGKILL, returns once it is gone.
    pub fn end(self, patience: Duration) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT);
        let deadline = Instant::now() + patience;
        while self.is_alive() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal(Signal::SIGKILL);
        while self.is_alive() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Field 22 of `/proc/<pid>/stat`; none for a process that is gone or a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold blanks and parentheses itself.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    match fields.first()? {
        &"Z" | &"X" => None,
        _ => fields.get(19)?.parse().ok(),
    }
}

/// Every process whose working folder is `folder`: how all processes of one Postgres are found, also orphaned ones
/// (its children leave the process group).
pub fn working_in(folder: &Path) -> Vec<Identified> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder))
        .filter_map(Identified::of)
        .collect()
}

/// Resident memory in bytes, for `status`.
pub fn resident(pid: i32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}
