//! Load on the sale route over plain keep-alive connections, by a generator lean enough to share two cores with what
//! it measures: each request is bytes made beforehand, each answer is read to its end and judged by its status.
//!
//! Two models. `open`: arrivals on a schedule that no slow answer holds back, latency counted from the scheduled
//! instant (no coordinated omission). `saturate`: a fixed number always waiting, which finds the maximum.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::machine::thread_cpu;

/// Connections of the open model. An arrival that finds all of them waiting waits too, and its latency says so.
const CONNECTIONS: usize = 256;

/// Where the next request comes from; None ends the run.
pub type Source = Arc<dyn Fn() -> Option<Bytes> + Send + Sync>;

/// Requests made beforehand, each handed out once.
pub fn prepared(shots: Vec<Bytes>) -> Source {
    let next = AtomicU64::new(0);
    Arc::new(move || shots.get(next.fetch_add(1, Ordering::Relaxed) as usize).cloned())
}

/// What a run did. Latencies in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct LoadResult {
    pub offered_per_s: Option<f64>,
    pub waiting: usize,
    pub sold: u64,
    pub sold_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// CPU time of the generator, microseconds a sale.
    pub generator_us: f64,
}

/// Latencies in microseconds, sorted.
#[derive(Default)]
struct Latencies(Vec<u32>);

impl Latencies {
    fn ms(&self, q: f64) -> f64 {
        let at = ((self.0.len() as f64 * q) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(0.0, |us| f64::from(*us) / 1_000.0)
    }
}

/// Sends to the sale route of one API.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    api: SocketAddr,
    /// Status of every answer.
    expected: u16,
}

impl Load {
    /// `api` as in the endpoints: `http://127.0.0.1:PORT`.
    pub fn new(api: &str) -> anyhow::Result<Load> {
        let address = api.trim_start_matches("http://").trim_end_matches('/');
        Ok(Load { api: address.parse().with_context(|| format!("{api} is no plain address"))?, expected: 201 })
    }

    /// The same where every answer has to have this status.
    pub fn expecting(self, expected: u16) -> Load {
        Load { expected, ..self }
    }

    /// `rate` arrivals a second for `duration`.
    pub async fn open(self, rate: f64, duration: Duration, source: Source) -> anyhow::Result<LoadResult> {
        self.run(Some(rate), CONNECTIONS, duration, source).await
    }

    /// `waiting` requests in flight for `duration`.
    pub async fn saturate(self, waiting: usize, duration: Duration, source: Source) -> anyhow::Result<LoadResult> {
        self.run(None, waiting, duration, source).await
    }

    /// On a thread of its own, whose CPU time is the generator's.
    async fn run(
        self,
        rate: Option<f64>,
        connections: usize,
        duration: Duration,
        source: Source,
    ) -> anyhow::Result<LoadResult> {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let cpu = thread_cpu();
                let (latencies, took) = self.drive(rate, connections, duration, source).await?;
                let sold = latencies.0.len() as u64;
                ensure!(sold > 0, "nothing was sold");
                Ok(LoadResult {
                    offered_per_s: rate,
                    waiting: connections,
                    sold,
                    sold_per_s: sold as f64 / took.as_secs_f64(),
                    p50_ms: latencies.ms(0.5),
                    p99_ms: latencies.ms(0.99),
                    p999_ms: latencies.ms(0.999),
                    max_ms: latencies.ms(1.0),
                    generator_us: (thread_cpu() - cpu).as_secs_f64() * 1e6 / sold as f64,
                })
            })
        };
        tokio::task::spawn_blocking(run).await?
    }

    async fn drive(
        self,
        rate: Option<f64>,
        connections: usize,
        duration: Duration,
        source: Source,
    ) -> anyhow::Result<(Latencies, Duration)> {
        let mut open = Vec::with_capacity(connections);
        for _ in 0..connections {
            open.push(Connection::open(self.api).await.context("connecting to the API")?);
        }
        let (arrivals, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut running = tokio::task::JoinSet::new();
        for connection in open {
            running.spawn(connection.sell(rate, started, duration, arrivals.clone(), source.clone(), self.expected));
        }
        let mut all = Latencies::default();
        while let Some(done) = running.join_next().await {
            all.0.extend(done??);
        }
        let took = started.elapsed();
        all.0.sort_unstable();
        Ok((all, took))
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(api: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(api).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(8 << 10) })
    }

    /// Sells until the time is over or the source is empty; any other answer ends the run: a benchmark of refusals
    /// would flatter.
    async fn sell(
        mut self,
        rate: Option<f64>,
        started: Instant,
        duration: Duration,
        arrivals: Arc<AtomicU64>,
        source: Source,
        expected: u16,
    ) -> anyhow::Result<Vec<u32>> {
        let mut latencies = Vec::new();
        loop {
            let due = match rate {
                Some(rate) => {
                    let arrival = arrivals.fetch_add(1, Ordering::Relaxed);
                    started + Duration::from_secs_f64(arrival as f64 / rate)
                }
                None => Instant::now(),
            };
            if due >= started + duration {
                return Ok(latencies);
            }
            if due > Instant::now() {
                tokio::time::sleep_until(due.into()).await;
            }
            let Some(shot) = source() else { return Ok(latencies) };
            let status = self.fire(&shot).await.context("the connection to the API")?;
            ensure!(status == expected, "a request was answered {status}: {}", String::from_utf8_lossy(&self.buffer));
            latencies.push(due.elapsed().as_micros() as u32);
        }
    }

    /// Sends one request and reads its whole answer.
    async fn fire(&mut self, shot: &[u8]) -> io::Result<u16> {
        self.stream.write_all(shot).await?;
        self.buffer.clear();
        let mut end = None;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if end.is_none() {
                end = answer_end(&self.buffer);
            }
            if end.is_some_and(|end| self.buffer.len() >= end) {
                let status = self.buffer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
                return status.and_then(|digits| digits.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// Length of the whole answer, once its head is complete.
fn answer_end(read: &[u8]) -> Option<usize> {
    let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&read[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some(head + length.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        assert_eq!(answer_end(b"HTTP/1.1 201 Created\r\nContent-Le"), None);
        let head = b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(answer_end(head), Some(head.len() + 12));
    }

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let latencies = Latencies((1..=1_000).map(|ms| ms * 1_000).collect());
        assert_eq!((latencies.ms(0.5), latencies.ms(0.99), latencies.ms(1.0)), (501.0, 991.0, 1_000.0));
    }
}
