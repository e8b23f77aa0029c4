//! What stands behind a bad frame, and what of it proves that more was there (D6).

use super::recovery::several;
use super::*;

#[test]
fn damage_that_a_later_frame_vouches_beyond_is_refused_not_cut() {
    let (machine, entries) = several();
    let live = entries.last().unwrap().segment;
    let in_last: Vec<_> = entries.iter().filter(|e| e.segment == live).collect();
    assert!(in_last.len() > 5);
    let file = machine.file(&live.file_name());
    // One frame behind the damage is enough: it vouches for the damaged one.
    for e in &in_last[..in_last.len() - 1] {
        let header = e.start()..e.start() + crate::FRAME_HEADER_BYTES as u64;
        for (at, bit) in header
            .chain([e.end - 1])
            .flat_map(|at| (0..8).map(move |b| (at, b)))
        {
            let mut bad = file.clone();
            bad[usize::try_from(at).unwrap()] ^= 1 << bit;
            machine.put(&live.file_name(), &bad);
            match machine.try_open(options(), 0) {
                Err(Error::Damaged {
                    segment, source, ..
                }) => {
                    assert_eq!((segment, source.offset()), (live, Some(e.start())));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(machine.file(&live.file_name()), bad, "nothing was touched");
        }
    }
}

/// Header after header, each pair one frame without payload and one that claims as much as a frame takes.
fn like_headers(bytes: usize) -> Vec<u8> {
    let header = |lsn: u64, payload: u32| {
        let mut h = vec![0x77; 4];
        h.extend(payload.to_le_bytes());
        for field in [lsn, 1, 1, 0] {
            h.extend(field.to_le_bytes());
        }
        h.extend([2, 0, 0, 0]);
        h
    };
    let longest = u32::try_from(unisondb_types::limits::FRAME_PAYLOAD_BYTES).unwrap();
    let pair = [header(10, 0), header(11, longest)].concat();
    pair.into_iter().cycle().take(bytes).collect()
}

#[test]
fn what_looks_like_frames_in_a_damaged_one_does_not_hide_those_behind_it() {
    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 1);
    let trap = (unisondb_types::Kind::User, like_headers(600).into());
    wal.append(Term::new(1), time(wal.last().get() + 1), &[trap])
        .unwrap();
    wal.commit(wal.sync().unwrap());
    fill(&wal, 3);
    let entries = all(&wal, 1);
    let machine = machine.kill();
    let trap = &entries[entries.len() - 4];
    let name = trap.segment.file_name();
    let mut bad = machine.file(&name);
    bad[usize::try_from(trap.start()).unwrap() + 10] ^= 1;
    machine.put(&name, &bad);
    match machine.try_open(options(), 0) {
        Err(Error::Damaged { source, .. }) => assert_eq!(source.offset(), Some(trap.start())),
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.file(&name), bad, "nothing was touched");
}

#[test]
fn real_frames_of_another_log_in_a_torn_value_vouch_for_nothing_here() {
    let other = Machine::begun();
    let wal = other.open();
    for _ in 0..20 {
        let n = wal.last().get() + 1;
        wal.append(Term::new(1), time(n), &[user(n, 60)]).unwrap();
        wal.commit(wal.sync().unwrap());
    }
    let entries = all(&wal, 1);
    let (first, second) = (&entries[entries.len() - 2], &entries[entries.len() - 1]);
    let file = other.file(&second.segment.file_name());
    let at = |n: u64| usize::try_from(n).unwrap();
    let copied = file[at(first.start())..at(second.end)].to_vec();

    let machine = Machine::begun();
    let wal = machine.open();
    fill(&wal, 2);
    let value = (unisondb_types::Kind::User, copied.into());
    wal.append(Term::new(1), time(wal.last().get() + 1), &[value])
        .unwrap();
    wal.sync().unwrap();
    let entries = all(&wal, 1);
    let machine = machine.kill();
    let torn = entries.last().unwrap();
    let name = torn.segment.file_name();
    let mut bad = machine.file(&name);
    bad[at(torn.start())..at(torn.start()) + 20].fill(0);
    machine.put(&name, &bad);
    let (_, recovery) = machine.try_open(options(), 0).unwrap();
    assert_eq!(recovery.cut.unwrap().offset, torn.start());
}

#[test]
fn a_frame_that_ends_with_zeroes_vouches_too() {
    for zeroes in [1, 4, 200] {
        let machine = Machine::begun();
        let wal = machine.open();
        fill(&wal, 3);
        let mut payload = vec![7; 50];
        payload.resize(50 + zeroes, 0);
        let last = (unisondb_types::Kind::User, payload.into());
        wal.append(Term::new(1), time(wal.last().get() + 1), &[last])
            .unwrap();
        wal.commit(wal.sync().unwrap());
        let entries = all(&wal, 1);
        let machine = machine.kill();
        // Of two behind the damage the last one vouches for the damaged one.
        let damaged = &entries[entries.len() - 3];
        let name = damaged.segment.file_name();
        let mut bad = machine.file(&name);
        bad[usize::try_from(damaged.start()).unwrap()] ^= 1;
        machine.put(&name, &bad);
        match machine.try_open(options(), 0) {
            Err(Error::Damaged { source, .. }) => {
                assert_eq!(source.offset(), Some(damaged.start()));
            }
            other => panic!("{zeroes}: {other:?}"),
        }
    }
}

#[test]
fn a_lost_sector_of_zeroes_is_damage_too_when_something_stands_behind_it() {
    let (machine, entries) = several();
    let live = entries.last().unwrap().segment;
    let e = entries.iter().find(|e| e.segment == live).unwrap();
    let mut file = machine.file(&live.file_name());
    let (start, end) = (
        usize::try_from(e.start()).unwrap(),
        usize::try_from(e.end).unwrap(),
    );
    file[start..end].fill(0);
    machine.put(&live.file_name(), &file);
    let refused = machine.try_open(options(), 0);
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}
