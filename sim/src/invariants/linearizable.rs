//! P3: for each key there is an order of all writes and linearizable reads that fits what each was answered
//! and when: Wing and Gong, "Testing and Verifying Concurrent Objects", 1993, with the memory of Lowe,
//! "Testing for linearizability", 2017. A write without an answer may have been done or not; one whose
//! value nobody saw is left out first.
//!
//! Within one life of the namespace: a restore in place begins another, with the state that it restored.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Seen;
use crate::oracle::operations::{Act, Operation, Value};

/// Steps of the search for one key, after which nothing is said either way.
const MOST_STEPS: u64 = 300_000;

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Fits,
    /// It does not: at most so many operations fit.
    Breaks(usize),
    Inconclusive,
}

pub fn check(seen: &Seen<'_>) -> Vec<String> {
    let mut keys: BTreeMap<(u64, &[u8]), Vec<&Operation>> = BTreeMap::new();
    for operation in seen.operations {
        let key = (operation.epoch, operation.key.as_slice());
        keys.entry(key).or_default().push(operation);
    }
    let mut wrong = Vec::new();
    for ((epoch, key), operations) in keys {
        let Some(first) = first_value(seen, epoch, key) else {
            seen.counters
                .add("linearizability: the beginning is not known");
            continue;
        };
        match search(&first, &operations) {
            Verdict::Fits => seen.counters.add("a key's history was found linearizable"),
            Verdict::Inconclusive => seen.counters.add("linearizability: inconclusive"),
            Verdict::Breaks(most) => wrong.push(format!(
                "not linearizable: key {} of life {epoch}: only {most} of {} operations can be put in order",
                key.escape_ascii(),
                operations.len()
            )),
        }
    }
    wrong
}

/// What a key held when a life began.
fn first_value(seen: &Seen<'_>, epoch: u64, key: &[u8]) -> Option<Value> {
    let lineage = seen.epochs.get(usize::try_from(epoch).ok()?)?;
    match seen.truth.lineages().get(lineage)? {
        None => Some(None),
        Some((parent, fork)) => {
            let state = seen.truth.state(*parent, *fork).ok()?;
            Some(state.kv.get(key).map(|e| e.0.clone()))
        }
    }
}

/// An entry of the list that the search walks: where an operation begins or ends.
struct Entry {
    operation: usize,
    is_end: bool,
    before: usize,
    after: usize,
}

/// Index of the list's head; also its end.
const HEAD: usize = 0;

fn search(first: &Value, operations: &[&Operation]) -> Verdict {
    let operations = without_unseen(operations);
    let mut values: Vec<&Value> = vec![first];
    let mut number = |value| match values.iter().position(|v| *v == value) {
        Some(n) => n,
        None => {
            values.push(value);
            values.len() - 1
        }
    };
    // What each needs to find, must not find, and leaves.
    let steps: Vec<Step> = operations
        .iter()
        .map(|o| match &o.act {
            Act::Write { value, only_if } => Step {
                needs: only_if.as_ref().map(&mut number),
                refuses: None,
                leaves: Some(number(value)),
            },
            Act::Refused { only_if } => Step {
                needs: None,
                refuses: Some(number(only_if)),
                leaves: None,
            },
            Act::Read { value } => Step {
                needs: Some(number(value)),
                refuses: None,
                leaves: None,
            },
        })
        .collect();
    let mut list = List::of(&operations);
    let mut done = vec![0u64; operations.len().div_ceil(64)];
    let mut known = HashSet::new();
    let mut stack: Vec<(usize, usize)> = Vec::new();
    let (mut state, mut at, mut most, mut budget) = (0, list.first(), 0, MOST_STEPS);
    while at != HEAD {
        budget -= 1;
        if budget == 0 {
            return Verdict::Inconclusive;
        }
        let operation = list.entries[at].operation;
        if list.entries[at].is_end {
            // Nothing that could come first has led on: take back the last choice.
            let Some((entry, before)) = stack.pop() else {
                return Verdict::Breaks(most);
            };
            let operation = list.entries[entry].operation;
            done[operation / 64] &= !(1 << (operation % 64));
            list.put_back(entry);
            state = before;
            at = list.entries[entry].after;
            continue;
        }
        if let Some(next) = steps[operation].from(state) {
            done[operation / 64] |= 1 << (operation % 64);
            if known.insert((done.clone(), next)) {
                stack.push((at, state));
                list.take_out(at);
                state = next;
                most = most.max(stack.len());
                at = list.first();
                continue;
            }
            done[operation / 64] &= !(1 << (operation % 64));
        }
        at = list.entries[at].after;
    }
    Verdict::Fits
}

/// What an operation does to the value's number.
struct Step {
    needs: Option<usize>,
    refuses: Option<usize>,
    leaves: Option<usize>,
}

impl Step {
    fn from(&self, state: usize) -> Option<usize> {
        let fits = self.needs.is_none_or(|n| n == state) && self.refuses.is_none_or(|n| n != state);
        fits.then(|| self.leaves.unwrap_or(state))
    }
}

