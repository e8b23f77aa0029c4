//! What each action does to the state, by rule and against a model; after each scenario the digest
//! is worked out again from the entries (P7), and once more after a reopen.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod rig;

use std::collections::BTreeMap;

use proptest::prelude::*;
use rig::Rig;
use unisondb_engine::TxStatus;
use unisondb_platform::real;
use unisondb_types::{
    AbortReason, Action, ColumnName, Command, Condition, EntryType, Idempotency, IdempotencyKey,
    Key, Lsn, Op, Outcome, RowKey, TxId, TxOperation, Value,
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
fn value(s: &str) -> Value {
    Value::new(s.as_bytes().to_vec())
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
    let dir = tempfile::tempdir().unwrap();
    let home = rig::home(dir.path());
    let platform = real::platform();
    // Segments that do not roll: the entries counted are those of the scenario.
    let request = unisondb_engine::start::Request {
        segment_size: 1 << 20,
        ..rig::request()
    };
    let mut rig = Rig::open_with(&platform, &home, &request).unwrap();
    run(&mut rig);
    let before = rig.scrub().unwrap();
    rig.engine.flush().unwrap();
    assert_eq!(rig.scrub().unwrap().digest, before.digest);
    drop(rig);
    let rig = Rig::open(&platform, &home).unwrap();
    let after = rig.scrub().unwrap();
    assert_eq!((after.digest, after.lsn), (before.digest, before.lsn));
}

fn columns(rig: &Rig, name: &str) -> Option<Vec<(String, String)>> {
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    rig.engine.row(&row(name), None).unwrap().map(|r| {
        r.columns
            .iter()
            .map(|(n, v)| (text(n.as_bytes()), text(v.as_bytes())))
            .collect()
    })
}

#[test]
fn rows_merge_lose_columns_and_vanish_with_the_last_one() {
    scenario(|rig| {
        let put = |cols: &[(&str, &str)]| {
            let columns = cols.iter().map(|(n, v)| (column(n), value(v))).collect();
            write(vec![Op::RowPut {
                row: row("r"),
                columns,
            }])
        };
        rig.act(put(&[("a", "1"), ("b", "2")])).unwrap();
        let (lsn, _) = rig.act(put(&[("b", "3"), ("c", "4")])).unwrap();
        let all = |rig: &Rig| columns(rig, "r");
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(
            all(rig),
            Some(vec![pair("a", "1"), pair("b", "3"), pair("c", "4")])
        );
        assert_eq!(rig.engine.row(&row("r"), None).unwrap().unwrap().lsn, lsn);
        let some = rig
            .engine
            .row(&row("r"), Some(&[column("c"), column("zz")]))
            .unwrap()
            .unwrap();
        assert_eq!(some.columns, vec![(column("c"), value("4"))]);
        let gone = |names: &[&str]| {
            let columns = names.iter().map(|n| column(n)).collect();
            write(vec![Op::RowDeleteColumns {
                row: row("r"),
                columns,
            }])
        };
        rig.act(gone(&["a", "zz"])).unwrap();
        assert_eq!(all(rig), Some(vec![pair("b", "3"), pair("c", "4")]));
        rig.act(gone(&["b", "c"])).unwrap();
        assert_eq!(all(rig), None);
        rig.act(put(&[("x", "1")])).unwrap();
        rig.act(write(vec![Op::RowDelete { row: row("r") }]))
            .unwrap();
        assert_eq!(all(rig), None);
    });
}

#[test]
fn conditions_hold_or_nothing_happens() {
    scenario(|rig| {
        let put = |conditions| Action::Write {
            conditions,
            ops: vec![
                Op::KvPut {
                    key: key("k"),
                    value: value("new"),
                },
                Op::KvPut {
                    key: key("other"),
                    value: value("new"),
                },
            ],
        };
        let (first, outcome) = rig.act(put(vec![Condition::KvAbsent(key("k"))])).unwrap();
        assert_eq!(outcome, Outcome::Written { processed: 2 });
        let (_, outcome) = rig.act(put(vec![Condition::KvAbsent(key("k"))])).unwrap();
        assert_eq!(outcome, Outcome::ConditionFailed { found: Some(first) });
        let wrong = Condition::KvAt(key("k"), Lsn::new(1));
        let both = vec![Condition::KvAt(key("k"), first), wrong];
        assert_eq!(
            rig.act(put(both)).unwrap().1,
            Outcome::ConditionFailed { found: Some(first) }
        );
        let right = vec![Condition::KvAt(key("k"), first)];
        assert_eq!(
            rig.act(put(right)).unwrap().1,
            Outcome::Written { processed: 2 }
        );
        let absent = Condition::RowAt(row("r"), Lsn::new(3));
        assert_eq!(
            rig.act(put(vec![absent])).unwrap().1,
            Outcome::ConditionFailed { found: None }
        );
    });
}

#[test]
fn an_idempotency_key_is_applied_once_and_its_first_answer_repeated() {
    scenario(|rig| {
        let idem = |fingerprint| {
            Some(Idempotency {
                key: IdempotencyKey::new("retry-1").unwrap(),
                fingerprint: [fingerprint; 16],
            })
        };
        let put = |v: &str, f| Command::User {
            idempotency: idem(f),
            action: rig::put("k", v),
        };
        let first = rig.propose(&put("one", 1)).unwrap();
        rig.put("k", "two").unwrap();
        assert_eq!(rig.propose(&put("one", 1)).unwrap(), first);
        assert_eq!(rig.engine.kv(&key("k")).unwrap().unwrap().value, "two");
        assert_eq!(rig.propose(&put("three", 2)).unwrap().1, Outcome::KeyReused);
        assert_eq!(rig.engine.kv(&key("k")).unwrap().unwrap().value, "two");
    });
}

#[test]
fn a_transaction_is_invisible_until_its_commit_and_ends_once() {
    scenario(|rig| {
        let begin = |id, entry_type| Action::Begin {
            id,
            operation: TxOperation::Put,
            entry_type,
        };
        let op = |n: u8| Op::KvPut {
            key: key(&format!("t{n}")),
            value: value("v"),
        };
        assert_eq!(
            rig.act(begin(tx(1), EntryType::Kv)).unwrap().1,
            Outcome::Begun(tx(1))
        );
        for n in 0..5 {
            let stage = Action::Stage {
                id: tx(1),
                ops: vec![op(n)],
            };
            assert_eq!(rig.act(stage).unwrap().1, Outcome::Staged);
        }
        assert!(rig.keys().is_empty());
        assert!(matches!(rig.engine.transaction(&tx(1)).unwrap(), TxStatus::Open(i) if i.ops == 5));
        let misfit = Action::Stage {
            id: tx(1),
            ops: vec![Op::KvDelete { key: key("t") }],
        };
        assert!(matches!(
            rig.act(misfit).unwrap().1,
            Outcome::TxMisfit { reason } if reason == "the transaction was begun for put of entries of type kv; a delete of type kv does not fit"
        ));
        let commit = Action::Commit { id: tx(1) };
        let done = Outcome::Committed {
            checksum: None,
            processed: 5,
        };
        assert_eq!(rig.act(commit.clone()).unwrap().1, done);
        assert_eq!(rig.keys().len(), 5);
        assert_eq!(
            rig.act(commit).unwrap().1,
            Outcome::TxFinished { committed: true }
        );
        assert_eq!(
            rig.act(Action::Commit { id: tx(9) }).unwrap().1,
            Outcome::TxUnknown
        );

        rig.act(begin(tx(2), EntryType::Kv)).unwrap();
        rig.act(Action::Stage {
            id: tx(2),
            ops: vec![op(77)],
        })
        .unwrap();
        let expired = Action::Abort {
            id: tx(2),
            reason: AbortReason::Expired,
        };
        assert_eq!(rig.act(expired).unwrap().1, Outcome::Aborted);
        let late = Action::Stage {
            id: tx(2),
            ops: vec![op(78)],
        };
        assert_eq!(rig.act(late).unwrap().1, Outcome::TxExpired);
        assert_eq!(rig.keys().len(), 5);
        assert_eq!(rig.engine.positions().open_transactions, 0);
    });
}

fn read_all(rig: &Rig, name: &str) -> Option<Vec<u8>> {
    let lob = rig.engine.lob(&key(name)).unwrap()?;
    let mut all = Vec::new();
    while (all.len() as u64) < lob.len {
        all.extend_from_slice(&lob.read(all.len() as u64).unwrap());
    }
    assert_eq!(crc32c::crc32c(&all), lob.crc32c);
    Some(all)
}

fn bring(rig: &mut Rig, id: TxId, name: &str, chunks: &[Vec<u8>]) -> Outcome {
    let operation = TxOperation::Put;
    rig.act(Action::Begin {
        id,
        operation,
        entry_type: EntryType::Lob,
    })
    .unwrap();
    for data in chunks {
        let data = Value::new(data.clone());
        rig.act(Action::Chunk {
            id,
            key: key(name),
            data,
        })
        .unwrap();
    }
    rig.act(Action::Commit { id }).unwrap().1
}

#[test]
fn an_object_is_whole_readable_at_any_offset_and_freed_when_replaced() {
    scenario(|rig| {
        let chunks: Vec<Vec<u8>> = (0..6u8).map(|i| vec![i; 1_000 + usize::from(i)]).collect();
        let whole = chunks.concat();
        let outcome = bring(rig, tx(1), "big", &chunks);
        let checksum = Some(crc32c::crc32c(&whole));
        assert_eq!(
            outcome,
            Outcome::Committed {
                checksum,
                processed: 1
            }
        );
        assert_eq!(read_all(rig, "big").unwrap(), whole);
        rig.engine.flush().unwrap();
        let reader = rig.engine.lob(&key("big")).unwrap().unwrap();
        for offset in [0, 1, 999, 1_000, 1_001, whole.len() - 1] {
            let part = reader.read(offset as u64).unwrap();
            assert!(
                !part.is_empty() && whole[offset..].starts_with(&part),
                "{offset}"
            );
        }
        assert!(reader.read(whole.len() as u64).unwrap().is_empty());

        // Replaced while it is read: the reader goes on, then the chunks go.
        bring(rig, tx(2), "big", &[b"small".to_vec()]);
        rig.engine.flush().unwrap();
        rig.put("turn", "1").unwrap();
        rig.engine.flush().unwrap();
        assert_eq!(&reader.read(0).unwrap()[..], &chunks[0][..]);
        let entries = |rig: &Rig| rig.scrub().unwrap().entries;
        let held = entries(rig);
        drop(reader);
        rig.put("turn", "2").unwrap();
        rig.engine.flush().unwrap();
        assert_eq!(
            entries(rig),
            held - 7,
            "six chunks and the garbage entry are gone"
        );
        assert_eq!(read_all(rig, "big").unwrap(), b"small");
        rig.act(write(vec![Op::LobDelete { key: key("big") }]))
            .unwrap();
        assert!(read_all(rig, "big").is_none());
    });
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    RowPut(u8, Vec<(u8, u8)>),
    RowDelete(u8),
    RowColumns(u8, Vec<u8>),
    Batch(Vec<(u8, Option<u8>)>),
    Flush,
    Reopen,
    Seal,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let few = 0..6u8;
    let step = prop_oneof![
        4 => (0..12u8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (0..12u8).prop_map(Step::Delete),
        3 => (few.clone(), proptest::collection::vec((0..5u8, any::<u8>()), 1..4)).prop_map(|(r, c)| Step::RowPut(r, c)),
        1 => few.clone().prop_map(Step::RowDelete),
        2 => (few, proptest::collection::vec(0..5u8, 1..4)).prop_map(|(r, c)| Step::RowColumns(r, c)),
        2 => proptest::collection::vec((0..12u8, proptest::option::of(any::<u8>())), 1..6).prop_map(Step::Batch),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Seal),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn any_history_equals_the_model_and_its_own_digest(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let home = rig::home(dir.path());
        let platform = real::platform();
        let mut rig = Some(Rig::open(&platform, &home).unwrap());
        let mut kv: BTreeMap<String, String> = BTreeMap::new();
        let mut rows: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let name = |k: u8| format!("k{k}");
        for step in steps {
            let r = rig.as_mut().unwrap();
            match step {
                Step::Put(k, v) => {
                    r.act(rig::put(&name(k), &v.to_string())).unwrap();
                    kv.insert(name(k), v.to_string());
                }
                Step::Delete(k) => {
                    r.act(write(vec![Op::KvDelete { key: key(&name(k)) }])).unwrap();
                    kv.remove(&name(k));
                }
                Step::RowPut(n, cols) => {
                    let columns = cols.iter().map(|(c, v)| (column(&name(*c)), value(&v.to_string()))).collect();
                    r.act(write(vec![Op::RowPut { row: row(&name(n)), columns }])).unwrap();
                    let into = rows.entry(name(n)).or_default();
                    into.extend(cols.iter().map(|(c, v)| (name(*c), v.to_string())));
                }
                Step::RowDelete(n) => {
                    r.act(write(vec![Op::RowDelete { row: row(&name(n)) }])).unwrap();
                    rows.remove(&name(n));
                }
                Step::RowColumns(n, cols) => {
                    let columns = cols.iter().map(|c| column(&name(*c))).collect();
                    r.act(write(vec![Op::RowDeleteColumns { row: row(&name(n)), columns }])).unwrap();
                    if let Some(from) = rows.get_mut(&name(n)) {
                        from.retain(|c, _| !cols.iter().any(|x| name(*x) == *c));
                    }
                    rows.retain(|_, c| !c.is_empty());
                }
                Step::Batch(items) => {
                    let ops = items.iter().map(|(k, v)| match v {
                        Some(v) => Op::KvPut { key: key(&name(*k)), value: value(&v.to_string()) },
                        None => Op::KvDelete { key: key(&name(*k)) },
                    }).collect();
                    r.act(write(ops)).unwrap();
                    for (k, v) in items {
                        match v {
                            Some(v) => kv.insert(name(k), v.to_string()),
                            None => kv.remove(&name(k)),
                        };
                    }
                }
                Step::Flush => { r.engine.flush().unwrap(); }
                Step::Reopen => {
                    drop(rig.take());
                    rig = Some(Rig::open(&platform, &home).unwrap());
                }
                Step::Seal => { r.seal().unwrap(); }
            }
            let r = rig.as_ref().unwrap();
            let found: BTreeMap<String, String> = r.keys().into_iter()
                .map(|(k, v)| (String::from_utf8(k).unwrap(), String::from_utf8(v).unwrap())).collect();
            prop_assert_eq!(&found, &kv);
            for n in 0..6u8 {
                let found = columns(r, &name(n)).map(|c| c.into_iter().collect::<BTreeMap<_, _>>());
                prop_assert_eq!(found.as_ref(), rows.get(&name(n)));
                let bytes = r.engine.row(&row(&name(n)), Some(&[])).unwrap().map(|r| r.bytes);
                let expected = rows.get(&name(n)).map(|c| {
                    c.iter().map(|(n, v)| (n.len() + v.len()) as u64).sum::<u64>()
                });
                prop_assert_eq!(bytes, expected, "the header of {}", name(n));
            }
        }
        rig.as_ref().unwrap().scrub().unwrap();
    }
}
