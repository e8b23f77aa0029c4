//! The end of a segment's life: its footer, reading it as a whole, holds, and purging it.

use std::sync::Arc;

use unisondb_platform::{Access, File, FileExt};
use unisondb_types::{Digest, Lsn, SegmentId, Sha256Sum};

use super::state::{Life, Segment, State};
use super::{Inner, SealedFile, Wal};
use crate::error::{Error, SegmentError};
use crate::info::SegmentInfo;
use crate::survey::{Verified, verify};

/// A reason not to purge a segment or what follows it; ends when it is dropped.
pub struct Hold {
    inner: Arc<Inner>,
    key: u64,
    from: SegmentId,
}

impl Hold {
    /// The segment from which it keeps.
    pub fn from(&self) -> SegmentId {
        self.from
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inner.holds.lock().remove(&self.key);
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Gives the oldest rolled segment its footer: durable when it returns. Done again with the same
    /// digest it does nothing.
    ///
    /// # Errors
    /// [`Error::NotReady`] when it is active, not committed, not the oldest one unsealed, or sealed
    /// with another digest; [`Error::NoSegment`], [`Error::Full`], [`Error::Poisoned`], [`Error::Io`].
    pub fn seal(&self, id: SegmentId, digest: Digest) -> Result<SegmentInfo, Error> {
        let mut io = self.inner.io.lock();
        self.sound()?;
        {
            let state = self.inner.state.lock();
            let segment = state.segment(id).ok_or(Error::NoSegment(id))?;
            if let Some(why) = not_sealable(&state, segment, digest) {
                return Err(Error::NotReady {
                    segment: id,
                    wanted: "sealed",
                    why,
                });
            }
            if segment.is_sealed() {
                return Ok(segment.info());
            }
        }
        // Committed by others, perhaps, before it was synced here: its frames come before its footer.
        self.flush(&mut io)?;
        let (footer, sha256) = {
            let state = self.inner.state.lock();
            let segment = state.segment(id).ok_or(Error::NoSegment(id))?;
            let footer = segment.tally.footer(digest, None);
            (footer, segment.tally.file_sha256(&footer))
        };
        let path = self.path(id);
        let file = self
            .disk()
            .open(&path, Access::Write)
            .map_err(|e| Error::io("cannot open", &path, e))?;
        if let Err(e) = file.write_all_at(&footer.encode(), footer.content_bytes) {
            let error = Error::io("cannot write", &path, e);
            if let Error::Full { .. } = error {
                // What got through goes again; if it stays, recovery knows a torn footer.
                drop(file.set_len(footer.content_bytes));
            }
            return Err(self.failed(error));
        }
        self.sync_file(&*file, &path)?;
        let mut state = self.inner.state.lock();
        let segment = state.segment_mut(id).ok_or(Error::NoSegment(id))?;
        segment.life = Life::Sealed {
            footer,
            sha256: Some(sha256),
        };
        segment.tally.forget_hash();
        Ok(segment.info())
    }

    /// Opens a sealed segment for reading.
    ///
    /// # Errors
    /// [`Error::NoSegment`], [`Error::NotReady`], [`Error::Io`].
    pub fn open_sealed(&self, id: SegmentId) -> Result<SealedFile, Error> {
        let info = self.segment(id).ok_or(Error::NoSegment(id))?;
        if info.digest.is_none() {
            return Err(Error::NotReady {
                segment: id,
                wanted: "read as a whole",
                why: "it is not sealed".to_owned(),
            });
        }
        let path = self.path(id);
        let file = match self.disk().open(&path, Access::Read) {
            // Purged since.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.segment(id).is_none() => {
                return Err(Error::NoSegment(id));
            }
            other => other.map_err(|e| Error::io("cannot open", &path, e))?,
        };
        let len = info.bytes;
        Ok(SealedFile {
            info,
            file,
            len,
            path,
            offload: self.inner.platform.offload.clone(),
        })
    }

