//! [`Stamp`]: a record's time, microseconds since 1970-01-01 UTC, printed as RFC 3339.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A record's time: microseconds since 1970-01-01T00:00:00Z. Never decreases along a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Stamp(u64);

/// Why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a time: RFC 3339 is wanted, such as 2025-01-08T14:30:00Z ({why})")]
pub struct ParseStampError {
    found: String,
    why: String,
}

impl Stamp {
    /// The earliest time.
    pub const ZERO: Stamp = Stamp(0);

    /// From microseconds since 1970.
    pub const fn from_micros(micros: u64) -> Stamp {
        Stamp(micros)
    }
    /// Microseconds since 1970.
    pub const fn micros(self) -> u64 {
        self.0
    }
    /// Later by `micros`.
    #[must_use]
    pub const fn plus_micros(self, micros: u64) -> Stamp {
        Stamp(self.0.saturating_add(micros))
    }
    /// Microseconds from `earlier` to this; zero if that lies after it.
    pub const fn micros_since(self, earlier: Stamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).ok();
        match micros.and_then(|m| jiff::Timestamp::from_microsecond(m).ok()) {
            Some(t) => write!(f, "{t:.6}"),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp({self})")
    }
}

impl FromStr for Stamp {
    type Err = ParseStampError;
    /// RFC 3339 with `Z` or an offset, fractions to the microsecond (finer digits are cut off).
    fn from_str(s: &str) -> Result<Stamp, ParseStampError> {
        let wrong = |why: String| ParseStampError {
            found: s.chars().take(80).collect(),
            why,
        };
        let t: jiff::Timestamp = s
            .trim()
            .parse()
            .map_err(|e: jiff::Error| wrong(e.to_string()))?;
        u64::try_from(t.as_microsecond())
            .map(Stamp)
            .map_err(|_| wrong("before 1970".to_owned()))
    }
}

impl Serialize for Stamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Stamp, D::Error> {
        let s = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_print_and_parse_one_way_to_the_microsecond() {
        let s: Stamp = "2025-01-08T14:30:00Z".parse().expect("rfc 3339");
        assert_eq!(s.to_string(), "2025-01-08T14:30:00.000000Z");
        assert_eq!(
            "2025-01-08T15:30:00.000001+01:00".parse(),
            Ok(s.plus_micros(1))
        );
        assert_eq!(s.plus_micros(1).to_string().parse(), Ok(s.plus_micros(1)));
        for bad in [
            "",
            "yesterday",
            "2025-01-08",
            "2025-01-08T14:30:00",
            "1960-01-01T00:00:00Z",
        ] {
            assert!(bad.parse::<Stamp>().is_err(), "{bad}");
        }
        assert!(!Stamp::from_micros(u64::MAX).to_string().is_empty());
    }
}
