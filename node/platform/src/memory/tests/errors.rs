//! Full disks, errors, damage.

use std::io::ErrorKind;

use super::*;
use crate::memory::image::PAGE;
use crate::memory::{Effect, OpKind, Operation, Policy, Rule};

fn page(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(PAGE).unwrap()]
}

#[test]
fn a_full_disk_writes_what_fits_and_then_nothing() {
    let disk = MemoryDisk::default();
    disk.set_capacity(Some(3 * PAGE));
    let file = create(&disk, "/file", b"");
    let bytes = [page(1), page(2), page(3), page(4)].concat();
    let fitting = usize::try_from(3 * PAGE).unwrap();
    assert_eq!(file.write_at(&bytes, 0).unwrap(), fitting);
    let full = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    };
    full(file.write_all_at(b"x", 3 * PAGE));
    full(disk.open(path("/other"), Access::CreateNew).map(drop));
    full(disk.create_folder(path("/folder")));
    assert_eq!(disk.space(path("/")).unwrap().available, 0);
    file.write_all_at(&page(9), PAGE).unwrap();
    file.set_len(100 * PAGE).unwrap();
    assert_eq!(
        disk.space(path("/")).unwrap().available,
        0,
        "a hole takes nothing"
    );
    file.set_len(2 * PAGE).unwrap();
    assert_eq!(disk.space(path("/")).unwrap().available, PAGE);
    disk.set_other_tenants(PAGE);
    full(file.write_all_at(b"x", 2 * PAGE));
    disk.set_other_tenants(0);
    file.write_all_at(b"x", 2 * PAGE).unwrap();
    disk.remove_file(path("/file")).unwrap();
    assert_eq!(
        disk.space(path("/")).unwrap().available,
        0,
        "an open file keeps its room"
    );
    drop(file);
    assert_eq!(disk.space(path("/")).unwrap().available, 3 * PAGE);
}

#[test]
fn the_room_is_counted_anew_after_a_crash() {
    let disk = MemoryDisk::default();
    disk.set_capacity(Some(4 * PAGE));
    create_durable(&disk, "/kept", &page(1));
    disk.remove_file(path("/kept")).unwrap();
    let _open = create(&disk, "/lost", &[page(1), page(2)].concat());
    let after = (0..)
        .map(|seed| disk.crash(seed))
        .find(|disk| names(disk, "/") == ["kept"]);
    let space = after.unwrap().space(path("/")).unwrap();
    assert_eq!((space.total, space.available), (4 * PAGE, 3 * PAGE));
}

#[test]
fn a_replaced_file_gives_its_room_back() {
    let disk = MemoryDisk::default();
    disk.set_capacity(Some(2 * PAGE));
    for n in 0..20 {
        disk.publish(path("/file"), &page(n)).unwrap();
    }
    assert_eq!(disk.space(path("/")).unwrap().available, PAGE);
}

