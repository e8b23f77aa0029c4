//! What must hold at the end of every run, one invariant a file. Each gets all that was [`Seen`] and says
//! in words what is not so; a new one is a new file and a line in [`ALL`].
//!
//! What can be said at once is said where it is seen: [positions] by the node's process ten times a
//! second, P1, P4 and P7 by the [truth](crate::oracle::truth),
//! P8 by the [operator](crate::workload::operator), P10 and P11 by every restore, P13 by who damages.

mod answers;
mod ids;
mod leftovers;
mod linearizable;
mod memory;
pub mod positions;
mod sessions;
pub mod walls;

use std::path::PathBuf;

use crate::oracle::history::History;
use crate::oracle::log::{Id, Segment};
use crate::oracle::operations::Operation;
use crate::oracle::truth::Truth;
use crate::report::Counters;

/// What one namespace has shown.
pub struct Seen<'a> {
    pub namespace: &'a str,
    /// There is one node.
    pub is_alone: bool,
    pub truth: &'a Truth,
    pub history: &'a History,
    pub operations: &'a [Operation],
    /// The lineage of each epoch.
    pub epochs: &'a [Id],
    /// The segments of the live log at the end.
    pub log: &'a [(PathBuf, Vec<u8>, Segment)],
    /// Names of all files on the node's disk at the end that show what they are.
    pub files: &'a [PathBuf],
    pub counters: &'a Counters,
}

/// An invariant: its name, and what is wrong.
type Invariant = (&'static str, fn(&Seen<'_>) -> Vec<String>);

/// All of them.
const ALL: &[Invariant] = &[
    ("P1, P2, P3", answers::check),
    ("P3", linearizable::check),
    ("P2", sessions::check),
    ("P12", ids::check),
    ("P15", walls::check),
    ("leftovers", leftovers::check),
    ("memory", memory::check),
];

/// What does not hold, in words.
pub fn check(seen: &Seen<'_>) -> Vec<String> {
    let wrong = ALL.iter().flat_map(|(name, check)| {
        let wrong = check(seen).into_iter();
        wrong.map(move |what| format!("{name}: {}: {what}", seen.namespace))
    });
    wrong.collect()
}
