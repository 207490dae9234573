//! Reads a foreign CSV: plain or gzip, in any encoding of the WHATWG standard, row by row.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::Context;
use encoding_rs::{CoderResult, Decoder, Encoding};

use super::map::{Constants, Names};

/// A CSV file with its header, read as bytes: a cell that is not text refuses its row, not the file.
pub struct Source {
    reader: csv::Reader<Box<dyn Read>>,
    headers: Vec<String>,
}

/// A row with its line number in the file.
pub struct Raw {
    pub line: u64,
    pub record: csv::ByteRecord,
}

impl Source {
    /// Opens a file; gzip is told by its first bytes, not by its name.
    pub fn open(path: &Path, constants: &Constants) -> anyhow::Result<Source> {
        let open = || File::open(path).with_context(|| format!("cannot read {}", path.display()));
        let mut magic = Vec::new();
        open()?.take(2).read_to_end(&mut magic)?;
        let bytes: Box<dyn Read> = if magic == [0x1f, 0x8b] {
            Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(open()?)))
        } else {
            Box::new(BufReader::new(open()?))
        };
        Source::over(bytes, constants).with_context(|| path.display().to_string())
    }

    /// The same over any bytes.
    pub fn over(bytes: Box<dyn Read>, constants: &Constants) -> anyhow::Result<Source> {
        let encoding = Encoding::for_label(constants.encoding.as_bytes()).context("unknown encoding")?;
        let text: Box<dyn Read> =
            if encoding == encoding_rs::UTF_8 { bytes } else { Box::new(Decoding::new(bytes, encoding)) };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(constants.delimiter as u8)
            .quote(constants.quote as u8)
            .flexible(true)
            .from_reader(text);
        let headers = reader
            .byte_headers()
            .context("the file has no header")?
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim_start_matches('\u{feff}').trim().to_owned())
            .collect();
        Ok(Source { reader, headers })
    }

    /// Position of a column.
    pub fn column(&self, name: &str) -> anyhow::Result<usize> {
        self.headers
            .iter()
            .position(|header| header == name)
            .with_context(|| format!("there is no column {name}; the file has {}", self.headers.join(", ")))
    }

    /// Positions of columns that are read together.
    pub fn columns(&self, names: &Names) -> anyhow::Result<Vec<usize>> {
        names.all().iter().map(|name| self.column(name)).collect()
    }

    /// Columns of the header.
    pub fn width(&self) -> usize {
        self.headers.len()
    }

    /// Names of the columns.
    pub fn headers(&self) -> &[String] {
        &self.headers
    }

    /// The next row; None at the end. An error is one of the file (broken gzip), not of a row.
    pub fn next_row(&mut self) -> anyhow::Result<Option<Raw>> {
        let mut record = csv::ByteRecord::new();
        if !self.reader.read_byte_record(&mut record)? {
            return Ok(None);
        }
        let line = record.position().map_or(0, csv::Position::line);
        Ok(Some(Raw { line, record }))
    }
}

/// Turns bytes of another encoding into UTF-8 while they are read.
struct Decoding<R> {
    inner: R,
    decoder: Decoder,
    input: Vec<u8>,
    output: Vec<u8>,
    taken: usize,
    is_done: bool,
}

impl<R: Read> Decoding<R> {
    fn new(inner: R, encoding: &'static Encoding) -> Decoding<R> {
        Decoding {
            inner,
            decoder: encoding.new_decoder(),
            input: Vec::new(),
            output: Vec::new(),
            taken: 0,
            is_done: false,
        }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let read = self.inner.read(&mut chunk)?;
        self.input.extend_from_slice(&chunk[..read]);
        self.is_done = read == 0;
        self.output.clear();
        self.taken = 0;
        let mut text = vec![0; self.input.len() * 3 + 16];
        let (result, used, written, _) = self.decoder.decode_to_utf8(&self.input, &mut text, self.is_done);
        debug_assert_eq!(result, CoderResult::InputEmpty);
        self.output.extend_from_slice(&text[..written]);
        self.input.drain(..used);
        Ok(())
    }
}

impl<R: Read> Read for Decoding<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.taken == self.output.len() {
            if self.is_done {
                return Ok(0);
            }
            self.fill()?;
        }
        let count = into.len().min(self.output.len() - self.taken);
        into[..count].copy_from_slice(&self.output[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::map::Map;

    fn rows(bytes: &[u8], encoding: &str, delimiter: char) -> Vec<Vec<String>> {
        let mut constants = Map::parse(include_str!("../../../maps/completejourney.toml")).unwrap().constants;
        (constants.encoding, constants.delimiter) = (encoding.to_owned(), delimiter);
        let mut source = Source::over(Box::new(std::io::Cursor::new(bytes.to_vec())), &constants).unwrap();
        let mut rows = vec![source.headers().to_vec()];
        while let Some(raw) = source.next_row().unwrap() {
            rows.push(raw.record.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect());
        }
        rows
    }

    #[test]
    fn quoted_delimiters_other_encodings_and_a_byte_order_mark() {
        assert_eq!(rows(b"\xef\xbb\xbfa,b\n\"x, \"\"y\"\"\",2\n", "utf-8", ','), [["a", "b"], ["x, \"y\"", "2"]]);
        assert_eq!(rows(b"a;b\nCaf\xe9;1\n", "windows-1252", ';'), [["a", "b"], ["Café", "1"]]);
        let utf16: Vec<u8> = "\u{feff}a\tb\nKöln\t1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(rows(&utf16, "utf-16le", '\t'), [["a", "b"], ["Köln", "1"]]);
    }
}
