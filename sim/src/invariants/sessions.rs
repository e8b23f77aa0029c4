//! P2: one client after another answer never sees an older state: within a lineage the LSNs of its answers
//! do not go down, where there is one node; of several on one connection, and wherever it names what it has seen. (Session guarantees: Terry et al., "Session Guarantees for Weakly Consistent Replicated
//! Data", 1994: monotonic reads, read your writes.)

use std::collections::BTreeMap;

use super::Seen;
use crate::oracle::history::Answer;

pub fn check(seen: &Seen<'_>) -> Vec<String> {
    let mut newest = BTreeMap::new();
    let is_alone = seen.is_alone;
    let mut wrong = Vec::new();
    for told in &seen.history.told {
        let lsn = match &told.what {
            // Behind a balancer who wants to read what he wrote names it.
            Answer::Written { .. } if !is_alone => continue,
            Answer::Written { lsn, .. } => *lsn,
            Answer::Read { high, .. } | Answer::Page { high, .. } => *high,
        };
        let connection = if is_alone { 0 } else { told.connection };
        let before = newest
            .entry((&told.client, told.lineage, connection))
            .or_insert(0);
        if lsn < *before {
            wrong.push(format!(
                "{} was shown LSN {lsn} by {} after LSN {before}",
                told.client, told.request
            ));
        }
        *before = lsn.max(*before);
    }
    wrong
}
