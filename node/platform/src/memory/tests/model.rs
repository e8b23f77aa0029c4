//! Without faults the disk is a map from path to bytes; with everything synced, so is a crash of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    Write(usize, u64, usize, u8),
    SetLen(usize, u64),
    Rename(usize, usize),
    Remove(usize),
    Kill,
}

const FILES: [&str; 5] = ["/a", "/b", "/x/a", "/x/b", "/x/y/a"];
const FOLDERS: [&str; 3] = ["/", "/x", "/x/y"];

fn step() -> impl Strategy<Value = Step> {
    let file = || 0..FILES.len();
    prop_oneof![
        2 => file().prop_map(Step::Create),
        4 => (file(), 0u64..9000, 0usize..6000, 1u8..)
            .prop_map(|(file, at, len, byte)| Step::Write(file, at, len, byte)),
        1 => (file(), 0u64..9000).prop_map(|(file, len)| Step::SetLen(file, len)),
        2 => (file(), file()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => file().prop_map(Step::Remove),
        1 => Just(Step::Kill),
    ]
}

type Model = BTreeMap<PathBuf, Vec<u8>>;

fn model_of(disk: &MemoryDisk) -> Model {
    let files = FILES
        .iter()
        .filter_map(|file| Some((path(file).to_owned(), read(disk, file)?)));
    files.collect()
}

/// Does a step to both; they must agree on whether it can be done.
fn apply(disk: &mut MemoryDisk, model: &mut Model, step: &Step) {
    let at = |n: usize| path(FILES[n]).to_owned();
    match *step {
        Step::Create(n) => {
            let made = disk.open(&at(n), Access::CreateNew).is_ok();
            assert_eq!(made, !model.contains_key(&at(n)));
            model.entry(at(n)).or_default();
        }
        Step::Write(n, offset, len, byte) => {
            let file = disk.open(&at(n), Access::Write);
            assert_eq!(file.is_ok(), model.contains_key(&at(n)));
            if let (Ok(file), Some(bytes)) = (file, model.get_mut(&at(n))) {
                file.write_all_at(&vec![byte; len], offset).unwrap();
                if len > 0 {
                    let start = usize::try_from(offset).unwrap();
                    bytes.resize(bytes.len().max(start + len), 0);
                    bytes[start..start + len].fill(byte);
                }
            }
        }
        Step::SetLen(n, len) => {
            if let Some(bytes) = model.get_mut(&at(n)) {
                disk.open(&at(n), Access::Write)
                    .unwrap()
                    .set_len(len)
                    .unwrap();
                bytes.resize(usize::try_from(len).unwrap(), 0);
            }
        }
        Step::Rename(from, to) => {
            let renamed = disk.rename(&at(from), &at(to)).is_ok();
            let bytes = model.remove(&at(from));
            assert_eq!(renamed, bytes.is_some());
            model.extend(bytes.map(|bytes| (at(to), bytes)));
        }
        Step::Remove(n) => {
            assert_eq!(
                disk.remove_file(&at(n)).is_ok(),
                model.remove(&at(n)).is_some()
            );
        }
        Step::Kill => *disk = disk.kill(),
    }
}

fn fresh() -> MemoryDisk {
    let disk = MemoryDisk::default();
    disk.set_capacity(Some(1 << 30));
    disk.create_folders(path("/x/y")).unwrap();
    disk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_disk_without_faults_is_a_map(steps in prop::collection::vec(step(), 1..40)) {
        let (mut disk, mut model) = (fresh(), Model::new());
        for step in &steps {
            apply(&mut disk, &mut model, step);
            prop_assert_eq!(model_of(&disk), model.clone(), "after {:?}", step);
        }
        let pages = |bytes: &Vec<u8>| bytes.len().next_multiple_of(4096) as u64;
        let space = disk.space(path("/")).unwrap();
        let taken = space.total - space.available;
        prop_assert!(taken <= model.values().map(pages).sum(), "{} bytes taken", taken);
        for file in model.keys() {
            disk.remove_file(file).unwrap();
        }
        prop_assert_eq!(disk.space(path("/")).unwrap().available, space.total);
    }

    #[test]
    fn a_crash_after_everything_was_synced_loses_nothing(
        steps in prop::collection::vec(step(), 1..40),
        later in prop::collection::vec(step(), 0..20),
        seed: u64,
    ) {
        let (mut disk, mut model) = (fresh(), Model::new());
        for step in &steps {
            apply(&mut disk, &mut model, step);
        }
        for file in model.keys() {
            disk.open(file, Access::Write).unwrap().sync().unwrap();
        }
        for folder in FOLDERS {
            disk.sync_folder(path(folder)).unwrap();
        }
        prop_assert_eq!(&model_of(&disk.kill().crash(seed)), &model);
        // What happens to others afterwards does it no harm either.
        let untouched = |step: &&Step| match step {
            Step::Create(n) | Step::Write(n, ..) | Step::SetLen(n, _) | Step::Remove(n) => *n != 0,
            Step::Rename(from, to) => *from != 0 && *to != 0,
            Step::Kill => true,
        };
        let mut disk = disk.kill();
        let synced = model.get(path(FILES[0])).cloned();
        for step in later.iter().filter(untouched) {
            apply(&mut disk, &mut model, step);
        }
        prop_assert_eq!(read(&disk.crash(seed), FILES[0]), synced);
    }

    /// Whatever was not synced: a file shows what it held at its last sync, or bytes written since.
    #[test]
    fn a_crash_never_makes_bytes_up(steps in prop::collection::vec(step(), 1..40), seed: u64) {
        let (mut disk, mut model) = (fresh(), Model::new());
        let mut written = std::collections::BTreeSet::from([0]);
        for step in &steps {
            apply(&mut disk, &mut model, step);
            if let Step::Write(.., byte) = step {
                written.insert(*byte);
            }
        }
        for (file, bytes) in model_of(&disk.crash(seed)) {
            prop_assert!(bytes.iter().all(|byte| written.contains(byte)), "{}", file.display());
        }
    }
}
