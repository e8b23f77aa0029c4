//! Records go from the log: openraft is told first, so that it never offers what is not there (D10). From
//! then on a member that lacks them gets a parcel.

use std::time::Duration;

use openraft_rt::WatchReceiver as _;
use unisondb_types::Lsn;

use crate::group::Group;
use crate::types;

/// How long it is waited for. A member that is just being sent those records uses them.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked again as soon as something is told.
const AT_ONCE: u32 = 8;
/// Between two looks after that.
const LOOK: Duration = Duration::from_millis(20);

impl Group {
    /// Lets go of all records up to `upto`, which LMDB holds. Whether nobody is sent them from here on: if
    /// not, they are to be kept for now.
    pub async fn release(&self, upto: Lsn) -> bool {
        let index = types::index(upto);
        let clock = self.engine.platform().clock.clone();
        let released = async {
            let (mut metrics, mut asked_at_once) = (self.raft.metrics(), 0);
            loop {
                let (purged, told) = {
                    let now = metrics.borrow_watched();
                    let reaches =
                        |id: &Option<types::LogId>| id.is_some_and(|id| id.index >= index);
                    (reaches(&now.purged), reaches(&now.snapshot))
                };
                if purged {
                    return true;
                }
                // How far LMDB goes; then what lies below may go. Asked again, it is only said again.
                let asked = match told {
                    false => self.raft.trigger().snapshot().await,
                    true => self.raft.trigger().purge_log(index).await,
                };
                if asked.is_err() {
                    return false;
                }
                // Not at once for ever: that it was asked is itself a change of what is told.
                asked_at_once += 1;
                tokio::select! {
                    biased;
                    changed = metrics.changed(), if asked_at_once <= AT_ONCE => if changed.is_err() {
                        return false;
                    },
                    () = clock.sleep(LOOK) => {}
                }
            }
        };
        tokio::select! {
            biased;
            released = released => released,
            () = clock.sleep(PATIENCE) => false,
        }
    }
}
