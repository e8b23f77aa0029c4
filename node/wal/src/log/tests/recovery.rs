//! What a start makes of what it finds: torn tails, rot, gaps, strangers (D6, E-rows of the
//! acceptance list).

use proptest::prelude::*;

use super::*;
use crate::{CutBytes, SegmentError, SegmentHeader, Stop};

/// A log of several segments, all durable, none sealed; the disk and the records.
pub(super) fn several() -> (Machine, Vec<crate::Entry>) {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    let entries = all(&wal, 1);
    (machine.kill(), entries)
}

fn seal_first(wal: &Wal, count: usize) {
    for s in wal.unsealed_ended().into_iter().take(count) {
        wal.seal(s.id, digest(1)).unwrap();
    }
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let (machine, entries) = several();
    let last = entries.last().unwrap();
    let file = machine.file(&last.segment.file_name());
    for torn in last.start()..last.end {
        let torn = usize::try_from(torn).unwrap();
        machine.put(&last.segment.file_name(), &file[..torn]);
        let (wal, recovery) = machine.try_open(options(), 39).unwrap();
        assert_eq!(recovery.last, lsn(40));
        let nothing_left = torn as u64 == last.start();
        assert_eq!(recovery.cut.is_none(), nothing_left, "{torn}");
        fill(&wal, 1);
        assert_eq!(all(&wal, 1)[..40], entries[..40]);
    }
}

/// Found by the simulator, with three nodes: two had the next leader's short record in the segment that the
/// third had ended for a long one.
#[test]
fn which_segment_a_record_is_in_follows_from_the_records_though_one_between_was_lost() {
    let short = |machine: &Machine| {
        let wal = machine.open();
        wal.append(Term::new(2), time(9), &[user(2, 8), seal(1)])
            .unwrap();
        wal.sync().unwrap();
        assert_eq!(states(&wal)[1].0, 2);
        machine.file(&name(1))
    };
    let begun = || {
        let machine = Machine::begun();
        let wal = machine.open();
        wal.append(TERM, time(2), &[user(3, 100)]).unwrap();
        wal.sync().unwrap();
        (machine, wal)
    };
    let (never, _) = begun();
    let (machine, wal) = begun();
    wal.append(TERM, time(3), &[user(4, 5_000)]).unwrap();
    wal.sync().unwrap();
    let files = [machine.file(&name(1)), machine.file(&name(2))];
    // Its frame is torn, or the segment that was begun for it is all that there is.
    for torn in [300, HEADER_BYTES] {
        let machine = machine.kill();
        machine.put(&name(2), &files[1][..torn]);
        assert_eq!(machine.recover().last, lsn(2));
        assert_eq!(states(&machine.open()), [(1, SegmentState::Active)]);
        assert_eq!(short(&machine), short(&never.kill()), "cut at {torn}");
    }
    // What a `Seal` ended stays ended.
    let again = never.kill();
    short(&again);
    let there = states(&again.kill().open());
    let both = [(1, SegmentState::Rolled), (2, SegmentState::Active)];
    assert_eq!(there, both);
}

#[test]
fn a_torn_tail_with_zeroes_behind_it_is_cut_and_kept_aside_if_asked() {
    let (machine, entries) = several();
    let last = entries.last().unwrap();
    let name = last.segment.file_name();
    let mut file = machine.file(&name);
    let start = usize::try_from(last.start()).unwrap();
    file[start + 60] ^= 1;
    machine.put(&name, &file);
    let keep = crate::Options {
        cut_bytes: CutBytes::KeepAside,
        ..options()
    };
    let (_, recovery) = machine.try_open(keep, 0).unwrap();
    let cut = recovery.cut.unwrap();
    assert_eq!((cut.segment, cut.offset), (last.segment, last.start()));
    let kept = machine.file(cut.kept.unwrap().file_name().unwrap().to_str().unwrap());
    assert_eq!(kept.len() as u64, cut.lost_bytes);
    assert_eq!(kept, file[start..start + kept.len()]);
    assert!(machine.recover().cut.is_none(), "once");
    assert_eq!(machine.recover().strangers.len(), 1, "kept, and no segment");
}

