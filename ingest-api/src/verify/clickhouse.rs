//! I17 and I18: ClickHouse raw equals Postgres row by row, without a double; the marts equal raw, figure by figure. Rows
//! are read part by part as text, so nothing depends on the sink's own types. What is looked at stands in [`super::looks`].

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use secrecy::ExposeSecret;
use sqlx::Row;
use uuid::Uuid;

use super::looks::{Look, Source};
use super::topics::Dump;
use super::{Report, Stores};

/// A location's rows on one side: key to everything that has to be equal.
type Rows = HashMap<String, String>;

/// ClickHouse over HTTP, as text.
pub(super) struct ClickHouse {
    http: reqwest::Client,
    url: String,
    user: String,
    password: String,
}

impl ClickHouse {
    pub(super) fn of(stores: &Stores) -> anyhow::Result<ClickHouse> {
        Ok(ClickHouse {
            http: reqwest::Client::builder().timeout(Duration::from_secs(120)).build()?,
            url: stores.clickhouse.url.clone(),
            user: stores.clickhouse.user.clone(),
            password: stores.clickhouse.password.expose_secret().to_owned(),
        })
    }

    /// Rows of a query whose first column is the key and whose others are compared.
    async fn rows(&self, query: &str) -> anyhow::Result<Rows> {
        let text = self.text(query).await?;
        let mut rows = Rows::new();
        for line in text.lines() {
            let (key, rest) = line.split_once('\t').with_context(|| format!("an answer of one column: {line}"))?;
            // Two rows of one identity are one difference, not one row.
            let key = if rows.contains_key(key) { format!("{key} (again)") } else { key.to_owned() };
            rows.insert(key, rest.to_owned());
        }
        Ok(rows)
    }

    /// The answer, columns by tabs.
    pub(super) async fn text(&self, query: &str) -> anyhow::Result<String> {
        let request = self
            .http
            .post(&self.url)
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password)
            .body(format!("{query} format TabSeparated"));
        let answer = request.send().await.context("ClickHouse cannot be reached")?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "ClickHouse refused a query of the verification: {text}");
        Ok(text)
    }
}

/// Compares part by part, waiting until the sink has caught up, at most `stores.drain`. `ever`: every alert that the rule
/// gave over the ledger.
pub async fn check(stores: &Stores, dump: &Dump, ever: &HashSet<Uuid>, report: &mut Report) -> anyhow::Result<()> {
    let clickhouse = ClickHouse::of(stores)?;
    let locations: Vec<Uuid> =
        sqlx::query_scalar("select location_id from locations order by 1").fetch_all(&stores.pg).await?;
    let stocks: Vec<Uuid> = sqlx::query_scalar(
        "select location_id from locations union all select location_id from system_locations order by 1",
    )
    .fetch_all(&stores.pg)
    .await?;
    let deadline = Instant::now() + stores.drain;
    for look in Look::ALL {
        let (id, claim) = look.claim();
        let (mut compared, mut differing) = (0, Vec::new());
        let places = if look == Look::Movements { &stocks } else { &locations };
        for part in look.parts(places) {
            let (rows, found) = loop {
                let expected = match look.expected(&part) {
                    Source::Postgres(query) => {
                        let rows = part.bound(sqlx::query(query)).fetch_all(&stores.pg).await?;
                        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
                    }
                    Source::ClickHouse(query) => clickhouse.rows(&query).await?,
                    Source::Alerts(location) => alerts_of(dump, ever, location),
                };
                let mut actual = clickhouse.rows(&look.actual(&part)).await?;
                if look.is_alerts() {
                    // What the topic has forgotten stays in ClickHouse: the rule still has to give it.
                    let is_forgotten =
                        |id: &str| !expected.contains_key(id) && id.parse().is_ok_and(|id| ever.contains(&id));
                    actual.retain(|id, _| !is_forgotten(id));
                }
                let found = differences(&expected, &actual);
                // The sink may be a batch behind, and a mart a refresh: only what stays different counts.
                if found.is_empty() || Instant::now() >= deadline {
                    break (expected.len().max(actual.len()), found);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            };
            compared += rows as u64;
            differing.extend(found.into_iter().map(|what| format!("{part} {what}")));
        }
        report.add(id, claim, compared, differing);
    }
    Ok(())
}

/// The alerts of a location on the topic, without those of a time line that was given up.
fn alerts_of(dump: &Dump, ever: &HashSet<Uuid>, location: Uuid) -> Rows {
    let here = dump.alerts.values().filter(|alert| alert.location_id.0 == location);
    let alive = here.filter(|alert| {
        ever.contains(&alert.alert_id) || !dump.restores.gave_up(location, alert.epoch, alert.location_seq)
    });
    alive
        .map(|alert| {
            let figures =
                [alert.epoch, alert.location_seq, alert.version, alert.qty, alert.threshold, alert.hysteresis];
            let figures = figures.map(|figure| figure.to_string()).join("\t");
            (alert.alert_id.to_string(), format!("{}\t{figures}", alert.variant_id))
        })
        .collect()
}

fn differences(expected: &Rows, actual: &Rows) -> Vec<String> {
    let mut found = Vec::new();
    for (key, row) in expected {
        match actual.get(key) {
            None => found.push(format!("{key}: missing in ClickHouse")),
            Some(other) if other != row => {
                found.push(format!("{key}: expected [{}], found [{}]", tabs(row), tabs(other)))
            }
            Some(_) => {}
        }
    }
    found.extend(
        actual.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key}: only in ClickHouse")),
    );
    found.sort();
    found
}

fn tabs(row: &str) -> String {
    row.replace('\t', ", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing_foreign_and_different() {
        let rows = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = differences(
            &rows(&[("a", "1\t2"), ("b", "1"), ("c", "1")]),
            &rows(&[("a", "1\t3"), ("c", "1"), ("d", "9")]),
        );
        assert_eq!(found, ["a: expected [1, 2], found [1, 3]", "b: missing in ClickHouse", "d: only in ClickHouse"]);
    }
}
