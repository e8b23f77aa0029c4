//! The log against a list: whatever is done to it, it is what was appended and not truncated.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Append(Vec<usize>),
    Seal,
    Sync,
    Commit,
    Truncate(u8),
    Reopen,
    Footer,
    Reserve,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => proptest::collection::vec(0usize..700, 1..6).prop_map(Act::Append),
        1 => Just(Act::Seal),
        3 => Just(Act::Sync),
        1 => Just(Act::Commit),
        1 => any::<u8>().prop_map(Act::Truncate),
        1 => Just(Act::Reopen),
        1 => Just(Act::Footer),
        1 => Just(Act::Reserve),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn the_log_is_what_was_appended_and_not_truncated(acts in proptest::collection::vec(act(), 1..40)) {
        let mut machine = Machine::begun();
        let mut wal = machine.open();
        let mut model = wal.read(lsn(1), 1).unwrap();
        let mut n = 0;
        for act in acts {
            match act {
                Act::Append(lens) => {
                    n += 1;
                    let commands: Vec<_> = lens.iter().map(|l| user(n, *l)).collect();
                    model.extend(wal.append(TERM, time(n), &commands).unwrap());
                }
                Act::Seal => {
                    let command = seal(wal.active().id.get());
                    model.extend(wal.append(TERM, time(n), &[command]).unwrap());
                }
                Act::Sync => { wal.sync().unwrap(); }
                Act::Commit => wal.commit(wal.durable()),
                Act::Truncate(back) => {
                    let to = Lsn::new(wal.last().get().saturating_sub(u64::from(back) % 12)).max(lsn(1));
                    match wal.truncate_after(to) {
                        Ok(()) => model.truncate(usize::try_from(to.get()).unwrap()),
                        Err(Error::BelowCommitted { .. }) => prop_assert!(to < wal.committed()),
                        Err(e) => panic!("{e}"),
                    }
                }
                Act::Reopen => {
                    wal.sync().unwrap();
                    machine = machine.crash(n);
                    wal = machine.open();
                }
                Act::Footer => {
                    if let Some(s) = wal.unsealed_ended().first()
                        && s.last_lsn.unwrap() <= wal.committed() {
                        wal.seal(s.id, digest(3)).unwrap();
                    }
                }
                Act::Reserve => wal.reserve(500).unwrap(),
            }
            prop_assert_eq!(wal.last().get(), model.len() as u64);
            let tail = model.len().saturating_sub(9);
            prop_assert_eq!(&all(&wal, tail as u64 + 1)[..], &model[tail..]);
        }
        prop_assert_eq!(all(&wal, 1), model);
        wal.sync().unwrap();
        for s in wal.segments() {
            let found = crate::verify(on(&machine), &path(s.id.get())).unwrap().info;
            prop_assert_eq!((found.last_lsn, found.records, found.last_crc), (s.last_lsn, s.records, s.last_crc));
            prop_assert_eq!(found.user_data, s.user_data);
        }
    }
}