#[test]
fn what_the_store_has_flushed_must_be_there() {
    let (machine, entries) = several();
    let last = entries.last().unwrap();
    let name = last.segment.file_name();
    let mut file = machine.file(&name);
    file[usize::try_from(last.end).unwrap() - 1] ^= 1;
    machine.put(&name, &file);
    let refused = machine.try_open(options(), 41);
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
    file.truncate(usize::try_from(last.start()).unwrap());
    machine.put(&name, &file);
    match machine.try_open(options(), 45) {
        Err(Error::Missing { from, to }) => assert_eq!((from, to), (lsn(41), lsn(45))),
        other => panic!("{other:?}"),
    }
    machine.try_open(options(), 40).unwrap();
}

#[test]
fn a_bad_byte_in_a_segment_that_is_not_the_last_is_damage_wherever_it_is() {
    let (machine, _) = several();
    let file = machine.file(&name(2));
    for at in (0..file.len()).step_by(7) {
        let mut bad = file.clone();
        bad[at] ^= 0x10;
        machine.put(&name(2), &bad);
        let refused = machine.try_open(options(), 0);
        assert!(
            matches!(&refused, Err(Error::Damaged { segment, .. }) if *segment == id(2)),
            "{at}: {refused:?}"
        );
    }
    for cut in (0..file.len()).step_by(101) {
        machine.put(&name(2), &file[..cut]);
        let refused = machine.try_open(options(), 0);
        assert!(
            matches!(refused, Err(Error::Damaged { .. } | Error::Missing { .. })),
            "{cut}: {refused:?}"
        );
    }
}

#[test]
fn a_missing_middle_segment_is_named() {
    let (machine, _) = several();
    machine.remove(&name(2));
    machine.remove(&name(3));
    match machine.try_open(options(), 0) {
        Err(Error::MissingSegments { from, to }) => assert_eq!((from, to), (id(2), id(3))),
        other => panic!("{other:?}"),
    }
    machine.remove(&name(1));
    let recovery = machine.recover();
    assert!(recovery.first > lsn(10), "the log may begin anywhere");
}

#[test]
fn a_segment_under_the_name_of_another_is_refused() {
    let (machine, _) = several();
    let file = machine.file(&name(2));
    machine.put(&name(3), &file);
    let refused = machine.try_open(options(), 0);
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[test]
fn a_segment_that_does_not_continue_the_one_before_is_refused() {
    let (machine, _) = several();
    let other = Machine::begun();
    let wal = other.open();
    for n in 2..60 {
        // Same positions and sizes, other bytes.
        wal.append(TERM, time(n), &[user(n + 1000, 300)]).unwrap();
    }
    wal.sync().unwrap();
    machine.put(&name(2), &other.file(&name(2)));
    let refused = machine.try_open(options(), 0);
    assert!(matches!(refused, Err(Error::Broken { .. })), "{refused:?}");
}

#[test]
fn a_header_that_names_another_past_is_refused() {
    let (machine, entries) = several();
    let last = entries.last().unwrap().segment.file_name();
    let bytes = machine.file(&last);
    let good = SegmentHeader::decode(&bytes).unwrap();
    let p = good.predecessor.unwrap();
    let with = |header: SegmentHeader| {
        let mut changed = bytes.clone();
        changed[..HEADER_BYTES].copy_from_slice(&header.encode());
        changed
    };
    let other_chain = crate::Predecessor {
        chain: unisondb_types::Chain::ZERO,
        ..p
    };
    for header in [
        SegmentHeader {
            predecessor: Some(other_chain),
            ..good.clone()
        },
        SegmentHeader {
            first_lsn: good.first_lsn.next(),
            ..good.clone()
        },
        SegmentHeader {
            crc_seed: 1,
            ..good.clone()
        },
    ] {
        machine.put(&last, &with(header));
        let refused = machine.try_open(options(), 0);
        let past = matches!(refused, Err(Error::Broken { .. } | Error::Missing { .. }));
        assert!(past, "{refused:?}");
    }
}

#[test]
fn segments_of_another_namespace_or_cluster_are_refused_by_name() {
    let (machine, _) = several();
    let bytes = machine.file(&name(1));
    let mut header = SegmentHeader::decode(&bytes).unwrap();
    header.namespace = "orders".parse().unwrap();
    let mut foreign = bytes.clone();
    foreign[..HEADER_BYTES].copy_from_slice(&header.encode());
    machine.put(&name(1), &foreign);
    match machine.try_open(options(), 0) {
        Err(Error::Foreign { path: p, found, .. }) => {
            assert_eq!(p, path(1));
            assert!(found.contains("orders"));
        }
        other => panic!("{other:?}"),
    }
    machine.put(&name(1), &bytes);
    let expecting = crate::Options {
        namespace: Some("orders".parse().unwrap()),
        ..options()
    };
    assert!(matches!(
        machine.try_open(expecting, 0),
        Err(Error::Foreign { .. })
    ));
}

#[test]
fn strangers_are_reported_and_left_alone_and_our_own_leftovers_go() {
    let (machine, _) = several();
    for stranger in ["000000001.wal.gz", "notes.tmp", "000000001.wal.sha256", "x"] {
        machine.put(stranger, b"?");
    }
    machine.put("000000004.wal.tmp", b"?");
    machine.put("next.tmp", b"?");
    machine.put("raft.state", b"?");
    let recovery = machine.recover();
    let names: Vec<_> = recovery.strangers.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        ["000000001.wal.gz", "000000001.wal.sha256", "notes.tmp", "x"]
    );
    let left = machine.names();
    assert!(names.iter().all(|n| left.iter().any(|l| l == n)));
    assert!(!left.contains(&"000000004.wal.tmp".to_owned()));
}

