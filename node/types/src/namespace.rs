//! [`Namespace`]: the name of one database in a node; also the name of its folder.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names that a namespace cannot have: each would collide with a folder or a route.
const RESERVED: [&str; 6] = ["backups", "trash", "db", "wal", "namespaces", "cluster"];

/// The name of a namespace: 1–64 of `a-z 0-9 - _`, the first a letter or digit, none reserved.
/// What has been parsed is safe as one component of a path. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// The namespace in which a cluster keeps what it is made of. No client can name it.
const CLUSTER: &str = "_cluster";

/// Why a text is not the name of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// Wrong length, first character, or characters.
    #[error(
        "{0:?} is not a namespace: 1 to 64 of a-z, 0-9, '-' and '_' are wanted, beginning with a letter or digit"
    )]
    Malformed(String),
    /// One of the few names that are taken.
    #[error("{0:?} is a reserved name and cannot be a namespace")]
    Reserved(String),
}

impl Namespace {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace in which a cluster keeps what it is made of: `_cluster`. What a client or a folder
    /// is called is never parsed as it; what is decoded may be it.
    pub fn cluster() -> Namespace {
        Namespace(CLUSTER.into())
    }

    /// The name in a file or message of ours: any namespace's, the cluster's too.
    ///
    /// # Errors
    /// As parsing, for any other text.
    pub fn recorded(text: &str) -> Result<Namespace, NamespaceError> {
        match text {
            CLUSTER => Ok(Namespace::cluster()),
            text => text.parse(),
        }
    }

    /// Whether it is [`cluster`](Self::cluster).
    pub fn is_cluster(&self) -> bool {
        &*self.0 == CLUSTER
    }
}

impl FromStr for Namespace {
    type Err = NamespaceError;
    fn from_str(s: &str) -> Result<Namespace, NamespaceError> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = s.as_bytes();
        let fits = (1..=64).contains(&bytes.len())
            && letter(bytes[0])
            && bytes.iter().all(|&b| letter(b) || b == b'-' || b == b'_');
        if !fits {
            return Err(NamespaceError::Malformed(s.chars().take(80).collect()));
        }
        if RESERVED.contains(&s) {
            return Err(NamespaceError::Reserved(s.to_owned()));
        }
        Ok(Namespace(s.into()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.0)
    }
}

impl Serialize for Namespace {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Namespace, D::Error> {
        let s = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

impl bincode::Encode for Namespace {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        e: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.as_str().encode(e)
    }
}

impl<C> bincode::Decode<C> for Namespace {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let s = String::decode(d)?;
        Namespace::recorded(&s)
            .map_err(|e: NamespaceError| bincode::error::DecodeError::OtherString(e.to_string()))
    }
}

bincode::impl_borrow_decode!(Namespace);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_or_hide_a_route_are_refused() {
        for good in ["users", "a", "0-b_c", &"x".repeat(64)] {
            assert!(good.parse::<Namespace>().is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "Users",
            "-a",
            "_a",
            "a.b",
            "a b",
            "ä",
            &long,
            "backups",
            "trash",
            "wal",
            "db",
            "namespaces",
            "cluster",
            "_cluster",
        ] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cluster_s_own_is_decoded_and_never_parsed() {
        let own = Namespace::cluster();
        assert!(own.is_cluster() && own.as_str().parse::<Namespace>().is_err());
        let decoded: Namespace =
            crate::codec::decode(&crate::codec::encode(&own)).expect("its own");
        assert_eq!(decoded, own);
    }
}
