//! The sync loop of one group, on a thread of its own: while one fsync runs, what is appended
//! meanwhile gathers and goes with the next (group commit), and openraft hears of all of it at once.
//!
//! | what fails | openraft hears | then |
//! | --- | --- | --- |
//! | disk full, no descriptor | nothing yet | tried again until there is room; nothing is lost |
//! | any other write or fsync | the error, which is final for it | the log has stopped (P14) |
//!
//! With [`Durability::Interval`] openraft hears at once of what clients wrote, and the fsync follows.
//! What is acted on in files (seals, checks) and what raft itself says is durable first all the same.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};
use unisondb_api::WriteError;
use unisondb_wal::Error;

use crate::log::{LogReader, Shared};
use crate::types::Types;

/// How long until a full disk is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// When what a client wrote counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is.
    Always,
    /// At once; a power loss takes what was written since the last fsync, which is so long ago at
    /// most.
    Interval(Duration),
}

/// Who waits for what has been appended so far to be durable.
pub(crate) enum Waiting {
    /// openraft, which appended; `relaxed` if it need not wait.
    Append {
        flushed: IOFlushed<Types>,
        relaxed: bool,
    },
    /// A vote: openraft takes all that was appended before a vote for durable once the vote is (P1).
    /// Dropped if it cannot be.
    Vote(oneshot::Sender<()>),
}

impl Waiting {
    fn is_relaxed(&self) -> bool {
        matches!(self, Waiting::Append { relaxed: true, .. })
    }

    fn tell(self, synced: Result<(), &str>) {
        match self {
            Waiting::Append { flushed, .. } => {
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

type Appended = mpsc::UnboundedReceiver<Waiting>;

/// Ends when nobody can append any more; then all is durable that can be, and `at_end` is told.
pub(crate) async fn run(log: LogReader, mut appended: Appended, at_end: oneshot::Sender<()>) {
    let shared = log.shared();
    // When the interval is over, while something waits for it.
    let mut due: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    loop {
        let next = tokio::select! {
            biased;
            () = async { due.as_mut().expect("asked only if it is there").await }, if due.is_some() => None,
            next = appended.recv() => match next {
                Some(next) => Some(next),
                None => break,
            },
        };
        let is_due = next.is_none();
        let mut waiting: Vec<Waiting> = next.into_iter().collect();
        gather(&mut appended, &mut waiting);
        if let Durability::Interval(interval) = shared.durability
            && !is_due
            && shared.standing.failed().is_none()
            && waiting.iter().all(Waiting::is_relaxed)
        {
            waiting.into_iter().for_each(|one| one.tell(Ok(())));
            due.get_or_insert_with(|| shared.platform.clock.sleep(interval));
            continue;
        }
        due = None;
        let synced = sync(shared, &mut appended, &mut waiting).await;
        for one in waiting {
            one.tell(synced.as_ref().map_err(String::as_str).copied());
        }
    }
    // Who was answered was told what a power loss may take; an end in order takes nothing.
    if due.is_some()
        && let Err(why) = sync(shared, &mut appended, &mut Vec::new()).await
    {
        tracing::warn!(why, "what was answered last is not durable at the end");
    }
    // Nobody waits for an end that is none in order.
    let _ = at_end.send(());
}

/// Brings everything appended to the disk, as soon as there is room.
async fn sync(
    shared: &Shared,
    appended: &mut Appended,
    waiting: &mut Vec<Waiting>,
) -> Result<(), String> {
    let Shared {
        platform,
        wal,
        standing,
        ..
    } = shared;
    loop {
        gather(appended, waiting);
        let error = match wal.sync() {
            Ok(_) => {
                standing.set_stuck(None);
                shared.vouch();
                return Ok(());
            }
            Err(error) => error,
        };
        let Some(why) = passing(&error) else {
            standing.fail(&error.to_string());
            return Err(error.to_string());
        };
        standing.set_stuck(Some(why));
        tokio::select! {
            biased;
            () = standing.stopping() => return Err("the node stops".to_owned()),
            () = platform.clock.sleep(AGAIN) => {}
        }
    }
}

fn gather(appended: &mut Appended, waiting: &mut Vec<Waiting>) {
    while let Ok(next) = appended.try_recv() {
        waiting.push(next);
    }
}
