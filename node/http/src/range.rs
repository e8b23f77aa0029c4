//! `Range` on objects and segments: one range of bytes (RFC 9110, section 14).

use std::ops::Range;

use http::HeaderValue;

/// What a request wants of `len` bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All: no range, or one that this server may ignore (several, another unit, not a range).
    All,
    /// These bytes: 206.
    Part(Range<u64>),
    /// Nothing of it is there: 416.
    Nothing,
}

/// Whether a range is meant for what `tag` stands for, by the `If-Range` headers: without one, yes;
/// else by strong comparison, so neither a weak tag nor a date ever is (RFC 9110, 13.1.5).
pub(crate) fn is_of<'a>(
    if_range: impl IntoIterator<Item = &'a HeaderValue>,
    tag: &HeaderValue,
) -> bool {
    if_range
        .into_iter()
        .all(|one| one.as_bytes().trim_ascii() == tag.as_bytes() && !is_weak(tag))
}

fn is_weak(tag: &HeaderValue) -> bool {
    tag.as_bytes().starts_with(b"W/")
}

/// Reads a `Range` header.
pub(crate) fn wanted(header: Option<&[u8]>, len: u64) -> Wanted {
    let text = header.and_then(|h| std::str::from_utf8(h).ok());
    let Some(spec) = text.and_then(|t| t.trim().strip_prefix("bytes=")) else {
        return Wanted::All;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Wanted::All;
    };
    let (first, last) = (first.trim(), last.trim());
    let number = |s: &str| -> Option<u64> {
        let plain = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        // More digits than a u64 has is a number all the same: past every end.
        plain.then(|| s.parse().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (Some(from), Some(to)) if from <= to => from..to.saturating_add(1).min(len),
        (Some(from), None) if last.is_empty() => from..len,
        (None, Some(tail)) if first.is_empty() => len.saturating_sub(tail)..len,
        _ => return Wanted::All,
    };
    if range.start < range.end {
        Wanted::Part(range)
    } else {
        Wanted::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_range_is_honoured_and_what_is_none_is_ignored() {
        let at = |h: &str| wanted(Some(h.as_bytes()), 100);
        assert_eq!(at("bytes=0-9"), Wanted::Part(0..10));
        assert_eq!(at("bytes=90-"), Wanted::Part(90..100));
        assert_eq!(at("bytes=-10"), Wanted::Part(90..100));
        assert_eq!(at("bytes=-500"), Wanted::Part(0..100));
        assert_eq!(at("bytes=50-5000"), Wanted::Part(50..100));
        assert_eq!(at("bytes=0-99999999999999999999999"), Wanted::Part(0..100));
        for nothing in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(at(nothing), Wanted::Nothing, "{nothing}");
        }
        for ignored in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=9-0",
            "bytes=0-1,5-6",
            "items=0-1",
            "bytes=a-b",
        ] {
            assert_eq!(at(ignored), Wanted::All, "{ignored}");
        }
        assert_eq!(wanted(None, 100), Wanted::All);
        assert_eq!(wanted(Some(b"bytes=0-"), 0), Wanted::Nothing);
    }

    #[test]
    fn a_range_is_for_what_the_validator_names_by_strong_comparison() {
        let value = HeaderValue::from_static;
        let tag = value("\"7\"");
        assert!(is_of([], &tag));
        assert!(is_of([&value("\"7\"")], &tag));
        for other in ["\"8\"", "W/\"7\"", "7", "Wed, 21 Oct 2015 07:28:00 GMT", ""] {
            assert!(!is_of([&value(other)], &tag), "{other}");
        }
        assert!(!is_of([&value("W/\"7\"")], &value("W/\"7\"")));
    }

    proptest! {
        #[test]
        fn a_part_lies_within(header: Vec<u8>, spec in "bytes=[0-9]{0,25}-[0-9]{0,25}", len: u64) {
            for h in [&header[..], spec.as_bytes()] {
                if let Wanted::Part(r) = wanted(Some(h), len) {
                    prop_assert!(r.start < r.end && r.end <= len);
                }
            }
        }
    }
}
