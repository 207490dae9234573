//! How far an import is, on the disk: per till the documents done, and the documents the API refused. An
//! import that was stopped goes on from here; one that lost this asks the API instead.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A document that the API refused for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedDocument {
    pub sale_id: Uuid,
    pub code: String,
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Plan { fingerprint: String },
    Refused(RefusedDocument),
    Done { till: String, done: u64 },
}

struct Inner {
    file: File,
    done: HashMap<String, u64>,
    refused: HashMap<Uuid, RefusedDocument>,
    unsynced: u32,
}

/// The log of one import.
pub struct ProgressLog {
    inner: Mutex<Inner>,
    /// Whether it belongs to the very same plan; else every document is asked for before it is sent.
    pub is_same_plan: bool,
}

/// Lines between two syncs. What a power cut loses is asked for again.
const SYNC_EVERY: u32 = 200;

impl ProgressLog {
    /// Reads what is there and goes on; a log of another plan is started afresh.
    pub fn open(path: &Path, fingerprint: &str) -> anyhow::Result<ProgressLog> {
        let (mut done, mut refused, mut is_same_plan) = (HashMap::new(), HashMap::new(), false);
        if let Ok(file) = File::open(path) {
            for line in BufReader::new(file).lines() {
                // a torn last line is what a kill leaves
                let Ok(line) = serde_json::from_str(&line?) else { break };
                match line {
                    Line::Plan { fingerprint: kept } => is_same_plan = kept == fingerprint,
                    Line::Done { till, done: count } => {
                        done.insert(till, count);
                    }
                    Line::Refused(document) => {
                        refused.insert(document.sale_id, document);
                    }
                }
            }
        }
        if !is_same_plan {
            (done, refused) = (HashMap::new(), HashMap::new());
        }
        let temporary = path.with_extension("new");
        let mut file = File::create(&temporary)?;
        write(&mut file, &Line::Plan { fingerprint: fingerprint.to_owned() })?;
        for document in refused.values() {
            write(&mut file, &Line::Refused(document.clone()))?;
        }
        for (till, count) in &done {
            write(&mut file, &Line::Done { till: till.clone(), done: *count })?;
        }
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        Ok(ProgressLog { inner: Mutex::new(Inner { file, done, refused, unsynced: 0 }), is_same_plan })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Documents of a till that need not be looked at again.
    pub fn done(&self, till: &str) -> u64 {
        self.with(|inner| inner.done.get(till).copied().unwrap_or(0))
    }

    /// Notes that the first `count` documents of a till are done.
    pub fn note_done(&self, till: &str, count: u64) -> anyhow::Result<()> {
        self.with(|inner| {
            inner.done.insert(till.to_owned(), count);
            inner.append(&Line::Done { till: till.to_owned(), done: count })
        })
    }

    /// Notes a refusal; durable before it counts as done.
    pub fn note_refused(&self, document: RefusedDocument) -> anyhow::Result<()> {
        self.with(|inner| {
            inner.append(&Line::Refused(document.clone()))?;
            inner.file.sync_data()?;
            inner.refused.insert(document.sale_id, document);
            Ok(())
        })
    }

    /// Why a document was refused, if it was.
    pub fn refused(&self, sale_id: Uuid) -> Option<RefusedDocument> {
        self.with(|inner| inner.refused.get(&sale_id).cloned())
    }
}

impl Inner {
    fn append(&mut self, line: &Line) -> anyhow::Result<()> {
        write(&mut self.file, line)?;
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

fn write(file: &mut File, line: &Line) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(file.write_all(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_where_it_stopped_and_forgets_another_plan() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress.jsonl");
        let refused = RefusedDocument { sale_id: Uuid::from_u128(9), code: "c".to_owned(), reason: "r".to_owned() };
        let log = ProgressLog::open(&path, "one").unwrap();
        assert!(!log.is_same_plan);
        log.note_done("till", 7).unwrap();
        log.note_refused(refused.clone()).unwrap();
        drop(log);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"till\":\"x").unwrap();
        let log = ProgressLog::open(&path, "one").unwrap();
        assert!(log.is_same_plan);
        assert_eq!((log.done("till"), log.refused(refused.sale_id)), (7, Some(refused.clone())));
        let log = ProgressLog::open(&path, "two").unwrap();
        assert_eq!((log.is_same_plan, log.done("till"), log.refused(refused.sale_id)), (false, 0, None));
    }
}
