//! [`Route`]: every path that a node answers. [`Route::parse`] reads one, `Display` makes one, and
//! nothing else in the workspace spells a path.
//!
//! Segments are kept raw, as they stand in the path: a key is any bytes, so it is decoded where it
//! is used ([`crate::percent`]). A path is matched together with the method, because
//! `POST /kv/batch` is the batch and `PUT /kv/batch` writes the key `batch`.

use std::fmt;

use http::Method;

/// What all data routes begin with.
pub const BASE: &str = "/api/v1";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/health`, `/healthz`: how the node is, in words.
    Health,
    /// `/livez`: whether the process runs.
    Live,
    /// `/readyz`: whether a balancer should send requests.
    Ready,
    /// `/primary`: 200 on the leader only.
    Primary,
    /// `/replica`: 200 on followers and relayers only.
    Replica,
    /// `/metrics`: Prometheus text.
    Metrics,
    /// `/api/v1/cluster`.
    Cluster,
    /// `/api/v1/cluster/members`.
    Members,
    /// `/api/v1/cluster/members/{node}`.
    Member(&'a str),
    /// `/api/v1/namespaces`.
    Namespaces,
    /// `/api/v1/namespaces/{name}`.
    Namespace(&'a str),
    /// `/api/v1/{namespace}/…`.
    In(&'a str, Place<'a>),
}

/// What a request asks for in a namespace. A `None` is a path segment left out for `?key=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// `/kv/{key}`, `/kv?key=`; GET `/kv` without a key is a scan.
    Kv(Option<&'a str>),
    /// POST `/kv/batch`.
    KvBatch,
    /// `/row/{rowKey}`.
    Row(Option<&'a str>),
    /// DELETE `/row/{rowKey}/columns`.
    RowColumns(Option<&'a str>),
    /// POST `/row/batch`.
    RowBatch,
    /// `/lob/{key}`.
    Lob(Option<&'a str>),
    /// POST `/tx/begin`.
    TxBegin,
    /// POST `/tx/{id}/…`.
    Tx(&'a str, TxStep),
    /// GET `/offset`.
    Offset,
    /// GET `/stats`.
    Stats,
    /// GET `/checkpoint`.
    Checkpoint,
    /// GET `/digest`.
    Digest,
    /// POST `/wal/backup`.
    WalBackup,
    /// POST `/wal/seal`.
    WalSeal,
    /// GET `/wal/segments`.
    Segments,
    /// GET `/wal/segments/{id}`.
    Segment(&'a str),
    /// POST `/btree/backup`.
    BtreeBackup,
    /// GET `/btree/snapshot`.
    BtreeSnapshot,
}

/// A step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStep {
    /// `/kv`: one more operation.
    Kv,
    /// `/row`: one more operation.
    Row,
    /// `/lob?key=`: the next chunk.
    Lob,
    /// `/commit`.
    Commit,
    /// `/abort`.
    Abort,
}

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// No such path: 404.
    Path,
    /// The path is there, with these methods (for `Allow`): 405.
    Method(&'static str),
}

const READ: &str = "GET, HEAD";
const ENTRY: &str = "GET, HEAD, PUT, DELETE";
const ENTRY_OR_BATCH: &str = "GET, HEAD, PUT, DELETE, POST";
const OBJECT: &str = "GET, HEAD, DELETE";
const ACT: &str = "POST";
const REMOVE: &str = "DELETE";
const LIST_OR_MAKE: &str = "GET, HEAD, POST";

impl<'a> Route<'a> {
    /// The route of a request: its method and the raw path of its URI.
    ///
    /// # Errors
    /// [`Miss`].
    pub fn parse(method: &Method, path: &'a str) -> Result<Route<'a>, Miss> {
        let (route, allow) = Route::with_methods(method, path).ok_or(Miss::Path)?;
        if allow.split(", ").any(|m| m == method.as_str()) {
            Ok(route)
        } else {
            Err(Miss::Method(allow))
        }
    }

    fn with_methods(method: &Method, path: &'a str) -> Option<(Route<'a>, &'static str)> {
        let Some(below) = path.strip_prefix(BASE).and_then(|p| p.strip_prefix('/')) else {
            let route = match path {
                "/health" | "/healthz" => Route::Health,
                "/livez" => Route::Live,
                "/readyz" => Route::Ready,
                "/primary" => Route::Primary,
                "/replica" => Route::Replica,
                "/metrics" => Route::Metrics,
                _ => return None,
            };
            return Some((route, READ));
        };
        let mut parts = below.split('/');
        let first = parts.next()?;
        let rest = [parts.next(), parts.next(), parts.next()];
        if parts.next().is_some() {
            return None;
        }
        if first == "cluster" {
            return match rest {
                [None, ..] => Some((Route::Cluster, READ)),
                [Some("members"), None, _] => Some((Route::Members, ACT)),
                [Some("members"), Some(node), None] => Some((Route::Member(node), REMOVE)),
                _ => None,
            };
        }
        if first == "namespaces" {
            return match rest {
                [None, ..] => Some((Route::Namespaces, LIST_OR_MAKE)),
                [Some(name), None, _] => Some((Route::Namespace(name), REMOVE)),
                _ => None,
            };
        }
        let post = *method == Method::POST;
        let (place, allow) = match rest {
            [Some("kv"), None, _] => (Place::Kv(None), ENTRY),
            [Some("kv"), Some("batch"), None] if post => (Place::KvBatch, ENTRY_OR_BATCH),
            [Some("kv"), Some("batch"), None] => (Place::Kv(Some("batch")), ENTRY_OR_BATCH),
            [Some("kv"), key, None] => (Place::Kv(key), ENTRY),
            [Some("row"), None, _] => (Place::Row(None), ENTRY),
            [Some("row"), Some("batch"), None] if post => (Place::RowBatch, ENTRY_OR_BATCH),
            [Some("row"), Some("batch"), None] => (Place::Row(Some("batch")), ENTRY_OR_BATCH),
            [Some("row"), key, None] => (Place::Row(key), ENTRY),
            [Some("row"), key, Some("columns")] => (Place::RowColumns(key), REMOVE),
            [Some("lob"), key, None] => (Place::Lob(key), OBJECT),
            [Some("tx"), Some("begin"), None] => (Place::TxBegin, ACT),
            [Some("tx"), Some(id), Some(step)] => (Place::Tx(id, TxStep::parse(step)?), ACT),
            [Some("offset"), None, _] => (Place::Offset, READ),
            [Some("stats"), None, _] => (Place::Stats, READ),
            [Some("checkpoint"), None, _] => (Place::Checkpoint, READ),
            [Some("digest"), None, _] => (Place::Digest, READ),
            [Some("wal"), Some("backup"), None] => (Place::WalBackup, ACT),
            [Some("wal"), Some("seal"), None] => (Place::WalSeal, ACT),
            [Some("wal"), Some("segments"), None] => (Place::Segments, READ),
            [Some("wal"), Some("segments"), Some(id)] => (Place::Segment(id), READ),
            [Some("btree"), Some("backup"), None] => (Place::BtreeBackup, ACT),
            [Some("btree"), Some("snapshot"), None] => (Place::BtreeSnapshot, READ),
            _ => return None,
        };
        Some((Route::In(first, place), allow))
    }

    /// The pattern of the path, for logs and metrics: a name from a small, fixed set.
    #[must_use]
    pub fn pattern(&self) -> &'static str {
        PATTERNS[self.number()]
    }

    /// Its place in [`PATTERNS`].
    #[must_use]
    pub fn number(&self) -> usize {
        match self {
            Route::Health => 0,
            Route::Live => 1,
            Route::Ready => 2,
            Route::Primary => 3,
            Route::Replica => 4,
            Route::Metrics => 5,
            Route::Cluster => 6,
            Route::Namespaces => 7,
            Route::Namespace(_) => 8,
            Route::In(_, place) => match place {
                Place::Kv(_) => 9,
                Place::KvBatch => 10,
                Place::Row(_) => 11,
                Place::RowColumns(_) => 12,
                Place::RowBatch => 13,
                Place::Lob(_) => 14,
                Place::TxBegin => 15,
                Place::Tx(_, TxStep::Kv) => 16,
                Place::Tx(_, TxStep::Row) => 17,
                Place::Tx(_, TxStep::Lob) => 18,
                Place::Tx(_, TxStep::Commit) => 19,
                Place::Tx(_, TxStep::Abort) => 20,
                Place::Offset => 21,
                Place::Stats => 22,
                Place::Checkpoint => 23,
                Place::Digest => 24,
                Place::WalBackup => 25,
                Place::WalSeal => 26,
                Place::Segments => 27,
                Place::Segment(_) => 28,
                Place::BtreeBackup => 29,
                Place::BtreeSnapshot => 30,
            },
            Route::Members => 31,
            Route::Member(_) => 32,
        }
    }
}

/// The patterns of all routes, by [`Route::number`].
pub const PATTERNS: [&str; 33] = [
    "/health",
    "/livez",
    "/readyz",
    "/primary",
    "/replica",
    "/metrics",
    "/api/v1/cluster",
    "/api/v1/namespaces",
    "/api/v1/namespaces/{name}",
    "/api/v1/{namespace}/kv/{key}",
    "/api/v1/{namespace}/kv/batch",
    "/api/v1/{namespace}/row/{rowKey}",
    "/api/v1/{namespace}/row/{rowKey}/columns",
    "/api/v1/{namespace}/row/batch",
    "/api/v1/{namespace}/lob/{key}",
    "/api/v1/{namespace}/tx/begin",
    "/api/v1/{namespace}/tx/{id}/kv",
    "/api/v1/{namespace}/tx/{id}/row",
    "/api/v1/{namespace}/tx/{id}/lob",
    "/api/v1/{namespace}/tx/{id}/commit",
    "/api/v1/{namespace}/tx/{id}/abort",
    "/api/v1/{namespace}/offset",
    "/api/v1/{namespace}/stats",
    "/api/v1/{namespace}/checkpoint",
    "/api/v1/{namespace}/digest",
    "/api/v1/{namespace}/wal/backup",
    "/api/v1/{namespace}/wal/seal",
    "/api/v1/{namespace}/wal/segments",
    "/api/v1/{namespace}/wal/segments/{id}",
    "/api/v1/{namespace}/btree/backup",
    "/api/v1/{namespace}/btree/snapshot",
    "/api/v1/cluster/members",
    "/api/v1/cluster/members/{node}",
];

impl TxStep {
    fn parse(step: &str) -> Option<TxStep> {
        Some(match step {
            "kv" => TxStep::Kv,
            "row" => TxStep::Row,
            "lob" => TxStep::Lob,
            "commit" => TxStep::Commit,
            "abort" => TxStep::Abort,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            TxStep::Kv => "kv",
            TxStep::Row => "row",
            TxStep::Lob => "lob",
            TxStep::Commit => "commit",
            TxStep::Abort => "abort",
        }
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Namespace(name) => write!(f, "{BASE}/namespaces/{name}"),
            Route::Member(node) => write!(f, "{BASE}/cluster/members/{node}"),
            Route::In(namespace, place) => write!(f, "{BASE}/{namespace}/{place}"),
            fixed => f.write_str(fixed.pattern()),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = |f: &mut fmt::Formatter<'_>, kind: &str, key: &Option<&str>| match key {
            Some(key) => write!(f, "{kind}/{key}"),
            None => f.write_str(kind),
        };
        match self {
            Place::Kv(key) => entry(f, "kv", key),
            Place::KvBatch => f.write_str("kv/batch"),
            Place::Row(key) => entry(f, "row", key),
            Place::RowColumns(key) => write!(f, "row/{}/columns", key.unwrap_or_default()),
            Place::RowBatch => f.write_str("row/batch"),
            Place::Lob(key) => entry(f, "lob", key),
            Place::TxBegin => f.write_str("tx/begin"),
            Place::Tx(id, step) => write!(f, "tx/{id}/{}", step.as_str()),
            Place::Offset => f.write_str("offset"),
            Place::Stats => f.write_str("stats"),
            Place::Checkpoint => f.write_str("checkpoint"),
            Place::Digest => f.write_str("digest"),
            Place::WalBackup => f.write_str("wal/backup"),
            Place::WalSeal => f.write_str("wal/seal"),
            Place::Segments => f.write_str("wal/segments"),
            Place::Segment(id) => write!(f, "wal/segments/{id}"),
            Place::BtreeBackup => f.write_str("btree/backup"),
            Place::BtreeSnapshot => f.write_str("btree/snapshot"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percent;
    use proptest::prelude::*;

    fn all<'a>(ns: &'a str, key: &'a str) -> Vec<(Method, Route<'a>)> {
        let mut routes = vec![
            (Method::GET, Route::Health),
            (Method::HEAD, Route::Live),
            (Method::GET, Route::Ready),
            (Method::GET, Route::Primary),
            (Method::GET, Route::Replica),
            (Method::GET, Route::Metrics),
            (Method::GET, Route::Cluster),
            (Method::POST, Route::Namespaces),
            (Method::DELETE, Route::Namespace(key)),
            (Method::POST, Route::Members),
            (Method::DELETE, Route::Member(key)),
        ];
        for (method, place) in [
            (Method::GET, Place::Kv(None)),
            (Method::PUT, Place::Kv(Some(key))),
            (Method::POST, Place::KvBatch),
            (Method::DELETE, Place::Row(Some(key))),
            (Method::DELETE, Place::RowColumns(Some(key))),
            (Method::POST, Place::RowBatch),
            (Method::GET, Place::Lob(Some(key))),
            (Method::POST, Place::TxBegin),
            (Method::POST, Place::Tx(key, TxStep::Kv)),
            (Method::POST, Place::Tx(key, TxStep::Row)),
            (Method::POST, Place::Tx(key, TxStep::Lob)),
            (Method::POST, Place::Tx(key, TxStep::Commit)),
            (Method::POST, Place::Tx(key, TxStep::Abort)),
            (Method::GET, Place::Offset),
            (Method::GET, Place::Stats),
            (Method::GET, Place::Checkpoint),
            (Method::GET, Place::Digest),
            (Method::POST, Place::WalBackup),
            (Method::POST, Place::WalSeal),
            (Method::GET, Place::Segments),
            (Method::GET, Place::Segment(key)),
            (Method::POST, Place::BtreeBackup),
            (Method::GET, Place::BtreeSnapshot),
        ] {
            routes.push((method, Route::In(ns, place)));
        }
        routes
    }

    proptest! {
        #[test]
        fn every_path_that_is_made_is_read_as_the_same_route(key in proptest::collection::vec(any::<u8>(), 0..60)) {
            let key = percent::encode(&key);
            for (method, route) in all("users", &key) {
                let path = route.to_string();
                prop_assert_eq!(Route::parse(&method, &path), Ok(route), "{}", path);
            }
        }

        #[test]
        fn any_path_is_read_or_missed(path in ".*", below in ".*") {
            for method in [Method::GET, Method::POST, Method::OPTIONS] {
                let _ = Route::parse(&method, &path);
                let _ = Route::parse(&method, &format!("{BASE}/{below}"));
            }
        }
    }

    #[test]
    fn every_route_has_its_own_pattern() {
        let routes = all("users", "k");
        let mut seen: Vec<_> = routes.iter().map(|(_, r)| r.number()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..PATTERNS.len()).collect::<Vec<_>>());
        for (_, route) in routes {
            let filled = route
                .pattern()
                .replace("{namespace}", "users")
                .replace("{key}", "k")
                .replace("{rowKey}", "k")
                .replace("{name}", "k")
                .replace("{node}", "k")
                .replace("{id}", "k");
            let made = route.to_string();
            assert!(
                filled == made || filled == format!("{made}/k"),
                "{filled} {made}"
            );
        }
    }

    #[test]
    fn the_word_batch_is_a_key_for_every_method_but_post() {
        let at = |m: Method| Route::parse(&m, "/api/v1/users/kv/batch");
        assert_eq!(at(Method::POST), Ok(Route::In("users", Place::KvBatch)));
        assert_eq!(
            at(Method::PUT),
            Ok(Route::In("users", Place::Kv(Some("batch"))))
        );
        assert_eq!(
            Route::parse(&Method::POST, "/api/v1/users/kv/other"),
            Err(Miss::Method(ENTRY))
        );
        // Written with an escape it is never the batch.
        assert!(Route::parse(&Method::POST, "/api/v1/users/kv/%62atch").is_err());
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        for (path, allow) in [
            ("/api/v1/users/wal/backup", "POST"),
            ("/health", "GET, HEAD"),
            ("/api/v1/namespaces/users", "DELETE"),
            ("/api/v1/users/lob", "GET, HEAD, DELETE"),
        ] {
            assert_eq!(
                Route::parse(&Method::PATCH, path),
                Err(Miss::Method(allow)),
                "{path}"
            );
        }
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/api/v1/",
            "/api/v1/users",
            "/health/",
            "/api/v1/u/kv/a/b",
        ] {
            assert_eq!(Route::parse(&Method::GET, path), Err(Miss::Path), "{path}");
        }
    }
}
