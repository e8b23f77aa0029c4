//! [`Content`]: one file as readers see it, as the medium holds it, and the writes in between.
//!
//! ```text
//! write ──► current (what reads see) and pending (in order)
//! sync  ──► pending is applied to durable
//! crash ──► of each pending write nothing, all, a beginning, or some sectors reach durable;
//!           of the pending lengths a beginning; current = durable
//! ```
//! A failed sync drops pending writes: current still shows them, the next sync has nothing to do
//! and says Ok, and a crash reveals that they were never there (the kernel marks such pages clean).

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::image::Image;
use super::{Random, SECTOR};

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// The name it was made by; with the number of a write, the key of the chances it takes.
    label: PathBuf,
    pub(super) current: Image,
    pub(super) durable: Image,
    pending: Vec<Pending>,
    /// Writes and changes of length so far.
    count: u64,
    /// Sectors that cannot be read until they are written again, by number.
    bad: BTreeSet<u64>,
    /// Whether a name leads here.
    pub(super) linked: bool,
    /// Handles and locks.
    pub(super) open: u64,
}

#[derive(Debug, Clone)]
struct Pending {
    number: u64,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// How much of what was not synced a power loss spares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Luck {
    Nothing,
    Everything,
    Mixed,
}

impl Luck {
    /// All at once is as likely as nothing: few operations would come to either by chance.
    pub(super) fn draw(seed: u64) -> Luck {
        match Random::keyed(seed, b"power", 0).below(8) {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            _ => Luck::Mixed,
        }
    }
}

impl Content {
    pub(super) fn new(label: PathBuf) -> Content {
        Content {
            label,
            linked: true,
            ..Content::default()
        }
    }

    /// A file that has been on the medium for long.
    pub(super) fn stored(label: PathBuf, bytes: &[u8]) -> Content {
        let mut content = Content::new(label);
        content.current.write(bytes, 0);
        content.durable = content.current.clone();
        content
    }

    /// As far as the sectors can be read; None when not even the first.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Option<usize> {
        let end = offset.saturating_add(buf.len() as u64);
        let first_bad = self.bad.range(offset / SECTOR..end.div_ceil(SECTOR)).next();
        let good = match first_bad {
            Some(sector) => usize::try_from((sector * SECTOR).saturating_sub(offset)).ok()?,
            None => buf.len(),
        };
        let good = good.min(buf.len());
        if good == 0 && !buf.is_empty() && offset < self.current.len() {
            return None;
        }
        Some(self.current.read(&mut buf[..good], offset))
    }

    /// Writes; on the medium at `lands`, which is `offset` unless the write is misdirected.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, lands: u64) {
        self.current.write(bytes, offset);
        let end = lands + bytes.len() as u64;
        let whole = lands.div_ceil(SECTOR)..end / SECTOR;
        self.bad.retain(|sector| !whole.contains(sector));
        self.push(Change::Write {
            offset: lands,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.current.set_len(len);
        self.push(Change::SetLen(len));
    }

    fn push(&mut self, change: Change) {
        let number = self.count;
        self.count += 1;
        self.pending.push(Pending { number, change });
    }

    pub(super) fn sync(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            pending.change.reach(&mut self.durable);
        }
        // What a failed sync lost of a grown file is a hole in it: the length was not lost.
        if self.durable.len() != self.current.len() {
            self.durable.set_len(self.current.len());
        }
    }

    /// A sync that fails: at least one pending write is gone for good, and nobody will say so.
    pub(super) fn fail_sync(&mut self, seed: u64) {
        let is_write = |p: &Pending| matches!(p.change, Change::Write { .. });
        let writes = self.pending.iter().filter(|p| is_write(p)).count();
        let mut random = self.random(seed, self.count);
        let victim = random.below(writes as u64);
        let mut seen = 0;
        for pending in std::mem::take(&mut self.pending) {
            if is_write(&pending) {
                seen += 1;
                if seen - 1 == victim {
                    continue;
                }
            }
            match pending.change {
                Change::Write { .. } => {
                    let random = self.random(seed, pending.number);
                    pending.change.reach_by_chance(&mut self.durable, random);
                }
                Change::SetLen(_) => pending.change.reach(&mut self.durable),
            }
        }
    }

    /// What a power loss leaves.
    pub(super) fn lose_power(&mut self, seed: u64, luck: Luck) {
        let is_len = |p: &&Pending| matches!(p.change, Change::SetLen(_));
        let lengths = self.pending.iter().filter(is_len).count() as u64;
        let mut lengths_kept = self.random(seed, u64::MAX).below(lengths + 1);
        for pending in std::mem::take(&mut self.pending) {
            match (luck, &pending.change) {
                (Luck::Nothing, _) => {}
                (Luck::Everything, _) => pending.change.reach(&mut self.durable),
                (Luck::Mixed, Change::SetLen(_)) => {
                    if lengths_kept > 0 {
                        lengths_kept -= 1;
                        pending.change.reach(&mut self.durable);
                    }
                }
                (Luck::Mixed, Change::Write { .. }) => {
                    let random = self.random(seed, pending.number);
                    pending.change.reach_by_chance(&mut self.durable, random);
                }
            }
        }
        self.current = self.durable.clone();
        self.open = 0;
    }

    fn random(&self, seed: u64, number: u64) -> Random {
        Random::keyed(seed, self.label.as_os_str().as_bytes(), number)
    }

    /// Turns bits over on the medium; they stay so until written again.
    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        self.current.flip(offset, mask);
        self.durable.flip(offset, mask);
    }

    /// Makes the sector of `offset` unreadable until it is written again.
    pub(super) fn spoil(&mut self, offset: u64) {
        self.bad.insert(offset / SECTOR);
    }
}

impl Change {
    fn reach(&self, image: &mut Image) {
        match self {
            Change::Write { offset, bytes } => image.write(bytes, *offset),
            Change::SetLen(len) => image.set_len(*len),
        }
    }

    /// Nothing, all, a beginning, or some of the sectors.
    fn reach_by_chance(&self, image: &mut Image, mut random: Random) {
        let Change::Write { offset, bytes } = self else {
            return self.reach(image);
        };
        match random.below(4) {
            0 => {}
            1 => image.write(bytes, *offset),
            2 => {
                let part = random.below(bytes.len() as u64 + 1);
                let part = usize::try_from(part).expect("not more than there are bytes");
                image.write(&bytes[..part], *offset);
            }
            _ => {
                let mut start = 0;
                while start < bytes.len() {
                    let at = offset + start as u64;
                    let rest = usize::try_from(SECTOR - at % SECTOR).expect("below a sector");
                    let end = bytes.len().min(start + rest);
                    if random.coin() {
                        image.write(&bytes[start..end], at);
                    }
                    start = end;
                }
            }
        }
    }
}