#[test]
fn a_rule_fits_its_kind_and_place_once_or_always() {
    let disk = MemoryDisk::default();
    disk.create_folder(path("/a")).unwrap();
    let (file, other) = (
        create(&disk, "/a/file", b"abc"),
        create(&disk, "/ab", b"abc"),
    );
    disk.inject(Rule::once(OpKind::Read, "/a", Effect::Eio).after(1));
    let mut buf = [0; 3];
    other.read_exact_at(&mut buf, 0).unwrap();
    file.read_exact_at(&mut buf, 0).unwrap();
    other.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(
        file.read_exact_at(&mut buf, 0).unwrap_err().raw_os_error(),
        Some(5)
    );
    file.read_exact_at(&mut buf, 0).unwrap();
    disk.inject(Rule::always(OpKind::Write, "/a/file", Effect::Full));
    for _ in 0..3 {
        let error = file.write_all_at(b"x", 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
    assert_eq!(read(&disk, "/a/file").unwrap(), b"abc");
    disk.heal();
    file.write_all_at(b"x", 0).unwrap();
    disk.inject(Rule::once(OpKind::Rename, "/b", Effect::Denied));
    let error = disk.rename(path("/ab"), path("/b")).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::PermissionDenied,
        "a rename fits by its new name too"
    );
    disk.rename(path("/ab"), path("/b")).unwrap();
}

#[test]
fn short_and_interrupted_calls_are_looped_over() {
    let disk = MemoryDisk::default();
    let file = create(&disk, "/file", b"");
    disk.inject(Rule::once(OpKind::Write, "/", Effect::Interrupted).after(1));
    disk.inject(Rule::always(OpKind::Write, "/", Effect::Short(3)));
    disk.inject(Rule::always(OpKind::Read, "/", Effect::Short(0)));
    assert_eq!(file.write_at(b"0123456789", 0).unwrap(), 3);
    file.write_all_at(b"0123456789", 0).unwrap();
    assert_eq!(
        file.read_at(&mut [0; 10], 0).unwrap(),
        1,
        "0 would mean the end"
    );
    assert_eq!(read(&disk, "/file").unwrap(), b"0123456789");
}

#[test]
fn a_policy_is_asked_about_every_operation_that_no_rule_decides() {
    struct NoLateWrites;
    impl Policy for NoLateWrites {
        fn decide(&self, operation: &Operation) -> Option<Effect> {
            let late = operation.kind == OpKind::Write && operation.offset >= 10;
            late.then_some(Effect::Quota)
        }
    }
    let disk = MemoryDisk::default();
    disk.set_policy(Arc::new(NoLateWrites));
    let file = create(&disk, "/file", b"abc");
    let error = file.write_all_at(b"x", 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    disk.inject(Rule::once(OpKind::Write, "/", Effect::Eio));
    let error = file.write_all_at(b"x", 10).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "a rule goes first");
}

#[test]
fn a_misdirected_write_reads_well_until_the_crash() {
    let disk = MemoryDisk::default();
    let file = create_durable(&disk, "/file", &[0; 1024]);
    disk.inject(Rule::once(OpKind::Write, "/", Effect::Misdirect(512)));
    file.write_all_at(&[1; 512], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&disk, "/file").unwrap()[..512], [1; 512]);
    let bytes = read(&disk.crash(0), "/file").unwrap();
    assert_eq!(
        (&bytes[..512], &bytes[512..]),
        (&[0; 512][..], &[1; 512][..])
    );
}

#[test]
fn flipped_bits_stay_until_written_again() {
    let disk = MemoryDisk::default();
    create_durable(&disk, "/file", b"abc");
    disk.flip(path("/file"), 1, 0b11).unwrap();
    let after = disk.crash(1);
    assert_eq!(read(&disk.kill(), "/file").unwrap(), b"aac");
    assert_eq!(read(&after, "/file").unwrap(), b"aac");
    let file = after.open(path("/file"), Access::Write).unwrap();
    file.write_all_at(b"b", 1).unwrap();
    assert_eq!(read(&after, "/file").unwrap(), b"abc");
}

#[test]
fn a_bad_sector_fails_until_it_is_written_whole() {
    let disk = MemoryDisk::default();
    create_durable(&disk, "/file", &[1; 1536]);
    disk.spoil(path("/file"), 700).unwrap();
    let disk = disk.crash(1);
    let file = disk.open(path("/file"), Access::Write).unwrap();
    let mut buf = [0; 1536];
    assert_eq!(
        file.read_at(&mut buf, 0).unwrap(),
        512,
        "as far as it can be read"
    );
    assert_eq!(
        file.read_at(&mut buf, 600).unwrap_err().raw_os_error(),
        Some(5)
    );
    file.read_exact_at(&mut buf[..512], 1024).unwrap();
    file.write_all_at(&[2; 100], 512).unwrap();
    assert_eq!(
        file.read_at(&mut buf, 512).unwrap_err().raw_os_error(),
        Some(5)
    );
    file.write_all_at(&[2; 512], 512).unwrap();
    file.read_exact_at(&mut buf, 0).unwrap();
}

#[test]
fn a_file_that_vanishes_is_gone_for_good() {
    let disk = MemoryDisk::default();
    create_durable(&disk, "/file", b"abc");
    create(&disk, "/fresh", b"abc");
    disk.vanish(path("/file")).unwrap();
    disk.vanish(path("/fresh")).unwrap();
    assert!(names(&disk, "/").is_empty());
    for seed in 0..20 {
        assert!(names(&disk.crash(seed), "/").is_empty());
    }
}

#[test]
fn the_log_tells_what_changed_in_order() {
    let disk = MemoryDisk::default();
    disk.publish(path("/name"), b"abc").unwrap();
    let log: Vec<String> = disk.log().iter().map(ToString::to_string).collect();
    assert_eq!(
        log,
        [
            "#0 RemoveFile /name.tmp",
            "#1 CreateFile /name.tmp",
            "#2 Write /name.tmp @0+3",
            "#3 Sync /name.tmp",
            "#4 Rename /name.tmp -> /name",
            "#5 SyncFolder /",
        ]
    );
    assert_eq!(disk.ops(), 6);
}
