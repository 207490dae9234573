//! Rows of a foreign export to rows of documents: pure. A row is taken whole or refused with its reason.

use chrono::{DateTime, Utc};
use csv::ByteRecord;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use super::cells::{self, Refusal};
use super::map::{Constants, Map, Sign};
use super::source::{Raw, Source};

/// Longest text sent to the API; more is cut off.
const TEXT_MAX: usize = 120;
/// Longest SKU, location or customer: these are never cut, since two could become one.
pub const CODE_MAX: usize = 50;
/// Largest amount and unit price the API takes, minor units.
const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// One row that can be sold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Line of the file.
    pub line: u64,
    pub document: String,
    pub location: String,
    pub location_name: String,
    pub occurred_at: DateTime<Utc>,
    /// Trimmed, lower case: how a SKU is told from another.
    pub sku: String,
    pub description: String,
    pub category: String,
    /// Thousandths.
    pub qty: i64,
    /// Before discounts, minor units.
    pub amount_minor: i64,
    pub discount_minor: i64,
    pub customer: Option<String>,
}

impl Row {
    /// What the customer paid for it.
    pub fn paid_minor(&self) -> i64 {
        self.amount_minor - self.discount_minor
    }
}

/// A row that is not sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub line: u64,
    pub document: String,
    pub sku: String,
    pub code: String,
    pub reason: String,
}

/// Positions of the columns a map names.
pub struct Reader<'a> {
    constants: &'a Constants,
    width: usize,
    document: Vec<usize>,
    location: usize,
    location_name: Option<usize>,
    time: Vec<usize>,
    sku: usize,
    description: Vec<usize>,
    category: Option<usize>,
    quantity: usize,
    figure: Figure,
    discounts: Vec<usize>,
    customer: Option<usize>,
}

/// Which amount the file has.
#[derive(Clone, Copy)]
enum Figure {
    Paid(usize),
    Amount(usize),
    UnitPrice(usize),
}

