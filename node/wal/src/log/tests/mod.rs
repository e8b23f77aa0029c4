//! The life of a log: append, sync, roll, seal, read, truncate, purge; and what happens when the
//! disk does not do its part.
#![allow(clippy::unwrap_used)]

mod crash;
mod faults;
mod follow;
mod lineages;
mod model;
mod recovery;
mod resync;

use unisondb_platform::FileExt;
use unisondb_types::{Kind, Lsn, Term};

use crate::testing::*;
use crate::{Error, FRAME_HEADER_BYTES, HEADER_BYTES, SegmentState, Wal};

const TERM: Term = Term::new(1);

fn states(wal: &Wal) -> Vec<(u64, SegmentState)> {
    let segments = wal.segments();
    segments.iter().map(|s| (s.id.get(), s.state)).collect()
}

#[test]
fn what_is_appended_is_read_at_once_and_durable_after_a_sync() {
    let machine = Machine::begun();
    let wal = machine.open();
    let told = wal.subscribe();
    assert_eq!((wal.last(), wal.durable()), (lsn(1), lsn(1)));
    let entries = wal.append(TERM, time(5), &[user(2, 10), blank()]).unwrap();
    assert_eq!(entries[0].record.lsn, lsn(2));
    assert_eq!(
        entries[1].record.stamp,
        entries[0].record.stamp.plus_micros(1)
    );
    assert_eq!(wal.read(lsn(2), 1000).unwrap(), entries);
    assert_eq!((wal.last(), wal.durable()), (lsn(3), lsn(1)));
    assert_eq!(wal.sync().unwrap(), lsn(3));
    assert_eq!(told.borrow().durable, lsn(3));
    assert_eq!(machine.crash(1).open().read(lsn(2), 1000).unwrap(), entries);
}

#[test]
fn stamps_rise_though_the_clock_goes_back() {
    let wal = Machine::begun().open();
    let a = wal.append(TERM, time(100), &[blank()]).unwrap();
    let b = wal.append(TERM, time(50), &[blank()]).unwrap();
    assert_eq!(b[0].record.stamp, a[0].record.stamp.plus_micros(1));
}

#[test]
fn a_frame_says_what_was_committed_when_it_was_made() {
    let wal = Machine::begun().open();
    let a = wal.append(TERM, time(1), &[blank()]).unwrap();
    assert_eq!(a[0].record.committed, Lsn::ZERO);
    wal.commit(lsn(9));
    assert_eq!(wal.committed(), lsn(2), "never past the last record");
    wal.commit(lsn(1));
    let b = wal.append(TERM, time(1), &[blank()]).unwrap();
    assert_eq!(b[0].record.committed, lsn(2), "and never back");
}

#[test]
fn a_term_never_falls_and_a_payload_has_a_limit() {
    let wal = Machine::begun().open();
    wal.append(Term::new(3), time(1), &[blank()]).unwrap();
    let fell = wal.append(Term::new(2), time(1), &[blank()]);
    assert!(matches!(fell, Err(Error::TermFell { .. })));
    let limit = unisondb_types::limits::FRAME_PAYLOAD_BYTES;
    let long = wal.append(Term::new(3), time(1), &[blank(), user(1, limit + 1)]);
    assert!(matches!(long, Err(Error::TooLong { .. })));
    assert_eq!(wal.last(), lsn(2), "all of them, or none");
    wal.append(Term::new(3), time(1), &[user(1, limit)])
        .unwrap();
    assert_eq!(wal.sync().unwrap(), lsn(3));
}