    /// Opens a segment's file for reading, sealed or not: its header, and its frames as far as they are
    /// durable, are there; what lies behind them may change.
    ///
    /// # Errors
    /// [`Error::NoSegment`] also where it has no file yet; [`Error::Io`].
    pub fn open_begun(&self, id: SegmentId) -> Result<Arc<dyn File>, Error> {
        let path = self.path(id);
        match self.disk().open(&path, Access::Read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::NoSegment(id)),
            other => other.map_err(|e| Error::io("cannot open", &path, e)),
        }
    }

    /// The last record that [`purge`](Self::purge) up to a segment would remove now; `None`: it would
    /// remove nothing.
    pub fn purgeable(&self, up_to: SegmentId) -> Option<Lsn> {
        let holds = self.inner.holds.lock();
        let state = self.inner.state.lock();
        let segments = state.segments.iter().zip(state.segments.iter().skip(1));
        let goes = segments.take_while(|(oldest, next)| {
            let id = oldest.id();
            let held = holds.values().any(|(_, from)| *from <= id);
            oldest.is_sealed() && next.is_sealed() && id <= up_to && !held
        });
        goes.last()
            .map(|(_, next)| next.tally.header.first_lsn.prev())
    }

    /// SHA-256 of a sealed segment's file: read and verified if it is not known yet, then kept.
    ///
    /// # Errors
    /// As [`open_sealed`](Self::open_sealed), and [`Error::Damaged`].
    pub fn sha256(&self, id: SegmentId) -> Result<Sha256Sum, Error> {
        let info = self.segment(id).ok_or(Error::NoSegment(id))?;
        match info.sha256 {
            Some(sum) => Ok(sum),
            None => {
                let verified = self.scrub(id)?;
                Ok(verified
                    .info
                    .sha256
                    .expect("a scrubbed segment is sealed, and its file was hashed"))
            }
        }
    }

    /// Reads a sealed segment again and checks everything, against itself and against what is known
    /// of it.
    ///
    /// # Errors
    /// As [`sha256`](Self::sha256).
    pub fn scrub(&self, id: SegmentId) -> Result<Verified, Error> {
        let sealed = self.open_sealed(id)?;
        let damaged = |e| Error::damaged(id, &sealed.path, e);
        let verified = verify(self.disk(), &sealed.path).map_err(damaged)?;
        let known = SegmentInfo {
            sha256: verified.info.sha256,
            vouched: verified.info.vouched,
            ..sealed.info.clone()
        };
        if known != verified.info {
            return Err(damaged(SegmentError::Footer {
                offset: sealed.len - crate::footer::FOOTER_BYTES as u64,
                why: "the file is not the one that was sealed or opened here".to_owned(),
            }));
        }
        if let Some(Life::Sealed { sha256, .. }) =
            self.inner.state.lock().segment_mut(id).map(|s| &mut s.life)
        {
            *sha256 = verified.info.sha256;
        }
        Ok(verified)
    }

    /// Keeps `from` and all later segments from being purged, until the hold is dropped.
    pub fn hold(&self, name: &str, from: SegmentId) -> Hold {
        let mut holds = self.inner.holds.lock();
        let key = holds.last_key_value().map_or(0, |(key, _)| key + 1);
        holds.insert(key, (name.to_owned(), from));
        Hold {
            inner: self.inner.clone(),
            key,
            from,
        }
    }
    /// Every hold: its name, and the segment from which it keeps.
    pub fn holds(&self) -> Vec<(String, SegmentId)> {
        self.inner.holds.lock().values().cloned().collect()
    }

    /// Removes sealed segments up to and including `up_to`, oldest first, stopping at holds; never
    /// the newest sealed one. Gives the ids removed.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Poisoned`].
    pub fn purge(&self, up_to: SegmentId) -> Result<Vec<SegmentId>, Error> {
        let _io = self.inner.io.lock();
        self.sound()?;
        let mut removed = Vec::new();
        let result = loop {
            // Locked until the file is gone: a hold is taken before, and keeps it, or after, and
            // finds the segment gone.
            let holds = self.inner.holds.lock();
            let mut state = self.inner.state.lock();
            let purgeable = |id| id <= up_to && holds.values().all(|(_, from)| *from > id);
            let (Some(oldest), Some(next)) = (state.segments.front(), state.segments.get(1)) else {
                break Ok(());
            };
            let id = oldest.id();
            if !oldest.is_sealed() || !next.is_sealed() || !purgeable(id) {
                break Ok(());
            }
            // Forgotten before it is removed: nobody is sent to a file that is not there.
            let segment = state.segments.pop_front();
            drop(state);
            let path = self.path(id);
            match self.disk().remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let mut state = self.inner.state.lock();
                    segment
                        .into_iter()
                        .for_each(|s| state.segments.push_front(s));
                    break Err(Error::io("cannot remove", &path, e));
                }
                _ => removed.push(id),
            }
        };
        if !removed.is_empty() {
            self.inner.cursors.lock().clear();
            self.sync_folder()?;
        }
        result.map(|()| removed)
    }
}

/// Why a segment cannot be sealed with this digest; `None` if it can, or is already.
fn not_sealable(state: &State, segment: &Segment, digest: Digest) -> Option<String> {
    match &segment.life {
        Life::Active => return Some("it is appended to".to_owned()),
        Life::Sealed { footer, .. } if footer.digest == digest => return None,
        Life::Sealed { footer, .. } => {
            return Some(format!(
                "it is sealed already, with digest {}",
                footer.digest
            ));
        }
        Life::Rolled { .. } => {}
    }
    let (last, committed) = (segment.last(), state.positions.committed);
    if committed < last {
        return Some(format!(
            "it ends with record {last}, committed is {committed}"
        ));
    }
    let oldest = state.segments.iter().find(|s| !s.is_sealed())?;
    (oldest.id() != segment.id()).then(|| format!("segment {} comes before it", oldest.id()))
}
