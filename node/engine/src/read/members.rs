//! Who belongs to the group, as the state knows it: what raft is told at a start, and what goes with
//! a snapshot.

use unisondb_types::{LineageRecord, Lsn, Term, codec};

use crate::engine::decode;
use crate::state::entry;
use crate::state::position::{self, Position};
use crate::state::rows::Membership;
use crate::state::table;
use crate::state::view::View;
use crate::{Engine, Error};

/// Where a state stands in its log, and who belonged to the group there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// The last record in it.
    pub lsn: Lsn,
    /// Its term.
    pub term: Term,
    /// The members as of that record.
    pub membership: Membership,
}

/// What is kept counts unless the lineage began after it: a release that keeps none may have begun it.
fn current(kept: Option<Membership>, history: &LineageRecord) -> Membership {
    let kept = kept.filter(|membership| membership.lsn >= history.first_lsn());
    kept.unwrap_or_else(|| Membership::at_begin(history))
}

impl Engine {
    /// Of what is applied now.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Damaged`].
    pub fn applied_stand(&self) -> Result<Stand, Error> {
        loop {
            let (lsn, term, history) = {
                let m = self.0.memtable.read();
                (m.position.lsn, m.position.term, m.history.clone())
            };
            let view = View::now(&self.0.memtable, &self.0.store)?;
            if view.lsn != lsn {
                continue;
            }
            let key = table::meta(position::MEMBERS);
            let kept = match view.get(&key)? {
                Some(bytes) => Some(decode(&key, entry::open(&key, &bytes)?.payload)?),
                None => None,
            };
            let membership = current(kept, &history);
            return Ok(Stand {
                lsn,
                term,
                membership,
            });
        }
    }

    /// Of what LMDB holds, synced. `None` before the first flush.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Damaged`].
    pub fn flushed_stand(&self) -> Result<Option<Stand>, Error> {
        let view = self.0.store.read()?;
        let meta = |name: &str| -> Result<Option<Vec<u8>>, Error> {
            let key = table::meta(name);
            let Some(bytes) = view.get(&key)? else {
                return Ok(None);
            };
            Ok(Some(entry::open(&key, bytes)?.payload.to_vec()))
        };
        let damaged = |e: codec::DecodeError| Error::Damaged {
            what: "what the state says of itself".to_owned(),
            why: e.to_string(),
        };
        let (Some(position), Some(history)) = (meta(position::POSITION)?, meta(position::LINEAGE)?)
        else {
            return Ok(None);
        };
        let position: Position = codec::decode(&position).map_err(damaged)?;
        let history: LineageRecord = codec::decode(&history).map_err(damaged)?;
        let kept = meta(position::MEMBERS)?;
        let kept = kept.map(|bytes| codec::decode(&bytes).map_err(damaged));
        let membership = current(kept.transpose()?, &history);
        Ok(Some(Stand {
            lsn: position.lsn,
            term: position.term,
            membership,
        }))
    }
}
