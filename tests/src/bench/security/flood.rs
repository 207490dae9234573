//! Sales at a steady rate, with and without a flood of log-ins beside them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::super::load::{Load, prepared};
use super::super::shop::{Shop, Spread};
use super::super::{Ratio, Stage};

const SALES_PER_S: f64 = 300.0;
const SECONDS: u64 = 10;
/// Log-ins in flight: more than run and wait for the password hash together.
const IN_FLIGHT: usize = 120;
/// Between an answer and the next guess: some 500 log-ins a second, ten times what a core can hash, which leaves the cores
/// to those who answer them.
const PAUSE: Duration = Duration::from_millis(240);

#[derive(Debug, Clone, Serialize)]
pub struct FloodReport {
    pub offered_per_s: f64,
    /// Of the sales, in pairs.
    pub calm_p99_ms: Ratio,
    pub flooded_p99_ms: Ratio,
    /// Log-ins by the status that answered them.
    pub answers: BTreeMap<u16, u64>,
}

pub async fn measure(stage: &Stage, shop: &mut Shop, pairs: usize) -> Result<FloodReport> {
    let api = stage.stack.endpoints()?.api;
    let address: SocketAddr = api.trim_start_matches("http://").trim_end_matches('/').parse().context("the API")?;
    let (mut calm, mut flooded, mut answers) = (Vec::new(), Vec::new(), BTreeMap::new());
    for n in 1..=pairs {
        calm.push(sell(&api, shop).await?);
        let (stop, source) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(n as u32 * 100_000)));
        let guests = (0..IN_FLIGHT).map(|_| tokio::spawn(guess(address, stop.clone(), source.clone())));
        let guests: Vec<_> = guests.collect();
        flooded.push(sell(&api, shop).await?);
        stop.store(true, Ordering::Relaxed);
        for guest in guests {
            for (status, count) in guest.await?? {
                *answers.entry(status).or_default() += count;
            }
        }
        eprintln!("  pair {n}: p99 {:.1} ms calm, {:.1} ms beside the flood", calm[n - 1], flooded[n - 1]);
    }
    Ok(FloodReport {
        offered_per_s: SALES_PER_S,
        calm_p99_ms: Ratio::of(calm),
        flooded_p99_ms: Ratio::of(flooded),
        answers,
    })
}

async fn sell(api: &str, shop: &mut Shop) -> Result<f64> {
    shop.renew_tokens().await?;
    let shots = shop.shots((SALES_PER_S * SECONDS as f64) as usize + 1, Spread::Uniform)?;
    Ok(Load::new(api)?.open(SALES_PER_S, Duration::from_secs(SECONDS), prepared(shots)).await?.p99_ms)
}

/// Wrong passwords, each from an address and for a log-in name that nobody has seen, so that no lock answers instead of
/// the hash.
async fn guess(api: SocketAddr, stop: Arc<AtomicBool>, source: Arc<AtomicU32>) -> Result<BTreeMap<u16, u64>> {
    let mut answers = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let n = source.fetch_add(1, Ordering::Relaxed);
        let socket = TcpSocket::new_v4()?;
        let [_, a, b, c] = n.to_be_bytes();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, a.max(1), b, c), 0)))?;
        let mut stream = socket.connect(api).await.context("connecting to the API")?;
        let body = format!(r#"{{"login":"guess-{n}","password":"not the password {n}"}}"#);
        let shot = format!(
            "POST /api/v1/auth/login HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(shot.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        *answers.entry(status.context("an answer without a status")?).or_default() += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(answers)
}
