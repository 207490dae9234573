//! What the workspace is built from, against `deny.toml`: licences, bans and sources.

#![allow(clippy::disallowed_methods, reason = "cargo says by its environment which cargo runs")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The parts of `deny.toml` that are checked here.
struct Rules {
    licences: BTreeSet<String>,
    banned: BTreeSet<String>,
    registries: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let file: toml::Value = toml::from_str(&text).unwrap();
    let texts = |list: &toml::Value, of: fn(&toml::Value) -> &toml::Value| {
        list.as_array().unwrap().iter().map(|it| of(it).as_str().unwrap().to_owned()).collect()
    };
    Rules {
        licences: texts(&file["licenses"]["allow"], |it| it),
        banned: texts(&file["bans"]["deny"], |it| &it["crate"]),
        registries: texts(&file["sources"]["allow-registry"], |it| it),
    }
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let done = command.args(arguments).args(["--locked", "--offline"]).current_dir(root()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Every package that cargo resolves for this platform.
fn packages() -> Vec<Value> {
    let text = cargo(&["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// An SPDX expression being read: `AND` binds closer than `OR`, the old `/` is an `OR`.
struct Expression<'a> {
    words: Vec<&'a str>,
    at: usize,
    allowed: &'a BTreeSet<String>,
}

impl Expression<'_> {
    /// Whether the allowed licences satisfy the expression.
    fn is_satisfied(text: &str, allowed: &BTreeSet<String>) -> bool {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let mut expression = Expression { words: spaced.split_whitespace().collect(), at: 0, allowed };
        let is_satisfied = expression.any();
        assert_eq!(expression.at, expression.words.len(), "not an SPDX expression: {text}");
        is_satisfied
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.at) == Some(&word);
        self.at += usize::from(is_next);
        is_next
    }

    fn any(&mut self) -> bool {
        let mut is_satisfied = self.all();
        while self.take("OR") {
            is_satisfied |= self.all();
        }
        is_satisfied
    }

    fn all(&mut self) -> bool {
        let mut is_satisfied = self.one();
        while self.take("AND") {
            is_satisfied &= self.one();
        }
        is_satisfied
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let is_satisfied = self.any();
            assert!(self.take(")"), "a bracket stays open in {:?}", self.words);
            return is_satisfied;
        }
        let mut name = self.words.get(self.at).copied().unwrap_or_default().to_owned();
        self.at += 1;
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.at).copied().unwrap_or_default());
            self.at += 1;
        }
        self.allowed.contains(&name)
    }
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let rules = rules();
    let (mut refused, mut count) = (Vec::new(), 0);
    for package in packages() {
        let licence = package["license"].as_str().unwrap_or("none named");
        count += 1;
        if !Expression::is_satisfied(licence, &rules.licences) {
            refused.push(format!("{} {}: {licence}", package["name"], package["version"]));
        }
    }
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
    assert!(count > 300, "the whole graph was looked at: {count}");
}

#[test]
fn every_licence_that_deny_toml_allows_is_needed() {
    let rules = rules();
    let packages = packages();
    for licence in &rules.licences {
        let others: BTreeSet<String> = rules.licences.iter().filter(|other| *other != licence).cloned().collect();
        let is_needed =
            |package: &Value| package["license"].as_str().is_some_and(|text| !Expression::is_satisfied(text, &others));
        assert!(packages.iter().any(is_needed), "nothing needs {licence}: take it out of deny.toml");
    }
}

#[test]
fn nothing_comes_from_an_unknown_source() {
    let rules = rules();
    for package in packages() {
        let Some(source) = package["source"].as_str() else {
            // A path: one of ours.
            assert!(
                package["manifest_path"]
                    .as_str()
                    .unwrap()
                    .starts_with(root().canonicalize().unwrap().to_str().unwrap())
            );
            continue;
        };
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        assert!(rules.registries.contains(registry), "{} comes from {source}", package["name"]);
    }
}

/// The lock file also names what no build of ours uses; `cargo tree` shows what is built.
#[test]
fn nothing_banned_is_built() {
    let rules = rules();
    let text = cargo(&["tree", "--workspace", "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"]);
    let built: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(built.contains("aws-lc-rs") && built.len() > 200, "{} packages", built.len());
    let banned: Vec<&String> = rules.banned.iter().filter(|name| built.contains(name.as_str())).collect();
    assert!(banned.is_empty(), "banned by deny.toml: {banned:?}");
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed: BTreeSet<String> = ["MIT", "ISC"].map(str::to_owned).into();
    for (text, is_satisfied) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("GPL-3.0 OR ISC AND MIT", true),
        ("(GPL-3.0 OR ISC) AND GPL-3.0", false),
        ("MIT WITH some-exception", false),
    ] {
        assert_eq!(Expression::is_satisfied(text, &allowed), is_satisfied, "{text}");
    }
}
