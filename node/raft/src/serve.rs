//! [`Parcels`]: what a member gives to others that lack records which are purged here (D11): one parcel
//! at a time, made when somebody asks for it, the same for all who do, and kept as long as it is read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use unisondb_engine::backup::{Outgoing, Parcel};
use unisondb_platform::OffloadExt as _;
use unisondb_types::Lsn;

use crate::group::Group;
use crate::message::Reply;

/// Bytes of a parcel in one message.
const PIECE_BYTES: usize = 1 << 20;
/// How long a parcel is kept that nobody reads: as long as one asks on who gets no answer. (What follows it
/// in the log is held besides, by the leader that waits for the member.)
const KEEP: Duration = Duration::from_secs(30);

/// The parcel of a member, if there is one.
#[derive(Default)]
pub(crate) struct Parcels(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    /// Given to the last one that was made: a piece belongs to one parcel, and to no later one.
    number: u64,
    making: bool,
    /// Why the last one could not be made, until somebody was told.
    failed: Option<String>,
    there: Option<There>,
}

struct There {
    outgoing: Arc<Outgoing>,
    /// When it was last read.
    read: Duration,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Every record up to this one has to be in it.
    pub(crate) through: Lsn,
    /// Of which parcel; 0: whichever there is, or will be.
    pub(crate) number: u64,
    /// From where on.
    pub(crate) offset: u64,
}

/// What there is for who asks.
enum Look {
    There(u64, Arc<Outgoing>),
    Making,
    /// It is the caller's to make.
    ToMake,
}

impl Parcels {
    fn look(&self, wanted: Wanted, now: Duration) -> Result<Look, String> {
        let mut shelf = self.0.lock();
        let number = shelf.number;
        let fits = |there: &&mut There| match wanted.number {
            0 => there.outgoing.parcel.lsn >= wanted.through,
            asked => asked == number,
        };
        if let Some(there) = shelf.there.as_mut().filter(fits) {
            there.read = now;
            return Ok(Look::There(number, there.outgoing.clone()));
        }
        if wanted.number > 0 {
            return Err("that snapshot is no longer kept here".to_owned());
        }
        if let Some(why) = shelf.failed.take() {
            return Err(why);
        }
        Ok(match std::mem::replace(&mut shelf.making, true) {
            true => Look::Making,
            false => Look::ToMake,
        })
    }
}

impl Group {
    /// A piece of a parcel, or that it is being made.
    ///
    /// # Errors
    /// In words: it cannot be made, or is no longer there.
    pub(crate) async fn serve(&self, wanted: Wanted) -> Result<(Reply, Bytes), String> {
        let now = self.engine.platform().clock.monotonic();
        let (number, outgoing) = match self.parcels.look(wanted, now)? {
            Look::There(number, outgoing) => (number, outgoing),
            Look::Making => return Ok((Reply::Making, Bytes::new())),
            Look::ToMake => {
                self.make(wanted.through).await;
                return Ok((Reply::Making, Bytes::new()));
            }
        };
        let parcel = outgoing.parcel;
        let offload = self.engine.platform().offload.clone();
        let read = move || outgoing.read(wanted.offset, PIECE_BYTES);
        let bytes = offload.blocking(read).await.map_err(|e| e.to_string())?;
        Ok((Reply::Piece { number, parcel }, Bytes::from(bytes)))
    }

    /// Makes one, beside whoever asked.
    async fn make(&self, through: Lsn) {
        let group = self.clone();
        let mut ends = self.ends.lock().await;
        while ends.tasks.try_join_next().is_some() {}
        if self.is_stopped() {
            self.parcels.0.lock().making = false;
            return;
        }
        ends.tasks.spawn(async move {
            let engine = group.engine.clone();
            let (clock, offload) = {
                let platform = engine.platform();
                (platform.clock.clone(), platform.offload.clone())
            };
            // Nobody waits for it who stops: what is half made goes with the next one, or the next start.
            let made = tokio::select! {
                biased;
                () = group.standing.stopping() => {
                    group.parcels.0.lock().making = false;
                    return;
                }
                made = offload.blocking(move || engine.outgoing(through)) => made,
            };
            {
                let mut shelf = group.parcels.0.lock();
                shelf.making = false;
                match made {
                    Ok(outgoing) => {
                        told(&outgoing.parcel, &group);
                        shelf.number += 1;
                        shelf.there = Some(There {
                            outgoing: Arc::new(outgoing),
                            read: clock.monotonic(),
                        });
                    }
                    Err(error) => {
                        tracing::warn!(namespace = %group.engine.namespace(), %error, "no snapshot can be made for a member that lacks purged records");
                        shelf.failed = Some(error.to_string());
                        return;
                    }
                }
            }
            loop {
                tokio::select! {
                    biased;
                    () = group.standing.stopping() => {}
                    () = clock.sleep(KEEP) => {}
                }
                let mut shelf = group.parcels.0.lock();
                let now = clock.monotonic();
                let is_read = |there: &There| now.saturating_sub(there.read) < KEEP;
                if group.is_stopped() || !shelf.there.as_ref().is_some_and(is_read) {
                    shelf.there = None;
                    return;
                }
            }
        });
    }
}

fn told(parcel: &Parcel, group: &Group) {
    tracing::info!(
        namespace = %group.engine.namespace(),
        lsn = %parcel.lsn,
        bytes = parcel.snapshot_bytes,
        "a snapshot was made for a member that lacks purged records"
    );
}
