//! What openraft takes for granted of a log.
#![allow(clippy::unwrap_used)]
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures_util::poll;
use unisondb_engine::start::{self, Folders, Request};
use unisondb_platform::memory;
use unisondb_types::{Action, ClusterId, Command, Digest, Key, Op, Value};

use super::*;
use crate::office::AcceptClock;

/// A log that nobody syncs but the test.
fn store() -> (LogStore, mpsc::UnboundedReceiver<Waiting>) {
    store_that(Durability::Always)
}

fn store_that(durability: Durability) -> (LogStore, mpsc::UnboundedReceiver<Waiting>) {
    let (platform, _, _) = memory::platform(1);
    let folders = Folders {
        namespace: Some("users".parse().unwrap()),
        home: PathBuf::from("/data/users"),
        backups: PathBuf::from("/backups/users"),
    };
    let request = Request {
        map_size: 16 << 20,
        create: Some(ClusterId::from_bytes([7; 16])),
        ..Request::default()
    };
    let opened = start::open(&platform, &folders, &request).unwrap();
    let (appended, to_sync) = mpsc::unbounded_channel();
    let wal = opened.engine.wal().clone();
    let (_, last) = wal.last_term_and_stamp();
    let reader = LogReader::new(Shared {
        platform,
        wal,
        standing: Arc::new(Standing::new("users".parse().unwrap())),
        durability,
        committed: AtomicU64::new(0),
        vote: Arc::new(Mutex::new(opened.vote)),
        office: Mutex::new(Office::new(last, Duration::ZERO, AcceptClock::Within7Days)),
        stood: None,
        floor: Mutex::new(None),
    });
    (LogStore::new(reader, appended), to_sync)
}

fn vote(term: u64) -> Vote {
    let leader_id = openraft::impls::leader_id_std::LeaderId { term, voted_for: 1 };
    Vote {
        leader_id,
        committed: false,
    }
}

/// openraft takes what was appended before a vote for durable as soon as the vote is (P1).
#[tokio::test]
async fn a_vote_is_written_after_all_before_it_is_durable_and_not_at_all_if_that_fails() {
    let (mut store, mut to_sync) = store();
    let shared = store.reader.0.clone();
    let written = || shared.vote.lock().state().term;
    let before = written();
    {
        let vote = vote(8);
        let mut saving = pin!(store.save_vote(&vote));
        assert!(poll!(&mut saving).is_pending());
        assert_eq!(written(), before, "the log may not be durable yet");
        let Some(Waiting::Vote(durable)) = to_sync.recv().await else {
            panic!("it asks");
        };
        durable.send(()).unwrap();
        saving.await.unwrap();
        assert_eq!(written(), Term::new(8));
    }
    let vote = vote(9);
    let mut saving = pin!(store.save_vote(&vote));
    assert!(poll!(&mut saving).is_pending());
    drop(to_sync.recv().await);
    assert!(saving.await.is_err());
    assert_eq!(written(), Term::new(8));
}

#[tokio::test]
async fn records_that_were_purged_when_a_follower_is_to_have_them_are_no_failure_of_the_log() {
    let (store, _to_sync) = store();
    let mut reader = store.reader.clone();
    let wal = reader.shared().wal.clone();
    let write = |bytes| Command::User {
        idempotency: None,
        action: Action::Write {
            conditions: Vec::new(),
            ops: vec![Op::KvPut {
                key: Key::new(&b"k"[..]).unwrap(),
                value: Value::new(vec![0; bytes]),
            }],
        },
    };
    let append = |commands: &[Command]| {
        let commands: Vec<_> = commands.iter().map(|c| (c.kind(), c.payload())).collect();
        wal.append(Term::new(1), Stamp::from_micros(1), &commands)
            .unwrap();
        wal.commit(wal.sync().unwrap());
    };
    let oldest = wal.first();
    for _ in 0..2 {
        let active = wal.active().id;
        append(&[write(1), Command::Seal(active)]);
        wal.seal(active, Digest::EMPTY).unwrap();
    }
    while wal.read_memory(oldest, 1).is_some() {
        append(&[write(1 << 20)]);
    }
    let first = types::index(wal.first());
    assert!(
        !reader
            .limited_get_log_entries(first, first + 1)
            .await
            .unwrap()
            .is_empty()
    );
    let gone = wal.purge(wal.active().id).unwrap();
    assert_eq!(gone.len(), 1);
    assert!(
        reader
            .limited_get_log_entries(first, first + 1)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn what_is_committed_is_known_before_it_is_durable_here_but_with_an_interval_it_is_not() {
    let interval = Durability::Interval(Duration::from_secs(1));
    for durability in [Durability::Always, interval] {
        let (mut store, _to_sync) = store_that(durability);
        let wal = store.shared().wal.clone();
        let blank = Command::Blank;
        let blank = [(blank.kind(), blank.payload())];
        wal.append(Term::new(1), Stamp::from_micros(1), &blank)
            .unwrap();
        let (durable, last) = (wal.durable(), wal.last());
        assert!(durable < last);
        let id = types::log_id(last, Term::new(1));
        store.save_committed(id).await.unwrap();
        // A segment is sealed once its last record is committed, on a member whose disk is slow too.
        let wanted = match durability {
            Durability::Always => last,
            Durability::Interval(_) => durable,
        };
        assert_eq!(wal.committed(), wanted, "{durability:?}");
        wal.sync().unwrap();
        store.shared().vouch();
        assert_eq!(wal.committed(), last);
    }
}
