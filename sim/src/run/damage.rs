//! Bits of the log that turn over while the node is down: a start has to notice what it needs.

use std::path::{Path, PathBuf};

use unisondb_platform::DiskExt as _;
use unisondb_platform::memory::Random;

use super::repair::Down;
use super::{NAMESPACE, Run, Timer};
use crate::restores::plain;
use crate::world::DATA;

impl Run<'_> {
    /// Damages the end of the log while the node is down: in what is not sealed, which is no torn tail if
    /// frames behind it vouch for it; or in the newest segment that is.
    pub(super) fn damage_tail(&mut self, r: &mut Random) {
        if r.coin() {
            // Killed, it has not flushed: LMDB vouches for less than the log does.
            return self.while_down(Down::Killed, |run, _| run.flip_newest_sealed(r));
        }
        let down = match r.coin() {
            true => Down::InOrder,
            false => Down::Killed,
        };
        self.while_down(down, |run, _| run.flip_tail(r));
    }

    /// Damages the newest sealed segment while the node is down. What LMDB does not have of it is noticed,
    /// and the file named; otherwise it is set aside, or the scrub's to find. Either way nothing behind
    /// it is given up.
    fn flip_newest_sealed(&mut self, r: &mut Random) -> Result<(), String> {
        let log = self.nodes[0].log(NAMESPACE);
        let sealed = log.iter().filter(|l| l.2.footer.is_some());
        let Some((path, bytes, segment)) = sealed.max_by_key(|l| l.2.id) else {
            self.later(50, Timer::Start(0));
            return Ok(());
        };
        // A restore in place leaves segments of ancestors beside it, which go on above the fork: only the
        // newest lineage's own records count.
        let newest = log.iter().max_by_key(|l| l.2.id);
        let lineage = newest.map(|l| l.2.lineage);
        let committed = |run: &Self| {
            let log = run.nodes[0].log(NAMESPACE);
            let own = log.iter().filter(|l| Some(l.2.lineage) == lineage);
            let records = own.flat_map(|l| &l.2.records);
            records.map(|r| r.committed).max().unwrap_or(0)
        };
        let before = committed(self);
        let (at, mask) = (256 + r.below(segment.bytes as u64 - 256), 1 << r.below(8));
        let disk = self.nodes[0].machine.borrow().disk.clone();
        disk.flip(path, at, mask).map_err(|e| e.to_string())?;
        self.fault("flipped bit in the newest sealed segment");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = format!("a flipped bit in {name}, which is sealed,");
        let started = self.start_and_wait(&[]);
        let aside = PathBuf::from(format!("{DATA}/{NAMESPACE}/wal.damaged/{name}"));
        let is_aside = plain(&disk).exists(&aside).unwrap_or(false);
        match &started {
            Ok(()) if is_aside => self.counters.add("a damaged sealed segment was set aside"),
            Ok(()) => self
                .counters
                .add("damage in a sealed segment lay below the state"),
            Err(why) if why.contains(&*name) => {
                self.counters.add("a damaged sealed segment was refused")
            }
            Err(why) => return Err(format!("P11: {what} is not named: {why}")),
        }
        let now = if is_aside { &aside } else { path };
        self.flip_back(now, at, mask, bytes, &what)?;
        if started.is_err() {
            self.start_with_good_copy(&name)?;
        }
        let after = committed(self);
        match after < before {
            true => Err(format!(
                "P1: {what} and records up to {before} became {after}"
            )),
            false => Ok(()),
        }
    }

    fn flip_tail(&mut self, r: &mut Random) -> Result<(), String> {
        let log = self.nodes[0].log(NAMESPACE);
        let active = log.iter().max_by_key(|l| l.2.id);
        let Some((path, bytes, segment)) = active.filter(|l| l.2.footer.is_none()) else {
            self.later(50, Timer::Start(0));
            return Ok(());
        };
        let vouched = segment.records.last().map_or(0, |last| last.committed);
        // The last one vouches for all before it: one behind the damage is enough.
        let records = segment.records.iter().filter(|r| r.lsn <= vouched);
        let frames = records.count();
        if frames == 0 {
            self.later(50, Timer::Start(0));
            return Ok(());
        }
        let n = usize::try_from(r.below(frames as u64)).expect("an index");
        let begin = n
            .checked_sub(1)
            .map_or(256, |before| segment.records[before].end);
        let len = (segment.records[n].end - begin) as u64;
        let (at, mask) = (begin as u64 + r.below(len), 1 << r.below(8));
        let disk = self.nodes[0].machine.borrow().disk.clone();
        disk.flip(path, at, mask).map_err(|e| e.to_string())?;
        self.fault("flipped bit in the active segment");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let what = format!(
            "a flipped bit in record {} of {name}, vouched for up to {vouched},",
            segment.records[n].lsn
        );
        match self.start_and_wait(&[]) {
            Ok(()) => return Err(format!("P13: {what} was passed over")),
            Err(why) if why.contains(&*name) => {}
            Err(why) => return Err(format!("P11: {what} is not named: {why}")),
        }
        self.counters.add("a damaged active segment was refused");
        self.flip_back(path, at, mask, bytes, &what)?;
        self.start_with_good_copy(&name)
    }

    /// What a start has met is but for the flipped bit as it was.
    fn flip_back(
        &self,
        path: &Path,
        at: u64,
        mask: u8,
        bytes: &[u8],
        what: &str,
    ) -> Result<(), String> {
        let disk = self.nodes[0].machine.borrow().disk.clone();
        disk.flip(path, at, mask).map_err(|e| e.to_string())?;
        let now = plain(&disk).read(path, 1 << 30);
        match now.map_err(|e| e.to_string())? == *bytes {
            true => Ok(()),
            false => Err(format!("P11: a start met {what} and the file changed")),
        }
    }

    fn start_with_good_copy(&mut self, name: &str) -> Result<(), String> {
        self.gone(0, None);
        self.start_and_wait(&[])
            .map_err(|why| format!("with a good copy of {name} it does not start: {why}"))
    }
}
