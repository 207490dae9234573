//! Sales through REST beside pgbench writing the same rows, and hot rows beside our own uniform rate.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::load::{Load, LoadResult, prepared};
use super::machine::{SyncProbe, median, service_cpu};
use super::peer::{self, Peer, PeerResult, Written};
use super::shop::{Shop, Spread};
use super::{Options, Ratio, Stage};
use crate::stack::Service;

/// The disk is busy with something else: the pair is measured again.
const SYNC_P99_MAX_MS: f64 = 2.0;
/// Pairs that may be thrown away for it.
const DISCARDS_MAX: u32 = 10;
/// Requests waiting, of which the best is taken; the same is done for the peer's connections.
const WAITING: [usize; 3] = [64, 128, 256];
const CLIENTS: [u32; 3] = [8, 16, 32];

/// One measured run of ours with what it cost.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    #[serde(flatten)]
    pub load: LoadResult,
    /// CPU microseconds a sale.
    pub api_us: f64,
    pub postgres_us: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    pub probe: SyncProbe,
    pub ours: Run,
    pub peer: PeerResult,
    pub peer_postgres_us: f64,
}

/// The whole result.
#[derive(Debug, Clone, Serialize)]
pub struct IngestReport {
    pub pairs: Vec<Pair>,
    pub discarded: u32,
    pub ratio: Ratio,
    pub sales_per_s: f64,
    pub peer_sales_per_s: f64,
    /// At half the maximum, open model.
    pub at_half: Run,
    /// One request at a time.
    pub lone: Run,
    pub written: Vec<Written>,
    pub peer_written: Vec<Written>,
    /// Offered rates and what came of them.
    pub curve: Vec<Run>,
}

/// Hot rows against uniform, alternating.
#[derive(Debug, Clone, Serialize)]
pub struct HotReport {
    pub uniform: Vec<Run>,
    pub hot: Vec<Run>,
    pub ratio: Ratio,
}

/// An API with a business, and nothing right of Postgres at work.
pub struct Ingest<'a> {
    stage: &'a Stage,
    options: &'a Options,
    shop: Shop,
    load: Load,
    waiting: usize,
}

