//! Backups of a real namespace in a real folder, checked: every damage is named, nothing is touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use unisondb_engine::start::{self, Folders, Opened};
use unisondb_platform::real;
use unisondb_types::{Action, ClusterId, Command, Key, Lsn, Namespace, Op, SegmentId, Value};

use super::judge::{End, Verdict};
use super::{Checked, check, folder::Folder};

const MAX: u64 = 64 << 20;

/// A namespace `users` with a few segments and two snapshots, backed up below `data/backups/users`.
fn backups(data: &Path) -> PathBuf {
    backups_of("users", data)
}

fn backups_of(name: &str, data: &Path) -> PathBuf {
    let folders = Folders {
        namespace: name.parse().ok(),
        home: data.join(name),
        backups: data.join("backups").join(name),
    };
    std::fs::create_dir_all(&folders.home).unwrap();
    std::fs::create_dir_all(&folders.backups).unwrap();
    let request = start::Request {
        segment_size: 4 << 10,
        map_size: 16 << 20,
        create: Some(ClusterId::from_bytes([7; 16])),
        ..start::Request::default()
    };
    let platform = real::platform();
    let Opened {
        engine,
        mut applier,
        vote,
        ..
    } = start::open(&platform, &folders, &request).unwrap();
    let term = vote.state().term;
    let mut commit = |command: &Command| {
        let mut waiting = vec![(command.kind(), command.payload())];
        while !waiting.is_empty() {
            let wal = engine.wal().clone();
            let entries = wal.append(term, platform.clock.now(), &waiting).unwrap();
            wal.commit(wal.sync().unwrap());
            for entry in entries {
                applier.apply(&entry).unwrap();
            }
            let checks = engine.unconfirmed_checks().into_iter();
            let checks = checks.map(Command::Check);
            waiting = checks.map(|c| (c.kind(), c.payload())).collect();
        }
    };
    for round in 0..3 {
        for n in 0..30 {
            let op = Op::KvPut {
                key: Key::new(Bytes::from(format!("key-{}", n % 10))).unwrap(),
                value: Value::new(Bytes::from(format!("{round}-{n:>300}"))),
            };
            commit(&Command::User {
                idempotency: None,
                action: Action::Write {
                    conditions: vec![],
                    ops: vec![op],
                },
            });
        }
        commit(&Command::Seal(engine.wal().active().id));
        // The last round is in the log alone.
        if round < 2 {
            let path = format!("snapshots/{round}.db");
            engine.backup_snapshot(&path, engine.applied()).unwrap();
        }
    }
    engine.backup_wal(SegmentId::ZERO, "wal/all").unwrap();
    engine.shut_down().unwrap();
    drop(applier);
    folders.backups
}

fn bytes_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = unisondb_engine::restore::walk::files(real::platform().disk.as_ref(), dir).unwrap();
    let read = paths.into_iter();
    read.map(|p| (p.clone(), std::fs::read(p).unwrap()))
        .collect()
}

fn users() -> Namespace {
    "users".parse().unwrap()
}

fn check_below(dir: &Path, seeds: u64) -> Checked {
    let folder = Folder::read(real::platform().disk.as_ref(), dir, MAX).unwrap();
    assert_eq!(
        folder.namespaces().into_iter().collect::<Vec<_>>(),
        [users()]
    );
    check(&folder, &users(), seeds)
}

#[test]
fn every_damage_to_a_namespaces_backups_is_named_and_the_folder_stays_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let dir = backups(data.path());
    let before = bytes_below(&dir);
    let checked = check_below(&dir, 40);
    assert_eq!(bytes_below(&dir), before);
    assert!(checked.is_whole(), "{:?}", checked.now);
    assert_eq!(checked.tried.len(), 40);
    // Some hit what is needed, some what is not.
    let some = |which: fn(&Verdict) -> bool| checked.tried.iter().any(|t| which(&t.verdict));
    assert!(some(|v| *v == Verdict::Named));
    assert!(some(|v| *v == Verdict::Same { named: true }));
    for tried in &checked.tried {
        let bad = matches!(tried.verdict, Verdict::NotNamed { .. });
        assert!(!bad, "{tried:?}");
    }
}

