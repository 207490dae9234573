//! How many texts of a file would be refused: for whoever is about to send a catalog, and for the figures in the docs.

use std::fmt;
use std::io::{self, BufRead};

use super::Field;

/// Lines named in the report.
const SHOWN_MAX: usize = 20;

/// What became of the lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rate {
    pub lines: u64,
    pub refused: u64,
    /// Numbers of the first refused lines, from 1. Never what stands there.
    pub places: Vec<u64>,
}

/// Judges each line as the text of one such field.
pub fn rate(lines: impl BufRead, field: Field) -> io::Result<Rate> {
    let mut rate = Rate::default();
    for line in lines.split(b'\n') {
        rate.lines += 1;
        if field.refuses(String::from_utf8_lossy(&line?).trim()) {
            rate.refused += 1;
            if rate.places.len() < SHOWN_MAX {
                rate.places.push(rate.lines);
            }
        }
    }
    Ok(rate)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.refused as f64 / self.lines.max(1) as f64 * 100.0;
        write!(f, "{} lines, {} would be refused ({percent:.3} %)", self.lines, self.refused)?;
        if !self.places.is_empty() {
            let places: Vec<_> = self.places.iter().map(u64::to_string).collect();
            write!(
                f,
                ": line {}{}",
                places.join(", "),
                if self.refused > self.places.len() as u64 { ", ..." } else { "" }
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_named_by_number() {
        let text = "coffee\n4111 1111 1111 1111\n\ncvv 123\r\n4006381333931";
        let rate = rate(text.as_bytes(), Field::Text).unwrap();
        assert_eq!(rate, Rate { lines: 5, refused: 2, places: vec![2, 4] });
        assert_eq!(rate.to_string(), "5 lines, 2 would be refused (40.000 %): line 2, 4");
    }
}
