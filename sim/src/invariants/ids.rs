//! P12: ids never go back: in the live log segments rise with their first LSNs, lineages take blocks of
//! their own, and no id below a lineage's block is one of its segments.

use super::Seen;

/// Distance between the blocks of ids that lineages use (`docs/formats/segment.md`).
const BLOCK: u64 = 1_000_000;

pub fn check(seen: &Seen<'_>) -> Vec<String> {
    let mut segments: Vec<_> = seen.log.iter().map(|(_, _, s)| s).collect();
    segments.sort_by_key(|s| s.id);
    let mut wrong = Vec::new();
    for pair in segments.windows(2) {
        let (one, next) = (pair[0], pair[1]);
        let (first, after) = (one.records.first(), next.records.first());
        if let (Some(first), Some(after)) = (first, after)
            && after.lsn <= first.lsn
        {
            wrong.push(format!(
                "segment {} begins at LSN {}, segment {} before it at LSN {}",
                next.id, after.lsn, one.id, first.lsn
            ));
        }
        if one.lineage != next.lineage && one.id / BLOCK == next.id / BLOCK {
            wrong.push(format!(
                "segments {} and {} are of two lineages and of one block of ids",
                one.id, next.id
            ));
        }
    }
    wrong
}
