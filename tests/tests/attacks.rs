//! Every row of the attack matrix in its short form, and two thousand requests made from the OpenAPI document, on a
//! platform of their own. Afterwards all stores agree.

use std::path::Path;

use e2e::attack::ground::{Form, Ground};
use e2e::attack::{self, Outcome, fuzz};
use e2e::launcher::{start_servers, up::start_platform};
use e2e::stack::{Job, Layout, Stack};
use e2e::steps::step;

const REQUESTS: u64 = 2_000;
const SEED: u64 = 20_261_122;

fn platform() -> Stack {
    let bin = Path::new(env!("CARGO_BIN_EXE_vorca-dev")).parent().expect("folder of vorca-dev");
    let layout = Layout { bin: bin.to_path_buf(), ..Layout::throwaway("attacks").unwrap().unlimited() };
    let stack = start_servers(layout).unwrap();
    start_platform(&stack).unwrap();
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_of_the_matrix_succeeds_and_no_request_finds_a_bug() {
    let stack = step("attacks: start", tokio::task::spawn_blocking(platform)).await.unwrap();
    let ground = Ground::prepare(&stack, Form::Short).await.unwrap();
    let reports = step("attacks: rows", attack::run(&ground, &[])).await;
    attack::print(&reports);
    let failed: Vec<&str> =
        reports.iter().filter(|it| it.outcome == Outcome::Failed).map(|it| it.row.as_str()).collect();

    let fuzzed = step("attacks: requests", fuzz::run(&ground, REQUESTS, SEED)).await.unwrap();
    fuzzed.print();
    assert!(failed.is_empty(), "{failed:?} failed: see above");
    assert!(fuzzed.has_held() && fuzzed.requests >= REQUESTS, "see above");

    let mut verify = stack.job("ingest-api", Job::Verify);
    verify.args(["worker", "verify", "--drain", "180"]);
    let verifying = tokio::task::spawn_blocking(move || verify.output());
    let verified = step("attacks: verify", verifying).await.unwrap().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    step("attacks: stop", tokio::task::spawn_blocking(move || stack.shutdown())).await.unwrap().unwrap();
}
