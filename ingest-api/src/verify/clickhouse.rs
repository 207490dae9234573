//! I17 and I18: ClickHouse raw equals Postgres document by document and line by line, without a double; the
//! marts equal raw. Rows are read per location as text, so nothing depends on the sink's own types.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use secrecy::ExposeSecret;
use sqlx::{PgPool, Row};
use uuid::Uuid;

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

/// Compares every location, waiting until the sink has caught up, at most `stores.drain`.
pub async fn check(stores: &Stores, report: &mut Report) -> anyhow::Result<()> {
    let clickhouse = ClickHouse::of(stores)?;
    let locations: Vec<Uuid> =
        sqlx::query_scalar("select location_id from locations order by 1").fetch_all(&stores.pg).await?;
    let deadline = Instant::now() + stores.drain;
    for (id, claim, look) in [
        ("I17", "documents in ClickHouse = documents in Postgres", Look::Documents),
        ("I17", "lines in ClickHouse = lines in Postgres", Look::Lines),
        ("I17", "movements in ClickHouse = movements in Postgres", Look::Movements),
        ("I18", "KPI marts = the documents they are made of", Look::Marts),
    ] {
        let (mut compared, mut differing) = (0, Vec::new());
        for location in &locations {
            let (rows, found) = loop {
                let expected = look.expected(&stores.pg, &clickhouse, *location).await?;
                let actual = clickhouse.rows(&look.actual(*location)).await?;
                let found = differences(&expected, &actual);
                // The sink may be a batch behind, and a mart a refresh: only what stays different counts.
                if found.is_empty() || Instant::now() >= deadline {
                    break (expected.len().max(actual.len()), found);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            };
            compared += rows as u64;
            differing.extend(found.into_iter().map(|what| format!("location {location} {what}")));
        }
        report.add(id, claim, compared, differing);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Look {
    Documents,
    Lines,
    Movements,
    Marts,
}

impl Look {
    async fn expected(self, pg: &PgPool, clickhouse: &ClickHouse, location: Uuid) -> anyhow::Result<Rows> {
        let query = match self {
            Look::Documents => {
                "select document_id::text, concat_ws(E'\\t', epoch, location_seq, business_date, slot, kind, currency,
                        terminal_id, terminal_seq, cashier_id, subtotal_minor, discount_minor, tax_minor, total_minor,
                        rounding_minor, change_minor, encode(document_digest, 'hex'))
                   from documents where location_id = $1"
            }
            Look::Lines => {
                "select document_id::text || '/' || line_no, concat_ws(E'\\t', business_date, slot, variant_id, l.qty,
                        extended_minor, l.discount_minor, l.tax_minor, net_minor, payable_minor)
                   from document_lines l join documents d using (document_id) where l.location_id = $1"
            }
            Look::Movements => {
                "select variant_id::text || ' version ' || version, concat_ws(E'\\t', epoch, location_seq, delta, qty_after, reason, cause_id)
                   from stock_movements where location_id = $1"
            }
            // Straight from raw documents; that those equal Postgres is I17.
            Look::Marts => {
                return clickhouse
                    .rows(&format!(
                        "select concat(toString(business_date), ' ', currency), toString(countIf(kind in ('sale', 'exchange'))),
                                toString(sum(sold_net_minor + returned_net_minor)), toString(sum(tax_minor)),
                                toString(sum(total_minor + rounding_minor + tip_minor)), toString(sum(sold_qty))
                           from vorca_raw.documents final where location_id = '{location}' group by business_date, currency"
                    ))
                    .await;
            }
        };
        let rows = sqlx::query(query).bind(location).fetch_all(pg).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn actual(self, location: Uuid) -> String {
        match self {
            Look::Documents => format!(
                "select toString(document_id), epoch, location_seq, business_date, slot, kind, currency, terminal_id, terminal_seq,
                        cashier_id, subtotal_minor, discount_minor, tax_minor, total_minor, rounding_minor, change_minor, document_digest
                   from vorca_raw.documents final where location_id = '{location}'"
            ),
            Look::Lines => format!(
                "select concat(toString(document_id), '/', toString(line_no)), business_date, slot, variant_id, qty, extended_minor,
                        discount_minor, tax_minor, net_minor, payable_minor
                   from vorca_raw.lines final where location_id = '{location}'"
            ),
            Look::Movements => format!(
                "select concat(toString(variant_id), ' version ', toString(entity_version)), epoch, location_seq, delta, qty_after, reason, cause_id
                   from vorca_raw.movements final where location_id = '{location}'"
            ),
            Look::Marts => format!(
                "select concat(toString(business_date), ' ', f.currency), toString(sum(f.documents)), toString(sum(f.net_minor)),
                        toString(sum(f.tax_minor)), toString(sum(f.collected_minor)), toString(sum(f.units))
                   from vorca_raw.mart_sales final array join figures as f
                  where location_id = '{location}' and f.tender = '' group by business_date, f.currency"
            ),
        }
    }
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
