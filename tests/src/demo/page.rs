//! The last page of `./dev up`: what was sold, out of ClickHouse through the API, and what to try next.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use chrono::{Days, NaiveDate, Utc};
use schemas::money::Currency;
use serde::Deserialize;

use super::{DemoReport, owner};
use crate::client::Client;
use crate::endpoints::Endpoints;

/// The mart of products rests 15 s between its rounds.
const PRODUCTS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// Figures of one group; what a group does not define is absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Kpi {
    name: Option<String>,
    currency: String,
    documents: u64,
    gross_minor: Option<i64>,
    discounts_minor: Option<i64>,
    net_minor: Option<i64>,
    tax_minor: Option<i64>,
    units: Option<i64>,
    average_basket_minor: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Kpis {
    lag_ms: Option<i64>,
    items: Vec<Kpi>,
}

#[derive(Debug, Deserialize)]
struct Level {
    location_id: uuid::Uuid,
    name: String,
    qty: i64,
    threshold: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Place {
    location_id: uuid::Uuid,
    name: String,
}

/// The page without its colours, for whatever is no terminal.
pub fn plain(page: &str) -> String {
    let mut parts = page.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// The page in colours; `verified` is what `ingest-api worker verify` printed, if it ran.
///
/// `external` is the environment file of a platform that runs elsewhere: not every command of `./dev` reaches it.
pub async fn page(
    endpoints: &Endpoints,
    report: &DemoReport,
    verified: Option<&str>,
    external: Option<&Path>,
) -> anyhow::Result<String> {
    let owner = owner(endpoints)?;
    let (from, to) = period(report);
    let by_location = kpis(&owner, "location", from, to).await.context("KPIs by location")?;
    let by_product = products_of(&owner, &by_location, from, to).await?;
    let mut page = String::new();
    selling(&mut page, report)?;
    locations(&mut page, &by_location, from, to)?;
    best_sellers(&mut page, &by_product.items)?;
    low_stock(&mut page, &owner).await?;
    if let Some(verified) = verified {
        heading(&mut page, "Do all stores agree?")?;
        let last = verified.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was printed");
        let differing: Vec<&str> = verified.lines().filter(|line| line.starts_with("DIFFERS")).collect();
        writeln!(page, "  {last}")?;
        for line in differing {
            writeln!(page, "  {line}")?;
        }
    }
    match external {
        Some(file) => next_steps_elsewhere(&mut page, endpoints, file)?,
        None => next_steps(&mut page, endpoints)?,
    }
    Ok(page)
}

fn period(report: &DemoReport) -> (NaiveDate, NaiveDate) {
    let today = Utc::now().date_naive();
    let to = today.checked_add_days(Days::new(1)).unwrap_or(today);
    (report.sold_from.map_or(today, |at| at.date_naive()).min(to).pred_opt().unwrap_or(today), to)
}

async fn kpis(owner: &Client, group_by: &str, from: NaiveDate, to: NaiveDate) -> anyhow::Result<Kpis> {
    Ok(owner.get(&format!("/reports/kpis?group_by={group_by}&from={from}&to={to}")).await?)
}

/// KPIs by product once they hold what the locations sold: the mart of products is refreshed more slowly.
async fn products_of(owner: &Client, by_location: &Kpis, from: NaiveDate, to: NaiveDate) -> anyhow::Result<Kpis> {
    let deadline = std::time::Instant::now() + PRODUCTS_PATIENCE;
    loop {
        let by_product = kpis(owner, "product", from, to).await.context("KPIs by product")?;
        if net(&by_product) == net(by_location) || std::time::Instant::now() > deadline {
            return Ok(by_product);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Net sales per currency, minor units.
fn net(kpis: &Kpis) -> BTreeMap<&str, i64> {
    let mut sums = BTreeMap::new();
    for item in &kpis.items {
        *sums.entry(item.currency.as_str()).or_default() += item.net_minor.unwrap_or(0);
    }
    sums
}

fn heading(page: &mut String, text: &str) -> std::fmt::Result {
    writeln!(page, "\n\x1b[1m{text}\x1b[0m")
}

fn selling(page: &mut String, report: &DemoReport) -> std::fmt::Result {
    let counts = &report.counts;
    let answered = counts.sold + counts.refused.values().sum::<u64>();
    if answered == 0 {
        return Ok(());
    }
    heading(page, "Sold through the API")?;
    let speed = answered as f64 / report.selling.as_secs_f64().max(0.001);
    let refused: u64 = counts.refused.values().sum();
    let codes: Vec<String> = counts.refused.iter().map(|(code, count)| format!("{code} {count}")).collect();
    writeln!(page, "  {:>8} sales committed, {speed:.0} a second", grouped(counts.sold as i64))?;
    writeln!(page, "  {:>8} sent again, answered with the same bytes", grouped(counts.replayed as i64))?;
    writeln!(page, "  {:>8} refused as they had to be ({})", grouped(refused as i64), codes.join(", "))?;
    writeln!(
        page,
        "  {:>8.1} ms commit p50, {:.1} ms p99, as a till sees it",
        report.latency.p50_ms, report.latency.p99_ms
    )?;
    match report.drained {
        Some(time) => {
            writeln!(page, "  {:>8.1} s after the last one everything was in ClickHouse", time.as_secs_f64())?
        }
        None => writeln!(page, "           not everything reached ClickHouse within a minute: ./dev status")?,
    }
    for surprise in &counts.surprises {
        writeln!(page, "  \x1b[31munexpected: {surprise}\x1b[0m")?;
    }
    Ok(())
}

/// A table per currency: amounts of two are never added.
fn locations(page: &mut String, found: &Kpis, from: NaiveDate, to: NaiveDate) -> std::fmt::Result {
    let mut by_currency: BTreeMap<&str, Vec<&Kpi>> = BTreeMap::new();
    for item in &found.items {
        by_currency.entry(&item.currency).or_default().push(item);
    }
    for (currency, mut items) in by_currency {
        items.sort_by_key(|item| std::cmp::Reverse(item.net_minor));
        heading(page, &format!("Locations in {currency}, {from} to {to}"))?;
        let titles = ["sales", "gross", "discounts", "net", "tax", "basket"];
        write!(page, "  \x1b[2m{:<24}", "")?;
        for title in titles {
            write!(page, "{title:>13}")?;
        }
        writeln!(page, "\x1b[0m")?;
        let sum = |figure: fn(&Kpi) -> Option<i64>| items.iter().filter_map(|item| figure(item)).sum::<i64>();
        let documents: u64 = items.iter().map(|item| item.documents).sum();
        let net = sum(|item| item.net_minor);
        let all = Kpi {
            name: Some("all".to_owned()),
            documents,
            gross_minor: Some(sum(|item| item.gross_minor)),
            discounts_minor: Some(sum(|item| item.discounts_minor)),
            net_minor: Some(net),
            tax_minor: Some(sum(|item| item.tax_minor)),
            average_basket_minor: (documents > 0).then(|| net / documents as i64),
            ..Kpi::default()
        };
        for item in items.into_iter().chain([&all]) {
            write!(page, "  {:<24}{:>13}", cut(item.name.as_deref(), 24), grouped(item.documents as i64))?;
            for figure in
                [item.gross_minor, item.discounts_minor, item.net_minor, item.tax_minor, item.average_basket_minor]
            {
                write!(page, "{:>13}", figure.map_or(String::new(), |figure| money(figure, currency)))?;
            }
            writeln!(page)?;
        }
    }
    if let Some(lag) = found.lag_ms {
        writeln!(
            page,
            "  \x1b[2mout of ClickHouse; the newest sale in it was committed {:.1} s ago\x1b[0m",
            lag as f64 / 1_000.0
        )?;
    }
    Ok(())
}

fn best_sellers(page: &mut String, items: &[Kpi]) -> std::fmt::Result {
    let mut by_currency: BTreeMap<&str, Vec<&Kpi>> = BTreeMap::new();
    for item in items {
        by_currency.entry(&item.currency).or_default().push(item);
    }
    for (currency, mut items) in by_currency {
        items.sort_by_key(|item| std::cmp::Reverse(item.net_minor));
        heading(page, &format!("Best sellers in {currency}"))?;
        let top = items.first().and_then(|item| item.net_minor).unwrap_or(0).max(1);
        for item in items.iter().take(5) {
            let net = item.net_minor.unwrap_or(0);
            let bar = "█".repeat((net * 24 / top).max(1) as usize);
            let units = item.units.unwrap_or(0) / 1_000;
            writeln!(
                page,
                "  {:<34}{:>13}{:>9} units  \x1b[36m{bar}\x1b[0m",
                cut(item.name.as_deref(), 34),
                money(net, currency),
                grouped(units)
            )?;
        }
    }
    Ok(())
}

async fn low_stock(page: &mut String, owner: &Client) -> anyhow::Result<()> {
    let mut low: Vec<Level> = owner.list("/stock?low=true").await.context("low stock")?;
    let places: Vec<Place> = owner.list("/locations").await?;
    let names: BTreeMap<uuid::Uuid, String> = places.into_iter().map(|place| (place.location_id, place.name)).collect();
    low.sort_by_key(|level| level.qty - level.threshold.unwrap_or(0));
    heading(page, &format!("Low stock: {} alerts", grouped(low.len() as i64)))?;
    for level in low.iter().take(5) {
        let place = names.get(&level.location_id).map(String::as_str);
        let (qty, threshold) = (level.qty / 1_000, level.threshold.unwrap_or(0) / 1_000);
        writeln!(
            page,
            "  {:<34}{:<24}{qty:>6} left, threshold {threshold}",
            cut(Some(&level.name), 34),
            cut(place, 24)
        )?;
    }
    Ok(())
}

fn next_steps(page: &mut String, at: &Endpoints) -> std::fmt::Result {
    heading(page, "Try next")?;
    writeln!(page, "  {:<44}every route, to try out", format!("{}/docs", at.api))?;
    writeln!(page, "  {:<44}a till of your own, then: sh docs/first-sale.sh", "eval \"$(./dev till)\"")?;
    writeln!(page, "  {:<44}what other teams receive", "./dev tail sales --from-beginning --limit 3")?;
    writeln!(page, "  {:<44}analyst: {} / {}", at.clickhouse, at.analyst.login, at.analyst.password)?;
    writeln!(page, "  {:<44}sell more", "./dev up --sales 5000")?;
    writeln!(
        page,
        "  {:<44}your own history: maps/completejourney.toml shows how",
        "./dev replay FILE --map MAP.toml"
    )?;
    writeln!(page, "  {:<44}prove again that everything agrees", "./dev verify")?;
    writeln!(page, "  {:<44}addresses, logins, memory", "./dev status")
}

fn next_steps_elsewhere(page: &mut String, at: &Endpoints, file: &Path) -> std::fmt::Result {
    heading(page, "Try next")?;
    writeln!(page, "  {:<44}every route, to try out", format!("{}/docs", at.api))?;
    writeln!(page, "  {:<44}analyst: {} / {}", at.clickhouse, at.analyst.login, at.analyst.password)?;
    writeln!(page, "  ./dev up --external {} --sales 5000   sell more", file.display())?;
    writeln!(page, "  docker compose --profile tools run --rm verify   prove that all stores agree")
}

/// 1234567 as `1,234,567`.
fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// Minor units as people read them, thousands grouped.
fn money(minor: i64, currency: &str) -> String {
    let text = currency.parse::<Currency>().map_or_else(|_| minor.to_string(), |currency| currency.text(minor));
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let sign = if minor < 0 && whole == "-0" { "-" } else { "" };
    let whole = grouped(whole.parse().unwrap_or(0));
    rest.map_or(format!("{sign}{whole}"), |rest| format!("{sign}{whole}.{rest}"))
}

fn cut(text: Option<&str>, width: usize) -> String {
    let text = text.unwrap_or("(not known yet)");
    if text.chars().count() < width {
        return text.to_owned();
    }
    text.chars().take(width - 2).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_like_amounts() {
        assert_eq!(money(123_456_789, "EUR"), "1,234,567.89");
        assert_eq!(money(-5, "USD"), "-0.05");
        assert_eq!(money(-123_456, "USD"), "-1,234.56");
        assert_eq!(money(1_234, "JPY"), "1,234");
        assert_eq!(grouped(999), "999");
        assert_eq!(cut(Some("Köln Ehrenfeld"), 10), "Köln Ehr…");
    }

    #[test]
    fn a_plain_page_says_the_same_without_colours() {
        assert_eq!(plain("a \x1b[1mb\x1b[0m\n\x1b[31mc: m\x1b[0m"), "a b\nc: m");
        assert_eq!(plain("no colours, some m"), "no colours, some m");
    }

    #[test]
    fn two_currencies_never_share_a_table() {
        let item = |name: &str, currency: &str, net| Kpi {
            name: Some(name.to_owned()),
            currency: currency.to_owned(),
            documents: 2,
            net_minor: Some(net),
            ..Kpi::default()
        };
        let found =
            Kpis { lag_ms: None, items: vec![item("A", "EUR", 100), item("B", "USD", 300), item("C", "EUR", 50)] };
        let mut page = String::new();
        let day = NaiveDate::default();
        locations(&mut page, &found, day, day).unwrap();
        let all: Vec<&str> = page.lines().filter(|line| line.trim_start().starts_with("all")).collect();
        assert_eq!(all.len(), 2);
        assert!(all[0].contains("1.50") && all[1].contains("3.00"), "{page}");
    }
}
