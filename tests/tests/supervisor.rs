//! The supervisor under fire: what dies comes back and is counted, what was committed stays, nothing is left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::stack::{Layout, Phase, Service, ServiceStatus, Signal, Stack};
use sqlx::{Connection, PgConnection};

const USED: [Service; 2] = [Service::Postgres, Service::Redis];

/// A stack of this test's own; only the two servers that start in an instant.
fn launch(purpose: &str) -> Result<Stack> {
    let bin = Path::new(env!("CARGO_BIN_EXE_vorca-dev")).parent().context("folder of vorca-dev")?;
    let layout = Layout { bin: bin.to_path_buf(), ..Layout::throwaway(purpose)? };
    let stack = Stack::launch(layout)?;
    stack.start(&USED)?;
    stack.wait_ready(&USED)?;
    Ok(stack)
}

fn wait_for<T>(what: &str, mut seen: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = seen()? {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "never seen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn status(stack: &Stack, service: Service) -> Result<ServiceStatus> {
    stack.processes()?.into_iter().find(|it| it.service == service).context("a service without status")
}

/// Waits until `service` is ready as another process than `before`.
fn back(stack: &Stack, before: &ServiceStatus) -> Result<ServiceStatus> {
    wait_for("the service is back", || {
        let now = status(stack, before.service)?;
        Ok((now.phase == Phase::Ready && now.process != before.process).then_some(now))
    })
}

async fn rows(url: &str) -> Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(sqlx::query_scalar("select count(*) from kept").fetch_one(&mut connection).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_killed_comes_back_and_only_what_ended_by_itself_counts_as_a_crash() -> Result<()> {
    let stack = launch("killed")?;
    let before = status(&stack, Service::Redis)?;
    stack.kill(Service::Redis, Signal::SIGKILL)?;
    let after = back(&stack, &before)?;
    assert_eq!((after.restarts, after.crashes), (1, 0));

    // Behind the supervisor's back.
    after.process.context("a pid")?.signal(Signal::SIGKILL);
    let again = back(&stack, &after)?;
    assert_eq!((again.restarts, again.crashes), (2, 1));

    stack.stop(&[Service::Redis])?;
    stack.wait_stopped(&[Service::Redis])?;
    assert_eq!(status(&stack, Service::Redis)?.restarts, 2, "stopping is not restarting");
    stack.shutdown()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_survives_the_death_of_every_postgres_process() -> Result<()> {
    let stack = launch("commit")?;
    let url = stack.endpoints()?.postgres;
    let mut connection = PgConnection::connect(&url).await?;
    sqlx::raw_sql("create table kept (n int); insert into kept select generate_series(1, 1000)")
        .execute(&mut connection)
        .await?;
    let before = status(&stack, Service::Postgres)?;
    stack.kill(Service::Postgres, Signal::SIGKILL)?;
    back(&stack, &before)?;
    assert_eq!(rows(&url).await?, 1000);
    stack.shutdown()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_stack_that_ended_or_whose_supervisor_was_killed() -> Result<()> {
    let stack = launch("left")?;
    let run = stack.layout().run.clone();
    let supervisor = stack.status()?.supervisor;
    let children: Vec<_> = stack.processes()?.into_iter().filter_map(|it| it.process).collect();
    supervisor.signal(Signal::SIGKILL);
    wait_for("its children ended with it", || Ok(children.iter().all(|it| !it.is_alive()).then_some(())))?;

    // The next one is not stopped by what a killed one left in the folder.
    let stack = Stack::launch(stack.layout().clone())?;
    stack.start(&USED)?;
    stack.wait_ready(&USED)?;
    let children: Vec<_> = stack.processes()?.into_iter().filter_map(|it| it.process).collect();
    stack.shutdown()?;
    assert!(children.iter().all(|it| !it.is_alive()), "a process is left");
    assert!(!run.exists(), "{} is left", run.display());
    Ok(())
}
