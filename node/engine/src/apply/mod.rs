//! [`Applier`]: the one place that changes state.
//!
//! Each committed record, in order, becomes a set of changed entries, a new digest and an
//! [`Outcome`]; readers see all of a record or nothing (P2). What applying looks at: the record and
//! the state before it. Not at a clock, at chance or at configuration; so every machine that
//! applies the same records has the same digest (P7).
//!
//! | record | effect |
//! | --- | --- |
//! | `Lineage` | the history is this one from here on; what was open is aborted |
//! | `User` | [`actions`]: writes and transactions, once per idempotency key |
//! | `Membership` | who belongs to the group from here on |
//! | `Seal` | nothing here: the log has ended its segment |
//! | `Check` | compared with what this state had at that segment's end; then the segment is sealed |
//!
//! A failure (damage, LMDB, a digest that differs) stops the namespace; it is never stepped over.

mod actions;
mod draft;
mod oldest;
mod segments;
mod transactions;

use std::sync::Arc;

use unisondb_types::{Command, Kind, LineageRecord, Lsn, Members, Outcome, Record, codec};
use unisondb_wal::Entry;

use crate::Error;
use crate::engine::Shared;
use crate::state::position::{self, Position};
use crate::state::rows::Membership;
use crate::state::table::{self, Table};
use draft::Draft;
use oldest::Oldest;

/// Applies committed records in order. There is one per namespace, owned by its writer.
pub struct Applier {
    shared: Arc<Shared>,
    position: Position,
    history: Arc<LineageRecord>,
    /// Where what is trimmed by age begins.
    oldest: Oldest,
    /// A segment is confirmed, and a full disk has kept its footer from being written.
    footers_owed: bool,
}

impl Applier {
    /// Goes on where the state stands.
    pub(crate) fn new(shared: Arc<Shared>) -> Applier {
        let (position, history) = {
            let m = shared.memtable.read();
            (m.position.clone(), m.history.clone())
        };
        Applier {
            shared,
            position,
            history,
            oldest: Oldest::default(),
            footers_owed: false,
        }
    }

    /// The last record applied.
    pub fn applied(&self) -> Lsn {
        self.position.lsn
    }

    /// Entries, and removals over them, that trimming by age has walked over since the start: a
    /// few a record, however much was trimmed since the last flush.
    pub fn visited_by_trimming(&self) -> u64 {
        self.oldest.visited
    }

    /// Applies the next record. Gives the LSN to answer with (for a repeated idempotency key, that
    /// of the first use) and the outcome; records that no client waits for give `Written` of 0.
    ///
    /// # Errors
    /// Any [`Error`] stops the namespace: the state stays as it was before this record, and no
    /// further record is applied until the process restarts.
    pub fn apply(&mut self, entry: &Entry) -> Result<(Lsn, Outcome), Error> {
        if let Some(reason) = self.shared.stopped() {
            return Err(Error::Stopped(reason));
        }
        let result = self.apply_next(entry);
        if let Err(e) = &result {
            self.shared
                .stop(&format!("record {}: {e}", entry.record.lsn));
        }
        result
    }

    /// Writes the footers that a full disk has kept from being written, if there is room now. Every
    /// record does so too; this is for when none comes.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn seal_owed(&mut self) -> Result<(), Error> {
        if !self.footers_owed || self.shared.stopped().is_some() {
            return Ok(());
        }
        let result = self.seal_confirmed();
        if let Err(e) = &result {
            self.shared.stop(&format!("a footer that was owed: {e}"));
        }
        result
    }

    fn apply_next(&mut self, entry: &Entry) -> Result<(Lsn, Outcome), Error> {
        let record = &entry.record;
        assert_eq!(
            record.lsn,
            self.position.lsn.next(),
            "records are applied in order: {} after {}",
            record.lsn,
            self.position.lsn
        );
        if entry.segment != self.position.segment {
            self.close_segment_before(entry)?;
        }
        let mut position = Position {
            lsn: record.lsn,
            term: record.term,
            stamp: record.stamp,
            crc: entry.crc,
            segment: entry.segment,
            offset: entry.end,
            segment_ended: false,
            ..self.position.clone()
        };
        let command = record.command().map_err(|e| Error::Damaged {
            what: format!("record {}", record.lsn),
            why: e.to_string(),
        })?;
        let mut history = self.history.clone();
        let mut draft = Draft::new(
            &self.shared,
            &mut position,
            &mut self.oldest,
            record.lsn,
            record.stamp,
        );
        let (lsn, outcome) = match command {
            Command::Lineage(lineage) => {
                draft.begin_lineage(&lineage)?;
                draft.members(record, Members::of(lineage.members.clone()))?;
                history = Arc::new(*lineage);
                (record.lsn, Outcome::Written { processed: 0 })
            }
            Command::User {
                idempotency,
                action,
            } => draft.user(idempotency, action)?,
            Command::Check(check) => {
                draft.check(&check)?;
                (record.lsn, Outcome::Written { processed: 0 })
            }
            Command::Membership(members) => {
                draft.members(record, members)?;
                (record.lsn, Outcome::Written { processed: 0 })
            }
            Command::Seal(_) | Command::Blank => (record.lsn, Outcome::Written { processed: 0 }),
        };
        let changes = draft.into_changes();
        self.publish(changes, position, history);
        self.after(record)?;
        Ok((lsn, outcome))
    }

    /// Makes a record's changes visible, all at once.
    fn publish(
        &mut self,
        changes: draft::Changed,
        position: Position,
        history: Arc<LineageRecord>,
    ) {
        self.position = position;
        self.history = history;
        let bytes = {
            let mut m = self.shared.memtable.write();
            m.take(changes, self.position.clone());
            m.history = self.history.clone();
            m.active_bytes
        };
        self.shared.applied.send_replace(self.position.lsn);
        if bytes >= self.shared.flush_bytes {
            self.shared.flush_wanted.notify_one();
        }
    }

    /// What follows once a record is applied: the log's part of it.
    fn after(&mut self, record: &Record) -> Result<(), Error> {
        if self.footers_owed {
            self.seal_confirmed()?;
        }
        match record.kind {
            // A `Seal` that named the active segment has ended it: take its sum now, not when
            // (and if) the next record comes.
            Kind::Seal => self.close_if_ended(),
            Kind::Check => self.seal_checked(record),
            _ => Ok(()),
        }
    }
}

impl Draft<'_> {
    /// From this record on the group has these members.
    fn members(&mut self, record: &Record, members: Members) -> Result<(), Error> {
        let (lsn, term) = (record.lsn, record.term);
        let membership = Membership { lsn, term, members };
        self.put(table::meta(position::MEMBERS), &codec::encode(&membership))?;
        Ok(())
    }

    fn begin_lineage(&mut self, lineage: &LineageRecord) -> Result<(), Error> {
        let (from, to) = Table::Tx.bounds();
        for key in self.keys(&from, &to)? {
            let id = table::tx_id(&key).ok_or_else(|| Error::Damaged {
                what: "an open transaction".to_owned(),
                why: "its key is too short".to_owned(),
            })?;
            self.abort_for_lineage(&id)?;
        }
        let p = self.position();
        p.lineage = lineage.lineage;
        p.cluster = lineage.cluster;
        p.namespace = lineage.namespace.clone();
        Ok(())
    }
}
