//! [`ApiError`]: what every answer that is no success carries, and the texts that scripts match on.
//!
//! The body is one line, `{"error":"…"}` and perhaps further fields. None of them has a name that a
//! success has: a script that looks for `.backups` or `.success` finds nothing there.

use std::fmt;

use http::StatusCode;
use serde_json::{Map, Value};
use unisondb_types::{KeyError, Namespace};

use crate::percent::BadEscape;
use crate::query::QueryError;

/// Fields of successful answers; no error has them.
pub const SUCCESS_FIELDS: [&str; 9] = [
    "success",
    "found",
    "backups",
    "path",
    "bytes",
    "processed",
    "lsn",
    "items",
    "txnId",
];

/// A refusal or failure, as it is answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl ApiError {
    /// An error with this status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            fields: Vec::new(),
        }
    }

    /// The same with one more field.
    ///
    /// # Panics
    /// If `name` is a field of a success: that would be a broken promise to scripts.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> ApiError {
        assert!(
            name != "error" && !SUCCESS_FIELDS.contains(&name),
            "an error has no field {name:?}: it belongs to a success"
        );
        self.fields.push((name, value.into()));
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its text: the field `error`.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the client should come back: the answer then has `Retry-After`.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
            || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// The body: one line.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut object = Map::with_capacity(1 + self.fields.len());
        object.insert("error".into(), Value::from(self.message.as_str()));
        for (name, value) in &self.fields {
            object.insert((*name).into(), value.clone());
        }
        let mut line = Value::Object(object).to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// 400.
    pub fn bad_request(message: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message.to_string())
    }
    /// 401: who is it?
    #[must_use]
    pub fn unauthorized() -> ApiError {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "a valid bearer token is wanted: Authorization: Bearer TOKEN",
        )
    }
    /// 403.
    pub fn forbidden(message: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message.to_string())
    }
    /// 404.
    pub fn not_found(message: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message.to_string())
    }
    /// 404, `namespace not found: NAME`.
    #[must_use]
    pub fn namespace_not_found(name: &Namespace) -> ApiError {
        ApiError::not_found(format_args!("namespace not found: {name}"))
    }
    /// 409.
    pub fn conflict(message: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message.to_string())
    }
    /// 413: a limit, named.
    pub fn too_large(message: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message.to_string())
    }
    /// 500: the node's own fault.
    pub fn internal(message: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message.to_string())
    }
    /// 503: surely not done, come back.
    pub fn unavailable(message: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message.to_string())
    }
}

impl From<KeyError> for ApiError {
    fn from(e: KeyError) -> ApiError {
        match e {
            KeyError::Empty { .. } => ApiError::bad_request(e),
            KeyError::TooLong { .. } => ApiError::too_large(e),
        }
    }
}

impl From<BadEscape> for ApiError {
    fn from(e: BadEscape) -> ApiError {
        ApiError::bad_request(e)
    }
}

impl From<QueryError> for ApiError {
    fn from(e: QueryError) -> ApiError {
        ApiError::bad_request(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_of_json_that_ends_in_a_newline() {
        let e = ApiError::conflict("wal gap: segments 43-51 are no longer here")
            .with("firstAvailable", 52);
        let body = String::from_utf8(e.body()).expect("JSON is UTF-8");
        assert_eq!(
            body,
            "{\"error\":\"wal gap: segments 43-51 are no longer here\",\"firstAvailable\":52}\n"
        );
        let hostile = ApiError::bad_request("a\nb\"c");
        let body = hostile.body();
        assert_eq!(body.iter().filter(|&&b| b == b'\n').count(), 1);
    }

    #[test]
    #[should_panic(expected = "belongs to a success")]
    fn an_error_never_has_a_field_of_a_success() {
        drop(ApiError::conflict("no").with("backups", 1));
    }
}
