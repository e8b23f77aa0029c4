//! Ended segments (D4, D5): what the state was at each one's end, the leader's `Check` against
//! it, and the footer that may be written once both agree.

use unisondb_types::{Check, Command, Kind, Lsn, Record, SegmentId, codec};
use unisondb_wal::{Entry, SegmentState};

use super::Applier;
use super::draft::{Changed, Draft};
use crate::Error;
use crate::engine::decode as decoded;
use crate::state::entry;
use crate::state::position::Position;
use crate::state::rows::SegmentRow;
use crate::state::table;
use crate::state::view;

impl Applier {
    /// The next record stands in another segment: the one before has ended where the state is now.
    pub(super) fn close_segment_before(&mut self, next: &Entry) -> Result<(), Error> {
        if self.position.segment_ended || self.position.lsn == Lsn::ZERO {
            return Ok(());
        }
        let ended = self.position.segment;
        if next.record.kind == Kind::Lineage {
            return self.close_at_fork(ended, next);
        }
        // The next segment's header says what this one adds up to; the log has compared it with
        // the segment itself, where that is here.
        let said = self
            .shared
            .wal
            .segment(next.segment)
            .and_then(|s| s.header.predecessor);
        let Some(before) = said.filter(|p| p.id == ended) else {
            return Err(Error::Damaged {
                what: format!("the end of segment {ended}"),
                why: format!(
                    "segment {} follows it, but continues another one",
                    next.segment
                ),
            });
        };
        self.close_segment(ended, before.chain)
    }

    /// A lineage begins behind the state: its record says what the parent's log adds up to.
    fn close_at_fork(&mut self, ended: SegmentId, next: &Entry) -> Result<(), Error> {
        let parent = match next.record.command() {
            Ok(Command::Lineage(record)) => record.parent,
            _ => None,
        };
        let Some(parent) = parent.filter(|p| p.fork == self.position.lsn) else {
            return Err(Error::Damaged {
                what: format!("record {}", next.record.lsn),
                why: "it begins a lineage that does not continue this state".to_owned(),
            });
        };
        if parent.digest != self.position.digest {
            return Err(Error::Diverged {
                segment: ended,
                lsn: self.position.lsn,
                expected: parent.digest.to_string(),
                found: self.position.digest.to_string(),
            });
        }
        if parent.chain_lsn == self.position.lsn {
            return self.close_segment(ended, parent.chain);
        }
        // Restored from a snapshot alone that ended inside a segment: its chain is not known, and
        // nobody can ask for it.
        self.position.segment_ended = true;
        Ok(())
    }

    /// A `Seal` record may just have ended its segment.
    pub(crate) fn close_if_ended(&mut self) -> Result<(), Error> {
        let Some(info) = self.shared.wal.segment(self.position.segment) else {
            return Ok(());
        };
        let ended = info.state != SegmentState::Active && info.last_lsn == Some(self.position.lsn);
        match info.chain {
            Some(chain) if ended && !self.position.segment_ended => {
                self.close_segment(info.id, chain)
            }
            _ => Ok(()),
        }
    }

    fn close_segment(&mut self, id: SegmentId, chain: unisondb_types::Chain) -> Result<(), Error> {
        let info = self.shared.wal.segment(id);
        // A segment that came sealed (a backup, an ancestor) says what its digest must be. At a
        // fork inside it, what lies behind is not ours.
        let whole = info
            .as_ref()
            .is_some_and(|i| i.last_lsn == Some(self.position.lsn));
        if let Some(expected) = info.as_ref().and_then(|i| i.digest).filter(|_| whole)
            && expected != self.position.digest
        {
            return Err(Error::Diverged {
                segment: id,
                lsn: self.position.lsn,
                expected: expected.to_string(),
                found: self.position.digest.to_string(),
            });
        }
        let sealed = info
            .as_ref()
            .is_none_or(|i| i.state == SegmentState::Sealed);
        let row = SegmentRow {
            lineage: self.position.lineage,
            first_lsn: info.as_ref().map_or(Lsn::ZERO, |i| i.header.first_lsn),
            last_lsn: self.position.lsn,
            last_stamp: self.position.stamp,
            digest: self.position.digest,
            chain,
            checked: sealed,
        };
        let key = table::segment(id);
        let (_, bytes) = entry::encode(&key, self.position.lsn, &codec::encode(&row));
        let position = Position {
            segment_ended: true,
            chain,
            chain_lsn: self.position.lsn,
            ..self.position.clone()
        };
        let history = self.history.clone();
        self.publish(Changed::from([(key, Some(bytes))]), position, history);
        if !sealed {
            self.shared.checks.lock().add(row.check(id));
        }
        Ok(())
    }

    /// A `Check` has been compared and holds: its segment gets its footer.
    pub(super) fn seal_checked(&mut self, record: &Record) -> Result<(), Error> {
        let Ok(Command::Check(check)) = record.command() else {
            return Ok(());
        };
        self.shared.checks.lock().done(check.segment);
        if self.shared.wal.segment(check.segment).is_some() {
            self.seal_confirmed()
        } else {
            self.shared.sealed.send_replace(check.segment);
            Ok(())
        }
    }

    /// Writes the footers that are due, oldest first. A full disk or want of descriptors puts them
    /// off, it stops nothing:
    /// the next record tries again, or [`Applier::seal_owed`].
    pub(super) fn seal_confirmed(&mut self) -> Result<(), Error> {
        self.footers_owed = false;
        for info in self.shared.wal.unsealed_ended() {
            let key = table::segment(info.id);
            let Some(bytes) = view::get(&self.shared.memtable, &self.shared.store, &key)? else {
                return Ok(());
            };
            let row: SegmentRow = decoded(&key, entry::open(&key, &bytes)?.payload)?;
            if !row.checked {
                return Ok(());
            }
            match self.shared.wal.seal(info.id, row.digest) {
                Err(e) if e.is_passing() => {
                    tracing::warn!(segment = %info.id, error = %e, "its footer waits");
                    self.footers_owed = true;
                    if matches!(e, unisondb_wal::Error::Exhausted { .. }) {
                        *self.shared.footer_waits.lock() = Some(e.to_string());
                    }
                    return Ok(());
                }
                sealed => drop(sealed?),
            }
            *self.shared.footer_waits.lock() = None;
            self.shared.sealed.send_replace(info.id);
        }
        Ok(())
    }
}

impl Draft<'_> {
    /// Compares what the leader found at a segment's end with what this state had there (P7).
    pub(super) fn check(&mut self, check: &Check) -> Result<(), Error> {
        let key = table::segment(check.segment);
        let Some(kept) = self.get(&key)? else {
            // Ended before the snapshot that this state began with: nothing of ours to compare.
            return Ok(());
        };
        let mut row: SegmentRow = decoded(&key, &kept.payload)?;
        let own = row.check(check.segment);
        if own != *check {
            return Err(Error::Diverged {
                segment: check.segment,
                lsn: check.last_lsn,
                expected: format!("{} (chain {})", check.digest, check.chain),
                found: format!("{} (chain {})", own.digest, own.chain),
            });
        }
        row.checked = true;
        self.put(key, &codec::encode(&row))?;
        Ok(())
    }
}