#[test]
fn an_empty_folder_holds_no_log() {
    let empty = Machine::new().try_open(options(), 0);
    assert!(matches!(empty, Err(Error::Empty { .. })));
}

#[test]
fn a_kind_of_a_later_release_stops_the_log_and_is_never_skipped() {
    let (machine, entries) = several();
    let last = entries.last().unwrap();
    let name = last.segment.file_name();
    let mut file = machine.file(&name);
    let start = usize::try_from(last.start()).unwrap();
    let end = usize::try_from(last.end).unwrap();
    file[start + 40] = 99;
    let seed = entries[entries.len() - 2].crc;
    let crc = crc32c::crc32c_append(seed, &file[start + 4..end]);
    file[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    machine.put(&name, &file);
    match machine.try_open(options(), 0) {
        Err(Error::Damaged {
            source: SegmentError::UnknownKind {
                lsn: at, number, ..
            },
            ..
        }) => assert_eq!((at, number), (last.record.lsn, 99)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_of_sealed_segments_only_takes_writes_at_once() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    seal_first(&wal, 3);
    let last = wal.segment(id(3)).unwrap().last_lsn.unwrap();
    let copied = Machine::new();
    for n in 2..=3 {
        copied.put(&name(n), &machine.file(&name(n)));
    }
    let (wal, recovery) = copied.try_open(options(), last.get()).unwrap();
    assert_eq!((recovery.last, wal.active().id), (last, id(4)));
    assert_eq!(copied.file(&name(3)), machine.file(&name(3)), "sealed");
    assert!(recovery.rewritten.is_empty());
    assert_eq!(wal.committed(), last);
    fill(&wal, 1);
    assert_eq!(copied.crash(1).recover().last, last.next());
}

#[test]
fn a_lost_footer_is_made_again_byte_for_byte_unless_a_later_one_is_there() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    seal_first(&wal, 2);
    let sealed = machine.file(&name(2));
    let machine = machine.kill();
    for torn in 1..=256 {
        let mut file = sealed.clone();
        let len = file.len();
        file[len - torn] ^= 0x20;
        machine.put(&name(2), &file);
        let wal = machine.open();
        assert_eq!(wal.unsealed_ended()[0].id, id(2));
        wal.commit(wal.last());
        wal.seal(id(2), digest(1)).unwrap();
        assert_eq!(machine.file(&name(2)), sealed);
    }
    let mut file = machine.file(&name(1));
    let len = file.len();
    file[len - 20] ^= 1;
    machine.put(&name(1), &file);
    match machine.try_open(options(), 0) {
        Err(Error::Damaged {
            segment,
            source: SegmentError::Footer { .. },
            ..
        }) => {
            assert_eq!(segment, id(1));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_survey_says_what_is_there_and_touches_nothing() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    seal_first(&wal, 1);
    machine.put("notes.txt", b"?");
    let mut bad = machine.file(&name(3));
    bad[300] ^= 1;
    machine.put(&name(3), &bad);
    let before = machine.disk.ops();
    let survey = crate::survey(on(&machine), &dir()).unwrap();
    assert_eq!(machine.disk.ops(), before);
    let states: Vec<_> = survey
        .segments
        .iter()
        .map(|s| s.found.as_ref().unwrap().state)
        .collect();
    use SegmentState::*;
    assert_eq!(states[..3], [Sealed, Rolled, Rolled]);
    assert_eq!(states.last(), Some(&Active));
    assert_eq!(
        survey.segments[0].found.as_ref().unwrap().chain,
        wal.segment(id(1)).unwrap().chain
    );
    assert_eq!(
        survey.segments[1].found.as_ref().unwrap().chain,
        wal.segment(id(2)).unwrap().chain
    );
    assert!(survey.segments[2].torn.is_some());
    assert!(survey.segments[3].torn.is_none());
    let strange: Vec<_> = survey.strangers.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(strange, ["next.tmp", "notes.txt"]);
}

#[test]
fn the_chain_in_the_middle_is_what_a_segment_that_ended_there_would_have() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 5);
    let (chain, crc) = {
        let state = wal.inner.state.lock();
        let tally = &state.active().tally;
        (tally.chain(), tally.last_crc)
    };
    fill(&wal, 30);
    let anchor = crate::chain_at(on(&machine), &path(1), lsn(6)).unwrap();
    assert_eq!((anchor.chain, anchor.crc, anchor.term), (chain, crc, TERM));
    let stamp = wal.read(lsn(6), 1).unwrap()[0].record.stamp;
    assert_eq!(anchor.stamp, stamp);
    for missing in [0, 30] {
        let none = crate::chain_at(on(&machine), &path(1), lsn(missing));
        assert!(matches!(none, Err(SegmentError::NoSuchRecord { .. })));
    }
}

#[test]
fn a_reader_of_a_stream_sees_what_a_reader_of_the_file_sees() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 40);
    seal_first(&wal, 1);
    let bytes = machine.file(&name(1));
    let boxed: Box<dyn std::io::Read> = Box::new(std::io::Cursor::new(bytes));
    let mut stream = crate::SegmentReader::stream(boxed).unwrap();
    let mut file = crate::SegmentReader::open(on(&machine), &path(1)).unwrap();
    loop {
        let (a, b) = (stream.next().unwrap(), file.next().unwrap());
        assert_eq!(a, b);
        if a.is_none() {
            break;
        }
    }
    assert_eq!(stream.stop(), Some(Stop::Footer));
    assert_eq!(stream.footer(), file.footer());
    assert_eq!(stream.info().digest, Some(digest(1)));
}

