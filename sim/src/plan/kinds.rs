//! The kinds of events that a seed may draw: how often, in which profiles, and what.

use unisondb_platform::memory::Random;

use super::{Act, Aim, Cut, Damage, End, Fault, Place, Setting, Way};

/// A kind of event.
pub struct Kind {
    pub name: &'static str,
    /// In every swarm too: without it nothing is proven.
    pub always: bool,
    pub calm: bool,
    pub disk: bool,
    pub backup: bool,
    /// Only where there is no other node.
    pub of_one: bool,
    /// Only where there are others.
    pub of_several: bool,
    pub every_ms: u64,
    pub draw: fn(&mut Random, &Setting) -> Act,
}

const NONE: Kind = Kind {
    name: "",
    always: false,
    calm: false,
    disk: false,
    backup: false,
    of_one: false,
    of_several: false,
    every_ms: 10_000,
    draw: |_, _| Act::Seal,
};

/// All of them. A new one comes last: each draws from a stream of its own, keyed by its place.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "backup-wal",
        always: true,
        calm: true,
        backup: true,
        every_ms: 4_000,
        draw: |_, _| Act::BackupWal,
        ..NONE
    },
    Kind {
        name: "backup-snapshot",
        always: true,
        calm: true,
        backup: true,
        every_ms: 7_000,
        draw: |_, _| Act::BackupSnapshot,
        ..NONE
    },
    Kind {
        name: "seal",
        calm: true,
        every_ms: 9_000,
        ..NONE
    },
    Kind {
        name: "end",
        disk: true,
        every_ms: 15_000,
        draw: end,
        ..NONE
    },
    Kind {
        name: "end-at",
        disk: true,
        backup: true,
        every_ms: 12_000,
        draw: end_at,
        ..NONE
    },
    Kind {
        name: "disk-wal",
        disk: true,
        every_ms: 12_000,
        draw: |r, _| disk(r, Place::Wal),
        ..NONE
    },
    Kind {
        name: "disk-vote",
        disk: true,
        every_ms: 30_000,
        draw: |r, _| disk(r, Place::Vote),
        ..NONE
    },
    Kind {
        name: "disk-backups",
        disk: true,
        backup: true,
        every_ms: 6_000,
        draw: |r, _| disk(r, Place::Backups),
        ..NONE
    },
    Kind {
        name: "full",
        disk: true,
        backup: true,
        every_ms: 15_000,
        draw: full,
        ..NONE
    },
    Kind {
        name: "clock",
        every_ms: 15_000,
        draw: clock,
        ..NONE
    },
    Kind {
        name: "network",
        every_ms: 8_000,
        draw: network,
        ..NONE
    },
    Kind {
        name: "damage-backup",
        backup: true,
        every_ms: 12_000,
        draw: damage_backup,
        ..NONE
    },
    Kind {
        name: "damage-log",
        of_one: true,
        disk: true,
        every_ms: 20_000,
        draw: |r, _| Act::Damage {
            what: Damage::FlipSealed,
            draw: r.draw(),
        },
        ..NONE
    },
    Kind {
        name: "damage-state",
        of_one: true,
        disk: true,
        every_ms: 30_000,
        draw: damage_state,
        ..NONE
    },
    Kind {
        name: "restore",
        of_one: true,
        backup: true,
        every_ms: 20_000,
        draw: restore,
        ..NONE
    },
    Kind {
        name: "damage-tail",
        of_one: true,
        disk: true,
        every_ms: 30_000,
        draw: |r, _| Act::Damage {
            what: Damage::FlipTail,
            draw: r.draw(),
        },
        ..NONE
    },
    Kind {
        name: "stale-temporary",
        backup: true,
        every_ms: 20_000,
        draw: |r, _| Act::Damage {
            what: Damage::StaleTemporary,
            draw: r.draw(),
        },
        ..NONE
    },
    Kind {
        name: "end-all",
        of_several: true,
        every_ms: 15_000,
        draw: end_all,
        ..NONE
    },
    Kind {
        name: "split",
        of_several: true,
        every_ms: 6_000,
        draw: split,
        ..NONE
    },
    Kind {
        name: "lose",
        of_several: true,
        every_ms: 20_000,
        draw: |r, _| Act::Lose {
            down_ms: 50 + r.below(2_000),
        },
        ..NONE
    },
];

fn end(r: &mut Random, _: &Setting) -> Act {
    let how = match r.below(5) {
        0 => End::Stop,
        1 => End::Kill,
        _ => End::Power,
    };
    Act::End {
        how,
        down_ms: 50 + r.below(1_500),
    }
}

