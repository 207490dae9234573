//! The commands of `./dev` that start, show and stop.

pub mod attack;
pub mod external;
pub mod faults;
mod template;
pub mod test;
pub mod tools;
pub mod up;
pub mod verify;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::session::Session;
use crate::stack::{self, Layout, Phase, Service, ServiceStatus, Stack};

/// Starts the servers and waits for all of them, a line each.
pub fn start_servers(layout: Layout) -> Result<Stack> {
    let stack = Stack::launch(layout)?;
    start(&stack, &Service::SERVERS)?;
    Ok(stack)
}

/// Starts these and prints a line as each becomes ready.
pub fn start(stack: &Stack, services: &[Service]) -> Result<()> {
    let begun = Instant::now();
    stack.start(services)?;
    let mut shown = Vec::new();
    loop {
        for it in stack.processes()? {
            if services.contains(&it.service) && it.phase == Phase::Ready && !shown.contains(&it.service) {
                eprintln!("  {:<15} ready  ({:.1} s)", it.service.name(), begun.elapsed().as_secs_f64());
                shown.push(it.service);
            }
        }
        if shown.len() == services.len() {
            return Ok(());
        }
        let failing = stack.processes()?.iter().any(|it| services.contains(&it.service) && it.failures >= 3);
        if failing || begun.elapsed() > stack::READY_LIMIT * 2 {
            return stack.wait_ready(services);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn services() -> Result<()> {
    let stack = start_servers(Layout::of_checkout()?)?;
    template::prepare(&stack)?;
    print_endpoints(&stack)?;
    eprintln!("\nThey keep running when this shell ends. Next: eval \"$(./dev env)\", ./dev status, ./dev down");
    Ok(())
}

fn print_endpoints(stack: &Stack) -> Result<()> {
    let at = stack.endpoints()?;
    println!();
    println!("  Postgres     {}", stack.exports()[0].1);
    println!("  Kafka        {}", at.kafka);
    println!("  registry     {}", at.registry);
    println!("  Redis        {}", at.redis);
    println!("  ClickHouse   {}   native {}", at.clickhouse, at.clickhouse_native.unwrap_or_default());
    println!("  analyst      {} / {}", at.analyst.login, at.analyst.password);
    if !at.owner.login.is_empty() {
        println!("  API          {0}   try it: {0}/docs", at.api);
        println!("  Owner        {} / {}   code of the second factor: ./dev totp", at.owner.login, at.owner.password);
    }
    println!("  data, logs   {}", stack.layout().run.display());
    Ok(())
}

pub fn env() -> Result<()> {
    let stack = Stack::attach()?;
    for (name, value) in stack.exports() {
        // Values hold no quote: addresses, paths of ours and alphanumeric passwords.
        println!("export {name}='{value}'");
    }
    Ok(())
}

/// The code with which the Owner logs in now, and how to put the second factor on a telephone.
pub fn totp() -> Result<()> {
    let session = Session::of_owner(&Stack::attach()?.endpoints()?);
    let (code, left) = session.code()?.context("the Owner has no second factor yet: ./dev up sets it up")?;
    let secret = session.secret()?.unwrap_or_default();
    println!("{code}");
    eprintln!("  good for {left} s, and once; the secret for an authenticator of your own: {secret}");
    Ok(())
}

/// Exit code 0 when all that should run is ready, 69 otherwise.
pub fn status() -> Result<ExitCode> {
    let Ok(stack) = Stack::attach() else {
        println!("{}", stack::NotRunning);
        return Ok(ExitCode::from(69));
    };
    let services = stack.processes()?;
    println!("  {:<15} {:<10} {:>8} {:>9}  {:>8} {:>8}", "service", "state", "pid", "memory", "restarts", "crashes");
    for it in &services {
        println!("{}", line(it));
    }
    print_endpoints(&stack)?;
    let well = services.iter().all(|it| matches!(it.phase, Phase::Ready | Phase::Stopped));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(69) })
}

fn line(it: &ServiceStatus) -> String {
    let phase =
        serde_json::to_value(it.phase).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    let pid = it.process.map(|process| process.pid.to_string()).unwrap_or_default();
    let memory = it.process.and_then(stack::resident).map(|bytes| format!("{} MB", bytes >> 20)).unwrap_or_default();
    let exit = it.last_exit.as_deref().map(|how| format!("  last end: {how}")).unwrap_or_default();
    format!("  {:<15} {phase:<10} {pid:>8} {memory:>9}  {:>8} {:>8}{exit}", it.service.name(), it.restarts, it.crashes)
}

pub fn logs(service: Option<Service>, lines: usize, follow: bool) -> Result<()> {
    let layout = Layout::of_checkout()?;
    let named = match service {
        Some(service) => vec![service.name()],
        None => std::iter::once("supervisor").chain(Service::all().map(Service::name)).collect(),
    };
    for name in &named {
        let path = layout.log(name);
        if path.exists() {
            println!("{name}  ({})\n{}\n", path.display(), stack::tail(&path, lines));
        }
    }
    if follow && let Some(name) = named.first() {
        let mut log = fs::File::open(layout.log(name)).with_context(|| format!("{name} has no log yet"))?;
        log.seek(SeekFrom::End(0))?;
        loop {
            let mut text = Vec::new();
            log.read_to_end(&mut text)?;
            std::io::stdout().write_all(&text)?;
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

pub fn down() -> Result<()> {
    let layout = Layout::of_checkout()?;
    match Stack::attach_to(layout.clone()) {
        Ok(stack) => {
            eprintln!("  stopping the platform, registry, Kafka, ClickHouse, Redis, Postgres");
            if stack::records_caches(&layout) {
                eprintln!("  this once the Java servers also write what makes their next start quick: up to a minute");
            }
            stack.shutdown()?;
            eprintln!(
                "Stopped. The data stays in {}. Next: ./dev up goes on with it, ./dev reset deletes it",
                layout.run.display()
            );
        }
        Err(_) => {
            stack::supervisor::end_leftovers(&layout);
            eprintln!("Nothing runs for this checkout.");
        }
    }
    Ok(())
}

pub fn reset() -> Result<()> {
    let layout = Layout::of_checkout()?;
    match Stack::attach_to(layout.clone()) {
        Ok(stack) => stack.shutdown()?,
        Err(_) => stack::supervisor::end_leftovers(&layout),
    }
    if layout.run.exists() {
        fs::remove_dir_all(&layout.run).with_context(|| format!("deleting {}", layout.run.display()))?;
    }
    eprintln!(
        "Deleted {}. Downloads stay in {}. Next: ./dev up starts afresh",
        layout.run.display(),
        layout.cache.display()
    );
    Ok(())
}