#[test]
fn a_segment_rolls_when_the_next_frame_would_pass_its_size_and_one_frame_always_fits() {
    let machine = Machine::begun();
    let wal = machine.open();
    let have = wal.active().bytes;
    let exactly = usize::try_from(SEGMENT_SIZE - have).unwrap() - FRAME_HEADER_BYTES;
    wal.append(TERM, time(1), &[user(2, exactly)]).unwrap();
    assert_eq!(wal.active().id, id(1), "it fits to the byte");
    assert_eq!(wal.active().bytes, SEGMENT_SIZE);
    wal.append(TERM, time(1), &[user(3, 5000)]).unwrap();
    wal.append(TERM, time(1), &[user(4, 8)]).unwrap();
    wal.sync().unwrap();
    let sizes: Vec<u64> = wal.segments().iter().map(|s| s.bytes).collect();
    assert_eq!(sizes, [4096, 256 + 44 + 5000, 256 + 44 + 8]);
    assert_eq!(
        machine.file(&name(2)).len(),
        256 + 44 + 5000,
        "cut to length"
    );
    assert_eq!(wal.unsealed_ended().len(), 2);
}

#[test]
fn a_seal_record_ends_the_active_segment_only_if_it_names_it_and_it_holds_user_data() {
    let wal = Machine::begun().open();
    wal.append(TERM, time(1), &[seal(1)]).unwrap();
    assert_eq!(wal.active().id, id(1), "no user data yet");
    wal.append(TERM, time(1), &[user(1, 8), seal(2)]).unwrap();
    assert_eq!(wal.active().id, id(1), "it names another");
    let bad = (Kind::Seal, bytes::Bytes::from_static(b"?"));
    wal.append(TERM, time(1), &[bad]).unwrap();
    assert_eq!(wal.active().id, id(1), "it names nothing");
    wal.append(TERM, time(1), &[seal(1), seal(1), blank()])
        .unwrap();
    let active = wal.active();
    assert_eq!(
        (active.id, active.records),
        (id(2), 2),
        "the second is ordinary"
    );
}

#[test]
fn the_same_log_has_the_same_files_whoever_writes_it_and_however_it_is_synced() {
    let files = |every: u64, options: crate::Options| {
        let machine = Machine::begun();
        let wal = machine.try_open(options, 0).unwrap().0;
        for n in 2..60 {
            let command = if n % 17 == 0 {
                seal(wal.active().id.get())
            } else {
                user(n, usize::try_from(n * 37 % 500).unwrap())
            };
            wal.append(TERM, time(n), &[command]).unwrap();
            if n % every == 0 {
                wal.reserve(600).unwrap();
                wal.sync().unwrap();
            }
        }
        wal.sync().unwrap();
        wal.commit(wal.last());
        for s in wal.unsealed_ended() {
            wal.seal(s.id, digest(1)).unwrap();
        }
        let sealed = wal.segments().into_iter().filter(|s| s.digest.is_some());
        let files: Vec<_> = sealed.map(|s| machine.file(&s.id.file_name())).collect();
        assert!(files.len() > 4);
        files
    };
    let other = crate::Options {
        zero_ahead: 0,
        memory: 1 << 20,
        ..options()
    };
    assert_eq!(files(1, options()), files(100, other));
    // Another node's setting, where what was begun decides.
    let set_otherwise = crate::Options {
        segment_size: 64 << 20,
        keep_segment_size: true,
        ..options()
    };
    assert_eq!(files(1, options()), files(3, set_otherwise));
}

#[test]
fn any_held_record_is_read_whether_it_is_in_memory_or_not() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    for from in 1..=41 {
        let some = wal.read(lsn(from), 1).unwrap();
        assert_eq!((some.len(), some[0].record.lsn), (1, lsn(from)));
    }
    let entries = all(&wal, 1);
    assert_eq!(entries.len(), 41);
    for (e, n) in entries.iter().zip(1..) {
        assert_eq!(e.record.lsn, lsn(n));
        assert_eq!(wal.segment_of(lsn(n)), Some(e.segment));
        let file = machine.file(&e.segment.file_name());
        let payload = &file[..usize::try_from(e.end).unwrap()];
        assert!(payload.ends_with(&e.record.payload), "end is where it ends");
    }
    assert!(wal.read(lsn(42), 1).unwrap().is_empty());
    assert!(matches!(wal.read(lsn(43), 1), Err(Error::Missing { .. })));
    assert!(matches!(wal.read(lsn(0), 1), Err(Error::Missing { .. })));
    assert_eq!(wal.segment_of(lsn(42)), None);
}

