//! Sorts more than fits into memory: sorted runs on disk, merged as a stream.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Bytes held in memory before a run is written.
const RUN_BYTES: usize = 32 << 20;
/// Runs merged at once: each has an open file and a buffer.
const FAN_IN: usize = 64;

/// A key that decides the order (byte by byte) and what belongs to it. Equal keys keep their order.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Collects entries, then gives them back in order. Memory does not depend on how many there are.
pub struct Sorter {
    dir: PathBuf,
    held: Vec<Entry>,
    held_bytes: usize,
    run_bytes: usize,
    runs: Vec<File>,
}

impl Sorter {
    /// A sorter with its runs in `dir`; they are unlinked at once, so nothing is left behind.
    pub fn new(dir: &Path) -> Sorter {
        Sorter::with_run_bytes(dir, RUN_BYTES)
    }

    fn with_run_bytes(dir: &Path, run_bytes: usize) -> Sorter {
        Sorter { dir: dir.to_owned(), held: Vec::new(), held_bytes: 0, run_bytes, runs: Vec::new() }
    }

    /// Adds an entry.
    pub fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> std::io::Result<()> {
        self.held_bytes += key.len() + value.len() + 64;
        self.held.push((key, value));
        if self.held_bytes >= self.run_bytes { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> std::io::Result<()> {
        self.held.sort_by(|a, b| a.0.cmp(&b.0));
        let run = write_run(&self.dir, self.held.drain(..).map(Ok))?;
        self.runs.push(run);
        self.held_bytes = 0;
        Ok(())
    }

    /// All entries in order.
    pub fn finish(mut self) -> std::io::Result<Merge> {
        if !self.held.is_empty() {
            self.spill()?;
        }
        // a later run holds later entries: merging neighbours keeps equal keys in order
        while self.runs.len() > FAN_IN {
            let mut merged = Vec::new();
            let mut rest = self.runs.into_iter().peekable();
            while rest.peek().is_some() {
                let group: Vec<File> = rest.by_ref().take(FAN_IN).collect();
                merged.push(write_run(&self.dir, Merge::over(group)?)?);
            }
            self.runs = merged;
        }
        Merge::over(self.runs)
    }
}

fn write_run(dir: &Path, entries: impl Iterator<Item = std::io::Result<Entry>>) -> std::io::Result<File> {
    let file = tempfile::tempfile_in(dir)?;
    let mut writer = BufWriter::new(file);
    for entry in entries {
        let (key, value) = entry?;
        writer.write_all(&(key.len() as u32).to_le_bytes())?;
        writer.write_all(&(value.len() as u32).to_le_bytes())?;
        writer.write_all(&key)?;
        writer.write_all(&value)?;
    }
    let mut file = writer.into_inner()?;
    file.rewind()?;
    Ok(file)
}

/// Key, number of the run it comes from, and row.
type Head = (Vec<u8>, usize, Vec<u8>);

/// Entries of several runs in one order.
pub struct Merge {
    runs: Vec<BufReader<File>>,
    heads: BinaryHeap<Reverse<Head>>,
}

impl Merge {
    fn over(runs: Vec<File>) -> std::io::Result<Merge> {
        let mut merge = Merge { runs: runs.into_iter().map(BufReader::new).collect(), heads: BinaryHeap::new() };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> std::io::Result<()> {
        let reader = &mut self.runs[run];
        let mut lengths = [0; 8];
        match reader.read_exact(&mut lengths[..1]) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        reader.read_exact(&mut lengths[1..])?;
        let length = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let mut key = vec![0; length(&lengths[..4])];
        let mut value = vec![0; length(&lengths[4..])];
        reader.read_exact(&mut key)?;
        reader.read_exact(&mut value)?;
        self.heads.push(Reverse((key, run, value)));
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = std::io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((key, run, value)) = self.heads.pop()?;
        Some(self.advance(run).map(|()| (key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_sorts_like_a_stable_sort_in_memory(keys in prop::collection::vec(0u8..20, 0..600)) {
            let dir = tempfile::tempdir().unwrap();
            // tiny runs: more of them than are merged at once
            let mut sorter = Sorter::with_run_bytes(dir.path(), 200);
            let mut expected: Vec<Entry> = Vec::new();
            for (n, key) in keys.iter().enumerate() {
                let entry = (vec![*key], n.to_le_bytes().to_vec());
                expected.push(entry.clone());
                sorter.push(entry.0, entry.1).unwrap();
            }
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            let found: Vec<Entry> = sorter.finish().unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(found, expected);
        }
    }
}
