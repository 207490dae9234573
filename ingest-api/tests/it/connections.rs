//! The door of the API on a real listener: clients that take their time, and more of them than there is room for.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use runtime::config::Http;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::process::Served;
use crate::rig::{DEADLINE, eventually};
use crate::sales::till;

const BEGUN: &str = "GET /api/v1/openapi.json HTTP/1.1\r\nhost: here\r\nx-slow: ";
const WHOLE: &str = "GET /api/v1/openapi.json HTTP/1.1\r\nhost: here\r\n\r\n";

async fn served(options: &PgConnectOptions, connections_max: u32) -> Served {
    let connections_max = NonZeroU32::new(connections_max).unwrap();
    Served::start(options, |address| Http { connections_max, ..Http::at(address) }).await
}

/// Sends `begin` and then a byte a second for as long as the server takes it; all that it said, and after what time.
async fn drip(to: SocketAddr, begin: String) -> (String, Duration) {
    let began = Instant::now();
    let (mut read, mut write) = TcpStream::connect(to).await.unwrap().into_split();
    write.write_all(begin.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let mut said = Vec::new();
    let ended = timeout(DEADLINE, read.read_to_end(&mut said)).await;
    dripping.abort();
    // An end by reset is an end: what was said before it has been read.
    assert!(ended.is_ok(), "the server goes on listening to {begin:?}");
    (String::from_utf8_lossy(&said).into_owned(), began.elapsed())
}

fn slow_body(path: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "POST /api/v1{path} HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\nidempotency-key: slow\r\n\
         {authorization}content-length: 10000\r\n\r\n{{"
    )
}

/// A connection over which one request has been answered with this status.
async fn answered(to: SocketAddr) -> (TcpStream, u16) {
    let mut client = TcpStream::connect(to).await.unwrap();
    let status = ask(&mut client).await;
    (client, status)
}

/// Status of one more request over a connection; 0 when the server has closed it.
async fn ask(client: &mut TcpStream) -> u16 {
    let mut said = Vec::new();
    if client.write_all(WHOLE.as_bytes()).await.is_ok() {
        let is_read = |said: &[u8]| {
            let text = String::from_utf8_lossy(said).to_ascii_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            length.is_some_and(|length| body.len() as u64 >= length.parse().unwrap())
        };
        while !is_read(&said) && matches!(client.read_buf(&mut said).await, Ok(1..)) {}
    }
    String::from_utf8_lossy(&said).split(' ').nth(1).map_or(0, |status| status.parse().unwrap())
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn who_sends_a_byte_a_second_is_given_up_on_and_holds_up_no_sale(pool: PgPool) {
    let till = till(&pool).await;
    let token = till.caller.token.clone().unwrap();
    let Served { address, stop, serving } = served(pool.connect_options().as_ref(), 64).await;
    let (mut idle, status) = answered(address).await;
    assert_eq!(status, 200);
    let heads: Vec<_> = (0..8).map(|_| tokio::spawn(drip(address, BEGUN.to_owned()))).collect();
    // More than there are lanes, connections to Postgres for the gate, and for writes.
    let sales = (0..8).map(|_| slow_body("/sales", Some(&token)));
    let receipts = (0..8).map(|_| slow_body("/stock/receipts", till.world.owner.token.as_deref()));
    let bodies = sales.chain(receipts).chain([slow_body("/auth/login", None)]);
    let bodies: Vec<_> = bodies.map(|begin| tokio::spawn(drip(address, begin))).collect();

    let http = reqwest::Client::new();
    for number in 1..=5 {
        let sale = till.sale(number);
        let request = http.post(format!("http://{address}/api/v1/sales")).bearer_auth(&token).json(&sale);
        let answer = request.header("idempotency-key", number.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    }
    assert!(bodies.iter().all(|body| !body.is_finished()), "they are still being sent");

    for head in heads {
        let (said, after) = head.await.unwrap();
        assert!(said.is_empty() && after >= Duration::from_secs(10), "{said:?} after {after:?}");
    }
    for body in bodies {
        let (said, after) = body.await.unwrap();
        assert!(said.starts_with("HTTP/1.1 408 ") && after >= Duration::from_secs(30), "{said} after {after:?}");
        assert!(said.contains("application/problem+json") && said.contains("\"request_timeout\""), "{said}");
    }
    assert_eq!(ask(&mut idle).await, 200, "who has said all there was to say may stay");
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert!(stop.drain(DEADLINE).await, "a lane still runs");
}

/// These limits are long, and have to be waited for.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn who_says_nothing_more_and_who_drags_out_a_bulk_write_are_let_go(pool: PgPool) {
    let till = till(&pool).await;
    let Served { address, .. } = served(pool.connect_options().as_ref(), 8).await;
    let bulk = slow_body("/catalog/upsert", till.world.owner.token.as_deref());
    let bulk = tokio::spawn(drip(address, bulk));
    let (mut idle, status) = answered(address).await;
    let since = Instant::now();
    assert_eq!(status, 200);
    let closed = timeout(DEADLINE, idle.read_u8()).await.expect("an idle client is never let go");
    assert!(closed.is_err() && since.elapsed() >= Duration::from_secs(74), "{closed:?} after {:?}", since.elapsed());
    let (said, after) = bulk.await.unwrap();
    assert!(said.starts_with("HTTP/1.1 408 ") && after >= Duration::from_secs(60), "{said} after {after:?}");
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn beyond_the_limit_a_client_is_told_so_until_another_one_leaves(pool: PgPool) {
    let Served { address, .. } = served(pool.connect_options().as_ref(), 3).await;
    let mut guests = Vec::new();
    while guests.len() < 3 {
        // The look whether it listens may still count.
        let guest = eventually(async || match answered(address).await {
            (guest, 200) => Ok(guest),
            (_, status) => Err(format!("answered {status}")),
        });
        guests.push(guest.await);
    }
    let http = reqwest::Client::new();
    let url = format!("http://{address}/api/v1/openapi.json");
    let refused = http.get(&url).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!((&problem["code"], &problem["retryable"]), (&"overloaded".into(), &true.into()));
    assert_ne!(problem["request_id"], "");

    // Those who say nothing while they are turned away use up no more than the room for that.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let hung_up = silent.last_mut().unwrap().read_u8().await;
    assert!(hung_up.is_err(), "{hung_up:?}");

    for guest in &mut guests {
        assert_eq!(ask(guest).await, 200, "who is in stays in");
    }
    guests.pop();
    eventually(async || match answered(address).await.1 {
        200 => Ok(()),
        status => Err(format!("answered {status}")),
    })
    .await;
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn slow_clients_cannot_keep_the_door_shut(pool: PgPool) {
    let Served { address, .. } = served(pool.connect_options().as_ref(), 2).await;
    let slow: Vec<_> = (0..2).map(|_| tokio::spawn(drip(address, BEGUN.to_owned()))).collect();
    eventually(async || match answered(address).await.1 {
        200 => Ok(()),
        status => Err(format!("answered {status}")),
    })
    .await;
    for one in slow {
        one.await.unwrap();
    }
}
