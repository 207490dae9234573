//! What the journeys share: the platform, and a small demonstration business in it.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use e2e::demo::{self, DemoReport, Options};
use e2e::endpoints::Endpoints;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// Sales of the shared business.
pub const SALES: u64 = 400;
pub const LOCATIONS: usize = 3;
/// How long everything may be on its way: it only ends a journey that would never end.
pub const DRAIN: Duration = Duration::from_secs(240);

static TURN: Mutex<()> = Mutex::const_new(());
static DEMO: OnceCell<DemoReport> = OnceCell::const_new();

/// One journey at a time on the platform of this test run.
pub struct World {
    pub endpoints: Endpoints,
    pub demo: &'static DemoReport,
    _turn: MutexGuard<'static, ()>,
}

/// The platform with its business; the first journey makes it.
pub async fn world() -> World {
    let turn = TURN.lock().await;
    let endpoints = Endpoints::from_env().expect("these journeys need a platform");
    let options =
        Options { sales: SALES, rate: None, locations: LOCATIONS, seed: 1, patience: DRAIN, ..Options::default() };
    let demo =
        DEMO.get_or_init(|| async { demo::run(&endpoints, &options).await.expect("the demonstration business") }).await;
    World { endpoints, demo, _turn: turn }
}

/// Root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `ingest-api worker verify` against this platform.
pub async fn verify(endpoints: &Endpoints) -> Output {
    let mut command = Command::new(endpoints.bin_dir.join("ingest-api"));
    command.args(["worker", "verify", "--drain", &DRAIN.as_secs().to_string()]).current_dir(&endpoints.run_dir);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VORCA__")) {
        command.env_remove(name);
    }
    let migrate = std::env::var("VORCA_CLICKHOUSE_MIGRATE_PASSWORD").expect("run ./dev test");
    let keys = std::env::var("VORCA_AUDIT_PUBLIC_KEYS").expect("run ./dev test");
    command
        .env("VORCA__AUDIT__PUBLIC_KEYS", keys)
        .env("VORCA__POSTGRES__URL", &endpoints.postgres)
        .env("VORCA__KAFKA__BROKERS", &endpoints.kafka)
        .env("VORCA__REGISTRY__URL", &endpoints.registry)
        .env("VORCA__REDIS__URL", &endpoints.redis)
        .env("VORCA__CLICKHOUSE__URL", &endpoints.clickhouse)
        .env("VORCA__CLICKHOUSE__USER", "vorca_migrate")
        .env("VORCA__CLICKHOUSE__PASSWORD", migrate);
    run(command).await
}

/// Runs a command without blocking the other tasks of the journey.
pub async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("the command starts")).await.expect("it ends")
}

/// Both outputs of a command, for a failure's message.
pub fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
