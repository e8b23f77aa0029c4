//! After a kill: is all there that was acknowledged, and which of the unknown writes happened? What
//! the restarted server serves tells: a client's own part is either with its unknown write or
//! without it, and nothing else.

use std::collections::BTreeMap;

use super::model::{Change, Content, When, Write};
use super::worker::{Pending, Seen, Worker};

/// How many writes were under way when the server went.
pub fn unknown(workers: &[Worker]) -> usize {
    workers.iter().filter(|w| w.pending.is_some()).count()
}

/// Finds out, in what the restarted server serves at LSN `now` (`tags`: the LSN of each key), which
/// unknown writes happened, and notes them as written. `everyone` has all clients: one may have
/// seen another's unknown write.
///
/// # Panics
/// When what is found is neither with nor without one: then an acknowledged write is lost, or half
/// of one is there.
pub fn settle(everyone: &mut [Worker], found: &Content, tags: &BTreeMap<String, u64>, now: u64) {
    let mut seen: Vec<Seen> = everyone
        .iter_mut()
        .flat_map(|w| std::mem::take(&mut w.seen))
        .collect();
    for (key, value) in found.kv.iter().filter(|(key, _)| key.starts_with("s/")) {
        seen.push(Seen {
            key: key.clone(),
            lsn: tags[key],
            value: value.clone(),
        });
    }
    for worker in everyone {
        let part = found.part(&worker.name);
        let when = match worker.pending.take() {
            None => {
                same(worker, &part);
                continue;
            }
            Some(pending) if pending.replaces.is_some() => {
                same(worker, &part);
                contended(&pending, &seen).map(|when| (pending, when))
            }
            Some(pending) => own(worker, &pending, &part, tags, now).map(|when| (pending, when)),
        };
        if let Some((Pending { changes, replaces }, when)) = when {
            let last = worker.last;
            assert!(when.last() > last, "{}: {when:?} after {last}", worker.name);
            worker.written.push(Write {
                when,
                changes,
                replaces,
            });
            worker.last = now;
        }
    }
}

fn same(worker: &Worker, part: &Content) {
    assert!(
        *part == worker.mine,
        "{}: {}",
        worker.name,
        worker.mine.differences(part)
    );
}

/// Where an unknown write of a contended key stands: whoever wrote there later has read it first.
fn contended(pending: &Pending, seen: &[Seen]) -> Option<When> {
    let Change::Kv(key, Some(value)) = &pending.changes[0] else {
        return None;
    };
    let found = seen.iter().find(|s| s.key == *key && s.value == *value)?;
    Some(When::At(found.lsn))
}

/// Where an unknown write of a client's own part stands, if it happened.
fn own(
    worker: &mut Worker,
    pending: &Pending,
    part: &Content,
    tags: &BTreeMap<String, u64>,
    now: u64,
) -> Option<When> {
    if *part == worker.mine {
        return None;
    }
    let without = worker.mine.clone();
    pending.changes.iter().for_each(|c| worker.mine.apply(c));
    assert!(
        *part == worker.mine,
        "{}: neither without the unknown write: {}\nnor with it: {}",
        worker.name,
        without.differences(part),
        worker.mine.differences(part)
    );
    Some(
        match pending
            .changes
            .iter()
            .find(|c| matches!(c, Change::Kv(_, Some(_))))
        {
            Some(Change::Kv(key, _)) => When::At(tags[key]),
            _ => When::Between(worker.last, now),
        },
    )
}
