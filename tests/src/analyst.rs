//! Questions to ClickHouse as the analyst asks them: over HTTP, with the rights of a reader.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use crate::endpoints::Endpoints;

/// Rows of a query that ends in `format JSONEachRow`.
pub async fn query<T: DeserializeOwned>(endpoints: &Endpoints, sql: &str) -> anyhow::Result<Vec<T>> {
    let text = text(endpoints, sql).await?;
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("unexpected row {line}")))
        .collect()
}

/// The answer as text.
pub async fn text(endpoints: &Endpoints, sql: &str) -> anyhow::Result<String> {
    let response = reqwest::Client::builder()
        .timeout(Duration::from_secs(120))
        .build()?
        .post(&endpoints.clickhouse)
        .header("X-ClickHouse-User", &endpoints.analyst.login)
        .header("X-ClickHouse-Key", &endpoints.analyst.password)
        .body(sql.to_owned())
        .send()
        .await
        .context("ClickHouse does not answer")?;
    let (status, body) = (response.status(), response.text().await?);
    if !status.is_success() {
        bail!("ClickHouse: {}", body.chars().take(300).collect::<String>());
    }
    Ok(body)
}
