//! Where a reader of a feed stands: `<epoch>-<number>`. After a restore numbers come again with other content, so a
//! cursor is worth nothing beyond its epoch, nor beyond what the present one has counted to.

use axum::http::StatusCode;

use crate::error::ApiError;

/// A place in a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// Before everything: `0`.
    Start,
    After {
        epoch: i64,
        number: i64,
    },
}

impl Cursor {
    /// The cursor of a query; absent is the start. 400 when no feed gave it out.
    pub fn parse(after: Option<&str>) -> Result<Cursor, ApiError> {
        let text = after.unwrap_or("0");
        if text == "0" {
            return Ok(Cursor::Start);
        }
        let number = |text: &str| text.parse::<i64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let parts = text.split_once('-').and_then(|(epoch, seq)| Some((number(epoch)?, number(seq)?)));
        let (epoch, number) =
            parts.ok_or_else(|| ApiError::bad_request("malformed", "this cursor was not made by this feed"))?;
        Ok(Cursor::After { epoch, number })
    }

    /// The number to go on after in `epoch`, which has counted to `last`; 410 when the cursor is not of this time line.
    pub fn number_in(self, epoch: i64, last: i64) -> Result<i64, ApiError> {
        match self {
            Cursor::Start => Ok(0),
            Cursor::After { epoch: then, number } if then == epoch && number <= last => Ok(number),
            Cursor::After { .. } => {
                let gone = "the cursor is from before a restore: begin again with after=0";
                Err(ApiError::new(StatusCode::GONE, "cursor_expired", gone))
            }
        }
    }
}

/// The cursor after `number`.
pub fn text(epoch: i64, number: i64) -> String {
    format!("{epoch}-{number}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cursors_are_epoch_and_number() {
        assert_eq!(Cursor::parse(None).unwrap(), Cursor::Start);
        assert_eq!(Cursor::parse(Some("0")).unwrap(), Cursor::Start);
        assert_eq!(Cursor::parse(Some(&text(3, 17))).unwrap(), Cursor::After { epoch: 3, number: 17 });
        for bad in ["", "17", "-1", "1-", "1--2", "1-+2", "1-2-3", "a-b", "1-99999999999999999999"] {
            assert_eq!(Cursor::parse(Some(bad)).unwrap_err().code, "malformed", "{bad}");
        }
    }

    #[test]
    fn a_cursor_of_another_time_line_is_gone() {
        let cursor = Cursor::After { epoch: 3, number: 17 };
        assert_eq!(Cursor::Start.number_in(4, 0).unwrap(), 0);
        assert_eq!(cursor.number_in(3, 17).unwrap(), 17);
        for (epoch, last) in [(4, 17), (2, 17), (3, 16)] {
            assert_eq!(cursor.number_in(epoch, last).unwrap_err().code, "cursor_expired");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_a_place_or_malformed(any in ".{0,60}", near in "[0-9+-]{0,24}") {
            for given in [&any, &near] {
                match Cursor::parse(Some(given)) {
                    Ok(Cursor::Start) => prop_assert_eq!(given, "0"),
                    Ok(Cursor::After { epoch, number }) => prop_assert!(epoch >= 0 && number >= 0),
                    Err(problem) => prop_assert_eq!((problem.status.as_u16(), problem.code), (400, "malformed")),
                }
            }
        }

        #[test]
        fn a_place_comes_back_as_it_was_written(epoch in 0..i64::MAX, number in 0..i64::MAX) {
            let cursor = Cursor::parse(Some(&text(epoch, number))).unwrap();
            prop_assert_eq!(cursor, Cursor::After { epoch, number });
            prop_assert_eq!(cursor.number_in(epoch, number).unwrap(), number);
        }
    }
}
