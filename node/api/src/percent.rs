//! Percent-encoding, both ways: any byte may stand in a key, and a path or query carries it.
//!
//! Strict: a `%` that two hexadecimal digits do not follow is an error, never a guess.

use std::borrow::Cow;

/// A `%` without two hexadecimal digits behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not percent-encoded: two hexadecimal digits must follow each '%'")]
pub struct BadEscape {
    text: String,
}

/// Text that stands for `bytes` as one path segment or one query value.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len());
    for &b in bytes {
        // RFC 3986, unreserved: what no proxy on the way rewrites.
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            text.push(char::from(b));
        } else {
            text.push('%');
            text.push(char::from(DIGITS[usize::from(b >> 4)]));
            text.push(char::from(DIGITS[usize::from(b & 15)]));
        }
    }
    text
}

/// The bytes that a path segment stands for.
///
/// # Errors
/// [`BadEscape`].
pub fn decode(text: &str) -> Result<Cow<'_, [u8]>, BadEscape> {
    if !text.as_bytes().contains(&b'%') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    unescape(text, Plus::Plus).map(Cow::Owned)
}

/// The bytes that a query name or value stands for: as [`decode`], and `+` is a space.
///
/// # Errors
/// [`BadEscape`].
pub fn decode_query(text: &str) -> Result<Cow<'_, [u8]>, BadEscape> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    unescape(text, Plus::Space).map(Cow::Owned)
}

/// What a `+` stands for.
#[derive(Clone, Copy, PartialEq)]
enum Plus {
    Plus,
    Space,
}

fn unescape(text: &str, plus: Plus) -> Result<Vec<u8>, BadEscape> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match b {
            b'%' => {
                let pair = rest.split_first_chunk::<2>();
                let value =
                    pair.and_then(|([high, low], _)| Some(digit(*high)? << 4 | digit(*low)?));
                let (Some((_, behind)), Some(value)) = (pair, value) else {
                    return Err(BadEscape {
                        text: text.chars().take(80).collect(),
                    });
                };
                rest = behind;
                value
            }
            b'+' if plus == Plus::Space => b' ',
            b => b,
        });
    }
    Ok(bytes)
}

fn digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_the_way_through_a_path_and_a_query(bytes: Vec<u8>) {
            let text = encode(&bytes);
            prop_assert_eq!(decode(&text).unwrap().into_owned(), bytes.clone());
            prop_assert_eq!(decode_query(&text).unwrap().into_owned(), bytes);
            prop_assert!(!text.contains(['/', '?', '&', '#', '+', ' ']));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text: String) {
            let _ = (decode(&text), decode_query(&text));
        }
    }

    #[test]
    fn a_broken_escape_is_refused_not_guessed() {
        for bad in ["%", "%4", "a%zz", "%%41", "%4g", "%é1"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
        assert_eq!(decode("a+b").unwrap().as_ref(), b"a+b");
        assert_eq!(decode_query("a+b").unwrap().as_ref(), b"a b");
        assert_eq!(decode("a%2Fb%00%ff").unwrap().as_ref(), b"a/b\0\xff");
    }
}
