//! The commands of `./dev` that use a running platform: a till of one's own, a look at a topic, an import.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::endpoints::Endpoints;
use crate::stack::Stack;
use crate::{replay, tail, till};

fn running() -> Result<(tokio::runtime::Runtime, Endpoints)> {
    let stack = Stack::attach()?;
    Ok((tokio::runtime::Runtime::new()?, stack.endpoints()?))
}

pub fn till(location: Option<&str>) -> Result<()> {
    let (runtime, endpoints) = running()?;
    runtime.block_on(till::make(&endpoints, location))?.print(&endpoints);
    Ok(())
}

pub fn tail(options: &tail::Options) -> Result<()> {
    let (runtime, endpoints) = running()?;
    runtime.block_on(tail::run(&endpoints, options, &mut std::io::stdout().lock()))?;
    Ok(())
}

/// Exit code 0 when everything that could be sold was and all three sides agree, 1 otherwise.
pub fn replay(file: &Path, map: &Path) -> Result<ExitCode> {
    let (runtime, endpoints) = running()?;
    let report = runtime.block_on(replay::run(&endpoints, file, map))?;
    replay::print(&report);
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