#[test]
fn sealing_is_in_order_for_committed_segments_and_idempotent() {
    let machine = Machine::begun();
    let wal = machine.open();
    for n in 2..40 {
        wal.append(TERM, time(n), &[user(n, 300)]).unwrap();
    }
    let early = wal.seal(id(1), digest(1));
    assert!(
        matches!(early, Err(Error::NotReady { .. })),
        "not committed"
    );
    wal.commit(wal.last());
    let active = wal.active().id;
    assert!(matches!(
        wal.seal(active, digest(1)),
        Err(Error::NotReady { .. })
    ));
    assert!(matches!(
        wal.seal(id(2), digest(1)),
        Err(Error::NotReady { .. })
    ));
    assert!(matches!(
        wal.seal(id(99), digest(1)),
        Err(Error::NoSegment(_))
    ));
    let info = wal.seal(id(1), digest(1)).unwrap();
    assert_eq!(info.state, SegmentState::Sealed);
    assert_eq!(wal.seal(id(1), digest(1)).unwrap(), info);
    assert!(matches!(
        wal.seal(id(1), digest(2)),
        Err(Error::NotReady { .. })
    ));
    assert_eq!(info.bytes, machine.file(&name(1)).len() as u64);
    assert!(
        wal.durable() >= info.last_lsn.unwrap(),
        "synced before its footer"
    );
    let verified = crate::verify(on(&machine), &path(1)).unwrap();
    assert_eq!(verified.info, info, "what was counted is what is there");
    assert_eq!(
        wal.segment(id(2))
            .unwrap()
            .header
            .predecessor
            .unwrap()
            .chain,
        info.chain.unwrap()
    );
    // After a restart the same is known, the SHA-256 of the file once it is asked for.
    let wal = machine.kill().open();
    assert_eq!(wal.segment(id(1)).unwrap().sha256, None);
    assert_eq!(wal.sha256(id(1)).unwrap(), info.sha256.unwrap());
    let vouched = wal.segment(id(1)).unwrap().vouched;
    assert_eq!(
        wal.segment(id(1)).unwrap(),
        crate::SegmentInfo { vouched, ..info }
    );
}

#[test]
fn purge_takes_sealed_segments_oldest_first_and_stops_at_holds_and_at_the_newest() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 60);
    for s in wal.unsealed_ended().into_iter().take(4) {
        wal.seal(s.id, digest(1)).unwrap();
    }
    let hold = wal.hold("backup", id(2));
    assert_eq!(wal.holds(), [("backup".to_owned(), id(2))]);
    assert_eq!(wal.purge(id(99)).unwrap(), [id(1)]);
    assert_eq!(wal.purge(id(99)).unwrap(), []);
    drop(hold);
    assert_eq!(wal.purge(id(2)).unwrap(), [id(2)]);
    assert_eq!(wal.purge(id(99)).unwrap(), [id(3)]);
    assert!(!exists(&machine, &path(3)) && exists(&machine, &path(4)));
    assert_eq!(wal.first(), wal.segment(id(4)).unwrap().first_lsn());
    assert!(matches!(wal.read(lsn(3), 1), Err(Error::Missing { .. })));
    assert!(matches!(wal.open_sealed(id(1)), Err(Error::NoSegment(_))));
    let again = machine.crash(3).recover();
    assert_eq!(again.first, wal.first());
}

#[test]
fn truncation_takes_the_uncommitted_tail_and_makes_its_segment_active_again() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 5);
    let before = wal.segments();
    let first_of_two = wal.last().next();
    for n in 7..40 {
        wal.append(TERM, time(n), &[user(n, 300)]).unwrap();
    }
    wal.sync().unwrap();
    assert!(wal.segments().len() > 3);
    assert!(matches!(
        wal.truncate_after(lsn(5)),
        Err(Error::BelowCommitted { .. })
    ));
    wal.truncate_after(first_of_two.prev()).unwrap();
    assert_eq!(wal.segments(), before);
    assert_eq!((wal.last(), wal.durable()), (lsn(6), lsn(6)));
    for seed in 0..5 {
        assert_eq!(machine.crash(seed).recover().last, lsn(6), "gone for good");
    }
}

