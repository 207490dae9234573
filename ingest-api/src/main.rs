//! `ingest-api`: serve, relay, worker, or all of them in one process; and the tasks that end by themselves.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ingest_api::audit::proof;
use ingest_api::audit::signing::{PublicKeys, Signer};
use ingest_api::card_filter::Field;
use ingest_api::card_filter::rate::rate;
use ingest_api::loyalty::expiry;
use ingest_api::operator::{Name, Operator};
use ingest_api::privacy::rotate::rotate;
use ingest_api::redrive::Redrive;
use ingest_api::relay::replay::{self, Replay};
use ingest_api::serve::Extras;
use ingest_api::worker::{epoch, retire};
use ingest_api::{auth, config, migrate, openapi, privacy, relay, serve, verify, worker};
use runtime::config::load;
use runtime::dead_letter::Filter;
use runtime::lifecycle::{DRAIN_BUDGET, Shutdown, exit_code, say};
use runtime::ops::{self, Health};
use runtime::pg::{Limits, Writer, pool_with};
use tokio::sync::Notify;

/// A sale is a few hundred small allocations on one thread and their release on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The public door of the platform, and the roles that follow a commit out of Postgres.
#[derive(Parser)]
#[command(name = "ingest-api", version)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// The public API
    Serve,
    /// Outbox -> Kafka; one leader, further ones wait; with a task, that task once
    Relay {
        #[command(subcommand)]
        task: Option<RelayTask>,
    },
    /// Jobs: resyncs, outbox partitions, expiry; with a task, that task once
    Worker {
        #[command(subcommand)]
        task: Option<Task>,
    },
    /// serve, relay and worker in one process
    All,
    /// Makes tables, topics and schemas, then ends
    Migrate,
    /// Makes the first Owner and prints the password once; refused when there is one
    CreateOwner {
        #[arg(long)]
        login: String,
        #[arg(long)]
        json: bool,
    },
    /// Lets a user in again who lost password and second factor: prints a one-time code for POST /auth/password-reset
    ResetSignIn {
        #[arg(long)]
        login: String,
        #[arg(long)]
        json: bool,
    },
    /// The keys that sign access tokens
    Keys {
        #[command(subcommand)]
        task: KeysTask,
    },
    /// Begins a new epoch after a restore; prints `LOCATION_ID KEPT_SEQ` lines for `sinks withdraw`
    RaiseEpoch {
        #[arg(long)]
        reason: String,
    },
    /// Publishes dead letters of a consumer group again
    Redrive {
        #[arg(long)]
        topic: String,
        #[arg(long)]
        group: String,
        /// Only letters with this cause
        #[arg(long)]
        code: Option<String>,
        /// Only letters with this key
        #[arg(long)]
        key: Option<String>,
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
        /// Who you are, where several people share the account; the audit log names the account either way
        #[arg(long)]
        by: Option<Name>,
    },
    /// Prints a new key for VORCA__PRIVACY__MASTER_KEYS or VORCA__PRIVACY__LOOKUP_KEY
    NewKey,
    /// Wraps every data key with the first of the master keys
    RotateMasterKey,
    /// Checks the proof of a receipt with nothing but the public key; exit code 1 when it proves nothing
    CheckProof {
        /// What `GET /sales/{id}/proof` answered
        #[arg(long)]
        proof: PathBuf,
        /// Public keys that are believed: base64 of 32 bytes each, between commas
        #[arg(long)]
        public_key: String,
    },
    /// Prints the public key of the audit log's signing key, for `check-proof` and `worker verify`
    AuditPublicKey {
        /// Ed25519 private key, PKCS#8 PEM
        #[arg(long)]
        signing_key: PathBuf,
    },
    /// Counts the lines of standard input that the API would refuse as card data
    CardFilter {
        /// What kind of field they are meant for
        #[arg(long = "as", value_enum, default_value = "text")]
        field: Field,
    },
    /// Prints the OpenAPI document
    Openapi,
}

#[derive(Subcommand)]
enum KeysTask {
    /// Makes a new signing key; tokens of the one before live to their end
    Rotate {
        /// The new key signs now, and every token of before is refused from now on
        #[arg(long)]
        at_once: bool,
    },
}

