//! P1, P2, P3: what a client was told is so: an acknowledged write is the record that it was said to be,
//! a read or scan shows the state at some record between what was acknowledged before and what the answer
//! names.

use super::Seen;

pub fn check(seen: &Seen<'_>) -> Vec<String> {
    seen.history.check(seen.truth)
}
