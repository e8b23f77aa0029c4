//! The sync loop of one group, on a thread of its own: while one fsync runs, what is appended
//! meanwhile gathers and goes with the next (group commit), and openraft hears of both at once.
//!
//! | what fails | openraft hears | then |
//! | --- | --- | --- |
//! | disk full, no descriptor | nothing yet | tried again until there is room; nothing is lost |
//! | any other write or fsync | the error, which is final for it | the log has stopped (P14) |

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::mpsc;
use unisondb_platform::Platform;
use unisondb_wal::Wal;

use crate::standing::Standing;
use crate::types::Types;

/// How long until a full disk is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Who waits for what has been appended so far to be durable.
pub(crate) type Waiting = IOFlushed<Types>;

/// Ends when nobody can append any more, or the log has failed.
pub(crate) async fn run(
    platform: Platform,
    wal: Wal,
    standing: Arc<Standing>,
    mut appended: mpsc::UnboundedReceiver<Waiting>,
) {
    while let Some(first) = appended.recv().await {
        let mut waiting = vec![first];
        loop {
            while let Ok(next) = appended.try_recv() {
                waiting.push(next);
            }
            match wal.sync() {
                Ok(_) => break,
                Err(e) if e.is_passing() => {
                    standing.set_stuck(Some(e.to_string()));
                    platform.clock.sleep(AGAIN).await;
                }
                Err(e) => {
                    standing.fail(&e.to_string());
                    for one in waiting.drain(..) {
                        one.io_completed(Err(io::Error::other(e.to_string())));
                    }
                    break;
                }
            }
        }
        if standing.failed().is_none() {
            standing.set_stuck(None);
        }
        for one in waiting {
            one.io_completed(Ok(()));
        }
    }
}
