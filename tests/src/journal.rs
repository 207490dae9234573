//! Fsynced journal of a till: one JSON line per attempt before it is sent and per answer after it
//! came. A checker compares what the tills know with what the platform kept.
//!
//! Lines of many tills share one `fdatasync`: whatever gathered while the previous one ran.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use uuid::Uuid;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub op: Op,
    pub sale_id: Uuid,
    pub terminal_id: Uuid,
    pub terminal_seq: i64,
    /// Idempotency-Key.
    pub key: String,
    /// SHA-256 of the body sent, lower-case hex.
    pub body_hash: String,
    /// HTTP status of the answer; null on an attempt.
    pub status: Option<u16>,
    /// SHA-256 of the answer's bytes, lower-case hex; null on an attempt.
    pub response_hash: Option<String>,
    /// When the line was written, RFC 3339 UTC.
    pub t: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// About to be sent: its effect is unknown until an `ack` or a `refused` follows.
    Attempt,
    /// Answered 201 or 200: the sale is committed and must never be lost.
    Ack,
    /// Answered with a refusal that is final: nothing of it may exist.
    Refused,
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Append {
    line: Vec<u8>,
    durable: oneshot::Sender<Result<(), String>>,
}

/// Handle of the journal; clones write to the same file.
#[derive(Clone)]
pub struct Journal(mpsc::Sender<Append>);

impl Journal {
    /// Opens a journal for appending; its thread ends with the last handle.
    pub fn open(path: &Path) -> anyhow::Result<Journal> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open the journal {}", path.display()))?;
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || write_loop(file, &receiver))?;
        Ok(Journal(sender))
    }

    /// Returns when the line is on the disk.
    pub async fn append(&self, entry: &Entry) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let (durable, done) = oneshot::channel();
        self.0.send(Append { line, durable }).ok().context("the journal has ended")?;
        done.await.context("the journal has ended")?.map_err(|error| anyhow::anyhow!("journal: {error}"))
    }
}

fn write_loop(mut file: File, receiver: &mpsc::Receiver<Append>) {
    while let Ok(first) = receiver.recv() {
        let batch: Vec<Append> = std::iter::once(first).chain(receiver.try_iter().take(1023)).collect();
        let bytes: Vec<u8> = batch.iter().flat_map(|append| append.line.iter().copied()).collect();
        let result = file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(|error| error.to_string());
        for append in batch {
            // A till that was dropped no longer waits for its line.
            append.durable.send(result.clone()).ok();
        }
    }
}

/// Reads a journal; a torn last line (the process was killed while writing) is left out.
pub fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut entries = Vec::new();
    let mut lines = text.split_inclusive('\n').peekable();
    let mut number = 0;
    while let Some(line) = lines.next() {
        number += 1;
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if lines.peek().is_none() && !line.ends_with('\n') => break,
            Err(error) => anyhow::bail!("{} line {number}: {error}", path.display()),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: i64, op: Op) -> Entry {
        Entry {
            op,
            sale_id: Uuid::from_u128(seq as u128),
            terminal_id: Uuid::nil(),
            terminal_seq: seq,
            key: format!("k{seq}"),
            body_hash: sha256_hex(b""),
            status: None,
            response_hash: None,
            t: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    #[tokio::test]
    async fn lines_come_back_in_order_and_a_torn_last_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j").join("till.jsonl");
        let journal = Journal::open(&path).unwrap();
        for seq in 1..=3 {
            journal.append(&entry(seq, Op::Attempt)).await.unwrap();
        }
        File::options().append(true).open(&path).unwrap().write_all(b"{\"op\":\"ack\",\"sal").unwrap();
        let read_back = read(&path).unwrap();
        assert_eq!(read_back, (1..=3).map(|seq| entry(seq, Op::Attempt)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_broken_line_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("till.jsonl");
        std::fs::write(&path, "nonsense\n{}\n").unwrap();
        assert!(read(&path).is_err());
    }
}
