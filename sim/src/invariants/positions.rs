//! Always, in one life of the process: what is in LMDB is applied and durable, what is applied is committed,
//! of a node alone what is committed is durable, and none of them goes back (but what is durable, on one of
//! several nodes). What waits for LMDB and for a commit is bounded.

use std::collections::BTreeMap;

use unisondb_engine::Positions;
use unisondb_types::limits;

/// What a process may hold that LMDB has not: what one flush takes, and what may be proposed meanwhile.
const MEMTABLE_BYTES: u64 = (1 << 20) + limits::PROPOSAL_BYTES as u64;

/// The positions of each namespace as they were last seen in this life.
pub struct Watched {
    seen: BTreeMap<String, Positions>,
    /// The node has no other: what it commits is on its own disk.
    is_alone: bool,
}

impl Watched {
    pub fn of(is_alone: bool) -> Watched {
        Watched {
            seen: BTreeMap::new(),
            is_alone,
        }
    }

    /// Looks again; what is wrong, in words.
    pub fn look(&mut self, namespace: &str, now: Positions) -> Vec<String> {
        let mut wrong = Vec::new();
        let order = [
            ("flushed", now.flushed),
            ("applied", now.applied),
            ("committed", now.committed),
            ("durable", now.durable),
            ("last", now.last),
        ];
        // A quorum of others may have on their disks what is not on this one yet.
        let several = [order[0], order[3], order[4]];
        let upto = if self.is_alone { 5 } else { 3 };
        let pairs = order[..upto].windows(2);
        for pair in pairs.chain(several.windows(2)) {
            if pair[0].1 > pair[1].1 {
                wrong.push(format!(
                    "{namespace}: {} {} is beyond {} {}",
                    pair[0].0, pair[0].1, pair[1].0, pair[1].1
                ));
            }
        }
        if now.memtable_bytes > MEMTABLE_BYTES {
            wrong.push(format!(
                "{namespace}: {} bytes wait for LMDB",
                now.memtable_bytes
            ));
        }
        if now.open_transactions > limits::OPEN_TRANSACTIONS {
            wrong.push(format!(
                "{namespace}: {} transactions are open",
                now.open_transactions
            ));
        }
        if let Some(before) = self.seen.get(namespace) {
            let pairs = [
                ("flushed", before.flushed, now.flushed),
                ("applied", before.applied, now.applied),
                ("committed", before.committed, now.committed),
                ("durable", before.durable, now.durable),
            ];
            for (name, before, now) in pairs {
                // What a leader before wrote here, and nobody committed, makes room for the next one's.
                let may_go_back = name == "durable" && !self.is_alone;
                if now < before && !may_go_back {
                    wrong.push(format!("{namespace}: {name} went from {before} to {now}"));
                }
            }
        }
        self.seen.insert(namespace.to_owned(), now);
        wrong
    }
}
