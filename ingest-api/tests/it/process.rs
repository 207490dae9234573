//! The process itself: what it refuses to start with, and what does not hold up its end.

use std::process::Command;
use std::sync::Arc;

use ingest_api::serve;
use runtime::config::{Http, Postgres};
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

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

#[sqlx::test(migrations = "../migrations/postgres")]
async fn half_a_request_does_not_hold_up_the_stop(_: PgPoolOptions, options: PgConnectOptions) {
    schemas::codec::init();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stop = Shutdown::new();
    let serving = {
        let (stop, url) = (stop.clone(), options.to_url_lossy().to_string());
        tokio::spawn(async move {
            let (postgres, http) = (Postgres { url: url.into() }, Http { listen, trusted_proxies: Default::default() });
            serve::run(&postgres, &http, &auth_config(), None, Arc::default(), stop, Health::new()).await
        })
    };
    eventually(async || {
        assert!(!serving.is_finished(), "it ended");
        TcpStream::connect(listen).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let mut halves = Vec::new();
    for _ in 0..8 {
        let mut half = TcpStream::connect(listen).await.unwrap();
        half.write_all(b"GET /api/v1/openapi.json HTTP/1.1\r\nhost: here\r\nx-half: ").await.unwrap();
        halves.push(half);
    }
    // Requests that come later are answered, so the halves have been taken too.
    for _ in 0..3 {
        let whole = reqwest::get(format!("http://{listen}/api/v1/openapi.json")).await.unwrap();
        assert_eq!(whole.status(), 200);
    }
    stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, serving).await.expect("half a request holds up the stop");
    ended.unwrap().unwrap();
    assert!(stop.drain(DEADLINE).await, "a lane still runs");
    drop(halves);
}
