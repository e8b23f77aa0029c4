//! [`Plan`]: all that a run does, made of a seed or read from a file; only the plan is executed.
//!
//! Chances inside disk, network and workload come from streams keyed by the seed and by what they
//! are about, so an event taken out of a plan leaves the others as they were.

mod kinds;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use unisondb_platform::memory::Random;

use kinds::KINDS;

/// The version that this build reads and writes.
pub const VERSION: u32 = 1;

/// Which mixture of faults a seed makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Each kind of fault is off in half of the seeds.
    Swarm,
    /// Nothing goes wrong.
    Calm,
    /// Faults of the disk and ends of the machine.
    Disk,
    /// Backups and restores, many of them, and what goes wrong with those.
    Backup,
    /// Three or five nodes; each kind of fault is off in half of the seeds.
    Cluster,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Plan {
    pub version: u32,
    pub seed: u64,
    pub setting: Setting,
    pub events: Vec<Event>,
}

/// What stands still during a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Setting {
    /// Simulated time before everything is healed, in seconds.
    pub seconds: u64,
    pub tick_micros: u64,
    pub max_latency_ms: u64,
    pub epoch_seconds: u64,
    pub clients: u64,
    /// Size of the key space of each kind: keys, rows, objects.
    pub keys: u64,
    /// Longest pause of a client between two requests.
    pub think_ms: u64,
    pub value_bytes: u64,
    pub segment_bytes: u64,
    pub flush_bytes: u64,
    pub flush_ms: u64,
    pub retention_seconds: u64,
    pub ballast_bytes: u64,
    /// Size of the node's volume.
    pub volume_bytes: u64,
    /// Restores at the end, besides those on the way.
    pub restores: u64,
    /// How many nodes there are: one alone, or as many of a cluster.
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub nodes: u64,
}

fn alone() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_alone(nodes: &u64) -> bool {
    *nodes == 1
}

/// Something that happens at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Event {
    pub at_ms: u64,
    pub act: Act,
    /// The node that it happens to, where it is one of them that it happens to.
    #[serde(default, skip_serializing_if = "is_first")]
    pub node: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_first(node: &usize) -> bool {
    *node == 0
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Act {
    /// The node ends, and comes back after `down_ms`.
    End { how: End, down_ms: u64 },
    /// The next fitting operation of the disk goes wrong; after `heal_ms` no more do.
    Disk {
        fault: Fault,
        place: Place,
        skip: u64,
        sticky: bool,
        heal_ms: u64,
    },
    /// Others leave so many bytes of the volume, for so long.
    Full { left_bytes: u64, for_ms: u64 },
    /// The wall clock jumps; set right after `for_ms`.
    Clock { step_ms: i64, for_ms: u64 },
    /// The network between the node and client number `client` is disturbed.
    Network { how: Cut, client: u64, for_ms: u64 },
    /// Bytes go bad at rest.
    Damage { what: Damage, draw: u64 },
    /// The operator asks for a WAL backup.
    BackupWal,
    /// The operator asks for a snapshot.
    BackupSnapshot,
    /// The operator seals.
    Seal,
    /// The operator restores in place.
    Restore { way: Way, target: Aim, draw: u64 },
    /// All nodes end at once, and each comes back after at most `down_ms`.
    EndAll { how: End, down_ms: u64 },
    /// A node loses its disk, and comes back with an empty one; it is replaced as documented.
    Lose { down_ms: u64 },
    /// The network between the nodes of `side` (a bit each) and the others is disturbed.
    Split { how: Cut, side: u64, for_ms: u64 },
}

/// How the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// SIGTERM.
    Stop,
    /// kill -9: what was written is there.
    Kill,
    /// Power loss: what was not synced is there or not, as chance has it.
    Power,
    /// Power loss just before this many more disk operations have been done.
    PowerAt(u64),
    /// The process is killed just before this many more disk operations have been done.
    KillAt(u64),
}

/// What the disk does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    SyncEio,
    SyncFull,
    FolderSyncEio,
    WriteEio,
    WriteFull,
    WriteQuota,
    WriteShort,
    WriteInterrupted,
    WriteMisdirected,
    ReadEio,
    ReadShort,
    OpenDenied,
    CreateFull,
    RenameEio,
}

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Segments.
    Wal,
    /// The vote.
    Vote,
    /// What backups write.
    Backups,
}

/// How the network is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    Both,
    ToNode,
    FromNode,
    /// Messages are held back, and come later.
    Hold,
}

/// What goes bad at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// A bit in a sealed segment of the live log, until the operator puts the backup back.
    FlipSealed,
    /// A bit in a file of the backups.
    FlipBackup,
    /// A sector of a file of the backups cannot be read.
    SpoilBackup,
    /// A file of the backups is gone.
    LoseBackup,
    /// A bit in `db/data.mdb` while the node is down; it must be refused or be harmless.
    FlipState,
    /// `db/data.mdb` is cut while the node is down; it must be refused.
    CutState,
    /// A long temporary file lies where the next snapshot wants to write, as a call that died leaves it.
    StaleTemporary,
    /// A bit in a frame of the active segment while the node is down, below what frames behind it
    /// vouch for; it must be refused and named.
    FlipTail,
}

/// How the operator restores in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// `rm db/*`, `cp` of a snapshot, the log left in place.
    KeepLog,
    /// `rm db/* wal/*`, `cp` of a snapshot and of the archived segments.
    CopyAll,
    /// `udbctl restore --force`.
    Udbctl,
    /// `rm -rf` of everything, `cp` of a snapshot alone.
    SnapshotOnly,
}

