//! Frames that go from one log to another: the other has the same files, or takes nothing.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::{Frame, FrameError};

/// The frames of `wal` behind `after`, as they travel.
fn shipped(wal: &Wal, after: Lsn) -> Bytes {
    let mut out = BytesMut::new();
    for entry in all(wal, after.get() + 1) {
        entry.put_frame(&mut out);
    }
    out.freeze()
}

fn frames(mut bytes: Bytes) -> Vec<Frame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        frames.push(Frame::split_from(&mut bytes).unwrap());
    }
    frames
}

/// Every file of the log but the room kept ahead, its zeroes at the end left out.
fn files(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let names = machine.names().into_iter().filter(|n| n != "next.tmp");
    let content = |name: &String| {
        let mut bytes = machine.file(name);
        bytes.truncate(bytes.len() - bytes.iter().rev().take_while(|b| **b == 0).count());
        bytes
    };
    names.map(|name| (name.clone(), content(&name))).collect()
}

#[derive(Debug, Clone)]
enum Act {
    /// The leader appends.
    Append(Vec<usize>),
    Seal,
    Sync,
    /// The follower is sent so many frames of what it lacks.
    Ship(usize),
    /// So much of what the follower has is committed.
    Commit,
    /// Another leader, who never had the last ones that are not committed.
    Elect(u8),
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => proptest::collection::vec(0usize..700, 1..6).prop_map(Act::Append),
        1 => Just(Act::Seal),
        2 => Just(Act::Sync),
        4 => (1usize..9).prop_map(Act::Ship),
        2 => Just(Act::Commit),
        1 => any::<u8>().prop_map(Act::Elect),
        1 => Just(Act::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn a_follower_has_the_files_of_its_leader(acts in proptest::collection::vec(act(), 1..60)) {
        let (leads, mut follows) = (Machine::begun(), Machine::begun());
        let leader = leads.open();
        let mut follower = follows.open();
        let mut term = TERM;
        for (n, act) in (1..).zip(acts) {
            match act {
                Act::Append(lens) => {
                    let commands: Vec<_> = lens.iter().map(|l| user(n, *l)).collect();
                    leader.append(term, time(n), &commands).unwrap();
                }
                Act::Seal => {
                    let command = seal(leader.active().id.get());
                    leader.append(term, time(n), &[command]).unwrap();
                }
                Act::Sync => { leader.sync().unwrap(); }
                Act::Ship(count) => {
                    let mut some = frames(shipped(&leader, follower.last()));
                    some.truncate(count);
                    let entries = follower.append_frames(&some).unwrap();
                    prop_assert_eq!(entries.len(), some.len());
                    if n % 2 == 0 {
                        follower.sync().unwrap();
                    }
                }
                Act::Commit => {
                    let committed = follower.durable().min(leader.last());
                    leader.commit(committed);
                    follower.commit(committed);
                }
                Act::Elect(back) => {
                    let kept = Lsn::new(leader.last().get().saturating_sub(u64::from(back) % 8));
                    let kept = kept.max(leader.committed()).max(lsn(1));
                    leader.truncate_after(kept).unwrap();
                    follower.truncate_after(kept).unwrap();
                    term = term.next();
                    leader.append(term, time(n), &[blank()]).unwrap();
                }
                Act::Crash => {
                    follows = follows.crash(n);
                    follower = follows.open();
                }
            }
            let tail = follower.last().get().saturating_sub(9) + 1;
            let theirs = all(&follower, tail);
            prop_assert_eq!(&theirs[..], &all(&leader, tail)[..theirs.len()]);
        }
        follower.append_frames(&frames(shipped(&leader, follower.last()))).unwrap();
        for wal in [&leader, &follower] {
            wal.sync().unwrap();
            wal.commit(wal.last());
            for s in wal.unsealed_ended() {
                wal.seal(s.id, digest(1)).unwrap();
            }
        }
        prop_assert_eq!(files(&leads), files(&follows));
        for s in leader.segments() {
            prop_assert_eq!(leader.sha256(s.id).ok(), follower.sha256(s.id).ok());
        }
    }
}

#[test]
fn frames_that_do_not_follow_are_refused_and_nothing_is_taken() {
    let (leader, follower) = (Machine::begun().open(), Machine::begun().open());
    leader
        .append(TERM, time(1), &[user(2, 40), user(3, 40), user(4, 40)])
        .unwrap();
    let good = frames(shipped(&leader, lsn(1)));
    let refused = |frames: &[Frame]| {
        let answer = follower.append_frames(frames);
        assert!(matches!(answer, Err(Error::NotNext { .. })), "{answer:?}");
        assert_eq!(follower.last(), lsn(1), "all of them, or none");
    };
    refused(&good[1..]);
    refused(&[good[0].clone(), good[2].clone()]);
    refused(&[good[0].clone(), good[0].clone()]);
    refused(&[good[0].clone(), good[1].clone(), good[1].clone()]);
    let bytes = good[1].bytes();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        match Frame::split_from(&mut Bytes::from(bad)) {
            Ok(bad) => refused(&[good[0].clone(), bad]),
            Err(why) => assert!(
                matches!(
                    why,
                    FrameError::Incomplete { .. }
                        | FrameError::TooLong { .. }
                        | FrameError::UnknownKind(_)
                ),
                "bit {bit}: {why}"
            ),
        }
    }
    follower.append_frames(&good).unwrap();
    assert_eq!(all(&follower, 1), all(&leader, 1));
}

/// What a leader that lies might send: the CRC is good, the rest is not.
#[test]
fn a_good_crc_alone_lets_no_frame_in() {
    let follower = Machine::begun().open();
    let first = follower
        .append(Term::new(5), time(9), &[user(2, 8)])
        .unwrap();
    let last = &first[0];
    let frame = |change: &dyn Fn(&mut unisondb_types::Record)| {
        let mut record = last.record.clone();
        record.lsn = record.lsn.next();
        change(&mut record);
        let mut out = BytesMut::new();
        crate::frame::encode(&record, last.crc, &mut out);
        Frame::split_from(&mut out.freeze()).unwrap()
    };
    let lies: [&dyn Fn(&mut unisondb_types::Record); 4] = [
        &|r| r.lsn = r.lsn.next(),
        &|r| r.term = Term::new(4),
        &|r| r.stamp = time(8),
        &|r| r.committed = r.lsn,
    ];
    for lie in lies {
        let answer = follower.append_frames(&[frame(lie)]);
        let Err(Error::NotNext { after, why }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(after, last.record.lsn);
        assert!(matches!(why, FrameError::Order(_)), "{why}");
    }
    follower.append_frames(&[frame(&|_| ())]).unwrap();
}

#[test]
fn an_order_holds_across_a_roll_too() {
    let follower = Machine::begun().open();
    let sealed = follower
        .append(Term::new(5), time(9), &[user(2, 8), seal(1)])
        .unwrap();
    assert_eq!(follower.active().records, 0, "it rolled");
    let mut record = sealed[1].record.clone();
    record.lsn = record.lsn.next();
    record.term = Term::new(4);
    let mut out = BytesMut::new();
    crate::frame::encode(&record, sealed[1].crc, &mut out);
    let frame = Frame::split_from(&mut out.freeze()).unwrap();
    let answer = follower.append_frames(&[frame]);
    assert!(matches!(answer, Err(Error::NotNext { .. })), "{answer:?}");
}
