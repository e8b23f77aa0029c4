//! What is bounded, and by whom: rows and transactions by admission and by applying, what is kept by
//! age by trimming. After each scenario the digest is worked out again from the entries (P7).

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use rig::Rig;
use unisondb_engine::{Refusal, TxStatus};
use unisondb_platform::memory;
use unisondb_types::{
    AbortReason, Action, ColumnName, Command, Digest, EntryType, Idempotency, IdempotencyKey, Key,
    Op, Outcome, RowKey, TxId, TxOperation, Value, limits,
};

fn key(s: &str) -> Key {
    Key::new(s.as_bytes().to_vec()).unwrap()
}
fn row(s: &str) -> RowKey {
    RowKey::new(s.as_bytes().to_vec()).unwrap()
}
fn column(s: &str) -> ColumnName {
    ColumnName::new(s.as_bytes().to_vec()).unwrap()
}
fn tx(n: u8) -> TxId {
    TxId::from_bytes([n; 16])
}
fn write(ops: Vec<Op>) -> Action {
    Action::Write {
        conditions: Vec::new(),
        ops,
    }
}

fn scenario(run: impl FnOnce(&mut Rig)) {
    let (platform, _, _) = memory::platform(1);
    let home = rig::home(std::path::Path::new("/data"));
    let request = unisondb_engine::start::Request {
        map_size: 1 << 30,
        ..rig::request()
    };
    let mut rig = Rig::open_with(&platform, &home, &request).unwrap();
    run(&mut rig);
    rig.scrub().unwrap();
}

/// Puts columns of these lengths into row `r`.
fn wide(columns: &[(&str, usize)]) -> Action {
    let of = |(name, len): &(&str, usize)| (column(name), Value::new(vec![7; *len]));
    write(vec![Op::RowPut {
        row: row("r"),
        columns: columns.iter().map(of).collect(),
    }])
}

#[test]
fn a_row_grows_no_further_than_its_limit_and_may_always_shrink() {
    scenario(|rig| {
        const MIB: usize = 1 << 20;
        let mut names: Vec<String> = (10..73).map(|n| format!("c{n}")).collect();
        for name in &names {
            let put = wide(&[(name, MIB - name.len())]);
            rig.engine.admit(&put, None).unwrap();
            rig.act(put).unwrap();
        }
        // 63 MiB are there.
        let last = wide(&[("z", MIB - 1)]);
        rig.engine.admit(&last, None).unwrap();
        let more = wide(&[("z", MIB)]);
        let refused = rig.engine.admit(&more, None).unwrap_err();
        assert!(
            matches!(&refused, Refusal::TooLarge(why) if why.contains("67108864")),
            "{refused}"
        );
        rig.act(last.clone()).unwrap();
        let staged = Action::Stage {
            id: tx(1),
            ops: match wide(&[("y", 1)]) {
                Action::Write { ops, .. } => ops,
                other => panic!("{other:?}"),
            },
        };
        assert!(matches!(
            rig.engine.admit(&staged, None),
            Err(Refusal::TooLarge(_))
        ));
        // What replaces as much, or less, adds nothing; a retry is such a one.
        rig.engine.admit(&last, None).unwrap();
        rig.engine.admit(&wide(&[("z", 5)]), None).unwrap();
        // Applying has no such limit: what is in the log is done.
        rig.act(more).unwrap();
        rig.engine.admit(&last, None).unwrap();
        // What is removed makes room, by the column and by the row.
        let columns = vec![column(&names.pop().unwrap())];
        rig.act(write(vec![Op::RowDeleteColumns {
            row: row("r"),
            columns,
        }]))
        .unwrap();
        rig.engine.admit(&wide(&[("y", MIB - 2)]), None).unwrap();
        assert!(rig.engine.admit(&wide(&[("y", MIB)]), None).is_err());
        rig.act(write(vec![Op::RowDelete { row: row("r") }]))
            .unwrap();
        assert_eq!(rig.engine.row(&row("r"), None).unwrap(), None);
        rig.engine
            .admit(&wide(&[("y", MIB), ("z", 2 * MIB)]), None)
            .unwrap();
    });
}

/// Makes old what is kept by age, then has it trimmed: the digest at the end, and what trimming
/// has walked over.
fn trimmed(restarts: bool) -> (Digest, u64) {
    const KEPT: u32 = 400;
    let (platform, _, clock) = memory::platform(1);
    let home = rig::home(std::path::Path::new("/data"));
    let request = unisondb_engine::start::Request {
        segment_size: 4 << 20,
        ..rig::request()
    };
    let mut rig = Rig::open_with(&platform, &home, &request).unwrap();
    let act = |rig: &mut Rig, n: u32| {
        let id = TxId::from_bytes([n.to_be_bytes(); 4].concat().try_into().unwrap());
        let begin = Action::Begin {
            id,
            operation: TxOperation::Put,
            entry_type: EntryType::Kv,
        };
        rig.propose(&Command::User {
            idempotency: Some(Idempotency {
                key: IdempotencyKey::new(format!("retry {n}").into_bytes()).unwrap(),
                fingerprint: [1; 16],
            }),
            action: begin,
        })
        .unwrap();
        let reason = AbortReason::Client;
        rig.act(Action::Abort { id, reason }).unwrap();
    };
    for n in 0..KEPT {
        act(&mut rig, n);
    }
    rig.engine.flush().unwrap();
    clock.advance(std::time::Duration::from_secs(25 * 3_600));
    let before = rig.applier.visited_by_trimming();
    for n in KEPT..KEPT + KEPT / 4 {
        act(&mut rig, n);
        if restarts && n % 10 == 0 {
            rig.close();
            rig = Rig::open_with(&platform, &home, &request).unwrap();
        }
    }
    let old = Command::User {
        idempotency: None,
        action: Action::Abort {
            id: TxId::from_bytes([0; 16]),
            reason: AbortReason::Client,
        },
    };
    let (_, outcome) = rig.propose(&old).unwrap();
    assert_eq!(outcome, Outcome::TxUnknown, "the oldest was trimmed");
    let digest = rig.scrub().unwrap().digest;
    let visited = rig.applier.visited_by_trimming();
    (digest, visited.saturating_sub(before))
}

