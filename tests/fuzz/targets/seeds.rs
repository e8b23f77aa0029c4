//! Writes `seeds/`: small valid inputs for each target, taken from a namespace that lived a little.
//! Run again when a layout changes: `cargo run --bin seeds` in this folder.

use std::fs;
use std::path::Path;

use unisondb_api::WriteError;
use unisondb_api::peer::ask::PROTOCOL;
use unisondb_api::peer::{Ask, Asked, GroupId, Told, envelope};
use unisondb_engine::start::{self, Folders, Opened, Request};
use unisondb_platform::DiskExt;
use unisondb_platform::memory;
use unisondb_types::{
    Action, ClusterId, Command, EntryType, Idempotency, IdempotencyKey, Key, LineageId, Op,
    Outcome, RowKey, SegmentId, TxId, TxOperation, Value, codec,
};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds");

fn main() {
    // A first byte of 0 leaves the bytes as they are.
    for (name, bytes) in live() {
        match name {
            "segment" => {
                seed("segment", "sealed", &prefixed(0, &bytes));
                seed("sources", "segment", &prefixed(0, &bytes));
                seed("sources", "segment-gz", &prefixed(1 + (1 << 2), &bytes));
                seed("start", "segment", &prefixed(4, &bytes));
            }
            "snapshot" => {
                seed("image", "snapshot", &bytes);
                seed(
                    "trailer",
                    "snapshot",
                    &prefixed(0, &bytes[bytes.len() - 4096..]),
                );
                seed("sources", "snapshot", &prefixed(2 + (2 << 2), &bytes));
            }
            "raft.state" => {
                seed("raft_state", "vote", &prefixed(0, &bytes));
                seed("start", "vote", &prefixed(3, &bytes));
            }
            "ids" => seed("start", "ids", &prefixed(0, &bytes)),
            record => seed("record", record, &bytes),
        }
    }
    let restoring = format!(
        r#"{{"target":{{"lsn":7}},"lineage":"{}","first_segment":2000000,"stamp":"2025-01-08T14:30:00.000000Z","raft_id":17}}"#,
        "ab".repeat(16)
    );
    seed("start", "restoring", &prefixed(131, restoring.as_bytes()));
    seed(
        "start",
        "recovery",
        b"\x02target_time = \"2025-01-08T14:30:00Z\"\nexclusive = true\n",
    );
    for (name, text) in [
        ("stamp", "2025-01-08T15:30:00.000001+01:00"),
        ("namespace", "users-1"),
        ("segment", "000000043.wal"),
        ("id", "000102030405060708090a0b0c0d0e0f"),
    ] {
        seed("words", name, text.as_bytes());
    }
    for (name, text) in [
        ("path", "\0/api/v1/users/kv/a%2Fb%00"),
        ("query", "\0prefix=a%20b&limit=10&reverse=true&columns=a,b"),
        ("put", "\0{\"value\":\"aGVsbG8=\"}"),
        (
            "batch",
            "\0{\"operation\":\"put\",\"items\":[{\"key\":\"a\",\"value\":\"aGVsbG8=\"}]}",
        ),
        ("row", "\0{\"columns\":{\"a\":\"MQ==\",\"b\":\"Mg==\"}}"),
        (
            "backup",
            "\0{\"afterSegmentId\":42,\"backupDir\":\"wal/daily\",\"seal\":true}",
        ),
        ("begin", "\0{\"operation\":\"put\",\"entryType\":\"kv\"}"),
    ] {
        seed("request", name, text.as_bytes());
    }
    let group = || GroupId {
        namespace: "users".parse().expect("a name"),
        lineage: LineageId::from_bytes([7; 16]),
    };
    for (name, ask) in [
        ("who", Ask::Who),
        (
            "raft",
            Ask::Raft {
                group: group(),
                to: 9,
            },
        ),
        ("write", Ask::Write(group())),
        ("create", Ask::Create("users".parse().expect("a name"))),
    ] {
        let asked = Asked {
            protocol: PROTOCOL,
            cluster: Some(ClusterId::from_bytes([1; 16])),
            ask,
        };
        // Without the checksum, which the target makes.
        seed("peer", name, &envelope::encode(&asked, |_| ())[4..]);
    }
    let told = Told::Not(WriteError::Unknown("lost".to_owned()));
    seed("peer", "told", &envelope::encode(&told, |_| ())[4..]);
}

