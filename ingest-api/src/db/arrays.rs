//! Arrays as Postgres sends them, without a copy of their elements. sqlx decodes an array into owned values, one allocation
//! each; the relay reads five arrays a row, six elements each, only to copy them once more into the record.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgValueFormat};
use sqlx::{Row as _, ValueRef as _};

/// The elements of an array column, each read by `read`. Errors: `ColumnDecode` when the column is no array in binary
/// format, holds a null, or `read` refuses an element.
pub fn elements<'r, T>(
    row: &'r PgRow,
    column: usize,
    read: impl Fn(&'r [u8]) -> Result<T, BoxDynError>,
) -> Result<Vec<T>, sqlx::Error> {
    let value = row.try_get_raw(column)?;
    let decoded = if value.is_null() || value.format() != PgValueFormat::Binary {
        Err("not an array in binary format".into())
    } else {
        value.as_bytes().and_then(|bytes| parse(bytes, read))
    };
    decoded.map_err(|source| sqlx::Error::ColumnDecode { index: column.to_string(), source })
}

/// The layout is that of `array_send`: dimensions, null flag, element type, then length and lower bound of each dimension,
/// then length and bytes of each element; all numbers of four bytes, big-endian.
fn parse<'r, T>(mut bytes: &'r [u8], read: impl Fn(&'r [u8]) -> Result<T, BoxDynError>) -> Result<Vec<T>, BoxDynError> {
    let dimensions = number(&mut bytes)?;
    take(&mut bytes, 8)?;
    if dimensions == 0 {
        return Ok(Vec::new());
    }
    if dimensions != 1 {
        return Err(format!("an array of {dimensions} dimensions").into());
    }
    let count = usize::try_from(number(&mut bytes)?)?;
    take(&mut bytes, 4)?;
    // What the length claims is not trusted with memory: each element has four bytes at least.
    let mut all = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        let length = usize::try_from(number(&mut bytes)?).map_err(|_| "a null element")?;
        all.push(read(take(&mut bytes, length)?)?);
    }
    Ok(all)
}

fn number(bytes: &mut &[u8]) -> Result<i32, BoxDynError> {
    Ok(i32::from_be_bytes(take(bytes, 4)?.try_into()?))
}

fn take<'r>(bytes: &mut &'r [u8], count: usize) -> Result<&'r [u8], BoxDynError> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or("an array that ends too early")?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(dimensions: i32, elements: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [dimensions, 0, 17].into_iter().flat_map(i32::to_be_bytes).collect();
        if dimensions > 0 {
            bytes.extend([elements.len() as i32, 1].into_iter().flat_map(i32::to_be_bytes));
        }
        for element in elements {
            bytes.extend(element.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
            bytes.extend(element.unwrap_or_default());
        }
        bytes
    }

    #[test]
    fn elements_are_what_was_sent() {
        assert_eq!(parse(&sent(1, &[Some(b"ab"), Some(b""), Some(b"c")]), Ok).unwrap(), [&b"ab"[..], b"", b"c"]);
        assert!(parse(&sent(0, &[]), Ok).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_flat_array_is_an_error() {
        let whole = sent(1, &[Some(b"ab")]);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length], Ok).is_err(), "cut to {length} bytes");
        }
        assert!(parse(&sent(1, &[None]), Ok).is_err());
        assert!(parse(&sent(2, &[]), Ok).is_err());
    }
}
