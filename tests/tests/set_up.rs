//! The set-up of `./dev`, with stand-ins for the tools that install and download: nothing of this machine changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A machine as `./dev` sees it: stand-ins first in the path, an empty cache.
struct Machine(tempfile::TempDir);

/// Debian with everything installed but the packages named in `$MISSING`.
const DPKG_QUERY: &str = r#"
for it in "$@"; do case " $MISSING -W " in *" $it "*) ;; *) case $it in -*) ;; *) echo "$it installed" ;; esac ;; esac; done"#;
/// A download that takes longer than any test.
const SLOW: &str = r#"echo "$0" >>"$TOOLS/begun"; exec sleep 600"#;

impl Machine {
    fn new() -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        fs::create_dir(machine.tools()).unwrap();
        machine.stand_in("dpkg-query", DPKG_QUERY);
        machine.stand_in("apt-get", r#"echo "$@" >>"$TOOLS/apt-get.log""#);
        machine
    }

    fn tools(&self) -> PathBuf {
        self.0.path().join("tools")
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn stand_in(&self, name: &str, body: &str) {
        let path = self.tools().join(name);
        fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Every server is in the cache, as after a set-up on another machine.
    fn fill_cache(&self) {
        let script = fs::read_to_string(dev()).unwrap();
        for (name, variable) in [
            ("java", "JAVA"),
            ("kafka", "KAFKA"),
            ("registry", "REGISTRY"),
            ("clickhouse", "CLICKHOUSE"),
            ("fuzzer", "FUZZER"),
        ] {
            let (_, after) = script.split_once(&format!("{variable}_VERSION=")).unwrap();
            let version = after.split_whitespace().next().unwrap();
            let folder = self.cache().join(format!("{name}-{version}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(".complete"), "").unwrap();
        }
    }

    fn prepare(&self, missing: &str) -> Command {
        // Whoever runs tests in the background of a shell ignores Ctrl-C, and what it starts would ignore it too.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(dev());
        let path = format!("{}:{}", self.tools().display(), path_of_this_machine());
        command
            .arg("prepare")
            .env("PATH", path)
            .env("TOOLS", self.tools())
            .env("MISSING", missing)
            .env("VORCA_DEV_NO_BUILD", "1")
            .env("VORCA_CACHE_DIR", self.cache())
            .env("VORCA_STATE_DIR", self.0.path().join("state"))
            .stdin(Stdio::null());
        command
    }
}

#[expect(clippy::disallowed_methods, reason = "the stand-ins come before the real tools")]
fn path_of_this_machine() -> String {
    std::env::var("PATH").unwrap()
}

fn dev() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("dev")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_cache_from_another_machine_does_not_stand_for_packages() {
    let machine = Machine::new();
    machine.fill_cache();
    let complete = machine.prepare("").output().unwrap();
    assert!(complete.status.success() && complete.stderr.is_empty(), "{}", said(&complete));

    let lacking = machine.prepare("postgresql-15 redis-server").output().unwrap();
    if nix::unistd::geteuid().is_root() {
        assert!(lacking.status.success(), "{}", said(&lacking));
        let asked = fs::read_to_string(machine.tools().join("apt-get.log")).unwrap();
        assert!(asked.lines().any(|line| line.ends_with(" postgresql-15 redis-server")), "{asked}");
    } else {
        assert_eq!(lacking.status.code(), Some(69));
        assert!(said(&lacking).contains("packages are missing: postgresql-15 redis-server"), "{}", said(&lacking));
    }
}

#[test]
fn an_interrupt_ends_every_download_and_leaves_nothing_half_done() {
    let machine = Machine::new();
    for tool in ["python3", "mvn", "npm"] {
        machine.stand_in(tool, SLOW);
    }
    // a file, not a pipe: what is left running would keep a pipe open
    let log = machine.0.path().join("stderr");
    let stderr = fs::File::create(&log).unwrap();
    let mut child = machine.prepare("").stderr(stderr).process_group(0).spawn().unwrap();
    let begun = || fs::read_to_string(machine.tools().join("begun")).unwrap_or_default().lines().count();
    let deadline = Instant::now() + Duration::from_secs(60);
    while begun() < 5 {
        assert!(Instant::now() < deadline, "{} of 5 downloads began", begun());
        std::thread::sleep(Duration::from_millis(20));
    }
    // as a terminal does on Ctrl-C
    killpg(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let (status, said) = (child.wait().unwrap(), fs::read_to_string(log).unwrap());
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("Interrupted."), "{said}");
    while !left_of(&machine).is_empty() {
        assert!(Instant::now() < deadline, "still running: {:?}", left_of(&machine));
        std::thread::sleep(Duration::from_millis(20));
    }
    let entries = fs::read_dir(machine.cache()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let finished: Vec<String> =
        entries.filter(|name| !name.starts_with('.') && !name.ends_with(".part") && name != "log").collect();
    assert_eq!(finished, Vec::<String>::new());
}

#[test]
fn a_reader_that_goes_away_ends_a_command_without_a_word() {
    let machine = Machine::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut status = Command::new(env!("CARGO_BIN_EXE_vorca-dev"));
    let status = status.arg("status").env("VORCA_RUN_DIR", machine.0.path()).stdout(writer).output().unwrap();
    assert_eq!(status.status.signal(), Some(Signal::SIGPIPE as i32), "{status:?}");
    assert!(status.stderr.is_empty(), "{}", said(&status));
}

/// Processes that carry this machine's environment.
fn left_of(machine: &Machine) -> Vec<String> {
    let mark = format!("TOOLS={}", machine.tools().display()).into_bytes();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    processes
        .filter(|process| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark)
        })
        .map(|process| String::from_utf8_lossy(&fs::read(process.join("cmdline")).unwrap_or_default()).into_owned())
        .collect()
}
