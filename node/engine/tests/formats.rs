//! The state as it lies in a snapshot, byte for byte: every kind of entry is made through the
//! engine, taken out of a snapshot, and compared with bytes that are put together here by hand, as
//! `docs/formats/state.md` says. The digest is a constant: a release that changes it cannot read
//! what the one before wrote.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

mod rig;
mod scenario;

use std::collections::BTreeMap;
use std::path::Path;

use rig::Rig;
use scenario::Node;
use unisondb_engine::start;
use unisondb_platform::DiskExt;
use unisondb_platform::memory::{self, MemoryDisk, Operation};
use unisondb_store::image::Image;
use unisondb_store::trailer::TRAILER_BYTES;
use unisondb_types::{
    Action, ColumnName, Command, Digest, EntryHash, EntryType, Idempotency, IdempotencyKey, Key,
    Lsn, Op, RowKey, SegmentId, Target, TxId, TxOperation, Value, codec,
};

/// The tables whose entries count in the digest.
const IN_DIGEST: [u8; 7] = [1, 2, 3, 5, 6, 7, 9];

/// The digest after the records below. It may never change.
const DIGEST: &str = "2e559dd46ee622c0a122190d959c767eb94774a281158bac21672a89bb09e857";

const T1: TxId = TxId::from_bytes([0x11; 16]);
const T2: TxId = TxId::from_bytes([0x22; 16]);
const T3: TxId = TxId::from_bytes([0x33; 16]);
const T4: TxId = TxId::from_bytes([0x44; 16]);

fn key(text: &str) -> Key {
    Key::new(text.as_bytes().to_vec()).unwrap()
}

fn value(text: &str) -> Value {
    Value::new(text.as_bytes().to_vec())
}

fn write(ops: Vec<Op>) -> Action {
    Action::Write {
        conditions: Vec::new(),
        ops,
    }
}

/// One record a line: its LSN is two more than its place here, LSN 1 begins the lineage.
fn records() -> Vec<Command> {
    let user = |action| Command::User {
        idempotency: None,
        action,
    };
    let begin = |id, entry_type| {
        user(Action::Begin {
            id,
            operation: TxOperation::Put,
            entry_type,
        })
    };
    let chunk = |id, name: &str, data: &str| {
        user(Action::Chunk {
            id,
            key: key(name),
            data: value(data),
        })
    };
    let column = |name: &str| ColumnName::new(name.as_bytes().to_vec()).unwrap();
    let row = RowKey::new("row").unwrap();
    let columns = vec![(column("a"), value("1")), (column("bb"), value("22"))];
    let retry = IdempotencyKey::new("retry").unwrap();
    vec![
        user(write(vec![
            Op::KvPut {
                key: key("k"),
                value: value("v"),
            },
            Op::RowPut { row, columns },
        ])),
        Command::User {
            idempotency: Some(Idempotency {
                key: retry,
                fingerprint: [5; 16],
            }),
            action: write(vec![Op::KvPut {
                key: key("i"),
                value: value(""),
            }]),
        },
        begin(T1, EntryType::Lob),
        chunk(T1, "object", "hello "),
        chunk(T1, "object", "world"),
        user(Action::Commit { id: T1 }),
        begin(T2, EntryType::Kv),
        user(Action::Stage {
            id: T2,
            ops: vec![Op::KvPut {
                key: key("s"),
                value: value("x"),
            }],
        }),
        begin(T3, EntryType::Lob),
        chunk(T3, "other", "part"),
        begin(T4, EntryType::Lob),
        chunk(T4, "object", "new"),
        user(Action::Commit { id: T4 }),
        Command::Seal(SegmentId::FIRST),
    ]
}

fn u32le(n: u32) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

