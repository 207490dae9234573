//! `./dev verify`: the check of the platform, run once against what is up.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::stack::{Job, Stack};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
    /// Journal of the tills: a file, or a folder of them
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Epochs that began with a restore you know of: `2,3`
    #[arg(long, value_name = "EPOCHS")]
    pub restored_epochs: Option<String>,
}

/// Ends with the exit code of the check.
pub fn verify(options: &Options) -> Result<ExitCode> {
    let stack = Stack::attach()?;
    let mut command = stack.job("ingest-api", Job::Verify);
    command.args(["worker", "verify"]);
    if options.json {
        command.arg("--json");
    }
    if let Some(journal) = &options.journal {
        // The job runs in the run folder: a relative path would mean another file there.
        command.arg("--journal").arg(std::path::absolute(journal)?);
    }
    if let Some(epochs) = &options.restored_epochs {
        command.arg("--restored-epochs").arg(epochs);
    }
    let status = command.status().context("starting verify")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(70)))
}
