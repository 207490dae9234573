//! Lines of a text and their cells: the two steps of reading a CSV, kept apart so that a mistake in one line
//! stays in it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};

use csv::ByteRecord;

/// Lines of a text with their numbers from 1; they end with LF, CR LF or CR.
pub struct TextLines {
    reader: BufReader<Box<dyn Read>>,
    /// Read, not yet handed out.
    ahead: VecDeque<(u64, Vec<u8>)>,
    number: u64,
    /// The last line ended with CR: an LF right after it belongs to that end.
    after_cr: bool,
}

impl TextLines {
    pub fn new(text: Box<dyn Read>) -> TextLines {
        TextLines { reader: BufReader::new(text), ahead: VecDeque::new(), number: 0, after_cr: false }
    }

    /// The next line that is not blank; None at the end.
    pub fn take(&mut self) -> std::io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            let line = match self.ahead.pop_front() {
                Some(line) => Some(line),
                None => self.read()?,
            };
            if line.as_ref().is_none_or(|(_, text)| !text.is_empty()) {
                return Ok(line);
            }
        }
    }

    /// The line `ahead` lines after the last one handed out, blank or not; it stays.
    pub fn peek(&mut self, ahead: usize) -> std::io::Result<Option<&(u64, Vec<u8>)>> {
        while self.ahead.len() <= ahead {
            let Some(line) = self.read()? else { return Ok(None) };
            self.ahead.push_back(line);
        }
        Ok(self.ahead.get(ahead))
    }

    /// Takes lines that were looked at.
    pub fn skip(&mut self, lines: usize) {
        self.ahead.drain(..lines.min(self.ahead.len()));
    }

    fn read(&mut self) -> std::io::Result<Option<(u64, Vec<u8>)>> {
        let mut text = Vec::new();
        let mut is_at_end = true;
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                break;
            }
            if std::mem::take(&mut self.after_cr) && chunk[0] == b'\n' {
                self.reader.consume(1);
                continue;
            }
            is_at_end = false;
            let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                let length = chunk.len();
                text.extend_from_slice(chunk);
                self.reader.consume(length);
                continue;
            };
            self.after_cr = chunk[end] == b'\r';
            text.extend_from_slice(&chunk[..end]);
            self.reader.consume(end + 1);
            break;
        }
        if is_at_end {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some((self.number, text)))
    }
}

/// The cells of a text.
pub struct Split {
    pub record: ByteRecord,
    /// The last cell begins with a quote that is not closed.
    pub is_open: bool,
    /// Quotes stand around whole cells and nowhere else, unless doubled within one.
    pub is_clean: bool,
}

/// Cells as spreadsheets write and read them: a quote that begins a cell lasts to the next single one, two
/// within it are one; a quote inside a cell that has none at its begin is a character like any other.
pub fn split(text: &[u8], delimiter: u8, quote: u8) -> Split {
    let mut split = Split { record: ByteRecord::new(), is_open: false, is_clean: true };
    let mut cell = Vec::new();
    let mut is_begin = true;
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if split.is_open {
            if byte != quote || bytes.next_if_eq(&quote).is_some() {
                cell.push(byte);
            } else {
                split.is_open = false;
                split.is_clean &= bytes.peek().is_none_or(|next| *next == delimiter);
            }
        } else if byte == delimiter {
            split.record.push_field(&cell);
            cell.clear();
            is_begin = true;
            continue;
        } else if byte == quote && is_begin {
            split.is_open = true;
        } else {
            split.is_clean &= byte != quote;
            cell.push(byte);
        }
        is_begin = false;
    }
    split.record.push_field(&cell);
    split
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cells_are_those_of_the_csv_library(text in "[ab,\"]{1,30}") {
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
            let mut expected = ByteRecord::new();
            prop_assert!(reader.read_byte_record(&mut expected).unwrap());
            prop_assert_eq!(split(text.as_bytes(), b',', b'"').record, expected);
        }

        #[test]
        fn lines_are_those_of_the_text(lines in prop::collection::vec("[ab]{0,9000}", 0..5), end in "\n|\r|\r\n") {
            let text: String = lines.iter().map(|line| format!("{line}{end}")).collect();
            let mut found = TextLines::new(Box::new(std::io::Cursor::new(text)));
            for (line, number) in lines.iter().zip(1..).filter(|(line, _)| !line.is_empty()) {
                prop_assert_eq!(found.take().unwrap(), Some((number, line.clone().into_bytes())));
            }
            prop_assert_eq!(found.take().unwrap(), None);
        }
    }
}
