//! P15: no record of a namespace holds what a client of another one has written. Each client marks what
//! it writes with its own name, and writes to one namespace only.

use std::collections::BTreeSet;

use super::Seen;
use crate::oracle::history::holds;

/// What clients of a namespace begin their texts with.
pub fn mark(namespace: &str) -> String {
    format!("{namespace}/")
}

pub fn check(seen: &Seen<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let others: BTreeSet<String> = crate::run::NAMESPACES
        .iter()
        .filter(|n| **n != seen.namespace)
        .map(|n| mark(n))
        .collect();
    for (_, _, segment) in seen.log {
        if segment.namespace != seen.namespace {
            wrong.push(format!(
                "segment {} in its log is of {}",
                segment.id, segment.namespace
            ));
        }
        for record in &segment.records {
            let foreign = |mark: &&String| holds(&record.what, mark.as_bytes());
            if let Some(mark) = others.iter().find(foreign) {
                wrong.push(format!("record {} holds a text of {mark}", record.lsn));
            }
        }
    }
    wrong
}
