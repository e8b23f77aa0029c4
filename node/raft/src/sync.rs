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
use tokio::sync::{mpsc, oneshot};
use unisondb_api::WriteError;
use unisondb_platform::Platform;
use unisondb_wal::{Error, Wal};

use crate::standing::Standing;
use crate::types::Types;

/// How long until a full disk is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Who waits for what has been appended so far to be durable.
pub(crate) enum Waiting {
    /// openraft, which appended.
    Append(IOFlushed<Types>),
    /// A vote: openraft takes all that was appended before a vote for durable once the vote is (P1).
    /// Dropped if it cannot be.
    Vote(oneshot::Sender<()>),
}

impl Waiting {
    fn tell(self, synced: Result<(), &str>) {
        match self {
            Waiting::Append(flushed) => {
                flushed.io_completed(synced.map_err(|why| io::Error::other(why.to_owned())));
            }
            // Who votes may have gone meanwhile.
            Waiting::Vote(go) if synced.is_ok() => drop(go.send(())),
            Waiting::Vote(_) => {}
        }
    }
}

/// What is answered where the log has no room just now; `None` for an error that is final.
pub(crate) fn passing(error: &Error) -> Option<WriteError> {
    match error {
        Error::Full { .. } => Some(WriteError::Full),
        e if e.is_passing() => Some(WriteError::Unavailable(e.to_string())),
        _ => None,
    }
}

/// Ends when nobody can append any more, or the log has failed.
pub(crate) async fn run(
    platform: Platform,
    wal: Wal,
    standing: Arc<Standing>,
    mut appended: mpsc::UnboundedReceiver<Waiting>,
) {
    while let Some(first) = appended.recv().await {
        let mut waiting = vec![first];
        let synced = loop {
            while let Ok(next) = appended.try_recv() {
                waiting.push(next);
            }
            let error = match wal.sync() {
                Ok(_) => break Ok(()),
                Err(error) => error,
            };
            let Some(why) = passing(&error) else {
                standing.fail(&error.to_string());
                break Err(error.to_string());
            };
            standing.set_stuck(Some(why));
            tokio::select! {
                biased;
                () = standing.stopping() => break Err("the node stops".to_owned()),
                () = platform.clock.sleep(AGAIN) => {}
            }
        };
        if synced.is_ok() {
            standing.set_stuck(None);
        }
        for one in waiting {
            one.tell(synced.as_ref().map_err(String::as_str).copied());
        }
    }
}
