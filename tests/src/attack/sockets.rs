//! A46-A48: what no HTTP client would send, over plain sockets.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::ground::Ground;
use super::trial::Trial;

/// A head has to be whole after ten seconds, a body after thirty; the rest is for a machine that does other things too.
const HEAD_LIMIT: Duration = Duration::from_secs(20);
const BODY_LIMIT: Duration = Duration::from_secs(50);
/// Files of this process besides its sockets.
const OTHER_FILES: u64 = 256;

/// All that a server said before it closed, or before nothing more came.
#[derive(Debug)]
pub struct Said {
    /// Of the first answer; 0 where there is none.
    pub status: u16,
    pub text: String,
    pub is_closed: bool,
}

impl Said {
    pub fn brief(&self) -> String {
        let status = if self.status == 0 { "no answer".to_owned() } else { self.status.to_string() };
        let answers = self.text.matches("HTTP/1.1 ").count();
        let closed = if self.is_closed { ", closed" } else { ", open" };
        if answers > 1 { format!("{status} and {} more{closed}", answers - 1) } else { status + closed }
    }
}

async fn connect(ground: &Ground) -> Result<TcpStream> {
    let address = ground.api.trim_start_matches("http://");
    TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))
}

/// Sends these bytes and reads until the server closes or says nothing more for two seconds.
pub async fn say(ground: &Ground, bytes: &[u8]) -> Result<Said> {
    let mut stream = connect(ground).await?;
    // A server that has heard enough closes before everything is sent.
    stream.write_all(bytes).await.ok();
    let (mut said, mut is_closed) = (Vec::new(), false);
    loop {
        match timeout(Duration::from_secs(2), stream.read_buf(&mut said)).await {
            Err(_) => break,
            Ok(Ok(1..)) => {}
            Ok(_) => {
                is_closed = true;
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&said).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Said { status, text, is_closed })
}

/// A46
pub async fn two_lengths(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let inner = "GET /api/v1/auth/jwks HTTP/1.1\r\nhost: api\r\n\r\n";
    let post = |headers: &str, body: &str| {
        format!(
            "POST /api/v1/auth/login HTTP/1.1\r\nhost: api\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{body}"
        )
    };
    let chunked = "transfer-encoding: chunked";
    for (what, text) in [
        ("both lengths", post(&format!("content-length: 4\r\n{chunked}"), &format!("0\r\n\r\n{inner}"))),
        (
            "both lengths, the other way round",
            post(&format!("{chunked}\r\ncontent-length: 4"), &format!("0\r\n\r\n{inner}")),
        ),
        ("two Content-Lengths", post("content-length: 2\r\ncontent-length: 40", "{}")),
        ("two in one header", post("content-length: 2, 40", "{}")),
        ("a negative Content-Length", post("content-length: -1", "{}")),
        ("a Content-Length with a sign", post("content-length: +2", "{}")),
        ("a Content-Length beyond 64 bits", post("content-length: 99999999999999999999", "{}")),
        ("a chunk of no size", post(chunked, "zz\r\n{}\r\n0\r\n\r\n")),
        ("a chunk of 2^64", post(chunked, "10000000000000000\r\n{}\r\n0\r\n\r\n")),
        ("a chunk longer than it says", post(chunked, "2\r\n{}xxxx\r\n0\r\n\r\n")),
        ("a coding nobody knows", post("transfer-encoding: xchunked", &format!("0\r\n\r\n{inner}"))),
        (
            "chunked, and then something else",
            post("transfer-encoding: chunked, identity", &format!("0\r\n\r\n{inner}")),
        ),
        ("a folded header", post("x-folded: a\r\n b\r\ncontent-length: 2", "{}")),
        ("space before the colon", post("content-length : 2", "{}")),
        ("a line feed alone", post("x: 1\ncontent-length: 2", "{}").replace("\r\nhost", "\nhost")),
        ("a NUL in a header", post("x: a\0b\r\ncontent-length: 2", "{}")),
        ("no version", "GET /api/v1/auth/jwks\r\n\r\n".to_owned()),
        ("another protocol", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".to_owned()),
    ] {
        let said = say(ground, text.as_bytes()).await?;
        let is_one = said.text.matches("HTTP/1.1 ").count() <= 1;
        // Bare line feeds end lines for lenient readers; what counts is that nothing hides behind them.
        let is_refused = said.status == 400 || (said.status == 0 && said.is_closed) || what.starts_with("a line feed");
        let has_ended = said.is_closed || what.starts_with("a line feed");
        trial.holds(what, said.brief(), is_refused && has_ended && is_one && said.status < 500);
    }
    Ok(())
}

/// A47
pub async fn a_byte_a_second(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let sockets = if ground.is_full() { 2_000 } else { 200 };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = sockets + OTHER_FILES;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)?;
    }
    let heads =
        (0..sockets).map(|_| drip(ground, "GET /api/v1/auth/jwks HTTP/1.1\r\nhost: api\r\nx-slow: ", HEAD_LIMIT));
    let begun = "POST /api/v1/auth/login HTTP/1.1\r\nhost: api\r\ncontent-type: application/json\r\ncontent-length: 10000\r\n\r\n{";
    let bodies = (0..20).map(|_| drip(ground, begun, BODY_LIMIT));
    let selling = async {
        let till = ground.till(&ground.here).await?;
        let token = ground.token_of_till(&till).await?;
        let mut answers = Vec::new();
        for n in 0..10 {
            let sale = ground.sale(&till, &ground.here.cashier, n);
            answers.push(ground.selling(&token, &sale).send(&ground.caller).await?);
            sleep(Duration::from_millis(300)).await;
        }
        anyhow::Ok(answers)
    };
    let (heads, bodies, sold) = tokio::join!(join_all(heads), join_all(bodies), selling);
    for answer in sold? {
        trial.expect("a sale meanwhile", &answer, &[(201, "")]);
    }
    for (what, ended, limit) in [("head", heads, HEAD_LIMIT), ("body", bodies, BODY_LIMIT)] {
        for dripped in ended {
            let (status, after) = dripped?;
            let is_ended = after < limit && matches!(status, 0 | 408 | 503);
            let came = if status == 0 { "closed".to_owned() } else { format!("{status}, closed") };
            trial.holds(
                format!("a {what} of a byte a second"),
                if is_ended { came } else { format!("{came} after {after:?}") },
                is_ended,
            );
        }
    }
    Ok(())
}

