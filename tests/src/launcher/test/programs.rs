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

use super::cargo;
use crate::stack::Layout;

/// Programs that start a platform of their own.
const WITH_PLATFORM: [&str; 5] = ["e2e faults", "e2e canaries", "e2e operators", "e2e attacks", "e2e restore"];
/// These begin first: they take longest, and short ones fill the gaps.
const LONGEST: [&str; 8] = [
    "e2e faults",
    "ingest-api it",
    "e2e canaries",
    "e2e operators",
    "e2e attacks",
    "e2e restore",
    "runtime it",
    "e2e it",
];
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
    package: String,
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

/// What is to run, from the arguments of `cargo test`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Packages; every one when none is named.
    packages: Vec<String>,
    /// Which targets and tests, as cargo understands it.
    pub targets: Vec<String>,
    /// For the test programs: what follows an inner `--`.
    theirs: Vec<String>,
}

impl Wanted {
    pub fn of(arguments: &[String]) -> Wanted {
        let inner = arguments.iter().position(|it| it == "--").unwrap_or(arguments.len());
        let theirs = arguments.iter().skip(inner + 1).cloned().collect();
        let mut wanted = Wanted { theirs, ..Wanted::default() };
        let mut arguments = arguments[..inner].iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--workspace" | "--all" => {}
                "-p" | "--package" => wanted.packages.extend(arguments.next().cloned()),
                other => match other.strip_prefix("--package=") {
                    Some(package) => wanted.packages.push(package.to_owned()),
                    None => wanted.targets.push(argument.clone()),
                },
            }
        }
        wanted
    }

    fn selects_targets(&self) -> bool {
        self.targets.iter().any(|it| SELECTIONS.contains(&it.split('=').next().unwrap_or(it)))
    }

    fn selects_docs(&self) -> bool {
        self.targets.iter().any(|it| it == "--doc")
    }
}

/// All that `cargo test` would start, the longest first.
pub fn all(layout: &Layout, wanted: &Wanted) -> Result<Vec<Program>> {
    if wanted.selects_docs() {
        return Ok(vec![examples_in_docs(layout, wanted)]);
    }
    let mut programs = noted(layout, wanted)?;
    if let Some(unknown) = wanted.packages.iter().find(|it| !programs.iter().any(|program| program.package == **it)) {
        bail!("no test program belongs to a package {unknown}");
    }
    programs.retain(|it| wanted.packages.is_empty() || wanted.packages.contains(&it.package));
    if !wanted.selects_targets() && wanted.packages.is_empty() {
        programs.push(examples_in_docs(layout, wanted));
    }
    programs.sort_by_key(|program| LONGEST.iter().position(|name| *name == program.name).unwrap_or(LONGEST.len()));
    Ok(programs)
}

/// Built and started by rustdoc, so by cargo alone.
fn examples_in_docs(layout: &Layout, wanted: &Wanted) -> Program {
    let mut command: Vec<String> = ["cargo", "test", "--workspace", "--doc"].map(str::to_owned).into();
    command.extend(wanted.targets.iter().filter(|it| *it != "--doc").cloned());
    command.push("--".to_owned());
    command.extend(wanted.theirs.iter().cloned());
    let name = "examples in the docs".to_owned();
    Program { name, package: String::new(), command, folder: layout.checkout.clone(), environment: BTreeMap::new() }
}

fn noted(layout: &Layout, wanted: &Wanted) -> Result<Vec<Program>> {
    let file = tempfile::NamedTempFile::new().context("a file for what cargo starts")?;
    // By path: the build may have replaced the file that this process runs from.
    let this = layout.bin.join("vorca-dev");
    let runner = serde_json::to_string(&[&this, Path::new("note-program"), file.path()])?;
    let mut cargo = cargo(layout);
    cargo.args(["--config", &format!("target.'cfg(all())'.runner={runner}")]);
    if !wanted.selects_targets() {
        cargo.arg("--tests");
    }
    let done = cargo.args(&wanted.targets).arg("--").args(&wanted.theirs).stdin(Stdio::null()).output();
    let done = done.context("starting cargo")?;
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
    let package = environment.get("CARGO_PKG_NAME").context("cargo names no package")?.clone();
    let program = command.first().map(Path::new).and_then(Path::file_stem).context("cargo names no program")?;
    let name = name(&package, &program.to_string_lossy());
    let folder = std::env::current_dir()?;
    let line = serde_json::to_string(&Program { name, package, command, folder, environment })?;
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
    fn packages_are_told_from_what_cargo_and_the_programs_are_given() {
        let of = |text: &str| Wanted::of(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let texts = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let wanted = of("-p ingest-api --test it matrix --package=e2e -- --nocapture -p");
        assert_eq!(wanted.packages, texts("ingest-api e2e"));
        assert_eq!(
            (wanted.targets.clone(), wanted.theirs.clone()),
            (texts("--test it matrix"), texts("--nocapture -p"))
        );
        assert!(wanted.selects_targets() && !wanted.selects_docs());
        let wanted = of("--workspace lanes");
        assert_eq!((wanted.packages.clone(), wanted.targets.clone()), (texts(""), texts("lanes")));
        assert!(!wanted.selects_targets());
    }

    #[test]
    fn a_program_is_called_by_its_package_and_target() {
        assert_eq!(name("ingest-api", "ingest_api-0a1b"), "ingest-api lib");
        assert_eq!(name("ingest-api", "it-0a1b"), "ingest-api it");
        assert_eq!(name("e2e", "set_up-0a1b"), "e2e set_up");
    }
}