/// To which moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    Latest,
    Lsn,
    Time,
    Immediate,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(profile: Profile, seed: u64) -> Plan {
        let mut r = Random::keyed(seed, b"plan", 0);
        let setting = Setting::draw(&mut r, profile);
        let mut events = Vec::new();
        let end_ms = setting.seconds * 1_000;
        // One stream a kind: what one does takes no chances from another.
        for (number, kind) in KINDS.iter().enumerate() {
            let mut r = Random::keyed(seed, kind.name.as_bytes(), number as u64);
            let mut nodes = Random::keyed(seed, b"node", number as u64);
            let on = match profile {
                Profile::Swarm => (kind.always || r.coin()) && !kind.of_several,
                Profile::Cluster => (kind.always || r.coin()) && !kind.of_one,
                Profile::Calm => kind.calm,
                Profile::Disk => kind.calm || kind.disk,
                Profile::Backup => kind.calm || kind.backup,
            };
            // A snapshot that was handed out keeps the log for an hour: without one members come to lack records.
            let purges = profile == Profile::Cluster && setting.retention_seconds == 5;
            if !on || (purges && kind.name == "backup-snapshot") {
                continue;
            }
            let every = kind.every_ms
                / if profile == Profile::Backup && kind.backup {
                    2
                } else {
                    1
                };
            let mut at = r.below(every * 2) + 500;
            while at < end_ms {
                let act = (kind.draw)(&mut r, &setting);
                let node = usize::try_from(nodes.below(setting.nodes)).expect("a few");
                events.push(Event {
                    at_ms: at,
                    act,
                    node,
                });
                at += every / 2 + r.below(every);
            }
        }
        events.sort_by_key(|e| e.at_ms);
        Plan {
            version: VERSION,
            seed,
            setting,
            events,
        }
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// In words, when it is none, or of another version.
    pub fn parse(text: &str) -> anyhow::Result<Plan> {
        let value: serde_json::Value =
            serde_json::from_str(text).context("the plan is not JSON")?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => bail!("the plan has version {version}, this build reads {VERSION}"),
            None => bail!("the plan has no version"),
        }
        let plan: Plan = serde_json::from_value(value).context("the plan is damaged")?;
        let s = &plan.setting;
        let there = |e: &Event| (e.node as u64) < s.nodes;
        if !plan.events.iter().all(there) {
            bail!("the plan has an event at a node that there is not");
        }
        if s.seconds == 0
            || ![1, 3, 5].contains(&s.nodes)
            || s.seconds > 86_400
            || s.tick_micros == 0
            || s.clients > 1_000
            || s.keys == 0
        {
            bail!("the plan's setting is out of range");
        }
        Ok(plan)
    }
}

impl Setting {
    fn draw(r: &mut Random, profile: Profile) -> Setting {
        let pick = |r: &mut Random, of: &[u64]| {
            of[usize::try_from(r.below(of.len() as u64)).expect("an index")]
        };
        let mut setting = Setting {
            nodes: 1,
            seconds: 60,
            tick_micros: pick(r, &[1_000, 2_000, 5_000, 10_000]),
            max_latency_ms: pick(r, &[2, 10, 50]),
            epoch_seconds: 1_767_225_600 + r.below(86_400),
            clients: 2 + r.below(4),
            keys: pick(r, &[4, 12, 40]),
            think_ms: pick(r, &[100, 300, 800]),
            value_bytes: pick(r, &[40, 400, 3_000]),
            segment_bytes: pick(r, &[4 << 10, 8 << 10, 16 << 10, 64 << 10]),
            flush_bytes: pick(r, &[8 << 10, 64 << 10, 1 << 20]),
            flush_ms: pick(r, &[50, 500, 5_000]),
            retention_seconds: pick(r, &[5, 20, 7 * 86_400]),
            ballast_bytes: pick(r, &[0, 64 << 10]),
            volume_bytes: 512 << 20,
            restores: if profile == Profile::Backup { 40 } else { 20 },
        };
        if profile == Profile::Cluster {
            setting.nodes = pick(r, &[3, 3, 5]);
            // Several nodes cost as much as several runs.
            setting.seconds = 30;
        }
        setting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_back_and_a_seed_always_makes_the_same() {
        for seed in 0..50 {
            let plan = Plan::of(Profile::Swarm, seed);
            assert_eq!(plan, Plan::of(Profile::Swarm, seed));
            let text = serde_json::to_string(&plan).expect("a plan is JSON");
            assert_eq!(Plan::parse(&text).expect("it reads back"), plan);
        }
    }

    #[test]
    fn a_damaged_plan_and_another_version_are_told_in_words() {
        let text = serde_json::to_string(&Plan::of(Profile::Calm, 1)).expect("a plan is JSON");
        let said = |text: &str| format!("{:#}", Plan::parse(text).expect_err("it is no plan"));
        assert!(said(&text.replace("\"version\":1", "\"version\":9")).contains("version 9"));
        assert!(said("{}").contains("no version"));
        assert!(said(&text[..text.len() / 2]).contains("not JSON"));
        assert!(said(&text.replace("\"keys\"", "\"kyes\"")).contains("damaged"));
        assert!(said(&text.replace("\"seconds\":60", "\"seconds\":0")).contains("range"));
    }
}