/// Without writes that have no answer and whose value nobody saw.
fn without_unseen<'a>(operations: &[&'a Operation]) -> Vec<&'a Operation> {
    let seen: BTreeSet<&Value> = operations
        .iter()
        .filter_map(|o| match &o.act {
            Act::Read { value } => Some(value),
            Act::Write { only_if, .. } => only_if.as_ref(),
            // It shows what there was not.
            Act::Refused { .. } => None,
        })
        .collect();
    let refusals = operations
        .iter()
        .any(|o| matches!(o.act, Act::Refused { .. }));
    let kept = operations.iter().filter(|o| match &o.act {
        Act::Write { value, .. } => o.answered.is_some() || refusals || seen.contains(value),
        _ => true,
    });
    kept.copied().collect()
}

/// Beginnings and ends in the order of time, linked so that one can be taken out and put back.
struct List {
    entries: Vec<Entry>,
    /// Entry of each operation's end.
    ends: Vec<Option<usize>>,
}

impl List {
    fn of(operations: &[&Operation]) -> List {
        let mut moments: Vec<(u64, usize, bool)> = Vec::new();
        for (n, operation) in operations.iter().enumerate() {
            moments.push((operation.asked, n, false));
            moments.extend(operation.answered.map(|at| (at, n, true)));
        }
        moments.sort_unstable();
        let count = moments.len();
        let mut entries = vec![Entry {
            operation: usize::MAX,
            is_end: false,
            before: count,
            after: if count > 0 { 1 } else { HEAD },
        }];
        let mut ends = vec![None; operations.len()];
        for (n, (_, operation, is_end)) in moments.into_iter().enumerate() {
            if is_end {
                ends[operation] = Some(n + 1);
            }
            entries.push(Entry {
                operation,
                is_end,
                before: n,
                after: if n + 1 == count { HEAD } else { n + 2 },
            });
        }
        List { entries, ends }
    }

    fn first(&self) -> usize {
        self.entries[HEAD].after
    }

    fn unlink(&mut self, at: usize) {
        let (before, after) = (self.entries[at].before, self.entries[at].after);
        self.entries[before].after = after;
        self.entries[after].before = before;
    }

    fn link(&mut self, at: usize) {
        let (before, after) = (self.entries[at].before, self.entries[at].after);
        self.entries[before].after = at;
        self.entries[after].before = at;
    }

    /// An operation, by its beginning.
    fn take_out(&mut self, at: usize) {
        self.unlink(at);
        if let Some(end) = self.ends[self.entries[at].operation] {
            self.unlink(end);
        }
    }

    fn put_back(&mut self, at: usize) {
        if let Some(end) = self.ends[self.entries[at].operation] {
            self.link(end);
        }
        self.link(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        (text != "-").then(|| text.as_bytes().to_vec())
    }

    /// `w a 0 3`: written between 0 and 3; `?`: no answer; `r -`: read that there is none; `n a`: refused
    /// since a was not there; `c a b`: a written where b was.
    fn history(text: &str) -> Vec<Operation> {
        let one = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (act, times) = match words[0] {
                "w" => (
                    Act::Write {
                        value: value(words[1]),
                        only_if: None,
                    },
                    &words[2..],
                ),
                "c" => (
                    Act::Write {
                        value: value(words[1]),
                        only_if: Some(value(words[2])),
                    },
                    &words[3..],
                ),
                "n" => (
                    Act::Refused {
                        only_if: value(words[1]),
                    },
                    &words[2..],
                ),
                _ => (
                    Act::Read {
                        value: value(words[1]),
                    },
                    &words[2..],
                ),
            };
            Operation {
                client: String::new(),
                key: Vec::new(),
                act,
                epoch: 0,
                asked: times[0].parse().expect("a number"),
                answered: times[1].parse().ok(),
            }
        };
        text.split(',').map(one).collect()
    }

    fn judge(text: &str) -> Verdict {
        let history = history(text);
        search(&None, &history.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_fits_some_order_is_linearizable() {
        for fits in [
            "w a 0 1, r a 2 3",
            // At once: either order.
            "w a 0 5, r - 1 2, r a 3 4",
            "w a 0 9, w b 1 8, r b 2 3, r a 4 5",
            // Without an answer: done late, or never.
            "w a 0 ?, r - 1 2, r a 3 4",
            "w a 0 ?, r - 1 2, r - 3 4",
            "w - 0 ?, w a 1 2, r a 3 4, r - 5 6",
            "w a 0 1, c b a 2 3, n a 4 5, r b 6 7",
        ] {
            assert_eq!(judge(fits), Verdict::Fits, "{fits}");
        }
    }

    #[test]
    fn what_fits_no_order_is_not() {
        for wrong in [
            // A stale read.
            "w a 0 1, w b 2 3, r a 4 5",
            // Lost.
            "w a 0 1, r - 2 3",
            // Seen, and then not any more.
            "w a 0 ?, r a 1 2, r - 3 4",
            // Read before it was asked for.
            "r a 0 1, w a 2 3",
            // Two won the same condition.
            "c a - 0 1, c b - 2 3",
            // Refused although it was there.
            "w a 0 1, n a 2 3",
        ] {
            assert!(matches!(judge(wrong), Verdict::Breaks(_)), "{wrong}");
        }
    }

    #[test]
    fn a_search_that_takes_too_long_says_nothing() {
        // Twenty writes at once, and a read of what none of them left: every order is tried.
        let mut text: Vec<String> = (0..24).map(|n| format!("w v{n} 0 9")).collect();
        text.push("r v0 10 11".to_owned());
        text.push("r none 12 13".to_owned());
        assert_eq!(judge(&text.join(",")), Verdict::Inconclusive);
    }
}
