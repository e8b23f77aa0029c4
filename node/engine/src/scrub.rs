//! Scrub: reads the whole state again, checks every entry against its checksum, and compares the
//! digest of what it read with the one on record (P13). Damage stops the namespace.

use std::future::Future;
use std::ops::Bound;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use unisondb_store::Direction;
use unisondb_types::{Digest, Lsn, SegmentId};

use crate::Error;
use crate::engine::{Engine, Shared, decode};
use crate::pace::Pace;
use crate::state::entry;
use crate::state::position::{self, Position};
use crate::state::table::{self, Table};
use crate::state::view::View;

/// Bytes read between two calls of the pacer.
const STRIDE: usize = 1 << 20;

/// What a scrub of the state found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// The moment that was read.
    pub lsn: Lsn,
    /// Entries read.
    pub entries: u64,
    /// The digest, of what was read and on record alike.
    pub digest: Digest,
}

impl Engine {
    /// Reads and checks the whole state as it is now; awaits `pace` after every mebibyte, which may
    /// sleep to bound the rate, and calls the scrub off with `false`. Between two pauses it blocks for a millisecond or so: run it on
    /// `Offload::thread`. One LMDB snapshot is held meanwhile: a pace so slow that it takes hours
    /// lets LMDB's file grow by what is written in those hours.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Diverged`]: the namespace has stopped.
    pub async fn scrub_state<P: Future<Output = bool>>(
        &self,
        pace: impl Fn(usize) -> P,
    ) -> Result<Scrubbed, Error> {
        let result = self.read_all(pace).await;
        if let Err(e @ (Error::Damaged { .. } | Error::Diverged { .. })) = &result {
            self.0.stop(&format!("scrub: {e}"));
        }
        result
    }

    async fn read_all<P: Future<Output = bool>>(
        &self,
        pace: impl Fn(usize) -> P,
    ) -> Result<Scrubbed, Error> {
        let view = View::now(&self.0.memtable, &self.0.store)?;
        let mut sum = Sum {
            digest: Digest::EMPTY,
            entries: 0,
            next: Some(Bytes::from_static(&[0])),
        };
        while let Some(from) = sum.next.take() {
            let bytes = sum.stride(&view, &from)?;
            if !pace(bytes).await {
                return Err(Error::Stopped("the scrub was called off".to_owned()));
            }
        }
        if sum.digest != view.digest {
            return Err(Error::Diverged {
                segment: SegmentId::ZERO,
                lsn: view.lsn,
                expected: view.digest.to_string(),
                found: sum.digest.to_string(),
            });
        }
        Ok(Scrubbed {
            lsn: view.lsn,
            entries: sum.entries,
            digest: sum.digest,
        })
    }
}

/// What has been read so far, and the key to go on from.
struct Sum {
    digest: Digest,
    entries: u64,
    next: Option<Bytes>,
}

impl Sum {
    /// Reads one stride; gives how many bytes that were.
    fn stride(&mut self, view: &View, from: &[u8]) -> Result<usize, Error> {
        let mut bytes = 0;
        for item in view.range(from, &[0xff], Direction::Forward) {
            let (key, value) = item?;
            if bytes >= STRIDE {
                self.next = Some(key);
                break;
            }
            let entry = entry::open(&key, &value)?;
            if Table::of(&key).is_some_and(Table::in_digest) {
                self.digest.add(&entry.hash);
            }
            self.entries += 1;
            bytes += key.len() + value.len();
        }
        Ok(bytes)
    }
}

/// A proof, on a thread of its own, that every entry of one LMDB commit is what was written, and
/// that together they are the state that its position says: what is copied meanwhile is (P13).
pub(crate) struct Proof(mpsc::Receiver<Result<(), Error>>);

impl Proof {
    /// Begins the proof of what `view` shows.
    pub(crate) fn begin(shared: &Arc<Shared>, view: unisondb_store::View) -> Proof {
        let (done, result) = mpsc::sync_channel(1);
        let handle = shared.clone();
        shared.platform.offload.run(Box::new(move || {
            let result = prove(&view, &mut Pace::new(&handle.platform));
            if let Err(e @ (Error::Damaged { .. } | Error::Diverged { .. })) = &result {
                handle.stop(&format!("backup: {e}"));
            }
            drop((view, handle));
            // Who asked may have given up meanwhile.
            drop(done.send(result));
        }));
        Proof(result)
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Diverged`]: the namespace has stopped.
    pub(crate) fn wait(self) -> Result<(), Error> {
        self.0
            .recv()
            .unwrap_or_else(|_| Err(Error::Stopped("a proof was given up".to_owned())))
    }
}

fn prove(view: &unisondb_store::View, pace: &mut Pace) -> Result<(), Error> {
    let mut digest = Digest::EMPTY;
    let mut position: Option<Position> = None;
    let at = table::meta(position::POSITION);
    for item in view.range(Bound::Unbounded, Bound::Unbounded, Direction::Forward) {
        let (key, value) = item?;
        let entry = entry::open(key, value)?;
        if Table::of(key).is_some_and(Table::in_digest) {
            digest.add(&entry.hash);
        } else if *key == at[..] {
            position = Some(decode(key, entry.payload)?);
        }
        if pace.is_up(key.len() + value.len()) {
            pace.rest();
        }
    }
    let position = position.ok_or_else(|| Error::Damaged {
        what: "the position".to_owned(),
        why: "it is not there".to_owned(),
    })?;
    if digest != position.digest {
        return Err(Error::Diverged {
            segment: position.segment,
            lsn: position.lsn,
            expected: position.digest.to_string(),
            found: digest.to_string(),
        });
    }
    Ok(())
}
