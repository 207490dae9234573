//! I1, I2, I27: what the tills remember against what Postgres holds.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use super::Report;

/// One line of a till's journal: `attempt` before the send, `ack` after a 2xx answer.
#[derive(Deserialize)]
struct Line {
    op: String,
    sale_id: Uuid,
    terminal_id: Uuid,
    #[serde(default)]
    response_hash: Option<String>,
    #[serde(default)]
    status: Option<u16>,
    /// When the line was written; what was sold before the first one is not the journal's business.
    t: DateTime<Utc>,
}

#[derive(Default)]
struct Remembered {
    /// SHA-256 of each acknowledged response body, lower-case hex.
    acked: Vec<String>,
}

/// Compares the journals below `path` with the stored documents of the terminals they name.
pub async fn check(pg: &PgPool, path: &Path, report: &mut Report) -> anyhow::Result<()> {
    let Journals { remembered, terminals, since } = read(path)?;
    let acked: Vec<Uuid> = remembered.iter().filter(|(_, r)| !r.acked.is_empty()).map(|(id, _)| *id).collect();
    let (mut lost, mut altered) = (Vec::new(), Vec::new());
    for ids in acked.chunks(5_000) {
        let rows = sqlx::query("select document_id, response from documents where document_id = any($1)")
            .bind(ids)
            .fetch_all(pg)
            .await?;
        let stored: HashMap<Uuid, String> =
            rows.iter().map(|row| (row.get(0), hex(&Sha256::digest(row.get::<&str, _>(1))))).collect();
        for id in ids {
            match stored.get(id) {
                None => lost.push(format!("sale {id} was acknowledged and is not stored")),
                Some(hash) if remembered[id].acked.iter().any(|acked| acked != hash) => {
                    altered.push(format!("sale {id}: the stored answer is not the one the till was given"));
                }
                Some(_) => {}
            }
        }
    }
    report.add("I1", "no acknowledged sale is lost", acked.len() as u64, lost);
    report.add("I27", "every answer given for a sale is the stored one, byte for byte", acked.len() as u64, altered);

    let terminals: Vec<Uuid> = terminals.into_iter().collect();
    let stored: Vec<Uuid> =
        sqlx::query_scalar("select document_id from documents where terminal_id = any($1) and recorded_at >= $2")
            .bind(&terminals)
            .bind(since)
            .fetch_all(pg)
            .await?;
    let phantom = stored.iter().filter(|id| !remembered.contains_key(id));
    let phantom = phantom.map(|id| format!("sale {id} is stored and was never attempted")).collect();
    report.add("I2", "no sale is stored that no till attempted", stored.len() as u64, phantom);
    Ok(())
}

/// What all journals together remember.
struct Journals {
    remembered: HashMap<Uuid, Remembered>,
    terminals: std::collections::HashSet<Uuid>,
    since: DateTime<Utc>,
}

fn read(path: &Path) -> anyhow::Result<Journals> {
    let mut remembered: HashMap<Uuid, Remembered> = HashMap::new();
    let mut terminals = std::collections::HashSet::new();
    let mut since = DateTime::<Utc>::MAX_UTC;
    for file in files(path)? {
        let lines = BufReader::new(std::fs::File::open(&file).with_context(|| file.display().to_string())?).lines();
        let lines: Vec<String> = lines.collect::<Result<_, _>>().with_context(|| file.display().to_string())?;
        for (number, text) in lines.iter().enumerate() {
            let line: Line = match serde_json::from_str(text) {
                Ok(line) => line,
                // A till that was killed while writing leaves half a last line: nothing was sent after it.
                Err(_) if number + 1 == lines.len() => break,
                Err(error) => anyhow::bail!("{} line {}: {error}", file.display(), number + 1),
            };
            terminals.insert(line.terminal_id);
            since = since.min(line.t);
            let entry = remembered.entry(line.sale_id).or_default();
            if line.op == "ack" && line.status.is_none_or(|status| (200..300).contains(&status)) {
                entry.acked.extend(line.response_hash);
            }
        }
    }
    Ok(Journals { remembered, terminals, since: since.min(Utc::now()) })
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("journal {} cannot be read", path.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
