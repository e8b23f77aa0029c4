//! Keys, row keys, column names, idempotency keys and values. Keys are any bytes within their
//! limits; a key that exists has been checked.

use std::fmt;

use bytes::Bytes;

use crate::limits;

/// Why bytes are not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing at all.
    #[error("a {what} has at least one byte")]
    Empty {
        /// What kind of key.
        what: &'static str,
    },
    /// Past the limit: HTTP 413.
    #[error("a {what} has at most {limit} bytes, this one has {len}")]
    TooLong {
        /// What kind of key.
        what: &'static str,
        /// The limit, in bytes.
        limit: usize,
        /// The length found, in bytes.
        len: usize,
    },
}

macro_rules! byte_key {
    ($(#[$doc:meta])* $t:ident, $what:literal, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $t(Bytes);

        impl $t {
            /// Checks the length and takes the bytes.
            ///
            /// # Errors
            /// [`KeyError`] when there are none, or more than the limit.
            pub fn new(bytes: impl Into<Bytes>) -> Result<$t, KeyError> {
                let bytes = bytes.into();
                match bytes.len() {
                    0 => Err(KeyError::Empty { what: $what }),
                    len if len > $limit => Err(KeyError::TooLong { what: $what, limit: $limit, len }),
                    _ => Ok($t(bytes)),
                }
            }
            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
            /// The bytes, shared.
            pub fn to_bytes(&self) -> Bytes {
                self.0.clone()
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($t), "({})"), self.0.escape_ascii())
            }
        }
        impl bincode::Encode for $t {
            fn encode<E: bincode::enc::Encoder>(&self, e: &mut E) -> Result<(), bincode::error::EncodeError> {
                self.as_bytes().encode(e)
            }
        }
        impl<C> bincode::Decode<C> for $t {
            fn decode<D: bincode::de::Decoder<Context = C>>(d: &mut D) -> Result<Self, bincode::error::DecodeError> {
                let bytes = Vec::<u8>::decode(d)?;
                $t::new(bytes).map_err(|e| bincode::error::DecodeError::OtherString(e.to_string()))
            }
        }
        bincode::impl_borrow_decode!($t);
    };
}
byte_key!(
    /// Key of a key-value pair or of a large object: 1–480 bytes of any kind.
    Key,
    "key",
    limits::KEY_BYTES
);
byte_key!(
    /// Key of a row; together with each column name at most 480 bytes.
    RowKey,
    "row key",
    limits::ROW_AND_COLUMN_BYTES - 1
);
byte_key!(
    /// Name of a column in a row.
    ColumnName,
    "column name",
    limits::ROW_AND_COLUMN_BYTES - 1
);
byte_key!(
    /// A client's `Idempotency-Key`: 1–255 bytes.
    IdempotencyKey,
    "idempotency key",
    limits::IDEMPOTENCY_KEY_BYTES
);

/// A value: any bytes, also none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Value(Bytes);

impl Value {
    /// Takes the bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Value {
        Value(bytes.into())
    }
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// The bytes, shared.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=32 => write!(f, "Value({})", self.0.escape_ascii()),
            n => write!(f, "Value({}…, {n} bytes)", self.0[..32].escape_ascii()),
        }
    }
}

impl bincode::Encode for Value {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        e: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.as_bytes().encode(e)
    }
}

impl<C> bincode::Decode<C> for Value {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Vec::<u8>::decode(d).map(Value::new)
    }
}

bincode::impl_borrow_decode!(Value);
