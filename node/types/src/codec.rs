//! How structs become bytes: bincode 2, fixed configuration, a limit on what a decoder may claim,
//! and no trailing bytes. Callers check a CRC first: what is decoded here has already been proven
//! to be what was written, or is hostile on purpose; either way the answer is a typed error.

use bincode::config::{self, Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

/// Most bytes that one decoded value may claim. Above every payload that the log takes.
pub const DECODE_LIMIT: usize = 8 << 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<DECODE_LIMIT>> = config::standard()
    .with_fixed_int_encoding()
    .with_limit::<DECODE_LIMIT>();

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early, claim too much, or hold an unknown variant.
    #[error("not a valid {what}: {source}")]
    Malformed {
        /// The type that was expected.
        what: &'static str,
        /// What bincode said.
        source: Box<bincode::error::DecodeError>,
    },
    /// A value was there, and something behind it.
    #[error("{extra} bytes follow the {what}")]
    Trailing {
        /// The type that was expected.
        what: &'static str,
        /// How many bytes follow.
        extra: usize,
    },
}

/// Encodes `value`: fixed-width little-endian integers, lengths before data.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, CONFIG)
        .expect("encoding into memory fails only past DECODE_LIMIT, which leaders check")
}

/// Decodes all of `bytes` as one `T`.
///
/// # Errors
/// [`DecodeError`] when the bytes are not exactly one value; never panics, never allocates more
/// than [`DECODE_LIMIT`].
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let what = short_name::<T>();
    let (value, used) =
        bincode::decode_from_slice(bytes, CONFIG).map_err(|e| DecodeError::Malformed {
            what,
            source: Box::new(e),
        })?;
    if used != bytes.len() {
        return Err(DecodeError::Trailing {
            what,
            extra: bytes.len() - used,
        });
    }
    Ok(value)
}

fn short_name<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    full.rsplit("::").next().unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u64);
        assert_eq!(decode::<u64>(&bytes).expect("exact"), 7);
        bytes.push(0);
        assert!(matches!(
            decode::<u64>(&bytes),
            Err(DecodeError::Trailing { extra: 1, .. })
        ));
    }

    #[test]
    fn a_hostile_length_is_an_error_not_an_allocation() {
        let hostile = [0xffu8; 9];
        assert!(decode::<Vec<u8>>(&hostile).is_err());
        assert!(decode::<Vec<u64>>(&(1u64 << 40).to_le_bytes()).is_err());
    }
}
