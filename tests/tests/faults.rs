//! The kill proof in its short form, on a platform of its own: tills sell and are told the truth while processes and
//! servers die, and with everything right of Postgres gone. Then bugs are planted, and the check has to name each.

use std::path::Path;
use std::time::Duration;

use e2e::chaos;
use e2e::demo::{self, business::FEW_VARIANTS};
use e2e::launcher::{start_servers, up::start_platform};
use e2e::plant;
use e2e::stack::{Layout, Service, Stack};
use e2e::steps::step;

const RIGHT_OF_POSTGRES: [Service; 4] = [Service::Kafka, Service::Registry, Service::Redis, Service::Clickhouse];

fn layout() -> Layout {
    let bin = Path::new(env!("CARGO_BIN_EXE_vorca-dev")).parent().expect("folder of vorca-dev");
    Layout { bin: bin.to_path_buf(), ..Layout::throwaway("faults").unwrap() }
}

fn platform() -> Stack {
    let stack = start_servers(layout()).unwrap();
    start_platform(&stack).unwrap();
    stack
}

/// One platform for all three, in this order: the planted bugs spoil it.
#[tokio::test(flavor = "multi_thread")]
async fn no_fault_loses_a_sale_and_no_planted_bug_goes_unseen() {
    let stack = step("faults: start", tokio::task::spawn_blocking(platform)).await.unwrap();
    let endpoints = stack.endpoints().unwrap();
    let opening = demo::Options { sales: 50, locations: 4, variants: FEW_VARIANTS, ..demo::Options::default() };
    assert!(step("faults: first sales", demo::run(&endpoints, &opening)).await.unwrap().is_clean());

    step("faults: all but Postgres down", sells_with_everything_right_of_postgres_down(&stack)).await;
    step("faults: kills, freezes, outages", survives_kills(&stack)).await;
    step("faults: planted bugs", names_planted_bugs(&stack)).await;
    step("faults: stop", tokio::task::spawn_blocking(move || stack.shutdown())).await.unwrap().unwrap();
}

async fn sells_with_everything_right_of_postgres_down(stack: &Stack) {
    let down = stack.clone();
    tokio::task::spawn_blocking(move || {
        down.stop(&RIGHT_OF_POSTGRES).unwrap();
        down.wait_stopped(&RIGHT_OF_POSTGRES).unwrap();
    })
    .await
    .unwrap();
    let journal = stack.layout().run.join("alone.jsonl");
    let mut options = demo::Options::of_run(&stack.layout().run).unwrap();
    (options.sales, options.journal, options.patience) = (100, Some(journal.clone()), Duration::from_secs(1));
    let sold = demo::run(&stack.endpoints().unwrap(), &options).await.unwrap();
    assert!(sold.is_clean(), "{:?}", sold.counts.surprises);
    let up = stack.clone();
    tokio::task::spawn_blocking(move || {
        let everything: Vec<Service> = Service::all().collect();
        up.start(&everything).unwrap();
        up.wait_ready(&everything).unwrap();
    })
    .await
    .unwrap();
    let (agrees, report) = chaos::verify(stack, &journal, chaos::DRAIN).await.unwrap();
    assert!(agrees, "after everything came back: {report:#}");
}

async fn survives_kills(stack: &Stack) {
    let options = chaos::Options {
        kills: 12,
        seed: 20_261_122,
        rate: 50.0,
        outage: Duration::from_secs(5),
        freeze: Duration::from_secs(7),
    };
    let report = chaos::run(stack, &options).await.unwrap();
    assert!(report.agrees, "{:#}", report.verify);
    assert!(report.sold > 500, "the tills hardly sold: {report:?}");
}

async fn names_planted_bugs(stack: &Stack) {
    let journal = stack.layout().run.join("plant.jsonl");
    let mut options = demo::Options::of_run(&stack.layout().run).unwrap();
    (options.sales, options.journal) = (50, Some(journal.clone()));
    demo::run(&stack.endpoints().unwrap(), &options).await.unwrap();
    let missed: Vec<_> =
        plant::run(stack, &journal).await.unwrap().into_iter().filter(|it| it.named.is_none()).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