impl<'a> Ingest<'a> {
    pub async fn open(stage: &'a Stage, options: &'a Options) -> Result<Ingest<'a>> {
        stage.start(&[Service::Api]).await?;
        let endpoints = stage.stack.endpoints()?;
        let mut shop = Shop::open(&endpoints).await.context("making the business")?;
        shop.renew_tokens().await?;
        let mut it = Ingest { stage, options, shop, load: Load::new(&endpoints.api)?, waiting: WAITING[1] };
        // Warms caches, plans and the sample the peer copies its bytes from.
        it.saturate(64, Spread::Uniform, 2).await?;
        Ok(it)
    }

    /// The full comparison.
    pub async fn measure(&mut self) -> Result<IngestReport> {
        let peer = self.copy().await?;
        let clients = self.best_clients(&peer).await?;
        self.waiting = self.best_waiting().await?;
        let (mut pairs, mut discarded) = (Vec::new(), 0);
        while pairs.len() < self.options.pairs {
            let probe = SyncProbe::take(&self.stage.stack.layout().run)?;
            if probe.p99_ms > SYNC_P99_MAX_MS && discarded < DISCARDS_MAX {
                discarded += 1;
                continue;
            }
            let ours = self.saturate(self.waiting, Spread::Uniform, self.options.seconds).await?;
            self.stage.checkpoint().await?;
            let before = service_cpu(&self.stage.stack, Service::Postgres)?;
            let theirs = peer.run(clients, self.options.seconds, &self.stage.stack.layout().run).await?;
            let used = service_cpu(&self.stage.stack, Service::Postgres)? - before;
            let peer_postgres_us = used * 1e6 / (theirs.sales_per_s * self.options.seconds as f64);
            eprintln!(
                "  pair {}: {:.0} sales/s, p99 {:.1} ms beside {:.0} sales/s of pgbench: {:.1}x",
                pairs.len() + 1,
                ours.load.sold_per_s,
                ours.load.p99_ms,
                theirs.sales_per_s,
                ours.load.sold_per_s / theirs.sales_per_s
            );
            pairs.push(Pair { probe, ours, peer: theirs, peer_postgres_us });
        }
        let ratio = Ratio::of(pairs.iter().map(|pair| pair.ours.load.sold_per_s / pair.peer.sales_per_s));
        let sales_per_s = median(pairs.iter().map(|pair| pair.ours.load.sold_per_s));
        let at_half = self.offered(sales_per_s / 2.0).await?;
        let mut curve = Vec::new();
        for share in [0.25, 0.75, 0.9] {
            curve.push(self.offered(sales_per_s * share).await?);
        }
        let lone = self.saturate(1, Spread::Uniform, self.options.seconds).await?;
        Ok(IngestReport {
            peer_sales_per_s: median(pairs.iter().map(|pair| pair.peer.sales_per_s)),
            pairs,
            discarded,
            ratio,
            sales_per_s,
            at_half,
            lone,
            written: peer::written(&self.stage.superuser()?).await?,
            peer_written: peer::written(&peer.url).await?,
            curve,
        })
    }

    /// One location and five products beside uniform.
    pub async fn hot(&mut self) -> Result<HotReport> {
        let (mut uniform, mut hot) = (Vec::new(), Vec::new());
        for n in 1..=self.options.pairs {
            uniform.push(self.saturate(self.waiting, Spread::Uniform, self.options.seconds).await?);
            hot.push(self.saturate(self.waiting, Spread::Hot, self.options.seconds).await?);
            let (a, b) = (&uniform[n - 1].load, &hot[n - 1].load);
            eprintln!(
                "  pair {n}: uniform {:.0} sales/s, hot {:.0} (p99 {:.1} ms): {:.2}",
                a.sold_per_s,
                b.sold_per_s,
                b.p99_ms,
                b.sold_per_s / a.sold_per_s
            );
        }
        let ratio =
            Ratio::of(hot.iter().zip(&uniform).map(|(hot, uniform)| hot.load.sold_per_s / uniform.load.sold_per_s));
        Ok(HotReport { uniform, hot, ratio })
    }

    /// Sells until `records` wait in the outbox.
    pub async fn backlog(&mut self, records: i64) -> Result<()> {
        while self.stage.waiting_records().await? < records {
            let run = self.saturate(self.waiting, Spread::Uniform, 10).await?;
            eprintln!("  {} records wait ({:.0} sales/s)", self.stage.waiting_records().await?, run.load.sold_per_s);
        }
        Ok(())
    }

    async fn copy(&mut self) -> Result<Peer> {
        self.stage.stop(&[Service::Api]).await?;
        let peer = Peer::copy_of(&self.stage.superuser()?, "vorca").await?;
        self.stage.start(&[Service::Api]).await?;
        Ok(peer)
    }

    async fn best_clients(&self, peer: &Peer) -> Result<u32> {
        let mut best = (0.0, CLIENTS[0]);
        for clients in CLIENTS {
            let run = peer.run(clients, 4, &self.stage.stack.layout().run).await?;
            eprintln!("  pgbench with {clients} connections: {:.0} sales/s", run.sales_per_s);
            if run.sales_per_s > best.0 {
                best = (run.sales_per_s, clients);
            }
        }
        Ok(best.1)
    }

    async fn best_waiting(&mut self) -> Result<usize> {
        let mut best = (0.0, WAITING[0]);
        for waiting in WAITING {
            let run = self.saturate(waiting, Spread::Uniform, 4).await?.load;
            eprintln!("  ours with {waiting} waiting: {:.0} sales/s, p99 {:.1} ms", run.sold_per_s, run.p99_ms);
            if run.sold_per_s > best.0 {
                best = (run.sold_per_s, waiting);
            }
        }
        Ok(best.1)
    }

    /// Requests for `seconds` at the highest rate that can be, made before the clock starts.
    async fn saturate(&mut self, waiting: usize, spread: Spread, seconds: u64) -> Result<Run> {
        self.shop.renew_tokens().await?;
        let shots = self.shop.shots(self.options.rate_max * seconds as usize, spread)?;
        self.stage.checkpoint().await?;
        let load = self.load;
        self.costed(async move { load.saturate(waiting, Duration::from_secs(seconds), prepared(shots)).await }).await
    }

    async fn offered(&mut self, rate: f64) -> Result<Run> {
        self.shop.renew_tokens().await?;
        let seconds = self.options.seconds * 2;
        let shots = self.shop.shots((rate * seconds as f64) as usize + 1, Spread::Uniform)?;
        self.stage.checkpoint().await?;
        let load = self.load;
        let run =
            self.costed(async move { load.open(rate, Duration::from_secs(seconds), prepared(shots)).await }).await?;
        eprintln!("  offered {rate:.0}/s: p50 {:.1} ms, p99 {:.1} ms", run.load.p50_ms, run.load.p99_ms);
        Ok(run)
    }

    async fn costed(&self, run: impl Future<Output = Result<LoadResult>>) -> Result<Run> {
        let cpu = || -> Result<[f64; 2]> {
            let stack = &self.stage.stack;
            Ok([service_cpu(stack, Service::Api)?, service_cpu(stack, Service::Postgres)?])
        };
        let before = cpu()?;
        let load = run.await?;
        let after = cpu()?;
        let a_sale = |n: usize| (after[n] - before[n]) * 1e6 / load.sold as f64;
        Ok(Run { api_us: a_sale(0), postgres_us: a_sale(1), load })
    }
}