#[test]
fn trimming_walks_over_a_few_entries_a_record_and_restarts_change_nothing() {
    let (digest, visited) = trimmed(false);
    // 100 idempotency keys and 100 ends, each with at most five searches over at most two keys.
    assert!(visited <= 2_000, "{visited}");
    assert_eq!(trimmed(true).0, digest);
}

#[test]
fn a_transaction_takes_no_more_than_its_limits_even_of_stages_that_were_admitted_together() {
    scenario(|rig| {
        let begin = |id| Action::Begin {
            id,
            operation: TxOperation::Put,
            entry_type: EntryType::Kv,
        };
        let stage = |id, keys: std::ops::Range<usize>, len: usize| Action::Stage {
            id,
            ops: keys
                .map(|n| Op::KvPut {
                    key: key(&format!("k{n}")),
                    value: Value::new(vec![7; len]),
                })
                .collect(),
        };
        let full = |outcome: &Outcome| match outcome {
            Outcome::TxTooLarge { reason } => {
                reason.contains("at most 10000 operations and 67108864")
            }
            _ => false,
        };
        // All are admitted before the first is applied, as when many are in flight.
        let together = |rig: &mut Rig, stages: Vec<Action>| -> Vec<Outcome> {
            for one in &stages {
                rig.engine.admit(one, None).unwrap();
            }
            let applied = stages.into_iter().map(|one| rig.act(one).unwrap().1);
            applied.collect()
        };

        rig.act(begin(tx(1))).unwrap();
        let most = stage(tx(1), 0..limits::ITEMS, 1);
        let outcomes = together(rig, vec![most, stage(tx(1), 0..1, 1)]);
        assert_eq!(outcomes[0], Outcome::Staged);
        assert!(full(&outcomes[1]), "{:?}", outcomes[1]);
        assert!(matches!(
            rig.engine.admit(&stage(tx(1), 0..1, 1), None),
            Err(Refusal::TooLarge(_))
        ));
        let (_, outcome) = rig.act(Action::Commit { id: tx(1) }).unwrap();
        let processed = u32::try_from(limits::ITEMS).unwrap();
        assert_eq!(
            outcome,
            Outcome::Committed {
                checksum: None,
                processed
            }
        );

        rig.act(begin(tx(2))).unwrap();
        let stages = (0..65).map(|n| stage(tx(2), n..n + 1, 1 << 20)).collect();
        let outcomes = together(rig, stages);
        // Each costs some bytes besides its value: one fewer than 64 fit.
        assert!(outcomes[..63].iter().all(|o| *o == Outcome::Staged));
        assert!(outcomes[63..].iter().all(full), "{:?}", outcomes[63]);
        let TxStatus::Open(open) = rig.engine.transaction(&tx(2)).unwrap() else {
            panic!("it is open still");
        };
        assert!(open.ops == 63 && open.bytes <= limits::TRANSACTION_BYTES);
        let reason = AbortReason::Client;
        rig.act(Action::Abort { id: tx(2), reason }).unwrap();
    });
}

#[test]
fn a_repeated_request_gets_its_first_answer_though_nothing_more_would_be_admitted() {
    scenario(|rig| {
        rig.act(Action::Begin {
            id: tx(1),
            operation: TxOperation::Put,
            entry_type: EntryType::Kv,
        })
        .unwrap();
        let fills = Action::Stage {
            id: tx(1),
            ops: (0..limits::ITEMS)
                .map(|n| Op::KvPut {
                    key: key(&format!("k{n}")),
                    value: Value::new("v"),
                })
                .collect(),
        };
        let used = |name: &'static str, fingerprint| Idempotency {
            key: IdempotencyKey::new(name).unwrap(),
            fingerprint: [fingerprint; 16],
        };
        let propose = |rig: &mut Rig| {
            rig.engine.admit(&fills, Some(&used("again", 1))).map(|()| {
                let command = Command::User {
                    idempotency: Some(used("again", 1)),
                    action: fills.clone(),
                };
                rig.propose(&command).unwrap()
            })
        };
        let first = propose(rig).unwrap();
        assert_eq!(first.1, Outcome::Staged);
        assert_eq!(propose(rig).unwrap(), first);
        for other in [None, Some(&used("new", 1))] {
            let refused = rig.engine.admit(&fills, other);
            assert!(matches!(refused, Err(Refusal::TooLarge(_))), "{refused:?}");
        }
        // Another request under the same key is 409 in its own turn.
        rig.engine.admit(&fills, Some(&used("again", 2))).unwrap();
        let reason = AbortReason::Client;
        rig.act(Action::Abort { id: tx(1), reason }).unwrap();
    });
}