impl<'a> Reader<'a> {
    /// Finds every column in the header, or names the one that is missing.
    pub fn new(map: &'a Map, source: &Source) -> anyhow::Result<Reader<'a>> {
        let columns = &map.columns;
        let optional = |name: &Option<String>| name.as_ref().map(|name| source.column(name)).transpose();
        let figure = match (optional(&columns.paid)?, optional(&columns.amount)?, optional(&columns.unit_price)?) {
            (Some(paid), _, _) => Figure::Paid(paid),
            (_, Some(amount), _) => Figure::Amount(amount),
            (_, _, Some(price)) => Figure::UnitPrice(price),
            _ => anyhow::bail!("the map names no amount"),
        };
        Ok(Reader {
            constants: &map.constants,
            width: source.width(),
            document: source.columns(&columns.document)?,
            location: source.column(&columns.location)?,
            location_name: optional(&columns.location_name)?,
            time: source.columns(&columns.time)?,
            sku: source.column(&columns.sku)?,
            description: columns
                .description
                .as_ref()
                .map(|names| source.columns(names))
                .transpose()?
                .unwrap_or_default(),
            category: optional(&columns.category)?,
            quantity: source.column(&columns.quantity)?,
            figure,
            discounts: columns.discounts.iter().map(|name| source.column(name)).collect::<anyhow::Result<_>>()?,
            customer: optional(&columns.customer)?,
        })
    }

    /// The row, or why it is refused.
    pub fn read(&self, raw: Raw) -> Result<Row, Refused> {
        let (line, cells) = (raw.line, Cells(&raw.record));
        let row = match raw.broken {
            Some(refusal) => Err(refusal),
            None => self.row(line, &cells),
        };
        row.map_err(|(code, reason)| Refused {
            line,
            document: cells.number(&self.document).unwrap_or_default(),
            sku: cells.text(self.sku).unwrap_or_default(),
            code: code.to_owned(),
            reason,
        })
    }

    fn row(&self, line: u64, cells: &Cells<'_>) -> Result<Row, Refusal> {
        if cells.0.len() != self.width {
            return Err(("column_count", format!("{} cells where the header has {}", cells.0.len(), self.width)));
        }
        let required =
            |text: String, code: &'static str| if text.is_empty() { Err((code, "empty".to_owned())) } else { Ok(text) };
        let qty = cells::quantity(&cells.text(self.quantity)?, self.constants)?;
        match qty {
            0 => return Err(("zero_quantity", "a quantity of 0 sells nothing".to_owned())),
            ..0 => {
                return Err((
                    "return_line",
                    "a negative quantity is a return; returns are not taken over yet".to_owned(),
                ));
            }
            1_000_000_001.. => return Err(("quantity_too_large", "more than 1,000,000 units in one line".to_owned())),
            _ => {}
        }
        let discount_minor = self.discount(cells)?;
        let amount_minor = self.amount(cells, qty, discount_minor)?;
        if amount_minor > AMOUNT_MAX || unit_price(amount_minor, qty) > i128::from(AMOUNT_MAX) {
            return Err(("amount_too_large", format!("more than {AMOUNT_MAX} minor units, or that for one unit")));
        }
        let location = required(cells.code(self.location)?, "missing_location")?;
        Ok(Row {
            line,
            document: required(cells.number(&self.document)?, "missing_document")?,
            location_name: self.location_name.map(|column| cells.text(column)).transpose()?.unwrap_or_default(),
            location,
            occurred_at: cells::instant(&cells.joined(&self.time)?, self.constants)?,
            sku: required(short(fold(&cells.code(self.sku)?))?, "missing_sku")?,
            description: cells.joined(&self.description)?,
            category: self.category.map(|column| cells.text(column)).transpose()?.unwrap_or_default(),
            qty,
            amount_minor,
            discount_minor,
            customer: self.customer.map(|column| cells.code(column)).transpose()?.filter(|text| !text.is_empty()),
        })
    }

    fn discount(&self, cells: &Cells<'_>) -> Result<i64, Refusal> {
        let mut sum: i64 = 0;
        for column in &self.discounts {
            let amount = cells::amount(&cells.text(*column)?, self.constants)?;
            let is_negative = self.constants.discount_sign == Sign::Negative;
            let amount = if is_negative { amount.saturating_neg() } else { amount };
            if amount < 0 {
                return Err(("negative_discount", "a discount that raises the price".to_owned()));
            }
            sum = sum.checked_add(amount).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    /// The line before its discounts.
    fn amount(&self, cells: &Cells<'_>, qty: i64, discount_minor: i64) -> Result<i64, Refusal> {
        let amount = match self.figure {
            Figure::Paid(column) => {
                let paid = self.present(cells, column)?;
                paid.checked_add(discount_minor).filter(|_| paid >= 0).ok_or_else(|| returned(paid))?
            }
            Figure::Amount(column) => self.present(cells, column)?,
            Figure::UnitPrice(column) => cells::extended(&cells.text(column)?, qty, self.constants)?,
        };
        if amount < 0 {
            return Err(returned(amount));
        }
        if discount_minor > amount {
            return Err(("discount_exceeds_line", format!("discounts of {discount_minor} on {amount}")));
        }
        Ok(amount)
    }

    fn present(&self, cells: &Cells<'_>, column: usize) -> Result<i64, Refusal> {
        let text = cells.text(column)?;
        if text.is_empty() {
            return Err(("missing_amount", "the amount is empty".to_owned()));
        }
        cells::amount(&text, self.constants)
    }
}

fn returned(amount: i64) -> Refusal {
    if amount > 0 {
        return overflow();
    }
    ("return_line", "a negative amount is a return; returns are not taken over yet".to_owned())
}

fn overflow() -> Refusal {
    ("overflow", "the amounts are out of range".to_owned())
}

/// Price of one unit in minor units, rounded up.
pub fn unit_price(amount_minor: i64, qty: i64) -> i128 {
    (i128::from(amount_minor) * 1_000 + i128::from(qty) - 1) / i128::from(qty)
}

fn short(code: String) -> Result<String, Refusal> {
    if code.chars().count() > CODE_MAX {
        return Err(("too_long", format!("longer than {CODE_MAX} characters")));
    }
    Ok(code)
}

/// Cells of one row as clean text.
struct Cells<'a>(&'a ByteRecord);

impl Cells<'_> {
    fn whole(&self, column: usize) -> Result<String, Refusal> {
        let bytes = self.0.get(column).unwrap_or_default();
        let text = std::str::from_utf8(bytes)
            .map_err(|_| ("bad_encoding", "not text in the encoding of the map".to_owned()))?;
        Ok(tidy(text))
    }

    fn text(&self, column: usize) -> Result<String, Refusal> {
        self.whole(column).map(cut)
    }

    fn code(&self, column: usize) -> Result<String, Refusal> {
        short(self.whole(column)?)
    }

    fn whole_joined(&self, columns: &[usize]) -> Result<String, Refusal> {
        let cells: Vec<String> = columns.iter().map(|column| self.whole(*column)).collect::<Result<_, _>>()?;
        Ok(tidy(&cells.join(" ")))
    }

    fn joined(&self, columns: &[usize]) -> Result<String, Refusal> {
        self.whole_joined(columns).map(cut)
    }

    /// A document's number. The end of a long one becomes its hash, so that two never become one.
    fn number(&self, columns: &[usize]) -> Result<String, Refusal> {
        let number = self.whole_joined(columns)?;
        if number.chars().count() <= TEXT_MAX {
            return Ok(number);
        }
        let digest = Sha256::digest(number.as_bytes());
        let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let begin: String = number.chars().take(TEXT_MAX - hash.len() - 1).collect();
        Ok(format!("{begin}~{hash}"))
    }
}

/// The one spelling of a SKU, the same as the API's: without it two spellings would be two products.
pub fn fold(sku: &str) -> String {
    // upper first, so that letters with several lower forms become one
    sku.to_uppercase().to_lowercase().nfc().collect()
}

/// One short line of printable text.
pub fn clean(text: &str) -> String {
    cut(tidy(text))
}

fn cut(text: String) -> String {
    if text.len() <= TEXT_MAX { text } else { text.chars().take(TEXT_MAX).collect() }
}

/// One line of printable text in the spelling the API stores (NFC): control characters and runs of blanks
/// become one blank, what cannot be seen is left out.
fn tidy(text: &str) -> String {
    let is_unseen = |c: char| {
        matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let seen = text.chars().filter(|c| !is_unseen(*c)).map(|c| if c.is_control() { ' ' } else { c });
    seen.nfc().collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "household_id,store_id,basket_id,product_id,quantity,sales_value,retail_disc,coupon_disc,transaction_timestamp\n";

    fn read(row: &str) -> Result<Row, Refused> {
        let map = Map::parse(include_str!("../../../maps/completejourney.toml")).unwrap();
        let bytes = format!("{HEADER}{row}\n").into_bytes();
        let mut source = Source::over(Box::new(std::io::Cursor::new(bytes)), &map.constants).unwrap();
        let raw = source.next_row().unwrap().unwrap();
        Reader::new(&map, &source).unwrap().read(raw)
    }

    #[test]
    fn a_row_is_taken_with_its_amount_before_discounts() {
        let row = read("7, 309 ,31,AB-1,2.0,3.86,0.43,0.1,2017-01-28 19:06:53").unwrap();
        assert_eq!((row.qty, row.amount_minor, row.discount_minor, row.paid_minor()), (2_000, 439, 53, 386));
        assert_eq!((row.line, row.location.as_str(), row.sku.as_str()), (2, "309", "ab-1"));
    }

    #[test]
    fn each_dirt_has_its_code() {
        for (row, code) in [
            ("7,309,31,1,0.0,0.0,0.0,0.0,2017-01-28 19:06:53", "zero_quantity"),
            ("7,309,31,1,-1,-3.86,0.0,0.0,2017-01-28 19:06:53", "return_line"),
            ("7,309,31,1,1,-3.86,0.0,0.0,2017-01-28 19:06:53", "return_line"),
            ("7,309,31,1,,3.86,0.0,0.0,2017-01-28 19:06:53", "missing_quantity"),
            ("7,309,31,1,1,,0.0,0.0,2017-01-28 19:06:53", "missing_amount"),
            ("7,309,31,,1,1,0.0,0.0,2017-01-28 19:06:53", "missing_sku"),
            ("7,,31,1,1,1,0.0,0.0,2017-01-28 19:06:53", "missing_location"),
            ("7,309,,1,1,1,0.0,0.0,2017-01-28 19:06:53", "missing_document"),
            ("7,309,31,1,1,1,0.0,0.0,soon", "bad_time"),
            ("7,309,31,1,1,1,0.0,0.0,1899-12-30 00:00:00", "time_out_of_range"),
            ("7,309,31,1,1,1,0.0,0.0,9999-12-31 00:00:00", "time_out_of_range"),
            ("7,309,31,1,1,10000000000.01,0.0,0.0,2017-01-28 19:06:53", "amount_too_large"),
            ("7,309,31,1,0.001,10000001,0.0,0.0,2017-01-28 19:06:53", "amount_too_large"),
            ("7,309,31,ßßßßßßßßßßßßßßßßßßßßßßßßßßß,1,1,0.0,0.0,2017-01-28 19:06:53", "too_long"),
            ("7,309,31,1,1,1,-0.5,0.0,2017-01-28 19:06:53", "negative_discount"),
            ("7,309,31,1,1", "column_count"),
            ("7,309,31,1,2000000,1,0.0,0.0,2017-01-28 19:06:53", "quantity_too_large"),
            ("7,309,31,1,1,99999999999999999999,0.0,0.0,2017-01-28 19:06:53", "amount_precision"),
        ] {
            assert_eq!(read(row).unwrap_err().code, code, "{row}");
        }
    }

    #[test]
    fn the_refusal_names_the_document_and_the_reason() {
        let refused = read("7,309,31,1,0,0,0,0,2017-01-28 19:06:53").unwrap_err();
        assert_eq!((refused.line, refused.document.as_str(), refused.sku.as_str()), (2, "31", "1"));
        assert!(!refused.reason.is_empty());
    }
    #[test]
    fn text_is_read_in_the_one_spelling_the_api_stores() {
        let [composed, decomposed] = ["Zo\u{eb}", "Zoe\u{308}"]
            .map(|name| read(&format!("{name},{name},{name},{name},1,1,0,0,2017-01-28 19:06:53")).unwrap());
        assert_eq!(composed, decomposed);
        assert_eq!(decomposed.customer.as_deref(), Some("Zo\u{eb}"));
    }

    #[test]
    fn long_numbers_of_documents_stay_apart() {
        let long = "9".repeat(200);
        let number = |end: &str| read(&format!("7,309,{long}{end},1,1,1,0,0,2017-01-28 19:06:53")).unwrap().document;
        assert_ne!(number("1"), number("2"));
        assert_eq!(number("1"), number("1"));
        assert_eq!(number("1").chars().count(), TEXT_MAX);
    }
}
