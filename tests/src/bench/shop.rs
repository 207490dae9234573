//! The sales of the benchmarks: three lines, one cash tender, one sale in five by a member. Uniform over 50 locations
//! and their 1,000 variants, or hot: one location and five products.

use std::sync::Mutex;

use anyhow::{Context, Result};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use schemas::money::RoundingMode;
use uuid::Uuid;

use crate::demo::business::{Business, TAX_PROFILES, VARIANTS};
use crate::demo::planner::Issued;
use crate::demo::{self, make, selling};
use crate::endpoints::Endpoints;
use crate::terminal::Terminal;
use crate::till_pricing::{Reduction, Taxes, payable};
use crate::wire::{Line, Receipt, Sale, Tender, TenderKind};

/// Locations of the benchmarks' business.
pub const LOCATIONS: usize = 50;
const LINES: usize = 3;
const HOT_PRODUCTS: usize = 5;

/// How sales are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    Uniform,
    Hot,
}

/// One till: its token and where its two series stand.
struct Till {
    terminal: Terminal,
    token: String,
    next: i64,
}

impl Till {
    /// Its token, and what an API believes whose proof of who asks is switched off.
    fn names_itself(&self) -> String {
        let Terminal { terminal_id, location_id, .. } = &self.terminal;
        format!("Authorization: Bearer {}\r\nX-Terminal: {terminal_id} {location_id}", self.token)
    }
}

/// A business made through the API, and its tills.
pub struct Shop {
    business: Business,
    issued: Issued,
    taxes: Vec<Taxes>,
    tills: Vec<Vec<Till>>,
    rng: StdRng,
}

impl Shop {
    /// Makes the business and enrols its tills.
    pub async fn open(endpoints: &Endpoints) -> Result<Shop> {
        let business = Business::new(1, LOCATIONS, VARIANTS);
        let owner = demo::owner(endpoints)?;
        let issued = make::business(&owner, &business, &|_| {}).await?;
        let mut tills = Vec::new();
        for place in selling::tills(&owner, &business, "bench", None).await? {
            let with_next = place.into_iter().map(|terminal| Till {
                next: terminal.next_terminal_seq,
                token: String::new(),
                terminal,
            });
            tills.push(with_next.collect());
        }
        let taxes = TAX_PROFILES.iter().map(|profile| profile.taxes()).collect::<Result<_>>()?;
        Ok(Shop { business, issued, taxes, tills, rng: StdRng::seed_from_u64(7) })
    }

    /// Renews what would run out during the next minutes.
    pub async fn renew_tokens(&mut self) -> Result<()> {
        for till in self.tills.iter_mut().flatten() {
            till.token = till.terminal.client.token().await?.context("a till has no token")?;
        }
        Ok(())
    }

    /// `count` requests that occurred now.
    pub fn shots(&mut self, count: usize, spread: Spread) -> Result<Vec<Bytes>> {
        let now = Utc::now();
        (0..count).map(|_| self.shot(spread, now)).collect()
    }

    /// `count` readings of a till's own location.
    pub fn readings(&self, count: usize) -> Vec<Bytes> {
        let reading = |till: &Till| {
            let location = till.terminal.location_id;
            let head = till.names_itself();
            Bytes::from(format!("GET /api/v1/locations/{location} HTTP/1.1\r\nHost: bench\r\n{head}\r\n\r\n"))
        };
        self.tills.iter().flatten().cycle().take(count).map(reading).collect()
    }

    /// One whole HTTP request.
    pub fn shot(&mut self, spread: Spread, occurred_at: DateTime<Utc>) -> Result<Bytes> {
        let place = match spread {
            Spread::Uniform => self.rng.random_range(0..self.tills.len()),
            Spread::Hot => 0,
        };
        let till = self.rng.random_range(0..self.tills[place].len());
        let sale = self.sale(spread, place, till, occurred_at)?;
        let body = serde_json::to_vec(&sale)?;
        let mut shot = format!(
            "POST /api/v1/sales HTTP/1.1\r\nHost: bench\r\n{}\r\nIdempotency-Key: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.tills[place][till].names_itself(),
            sale.sale_id,
            body.len()
        )
        .into_bytes();
        shot.extend(body);
        Ok(shot.into())
    }

    fn sale(&mut self, spread: Spread, place: usize, till: usize, occurred_at: DateTime<Utc>) -> Result<Sale> {
        let rng = &mut self.rng;
        let here = &self.business.places[place];
        let ranked = self.business.ranked(here.market);
        let choice = if spread == Spread::Hot { &ranked[..HOT_PRODUCTS] } else { ranked };
        let (mut lines, mut total) = (Vec::with_capacity(LINES), 0);
        for line_no in 1..=LINES as i32 {
            let index = *choice.choose(rng).context("a market without variants")?;
            let variant = &self.business.variants[index];
            let taxes = &self.taxes[variant.tax_profile];
            total += payable(variant.price_minor, 1_000, Reduction::None, taxes, RoundingMode::HalfEven)?;
            lines.push(Line {
                line_no,
                variant_id: self.issued.variants[index],
                qty: 1_000,
                discount: None,
                override_: None,
            });
        }
        let customer_id = if rng.random_ratio(1, 5) { self.issued.members.choose(rng).copied() } else { None };
        let at = &mut self.tills[place][till];
        let seq = at.next;
        at.next += 1;
        Ok(Sale {
            sale_id: Uuid::now_v7(),
            location_id: here.location_id,
            terminal_seq: seq,
            receipt: Receipt { series_epoch: at.terminal.series_epoch, number: seq },
            cashier_id: here.cashiers[0],
            customer_id,
            occurred_at: occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            currency: here.market.currency().to_owned(),
            lines,
            tenders: vec![Tender { kind: TenderKind::Cash, amount_minor: total, card: None }],
            total_minor: total,
            approval: None,
        })
    }
}

/// A source that makes each sale at the moment it is due.
pub fn as_it_happens(shop: std::sync::Arc<Mutex<Shop>>) -> super::load::Source {
    std::sync::Arc::new(move || shop.lock().ok()?.shot(Spread::Uniform, Utc::now()).ok())
}
