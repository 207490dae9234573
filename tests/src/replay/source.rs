//! Reads a foreign CSV: plain or gzip, in any encoding of the WHATWG standard, row by row.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::Context;
use csv::ByteRecord;
use encoding_rs::{CoderResult, Decoder, Encoding};

use super::cells::Refusal;
use super::lines::{TextLines, split};
use super::map::{Constants, Names};

/// Most line ends within one row.
const CONTINUED_MAX: usize = 100;

/// A CSV file with its header, read as bytes: a cell that is not text refuses its row, not the file.
pub struct Source {
    lines: TextLines,
    delimiter: u8,
    quote: u8,
    headers: Vec<String>,
}

/// A row with its line number in the file.
pub struct Raw {
    pub line: u64,
    pub record: ByteRecord,
    /// Why this line cannot be a row, whatever its cells are.
    pub broken: Option<Refusal>,
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
        let (delimiter, quote) = (constants.delimiter as u8, constants.quote as u8);
        let mut source = Source { lines: TextLines::new(text), delimiter, quote, headers: Vec::new() };
        source.headers = source.header()?;
        Ok(source)
    }

    fn header(&mut self) -> anyhow::Result<Vec<String>> {
        let (_, mut text) = self.lines.take()?.context("the file has no header")?;
        if let Some(rest) = text.strip_prefix("\u{feff}".as_bytes()) {
            text = rest.to_vec();
        }
        let mut header = split(&text, self.delimiter, self.quote);
        for _ in 0..CONTINUED_MAX {
            if !header.is_open {
                break;
            }
            let (_, more) = self.lines.take()?.unwrap_or_default();
            text.extend_from_slice(&[b"\n", &more[..]].concat());
            header = split(&text, self.delimiter, self.quote);
        }
        anyhow::ensure!(!header.is_open, "a quote opens in the header and is not closed");
        Ok(header.record.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect())
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
    ///
    /// A quoted cell may hold line ends. A quote that is never closed breaks its own line only: the lines
    /// after it are read as rows again.
    pub fn next_row(&mut self) -> anyhow::Result<Option<Raw>> {
        let Some((line, text)) = self.lines.take()? else { return Ok(None) };
        let first = split(&text, self.delimiter, self.quote);
        if !first.is_open {
            return Ok(Some(Raw { line, record: first.record, broken: None }));
        }
        if let Some(record) = self.continued(text)? {
            return Ok(Some(Raw { line, record, broken: None }));
        }
        let column = self.headers.get(first.record.len() - 1).map_or("an extra column", String::as_str);
        let reason = format!("a quote opens in {column} and is not closed before the next row");
        Ok(Some(Raw { line, record: first.record, broken: Some(("unbalanced_quote", reason)) }))
    }

    /// The row that begins with `text` and goes on over the lines after it; None, and no line taken, when
    /// its quote was opened by mistake: then it closes nowhere near, not before a delimiter, with a wrong
    /// number of columns, or only after lines that are rows by themselves.
    fn continued(&mut self, mut text: Vec<u8>) -> anyhow::Result<Option<ByteRecord>> {
        for ahead in 0..CONTINUED_MAX {
            let Some((_, more)) = self.lines.peek(ahead)? else { return Ok(None) };
            let alone = split(more, self.delimiter, self.quote);
            if alone.is_clean && !alone.is_open && alone.record.len() == self.headers.len() {
                return Ok(None);
            }
            text.extend_from_slice(&[b"\n", &more[..]].concat());
            let whole = split(&text, self.delimiter, self.quote);
            if !whole.is_open {
                let is_row = whole.is_clean && whole.record.len() == self.headers.len();
                if is_row {
                    self.lines.skip(ahead + 1);
                }
                return Ok(is_row.then_some(whole.record));
            }
        }
        Ok(None)
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
    /// What becomes of each line of a file with the columns a, b, c.
    fn lines(text: &str) -> Vec<(u64, Vec<String>, Option<&'static str>)> {
        let constants = Map::parse(include_str!("../../../maps/completejourney.toml")).unwrap().constants;
        let bytes = format!("a,b,c\n{text}").into_bytes();
        let mut source = Source::over(Box::new(std::io::Cursor::new(bytes)), &constants).unwrap();
        let mut found = Vec::new();
        while let Some(raw) = source.next_row().unwrap() {
            let cells = raw.record.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
            found.push((raw.line, cells, raw.broken.map(|(code, _)| code)));
        }
        found
    }

    fn row(line: u64, cells: [&str; 3]) -> (u64, Vec<String>, Option<&'static str>) {
        (line, cells.map(str::to_owned).to_vec(), None)
    }

    #[test]
    fn an_opening_quote_without_its_end_breaks_its_own_line_only() {
        let rest: String = (0..5_000).map(|n| format!("{n},x,y\n")).collect();
        let found = lines(&format!("1,\"12 pipe,3\n{rest}"));
        assert_eq!(found.len(), 5_001);
        assert_eq!((found[0].0, found[0].2), (2, Some("unbalanced_quote")));
        assert_eq!(found[1], row(3, ["0", "x", "y"]));
        // also where a later quote would close it, and at the end of the file
        let found = lines("1,\"12 pipe,3\n2,\"b\",4\n3,\"c\",\"5\"\n4,d,\"6\n");
        let broken: Vec<u64> = found.iter().filter(|row| row.2.is_some()).map(|row| row.0).collect();
        assert_eq!((found.len(), broken), (4, vec![2, 5]));
        assert_eq!(found[1..3], [row(3, ["2", "b", "4"]), row(4, ["3", "c", "5"])]);
    }

    #[test]
    fn a_quoted_cell_may_hold_line_ends() {
        let found = lines("1,\"two\r\nlines, \"\"really\"\"\",3\r\n\r\n\"4\n\n5\",6,\"7\n8\"\n9,a,b");
        let expected =
            [row(2, ["1", "two\nlines, \"really\"", "3"]), row(5, ["4\n\n5", "6", "7\n8"]), row(9, ["9", "a", "b"])];
        assert_eq!(found, expected);
    }
}
