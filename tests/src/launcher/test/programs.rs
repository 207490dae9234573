//! Which test programs there are, and how cargo would start each: cargo is asked to start them through
//! `vorca-dev note-program`, which notes what it was given and starts nothing.

#![expect(clippy::disallowed_methods, reason = "what cargo gives a test program is in its environment")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Options, cargo};
use crate::stack::Layout;

/// Programs that start a platform of their own.
const WITH_PLATFORM: [&str; 3] = ["e2e faults", "e2e operators", "e2e restore"];
/// These begin first: they take longest, and short ones fill the gaps.
const LONGEST: [&str; 6] = ["e2e faults", "e2e operators", "e2e restore", "ingest-api it", "runtime it", "e2e it"];
/// What tells cargo to take some targets only.
const SELECTIONS: [&str; 11] = [
    "--lib",
    "--bins",
    "--bin",
    "--tests",
    "--test",
    "--examples",
    "--example",
    "--benches",
    "--bench",
    "--all-targets",
    "--doc",
];

/// A test program, as cargo would start it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Program {
    /// Package and target: `ingest-api it`.
    pub name: String,
    command: Vec<String>,
    folder: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Program {
    /// Whether it starts servers and processes of its own.
    pub fn has_platform(&self) -> bool {
        WITH_PLATFORM.contains(&self.name.as_str())
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(&self.folder).envs(&self.environment);
        command
    }
}

/// All that `cargo test` would start with these arguments, the longest first.
pub fn all(layout: &Layout, options: &Options) -> Result<Vec<Program>> {
    let (ours, theirs) = options.split();
    let is_selection = |it: &String| SELECTIONS.contains(&it.split('=').next().unwrap_or(it));
    let is_chosen = ours.iter().any(is_selection);
    let mut programs = if ours.iter().any(|it| it == "--doc") {
        Vec::new()
    } else {
        let more: &[&str] = if is_chosen { &[] } else { &["--tests"] };
        noted(layout, options, more)?
    };
    if !is_chosen || ours.iter().any(|it| it == "--doc") {
        let mut doc = vec!["cargo".to_owned(), "test".to_owned()];
        doc.extend(options.packages());
        doc.extend(ours.iter().filter(|it| *it != "--doc").cloned());
        doc.extend(["--doc".to_owned(), "--".to_owned()].into_iter().chain(theirs));
        let (folder, environment) = (layout.checkout.clone(), BTreeMap::new());
        programs.push(Program { name: "examples in the docs".to_owned(), command: doc, folder, environment });
    }
    programs.sort_by_key(|program| LONGEST.iter().position(|name| *name == program.name).unwrap_or(usize::MAX));
    Ok(programs)
}

fn noted(layout: &Layout, options: &Options, more: &[&str]) -> Result<Vec<Program>> {
    let (ours, theirs) = options.split();
    let file = tempfile::NamedTempFile::new().context("a file for what cargo starts")?;
    let this = std::env::current_exe().context("own path")?;
    let runner = serde_json::to_string(&[&this, Path::new("note-program"), file.path()])?;
    let done = cargo(layout, options)
        .args(["--config", &format!("target.'cfg(all())'.runner={runner}")])
        .args(more)
        .args(&ours)
        .arg("--")
        .args(&theirs)
        .stdin(Stdio::null())
        .output()
        .context("starting cargo")?;
    if !done.status.success() {
        bail!("cargo does not say what there is to run:\n{}", String::from_utf8_lossy(&done.stderr));
    }
    let text = fs::read_to_string(file.path())?;
    text.lines().map(|line| serde_json::from_str(line).context("a noted program")).collect()
}

/// `vorca-dev note-program`: appends to `file` what cargo started this process for.
pub fn note(file: &Path, command: Vec<String>) -> Result<()> {
    let variables = std::env::vars().filter(|(name, _)| name.starts_with("CARGO") || name == "LD_LIBRARY_PATH");
    let environment: BTreeMap<String, String> = variables.collect();
    let package = environment.get("CARGO_PKG_NAME").context("cargo names no package")?;
    let program = command.first().map(Path::new).and_then(Path::file_stem).context("cargo names no program")?;
    let name = name(package, &program.to_string_lossy());
    let folder = std::env::current_dir()?;
    let line = serde_json::to_string(&Program { name, command, folder, environment })?;
    let mut file = fs::OpenOptions::new().append(true).open(file)?;
    Ok(file.write_all(format!("{line}\n").as_bytes())?)
}

/// `ingest-api it` from the package `ingest-api` and the file `it-0123456789abcdef`.
fn name(package: &str, file: &str) -> String {
    let target = file.rsplit_once('-').map_or(file, |(target, _)| target);
    let target = if target == package.replace('-', "_") { "lib" } else { target };
    format!("{package} {target}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_its_package_and_target() {
        assert_eq!(name("ingest-api", "ingest_api-0a1b"), "ingest-api lib");
        assert_eq!(name("ingest-api", "it-0a1b"), "ingest-api it");
        assert_eq!(name("e2e", "set_up-0a1b"), "e2e set_up");
    }
}