#[derive(Subcommand)]
enum RelayTask {
    /// Has the running relay publish again what it published before: everything from a number or a time on
    Replay {
        /// A number of one stream (then with --stream), or a time such as 2026-11-22T08:00:00Z
        #[arg(long)]
        from: replay::From,
        /// Id of a location, or `company` for acts without one; every stream when absent
        #[arg(long)]
        stream: Option<replay::Stream>,
        /// Begin where a stream first has a record for this topic; what follows comes again whole, in order
        #[arg(long)]
        topic: Option<String>,
        /// Who you are, where several people share the account; the audit log names the account either way
        #[arg(long)]
        by: Option<Name>,
    },
}

#[derive(Subcommand)]
enum Task {
    /// Proves that all stores agree; exit code 1 when they do not
    Verify {
        #[arg(long)]
        json: bool,
        /// Journal of the tills: a file, or a folder of them
        #[arg(long)]
        journal: Option<PathBuf>,
        /// Only the audit log: its chains, roots and what was published of them
        #[arg(long)]
        chain: bool,
        /// How long the pipeline may take to drain, seconds
        #[arg(long, default_value_t = 60)]
        drain: u64,
        /// Epochs that began with a restore you know of, by a list kept outside of the database: `2,3`
        #[arg(long, value_delimiter = ',', value_name = "EPOCHS")]
        restored_epochs: Vec<i64>,
    },
    /// Writes off the points that are past their date, as the running worker does every minute
    ExpirePoints,
    /// After a restore: retires what the compacted topics hold of entities that the ledger does not have
    Retire {
        /// Who you are, where several people share the account; the audit log names the account either way
        #[arg(long)]
        by: Option<Name>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    schemas::codec::init();
    match Arguments::parse().role {
        Role::Serve => exit_code(run_serve().await),
        Role::Relay { task: None } => exit_code(run_relay().await),
        Role::Relay { task: Some(RelayTask::Replay { from, stream, topic, by }) } => {
            exit_code(run_replay(Replay { from, stream, topic }, Operator::here(by)).await)
        }
        Role::Worker { task: None } => exit_code(run_worker().await),
        Role::Worker { task: Some(Task::Verify { json, journal, chain, drain, restored_epochs }) } => {
            match run_verify(json, journal, chain, drain, restored_epochs).await {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => exit_code(Err(error)),
            }
        }
        Role::Worker { task: Some(Task::Retire { by }) } => exit_code(run_retire(Operator::here(by)).await),
        Role::Worker { task: Some(Task::ExpirePoints) } => exit_code(run_expire_points().await),
        Role::All => exit_code(run_all().await),
        Role::Migrate => exit_code(run_migrate().await),
        Role::CreateOwner { login, json } => exit_code(create_owner(&login, json).await),
        Role::ResetSignIn { login, json } => exit_code(reset_sign_in(&login, json).await),
        Role::Keys { task: KeysTask::Rotate { at_once } } => exit_code(rotate_keys(at_once).await),
        Role::RaiseEpoch { reason } => exit_code(raise_epoch(&reason).await),
        Role::Redrive { topic, group, code, key, limit, by } => {
            let filter = Filter { error_code: code, key, ..Filter::default() };
            exit_code(run_redrive(Redrive { topic, group, filter, limit }, Operator::here(by)).await)
        }
        Role::NewKey => exit_code(say(privacy::new_key()).map_err(Into::into)),
        Role::RotateMasterKey => exit_code(rotate_master_key().await),
        Role::CardFilter { field } => exit_code(count_refused(field)),
        Role::Openapi => exit_code(openapi::text().map_err(Into::into).and_then(|text| Ok(say(text)?))),
        Role::CheckProof { proof, public_key } => check_proof(&proof, &public_key),
        Role::AuditPublicKey { signing_key } => exit_code(print_public_key(&signing_key)),
    }
}

/// Starts the admin port and hands out what every long-running role needs.
async fn start(
    service: &'static str,
    log: &runtime::config::Log,
    admin: &runtime::config::Admin,
) -> anyhow::Result<(Shutdown, Health)> {
    runtime::telemetry::init(service, log);
    let (stop, health) = (Shutdown::on_signals(), Health::new());
    ops::serve(admin.listen, health.clone(), stop.clone()).await?;
    Ok((stop, health))
}

async fn run_serve() -> anyhow::Result<()> {
    let cfg: config::Serve = load()?;
    let (stop, health) = start("ingest-api-serve", &cfg.log, &cfg.admin).await?;
    let committed = Arc::new(Notify::new());
    let extras = Extras {
        clickhouse: cfg.clickhouse.as_ref(),
        privacy: cfg.privacy.as_ref(),
        budgets: cfg.budgets,
        redis: cfg.redis.as_ref(),
    };
    let served = serve::run(&cfg.postgres, &cfg.http, &cfg.auth, extras, committed, stop.clone(), health).await;
    stop.cancel();
    stop.drain(DRAIN_BUDGET - serve::STOP_MAX).await;
    served
}

async fn run_relay() -> anyhow::Result<()> {
    let cfg: config::Relay = load()?;
    let (stop, health) = start("ingest-api-relay", &cfg.log, &cfg.admin).await?;
    relay::run(&cfg.postgres, &cfg.kafka, Arc::new(Notify::new()), stop, health).await
}

async fn run_worker() -> anyhow::Result<()> {
    let cfg: config::Worker = load()?;
    let (stop, health) = start("ingest-api-worker", &cfg.log, &cfg.admin).await?;
    worker::run(&cfg.postgres, &cfg.kafka, &cfg.registry, &cfg.audit, cfg.privacy.as_ref(), stop, health).await
}

async fn run_all() -> anyhow::Result<()> {
    let cfg: config::All = load()?;
    let (stop, health) = start("ingest-api", &cfg.log, &cfg.admin).await?;
    let committed = Arc::new(Notify::new());
    let extras = Extras {
        clickhouse: cfg.clickhouse.as_ref(),
        privacy: cfg.privacy.as_ref(),
        budgets: cfg.budgets,
        redis: cfg.redis.as_ref(),
    };
    // Each part may end for a reason of its own: then all end, and the process says why.
    let ended = tokio::select! {
        ended = serve::run(&cfg.postgres, &cfg.http, &cfg.auth, extras, committed.clone(), stop.clone(), health.clone()) => ended,
        ended = relay::run(&cfg.postgres, &cfg.kafka, committed, stop.clone(), health.clone()) => ended,
        ended = worker::run(&cfg.postgres, &cfg.kafka, &cfg.registry, &cfg.audit, cfg.privacy.as_ref(), stop.clone(), health) => ended,
    };
    stop.cancel();
    stop.drain(DRAIN_BUDGET - serve::STOP_MAX).await;
    ended
}

async fn run_migrate() -> anyhow::Result<()> {
    let cfg: config::Migrate = load()?;
    runtime::telemetry::init("ingest-api-migrate", &cfg.log);
    migrate::run(&cfg).await
}

/// The limits of a task, which nobody waits for.
fn patient() -> Limits {
    Limits { statement_ms: 60_000, lock_ms: 30_000, idle_in_transaction_ms: 60_000, acquire: Duration::from_secs(10) }
}

/// A small pool for a task.
fn ledger(cfg: &config::Ledger) -> anyhow::Result<Writer> {
    Ok(Writer::new(pool_with(&cfg.postgres, "task", 2, &patient())?, &Shutdown::new()))
}

async fn create_owner(login: &str, json: bool) -> anyhow::Result<()> {
    let cfg: config::Ledger = load()?;
    runtime::telemetry::init("ingest-api-create-owner", &cfg.log);
    let owner = auth::create_owner(&ledger(&cfg)?, login).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    if json {
        println!("{}", serde_json::to_string(&owner)?);
    } else {
        println!("Owner {} made. Password (shown only now): {}", owner.login, owner.password);
    }
    Ok(())
}

async fn rotate_master_key() -> anyhow::Result<()> {
    let cfg: config::Rotate = load()?;
    runtime::telemetry::init("ingest-api-rotate-master-key", &cfg.log);
    let database = runtime::config::Postgres { url: cfg.privacy.vault_url.clone() };
    say(rotate(&cfg.privacy, pool_with(&database, "task", 1, &patient())?).await?)?;
    Ok(())
}

async fn reset_sign_in(login: &str, json: bool) -> anyhow::Result<()> {
    let cfg: config::Ledger = load()?;
    runtime::telemetry::init("ingest-api-reset-sign-in", &cfg.log);
    let writer = ledger(&cfg)?;
    let reset = auth::first_owner::reset_sign_in(&writer, login).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    if json {
        println!("{}", serde_json::to_string(&reset)?);
    } else {
        println!(
            "{}: no second factor, no session. Code for a new password (shown only now): {}",
            reset.login, reset.reset_code
        );
    }
    Ok(())
}

async fn rotate_keys(at_once: bool) -> anyhow::Result<()> {
    let cfg: config::Keys = load()?;
    runtime::telemetry::init("ingest-api-keys", &cfg.log);
    let writer = ledger(&config::Ledger { postgres: cfg.postgres, log: cfg.log })?;
    let auth = auth::Auth::new(&cfg.auth)?;
    auth::keys::read(&auth, writer.pool()).await?;
    let rotated = auth::keys::rotate(auth, &writer, at_once).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    println!("{}", serde_json::to_string(&rotated)?);
    Ok(())
}

fn count_refused(field: Field) -> anyhow::Result<()> {
    say(rate(std::io::stdin().lock(), field)?)?;
    Ok(())
}

async fn raise_epoch(reason: &str) -> anyhow::Result<()> {
    let cfg: config::Ledger = load()?;
    runtime::telemetry::init("ingest-api-raise-epoch", &cfg.log);
    let raised = epoch::raise_epoch(&ledger(&cfg)?, reason).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    eprintln!(
        "epoch {} began: {} stock levels and {} accounts resynced, {} catalog states published again",
        raised.epoch, raised.stock_levels, raised.accounts, raised.catalog
    );
    for (location, kept) in raised.kept {
        println!("{location} {kept}");
    }
    Ok(())
}

async fn run_replay(replay: Replay, by: Operator) -> anyhow::Result<()> {
    let cfg: config::Ledger = load()?;
    runtime::telemetry::init("ingest-api-replay", &cfg.log);
    Ok(say(replay.run(&ledger(&cfg)?, by).await?)?)
}

async fn run_retire(by: Operator) -> anyhow::Result<()> {
    let cfg: config::Migrate = load()?;
    runtime::telemetry::init("ingest-api-retire", &cfg.log);
    let ledger = ledger(&config::Ledger { postgres: cfg.postgres, log: cfg.log })?;
    Ok(say(serde_json::to_string(&retire::retire(&ledger, &cfg.kafka, &cfg.registry, by).await?)?)?)
}

async fn run_expire_points() -> anyhow::Result<()> {
    let cfg: config::Ledger = load()?;
    runtime::telemetry::init("ingest-api-expire-points", &cfg.log);
    let expired = expiry::expire_points(&ledger(&cfg)?, i64::MAX).await;
    let expired = expired.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(say(serde_json::to_string(&expired)?)?)
}

async fn run_redrive(redrive: Redrive, by: Operator) -> anyhow::Result<()> {
    let cfg: config::Redrive = load()?;
    runtime::telemetry::init("ingest-api-redrive", &cfg.log);
    let ledger = ledger(&config::Ledger { postgres: cfg.postgres, log: cfg.log })?;
    Ok(say(redrive.run(&ledger, &cfg.kafka, by).await?)?)
}

/// Neither configuration nor network: what a customer can run.
fn check_proof(proof: &Path, public_key: &str) -> ExitCode {
    let said = std::fs::read_to_string(proof)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(proof::check(&text, &PublicKeys::parse(public_key)?)?));
    match said {
        Ok(proof) => {
            println!("proven: {proof}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("not proven: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_public_key(signing_key: &Path) -> anyhow::Result<()> {
    println!("{}", Signer::from_pem(&std::fs::read_to_string(signing_key)?)?.public_text());
    Ok(())
}

async fn run_verify(
    json: bool,
    journal: Option<PathBuf>,
    chain: bool,
    drain: u64,
    restored_epochs: Vec<i64>,
) -> anyhow::Result<bool> {
    let cfg: config::Verify = load()?;
    // The report is the output: the log stays out of its way.
    let limits = Limits {
        statement_ms: 60_000,
        lock_ms: 5_000,
        idle_in_transaction_ms: 60_000,
        acquire: Duration::from_secs(10),
    };
    let stores = verify::Stores {
        pg: pool_with(&cfg.postgres, "verify", 4, &limits)?,
        kafka: cfg.kafka,
        registry: cfg.registry,
        redis: cfg.redis,
        clickhouse: cfg.clickhouse,
        journal,
        drain: Duration::from_secs(drain),
        trust: verify::Trust {
            keys: PublicKeys::parse(&cfg.audit.public_keys)?,
            restored: restored_epochs.into_iter().collect(),
        },
    };
    let report = if chain { verify::run_chain(&stores).await? } else { verify::run(&stores).await? };
    if json {
        say(serde_json::to_string(&report)?)?;
    } else {
        say(&report)?;
    }
    Ok(report.agrees())
}
