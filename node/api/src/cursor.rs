//! [`Cursor`]: where the next page of a scan begins, and of which scan. Opaque to clients; base64
//! in the URL alphabet over
//!
//! ```text
//! version u8 = 1 | flags u8 (1 reverse, 2 start given, 4 end given) | 4 × (length u16 LE, bytes)
//! ```
//!
//! the four being prefix, start, end and the last key of the page before. The scan's bounds travel
//! with it, so that a page asked for with the cursor alone cannot widen.

use bytes::Bytes;
use unisondb_types::{Key, limits};

use crate::base64;

const VERSION: u8 = 1;
const REVERSE: u8 = 1;
const START: u8 = 2;
const END: u8 = 4;

/// A scan, and the last key it has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Only keys that begin so.
    pub prefix: Bytes,
    /// Only keys at or after this.
    pub start: Option<Bytes>,
    /// Only keys before this.
    pub end: Option<Bytes>,
    /// From the last key to the first.
    pub reverse: bool,
    /// The last key given.
    pub after: Key,
}

/// A text that no server has given as a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this server gave: begin the scan again without it")]
pub struct NotACursor;

impl Cursor {
    /// As the client is given it.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut flags = 0;
        for (flag, set) in [
            (REVERSE, self.reverse),
            (START, self.start.is_some()),
            (END, self.end.is_some()),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut bytes = vec![VERSION, flags];
        let none = Bytes::new();
        let start = self.start.as_ref().unwrap_or(&none);
        let end = self.end.as_ref().unwrap_or(&none);
        for part in [&self.prefix, start, end, &self.after.to_bytes()] {
            let len =
                u16::try_from(part.len()).expect("bounds of a scan are at most as long as keys");
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(part);
        }
        base64::encode_url(&bytes)
    }

    /// From what a client sends back.
    ///
    /// # Errors
    /// [`NotACursor`].
    pub fn decode(text: &str) -> Result<Cursor, NotACursor> {
        let bytes = Bytes::from(base64::decode_url(text).map_err(|_| NotACursor)?);
        let [VERSION, flags, ..] = bytes[..] else {
            return Err(NotACursor);
        };
        if flags & !(REVERSE | START | END) != 0 {
            return Err(NotACursor);
        }
        let mut rest = bytes.slice(2..);
        let mut part = || -> Result<Bytes, NotACursor> {
            let len = rest.split_first_chunk::<2>().ok_or(NotACursor)?.0;
            let len = usize::from(u16::from_le_bytes(*len));
            if len > limits::KEY_BYTES || rest.len() < 2 + len {
                return Err(NotACursor);
            }
            let part = rest.slice(2..2 + len);
            rest = rest.slice(2 + len..);
            Ok(part)
        };
        let (prefix, start, end, after) = (part()?, part()?, part()?, part()?);
        if !rest.is_empty() {
            return Err(NotACursor);
        }
        Ok(Cursor {
            prefix,
            start: (flags & START != 0).then_some(start),
            end: (flags & END != 0).then_some(end),
            reverse: flags & REVERSE != 0,
            after: Key::new(after).map_err(|_| NotACursor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn part() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..=limits::KEY_BYTES).prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_was_given(
            prefix in part(),
            start in proptest::option::of(part()),
            end in proptest::option::of(part()),
            reverse: bool,
            after in vec(any::<u8>(), 1..=limits::KEY_BYTES),
        ) {
            let cursor = Cursor { prefix, start, end, reverse, after: Key::new(after).unwrap() };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn any_text_is_a_cursor_or_refused(text: String, bytes: Vec<u8>) {
            let _ = Cursor::decode(&text);
            let _ = Cursor::decode(&base64::encode_url(&bytes));
        }
    }
}
