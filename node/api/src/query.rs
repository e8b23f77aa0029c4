//! [`Query`]: the parameters behind the `?`, read without allocating where nothing is escaped.

use std::borrow::Cow;

use crate::percent::{self, BadEscape};

/// The query string of a request. Of a name given twice, the first counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<'a>(&'a str);

/// Why a parameter is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not percent-encoded.
    #[error(transparent)]
    Escape(#[from] BadEscape),
    /// Not the kind of value that is wanted.
    #[error("{name}={found:?}: {wanted} is wanted")]
    Value {
        /// The parameter.
        name: &'static str,
        /// As given, at most 80 characters.
        found: String,
        /// In words.
        wanted: &'static str,
    },
}

impl<'a> Query<'a> {
    /// From what stands behind the `?`, if anything.
    #[must_use]
    pub fn new(raw: Option<&'a str>) -> Query<'a> {
        Query(raw.unwrap_or_default())
    }

    /// Whether there is none at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Parameter `name` as it stands there.
    fn raw(&self, name: &'static str) -> Result<Option<&'a str>, QueryError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        for pair in self.0.split('&') {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Names of ours are plain letters: an escaped one is decoded only when it has to be.
            let same = found == name
                || (found.contains('%')
                    && percent::decode_query(found)?.as_ref() == name.as_bytes());
            if same {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The bytes of parameter `name`, if it is there.
    ///
    /// # Errors
    /// [`QueryError::Escape`].
    pub fn bytes(&self, name: &'static str) -> Result<Option<Cow<'a, [u8]>>, QueryError> {
        Ok(self.raw(name)?.map(percent::decode_query).transpose()?)
    }

    /// Parameter `name` as a list: commas part it, an escaped comma belongs to a name. Empty parts
    /// do not count.
    ///
    /// # Errors
    /// [`QueryError::Escape`].
    pub fn list(&self, name: &'static str) -> Result<Option<Vec<Cow<'a, [u8]>>>, QueryError> {
        let Some(raw) = self.raw(name)? else {
            return Ok(None);
        };
        let parts = raw.split(',').filter(|part| !part.is_empty());
        Ok(Some(
            parts.map(percent::decode_query).collect::<Result<_, _>>()?,
        ))
    }

    /// Parameter `name` as text; an empty one counts as left out.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn text(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, QueryError> {
        let wrong = |found: &[u8]| QueryError::Value {
            name,
            found: String::from_utf8_lossy(found).chars().take(80).collect(),
            wanted: "UTF-8",
        };
        match self.bytes(name)? {
            None => Ok(None),
            Some(bytes) if bytes.is_empty() => Ok(None),
            Some(Cow::Borrowed(b)) => match std::str::from_utf8(b) {
                Ok(text) => Ok(Some(Cow::Borrowed(text))),
                Err(_) => Err(wrong(b)),
            },
            Some(Cow::Owned(b)) => match String::from_utf8(b) {
                Ok(text) => Ok(Some(Cow::Owned(text))),
                Err(e) => Err(wrong(e.as_bytes())),
            },
        }
    }

    /// Parameter `name`, parsed.
    ///
    /// # Errors
    /// [`QueryError`], with `wanted` as what should have been there.
    pub fn parse<T: std::str::FromStr>(
        &self,
        name: &'static str,
        wanted: &'static str,
    ) -> Result<Option<T>, QueryError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(QueryError::Value {
                name,
                found: text.chars().take(80).collect(),
                wanted,
            }),
        }
    }

    /// Parameter `name` as a switch: `true`, `1` or nothing behind it; `false` or `0`.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn switch(&self, name: &'static str) -> Result<Option<bool>, QueryError> {
        match self.bytes(name)?.as_deref() {
            None => Ok(None),
            Some(b"" | b"1" | b"true") => Ok(Some(true)),
            Some(b"0" | b"false") => Ok(Some(false)),
            Some(other) => Err(QueryError::Value {
                name,
                found: String::from_utf8_lossy(other).chars().take(80).collect(),
                wanted: "true or false",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_found_decoded_and_typed() {
        let q = Query::new(Some("key=a%2Fb&limit=7&x&reverse&lim%69=3&empty="));
        assert_eq!(q.bytes("key").unwrap().unwrap().as_ref(), b"a/b");
        assert_eq!(q.parse::<usize>("limit", "a number").unwrap(), Some(7));
        assert_eq!(q.parse::<usize>("limi", "a number").unwrap(), Some(3));
        assert_eq!(q.switch("reverse").unwrap(), Some(true));
        let columns = Query::new(Some("columns=a,b%2Cc,,d"));
        assert_eq!(
            columns.list("columns").unwrap().unwrap(),
            [&b"a"[..], b"b,c", b"d"]
        );
        assert_eq!(q.switch("keysOnly").unwrap(), None);
        assert_eq!(q.text("empty").unwrap(), None);
        assert!(q.parse::<usize>("key", "a number").is_err());
        assert!(
            Query::new(Some("reverse=perhaps"))
                .switch("reverse")
                .is_err()
        );
        assert!(Query::new(Some("k=%ff")).text("k").is_err());
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(raw: String) {
            let q = Query::new(Some(&raw));
            let _ = (q.bytes("key"), q.text("key"), q.switch("key"), q.parse::<u64>("key", "n"));
        }
    }
}
