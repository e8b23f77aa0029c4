//! What people read, letter for letter. The fixture is the same in every run; its folder, the
//! lineage that was drawn for it, and the chain, which depends on that, are written as `[…]`.

use super::fixture::Fixture;
use super::{text, udbctl};

fn said(fixture: &Fixture, args: &[&str]) -> String {
    let out = udbctl(args);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {out:?}");
    let stdout = String::from_utf8(out.stdout).unwrap();
    let said = stdout
        .replace(text(fixture.root.path()), "[DIR]")
        .replace(&fixture.lineage, "[LINEAGE]");
    // How far ahead a live node zeroes its segment is its own affair.
    let line = |l: &str| match l.split_once(" of data in ") {
        Some((data, _)) => format!("{data} of data in [FILES]"),
        None if l.starts_with("chain ") => "chain    [CHAIN]".to_owned(),
        None => l.to_owned(),
    };
    said.lines().map(|l| line(l) + "\n").collect()
}

#[test]
fn the_plan_of_a_restore() {
    let fixture = Fixture::new();
    let args = fixture.restore("data", &["--dry-run", "--to-time", "2025-01-01T00:00:06Z"]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    assert_eq!(said(&fixture, &args), include_str!("golden/plan.txt"));
}

#[test]
fn a_listing() {
    let fixture = Fixture::new();
    let live = fixture.path("live");
    assert_eq!(
        said(&fixture, &["wal", "list", text(&live)]),
        include_str!("golden/list.txt")
    );
    assert_eq!(
        said(&fixture, &["wal", "stats", text(&live)]),
        include_str!("golden/stats.txt")
    );
}

#[test]
fn a_segment() {
    let fixture = Fixture::new();
    let segment = fixture.path("backups/wal/000000001.wal");
    let args = ["wal", "inspect", "--records", text(&segment)];
    assert_eq!(said(&fixture, &args), include_str!("golden/inspect.txt"));
}

#[test]
fn a_verified_set() {
    let fixture = Fixture::new();
    let backups = fixture.path("backups");
    assert_eq!(
        said(&fixture, &["verify", text(&backups)]),
        include_str!("golden/verify.txt")
    );
}
