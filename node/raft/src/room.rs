//! Room in a group's log, on a disk that may be full: made before anything is promised (D9).

use unisondb_api::WriteError;
use unisondb_platform::OffloadExt as _;
use unisondb_wal::FRAME_HEADER_BYTES;

use crate::group::Group;
use crate::sync;
use crate::under_way::Share;

impl Group {
    /// Room for one more record, before anything is promised: a full disk is refused here and not
    /// met in the log.
    pub(crate) async fn reserve(&self, payload: usize) -> Result<Share, WriteError> {
        // What was freed for a flush or a footer is not for records, checks included.
        if !(self.may_take_room)() {
            return Err(WriteError::Full);
        }
        let share = self.under_way.take((FRAME_HEADER_BYTES + payload) as u64)?;
        self.make_room(self.under_way.bytes()).await?;
        Ok(share)
    }

    /// Room for so many bytes behind what is in the log.
    ///
    /// # Errors
    /// [`WriteError`]: there is none just now, or the log has stopped.
    pub async fn make_room(&self, bytes: u64) -> Result<(), WriteError> {
        let wal = self.engine().wal();
        let made = match wal.has_room(bytes) {
            true => Ok(()),
            false => {
                let wal = wal.clone();
                let offload = &self.engine().platform().offload;
                offload.blocking(move || wal.reserve(bytes)).await
            }
        };
        let made = made.map_err(|e| {
            sync::passing(&e).unwrap_or_else(|| {
                self.standing.fail(&e.to_string());
                WriteError::Failed(e.to_string())
            })
        });
        let full = made == Err(WriteError::Full);
        self.under_way
            .set_refused(if full { bytes.max(1) } else { 0 });
        made
    }

    /// Whether the disk had no room for what was last asked of it, or has none for what is in the log.
    pub fn is_full(&self) -> bool {
        self.under_way.refused() > 0 || self.is_stuck()
    }

    fn is_stuck(&self) -> bool {
        *self.standing.stuck().borrow() == Some(WriteError::Full)
    }

    /// Finds out whether the disk would take by now what it refused, without waiting for a client.
    pub async fn look_for_room(&self) {
        let refused = self.under_way.refused();
        if refused > 0 && !self.is_stuck() {
            // Whoever asks next is told.
            drop(self.make_room(refused).await);
        }
    }
}
