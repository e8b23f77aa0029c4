//! Keeps `docs/formats/records.md`: what a payload is, byte for byte, put together here by hand from
//! that page. A change that these tests see is a change of format.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use unisondb_types::{
    AbortReason, Action, Ancestor, Chain, Check, ClusterId, ColumnName, Command, Condition, Digest,
    EntryType, Idempotency, IdempotencyKey, Key, Kind, LineageId, LineageReason, LineageRecord,
    Lsn, Members, Op, Parent, Record, RowKey, SegmentId, Stamp, Target, Term, TxId, TxOperation,
    Value,
};

#[derive(Default)]
struct Page(Vec<u8>);

impl Page {
    fn mark(mut self, n: u8) -> Page {
        self.0.push(n);
        self
    }
    fn variant(mut self, n: u32) -> Page {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn int(mut self, n: u64) -> Page {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn raw(mut self, bytes: &[u8]) -> Page {
        self.0.extend(bytes);
        self
    }
    fn bytes(self, bytes: &[u8]) -> Page {
        self.int(bytes.len() as u64).raw(bytes)
    }
}

fn page() -> Page {
    Page::default()
}

/// The command has this payload, and the payload is this command again.
fn is(command: Command, page: Page) {
    let payload = command.payload();
    assert_eq!(payload, page.0, "{command:?}");
    let record = Record {
        lsn: Lsn::FIRST,
        term: Term::new(1),
        stamp: Stamp::ZERO,
        committed: Lsn::ZERO,
        kind: command.kind(),
        payload: payload.clone(),
    };
    assert_eq!(record.command().unwrap(), command);
    // Neither shorter nor longer bytes are anything.
    let longer = [&payload[..], &[0]].concat();
    let other = |payload: Bytes| {
        Record {
            payload,
            ..record.clone()
        }
        .command()
    };
    assert!(other(longer.into()).is_err());
    if !payload.is_empty() {
        assert!(other(payload.slice(..payload.len() - 1)).is_err());
    }
}

fn user(action: Action, page: Page) {
    let command = Command::User {
        idempotency: None,
        action,
    };
    let with_mark = Page([&[0], &page.0[..]].concat());
    is(command, with_mark);
}

fn key(k: &str) -> Key {
    Key::new(k.to_owned()).unwrap()
}
fn row(k: &str) -> RowKey {
    RowKey::new(k.to_owned()).unwrap()
}
fn tx() -> TxId {
    TxId::from_bytes([9; 16])
}

#[test]
fn kinds_have_their_numbers_for_ever() {
    let kinds = [
        (1, Kind::Lineage),
        (2, Kind::User),
        (3, Kind::Seal),
        (4, Kind::Check),
        (5, Kind::Blank),
        (6, Kind::Membership),
    ];
    for (number, kind) in kinds {
        assert_eq!(kind.number(), number);
        assert_eq!(Kind::from_number(number), Some(kind));
    }
    assert_eq!(Kind::from_number(0), None);
    assert_eq!(Kind::from_number(7), None);
}

#[test]
fn seal_check_blank_and_membership() {
    is(Command::Seal(SegmentId::new(43)), page().int(43));
    let check = Check {
        segment: SegmentId::new(43),
        last_lsn: Lsn::new(7),
        digest: Digest::from_bytes([1; 32]),
        chain: Chain::from_bytes([2; 32]),
    };
    is(
        Command::Check(check),
        page().int(43).int(7).raw(&[1; 32]).raw(&[2; 32]),
    );
    is(Command::Blank, page());
    let members = Members {
        voters: vec![vec![1, 2], vec![2, 3]],
        learners: vec![4],
    };
    is(
        Command::Membership(members),
        page()
            .int(2)
            .int(2)
            .int(1)
            .int(2)
            .int(2)
            .int(2)
            .int(3)
            .int(1)
            .int(4),
    );
}

#[test]
fn a_lineage_record_and_its_targets() {
    let record = |parent: Option<Parent>, ancestors, reason| LineageRecord {
        cluster: ClusterId::from_bytes([1; 16]),
        namespace: "users".parse().unwrap(),
        lineage: LineageId::from_bytes([2; 16]),
        parent,
        ancestors,
        first_segment: SegmentId::new(1),
        segment_size: 4096,
        members: vec![11, 12],
        reason,
    };
    let head = || page().raw(&[1; 16]).bytes(b"users").raw(&[2; 16]);
    let tail = |p: Page| p.int(1).int(4096).int(2).int(11).int(12);
    is(
        Command::Lineage(Box::new(record(None, vec![], LineageReason::Created))),
        tail(head().mark(0).int(0)).variant(0),
    );
    let parent = Parent {
        lineage: LineageId::from_bytes([3; 16]),
        fork: Lsn::new(500),
        term: Term::new(4),
        stamp: Stamp::from_micros(6),
        digest: Digest::from_bytes([7; 32]),
        segment: SegmentId::new(42),
        chain: Chain::from_bytes([8; 32]),
        chain_lsn: Lsn::new(450),
    };
    let ancestors = vec![Ancestor {
        lineage: LineageId::from_bytes([3; 16]),
        fork: Lsn::new(500),
    }];
    let targets = [
        (Target::Latest, page().variant(0)),
        (Target::Immediate, page().variant(1)),
        (Target::Lsn(Lsn::new(5)), page().variant(2).int(5)),
        (Target::BeforeLsn(Lsn::new(5)), page().variant(3).int(5)),
        (
            Target::Time(Stamp::from_micros(5)),
            page().variant(4).int(5),
        ),
        (
            Target::BeforeTime(Stamp::from_micros(5)),
            page().variant(5).int(5),
        ),
    ];
    for (target, bytes) in targets {
        let reason = LineageReason::Restored(target);
        let before = head()
            .mark(1)
            .raw(&[3; 16])
            .int(500)
            .int(4)
            .int(6)
            .raw(&[7; 32])
            .int(42)
            .raw(&[8; 32])
            .int(450)
            .int(1)
            .raw(&[3; 16])
            .int(500);
        is(
            Command::Lineage(Box::new(record(
                Some(parent.clone()),
                ancestors.clone(),
                reason,
            ))),
            tail(before).variant(1).raw(&bytes.0),
        );
    }
}

#[test]
fn writes_with_every_operation_and_condition() {
    let ops = vec![
        Op::KvPut {
            key: key("k"),
            value: Value::new("v"),
        },
        Op::KvDelete { key: key("k") },
        Op::RowPut {
            row: row("r"),
            columns: vec![(ColumnName::new("c").unwrap(), Value::new(""))],
        },
        Op::RowDelete { row: row("r") },
        Op::RowDeleteColumns {
            row: row("r"),
            columns: vec![ColumnName::new("c").unwrap()],
        },
        Op::LobDelete { key: key("k") },
    ];
    let conditions = vec![
        Condition::KvAbsent(key("k")),
        Condition::KvAt(key("k"), Lsn::new(3)),
        Condition::RowAbsent(row("r")),
        Condition::RowAt(row("r"), Lsn::new(3)),
        Condition::LobAbsent(key("k")),
        Condition::LobAt(key("k"), Lsn::new(3)),
    ];
    let bytes = page()
        .variant(0)
        .int(6)
        .variant(0)
        .bytes(b"k")
        .variant(1)
        .bytes(b"k")
        .int(3)
        .variant(2)
        .bytes(b"r")
        .variant(3)
        .bytes(b"r")
        .int(3)
        .variant(4)
        .bytes(b"k")
        .variant(5)
        .bytes(b"k")
        .int(3)
        .int(6)
        .variant(0)
        .bytes(b"k")
        .bytes(b"v")
        .variant(1)
        .bytes(b"k")
        .variant(2)
        .bytes(b"r")
        .int(1)
        .bytes(b"c")
        .bytes(b"")
        .variant(3)
        .bytes(b"r")
        .variant(4)
        .bytes(b"r")
        .int(1)
        .bytes(b"c")
        .variant(5)
        .bytes(b"k");
    user(Action::Write { conditions, ops }, bytes);
}

#[test]
fn transactions_and_an_idempotency_key() {
    let operations = [TxOperation::Put, TxOperation::Update, TxOperation::Delete];
    let types = [EntryType::Kv, EntryType::Row, EntryType::Lob];
    for (o, operation) in (0..).zip(operations) {
        for (t, entry_type) in (0..).zip(types) {
            let begin = Action::Begin {
                id: tx(),
                operation,
                entry_type,
            };
            user(begin, page().variant(1).raw(&[9; 16]).variant(o).variant(t));
        }
    }
    let stage = Action::Stage {
        id: tx(),
        ops: vec![],
    };
    user(stage, page().variant(2).raw(&[9; 16]).int(0));
    let chunk = Action::Chunk {
        id: tx(),
        key: key("k"),
        data: Value::new("abc"),
    };
    let bytes = page().variant(3).raw(&[9; 16]).bytes(b"k").bytes(b"abc");
    user(chunk, bytes);
    user(Action::Commit { id: tx() }, page().variant(4).raw(&[9; 16]));
    let reasons = [
        AbortReason::Client,
        AbortReason::Expired,
        AbortReason::Lineage,
    ];
    for (r, reason) in (0..).zip(reasons) {
        let abort = Action::Abort { id: tx(), reason };
        user(abort, page().variant(5).raw(&[9; 16]).variant(r));
    }
    let with_key = Command::User {
        idempotency: Some(Idempotency {
            key: IdempotencyKey::new("once").unwrap(),
            fingerprint: [5; 16],
        }),
        action: Action::Commit { id: tx() },
    };
    let bytes = page().mark(1).bytes(b"once").raw(&[5; 16]);
    is(with_key, bytes.variant(4).raw(&[9; 16]));
}