#[test]
fn truncation_to_a_seal_record_leaves_the_segment_ended() {
    let machine = Machine::begun();
    let wal = machine.open();
    let appended = wal
        .append(
            TERM,
            time(1),
            &[user(2, 8), seal(1), user(4, 8), user(5, 8)],
        )
        .unwrap();
    wal.sync().unwrap();
    wal.truncate_after(lsn(3)).unwrap();
    assert_eq!(
        states(&wal),
        [(1, SegmentState::Rolled), (2, SegmentState::Active)]
    );
    assert_eq!(wal.active().last_lsn, None);
    let again = wal
        .append(TERM, appended[2].record.stamp, &[user(4, 8)])
        .unwrap();
    assert_eq!(again[0], appended[2], "the same record has the same bytes");
    wal.sync().unwrap();
    wal.truncate_after(lsn(2)).unwrap();
    assert_eq!(states(&wal), [(1, SegmentState::Active)]);
    assert!(!exists(&machine, &path(2)));
    fill(&wal, 30);
    let entries = all(&wal, 1);
    assert_eq!(all(&machine.crash(0).open(), 1), entries);
}

#[test]
fn what_was_read_ahead_is_not_believed_after_a_truncation() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 30);
    for n in 0..10 {
        wal.append(TERM, time(100 + n), &[user(n, 300)]).unwrap();
    }
    wal.sync().unwrap();
    let _ = all(&wal, 1);
    wal.truncate_after(lsn(31)).unwrap();
    fill(&wal, 30);
    let entries = all(&wal, 1);
    assert!(
        entries[31..]
            .iter()
            .all(|e| e.record.payload[..8] == e.record.lsn.get().to_le_bytes())
    );
}

#[test]
fn the_active_file_is_zeroed_ahead_by_a_bounded_amount_and_never_far_past_its_size() {
    let machine = Machine::begun();
    let wal = machine.open();
    let largest = HEADER_BYTES + FRAME_HEADER_BYTES + 600;
    for n in 2..200 {
        wal.reserve(344).unwrap();
        wal.append(TERM, time(n), &[user(n, 300)]).unwrap();
        wal.sync().unwrap();
        let active = wal.active();
        let file = machine.file(&active.id.file_name()).len();
        assert!(file as u64 <= SEGMENT_SIZE, "{file}");
        assert!(machine.names().len() <= wal.segments().len() + 1);
    }
    wal.reserve(600).unwrap();
    assert!(machine.file("next.tmp").len() >= largest);
    // Little is written at a time into a large segment: a small step ahead, and no more.
    let machine = Machine::begun();
    let large = crate::Options {
        segment_size: 64 << 20,
        zero_ahead: 64 << 10,
        ..options()
    };
    let wal = machine.try_open(large.clone(), 0).unwrap().0;
    fill(&wal, 15);
    let wal2 = machine.kill().try_open(large, 0).unwrap().0;
    drop(wal);
    for n in 0..500 {
        wal2.append(TERM, time(n), &[user(n, 300)]).unwrap();
        wal2.sync().unwrap();
        let active = wal2.active();
        let room = wal2.inner.state.lock().active().room;
        assert!(
            room <= active.bytes.max(SEGMENT_SIZE) + (64 << 10),
            "{room}"
        );
        assert!(room >= active.bytes);
    }
    assert!(wal2.active().header.segment_size > SEGMENT_SIZE);
}

