//! The Redis connection: every wait has an end, and a lost connection comes back by itself.

use std::time::Duration;

use redis::aio::ConnectionManager;
use runtime::config;
use runtime::redis::connect;
use tokio::net::TcpListener;

use crate::support::{suffix, until};

/// Far above the limits under test: it only ends a wait that has none.
const FOREVER: Duration = Duration::from_secs(60);

fn at(url: &str) -> config::Redis {
    config::Redis { url: url.to_owned().into() }
}

fn server() -> ConnectionManager {
    match std::env::var("VORCA__REDIS__URL") {
        Ok(url) => connect(&at(&url)).unwrap(),
        Err(_) => panic!("VORCA__REDIS__URL is not set: run ./dev test"),
    }
}

async fn ping(connection: &mut ConnectionManager) -> redis::RedisResult<String> {
    let ask = redis::cmd("PING");
    tokio::time::timeout(FOREVER, ask.query_async(connection)).await.expect("an end")
}

#[tokio::test]
async fn a_command_without_an_answer_is_given_up() {
    let mut connection = server();
    assert_eq!(ping(&mut connection).await.unwrap(), "PONG");
    let mut wait = redis::cmd("BLPOP");
    wait.arg(format!("test:{}", suffix())).arg(0);
    let waited = tokio::time::timeout(FOREVER, wait.query_async::<redis::Value>(&mut connection)).await;
    assert!(waited.expect("the limit of an answer").unwrap_err().is_timeout());
}

#[tokio::test]
async fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let held = tokio::spawn(async move {
        let mut sockets = Vec::new();
        while let Ok((socket, _)) = silent.accept().await {
            sockets.push(socket);
        }
    });
    let mut connection = connect(&at(&format!("redis://{address}/0"))).unwrap();
    assert!(ping(&mut connection).await.is_err());
    held.abort();
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let (mut connection, mut other) = (server(), server());
    let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await.unwrap();
    let killed: i64 = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(&mut other).await.unwrap();
    assert_eq!(killed, 1);
    // What was in flight at the loss fails; what comes after it does not.
    until("the connection is made again".to_owned(), async || Ok(ping(&mut connection).await?)).await;
    let now: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await.unwrap();
    assert_ne!(now, id);
}

#[test]
fn an_unusable_address_is_named_at_the_start() {
    let error = connect(&at("http://127.0.0.1")).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("VORCA__REDIS__URL"), "{error}");
}
