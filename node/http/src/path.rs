//! What stands in a path or behind `?`: keys, row keys, names, ids, each decoded and checked once.

use std::borrow::Cow;

use bytes::Bytes;
use unisondb_api::{ApiError, Query, percent};
use unisondb_types::{ColumnName, Key, Namespace, RowKey, SegmentId, TxId, limits};

/// The namespace in a path.
pub(crate) fn namespace(raw: &str) -> Result<Namespace, ApiError> {
    let bytes = percent::decode(raw)?;
    let text = String::from_utf8_lossy(&bytes);
    text.parse().map_err(ApiError::bad_request)
}

/// The bytes of the path segment, or of `?key=` in its place.
fn entry(raw: Option<&str>, query: Query<'_>) -> Result<Bytes, ApiError> {
    let named = query.bytes("key")?;
    let bytes = match (raw, named) {
        (Some(raw), None) => percent::decode(raw)?,
        (None, Some(named)) => named,
        (None, None) => {
            return Err(ApiError::bad_request(
                "a key is wanted: in the path, or as ?key=",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "two keys: one in the path, one as ?key=; give one",
            ));
        }
    };
    Ok(match bytes {
        Cow::Borrowed(b) => Bytes::copy_from_slice(b),
        Cow::Owned(b) => Bytes::from(b),
    })
}

/// The node that a path names: its id, its name or its address.
pub(crate) fn node(raw: &str) -> Result<String, ApiError> {
    let bytes = percent::decode(raw)?;
    String::from_utf8(bytes.into_owned())
        .map_err(|_| ApiError::bad_request("a node's name is UTF-8"))
}

/// The key of a pair or an object.
pub(crate) fn key(raw: Option<&str>, query: Query<'_>) -> Result<Key, ApiError> {
    Ok(Key::new(entry(raw, query)?)?)
}

/// The key of a row.
pub(crate) fn row_key(raw: Option<&str>, query: Query<'_>) -> Result<RowKey, ApiError> {
    Ok(RowKey::new(entry(raw, query)?)?)
}

/// The columns behind `?columns=`.
pub(crate) fn columns(query: Query<'_>) -> Result<Option<Vec<ColumnName>>, ApiError> {
    let Some(names) = query.list("columns")? else {
        return Ok(None);
    };
    at_most_items(names.len(), "columns")?;
    let names = names.into_iter().map(|n| ColumnName::new(n.into_owned()));
    Ok(Some(names.collect::<Result<_, _>>()?))
}

/// A row key and a column name share one limit.
pub(crate) fn fits(row: &RowKey, column: &ColumnName) -> Result<(), ApiError> {
    let len = row.as_bytes().len() + column.as_bytes().len();
    if len > limits::ROW_AND_COLUMN_BYTES {
        return Err(ApiError::too_large(format_args!(
            "a row key and a column name have together at most {} bytes, these have {len}",
            limits::ROW_AND_COLUMN_BYTES
        )));
    }
    Ok(())
}

/// Refuses more items than one request may have.
pub(crate) fn at_most_items(count: usize, what: &str) -> Result<(), ApiError> {
    if count > limits::ITEMS {
        return Err(ApiError::too_large(format_args!(
            "a request has at most {} {what}, this one has {count}",
            limits::ITEMS
        )));
    }
    Ok(())
}

/// The id of a transaction: one that cannot be one is not found.
pub(crate) fn tx(raw: &str) -> Result<TxId, ApiError> {
    raw.parse().map_err(|_| {
        let shown: String = raw.chars().take(64).collect();
        ApiError::not_found(format_args!("transaction not found: {shown}"))
    })
}

/// The id of a segment: one that cannot be one is not found.
pub(crate) fn segment(raw: &str) -> Result<SegmentId, ApiError> {
    raw.parse().map_err(|_| {
        let shown: String = raw.chars().take(64).collect();
        ApiError::not_found(format_args!("segment not found: {shown}"))
    })
}

/// What a backup path is to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A folder: `.` is the root itself.
    Folder,
    /// A file.
    File,
}

