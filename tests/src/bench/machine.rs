//! What the figures were measured on and what they cost: CPU time of processes, the disk's own latency, versions.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::stack::{Service, Stack, postgres_processes, postgres_programs};

/// User and system time of the calling thread.
pub fn thread_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(Duration::ZERO, |usage| {
        let (user, system) = (usage.user_time(), usage.system_time());
        let us = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
        Duration::from_micros(us.max(0) as u64)
    })
}

/// User and system time of a process, its reaped children included, in seconds (resolution 10 ms).
pub fn process_cpu(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rfind(')').map(|end| stat[end + 2..].split(' ').collect()).unwrap_or_default();
    let ticks: u64 = (11..=14).filter_map(|n| fields.get(n)?.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// CPU seconds of a service since its start; Postgres with all its backends.
pub fn service_cpu(stack: &Stack, service: Service) -> Result<f64> {
    if service == Service::Postgres {
        return Ok(postgres_processes(stack.layout()).iter().map(|process| process_cpu(process.pid)).sum());
    }
    let status = stack.processes()?.into_iter().find(|it| it.service == service);
    Ok(status.and_then(|it| it.process).map_or(0.0, |process| process_cpu(process.pid)))
}

/// The disk's own latency of a small durable write, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SyncProbe {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl SyncProbe {
    /// 300 writes of 4 KiB, each with fdatasync, in `folder`.
    pub fn take(folder: &Path) -> Result<SyncProbe> {
        let path = folder.join("sync-probe");
        let mut file = fs::File::create(&path).context("the disk probe")?;
        file.write_all(&[0; 1 << 16])?;
        file.sync_all()?;
        let mut took: Vec<f64> = Vec::new();
        for n in 0..300 {
            let at = Instant::now();
            file.write_all_at(&[n as u8; 4096], (n % 16) * 4096)?;
            file.sync_data()?;
            took.push(at.elapsed().as_secs_f64() * 1_000.0);
        }
        fs::remove_file(&path)?;
        took.sort_by(f64::total_cmp);
        Ok(SyncProbe { p50_ms: took[150], p99_ms: took[297] })
    }
}

/// The machine and what ran on it.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub postgres: String,
    pub commit: String,
    pub rustc: String,
}

impl Machine {
    /// What can be read here; a tool that is missing leaves its field empty.
    pub fn read(checkout: &Path) -> Machine {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory_kib: u64 =
            field("/proc/meminfo", "MemTotal").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
        Machine {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_kib.div_ceil(1 << 20),
            kernel: said(Command::new("uname").arg("-sr")),
            postgres: postgres_programs()
                .map(|programs| said(Command::new(programs.join("postgres")).arg("--version")))
                .unwrap_or_default(),
            commit: said(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(checkout)),
            rustc: said(Command::new("rustc").arg("--version").current_dir(checkout)),
        }
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// Middle of some figures; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn this_process_has_used_cpu() {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(30) {}
        assert!(process_cpu(std::process::id() as i32) > 0.0);
        assert!(thread_cpu() > Duration::ZERO);
    }
}