fn prefixed(first: u8, bytes: &[u8]) -> Vec<u8> {
    [&[first], bytes].concat()
}

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(SEEDS).join(target);
    fs::create_dir_all(&folder).expect("this folder can be written");
    fs::write(folder.join(name), bytes).expect("this folder can be written");
}

fn live() -> Vec<(&'static str, Vec<u8>)> {
    let (platform, disk, _) = memory::platform(1);
    let home = Path::new("/data/users");
    let folders = Folders {
        namespace: Some("users".parse().expect("a namespace")),
        home: home.to_owned(),
        backups: Path::new("/data/backups/users").to_owned(),
    };
    let request = Request {
        segment_size: 4 << 10,
        map_size: 16 << 20,
        create: Some(ClusterId::from_bytes([9; 16])),
        ..Request::default()
    };
    let Opened {
        engine,
        mut applier,
        vote,
        ..
    } = start::open(&platform, &folders, &request).expect("an empty folder");
    let term = vote.state().term;
    let mut made = Vec::new();
    for (name, command) in commands() {
        let (kind, payload) = (command.kind(), command.payload());
        let number = u8::try_from(kind.number()).expect("a handful of kinds");
        made.push((name, prefixed(number, &payload)));
        let wal = engine.wal();
        let now = platform.clock.now();
        let mut entries = wal
            .append(term, now, &[(kind, payload)])
            .expect("a sound disk");
        wal.commit(wal.sync().expect("a sound disk"));
        applier.apply(&entries.remove(0)).expect("a record");
    }
    let check = Command::Check(engine.unconfirmed_checks()[0]);
    let wal = engine.wal();
    let checked = [(check.kind(), check.payload())];
    made.push(("check", prefixed(4, &checked[0].1)));
    let mut entries = wal
        .append(term, platform.clock.now(), &checked)
        .expect("a sound disk");
    wal.commit(wal.sync().expect("a sound disk"));
    applier.apply(&entries.remove(0)).expect("a record");
    let begun = wal
        .read(unisondb_types::Lsn::FIRST, 1)
        .expect("a record")
        .remove(0);
    made.push(("lineage", prefixed(1, &begun.record.payload)));
    let outcome = Outcome::Committed {
        checksum: Some(7),
        processed: 3,
    };
    made.push(("outcome", prefixed(0, &codec::encode(&outcome))));
    engine
        .backup_snapshot("base.db", engine.applied())
        .expect("a sound disk");
    for (name, path) in [
        ("segment", home.join("wal/000000001.wal")),
        ("raft.state", home.join("wal/raft.state")),
        ("ids", home.join("ids")),
        ("snapshot", folders.backups.join("base.db")),
    ] {
        made.push((name, disk.read(&path, 1 << 20).expect("a file")));
    }
    made
}

fn commands() -> Vec<(&'static str, Command)> {
    let key = |text: &str| Key::new(text.as_bytes().to_vec()).expect("a key");
    let value = |text: &str| Value::new(text.as_bytes().to_vec());
    let user = |action| Command::User {
        idempotency: None,
        action,
    };
    let row = RowKey::new("row").expect("a row key");
    let column = unisondb_types::ColumnName::new("column").expect("a name");
    let id = TxId::from_bytes([1; 16]);
    let ops = vec![
        Op::KvPut {
            key: key("a"),
            value: value("1"),
        },
        Op::RowPut {
            row,
            columns: vec![(column, value("2"))],
        },
        Op::KvDelete { key: key("b") },
    ];
    let idempotency = Idempotency {
        key: IdempotencyKey::new("again").expect("a key"),
        fingerprint: [5; 16],
    };
    let write = Action::Write {
        conditions: vec![unisondb_types::Condition::KvAbsent(key("a"))],
        ops,
    };
    let begin = Action::Begin {
        id,
        operation: TxOperation::Put,
        entry_type: EntryType::Lob,
    };
    let chunk = Action::Chunk {
        id,
        key: key("object"),
        data: value("some bytes"),
    };
    vec![
        (
            "write",
            Command::User {
                idempotency: Some(idempotency),
                action: write,
            },
        ),
        ("begin", user(begin)),
        ("chunk", user(chunk)),
        ("commit", user(Action::Commit { id })),
        ("seal", Command::Seal(SegmentId::FIRST)),
    ]
}
