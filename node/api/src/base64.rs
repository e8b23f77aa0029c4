//! [`Base64`]: a value as it stands in JSON, standard alphabet with padding (RFC 4648, section 4).

use std::fmt;

use base64_simd::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unisondb_types::Value;

/// Bytes that are base64 in JSON.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base64(Bytes);

/// A text that is not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not standard base64 (A-Z a-z 0-9 + / and = at the end)")]
pub struct NotBase64;

impl Base64 {
    /// Takes the bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Base64 {
        Base64(bytes.into())
    }
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// The bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
    /// The bytes as a value.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::new(self.0)
    }
}

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode_to_string(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Base64, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Base64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 string")
            }
            // Borrowed texts come here too: what is decoded is never copied first.
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64, E> {
                decode(text).map(Base64::new).map_err(E::custom)
            }
        }
        d.deserialize_str(Visitor)
    }
}

/// The bytes that `text` stands for.
///
/// # Errors
/// [`NotBase64`].
pub fn decode(text: &str) -> Result<Vec<u8>, NotBase64> {
    STANDARD.decode_to_vec(text).map_err(|_| NotBase64)
}

/// `bytes` as text.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode_to_string(bytes)
}

/// Appends `bytes` as text to a body that is being written.
pub fn append(bytes: &[u8], body: &mut Vec<u8>) {
    STANDARD.encode_append(bytes, body);
}

/// Length of the text that `len` bytes make.
#[must_use]
pub fn encoded_len(len: usize) -> usize {
    len.div_ceil(3) * 4
}

/// `bytes` in the alphabet that a URL carries unescaped, without padding.
#[must_use]
pub fn encode_url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// The bytes that [`encode_url`] was given.
///
/// # Errors
/// [`NotBase64`].
pub fn decode_url(text: &str) -> Result<Vec<u8>, NotBase64> {
    URL_SAFE_NO_PAD.decode_to_vec(text).map_err(|_| NotBase64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive_json_and_a_url(bytes: Vec<u8>) {
            let json = serde_json::to_string(&Base64::new(bytes.clone())).unwrap();
            prop_assert_eq!(json.len(), encoded_len(bytes.len()) + 2);
            let back: Base64 = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back.as_bytes(), &bytes[..]);
            prop_assert_eq!(decode_url(&encode_url(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn any_text_is_decoded_or_refused(text: String) {
            let _ = (decode(&text), decode_url(&text));
        }
    }

    #[test]
    fn what_is_not_standard_base64_is_refused() {
        for bad in ["a", "YQ", "YQ=", "Y Q=", "YQ==\n", "_-==", "é==="] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
        // A JSON writer may escape the slash; the value is the same.
        let value: Base64 = serde_json::from_str(r#""\/\/8=""#).unwrap();
        assert_eq!(value.as_bytes(), b"\xff\xff");
    }
}
