//! The process itself: what it refuses to start with, and what does not hold up its end.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use ingest_api::serve::{self, Extras};
use runtime::config::{Http, Postgres, Quotas};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use secrecy::ExposeSecret as _;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::rig::{DEADLINE, eventually};
use crate::world::auth_config;

/// Looked at before anything is connected: no Postgres is there.
#[test]
fn a_signing_key_that_is_none_stops_the_start_and_names_its_variable() {
    let done = Command::new(env!("CARGO_BIN_EXE_ingest-api"))
        .arg("serve")
        .env_clear()
        .envs([
            ("VORCA__POSTGRES__URL", "postgres://nobody:x@127.0.0.1:1/none"),
            ("VORCA__HTTP__LISTEN", "127.0.0.1:0"),
            ("VORCA__ADMIN__LISTEN", "127.0.0.1:0"),
            ("VORCA__AUTH__SIGNING_KEY", "c2VjcmV0IGJ1dCBubyBrZXk="),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(78), "{said}");
    assert!(said.contains("VORCA__AUTH__SIGNING_KEY"), "{said}");
    assert!(!said.contains("c2VjcmV0"), "{said}");
}

/// Keys of personal data that are none, too: the variable is named, the value is not.
#[test]
fn keys_that_are_none_stop_the_start_and_are_not_repeated() {
    let (good, short) = (ingest_api::privacy::new_key(), "c2hvcnQgc2VjcmV0");
    for (master, lookup, url, named) in [
        (short, good.as_str(), "postgres://v:hidden@127.0.0.1:1/v", "VORCA__PRIVACY__MASTER_KEYS"),
        (good.as_str(), short, "postgres://v:hidden@127.0.0.1:1/v", "VORCA__PRIVACY__LOOKUP_KEY"),
        (good.as_str(), good.as_str(), "v:hidden@127.0.0.1", "VORCA__PRIVACY__VAULT_URL"),
    ] {
        let done = Command::new(env!("CARGO_BIN_EXE_ingest-api"))
            .arg("serve")
            .env_clear()
            .envs([
                ("VORCA__POSTGRES__URL", "postgres://nobody:x@127.0.0.1:1/none"),
                ("VORCA__HTTP__LISTEN", "127.0.0.1:0"),
                ("VORCA__ADMIN__LISTEN", "127.0.0.1:0"),
                ("VORCA__AUTH__SIGNING_KEY", auth_config().signing_key.expose_secret()),
                ("VORCA__PRIVACY__MASTER_KEYS", master),
                ("VORCA__PRIVACY__LOOKUP_KEY", lookup),
                ("VORCA__PRIVACY__VAULT_URL", url),
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(78), "{said}");
        assert!(said.contains(named), "{said}");
        for secret in [short, &good, "hidden", "MC4CAQAwBQYDK2Vw"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

/// Whatever is wrong with a variable, its name is told and its value is not.
#[test]
fn no_value_of_a_variable_is_in_an_error_of_the_start() {
    const CANARY: &str = "Canary4711";
    let (key, good) = (auth_config(), ingest_api::privacy::new_key());
    let usual = [
        ("VORCA__POSTGRES__URL", "postgres://nobody:x@127.0.0.1:1/none"),
        ("VORCA__HTTP__LISTEN", "127.0.0.1:0"),
        ("VORCA__ADMIN__LISTEN", "127.0.0.1:0"),
        ("VORCA__AUTH__SIGNING_KEY", key.signing_key.expose_secret()),
        ("VORCA__PRIVACY__MASTER_KEYS", good.as_str()),
        ("VORCA__PRIVACY__LOOKUP_KEY", good.as_str()),
        ("VORCA__PRIVACY__VAULT_URL", "postgres://v:x@127.0.0.1:1/v"),
    ];
    for (variable, wrong) in [
        ("VORCA__POSTGRES__URL", "postgres://u:Canary4711@h:x/d"),
        ("VORCA__REDIS__URL", "redis://:Canary4711@h:x"),
        ("VORCA__CLICKHOUSE__PASSWORD", CANARY),
        ("VORCA__AUTH__SIGNING_KEY", CANARY),
        ("VORCA__AUTH__SIGNING_KEY_FILE", CANARY),
        ("VORCA__AUTH__SIGNING_KEYS", CANARY),
        ("VORCA__PRIVACY__MASTER_KEYS", CANARY),
        ("VORCA__PRIVACY__LOOKUP_KEY", CANARY),
        ("VORCA__PRIVACY__VAULT_URL", CANARY),
        ("VORCA__SECRET__OF_NOBODY", CANARY),
        ("VORCA__HTTP__CORS_ORIGINS", CANARY),
        ("VORCA__BUDGETS__TILL", CANARY),
        ("VORCA__BUDGETS__SIGN_IN", "0/60"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingest-api"));
        command.arg("serve").env_clear().envs(usual).env(variable, wrong);
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
        let section = variable.rsplit_once("__").unwrap().0;
        assert_eq!(done.status.code(), Some(78), "{variable}: {said}");
        assert!(said.contains(section) && !said.contains(CANARY), "{variable}: {said}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done = Command::new(env!("CARGO_BIN_EXE_ingest-api")).arg("openapi").stdout(writer).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

/// The `serve` role on a real listener.
pub struct Served {
    pub address: SocketAddr,
    pub stop: Shutdown,
    pub serving: JoinHandle<anyhow::Result<()>>,
}

impl Served {
    /// On this database; `http` says how it listens on an address that nobody uses.
    pub async fn start(options: &PgConnectOptions, http: impl FnOnce(SocketAddr) -> Http) -> Served {
        Self::limited(options, http, Quotas::default()).await
    }

    /// The same with budgets of its own.
    pub async fn limited(options: &PgConnectOptions, http: impl FnOnce(SocketAddr) -> Http, budgets: Quotas) -> Served {
        schemas::codec::init();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (stop, http) = (Shutdown::new(), http(address));
        let serving = {
            let (stop, url) = (stop.clone(), options.to_url_lossy().to_string());
            tokio::spawn(async move {
                let postgres = Postgres { url: url.into() };
                let extras = Extras { budgets, ..Extras::default() };
                serve::run(&postgres, &http, &auth_config(), extras, Arc::default(), stop, Health::new()).await
            })
        };
        eventually(async || {
            assert!(!serving.is_finished(), "it ended");
            TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Served { address, stop, serving }
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn half_a_request_does_not_hold_up_the_stop(_: PgPoolOptions, options: PgConnectOptions) {
    let Served { address, stop, serving } = Served::start(&options, Http::at).await;
    let mut halves = Vec::new();
    for _ in 0..8 {
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /api/v1/openapi.json HTTP/1.1\r\nhost: here\r\nx-half: ").await.unwrap();
        halves.push(half);
    }
    // Requests that come later are answered, so the halves have been taken too.
    for _ in 0..3 {
        let whole = reqwest::get(format!("http://{address}/api/v1/openapi.json")).await.unwrap();
        assert_eq!(whole.status(), 200);
    }
    stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, serving).await.expect("half a request holds up the stop");
    ended.unwrap().unwrap();
    assert!(stop.drain(DEADLINE).await, "a lane still runs");
    drop(halves);
}