#[test]
fn a_flipped_byte_anywhere_in_a_sealed_segment_is_found() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 15);
    seal_first(&wal, 1);
    let good = machine.file(&name(1));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let read = crate::SegmentReader::stream(std::io::Cursor::new(bad));
        let found = read.and_then(crate::verify_stream);
        assert!(
            found.as_ref().is_err() || found.unwrap().info.state != SegmentState::Sealed,
            "byte {at}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_bytes_are_read_as_a_segment_without_a_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        recrc: bool,
    ) {
        thread_local! {
            static SEALED: Vec<u8> = {
                let machine = Machine::begun();
                let wal = machine.open();
                fill(&wal, 15);
                seal_first(&wal, 1);
                machine.file(&name(1))
            };
        }
        let mut bytes = SEALED.with(Clone::clone);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if recrc {
            // As somebody would who means harm: the header's CRC is right.
            let crc = crc32c::crc32c(&bytes[..252]);
            bytes[252..256].copy_from_slice(&crc.to_le_bytes());
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        bytes.extend(noise);
        let machine = Machine::new();
        machine.put(&name(1), &bytes);
        if let Ok(mut reader) = crate::SegmentReader::open(on(&machine), &path(1)) {
            let end = reader.run_out();
            if end.is_err() {
                prop_assert!(reader.run_out().is_err(), "asked again, the same");
            }
        }
        drop(crate::verify(on(&machine), &path(1)));
        drop(crate::survey(on(&machine), &dir()).unwrap());
        drop(machine.try_open(options(), 0));
    }
}