fn end_all(r: &mut Random, _: &Setting) -> Act {
    Act::EndAll {
        how: if r.below(4) == 0 {
            End::Kill
        } else {
            End::Power
        },
        down_ms: 50 + r.below(3_000),
    }
}

fn split(r: &mut Random, s: &Setting) -> Act {
    let how = [Cut::Both, Cut::Both, Cut::ToNode, Cut::FromNode, Cut::Hold]
        [usize::try_from(r.below(5)).expect("an index")];
    Act::Split {
        how,
        // Neither nobody nor all.
        side: 1 + r.below((1 << s.nodes) - 2),
        for_ms: 100 + r.below(8_000),
    }
}

fn end_at(r: &mut Random, _: &Setting) -> Act {
    let n = r.below(300);
    let how = if r.below(4) == 0 {
        End::KillAt(n)
    } else {
        End::PowerAt(n)
    };
    Act::End {
        how,
        down_ms: 50 + r.below(1_000),
    }
}

fn disk(r: &mut Random, place: Place) -> Act {
    use Fault as F;
    let faults: &[Fault] = match place {
        Place::Wal => &[
            F::SyncEio,
            F::SyncFull,
            F::FolderSyncEio,
            F::WriteEio,
            F::WriteFull,
            F::WriteShort,
            F::WriteInterrupted,
            F::ReadEio,
            F::ReadShort,
            F::CreateFull,
            F::RenameEio,
        ],
        Place::Vote => &[F::SyncEio, F::WriteEio, F::ReadShort],
        Place::Backups => &[
            F::SyncEio,
            F::SyncFull,
            F::FolderSyncEio,
            F::WriteEio,
            F::WriteFull,
            F::WriteQuota,
            F::WriteShort,
            F::WriteInterrupted,
            F::WriteMisdirected,
            F::ReadEio,
            F::ReadShort,
            F::OpenDenied,
            F::CreateFull,
            F::RenameEio,
        ],
    };
    let fault = faults[usize::try_from(r.below(faults.len() as u64)).expect("an index")];
    Act::Disk {
        fault,
        place,
        skip: r.below(8),
        // A call that is interrupted for ever is none that a system makes.
        sticky: r.below(4) == 0 && place != Place::Vote && fault != F::WriteInterrupted,
        heal_ms: 200 + r.below(4_000),
    }
}

fn full(r: &mut Random, _: &Setting) -> Act {
    Act::Full {
        left_bytes: r.below(5) * 16_384,
        for_ms: 500 + r.below(5_000),
    }
}

fn clock(r: &mut Random, _: &Setting) -> Act {
    let size = [1_000, 30_000, 90_000, 3_600_000, 86_400_000]
        [usize::try_from(r.below(5)).expect("an index")];
    let step = i64::try_from(r.below(size)).expect("a day at most");
    Act::Clock {
        step_ms: if r.coin() { step } else { -step },
        for_ms: 500 + r.below(8_000),
    }
}

fn network(r: &mut Random, s: &Setting) -> Act {
    let how = [Cut::Both, Cut::ToNode, Cut::FromNode, Cut::Hold]
        [usize::try_from(r.below(4)).expect("an index")];
    Act::Network {
        how,
        client: r.below(s.clients),
        for_ms: 100 + r.below(6_000),
    }
}

fn damage_backup(r: &mut Random, _: &Setting) -> Act {
    let what = [Damage::FlipBackup, Damage::SpoilBackup, Damage::LoseBackup]
        [usize::try_from(r.below(3)).expect("an index")];
    Act::Damage {
        what,
        draw: r.draw(),
    }
}

fn damage_state(r: &mut Random, _: &Setting) -> Act {
    let what = if r.coin() {
        Damage::FlipState
    } else {
        Damage::CutState
    };
    Act::Damage {
        what,
        draw: r.draw(),
    }
}

fn restore(r: &mut Random, _: &Setting) -> Act {
    let way = [
        Way::KeepLog,
        Way::CopyAll,
        Way::CopyAll,
        Way::Udbctl,
        Way::Udbctl,
        Way::SnapshotOnly,
    ][usize::try_from(r.below(6)).expect("an index")];
    let target = [
        Aim::Latest,
        Aim::Lsn,
        Aim::Lsn,
        Aim::Time,
        Aim::Time,
        Aim::Immediate,
    ][usize::try_from(r.below(6)).expect("an index")];
    Act::Restore {
        way,
        target,
        draw: r.draw(),
    }
}