/// Sends `begin` and then a byte a second; the status that ended it, and after what time.
async fn drip(ground: &Ground, begin: &str, limit: Duration) -> Result<(u16, Duration)> {
    let begun = Instant::now();
    let (mut read, mut write) = connect(ground).await?.into_split();
    write.write_all(begin.as_bytes()).await?;
    let dripping = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let mut said = Vec::new();
    timeout(limit, read.read_to_end(&mut said)).await.ok();
    dripping.abort();
    let text = String::from_utf8_lossy(&said).into_owned();
    Ok((text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), begun.elapsed()))
}

/// A48
pub async fn long_heads(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let get =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nhost: api\r\nconnection: close\r\n{headers}\r\n");
    let many: String = (0..500).map(|n| format!("x-{n}: 1\r\n")).collect();
    for (what, text, status) in [
        ("a header of 32 KB", get("/api/v1/auth/jwks", &format!("x: {}\r\n", "x".repeat(32 << 10))), 431),
        ("a header of 1 MB", get("/api/v1/auth/jwks", &format!("x: {}\r\n", "x".repeat(1 << 20))), 431),
        ("500 headers", get("/api/v1/auth/jwks", &many), 431),
        ("an address of 16 KB", get(&format!("/api/v1/locations?cursor={}", "x".repeat(16 << 10)), ""), 414),
        ("an address of 100 KB", get(&format!("/api/v1/{}", "x".repeat(100 << 10)), ""), 414),
    ] {
        let said = say(ground, text.as_bytes()).await?;
        // Beyond what the server reads of a head at all, it may say 431 whatever was long.
        let is_wanted = said.status == status || (what.ends_with("100 KB") && said.status == 431);
        trial.holds(what, said.brief(), is_wanted && said.is_closed);
    }
    Ok(())
}