/// Whether a path below the backup root could be one at all, by its text. The engine judges it
/// again, and walks; this comes first, because a refused request seals nothing.
pub(crate) fn check_backup_path(path: &str, named: Named) -> Result<(), ApiError> {
    let refuse = |why: &str| {
        let shown: String = path.chars().take(200).collect();
        Err(ApiError::bad_request(format_args!(
            "{shown:?} is not a path below the backup root: {why}"
        )))
    };
    let drive = matches!(path.as_bytes(), [l, b':', ..] if l.is_ascii_alphabetic());
    let last = path.rsplit('/').next().unwrap_or(path);
    // What backups call their own side files: a request cannot choose such a name.
    let own = [".tmp", ".sha256", ".wal"]
        .iter()
        .any(|ending| last.ends_with(ending));
    match path {
        "" => refuse("it is empty"),
        p if p.chars().any(char::is_control) => refuse("it holds NUL or a control character"),
        p if p.starts_with('/') => refuse("it is absolute; a relative one is wanted"),
        p if p.contains('\\') => refuse("it holds a backslash; / stands between its parts"),
        _ if drive => refuse("it begins with a drive letter; a relative one is wanted"),
        p if p.split('/').any(|part| part == "..") => refuse("it holds '..'"),
        p if p.split('/').any(|part| part.ends_with(char::is_whitespace)) => {
            refuse("a part of it ends in a space")
        }
        p if p.len() > 1_024 || p.split('/').any(|part| part.len() > 240) => {
            refuse("it is too long")
        }
        _ if named == Named::File && matches!(last, "" | ".") => {
            refuse("it names a folder, a file is wanted")
        }
        _ if named == Named::File && own => {
            refuse("it ends as the files do that backups make beside it")
        }
        p if p.split('/').any(|part| part.ends_with(".wal")) => {
            refuse("a folder in it ends in .wal, as the files of segments do")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::StatusCode;
    use proptest::prelude::*;

    #[test]
    fn a_key_is_any_bytes_from_the_path_or_the_query_but_not_both() {
        let none = Query::default();
        let q = Query::new(Some("key=a%2Fb"));
        assert_eq!(
            key(Some("a%2Fb%00%ff"), none).unwrap().as_bytes(),
            b"a/b\0\xff"
        );
        assert_eq!(key(None, q).unwrap().as_bytes(), b"a/b");
        for e in [
            key(None, none),
            key(Some("x"), q),
            key(Some(""), none),
            key(Some("%z"), none),
        ] {
            assert_eq!(e.unwrap_err().status(), StatusCode::BAD_REQUEST);
        }
        let long = "x".repeat(481);
        let e = key(Some(&long), none).unwrap_err();
        assert_eq!(e.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(e.message(), "a key has at most 480 bytes, this one has 481");
    }

    #[test]
    fn backup_paths_that_could_leave_the_root_are_refused() {
        let both = [Named::Folder, Named::File];
        for good in [
            "wal/x",
            "snapshots/users-20250108.snapshot",
            "ü/%2e",
            "a..b/c",
            " x",
        ] {
            for named in both {
                assert!(check_backup_path(good, named).is_ok(), "{good}");
            }
        }
        let bad = [
            "",
            "/etc",
            "../orders",
            "a/../b",
            "..",
            "a\0b",
            "C:\\x",
            "\\x",
            "a\\..\\b",
            "x ",
            "x /y",
            "a/..",
            "000000001.wal",
            "wal.wal",
            "wal.wal/",
            "wal.wal/x",
        ];
        for bad in bad {
            for named in both {
                let e = check_backup_path(bad, named).unwrap_err();
                assert_eq!(e.status(), StatusCode::BAD_REQUEST, "{bad:?}");
            }
        }
        for folder in [".", "a/", "a/.", "x.tmp", "x.db.sha256"] {
            assert!(check_backup_path(folder, Named::Folder).is_ok(), "{folder}");
            assert!(check_backup_path(folder, Named::File).is_err(), "{folder}");
        }
    }

    proptest! {
        #[test]
        fn any_path_segment_is_read_or_refused(raw: String, query: String) {
            let q = Query::new(Some(&query));
            let _ = (namespace(&raw), key(Some(&raw), q), row_key(None, q), columns(q));
            let _ = (tx(&raw), segment(&raw), check_backup_path(&raw, Named::File));
        }
    }

    #[test]
    fn a_backup_path_is_refused_for_what_is_wrong_with_it() {
        for (path, why) in [
            ("a\\b", "it holds a backslash"),
            ("C:/x", "drive letter"),
            ("/abs", "it is absolute"),
        ] {
            let e = check_backup_path(path, Named::Folder).expect_err(path);
            assert!(e.message().contains(why), "{}", e.message());
        }
    }
}