fn u64le(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

fn text(t: &str) -> Vec<u8> {
    [u64le(t.len() as u64), t.as_bytes().to_vec()].concat()
}

/// Object id, length, chunks, running hash, CRC-32C.
fn manifest(id: TxId, chunks: &[&str]) -> Vec<u8> {
    let mut hash = [0u8; 32];
    for chunk in chunks {
        hash = *blake3::hash(&[&hash[..], chunk.as_bytes()].concat()).as_bytes();
    }
    let whole = chunks.concat();
    [
        id.as_bytes().to_vec(),
        u64le(whole.len() as u64),
        u64le(chunks.len() as u64),
        hash.to_vec(),
        u32le(crc32c::crc32c(whole.as_bytes())),
    ]
    .concat()
}

/// Key → LSN and payload of each entry.
fn expected(rig: &Rig, owner: Vec<u8>) -> BTreeMap<Vec<u8>, (u64, Vec<u8>)> {
    let wal = rig.engine.wal();
    let last = &wal.read(Lsn::new(16), 1).unwrap()[0];
    let sealed = wal.segment(SegmentId::FIRST).unwrap();
    let chain = sealed.chain.unwrap().as_bytes().to_vec();
    let digest = rig
        .engine
        .digest(None)
        .unwrap()
        .unwrap()
        .1
        .as_bytes()
        .to_vec();
    let lineage = rig.engine.lineage().as_bytes().to_vec();
    let begun = wal.read(Lsn::FIRST, 1).unwrap()[0].record.clone();
    // The clock stands still: each record is stamped 1 µs after the one before.
    let stamp = |lsn: u64| u64le(begun.stamp.micros() + lsn - 1);
    let stamp_in_key = |lsn: u64| (begun.stamp.micros() + lsn - 1).to_be_bytes();
    let id = |id: TxId| id.as_bytes().to_vec();
    let named = |table: u8, parts: &[&[u8]]| [vec![table], parts.concat()].concat();

    let position = [
        1u16.to_le_bytes().to_vec(),
        text("users"),
        rig::CLUSTER.as_bytes().to_vec(),
        lineage.clone(),
        u64le(16),
        u64le(1),
        stamp(16),
        u32le(last.crc),
        u64le(2),
        u64le(last.end),
        vec![0],
        digest.clone(),
        chain.clone(),
        u64le(15),
        u64le(2),
        u64le(1),
    ]
    .concat();
    let raft_id = rig.engine.history().members[0];
    // LSN, term; one set of one voter; no learner.
    let members = [1, 1, 1, 1, raft_id, 0].map(u64le);
    let staged = [
        u64le(1),
        u32le(0),
        u64le(1),
        b"s".to_vec(),
        u64le(1),
        b"x".to_vec(),
    ]
    .concat();
    let kv_transaction = [
        u32le(0),
        u32le(0),
        stamp(8),
        stamp(9),
        u64le(1),
        u64le(staged.len() as u64),
        vec![0],
    ];
    let lob_transaction = [
        u32le(0),
        u32le(2),
        stamp(10),
        stamp(11),
        u64le(0),
        u64le(0),
        vec![1],
        text("other"),
        manifest(T3, &["part"]),
    ];
    let answer = [vec![5; 16], stamp(3), u64le(3), u32le(0), u32le(1)];
    let segment = [
        lineage,
        u64le(1),
        u64le(15),
        stamp(15),
        digest,
        chain,
        vec![1],
    ];

    BTreeMap::from([
        (named(0, &[b"position"]), (16, position)),
        (named(0, &[b"lineage"]), (16, begun.payload.to_vec())),
        (named(0, &[b"members"]), (1, members.concat())),
        (named(0, &[b"owner"]), (0, owner)),
        (named(1, &[b"k"]), (2, b"v".to_vec())),
        (named(1, &[b"i"]), (3, Vec::new())),
        (
            named(2, &[&[0, 3], b"row"]),
            (2, [u32le(2), u64le(6)].concat()),
        ),
        (named(2, &[&[0, 3], b"row", b"a"]), (2, b"1".to_vec())),
        (named(2, &[&[0, 3], b"row", b"bb"]), (2, b"22".to_vec())),
        (named(3, &[b"object"]), (14, manifest(T4, &["new"]))),
        (named(4, &[&id(T1), &[0; 8]]), (5, b"hello ".to_vec())),
        (
            named(4, &[&id(T1), &6u64.to_be_bytes()]),
            (6, b"world".to_vec()),
        ),
        (named(4, &[&id(T3), &[0; 8]]), (11, b"part".to_vec())),
        (named(4, &[&id(T4), &[0; 8]]), (13, b"new".to_vec())),
        (named(5, &[&id(T2)]), (9, kv_transaction.concat())),
        (named(5, &[&id(T3)]), (11, lob_transaction.concat())),
        (named(6, &[&id(T2), &9u64.to_be_bytes()]), (9, staged)),
        (named(7, &[&id(T1)]), (7, [u32le(0), stamp(7)].concat())),
        (named(7, &[&id(T4)]), (14, [u32le(0), stamp(14)].concat())),
        (named(8, &[&stamp_in_key(7), &id(T1)]), (7, Vec::new())),
        (named(8, &[&stamp_in_key(14), &id(T4)]), (14, Vec::new())),
        (named(9, &[b"retry"]), (3, answer.concat())),
        (named(10, &[&stamp_in_key(3), b"retry"]), (3, Vec::new())),
        (named(11, &[&id(T1)]), (14, Vec::new())),
        (named(12, &[&1u64.to_be_bytes()]), (16, segment.concat())),
    ])
}

#[test]
fn every_entry_has_the_bytes_that_the_documentation_says() {
    let home = rig::home(Path::new("/data"));
    let (platform, disk, _) = memory::platform(1);
    let mut rig = Rig::open(&platform, &home).unwrap();
    for (n, command) in records().into_iter().enumerate() {
        let (lsn, _) = rig.propose(&command).unwrap();
        assert_eq!(lsn, Lsn::new(n as u64 + 2));
    }
    assert_eq!(
        rig.engine.applied(),
        Lsn::new(16),
        "the seal was followed by its check"
    );
    let mut snapshot = Vec::new();
    let mut sink = |block: &[u8]| {
        snapshot.extend_from_slice(block);
        Ok(())
    };
    rig.engine.snapshot_to(Lsn::new(16), &mut sink).unwrap();
    let owner = disk.read(&home.join("db/owner"), 100).unwrap();

    let expected = expected(&rig, owner);
    let image = Image::open(&snapshot[..snapshot.len() - TRAILER_BYTES]).unwrap();
    let mut found = BTreeMap::new();
    let mut digest = Digest::EMPTY;
    for item in image.iter() {
        let item = item.unwrap();
        let (hash, rest) = item.value.split_at(32);
        let (lsn, payload) = rest.split_at(8);
        let lsn = u64::from_le_bytes(lsn.try_into().unwrap());
        // BLAKE3 over table, length of the name, name, LSN, payload.
        let name = &item.key[1..];
        let length = u32le(name.len().try_into().unwrap());
        let parts = [&item.key[..1], &length, name, &u64le(lsn), payload].concat();
        assert_eq!(
            hash,
            blake3::hash(&parts).as_bytes(),
            "{}",
            item.key.escape_ascii()
        );
        if IN_DIGEST.contains(&item.key[0]) {
            digest.add(&EntryHash::from_bytes(hash.try_into().unwrap()));
        }
        found.insert(item.key.to_vec(), (lsn, payload.to_vec()));
    }
    for (key, entry) in &expected {
        let name = key.escape_ascii();
        let found = found
            .get(key)
            .unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(found, entry, "{name}");
    }
    assert_eq!(
        found.len(),
        expected.len(),
        "no other entry: {:?}",
        found.keys()
    );
    assert_eq!(rig.engine.digest(None).unwrap().unwrap().1, digest);
    assert_eq!(digest.to_string(), DIGEST);
}

#[test]
fn outcomes_keep_their_numbers() {
    use unisondb_types::Outcome;
    let numbered = [
        (0, Outcome::Written { processed: 7 }, u32le(7)),
        (1, Outcome::ConditionFailed { found: None }, vec![0]),
        (
            1,
            Outcome::ConditionFailed {
                found: Some(Lsn::new(3)),
            },
            [vec![1], u64le(3)].concat(),
        ),
        (2, Outcome::Begun(T1), T1.as_bytes().to_vec()),
        (3, Outcome::Staged, Vec::new()),
        (
            4,
            Outcome::Committed {
                checksum: Some(9),
                processed: 2,
            },
            [vec![1], u32le(9), u32le(2)].concat(),
        ),
        (5, Outcome::Aborted, Vec::new()),
        (6, Outcome::TxUnknown, Vec::new()),
        (7, Outcome::TxFinished { committed: true }, vec![1]),
        (8, Outcome::TxExpired, Vec::new()),
        (
            9,
            Outcome::TxMisfit {
                reason: "no".to_owned(),
            },
            text("no"),
        ),
        (10, Outcome::KeyReused, Vec::new()),
        (
            11,
            Outcome::TxTooLarge {
                reason: "much".to_owned(),
            },
            text("much"),
        ),
    ];
    for (number, outcome, fields) in numbered {
        let bytes = [u32le(number), fields].concat();
        assert_eq!(codec::encode(&outcome), bytes, "{outcome:?}");
        assert_eq!(codec::decode::<Outcome>(&bytes).unwrap(), outcome);
    }
}

/// A line and its checksum in the next.
fn summed(line: &str) -> String {
    format!("{line}\ncrc32c {:08x}\n", crc32c::crc32c(line.as_bytes()))
}

#[test]
fn the_small_files_are_as_the_documentation_says() {
    let home = scenario::home();
    let text = |disk: &MemoryDisk, name: &str| {
        String::from_utf8(disk.read(&home.join(name), 10_000).unwrap()).unwrap()
    };
    let lived = scenario::fresh_disk();
    let mut node = Node::on(&lived, &rig::request());
    node.run(&scenario::life()).unwrap();
    assert_eq!(text(&lived, "ids"), summed("unisondb-ids-1 999999"));
    assert_eq!(lived.read(&home.join("db/owner"), 100).unwrap().len(), 16);
    let status = text(&lived, "backup-status.json");
    assert!(
        status.ends_with("}\n") && status.lines().count() == 1,
        "{status}"
    );
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    for kind in ["wal", "btree"] {
        for field in ["lastSuccessMicros", "lastBytes"] {
            assert!(status[kind][field].as_u64() > Some(0), "{status}");
        }
        assert_eq!(status[kind]["consecutiveFailures"], 0, "{status}");
    }

    // What a restore that has just begun has written down.
    scenario::put_snapshot_in_place(&lived);
    let target = node.told.snapshot.unwrap().next();
    let request = start::Request {
        target: Some(Target::Lsn(target)),
        ..rig::request()
    };
    let whole = lived.kill();
    Node::on(&whole, &request).start().unwrap();
    let named = |op: &&Operation| op.to.as_deref() == Some(&home.join("restoring"));
    let published = whole.log().iter().find(named).unwrap().number;
    assert!(
        !whole.exists(&home.join("restoring")).unwrap(),
        "removed when it is done"
    );
    let begun = lived.kill();
    begun.freeze_at(published + 1);
    assert!(Node::on(&begun, &request).start().is_err());
    let restoring = text(&begun.kill(), "restoring");
    let line = restoring.lines().next().unwrap();
    assert_eq!(restoring, summed(line));
    let fields: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(fields["target"], serde_json::json!({ "lsn": target.get() }));
    assert_eq!(fields["first_segment"], 1_000_000);
    assert_eq!(fields["stamp"], "2025-01-01T00:00:00.000000Z");
    assert_eq!(fields["lineage"].as_str().unwrap().len(), 32);
    assert!(fields["raft_id"].as_u64() > Some(0));
    assert_eq!(fields["base"][0].as_str().unwrap().len(), 32);
    assert_eq!(fields["base"][1], node.told.snapshot.unwrap().get());
    assert_eq!(fields["without_log"], false);
    assert_eq!(fields.as_object().unwrap().len(), 7, "{line}");
}
