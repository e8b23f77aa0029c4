//! Always, in one life of the process: what is in LMDB is applied, what is applied is committed, what is
//! committed is durable, and none of them goes back. What waits for LMDB and for a commit is bounded.

use std::collections::BTreeMap;

use unisondb_engine::Positions;
use unisondb_types::limits;

/// What a process may hold that LMDB has not: what one flush takes, and what may be proposed meanwhile.
const MEMTABLE_BYTES: u64 = (1 << 20) + limits::PROPOSAL_BYTES as u64;

/// The positions of each namespace as they were last seen in this life.
#[derive(Default)]
pub struct Watched(BTreeMap<String, Positions>);

impl Watched {
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
        for pair in order.windows(2) {
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
        if let Some(before) = self.0.get(namespace) {
            let pairs = [
                ("flushed", before.flushed, now.flushed),
                ("applied", before.applied, now.applied),
                ("committed", before.committed, now.committed),
                ("durable", before.durable, now.durable),
            ];
            for (name, before, now) in pairs {
                if now < before {
                    wrong.push(format!("{namespace}: {name} went from {before} to {now}"));
                }
            }
        }
        self.0.insert(namespace.to_owned(), now);
        wrong
    }
}