#[test]
fn namespaces_in_one_folder_are_checked_each_by_itself() {
    let data = tempfile::tempdir().unwrap();
    backups_of("orders", data.path());
    let root = backups(data.path()).parent().unwrap().to_owned();
    let folder = Folder::read(real::platform().disk.as_ref(), &root, MAX).unwrap();
    let names: Vec<_> = folder.namespaces().into_iter().collect();
    assert_eq!(names, ["orders".parse().unwrap(), users()]);
    for name in names {
        let checked = check(&folder, &name, 5);
        assert!(checked.is_whole(), "{:?}", checked.now);
        assert_eq!(checked.not_named(), 0, "{:?}", checked.tried);
        let own = |t: &super::Tried| t.damage.in_words().contains(name.as_str());
        assert!(checked.tried.iter().all(own), "{:?}", checked.tried);
    }
}

#[test]
fn a_hole_in_the_folder_is_told_and_what_is_before_it_still_checked() {
    let data = tempfile::tempdir().unwrap();
    let dir = backups(data.path());
    for (path, _) in bytes_below(&dir) {
        let name = path.display().to_string();
        if name.contains(".db") || name.ends_with("000000003.wal") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let checked = check_below(&dir, 10);
    let End::Hole { problem } = &checked.now.end else {
        panic!("{:?}", checked.now);
    };
    assert!(problem.to_string().contains("wal gap"), "{problem}");
    assert!(!checked.is_whole());
    assert_eq!(checked.not_named(), 0, "{:?}", checked.tried);
}

#[test]
fn no_folder_nothing_of_ours_and_too_much_are_wrong_usage() {
    let data = tempfile::tempdir().unwrap();
    let platform = real::platform();
    let refused = |dir: &Path, most| match Folder::read(platform.disk.as_ref(), dir, most) {
        Ok(_) => panic!("{} was taken", dir.display()),
        Err(e) => e.to_string(),
    };
    let empty = data.path().join("empty");
    assert!(refused(&empty, MAX).contains("no such folder"));
    std::fs::create_dir(&empty).unwrap();
    assert!(refused(&empty, MAX).contains("holds no backup"));
    std::fs::write(empty.join("notes.txt"), "nothing of ours").unwrap();
    assert!(refused(&empty, MAX).contains("holds no backup"));
    let dir = backups(data.path());
    assert!(refused(&dir, 10_000).contains("--max-bytes"));
}

#[test]
fn a_state_that_is_not_the_sound_folders_is_not_made_good_by_a_name() {
    let data = tempfile::tempdir().unwrap();
    let dir = backups(data.path());
    let folder = Folder::read(real::platform().disk.as_ref(), &dir, MAX).unwrap();
    let disk = super::damage::lay_out(&folder, &users(), None);
    let sound = super::judge::ask(&disk, &users(), unisondb_types::Target::Latest);
    let End::Whole { lsn, time, digest } = sound.end.clone() else {
        panic!("{sound:?}");
    };
    let damage = super::damage::draw(&folder, &users(), 2);
    let mut judge = super::judge::Judge::new(&sound, |_| sound.end.clone());
    let mut said = sound.clone();
    assert_eq!(
        judge.verdict(&damage, &said),
        Verdict::Same { named: false }
    );
    said.sentences
        .push(format!("plan: {} is cut", damage.files[0].display()));
    let less = Lsn::new(lsn.get() - 1);
    said.end = End::Whole {
        lsn: less,
        time,
        digest,
    };
    let verdict = judge.verdict(&damage, &said);
    assert!(matches!(verdict, Verdict::NotNamed { .. }), "{verdict:?}");
}