#[test]
fn many_threads_append_sync_and_read_on_a_real_disk() {
    use unisondb_platform::{OffloadExt, real};
    let folder = tempfile::tempdir().unwrap();
    let platform = real::platform();
    let dir = folder.path();
    crate::begin(&platform, dir, &created(), TERM, time(0)).unwrap();
    let (wal, _) = Wal::open(&platform, dir, options(), Lsn::ZERO).unwrap();
    let offload = platform.offload.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let syncer = wal.clone();
        let syncing = offload.blocking(move || {
            while syncer.durable() < lsn(2001) {
                let durable = syncer.sync().unwrap();
                syncer.commit(durable);
                for s in syncer.unsealed_ended() {
                    if s.last_lsn.unwrap() <= durable {
                        syncer.seal(s.id, digest(0)).unwrap();
                    }
                }
            }
        });
        let reader = wal.clone();
        let reading = offload.blocking(move || {
            let mut next = lsn(1);
            while next <= lsn(2001) {
                for e in reader.read(next, 5000).unwrap() {
                    assert_eq!(e.record.lsn, next);
                    next = next.next();
                }
            }
        });
        let mut appending = Vec::new();
        for _ in 0..4 {
            let wal = wal.clone();
            appending.push(offload.blocking(move || {
                for n in 0..500 {
                    wal.reserve(400).unwrap();
                    wal.append(TERM, time(n), &[user(n, 100)]).unwrap();
                }
            }));
        }
        for a in appending {
            a.await;
        }
        syncing.await;
        reading.await;
    });
    let entries = all(&wal, 1);
    for s in wal.segments().iter().filter(|s| s.digest.is_some()) {
        let sealed = wal.open_sealed(s.id).unwrap();
        let copied = crate::copy_verified(&sealed, &mut |_: &[u8]| Ok::<(), ()>(())).unwrap();
        assert_eq!(copied.unwrap().sha256, wal.sha256(s.id).unwrap());
    }
    drop(wal);
    let (again, _) = Wal::open(&platform, dir, options(), lsn(2001)).unwrap();
    assert_eq!(all(&again, 1), entries);
}

#[test]
fn a_sealed_file_is_read_as_a_whole() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 20);
    let info = wal.seal(id(1), digest(1)).unwrap();
    let sealed = wal.open_sealed(id(1)).unwrap();
    let mut copy = Vec::new();
    let copied = crate::copy_verified(&sealed, &mut |b: &[u8]| {
        copy.extend_from_slice(b);
        Ok::<(), ()>(())
    });
    let copied = copied.unwrap().unwrap();
    assert_eq!(copy, machine.file(&name(1)));
    assert_eq!((copied.info, copied.bytes), (info.clone(), info.bytes));
    assert!(matches!(
        wal.open_sealed(id(2)),
        Err(Error::NotReady { .. })
    ));
    let full = crate::copy_verified(&sealed, &mut |_: &[u8]| Err("full"));
    assert_eq!(full.unwrap(), Err("full"));
    let mut byte = [0];
    sealed.file.read_exact_at(&mut byte, 700).unwrap();
    machine.disk.flip(&path(1), 700, 1).unwrap();
    let bad = crate::copy_verified(&sealed, &mut |_: &[u8]| Ok::<(), ()>(()));
    assert!(matches!(bad, Err(Error::Damaged { .. })));
    assert!(matches!(wal.scrub(id(1)), Err(Error::Damaged { .. })));
}

#[test]
fn a_reader_kept_while_a_segment_ended_reads_on_when_its_frames_are_written() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 8);
    let active = wal.active().id;
    // The segment ends with frames that are not in its file yet.
    while wal.active().id == active {
        let n = wal.last().get() + 1;
        wal.append(TERM, time(n), &[user(n, 300)]).unwrap();
    }
    // This reader is kept, and has read ahead to the end of what is written.
    let from = wal.segment(active).unwrap().header.first_lsn.next();
    assert_eq!(wal.read(from, 1).unwrap().len(), 1);
    // Written at last, and enough behind it to push it all out of memory.
    fill(&wal, 12);
    let read = all(&wal, from.get() + 1);
    assert_eq!(read.last().unwrap().record.lsn, wal.last());
}
