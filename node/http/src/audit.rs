//! One line in the log for each backup call: who, what, where, and what came of it.

use unisondb_api::ApiError;
use unisondb_types::{Namespace, SegmentId};

use crate::dispatch::Inside;

/// A call that will be told of.
pub(crate) struct Record {
    who: String,
    route: &'static str,
    namespace: Namespace,
    path: String,
}

impl Record {
    /// Of the request `at`, for `route`; `path` is the file or folder asked for, empty if there
    /// is none.
    pub(crate) fn of(at: &Inside<'_>, route: &'static str, path: &str) -> Record {
        Record {
            who: at.call.name(),
            route,
            namespace: at.namespace.clone(),
            path: path.to_owned(),
        }
    }

    /// It did what was asked; `ids` says to what.
    pub(crate) fn done(&self, ids: &str, bytes: u64) {
        let Record {
            who,
            route,
            namespace,
            path,
        } = self;
        tracing::info!(target: "audit", who, route, %namespace, path, result = "ok", ids, bytes);
    }

    /// It did not.
    pub(crate) fn refused(&self, e: &ApiError) {
        let Record {
            who,
            route,
            namespace,
            path,
        } = self;
        let status = e.status().as_u16();
        let result = e.message();
        tracing::info!(target: "audit", who, route, %namespace, path, result, status, ids = "", bytes = 0);
    }
}

/// `43`, `43-51`, or nothing.
pub(crate) fn ids(ids: impl IntoIterator<Item = SegmentId>) -> String {
    let mut ids = ids.into_iter();
    match (ids.next(), ids.last()) {
        (None, _) => String::new(),
        (Some(one), None) => one.to_string(),
        (Some(first), Some(last)) => format!("{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_segments_is_shown_by_its_ends() {
        let run = |n: &[u64]| ids(n.iter().map(|&n| SegmentId::new(n)));
        assert_eq!(run(&[]), "");
        assert_eq!(run(&[43]), "43");
        assert_eq!(run(&[43, 44, 1_000_000]), "43-1000000");
    }
}
